//! What both protocols do alike: wishes and what was dropped from them, streams, the order of messages, the node.
//!
//! A protocol brings its state of one type ([`PerType`]) and reads its own responses.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;

use super::intake::Outcome;
use crate::subscriptions::{Interest, WILDCARD};
use crate::{Counters, Subscriptions};

/// What one protocol keeps of one resource type.
pub(super) trait PerType: Default {
    /// What is sent.
    type Request;

    /// Nothing was said on the new stream yet.
    fn start_stream(&mut self);

    /// The owner dropped these names from its wishes.
    fn forget(&mut self, interest: &Interest, forgotten: BTreeSet<String>);

    /// The next request that brings the stream closer to what is wanted; clears `changed` when none is left.
    fn subscription_request(&mut self, interest: &mut Interest) -> Option<Self::Request>;

    /// Says who asks.
    fn introduce(request: &mut Self::Request, node: Node);
}

/// The shared part of a [`super::Session`].
#[derive(Debug)]
pub(super) struct Machine<T: PerType> {
    node: Node,
    pub(super) subscriptions: Subscriptions,
    pub(super) types: HashMap<Arc<str>, T>,
    pub(super) answers: VecDeque<T::Request>,
    stream_open: bool,
    node_sent: bool,
    pub(super) counters: Counters,
}

impl<T: PerType> Machine<T> {
    pub(super) fn new(node: Node, subscriptions: Subscriptions) -> Self {
        Self {
            node,
            subscriptions,
            types: HashMap::new(),
            answers: VecDeque::new(),
            stream_open: false,
            node_sent: false,
            counters: Counters::default(),
        }
    }

    /// Lets go of what the owner dropped from its wishes.
    pub(super) fn forget_dropped(&mut self) {
        for interest in self.subscriptions.interests_mut() {
            let forgotten = interest.take_forgotten();
            if !forgotten.is_empty() {
                self.types
                    .entry(interest.type_url.clone())
                    .or_default()
                    .forget(interest, forgotten);
            }
        }
    }

    pub(super) fn stream_opened(&mut self) {
        self.stream_closed();
        self.forget_dropped();
        self.stream_open = true;
        self.node_sent = false;
        for state in self.types.values_mut() {
            state.start_stream();
        }
        self.subscriptions.mark_all_changed();
    }

    pub(super) fn stream_closed(&mut self) {
        self.stream_open = false;
        self.counters.stale_nonces += u64::try_from(self.answers.len()).unwrap_or(u64::MAX);
        self.answers.clear();
    }

    pub(super) fn wants_to_send(&self) -> bool {
        self.stream_open && (!self.answers.is_empty() || self.subscriptions.any_changed())
    }

    pub(super) fn next_request(&mut self) -> Option<T::Request> {
        if !self.stream_open {
            return None;
        }
        if let Some(answer) = self.answers.pop_front() {
            return Some(self.stamp(answer));
        }
        self.forget_dropped();
        let types = &mut self.types;
        let request = self
            .subscriptions
            .interests_mut()
            .iter_mut()
            .filter(|i| i.changed)
            .find_map(|interest| {
                types
                    .entry(interest.type_url.clone())
                    .or_default()
                    .subscription_request(interest)
            })?;
        Some(self.stamp(request))
    }

    fn stamp(&mut self, mut request: T::Request) -> T::Request {
        if !self.node_sent {
            self.node_sent = true;
            T::introduce(&mut request, self.node.clone());
        }
        self.counters.requests += 1;
        request
    }
}

/// The resources of one type that the owner has seen, and the names that the stream was asked for.
#[derive(Debug)]
pub(super) struct Held<V> {
    /// Every resource that the owner was shown and that is not gone, with what the protocol knows of it.
    pub(super) known: BTreeMap<String, V>,
    /// What this stream asked for; `None` before the first request of the type.
    pub(super) asked: Option<BTreeSet<String>>,
    /// Asked for, dropped and wanted again: to be taken back and then asked for once more, which makes every control plane send it again
    /// (istiod ignores a subscription to what is subscribed).
    pub(super) renewing: BTreeSet<String>,
}

impl<V> Default for Held<V> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            asked: None,
            renewing: BTreeSet::new(),
        }
    }
}

impl<V> Held<V> {
    pub(super) fn start_stream(&mut self) {
        self.asked = None;
        self.renewing.clear();
    }

    pub(super) fn forget(&mut self, interest: &Interest, forgotten: BTreeSet<String>) {
        if forgotten.contains(WILDCARD) {
            self.known
                .retain(|name, _| interest.names.contains(name) && !forgotten.contains(name));
        } else if interest.is_wildcard() {
            // Still covered: nothing is dropped by no longer naming it.
            return;
        }
        for name in forgotten {
            self.known.remove(&name);
            if self.asked.as_ref().is_some_and(|asked| asked.contains(&name)) {
                self.renewing.insert(name);
            }
        }
    }

    /// Forgets what is gone, unless the owner refused to let it go.
    pub(super) fn remove_gone(&mut self, outcome: &Outcome) {
        let rejected = outcome.rejected();
        for name in &outcome.removed {
            if !rejected.contains(name.as_str()) {
                self.known.remove(name);
            }
        }
    }
}
