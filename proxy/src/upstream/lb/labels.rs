//! Labels of hosts that a request asks for; hashed when its route is built.
//!
//! Source: Envoy `MetadataMatchCriteriaImpl`; cluster.proto `LbSubsetConfig.metadata_fallback_policy`.
use std::hash::{DefaultHasher, Hash, Hasher};

use outrigger_model::metadata::{Struct, Value};

/// The key of a list of labels, each set of which is tried in turn.
const FALLBACK_LIST: &str = "fallback_list";

/// A label and its value.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub(super) name: Box<str>,
    pub(super) value: Value,
    hash: u64,
}

/// What a request asks for; never empty.
#[derive(Debug)]
pub(crate) struct Labels {
    all: Vec<Label>,
    list: Option<FallbackList>,
}

/// For clusters that know of such lists.
#[derive(Debug)]
struct FallbackList {
    /// The labels beside the list.
    rest: Vec<Label>,
    /// The same with what each item changes.
    changed: Vec<Vec<Label>>,
}

impl Label {
    pub(super) fn new(name: &str, value: &Value) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        hash_value(value, &mut hasher);
        Self {
            name: name.into(),
            value: value.clone(),
            hash: hasher.finish(),
        }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.hash == other.hash && self.name == other.name && self.value == other.value
    }
}

impl Labels {
    /// Those of a route; `None`: it asks for none.
    pub(crate) fn new(labels: &Struct) -> Option<Self> {
        if labels.is_empty() {
            return None;
        }
        Some(Self {
            all: sorted(labels),
            list: labels
                .get(FALLBACK_LIST)
                .map(|list| FallbackList::new(labels, list)),
        })
    }

    /// The sets of labels to try; `with_list`: a fallback list is one, and not a label.
    pub(super) fn tries(&self, with_list: bool) -> Tries<'_> {
        match self.list.as_ref().filter(|_| with_list) {
            None => Tries::Once(&self.all),
            Some(list) if list.changed.is_empty() => Tries::Once(&list.rest),
            Some(list) => Tries::Each(&list.changed),
        }
    }
}

/// What to look for.
pub(super) enum Tries<'a> {
    Once(&'a [Label]),
    /// Until one finds a host.
    Each(&'a [Vec<Label>]),
}

impl FallbackList {
    fn new(labels: &Struct, list: &Value) -> Self {
        let mut rest = labels.clone();
        rest.remove(FALLBACK_LIST);
        let items = list.as_list().unwrap_or_default().iter();
        let changed = items.map(|item| {
            let mut changed = rest.clone();
            changed.extend(item.as_struct().cloned().unwrap_or_default());
            sorted(&changed)
        });
        Self {
            changed: changed.collect(),
            rest: sorted(&rest),
        }
    }
}

fn sorted(labels: &Struct) -> Vec<Label> {
    labels
        .iter()
        .map(|(name, value)| Label::new(name, value))
        .collect()
}

/// Of labels sorted by name.
pub(super) fn hash_of<'a>(labels: impl Iterator<Item = &'a Label>) -> u64 {
    labels.fold(0, |hash, label| hash.rotate_left(7) ^ label.hash)
}

fn hash_value(value: &Value, hasher: &mut impl Hasher) {
    std::mem::discriminant(value).hash(hasher);
    match value {
        Value::Null => {}
        Value::Bool(value) => value.hash(hasher),
        // Zero is zero, whatever its sign.
        Value::Number(value) => (value + 0.0).to_bits().hash(hasher),
        Value::String(value) => value.hash(hasher),
        Value::List(items) => items.iter().for_each(|item| hash_value(item, hasher)),
        Value::Struct(fields) => fields.iter().for_each(|(name, value)| {
            name.hash(hasher);
            hash_value(value, hasher);
        }),
    }
}
