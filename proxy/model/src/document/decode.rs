//! A tree as a message. Source: protobuf.dev "ProtoJSON Format", and where Envoy's parser is milder, as
//! Envoy: enum names in any case, a single value where a list is meant.
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::UnknownFields;
use super::nearest::nearest;
use super::scalar;
use super::tree::{Member, Node, Position, Tree};
use crate::dump::Descriptors;

/// Where and why a value does not fit.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Position,
    pub(super) path: String,
    pub(super) reason: String,
    pub(super) nearest: Option<String>,
    /// These descriptors lack the type of an `Any`; larger ones may have it.
    pub(super) unknown_type: bool,
}

/// Reads one document.
pub(super) struct Decoder<'d> {
    pub(super) descriptors: &'d Descriptors,
    unknown: UnknownFields,
    path: String,
    /// Faults so far, if reading goes on after one.
    found: Option<Vec<Fault>>,
}

/// Faults kept of one document; a document with more is of another format.
const MAX_FAULTS: usize = 1000;

impl<'d> Decoder<'d> {
    pub(super) fn new(descriptors: &'d Descriptors, unknown: UnknownFields) -> Self {
        Self {
            descriptors,
            unknown,
            path: String::new(),
            found: None,
        }
    }

    /// The whole tree as the message of that name, which stands at `path` of its file, and everything that is wrong with it: a member or
    /// an item with a fault is left out. `None`: nothing is left.
    pub(super) fn all_faults(
        descriptors: &'d Descriptors,
        node: &Node,
        full_name: &str,
        path: &str,
    ) -> (Option<DynamicMessage>, Vec<Fault>) {
        let mut decoder = Self::new(descriptors, UnknownFields::Refuse);
        decoder.found = Some(Vec::new());
        path.clone_into(&mut decoder.path);
        let read = decoder.top(node, full_name);
        let mut found = decoder.found.unwrap_or_default();
        match read {
            Ok(message) => (Some(message), found),
            Err(fault) => {
                found.push(fault);
                (None, found)
            }
        }
    }

    /// The whole tree as the message of that name.
    pub(super) fn document(mut self, node: &Node, full_name: &str) -> Result<DynamicMessage, Fault> {
        self.top(node, full_name)
    }

    fn top(&mut self, node: &Node, full_name: &str) -> Result<DynamicMessage, Fault> {
        let Some(descriptor) = self.descriptors.message(full_name) else {
            return Err(self.fault(
                node.at,
                format!("this program does not know the type {full_name}"),
            ));
        };
        match node.value {
            Tree::Object(_) => self.message(node, &descriptor),
            _ => Err(self.unexpected(node, "an object")),
        }
    }

    pub(super) fn message(
        &mut self,
        node: &Node,
        descriptor: &MessageDescriptor,
    ) -> Result<DynamicMessage, Fault> {
        if let Some(message) = self.well_known(node, descriptor) {
            return message;
        }
        match &node.value {
            Tree::Object(members) => self.fields(members.iter(), descriptor),
            _ => Err(self.unexpected(node, &format!("an object ({})", descriptor.full_name()))),
        }
    }

