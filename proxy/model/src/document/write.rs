//! Writes YAML for people to edit: block style, two spaces a level, members in the order in which they came.

use super::tree::{Node, Tree};
use super::{DocumentError, Format, Source};

/// JSON text as YAML of the same meaning.
///
/// # Errors
/// [`DocumentError::Syntax`] when `json` is not JSON.
pub fn json_as_yaml(json: &str) -> Result<String, DocumentError> {
    let source = Source::new("json", json.as_bytes(), Format::Json)?;
    let mut text = String::new();
    block(&mut text, &source.tree, 0);
    Ok(text)
}

/// A value as whole lines at a depth.
fn block(text: &mut String, node: &Node, depth: usize) {
    match &node.value {
        Tree::Object(members) if !members.is_empty() => {
            for member in members {
                indent(text, depth);
                member_line(text, &member.name, &member.value, depth);
            }
        }
        Tree::List(items) if !items.is_empty() => {
            for item in items {
                indent(text, depth);
                text.push('-');
                element(text, item, depth);
            }
        }
        _ => {
            indent(text, depth);
            text.push_str(&scalar(&node.value));
            text.push('\n');
        }
    }
}

/// What stands after a dash: an object begins in the same line.
fn element(text: &mut String, item: &Node, depth: usize) {
    match &item.value {
        Tree::Object(members) if !members.is_empty() => {
            for (index, member) in members.iter().enumerate() {
                if index == 0 {
                    text.push(' ');
                } else {
                    indent(text, depth + 1);
                }
                member_line(text, &member.name, &member.value, depth + 1);
            }
        }
        Tree::List(items) if !items.is_empty() => {
            text.push('\n');
            block(text, item, depth + 1);
        }
        value => {
            text.push(' ');
            text.push_str(&scalar(value));
            text.push('\n');
        }
    }
}

fn member_line(text: &mut String, name: &str, value: &Node, depth: usize) {
    text.push_str(&quoted_if_needed(name));
    text.push(':');
    let nests = match &value.value {
        Tree::Object(members) => !members.is_empty(),
        Tree::List(items) => !items.is_empty(),
        _ => false,
    };
    if nests {
        text.push('\n');
        // The dashes of a list stand under its name.
        let is_list = matches!(value.value, Tree::List(_));
        block(text, value, if is_list { depth } else { depth + 1 });
    } else {
        text.push(' ');
        text.push_str(&scalar(&value.value));
        text.push('\n');
    }
}

fn scalar(value: &Tree) -> String {
    match value {
        Tree::Null => "null".to_owned(),
        Tree::Bool(value) => value.to_string(),
        Tree::Number(digits) => digits.clone(),
        Tree::String(value) => quoted_if_needed(value),
        Tree::List(_) => "[]".to_owned(),
        Tree::Object(_) => "{}".to_owned(),
    }
}

/// Plain where no reader can take it for something else; else as in JSON, which YAML reads too.
fn quoted_if_needed(value: &str) -> String {
    let begins_plain = value.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    let is_plain = value
        .chars()
        .all(|letter| letter.is_ascii_alphanumeric() || "_-./|".contains(letter));
    let is_word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word));
    if begins_plain && is_plain && !is_word {
        value.to_owned()
    } else {
        // Serialising a string cannot fail.
        serde_json::to_string(value).unwrap_or_default()
    }
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, yaml: &str) {
        let written = json_as_yaml(json).expect("the test's JSON is JSON");
        assert_eq!(written, yaml);
        let read = Source::new("y", written.as_bytes(), Format::Yaml).expect("what was written is YAML");
        let original = Source::new("j", json.as_bytes(), Format::Json).expect("the test's JSON is JSON");
        assert_eq!(meaning(&read.tree), meaning(&original.tree), "{written}");
    }

    /// Without places.
    fn meaning(node: &Node) -> String {
        match &node.value {
            Tree::List(items) => format!("{:?}", items.iter().map(meaning).collect::<Vec<_>>()),
            Tree::Object(members) => format!(
                "{:?}",
                members
                    .iter()
                    .map(|member| (&member.name, meaning(&member.value)))
                    .collect::<Vec<_>>()
            ),
            value => format!("{value:?}"),
        }
    }

    #[test]
    fn objects_and_lists_are_written_in_blocks() {
        check(
            r#"{"b": {"c": 1}, "a": [{"x": true, "z": [2, 3]}, [4], "s"]}"#,
            "b:\n  c: 1\na:\n- x: true\n  z:\n  - 2\n  - 3\n-\n  - 4\n- s\n",
        );
        check(r#"{"a": {}, "b": [], "c": null}"#, "a: {}\nb: []\nc: null\n");
    }

    #[test]
    fn what_yaml_would_read_as_something_else_is_quoted() {
        check(
            r#"{"@type": "type.googleapis.com/x", "t": "0s", "d": "*", "y": "yes", "n": "10.0.0.1", "q": "a: \"b\"\n"}"#,
            "\"@type\": type.googleapis.com/x\nt: \"0s\"\nd: \"*\"\n\"y\": \"yes\"\n\"n\": \"10.0.0.1\"\nq: \"a: \\\"b\\\"\\n\"\n",
        );
    }
}
