//! What both protocols do alike: wishes and what was dropped from them, streams, the order of messages, the node.
//!
//! A protocol brings its state of one type ([`PerType`]) and reads its own responses.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::rpc::Status;

use super::intake::Outcome;
use super::names::Named;
use super::pacing::Answers;
use super::shortened;
use super::ttl::Expiries;
use crate::subscriptions::{Interest, WILDCARD};
use crate::{Counters, Handler, Rejection, Report, Subscriptions, Update};

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

    /// Something of the type was asked for on this stream.
    fn is_asked(&self) -> bool;

    /// When resources expire.
    fn expiries(&mut self) -> &mut Expiries;

    /// What expired of these names and was still there is gone, or stays if `refused`.
    fn expire(&mut self, names: &[String], refused: &[Rejection]);

    /// Says who asks.
    fn introduce(request: &mut Self::Request, node: Node);

    /// A request that asks for nothing.
    fn report(type_url: String, error_detail: Option<Status>) -> Self::Request;
}

/// What the owner has to say, and whether this stream has heard it.
#[derive(Debug)]
struct Said {
    report: Report,
    pending: bool,
}

/// The shared part of a [`super::Session`].
#[derive(Debug)]
pub(super) struct Machine<T: PerType> {
    node: Node,
    pub(super) subscriptions: Subscriptions,
    pub(super) types: HashMap<Arc<str>, T>,
    pub(super) answers: Answers<T::Request>,
    stream_open: bool,
    node_sent: bool,
    reports: Vec<Said>,
    pub(super) now: Duration,
    pub(super) counters: Counters,
}

