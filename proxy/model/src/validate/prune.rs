//! Takes out what was refused, so that the model says what else it would refuse.
//!
//! The model stops at the first refusal of a resource, as a NACK needs no second one; who repairs a file wants all of them. What is only
//! refused because something was taken out is not reported: the message that a field was taken from, and those around it, are judged no more.
use prost::Message as _;
use prost_reflect::{DynamicMessage, MapKey, ReflectMessage as _, Value};

use super::walk;
use crate::document::{Segment, segments};
use crate::dump::Descriptors;

/// What was taken out of one resource.
#[derive(Default)]
pub(super) struct Pruned {
    /// In paths of the original.
    taken: Vec<Vec<Segment>>,
}

impl Pruned {
    /// The path in the original of what is now at `path`.
    pub(super) fn original(&self, path: &str) -> Vec<Segment> {
        let mut original: Vec<Segment> = Vec::new();
        for segment in segments(path) {
            let segment = match segment {
                Segment::Index(index) => Segment::Index(self.original_index(&original, index)),
                name => name,
            };
            original.push(segment);
        }
        original
    }

    fn original_index(&self, list: &[Segment], index: usize) -> usize {
        let taken = self.taken.iter().filter_map(|path| match path.split_last() {
            Some((Segment::Index(taken), of)) if of == list => Some(*taken),
            _ => None,
        });
        let mut taken: Vec<usize> = taken.collect();
        taken.sort_unstable();
        taken
            .into_iter()
            .fold(index, |index, taken| index + usize::from(taken <= index))
    }

    /// Something was taken out of the message that holds this field, or from inside the field.
    pub(super) fn explains(&self, path: &[Segment]) -> bool {
        self.taken
            .iter()
            .any(|taken| taken.starts_with(path) || message_of(taken) == message_of(path))
    }

    /// Takes out what is at `path`, or if nothing is there, the innermost message around it. False: nothing is left to take.
    pub(super) fn take(
        &mut self,
        descriptors: &Descriptors,
        message: &mut DynamicMessage,
        path: &str,
    ) -> bool {
        let mut parts = segments(path);
        // Without its condition an item would match everything: it goes with it.
        if let Some(condition) = parts.iter().rposition(is_condition) {
            parts.truncate(condition);
        }
        while !parts.is_empty() {
            if remove(descriptors, message, &parts) {
                let path = write(&parts);
                self.taken.push(self.original(&path));
                return true;
            }
            parts.pop();
        }
        false
    }
}

fn is_condition(part: &Segment) -> bool {
    matches!(part, Segment::Name(name) if matches!(name.as_str(), "filter_chain_match" | "match"))
}

/// A path as people write it.
pub(super) fn write(parts: &[Segment]) -> String {
    let mut path = String::new();
    for part in parts {
        match part {
            Segment::Index(index) => path.push_str(&format!("[{index}]")),
            Segment::Key(key) => path.push_str(&format!("[{key:?}]")),
            Segment::Name(name) => path = super::finding::join(&path, name),
        }
    }
    path
}

/// The path of the message that holds the field at the end of `path`.
fn message_of(path: &[Segment]) -> &[Segment] {
    let last = path
        .iter()
        .rposition(|segment| matches!(segment, Segment::Name(_)));
    path.get(..last.unwrap_or_default()).unwrap_or_default()
}

fn remove(descriptors: &Descriptors, message: &mut DynamicMessage, path: &[Segment]) -> bool {
    if message.descriptor().full_name() == "google.protobuf.Any" {
        return remove_in_any(descriptors, message, path);
    }
    let Some((Segment::Name(name), rest)) = path.split_first() else {
        return false;
    };
    let Some(field) = message.descriptor().get_field_by_name(name) else {
        return false;
    };
    if !message.has_field(&field) {
        return false;
    }
    if rest.is_empty() {
        message.clear_field(&field);
        return true;
    }
    remove_in_value(descriptors, message.get_field_mut(&field), rest)
}

fn remove_in_value(descriptors: &Descriptors, value: &mut Value, path: &[Segment]) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    match (value, first) {
        (Value::Message(inner), _) => remove(descriptors, inner, path),
        (Value::List(items), Segment::Index(index)) if *index < items.len() => match rest {
            [] => {
                items.remove(*index);
                true
            }
            rest => items
                .get_mut(*index)
                .is_some_and(|item| remove_in_value(descriptors, item, rest)),
        },
        (Value::Map(entries), Segment::Key(key)) => {
            let key = MapKey::String(key.clone());
            match rest {
                [] => entries.remove(&key).is_some(),
                rest => entries
                    .get_mut(&key)
                    .is_some_and(|entry| remove_in_value(descriptors, entry, rest)),
            }
        }
        _ => false,
    }
}

fn remove_in_any(descriptors: &Descriptors, any: &mut DynamicMessage, path: &[Segment]) -> bool {
    let Some(mut inner) = walk::open(descriptors, any) else {
        return false;
    };
    let removed = remove(descriptors, &mut inner, path);
    if removed {
        any.set_field_by_number(2, Value::Bytes(inner.encode_to_vec().into()));
    }
    removed
}
