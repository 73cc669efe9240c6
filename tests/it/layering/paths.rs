//! Finds the paths that Rust source names: `use` trees and paths in code.
//!
//! Works on tokens, so comments and strings do not count and code inside macros does. Does not expand macros and does
//! not know what a path resolves to; [`target`] says as much as can be told from the position of the file.

use std::collections::BTreeSet;
use std::str::FromStr;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// A path as written, with the names in front of a `use` group filled in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedPath {
    /// 1-based.
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
    /// How many inline `mod x { … }` blocks stand around it: each moves `super` by one.
    pub(crate) inline_modules: usize,
    /// Written `::name`, so that it means a crate whatever the file declares.
    pub(crate) is_global: bool,
}

/// What one file names.
#[derive(Default)]
struct Names {
    paths: Vec<NamedPath>,
    /// Modules that the file declares, and last names of what it imports. A path that begins with one of these leads
    /// where that leads, and not to a crate that happens to have the same name (`mod h2;`, `use crate::codec::h2;`).
    local: BTreeSet<String>,
}

/// What a path leads to, seen from the crate's root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A top-level module of the same crate.
    Module(String),
    /// The crate's root itself: `use crate::*`, `use crate as x`.
    Root,
    /// Another crate, or something local to the file: the first segment tells.
    External,
    /// The file's own top-level module.
    Own,
}

/// Every path of two or more segments, every path in a `use`, and every `extern crate`; without those that begin with
/// a name which the file itself declares or imports.
///
/// # Errors
/// The text is not Rust tokens (an unclosed bracket or string).
pub(crate) fn named_paths(source: &str) -> Result<Vec<NamedPath>, String> {
    let stream = TokenStream::from_str(source).map_err(|error| error.to_string())?;
    let mut names = Names::default();
    walk(stream, 0, &mut names);
    let Names { mut paths, local } = names;
    paths.retain(|path| path.is_global || path.segments.first().is_none_or(|first| !local.contains(first)));
    Ok(paths)
}

/// Where `path` leads when it stands in the module `file_modules` (`["net", "listen"]` for `src/net/listen.rs`).
pub(crate) fn target(path: &NamedPath, file_modules: &[String]) -> Target {
    let from_root = |segment: Option<&String>| match segment.map(String::as_str) {
        None | Some("*" | "self") => Target::Root,
        Some(name) => Target::Module(name.to_owned()),
    };
    match path.segments.first().map(String::as_str) {
        Some("crate") => from_root(path.segments.get(1)),
        Some("self") => Target::Own,
        Some("super") => {
            let climbs = path
                .segments
                .iter()
                .take_while(|segment| *segment == "super")
                .count();
            let depth = file_modules.len() + path.inline_modules;
            if depth > climbs {
                Target::Own
            } else {
                from_root(path.segments.get(climbs))
            }
        }
        _ => Target::External,
    }
}

fn walk(stream: TokenStream, inline_modules: usize, names: &mut Names) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += match token {
            TokenTree::Group(group) => {
                let is_module =
                    group.delimiter() == Delimiter::Brace && at >= 2 && is_word(&tokens, at - 2, "mod");
                walk(group.stream(), inline_modules + usize::from(is_module), names);
                1
            }
            TokenTree::Ident(word) if word == "use" => {
                let end = tokens
                    .iter()
                    .skip(at)
                    .position(|t| is_punct(t, ';'))
                    .map_or(tokens.len(), |n| at + n);
                use_tree(&tokens[at + 1..end], &[], inline_modules, names);
                end - at
            }
            TokenTree::Ident(word) if word == "extern" && is_word(&tokens, at + 1, "crate") => {
                names.paths.push(path(&tokens[at + 2..], &[], inline_modules));
                2
            }
            TokenTree::Ident(word) if word == "mod" => {
                names
                    .local
                    .extend(words(tokens.get(at + 1..at + 2).unwrap_or_default()));
                1
            }
            TokenTree::Ident(_) => {
                let length = path_length(&tokens[at..]);
                if length > 1 {
                    let is_global = at >= 2 && is_separator(&tokens[at - 2..]);
                    names.paths.push(NamedPath {
                        is_global,
                        ..path(&tokens[at..at + length], &[], inline_modules)
                    });
                }
                length
            }
            // `<T as Trait>::name`: what follows is an associated item, no path of its own.
            TokenTree::Punct(_)
                if is_separator(&tokens[at..]) && at > 0 && is_punct(&tokens[at - 1], '>') =>
            {
                2 + path_length(tokens.get(at + 2..).unwrap_or_default())
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => 1,
        };
    }
}

/// One branch of a `use`: segments, then nothing, `as name`, `*` or a group of further branches.
fn use_tree(tokens: &[TokenTree], prefix: &[String], inline_modules: usize, names: &mut Names) {
    let is_global = is_separator(tokens);
    let tokens = if is_global { &tokens[2..] } else { tokens };
    let length = path_length(tokens);
    let group = tokens.iter().skip(length).find_map(|token| match token {
        TokenTree::Group(group) => Some(group.stream()),
        _ => None,
    });
    let Some(group) = group else {
        let found = NamedPath {
            is_global,
            ..path(tokens, prefix, inline_modules)
        };
        // Of `a::b::c` the file now knows `c`, and of `a as c` too; of `a` it knows what it knew before.
        let name = words(tokens).last();
        names
            .local
            .extend(name.filter(|name| found.segments.first() != Some(name)));
        return names.paths.push(found);
    };
    let prefix: Vec<String> = prefix.iter().cloned().chain(words(&tokens[..length])).collect();
    let inner: Vec<TokenTree> = group.into_iter().collect();
    for branch in inner
        .split(|token| is_punct(token, ','))
        .filter(|branch| !branch.is_empty())
    {
        use_tree(branch, &prefix, inline_modules, names);
    }
}

