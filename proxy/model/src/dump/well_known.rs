//! Types with a JSON form of their own. Source: protobuf.dev "ProtoJSON Format".
use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use prost_types::value::Kind as JsonKind;

use super::mask::Mask;
use super::number;
use super::print::{MAX_DEPTH, Place, Printer};
use super::redact::{REDACTED, hide};

impl Printer<'_> {
    /// Writes the message if it is of such a type.
    pub(super) fn well_known(&mut self, message: &DynamicMessage, place: Place<'_>) -> bool {
        let descriptor = message.descriptor();
        let name = descriptor.full_name();
        if let Some(kind) = name.strip_prefix("google.protobuf.") {
            return self.google(kind, message, place);
        }
        if matches!(name, "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct") && !place.secret {
            self.typed_struct(message, place);
            return true;
        }
        false
    }

    fn google(&mut self, kind: &str, message: &DynamicMessage, place: Place<'_>) -> bool {
        match kind {
            "Any" => {
                let any: prost_types::Any = transcode(message);
                self.any(&any.type_url, &any.value, place);
            }
            "Duration" => {
                let duration: prost_types::Duration = transcode(message);
                self.json
                    .string(&number::duration(duration.seconds, duration.nanos));
            }
            "Timestamp" => {
                let timestamp: prost_types::Timestamp = transcode(message);
                self.json
                    .string(&number::timestamp(timestamp.seconds, timestamp.nanos));
            }
            "BoolValue" => self.json.bool(transcode(message)),
            "Int32Value" => self.json.raw(&transcode::<i32>(message).to_string()),
            "UInt32Value" => self.json.raw(&transcode::<u32>(message).to_string()),
            "Int64Value" => self.json.string(&transcode::<i64>(message).to_string()),
            "UInt64Value" => self.json.string(&transcode::<u64>(message).to_string()),
            "FloatValue" => self.json.raw(&number::float(transcode(message))),
            "DoubleValue" => self.json.raw(&number::double(transcode(message))),
            "StringValue" if place.secret => self.json.string(REDACTED),
            "StringValue" => self.json.string(&transcode::<String>(message)),
            "BytesValue" if place.secret => self.json.string(&number::base64(REDACTED.as_bytes())),
            "BytesValue" => self.json.string(&number::base64(&transcode::<Vec<u8>>(message))),
            "FieldMask" => {
                let mask: prost_types::FieldMask = transcode(message);
                let paths: Vec<String> = mask.paths.iter().map(|path| camel_case(path)).collect();
                self.json.string(&paths.join(","));
            }
            "Struct" | "Value" | "ListValue" => self.json_value(json_of(kind, message), place),
            _ => return false,
        }
        true
    }

    /// `{"@type":…, fields}`.
    pub(super) fn any(&mut self, type_url: &str, value: &[u8], place: Place<'_>) {
        self.json.begin_object();
        if !type_url.is_empty() || !value.is_empty() {
            self.any_members(type_url, value, place);
        }
        self.json.end_object();
    }

    fn any_members(&mut self, type_url: &str, value: &[u8], place: Place<'_>) {
        self.json.member("@type", type_url);
        let message = match place.depth {
            depth if depth < MAX_DEPTH => self.descriptors.decode_any(type_url, value),
            _ => None,
        };
        let place = Place {
            depth: place.depth + 1,
            ..place
        };
        match message {
            Some(message) if has_own_form(message.descriptor().full_name()) => {
                self.json.key("value");
                self.message(
                    &message,
                    Place {
                        mask: &Mask::All,
                        ..place
                    },
                );
            }
            Some(message) if is_typed_struct(&message) && !place.secret => {
                self.typed_struct_members(&message, place)
            }
            Some(message) => self.fields(&message, place),
            None if place.secret => self.json.member("value", &number::base64(REDACTED.as_bytes())),
            None => self.json.member("value", &number::base64(value)),
        }
    }

    fn typed_struct(&mut self, message: &DynamicMessage, place: Place<'_>) {
        self.json.begin_object();
        self.typed_struct_members(message, place);
        self.json.end_object();
    }

    /// `type_url` and `value` as they were sent, but for secrets.
    fn typed_struct_members(&mut self, message: &DynamicMessage, place: Place<'_>) {
        let url = message.get_field_by_name("type_url");
        let url = url.as_deref().and_then(Value::as_str).unwrap_or_default();
        if !url.is_empty() && place.mask.child("type_url").is_some() {
            self.json.member("type_url", url);
        }
        let value = message
            .get_field_by_name("value")
            .filter(|_| message.has_field_by_name("value"));
        let Some(value) = value.as_deref().and_then(Value::as_message) else {
            return;
        };
        if place.mask.child("value").is_none() {
            return;
        }
        let mut json: prost_types::Struct = transcode(value);
        if let Some(descriptor) = self.descriptors.by_url(url) {
            self.descriptors.redact_struct(&mut json, &descriptor);
        }
        self.json.key("value");
        self.json_value(JsonKind::StructValue(json), place);
    }

    fn json_value(&mut self, kind: JsonKind, place: Place<'_>) {
        let mut value = prost_types::Value { kind: Some(kind) };
        if place.secret {
            hide(&mut value);
        }
        self.plain_json(&value);
    }

    fn plain_json(&mut self, value: &prost_types::Value) {
        match &value.kind {
            None | Some(JsonKind::NullValue(_)) => self.json.null(),
            Some(JsonKind::BoolValue(value)) => self.json.bool(*value),
            Some(JsonKind::NumberValue(value)) => self.json.raw(&number::double(*value)),
            Some(JsonKind::StringValue(value)) => self.json.string(value),
            Some(JsonKind::ListValue(list)) => {
                self.json.begin_array();
                for value in &list.values {
                    self.json.element();
                    self.plain_json(value);
                }
                self.json.end_array();
            }
            Some(JsonKind::StructValue(entries)) => {
                self.json.begin_object();
                for (key, value) in &entries.fields {
                    self.json.key(key);
                    self.plain_json(value);
                }
                self.json.end_object();
            }
        }
    }
}

