//! A message and everything in it, with paths as people know them: what an `Any` or a `TypedStruct` holds stands where it stands in JSON.
use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage as _, Value};

use crate::document::message_of_struct;
use crate::dump::Descriptors;

/// Deepest nesting that is followed, two a message; whoever writes a file chooses how deep it nests.
const MAX_LEVELS: usize = 200;

/// Where the walk is.
pub(super) struct At<'w> {
    /// From the message at which it began.
    pub(super) path: &'w str,
    /// Full names of the messages around this one, from the outside.
    pub(super) around: &'w [String],
    /// It was packed into an `Any`.
    pub(super) from_any: bool,
}

impl At<'_> {
    /// Somewhere inside a message of that name.
    pub(super) fn is_inside(&self, full_name: &str) -> bool {
        self.around.iter().any(|name| name == full_name)
    }

    /// The path of a field of this message.
    pub(super) fn field(&self, name: &str) -> String {
        super::finding::join(self.path, name)
    }
}

/// What to do with the inside of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Go {
    Inside,
    Past,
}

/// Calls `visit` with the message and with every message in it, outer ones first. An `Any` whose type is unknown, or that does not
/// decode, is visited itself.
pub(super) fn walk(
    descriptors: &Descriptors,
    message: &DynamicMessage,
    visit: &mut dyn FnMut(&DynamicMessage, &At<'_>) -> Go,
) {
    let mut walker = Walker {
        descriptors,
        path: String::new(),
        around: Vec::new(),
        visit,
    };
    walker.message(message, false);
}

struct Walker<'w> {
    descriptors: &'w Descriptors,
    path: String,
    around: Vec<String>,
    visit: &'w mut dyn FnMut(&DynamicMessage, &At<'_>) -> Go,
}

impl Walker<'_> {
    fn message(&mut self, message: &DynamicMessage, from_any: bool) {
        let descriptor = message.descriptor();
        let name = descriptor.full_name();
        match name {
            "google.protobuf.Any" => {
                if let Some(inner) = open(self.descriptors, message) {
                    return self.nested(&inner, "", true);
                }
            }
            "google.protobuf.Struct" | "google.protobuf.Value" => return,
            "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct" => {
                if let Some(inner) = open_struct(self.descriptors, message) {
                    return self.nested(&inner, ".value", true);
                }
            }
            _ => {}
        }
        let at = At {
            path: self.path.trim_start_matches('.'),
            around: &self.around,
            from_any,
        };
        if (self.visit)(message, &at) == Go::Past {
            return;
        }
        self.around.push(name.to_owned());
        for (field, value) in message.fields() {
            self.field(&field, value);
        }
        self.around.pop();
    }

    fn field(&mut self, field: &FieldDescriptor, value: &Value) {
        match value {
            Value::Message(inner) => self.nested(inner, &format!(".{}", field.name()), false),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let Value::Message(inner) = item else { return };
                    self.nested(inner, &format!(".{}[{index}]", field.name()), false);
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    let Value::Message(inner) = value else { return };
                    let key = key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
                    self.nested(inner, &format!(".{}[{key:?}]", field.name()), false);
                }
            }
            _ => {}
        }
    }

    fn nested(&mut self, message: &DynamicMessage, step: &str, from_any: bool) {
        if self.around.len() >= MAX_LEVELS {
            return;
        }
        let length = self.path.len();
        self.path.push_str(step);
        // An `Any` in an `Any` adds nothing to the path, but a level all the same.
        self.around.push(String::new());
        self.message(message, from_any);
        self.around.pop();
        self.path.truncate(length);
    }
}

/// The message in an `Any`.
pub(super) fn open(descriptors: &Descriptors, any: &DynamicMessage) -> Option<DynamicMessage> {
    let (Value::String(url), Value::Bytes(bytes)) = (
        any.get_field_by_number(1)?.into_owned(),
        any.get_field_by_number(2)?.into_owned(),
    ) else {
        return None;
    };
    descriptors.decode_any(&url, &bytes)
}

fn open_struct(descriptors: &Descriptors, message: &DynamicMessage) -> Option<DynamicMessage> {
    use prost::Message as _;
    let url = text(message, "type_url");
    let value = message.get_field_by_name("value")?;
    let object = prost_types::Struct::decode(value.as_message()?.encode_to_vec().as_slice()).ok()?;
    message_of_struct(descriptors, object, url.rsplit('/').next()?)
}

/// A string field; empty if the message has no such field or does not set it.
pub(super) fn text(message: &DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field);
    value
        .as_deref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
