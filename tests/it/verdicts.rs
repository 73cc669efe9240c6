//! Every field of the model has a reader in the proxy: what is called supported may not be parsed and then forgotten.
//!
//! By names in the source. A name that several types have is no evidence, so the readers of those fields are listed, each with words
//! that its code must have.

mod readers;

use std::collections::{BTreeMap, BTreeSet};

use self::readers::SHARED;
use super::repo::{SourceFile, root, texts};

/// Fields that the model itself uses up, and how.
const INSIDE_THE_MODEL: &[(&str, &str)] = &[
    (
        "max_direct_response_body_bytes",
        "longer bodies of direct responses are refused when the table is converted",
    ),
    (
        "unit_number",
        "it goes into the message to the rate limit service as it came",
    ),
];

/// Model folders that hold no configuration.
const NO_CONFIGURATION: &[&str] = &[
    "document",
    "dump",
    "field",
    "decode",
    "any",
    "nds",
    "peer",
    "rate_limit_service",
    "tests",
    "validate",
];

fn is_configuration(path: &str) -> bool {
    path.strip_prefix("proxy/model/src/").is_some_and(|inside| {
        let first = inside.split(['/', '.']).next().unwrap_or_default();
        !NO_CONFIGURATION.contains(&first) && inside.ends_with(".rs")
    })
}

/// What the documentation of a struct or field says when nothing reads it before an issue that is not built yet.
const AWAITS: &str = "Awaits the ";

/// The source without structs and fields that await an issue: the model has them checked and ready, and lists them as without effect.
fn without_awaited(text: &str) -> String {
    let mut kept = String::new();
    let (mut awaits, mut inside) = (false, false);
    for line in text.lines() {
        let code = line.trim_start();
        if inside {
            inside = line != "}";
            continue;
        }
        match code {
            _ if code.starts_with("///") => awaits |= code.contains(AWAITS),
            _ if code.starts_with("#[") => (),
            _ if std::mem::take(&mut awaits) => {
                inside = line.starts_with("pub struct ") && line.ends_with('{');
                continue;
            }
            _ => (),
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// The names in lines of the form `    pub name: Type,`.
fn fields(files: &[SourceFile]) -> BTreeSet<String> {
    let lines = files.iter().flat_map(|file| file.text.lines());
    lines
        .filter_map(|line| line.strip_prefix("    pub ")?.split_once(": "))
        .filter(|(name, _)| {
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte))
        })
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// `Type.field` for every field whose name several types have.
fn shared(files: &[SourceFile]) -> BTreeSet<String> {
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        for item in file.text.split("\npub struct ").skip(1) {
            let name: String = item.chars().take_while(char::is_ascii_alphanumeric).collect();
            let body = item.split("\n}").next().unwrap_or_default();
            let file = SourceFile {
                path: String::new(),
                text: body.to_owned(),
            };
            for field in fields(&[file]) {
                owners.entry(field).or_default().insert(name.clone());
            }
        }
    }
    let several = owners.into_iter().filter(|(_, owners)| owners.len() > 1);
    several
        .flat_map(|(field, owners)| owners.into_iter().map(move |owner| format!("{owner}.{field}")))
        .collect()
}

/// All words of the files, up to their unit tests.
fn words(files: &[SourceFile]) -> BTreeSet<&str> {
    let code = files
        .iter()
        .map(|file| file.text.split("#[cfg(test)]").next().unwrap_or_default());
    code.flat_map(|text| text.split(|character: char| !(character.is_alphanumeric() || character == '_')))
        .collect()
}

fn forgotten(model: &[SourceFile], proxy: &[SourceFile]) -> Vec<String> {
    let words = words(proxy);
    let is_excused = |name: &str| INSIDE_THE_MODEL.iter().any(|(excused, _)| *excused == name);
    fields(model)
        .into_iter()
        .filter(|name| !words.contains(name.as_str()) && !is_excused(name))
        .collect()
}

/// The model's sources, without what awaits an issue.
fn model_sources() -> Vec<SourceFile> {
    let files = texts(is_configuration).into_iter();
    files
        .map(|file| SourceFile {
            text: without_awaited(&file.text),
            path: file.path,
        })
        .collect()
}

#[test]
fn every_field_of_the_model_has_a_reader() {
    let model = model_sources();
    let proxy =
        texts(|path| path.starts_with("proxy/src/") && path.ends_with(".rs") && !path.contains("test"));
    assert!(fields(&model).len() > 100, "the model's fields were not found");
    let forgotten = forgotten(&model, &proxy);
    assert!(
        forgotten.is_empty(),
        "read by nothing in proxy/src: {forgotten:?}; give them a reader, or another verdict"
    );
}

#[test]
fn every_field_with_a_common_name_has_the_reader_that_is_listed() {
    let listed: BTreeSet<String> = SHARED.iter().map(|(field, _, _)| (*field).to_owned()).collect();
    let shared = shared(&model_sources());
    let differences: Vec<_> = shared.symmetric_difference(&listed).collect();
    assert!(
        differences.is_empty(),
        "fields with common names, without a listed reader or listed in vain: {differences:?}"
    );
    for (field, path, words) in SHARED {
        let text = std::fs::read_to_string(root().join("proxy").join(path)).unwrap_or_default();
        let code: String = text
            .split("#[cfg(test)]")
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        assert!(
            code.contains(words),
            "{field}: {path} no longer has `{words}`: list its reader, or give it another verdict"
        );
    }
}

#[test]
fn an_excuse_is_for_a_field_that_exists() {
    let model = fields(&texts(is_configuration));
    for (name, reason) in INSIDE_THE_MODEL {
        assert!(model.contains(*name) && !reason.is_empty(), "{name}");
    }
}

#[test]
fn a_struct_or_field_that_awaits_an_issue_needs_no_reader() {
    let text = "/// A.\npub struct A {\n    /// B.\n    pub b: u32,\n    /// C. Awaits the x issue.\n    pub c: u32,\n}\n\
                /// D. Awaits the x issue.\n#[derive(Eq)]\npub struct D {\n    pub e: u32,\n}\n\
                /// F.\npub struct F {\n    pub g: u32,\n}\n";
    let file = SourceFile {
        path: String::new(),
        text: without_awaited(text),
    };
    let expected: BTreeSet<String> = ["b", "g"].map(str::to_owned).into();
    assert_eq!(fields(&[file]), expected);
}

#[test]
fn a_field_that_only_a_test_reads_is_forgotten() {
    let file = |text: &str| SourceFile {
        path: String::new(),
        text: text.to_owned(),
    };
    let model = [file(
        "pub struct A {\n    pub used: u32,\n    pub unused: u32,\n}\n",
    )];
    let proxy = [file(
        "fn f(a: A) { a.used }\n#[cfg(test)]\nmod tests { a.unused }\n",
    )];
    assert_eq!(forgotten(&model, &proxy), ["unused"]);
}