/// Inside an `Any` these stand under `value`.
pub(crate) fn has_own_form(full_name: &str) -> bool {
    full_name.strip_prefix("google.protobuf.").is_some_and(|kind| {
        matches!(
            kind,
            "Any" | "Duration" | "Timestamp" | "FieldMask" | "Struct" | "Value" | "ListValue" | "Empty"
        ) || is_wrapper(kind)
    })
}

fn is_wrapper(kind: &str) -> bool {
    matches!(
        kind,
        "BoolValue"
            | "Int32Value"
            | "UInt32Value"
            | "Int64Value"
            | "UInt64Value"
            | "FloatValue"
            | "DoubleValue"
            | "StringValue"
            | "BytesValue"
    )
}

fn is_typed_struct(message: &DynamicMessage) -> bool {
    matches!(
        message.descriptor().full_name(),
        "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct"
    )
}

fn json_of(kind: &str, message: &DynamicMessage) -> JsonKind {
    match kind {
        "Struct" => JsonKind::StructValue(transcode(message)),
        "ListValue" => JsonKind::ListValue(transcode(message)),
        _ => transcode::<prost_types::Value>(message)
            .kind
            .unwrap_or(JsonKind::NullValue(0)),
    }
}

/// The same message as a prost type. Both sides have the fields of the protobuf release, so only a nesting
/// beyond prost's limit could fail, and the bytes have passed that limit already.
fn transcode<M: prost::Message + Default>(message: &DynamicMessage) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap_or_default()
}

fn camel_case(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut upper = false;
    for character in path.chars() {
        if character == '_' {
            upper = true;
        } else if std::mem::take(&mut upper) {
            text.push(character.to_ascii_uppercase());
        } else {
            text.push(character);
        }
    }
    text
}
