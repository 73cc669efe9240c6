//! Secrets inside a `TypedStruct`: JSON without types, read beside the descriptor that its URL names.
//!
//! Source: Envoy `source/common/protobuf/utility.cc`, `redact` and `redactTypedStruct`.
use prost_reflect::{Kind, MessageDescriptor};
use prost_types::value::Kind as JsonKind;
use prost_types::{Struct, Value};

use super::descriptors::Descriptors;

/// What stands in the place of a secret.
pub(super) const REDACTED: &str = "[redacted]";

impl Descriptors {
    /// `value` with every secret replaced, given the type that it is the JSON of.
    pub(super) fn redact_struct(&self, value: &mut Struct, message: &MessageDescriptor) {
        if let Some(nested) = self.nested_type(value, message) {
            if message.full_name() == "google.protobuf.Any" {
                return self.redact_struct(value, &nested);
            }
            if let Some(JsonKind::StructValue(inner)) = value
                .fields
                .get_mut("value")
                .and_then(|value| value.kind.as_mut())
            {
                self.redact_struct(inner, &nested);
            }
            return;
        }
        for (name, member) in &mut value.fields {
            let field = message
                .get_field_by_name(name)
                .or_else(|| message.get_field_by_json_name(name));
            let Some(field) = field else { continue };
            if self.is_sensitive(&field) {
                hide(member);
            } else if let Kind::Message(nested) = field.kind() {
                self.redact_value(member, &nested);
            }
        }
    }

    fn redact_value(&self, value: &mut Value, message: &MessageDescriptor) {
        match &mut value.kind {
            Some(JsonKind::ListValue(list)) => list
                .values
                .iter_mut()
                .for_each(|value| self.redact_value(value, message)),
            Some(JsonKind::StructValue(entries)) if message.is_map_entry() => {
                if let Kind::Message(nested) = message.map_entry_value_field().kind() {
                    entries
                        .fields
                        .values_mut()
                        .for_each(|value| self.redact_value(value, &nested));
                }
            }
            Some(JsonKind::StructValue(inner)) => self.redact_struct(inner, message),
            _ => {}
        }
    }

    /// The type that an `Any` or `TypedStruct` written as JSON carries.
    fn nested_type(&self, value: &Struct, message: &MessageDescriptor) -> Option<MessageDescriptor> {
        let url = match message.full_name() {
            "google.protobuf.Any" => ["@type", "@type"],
            "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct" => ["type_url", "typeUrl"],
            _ => return None,
        };
        let url = url.iter().find_map(|key| value.fields.get(*key))?;
        match &url.kind {
            Some(JsonKind::StringValue(url)) => self.by_url(url),
            _ => None,
        }
    }
}

/// Everything in a secret value: texts say so, the rest becomes null.
pub(super) fn hide(value: &mut Value) {
    match &mut value.kind {
        Some(JsonKind::StringValue(text)) => REDACTED.clone_into(text),
        Some(JsonKind::ListValue(list)) => list.values.iter_mut().for_each(hide),
        Some(JsonKind::StructValue(entries)) => entries.fields.values_mut().for_each(hide),
        other => *other = Some(JsonKind::NullValue(0)),
    }
}
