//! What the owner wants to hear of, type by type.
//!
//! Only the wish: what a stream has been told of it is the session's knowledge.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The name that stands for "everything of this type" (xDS protocol, "How the client specifies what resources
/// to return").
pub const WILDCARD: &str = "*";

/// The wanted resources of each type, in the order in which the types were first named; first requests on a
/// stream follow that order.
#[derive(Debug, Default)]
pub struct Subscriptions {
    interests: Vec<Interest>,
}

/// The wish for one type.
#[derive(Debug)]
pub(crate) struct Interest {
    pub(crate) type_url: Arc<str>,
    pub(crate) names: BTreeSet<String>,
    /// Dropped since the session last looked. A name that is wanted again by then must be asked for anew, because
    /// the owner may have thrown its copy away.
    pub(crate) forgotten: BTreeSet<String>,
    /// Goes up with each change of `names`.
    pub(crate) revision: u64,
    /// Whether the session should compare `names` with what it asked for.
    pub(crate) changed: bool,
}

impl Subscriptions {
    /// Subscribes to every resource of the type. In the state-of-the-world protocol each response is then the
    /// whole set.
    pub fn wildcard(&mut self, type_url: &str) {
        self.set_names(type_url, BTreeSet::from([WILDCARD.to_owned()]));
    }

    /// Subscribes to exactly these names; to none of the type if empty. O(n log n), nothing is sent if equal.
    ///
    /// A name that was dropped and comes back is requested anew, even when both happen before anything was sent.
    pub fn set_names(&mut self, type_url: &str, names: BTreeSet<String>) {
        let Some(interest) = self.interests.iter_mut().find(|i| &*i.type_url == type_url) else {
            self.interests.push(Interest {
                type_url: type_url.into(),
                changed: !names.is_empty(),
                names,
                forgotten: BTreeSet::new(),
                revision: 0,
            });
            return;
        };
        if interest.names == names {
            return;
        }
        let dropped = interest.names.difference(&names).cloned();
        interest.forgotten.extend(dropped);
        interest.names = names;
        interest.revision += 1;
        interest.changed = true;
    }

    /// Drops the type.
    pub fn unsubscribe(&mut self, type_url: &str) {
        if self.find(type_url).is_some() {
            self.set_names(type_url, BTreeSet::new());
        }
    }

    /// The wanted names of a type; `{"*"}` for a wildcard, `None` if the type was never named.
    pub fn names(&self, type_url: &str) -> Option<&BTreeSet<String>> {
        self.find(type_url).map(|interest| &interest.names)
    }

    pub(crate) fn find(&self, type_url: &str) -> Option<&Interest> {
        self.interests.iter().find(|i| &*i.type_url == type_url)
    }

    pub(crate) fn interests(&self) -> &[Interest] {
        &self.interests
    }

    pub(crate) fn interests_mut(&mut self) -> &mut [Interest] {
        &mut self.interests
    }

    #[cfg(test)]
    pub(crate) fn any_changed(&self) -> bool {
        self.interests.iter().any(|i| i.changed)
    }

    /// Lets the session look at the type again.
    pub(crate) fn mark_changed(&mut self, type_url: &str) {
        for interest in self.interests.iter_mut().filter(|i| &*i.type_url == type_url) {
            interest.changed = true;
        }
    }

    /// A new stream knows nothing: everything has to be said again.
    pub(crate) fn mark_all_changed(&mut self) {
        for interest in &mut self.interests {
            interest.changed = true;
        }
    }
}

impl Interest {
    pub(crate) fn is_wildcard(&self) -> bool {
        self.names.contains(WILDCARD)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.contains(name) || self.is_wildcard()
    }

    /// Wanted, and not dropped (nor dropped and wanted again) since the session last looked.
    pub(crate) fn holds(&self, name: &str) -> bool {
        let dropped = self.forgotten.contains(name) || self.forgotten.contains(WILDCARD);
        self.wants(name) && !dropped
    }

    /// Only the wildcard: said on a fresh stream by an empty list, which every control plane understands
    /// (istiod's state-of-the-world side does not know `*`).
    pub(crate) fn is_only_wildcard(&self) -> bool {
        self.names.len() == 1 && self.is_wildcard()
    }

    /// What has to be forgotten, as names; taken once.
    pub(crate) fn take_forgotten(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn the_same_names_again_are_no_change() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.set_names("t", set(&["a"]));
        subscriptions.interests_mut()[0].changed = false;
        subscriptions.set_names("t", set(&["a"]));
        assert!(!subscriptions.any_changed());
        subscriptions.set_names("t", set(&["a", "b"]));
        assert!(subscriptions.any_changed());
    }

    #[test]
    fn a_dropped_name_is_forgotten_even_if_it_comes_back() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.set_names("t", set(&["a", "b"]));
        subscriptions.unsubscribe("t");
        subscriptions.set_names("t", set(&["a"]));
        assert_eq!(
            subscriptions.interests_mut()[0].take_forgotten(),
            set(&["a", "b"])
        );
    }

    #[test]
    fn a_type_that_never_had_names_needs_no_request() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.set_names("t", set(&[]));
        subscriptions.unsubscribe("u");
        assert!(!subscriptions.any_changed());
        assert_eq!(subscriptions.names("u"), None);
    }
}
