//! Field masks: which members of a message are shown.
use std::collections::BTreeMap;
use std::fmt;

use prost_reflect::{Kind, MessageDescriptor};

/// A tree of field names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mask {
    All,
    Only(BTreeMap<String, Mask>),
}

impl Mask {
    /// From paths as `bootstrap.node.id`; no path, or only empty ones: everything.
    pub(super) fn parse<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut root = BTreeMap::new();
        for path in paths.into_iter().filter(|path| !path.is_empty()) {
            insert(&mut root, path);
        }
        if root.is_empty() {
            Self::All
        } else {
            Self::Only(root)
        }
    }

    /// What is shown inside `field`; `None`: the field is hidden.
    pub(super) fn child(&self, field: &str) -> Option<&Self> {
        match self {
            Self::All => Some(&Self::All),
            Self::Only(fields) => fields.get(field),
        }
    }

    /// Every path exists in the message. A path ends at a repeated field and at an `Any`.
    /// Source: protobuf `FieldMaskUtil::GetFieldDescriptors`.
    pub(super) fn fits(&self, message: &MessageDescriptor) -> bool {
        let Self::Only(fields) = self else {
            return true;
        };
        fields
            .iter()
            .all(|(name, inner)| match (message.get_field_by_name(name), inner) {
                (None, _) => false,
                (Some(_), Self::All) => true,
                (Some(field), inner) => match field.kind() {
                    Kind::Message(nested) => !field.is_list() && !field.is_map() && inner.fits(&nested),
                    _ => false,
                },
            })
    }

    /// As [`Self::fits`], for an element that holds a resource in an `Any`: paths go on inside it, and may not end at it.
    /// Source: Envoy `trimResourceMessage`.
    pub(super) fn fits_element(&self, element: &MessageDescriptor, resource: &MessageDescriptor) -> bool {
        let Self::Only(fields) = self else {
            return true;
        };
        fields.iter().all(|(name, inner)| {
            let field = element.get_field_by_name(name);
            match (field.map(|field| field.kind()), inner) {
                (Some(Kind::Message(any)), inner) if any.full_name() == "google.protobuf.Any" => {
                    *inner != Self::All && inner.fits(resource)
                }
                _ => Self::Only(BTreeMap::from([(name.clone(), inner.clone())])).fits(element),
            }
        })
    }

    /// All paths, in order.
    fn paths(&self, before: &str, found: &mut Vec<String>) {
        let Self::Only(fields) = self else {
            found.push(before.to_owned());
            return;
        };
        for (name, inner) in fields {
            let dot = if before.is_empty() { "" } else { "." };
            inner.paths(&format!("{before}{dot}{name}"), found);
        }
    }
}

/// As protobuf's text format.
impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut paths = Vec::new();
        self.paths("", &mut paths);
        paths.iter().try_for_each(|path| writeln!(f, "paths: {path:?}"))
    }
}

/// A shorter path wins over its continuations: `a` shows more than `a.b`.
fn insert(fields: &mut BTreeMap<String, Mask>, path: &str) {
    match path.split_once('.') {
        None => {
            fields.insert(path.to_owned(), Mask::All);
        }
        Some((head, tail)) => {
            if let Mask::Only(inner) = fields
                .entry(head.to_owned())
                .or_insert_with(|| Mask::Only(BTreeMap::new()))
            {
                insert(inner, tail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_path_wins() {
        for paths in [["a", "a.b"], ["a.b", "a"]] {
            assert_eq!(Mask::parse(paths).child("a"), Some(&Mask::All));
        }
        assert_eq!(Mask::parse(["a.b"]).child("c"), None);
    }
}
