//! docs/compat.md says what the code does.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::verdict::{self, Kind, Verdict};
use super::{check_golden, repository};
use crate::dump::Descriptors;
use crate::extension::{Builder, EXTENSIONS};

const HEAD: &str = "\
# Configuration fields and what becomes of them

Made from the source by `UPDATE=1 cargo test -p outrigger-model compat`; do not edit. Every field of every message that is read is here:
a field that a newer Envoy adds does not compile until it has a verdict. A message or extension that is not here is refused by name.

- **supported**: it does what it does in Envoy.
- **partly**: some of its values do; the note says which.
- **inert**: nobody could see a difference; the note says why.
- *unsupported*: it has no effect. The resource is accepted, and the field, or the message that it is in, is listed among the problems
  of the configuration. The note says what will build it, or why nothing will.
  Filters that keep requests or connections out (rbac, jwt_authn, ext_authz) are checked field by field
  and then refused as a whole.
- *refused*: the resource is rejected when it is set; the note says what ignoring it would do.
";

#[test]
fn the_table_of_fields_is_what_the_code_says() {
    let verdicts = verdict::all(&Descriptors::full().unwrap());
    assert!(verdicts.len() > 500, "{} verdicts", verdicts.len());
    let is_silent = |verdict: &&Verdict| verdict.kind == Kind::Unsupported && verdict.text.is_empty();
    let silent: Vec<_> = verdicts
        .iter()
        .filter(is_silent)
        .map(|each| (&each.message, &each.field))
        .collect();
    assert!(
        silent.is_empty(),
        "without effect, and nothing says what will build it: {silent:?}"
    );
    let mut messages: BTreeMap<&str, BTreeMap<&str, Vec<&Verdict>>> = BTreeMap::new();
    for verdict in &verdicts {
        // The members of a oneof are judged where it is matched; they stand with the rest of their message.
        let owner = verdicts
            .iter()
            .find(|other| other.message == verdict.message && other.oneof.is_none());
        let place = if verdict.oneof.is_some() {
            owner.map_or("", |owner| &owner.place)
        } else {
            &verdict.place
        };
        messages
            .entry(&verdict.message)
            .or_default()
            .entry(place)
            .or_default()
            .push(verdict);
    }
    let mut text = HEAD.to_owned();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for verdict in &verdicts {
        *counts.entry(word(verdict.kind).trim_matches('*')).or_default() += 1;
    }
    let counts: Vec<_> = counts
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    write!(text, "\n{} verdicts: {}.\n", verdicts.len(), counts.join(", ")).unwrap();
    for (message, places) in messages {
        for (place, verdicts) in &places {
            match places.len() {
                1 => write!(text, "\n## {message}\n\n").unwrap(),
                _ => write!(text, "\n## {message}, read by {place}\n\n").unwrap(),
            }
            text.push_str("| field | verdict | note |\n|---|---|---|\n");
            for verdict in verdicts {
                row(verdict, &mut text);
            }
        }
    }
    extensions(&mut text);
    check_golden(&repository().join("docs/compat.md"), &text);
}

/// Those that are refused by name.
fn extensions(text: &mut String) {
    text.push_str("\n## Extensions that are refused by name\n\n| type | note |\n|---|---|\n");
    for (name, builder) in EXTENSIONS {
        match builder {
            Builder::Issue(issue) => writeln!(text, "| {name} | the {issue} issue builds it |").unwrap(),
            Builder::Never(why) => writeln!(text, "| {name} | never: {why} |").unwrap(),
        }
    }
}

fn row(verdict: &Verdict, text: &mut String) {
    let Verdict {
        field,
        oneof,
        kind,
        text: note,
        ..
    } = verdict;
    let note = match kind {
        Kind::Unsupported if note.starts_with(verdict::NEVER) => note.clone(),
        Kind::Unsupported | Kind::Awaited if !note.is_empty() => format!("the {note} issue builds it"),
        _ => note.clone(),
    };
    match oneof {
        Some(oneof) => writeln!(text, "| {oneof}: {field} | {} | {note} |", word(*kind)).unwrap(),
        None => writeln!(text, "| {field} | {} | {note} |", word(*kind)).unwrap(),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Supported => "**supported**",
        Kind::Partly => "**partly**",
        Kind::Inert => "**inert**",
        Kind::Unsupported | Kind::Awaited => "*unsupported*",
        Kind::Refused => "*refused*",
    }
}
