//! One file to messages, with everything that is wrong with its form.
use prost_reflect::DynamicMessage;

use super::finding::{Place, Rule};
use super::{Input, binary};
use crate::document::{Complaint, DocumentError, Untyped};
use crate::dump::Descriptors;

/// What a file holds.
#[derive(Default)]
pub(super) struct Contents {
    /// For places; `None` where the file is binary.
    pub(super) text: Option<Untyped>,
    /// With the path at which each stands in the file.
    pub(super) messages: Vec<(String, DynamicMessage)>,
    pub(super) faults: Vec<Fault>,
}

/// What is wrong with the form of a file.
pub(super) struct Fault {
    pub(super) rule: Rule,
    pub(super) place: Option<Place>,
    /// From the top of the file.
    pub(super) path: String,
    pub(super) reason: String,
    pub(super) did_you_mean: Option<String>,
}

impl Fault {
    fn of_file(rule: Rule, reason: impl Into<String>) -> Self {
        Self {
            rule,
            place: None,
            path: String::new(),
            reason: reason.into(),
            did_you_mean: None,
        }
    }
}

impl Contents {
    fn fault(rule: Rule, reason: impl Into<String>) -> Self {
        Self {
            faults: vec![Fault::of_file(rule, reason)],
            ..Self::default()
        }
    }
}

/// Reads a file, whatever it is.
pub(super) fn read(descriptors: &Descriptors, input: &Input) -> Contents {
    let bytes = input.bytes.as_slice();
    if bytes.is_empty() {
        return Contents::fault(Rule::Syntax, "the file is empty: there is nothing to check");
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Contents::fault(Rule::Unreadable, "this is UTF-16; save the file as UTF-8");
    }
    if is_binary(&input.name, bytes) {
        return match binary::read(descriptors, bytes) {
            Some(messages) => Contents {
                messages,
                ..Contents::default()
            },
            None => Contents::fault(
                Rule::Unreadable,
                "neither text nor an encoded bootstrap, DiscoveryResponse, DeltaDiscoveryResponse, ConfigDump or Any",
            ),
        };
    }
    text(descriptors, input)
}

/// A name that says so, or bytes that no text has.
fn is_binary(name: &str, bytes: &[u8]) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    match extension {
        Some("pb" | "bin" | "binpb") => true,
        Some("yaml" | "yml" | "json") => bytes.contains(&0),
        _ => {
            let control = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c);
            bytes.iter().any(control) || std::str::from_utf8(bytes).is_err()
        }
    }
}

fn text(descriptors: &Descriptors, input: &Input) -> Contents {
    let text = match Untyped::parse(&input.name, &input.bytes) {
        Ok(text) => text,
        Err(error) => {
            return Contents {
                faults: vec![syntax(error)],
                ..Contents::default()
            };
        }
    };
    let read = text.read(descriptors);
    Contents {
        text: Some(text),
        messages: read.messages,
        faults: read.complaints.into_iter().map(Fault::from).collect(),
    }
}

fn syntax(error: DocumentError) -> Fault {
    match error {
        DocumentError::Syntax {
            line, column, reason, ..
        } => Fault {
            place: Some(Place { line, column }),
            ..Fault::of_file(Rule::Syntax, reason)
        },
        other => Fault::of_file(Rule::Syntax, other.to_string()),
    }
}

impl From<Complaint> for Fault {
    fn from(complaint: Complaint) -> Self {
        let Complaint {
            line,
            column,
            path,
            reason,
            nearest,
        } = complaint;
        Self {
            rule: Rule::Field,
            place: Some(Place { line, column }),
            // The whole document has no path.
            path: if path == "document" { String::new() } else { path },
            reason,
            did_you_mean: nearest,
        }
    }
}
