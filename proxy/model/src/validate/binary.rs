//! Encoded messages without a name: which one is it?
//!
//! Protobuf does not say. Bytes count as a message when they decode, leave no field unknown, and every `Any` that makes the message what
//! it is names a type. Several messages in one file are told apart by a length before each: four bytes, big end first (recorded streams),
//! five of gRPC (a flag before the four), or a varint (protobuf's `writeDelimitedTo`).
use prost_reflect::{DynamicMessage, Value};

use super::walk;
use crate::dump::Descriptors;

/// Of a message that decodes: are its contents those of this type?
type IsIt = fn(&Descriptors, &DynamicMessage) -> bool;

/// In the order in which they are tried.
const CANDIDATES: [(&str, IsIt); 6] = [
    ("envoy.service.discovery.v3.DiscoveryResponse", is_response),
    ("envoy.service.discovery.v3.DeltaDiscoveryResponse", is_response),
    ("envoy.service.discovery.v3.Resource", |_, message| {
        any_of(message, "resource").is_some_and(|any| is_typed(&any))
    }),
    ("envoy.admin.v3.ConfigDump", |_, message| {
        let configs = list(message, "configs");
        !configs.is_empty() && configs.iter().all(is_typed)
    }),
    ("google.protobuf.Any", |descriptors, message| {
        is_typed(message) && walk::open(descriptors, message).is_some()
    }),
    ("envoy.config.bootstrap.v3.Bootstrap", |_, message| {
        ["node", "static_resources", "dynamic_resources", "admin"]
            .iter()
            .any(|field| message.has_field_by_name(field))
    }),
];

/// The messages in a file with their paths: that of a single one is empty. `None`: it is none of them.
pub(super) fn read(descriptors: &Descriptors, bytes: &[u8]) -> Option<Vec<(String, DynamicMessage)>> {
    if let Some(message) = one(descriptors, bytes) {
        return Some(vec![(String::new(), message)]);
    }
    [four_bytes as Frame, five_bytes, varint]
        .iter()
        .find_map(|frame| several(descriptors, bytes, *frame))
}

fn one(descriptors: &Descriptors, bytes: &[u8]) -> Option<DynamicMessage> {
    CANDIDATES.iter().find_map(|(name, is_it)| {
        let message = DynamicMessage::decode(descriptors.message(name)?, bytes).ok()?;
        (message.unknown_fields().next().is_none() && is_it(descriptors, &message)).then_some(message)
    })
}

/// The first message and what follows it.
type Frame = fn(&[u8]) -> Option<(&[u8], &[u8])>;

fn several(descriptors: &Descriptors, bytes: &[u8], frame: Frame) -> Option<Vec<(String, DynamicMessage)>> {
    let mut messages = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (framed, after) = frame(rest)?;
        let message = one(descriptors, framed)?;
        messages.push((format!("[{}]", messages.len()), message));
        rest = after;
    }
    Some(messages)
}

fn four_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn five_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // 0: not compressed.
    four_bytes(bytes.strip_prefix(&[0])?)
}

fn varint(mut bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = prost::encoding::decode_varint(&mut bytes).ok()?;
    bytes.split_at_checked(usize::try_from(length).ok()?)
}

/// Both kinds of discovery responses: the type is field 4 of either, and what is in `resources` must fit.
fn is_response(descriptors: &Descriptors, message: &DynamicMessage) -> bool {
    let resources = list(message, "resources");
    let fits = |resource: &DynamicMessage| match any_of(resource, "resource") {
        Some(any) => is_typed(&any),
        // SotW holds the `Any` itself; of a delta resource whose `Any` is missing nothing is left to check.
        None => is_typed(resource) && resource.get_field_by_name("type_url").is_some(),
    };
    let type_url = walk::text(message, "type_url");
    resources.iter().all(fits) && (!resources.is_empty() || descriptors.by_url(&type_url).is_some())
}

fn is_typed(any: &DynamicMessage) -> bool {
    walk::text(any, "type_url").contains('/')
}

fn any_of(message: &DynamicMessage, field: &str) -> Option<DynamicMessage> {
    message
        .has_field_by_name(field)
        .then(|| message.get_field_by_name(field)?.as_message().cloned())?
}

fn list(message: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    let value = message.get_field_by_name(field);
    let items = value.as_deref().and_then(Value::as_list).unwrap_or_default();
    items.iter().filter_map(Value::as_message).cloned().collect()
}
