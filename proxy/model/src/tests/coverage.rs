//! Every field that istiod has set in some capture has a verdict, and what has no effect yet says which issue builds it.
use std::collections::{BTreeSet, HashMap};

use prost_reflect::DynamicMessage;

use super::captures::{self, Captured};
use super::convert;
use super::mutation::{applies, visit};
use super::verdict::{self, Kind, Verdict};
use crate::dump::Descriptors;

/// Read as values, without a `verdicts!`: containers of protobuf itself, and the `TypedStruct`s that are opened.
fn is_container(message: &str) -> bool {
    message.starts_with("google.protobuf.") || message.ends_with(".TypedStruct")
}

/// The fields that are set in a resource, as message, path and field.
fn set_fields(descriptors: &Descriptors, captured: &Captured, seen: &mut BTreeSet<(String, String, String)>) {
    let message = descriptors
        .decode_any(&captured.type_url, &captured.bytes)
        .unwrap();
    let mut each = |message: &DynamicMessage, path: &str, _: &dyn Fn(DynamicMessage) -> DynamicMessage| {
        let name = message.descriptor_name();
        if is_container(&name) {
            return;
        }
        for (field, _) in message.fields() {
            seen.insert((name.clone(), path.to_owned(), field.name().to_owned()));
        }
    };
    visit(descriptors, &message, "", &|message| message, &mut each);
}

/// Its full name.
trait Named {
    fn descriptor_name(&self) -> String;
}

impl Named for DynamicMessage {
    fn descriptor_name(&self) -> String {
        prost_reflect::ReflectMessage::descriptor(self)
            .full_name()
            .to_owned()
    }
}

#[test]
fn every_captured_field_has_a_verdict_and_none_is_without_effect_for_ever() {
    let descriptors = Descriptors::full().unwrap();
    let mut verdicts: HashMap<String, Vec<Verdict>> = HashMap::new();
    for verdict in verdict::all(&descriptors) {
        verdicts.entry(verdict.message.clone()).or_default().push(verdict);
    }
    let mut seen = BTreeSet::new();
    for captured in captures::all().into_iter().chain(captures::scale()) {
        if convert(&captured.type_url, &captured.bytes).is_ok() {
            set_fields(&descriptors, &captured, &mut seen);
        }
    }
    assert!(seen.len() > 500, "{} fields", seen.len());
    let mut wrong = BTreeSet::new();
    for (message, path, field) in &seen {
        let descriptor = descriptors.message(message).unwrap();
        let oneof = descriptor
            .get_field_by_name(field)
            .and_then(|field| field.containing_oneof());
        let known = verdicts.get(message).into_iter().flatten().filter(|verdict| {
            let names =
                verdict.field == *field || oneof.as_ref().is_some_and(|oneof| oneof.name() == verdict.field);
            names && applies(verdict, path)
        });
        let known: Vec<_> = known.collect();
        if known.is_empty() {
            wrong.insert(format!("{message}.{field} has no verdict ({path})"));
        }
        for verdict in known {
            if verdict.kind == Kind::Unsupported && verdict.text.is_empty() {
                wrong.insert(format!(
                    "{message}.{field} has no effect, and nothing says what will build it"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