impl<T: PerType> Machine<T> {
    pub(super) fn new(node: Node, subscriptions: Subscriptions) -> Self {
        Self {
            node,
            subscriptions,
            types: HashMap::new(),
            answers: Answers::default(),
            stream_open: false,
            node_sent: false,
            reports: Vec::new(),
            now: Duration::ZERO,
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
        self.reports.iter_mut().for_each(|said| said.pending = true);
    }

    pub(super) fn stream_closed(&mut self) {
        self.stream_open = false;
        self.counters.stale_nonces += u64::try_from(self.answers.len()).unwrap_or(u64::MAX);
        self.answers.clear();
    }

    pub(super) fn wants_to_send(&self) -> bool {
        self.stream_open
            && (self.answers.any_due(self.now) || self.has_changes() || self.due_report().is_some())
    }

    fn has_changes(&self) -> bool {
        self.subscriptions
            .interests()
            .iter()
            .any(|i| i.changed && !self.answers.holds(&i.type_url))
    }

    /// Queues the answer to a response.
    pub(super) fn answer(&mut self, type_url: &str, request: T::Request, is_refusal: bool) {
        self.answers.push(type_url, request, is_refusal, self.now);
    }

    /// Replaces what was said of the same type before.
    pub(super) fn report(&mut self, report: Report) {
        self.reports
            .retain(|said| said.report.type_url != report.type_url);
        self.reports.push(Said {
            report,
            pending: true,
        });
    }

    fn due_report(&self) -> Option<usize> {
        let asked = |type_url: &str| self.types.get(type_url).is_some_and(T::is_asked);
        self.reports
            .iter()
            .position(|said| said.pending && self.node_sent && asked(&said.report.after))
    }

    fn next_report(&mut self) -> Option<T::Request> {
        let due = self.due_report()?;
        let said = self.reports.get_mut(due)?;
        said.pending = false;
        let Report { type_url, error, .. } = &said.report;
        let detail = error.as_ref().map(|error| Status {
            code: error.code,
            message: shortened(&error.message).to_owned(),
            details: Vec::new(),
        });
        Some(T::report(type_url.clone(), detail))
    }

    /// An expiry, or an answer that is held.
    pub(super) fn next_deadline(&mut self) -> Option<Duration> {
        let held = self.answers.next_due().filter(|due| *due > self.now);
        let expiries = self
            .types
            .values_mut()
            .filter_map(|state| state.expiries().next());
        expiries.chain(held).min()
    }

    /// Tells the owner of everything whose time to live is over.
    pub(super) fn advance<H: Handler + ?Sized>(&mut self, now: Duration, handler: &mut H) {
        self.now = now;
        let mut next = self
            .types
            .values_mut()
            .filter_map(|state| state.expiries().next());
        if !next.any(|at| at <= now) {
            return;
        }
        self.forget_dropped();
        let due = |(type_url, state): (&Arc<str>, &mut T)| {
            let names = state.expiries().take_due(now);
            (!names.is_empty()).then(|| (type_url.clone(), names))
        };
        let due: Vec<_> = self.types.iter_mut().filter_map(due).collect();
        for (type_url, names) in due {
            self.counters.expired += u64::try_from(names.len()).unwrap_or(u64::MAX);
            let update = Update {
                type_url: type_url.clone(),
                version: String::new(),
                added: Vec::new(),
                removed: names,
                full_state: false,
            };
            let refused = handler
                .on_update(&update, &mut self.subscriptions)
                .err()
                .unwrap_or_default();
            if let Some(state) = self.types.get_mut(&type_url) {
                state.expire(&update.removed, &refused);
            }
        }
    }

    pub(super) fn next_request(&mut self) -> Option<T::Request> {
        if !self.stream_open {
            return None;
        }
        if let Some(answer) = self.answers.pop(self.now) {
            return Some(self.stamp(answer));
        }
        self.forget_dropped();
        let (types, answers) = (&mut self.types, &self.answers);
        let request = self
            .subscriptions
            .interests_mut()
            .iter_mut()
            // It would be read as the answer that waits.
            .filter(|i| i.changed && !answers.holds(&i.type_url))
            .find_map(|interest| {
                types
                    .entry(interest.type_url.clone())
                    .or_default()
                    .subscription_request(interest)
            });
        let request = request.or_else(|| self.next_report())?;
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
    /// Every resource that the owner was shown and that is not gone, with what the protocol knows of it. All of them are wanted: what
    /// the owner dropped from its wishes is forgotten before each response.
    pub(super) known: Named<V>,
    /// What this stream asked for; `None` before the first request of the type.
    pub(super) asked: Option<BTreeSet<String>>,
    /// Asked for, dropped and wanted again: to be taken back and then asked for once more, which makes every control plane send it again
    /// (istiod ignores a subscription to what is subscribed).
    pub(super) renewing: BTreeSet<String>,
    pub(super) expiries: Expiries,
}

impl<V> Default for Held<V> {
    fn default() -> Self {
        Self {
            known: Named::default(),
            asked: None,
            renewing: BTreeSet::new(),
            expiries: Expiries::default(),
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
            let (known, expiries) = (&mut self.known, &mut self.expiries);
            known.retain(|name, _| {
                let stays = interest.names.contains(name) && !forgotten.contains(name);
                if !stays {
                    expiries.set(name, None);
                }
                stays
            });
        } else if interest.is_wildcard() {
            // Still covered: nothing is dropped by no longer naming it.
            return;
        }
        for name in forgotten {
            self.known.remove(&name);
            self.expiries.set(&name, None);
            if self.asked.as_ref().is_some_and(|asked| asked.contains(&name)) {
                self.renewing.insert(name);
            }
        }
    }

    /// Forgets what is gone, unless the owner refused to let it go.
    pub(super) fn remove_gone(&mut self, outcome: &Outcome<'_>) {
        self.remove(outcome.removed, &outcome.rejections);
    }

    pub(super) fn remove(&mut self, names: &[String], refused: &[Rejection]) {
        let refused: BTreeSet<&str> = refused.iter().map(|r| r.resource.as_str()).collect();
        for name in names.iter().filter(|name| !refused.contains(name.as_str())) {
            self.known.remove(name);
            self.expiries.set(name, None);
        }
    }

    /// Notes until when the accepted resources live; a heartbeat of what is not there means nothing.
    pub(super) fn live(&mut self, outcome: &Outcome<'_>, now: Duration) {
        if self.expiries.next().is_none() && outcome.ttls.is_empty() {
            return;
        }
        let rejected = outcome.rejected();
        let accepted = |name: &str| self.known.contains_key(name) && !rejected.contains(name);
        for resource in outcome.added.iter().filter(|resource| accepted(&resource.name)) {
            self.expiries.set(&resource.name, None);
        }
        for (name, ttl) in outcome.ttls.iter().filter(|(name, _)| accepted(name)) {
            self.expiries.set(name, Some(now.saturating_add(*ttl)));
        }
    }
}