    pub(super) fn fields<'n>(
        &mut self,
        members: impl Iterator<Item = &'n Member>,
        descriptor: &MessageDescriptor,
    ) -> Result<DynamicMessage, Fault> {
        let mut message = DynamicMessage::new(descriptor.clone());
        for member in members {
            let read = self.within(&member.name, |decoder| {
                decoder.member(member, descriptor, &mut message)
            });
            self.keep(read)?;
        }
        Ok(message)
    }

    /// What was read; a fault is put aside if reading goes on after one.
    fn keep<T>(&mut self, read: Result<T, Fault>) -> Result<Option<T>, Fault> {
        match (read, &mut self.found) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(fault), Some(found)) if found.len() < MAX_FAULTS => {
                found.push(fault);
                Ok(None)
            }
            (Err(fault), _) => Err(fault),
        }
    }

    fn member(
        &mut self,
        member: &Member,
        descriptor: &MessageDescriptor,
        message: &mut DynamicMessage,
    ) -> Result<(), Fault> {
        let name = &member.name;
        let field = descriptor
            .get_field_by_name(name)
            .or_else(|| descriptor.get_field_by_json_name(name));
        let Some(field) = field else {
            return match self.unknown {
                UnknownFields::Ignore => Ok(()),
                UnknownFields::Refuse => Err(self.no_such_field(member, descriptor)),
            };
        };
        if member.value.value == Tree::Null && !takes_null(&field) {
            return Ok(());
        }
        if message.has_field(&field) {
            return Err(self.fault(
                member.at,
                "set twice, in snake_case and in camelCase; remove one of them",
            ));
        }
        if let Some(other) = other_of_oneof(&field, message) {
            let reason = format!("only one of this and `{other}` can be set; remove one of them");
            return Err(self.fault(member.at, reason));
        }
        let value = self.field(&member.value, &field)?;
        message.set_field(&field, value);
        Ok(())
    }

    fn field(&mut self, node: &Node, field: &FieldDescriptor) -> Result<Value, Fault> {
        let kind = field.kind();
        if field.is_map() {
            return self.map(node, &kind);
        }
        if !field.is_list() {
            return self.value(node, &kind);
        }
        let Tree::List(nodes) = &node.value else {
            // Envoy's parser takes `clusters: {…}` for a list of one.
            return Ok(Value::List(vec![self.value(node, &kind)?]));
        };
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let read = self.at_index(index, |decoder| {
                if node.value == Tree::Null && !takes_null(field) {
                    return Err(decoder.fault(node.at, "null in a list; remove it"));
                }
                decoder.value(node, &kind)
            });
            values.extend(self.keep(read)?);
        }
        Ok(Value::List(values))
    }

    fn map(&mut self, node: &Node, kind: &Kind) -> Result<Value, Fault> {
        let (Tree::Object(members), Kind::Message(entry)) = (&node.value, kind) else {
            return Err(self.unexpected(node, "an object"));
        };
        let (key_kind, value_kind) = (
            entry.map_entry_key_field().kind(),
            entry.map_entry_value_field().kind(),
        );
        let mut values = std::collections::HashMap::with_capacity(members.len());
        for member in members {
            let path = self.path.len();
            self.path.push_str(&format!("[\"{}\"]", member.name));
            let key = scalar::map_key(&member.name, &key_kind);
            let key = key.ok_or_else(|| self.fault(member.at, format!("not a key of kind {key_kind:?}")))?;
            values.insert(key, self.value(&member.value, &value_kind)?);
            self.path.truncate(path);
        }
        Ok(Value::Map(values))
    }

    fn value(&mut self, node: &Node, kind: &Kind) -> Result<Value, Fault> {
        match kind {
            Kind::Message(descriptor) => self.message(node, descriptor).map(Value::Message),
            Kind::Enum(descriptor) => {
                scalar::enumeration(&node.value, descriptor).map_err(|(reason, nearest)| Fault {
                    nearest,
                    ..self.fault(node.at, reason)
                })
            }
            kind => scalar::scalar(&node.value, kind).map_err(|reason| self.fault(node.at, reason)),
        }
    }

    /// Runs with `.name` added to the path.
    pub(super) fn within<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let length = self.path.len();
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
        let result = read(self);
        self.path.truncate(length);
        result
    }

    fn at_index<T>(
        &mut self,
        index: usize,
        read: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let result = read(self);
        self.path.truncate(length);
        result
    }

    pub(super) fn fault(&self, at: Position, reason: impl Into<String>) -> Fault {
        let path = if self.path.is_empty() {
            "document".to_owned()
        } else {
            self.path.clone()
        };
        Fault {
            at,
            path,
            reason: reason.into(),
            nearest: None,
            unknown_type: false,
        }
    }

    pub(super) fn unexpected(&self, node: &Node, wanted: &str) -> Fault {
        self.fault(node.at, format!("expected {wanted}, found {}", node.value.kind()))
    }

    fn no_such_field(&self, member: &Member, descriptor: &MessageDescriptor) -> Fault {
        let names = descriptor
            .fields()
            .flat_map(|field| [field.name().to_owned(), field.json_name().to_owned()]);
        let nearest = nearest(&member.name, names);
        Fault {
            nearest,
            ..self.fault(member.at, format!("{} has no such field", descriptor.full_name()))
        }
    }
}

/// `null` elsewhere means "not set".
fn takes_null(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => message.full_name() == "google.protobuf.Value",
        Kind::Enum(descriptor) => descriptor.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}

/// The field of the same oneof that is set already.
fn other_of_oneof(field: &FieldDescriptor, message: &DynamicMessage) -> Option<String> {
    let oneof = field.containing_oneof()?;
    let set = oneof.fields().find(|other| message.has_field(other));
    set.map(|other| other.name().to_owned())
}