/// The path at the start of `tokens`, behind `prefix`; line 0 if there are no tokens.
fn path(tokens: &[TokenTree], prefix: &[String], inline_modules: usize) -> NamedPath {
    let line = tokens.first().map_or(0, |first| first.span().start().line);
    let length = path_length(tokens);
    let mut segments: Vec<String> = prefix.iter().cloned().chain(words(&tokens[..length])).collect();
    if tokens
        .get(length..)
        .unwrap_or_default()
        .iter()
        .any(|token| is_punct(token, '*'))
    {
        segments.push("*".to_owned());
    }
    NamedPath {
        line,
        segments,
        inline_modules,
        is_global: false,
    }
}

/// Tokens that `a::b::c` at the start of `tokens` takes; 0 if no word stands there.
fn path_length(tokens: &[TokenTree]) -> usize {
    let is_ident = |at: usize| matches!(tokens.get(at), Some(TokenTree::Ident(_)));
    if !is_ident(0) {
        return 0;
    }
    let mut length = 1;
    while is_separator(tokens.get(length..).unwrap_or_default()) && is_ident(length + 2) {
        length += 3;
    }
    length
}

fn words(tokens: &[TokenTree]) -> impl Iterator<Item = String> {
    tokens.iter().filter_map(|token| match token {
        TokenTree::Ident(word) => Some(word.to_string().trim_start_matches("r#").to_owned()),
        _ => None,
    })
}

fn is_word(tokens: &[TokenTree], at: usize, word: &str) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Ident(ident)) if ident == word)
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn is_separator(tokens: &[TokenTree]) -> bool {
    match tokens {
        [TokenTree::Punct(first), second, ..] => {
            first.as_char() == ':' && first.spacing() == Spacing::Joint && is_punct(second, ':')
        }
        _ => false,
    }
}

#[test]
fn finds_paths_in_use_trees_and_in_code_with_their_lines() {
    let source = "use crate::{net::{listen, connect as dial}, tls};\n\
                  fn f<T: Into<u8>>(x: ::hyper::Body) -> u8 {\n\
                  let y = super::super::codec::h1::run::<T>(x);\n\
                  <T as Into<u8>>::into(y) // crate::server::not_code\n}\n\
                  mod tests { use super::*; extern crate nix; }";
    let found: Vec<(usize, String, usize)> = named_paths(source)
        .expect("valid tokens")
        .into_iter()
        .map(|path| (path.line, path.segments.join("::"), path.inline_modules))
        .collect();
    let expected = [
        (1, "crate::net::listen", 0),
        (1, "crate::net::connect", 0),
        (1, "crate::tls", 0),
        (2, "hyper::Body", 0),
        (3, "super::super::codec::h1::run", 0),
        (6, "super::*", 1),
        (6, "nix", 1),
    ];
    assert_eq!(
        found,
        expected.map(|(line, path, depth)| (line, path.to_owned(), depth))
    );
}

#[test]
fn super_leads_to_another_module_only_when_it_climbs_out_of_its_own() {
    let check = |segments: &[&str], inline_modules: usize, expected: Target| {
        let segments = segments.iter().map(|segment| (*segment).to_owned()).collect();
        let path = NamedPath {
            line: 1,
            segments,
            inline_modules,
            is_global: false,
        };
        assert_eq!(
            target(&path, &["net".to_owned(), "listen".to_owned()]),
            expected,
            "{path:?}"
        );
    };
    let module = |name: &str| Target::Module(name.to_owned());
    check(&["super", "connect"], 0, Target::Own);
    check(&["super", "super", "tls"], 0, module("tls"));
    check(&["super", "super", "connect"], 1, Target::Own);
    check(&["super", "super", "super", "tls"], 1, module("tls"));
    check(&["crate", "tls"], 3, module("tls"));
    check(&["crate", "*"], 0, Target::Root);
    check(&["hyper", "Body"], 0, Target::External);
}

#[test]
fn a_name_that_the_file_declares_or_imports_is_not_a_crate() {
    let check = |source: &str, expected: &[&str]| {
        let found: Vec<String> = named_paths(source)
            .expect("valid tokens")
            .into_iter()
            .map(|path| path.segments.join("::"))
            .collect();
        assert_eq!(found, expected, "{source}");
    };
    check("mod h2; fn f() -> h2::Pool {}", &[]);
    check(
        "use crate::codec::{h1, h2}; type X = h2::Pool;",
        &["crate::codec::h1", "crate::codec::h2"],
    );
    check(
        "use crate::codec::two as h2; type X = h2::Pool;",
        &["crate::codec::two"],
    );
    check("mod h2; type X = ::h2::Pool;", &["h2::Pool"]);
    check("use h2; type X = h2::Pool;", &["h2", "h2::Pool"]);
    check("use h2::client; type X = client::Builder;", &["h2::client"]);
    check("use h2 as two; type X = two::Pool;", &["h2"]);
}
