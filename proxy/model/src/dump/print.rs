//! A message as JSON: fields in the order of their numbers, scalars, lists, maps. Types with a JSON form of
//! their own are in `well_known`.
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::descriptors::Descriptors;
use super::json::JsonWriter;
use super::mask::Mask;
use super::number;
use super::redact::REDACTED;

/// Deepest nesting that is expanded; an `Any` below it stays base64. A peer chooses how deep it nests, and
/// readers refuse deep JSON (protobuf: 100).
pub(super) const MAX_DEPTH: usize = 100;

/// Whether fields with their default value are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defaults {
    /// As in `/config_dump`, `/clusters`, `/listeners`.
    Omit,
    /// Fields without presence are always there, as in `/server_info` and `/certs`.
    Print,
}

/// Where the printer is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) mask: &'a Mask,
    /// Inside a field marked sensitive.
    pub(super) secret: bool,
    pub(super) depth: usize,
}

impl Place<'_> {
    pub(super) const TOP: Place<'static> = Place {
        mask: &Mask::All,
        secret: false,
        depth: 0,
    };
}

/// Writes messages into one JSON text.
pub(super) struct Printer<'d> {
    pub(super) descriptors: &'d Descriptors,
    pub(super) json: JsonWriter,
    defaults: Defaults,
}

impl<'d> Printer<'d> {
    pub(super) fn new(descriptors: &'d Descriptors, defaults: Defaults) -> Self {
        Self {
            descriptors,
            json: JsonWriter::new(),
            defaults,
        }
    }

    /// A value: an object, or what the well-known type looks like.
    pub(super) fn message(&mut self, message: &DynamicMessage, place: Place<'_>) {
        if !self.well_known(message, place) {
            self.json.begin_object();
            self.fields(message, place);
            self.json.end_object();
        }
    }

    /// The members, into an object that is open.
    pub(super) fn fields(&mut self, message: &DynamicMessage, place: Place<'_>) {
        for field in shown(message, self.defaults) {
            let Some(mask) = place.mask.child(field.name()) else {
                continue;
            };
            let secret = place.secret || self.descriptors.is_sensitive(&field);
            let place = Place {
                mask,
                secret,
                depth: place.depth + 1,
            };
            let value = message.get_field(&field);
            if secret && !can_be_redacted(&field.kind()) {
                continue;
            }
            self.json.key(field.name());
            match value.as_ref() {
                Value::List(values) => self.list(values, &field.kind(), place),
                Value::Map(entries) => self.map(entries.iter(), &field, place),
                value => self.value(value, &field.kind(), place),
            }
        }
    }

    fn list(&mut self, values: &[Value], kind: &Kind, place: Place<'_>) {
        self.json.begin_array();
        for value in values {
            self.json.element();
            self.value(value, kind, place);
        }
        self.json.end_array();
    }

    fn map<'v>(
        &mut self,
        entries: impl Iterator<Item = (&'v MapKey, &'v Value)>,
        field: &FieldDescriptor,
        place: Place<'_>,
    ) {
        let Kind::Message(entry) = field.kind() else {
            return;
        };
        let kind = entry.map_entry_value_field().kind();
        let mut entries: Vec<_> = entries.map(|(key, value)| (key_text(key), value)).collect();
        // Envoy's order is that of its hash table; a stable one makes two dumps comparable.
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        self.json.begin_object();
        for (key, value) in entries {
            self.json.key(&key);
            self.value(value, &kind, place);
        }
        self.json.end_object();
    }

    fn value(&mut self, value: &Value, kind: &Kind, place: Place<'_>) {
        match value {
            Value::Bool(value) => self.json.bool(*value),
            Value::I32(value) => self.json.raw(&value.to_string()),
            Value::U32(value) => self.json.raw(&value.to_string()),
            Value::I64(value) => self.json.string(&value.to_string()),
            Value::U64(value) => self.json.string(&value.to_string()),
            Value::F32(value) => self.json.raw(&number::float(*value)),
            Value::F64(value) => self.json.raw(&number::double(*value)),
            Value::String(_) if place.secret => self.json.string(REDACTED),
            Value::String(value) => self.json.string(value),
            Value::Bytes(_) if place.secret => self.json.string(&number::base64(REDACTED.as_bytes())),
            Value::Bytes(value) => self.json.string(&number::base64(value)),
            Value::EnumNumber(value) => self.enumeration(*value, kind),
            Value::Message(message) => self.message(message, place),
            // Neither nests in itself; `fields` has taken both.
            Value::List(_) | Value::Map(_) => self.json.null(),
        }
    }

    fn enumeration(&mut self, value: i32, kind: &Kind) {
        match kind.as_enum().and_then(|descriptor| descriptor.get_value(value)) {
            Some(name) => self.json.string(name.name()),
            // From a newer control plane than these descriptors.
            None => self.json.raw(&value.to_string()),
        }
    }
}

impl Descriptors {
    /// The message inside an `Any`, with `@type` first. Unknown type or broken bytes: `{"@type":…, "value":
    /// base64}`.
    pub fn any_to_json(&self, type_url: &str, value: &[u8]) -> String {
        let mut printer = Printer::new(self, Defaults::Omit);
        printer.any(type_url, value, Place::TOP);
        printer.json.finish()
    }

    /// A message that the admin layer has put together, without `@type`; `None` when `full_name` is not a
    /// known type or the bytes are not one.
    pub fn message_to_json(&self, full_name: &str, value: &[u8], defaults: Defaults) -> Option<String> {
        let message = DynamicMessage::decode(self.message(full_name)?, value).ok()?;
        let mut printer = Printer::new(self, defaults);
        printer.message(&message, Place::TOP);
        Some(printer.json.finish())
    }
}

/// Fields to show, by number.
fn shown(message: &DynamicMessage, defaults: Defaults) -> Vec<FieldDescriptor> {
    match defaults {
        Defaults::Omit => message.fields().map(|(field, _)| field).collect(),
        Defaults::Print => with_defaults(&prost_reflect::ReflectMessage::descriptor(message), message),
    }
}

fn with_defaults(descriptor: &MessageDescriptor, message: &DynamicMessage) -> Vec<FieldDescriptor> {
    let mut fields: Vec<_> = descriptor
        .fields()
        .filter(|field| message.has_field(field) || !field.supports_presence())
        .collect();
    fields.sort_by_key(FieldDescriptor::number);
    fields
}

/// Envoy clears secret scalars that have no room for the text.
fn can_be_redacted(kind: &Kind) -> bool {
    match kind {
        Kind::String | Kind::Bytes => true,
        Kind::Message(entry) if entry.is_map_entry() => {
            can_be_redacted(&entry.map_entry_value_field().kind())
        }
        Kind::Message(_) => true,
        _ => false,
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}
