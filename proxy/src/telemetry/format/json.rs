//! Writes JSON whose strings are format strings. Source: Envoy 1.40, `JsonFormatBuilder`: keys in order, no blanks, a string that is one
//! command has the type of its value, and what is not there is `null`.
use outrigger_model::access_log::{Command, JsonTemplate};

use super::{Entry, LineFormat, Part};

/// A template, ready to write.
#[derive(Debug)]
pub(crate) enum JsonFormat {
    /// Each with its key, as JSON.
    Object(Box<[(Box<[u8]>, JsonFormat)]>),
    List(Box<[JsonFormat]>),
    String(LineFormat),
    /// As it is.
    Fixed(Box<[u8]>),
}

/// What no header has in it: it stands for one that is not there.
const MISSING: &[u8] = b"\0";

impl JsonFormat {
    /// Prepares a template.
    pub(crate) fn new(template: &JsonTemplate) -> Self {
        match template {
            JsonTemplate::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(key, value)| (quoted(key.as_bytes()).into(), Self::new(value)))
                    .collect(),
            ),
            JsonTemplate::List(items) => Self::List(items.iter().map(Self::new).collect()),
            JsonTemplate::String(parts) => Self::String(LineFormat::new(parts)),
            JsonTemplate::Number(number) => Self::Fixed(number.0.to_string().into_bytes().into()),
            JsonTemplate::Bool(value) => Self::Fixed(value.to_string().into_bytes().into()),
            JsonTemplate::Null => Self::Fixed(b"null".as_slice().into()),
        }
    }

    /// Appends it, without a line end. `omits`: keys without value are left out.
    pub(crate) fn write(&self, entry: &Entry<'_>, omits: bool, out: &mut Vec<u8>) {
        match self {
            Self::Fixed(text) => out.extend_from_slice(text),
            Self::String(format) => write_string(format, entry, omits, out),
            Self::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write(entry, omits, out);
                }
                out.push(b']');
            }
            Self::Object(fields) => write_object(fields, entry, omits, out),
        }
    }
}

fn write_object(fields: &[(Box<[u8]>, JsonFormat)], entry: &Entry<'_>, omits: bool, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut is_first = true;
    for (key, value) in fields {
        let begin = out.len();
        if !is_first {
            out.push(b',');
        }
        out.extend_from_slice(key);
        out.push(b':');
        let before = out.len();
        value.write(entry, omits, out);
        if omits && out.get(before..) == Some(b"null") {
            out.truncate(begin);
        } else {
            is_first = false;
        }
    }
    out.push(b'}');
}

fn write_string(format: &LineFormat, entry: &Entry<'_>, omits: bool, out: &mut Vec<u8>) {
    let mut text = Vec::new();
    let Some(part) = format.single() else {
        match omits {
            true => format.write_value(entry, &mut text),
            false => format.write(entry, &mut text),
        }
        return out.extend_from_slice(&quoted(&text));
    };
    part.write(entry, MISSING, &mut text);
    let is_missing = match part {
        Part::Command(Command::ResponseFlags | Command::LocalReplyBody) => false,
        Part::Command(_) => text == b"-",
        _ => text == MISSING,
    };
    match part {
        _ if is_missing => out.extend_from_slice(b"null"),
        Part::Command(command) if is_number(command) => out.extend_from_slice(&text),
        _ => out.extend_from_slice(&quoted(&text)),
    }
}

fn is_number(command: &Command) -> bool {
    matches!(
        command,
        Command::ResponseCode
            | Command::BytesReceived
            | Command::BytesSent
            | Command::Duration
            | Command::RequestDuration
            | Command::ResponseDuration
            | Command::ConnectionId
            | Command::UpstreamRequestAttemptCount
    )
}

fn quoted(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    // A string has no error.
    serde_json::to_vec(&*text).unwrap_or_default()
}
