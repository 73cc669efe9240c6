//! Every field of the model has a reader in the proxy: what is called supported may not be parsed and then forgotten.
//!
//! By names in the source, so a field whose name is common can hide; a field that nobody names cannot.

use std::collections::BTreeSet;

use super::repo::{SourceFile, texts};

/// Fields that the model itself uses up, and how.
const INSIDE_THE_MODEL: &[(&str, &str)] = &[
    (
        "filter_config",
        "has no variant yet: every per-route filter setting is refused",
    ),
    (
        "http3_post_connect_failure",
        "a retry_on token of istiod's vocabulary; no upstream speaks HTTP/3",
    ),
    (
        "max_direct_response_body_bytes",
        "longer bodies of direct responses are refused when the table is converted",
    ),
    (
        "retriable_headers",
        "a retry_on token that does nothing without header matchers, which are listed as without effect",
    ),
];

/// Model folders that hold no configuration.
const NO_CONFIGURATION: &[&str] = &[
    "document", "dump", "field", "decode", "any", "nds", "peer", "tests",
];

fn is_configuration(path: &str) -> bool {
    path.strip_prefix("proxy/model/src/").is_some_and(|inside| {
        let first = inside.split(['/', '.']).next().unwrap_or_default();
        !NO_CONFIGURATION.contains(&first) && inside.ends_with(".rs")
    })
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

#[test]
fn every_field_of_the_model_has_a_reader() {
    let model = texts(is_configuration);
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
fn an_excuse_is_for_a_field_that_exists() {
    let model = fields(&texts(is_configuration));
    for (name, reason) in INSIDE_THE_MODEL {
        assert!(model.contains(*name) && !reason.is_empty(), "{name}");
    }
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
