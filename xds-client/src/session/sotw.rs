//! The state-of-the-world protocol: `StreamAggregatedResources`, and SDS alone (`StreamSecrets`).
//!
//! Rules kept here:
//! - Every request of a type carries all its names, the version accepted last and the newest nonce. A control plane
//!   ignores a request with an older nonce, so the answer to the newer response has to repeat the names.
//! - A NACK keeps the version accepted last. istiod reads no names from a NACK (pkg/xds/server.go, `ShouldRespond`), so a
//!   change of names never travels with one.
//! - A wildcard response is the whole set; what is absent is gone. A response by name may hold any part of the set
//!   (istiod: endpoints and routes that changed), so there absence says nothing.
//! - An empty list means everything at first and nothing after names were sent.
//!
//! A wildcard that nobody wants any more cannot be taken back in this protocol; its responses are then dropped.

mod wrapper;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::google::rpc::Status;

use self::wrapper::offer;
use super::intake::{Intake, Offer, Outcome};
use super::machine::{Held, Machine, PerType};
use super::ttl::Expiries;
use super::{Session, error_detail};
use crate::subscriptions::{Interest, WILDCARD};
use crate::{Counters, Handler, Rejection, Report, SotwResponse, Subscriptions};

/// A name that the control plane does not have looks like a renewal that was ignored: so do not try forever.
const MAX_RENEWALS: u8 = 8;

/// The machine; see [`Session`].
#[derive(Debug)]
pub struct SotwSession {
    machine: Machine<TypeState>,
    keeps_last_set: bool,
}

#[derive(Debug, Default)]
struct TypeState {
    /// Known with true once one of its versions was accepted.
    held: Held<bool>,
    /// Version of the last response that was accepted as a whole, on any stream.
    version: String,
    /// Nonce of the newest response on this stream.
    nonce: String,
    /// Names were sent on this stream, so an empty list no longer means everything.
    explicit: bool,
    /// Every name this stream asked for at some time.
    ever_asked: BTreeSet<String>,
    /// Names added after the first request that no response had yet: a control plane that was just sending a response
    /// ignored the request.
    awaited: BTreeSet<String>,
    /// Those of them that were asked for before and dropped.
    asked_again: BTreeSet<String>,
    /// How often a name was renewed because its renewal may have been ignored; see [`MAX_RENEWALS`].
    renewals: BTreeMap<String, u8>,
    /// The names have to be repeated although they did not change.
    repeat: bool,
}

impl SotwSession {
    /// A machine that introduces itself as `node` and wants `subscriptions`.
    pub fn new(node: Node, subscriptions: Subscriptions) -> Self {
        SotwSession {
            machine: Machine::new(node, subscriptions),
            keeps_last_set: false,
        }
    }

    /// Whether a wildcard response without any resource leaves the last set as it is (and is ACKed). Otherwise it is
    /// applied as any other, as Envoy does: everything of the type is gone. Both are counted as
    /// [`Counters::emptied_sets`].
    #[must_use]
    pub fn keep_last_set(mut self, keeps: bool) -> Self {
        self.keeps_last_set = keeps;
        self
    }

    /// Ends a poll: what was answered is not sent, the next request says it by its version.
    pub(crate) fn poll_ended(&mut self) {
        self.machine.answers.clear();
    }
}

impl Session for SotwSession {
    type Request = DiscoveryRequest;
    type Response = SotwResponse;

    fn subscriptions_mut(&mut self) -> &mut Subscriptions {
        &mut self.machine.subscriptions
    }

    fn stream_opened(&mut self) {
        self.machine.stream_opened();
    }

    fn stream_closed(&mut self) {
        self.machine.stream_closed();
    }

    fn wants_to_send(&self) -> bool {
        self.machine.wants_to_send()
    }

    fn next_request(&mut self) -> Option<DiscoveryRequest> {
        self.machine.next_request()
    }

    fn on_response<H: Handler + ?Sized>(&mut self, response: SotwResponse, handler: &mut H) {
        let SotwResponse {
            version_info,
            resources,
            type_url,
            nonce,
            resource_errors,
        } = response;
        let machine = &mut self.machine;
        machine.counters.responses += 1;
        machine.counters.resource_errors += u64::try_from(resource_errors.len()).unwrap_or(u64::MAX);
        machine.forget_dropped();
        let Some(interest) = machine
            .subscriptions
            .find(&type_url)
            .filter(|i| !i.names.is_empty())
        else {
            machine.counters.unrequested_types += 1;
            machine.counters.updates_accepted += 1;
            let answer = match machine.types.get_mut(&*type_url) {
                Some(state) => state.answer(&type_url, version_info, nonce, &[]),
                None => TypeState::default().answer(&type_url, version_info, nonce, &[]),
            };
            return machine.answer(&type_url, answer, false);
        };
        let state = machine.types.entry(interest.type_url.clone()).or_default();
        let offers: Vec<Offer> = resources
            .into_iter()
            .map(|any| offer(any, &version_info, handler))
            .collect();
        let unanswered = state.settle(&offers);
        let is_wildcard = interest.is_wildcard();
        let present: BTreeSet<String> = if is_wildcard {
            offers.iter().map(|o| o.name.clone()).collect()
        } else {
            BTreeSet::new()
        };
        let mut intake = Intake::sort(
            interest,
            |name| state.held.known.contains_key(name),
            version_info.clone(),
            offers,
            Vec::new(),
            &mut machine.counters,
        );
        if is_wildcard {
            let is_emptied = present.is_empty() && !state.held.known.is_empty();
            machine.counters.emptied_sets += u64::from(is_emptied);
            let keeps = is_emptied && self.keeps_last_set;
            intake.update.full_state = !keeps;
            // A resource without a name could be any of those that seem to be absent: keep them.
            if !intake.nameless && !keeps {
                let known = state.held.known.keys();
                let mut removed: Vec<_> = known.filter(|n| !present.contains(*n)).cloned().collect();
                removed.sort_unstable();
                intake.update.removed = removed;
            }
        }

        let revision = interest.revision;
        let mut rejections: Vec<Rejection> = intake.rejections;
        let update = &intake.update;
        if is_wildcard || !update.added.is_empty() {
            rejections.extend(
                handler
                    .on_update(update, &mut machine.subscriptions)
                    .err()
                    .unwrap_or_default(),
            );
        }
        let outcome = Outcome {
            added: &update.added,
            removed: &update.removed,
            rejections,
            ttls: intake.ttls,
        };
        if let Some(interest) = machine.subscriptions.find(&type_url) {
            let is_wanted = |name: &str| interest.revision == revision || interest.holds(name);
            state.record(is_wanted, &outcome);
            state.held.live(&outcome, machine.now);
        }
        outcome.count(&mut machine.counters);
        let answer = state.answer(&type_url, version_info, nonce, &outcome.rejections);
        state.repeat |= !outcome.is_accepted() && unanswered;
        if state.repeat || !state.held.renewing.is_empty() {
            machine.subscriptions.mark_changed(&type_url);
        }
        machine.answer(&type_url, answer, !outcome.is_accepted());
    }

    fn hold(&mut self, type_url: &str, names: BTreeSet<String>) {
        let held = &mut self.machine.types.entry(type_url.into()).or_default().held;
        for name in names {
            // Not as accepted: no version can be named for it.
            held.known.entry(name).or_insert(false);
        }
    }

    fn wants_new_stream(&self) -> bool {
        false
    }

    fn report(&mut self, report: Report) {
        self.machine.report(report);
    }

    fn advance<H: Handler + ?Sized>(&mut self, now: Duration, handler: &mut H) {
        self.machine.advance(now, handler);
    }

    fn next_deadline(&mut self) -> Option<Duration> {
        self.machine.next_deadline()
    }

    fn waiting_answers(&self) -> usize {
        self.machine.answers.len()
    }

    fn counters_mut(&mut self) -> &mut Counters {
        &mut self.machine.counters
    }
}

impl PerType for TypeState {
    type Request = DiscoveryRequest;

    fn start_stream(&mut self) {
        self.nonce.clear();
        self.held.start_stream();
        self.explicit = false;
        self.ever_asked.clear();
        self.awaited.clear();
        self.asked_again.clear();
        self.renewals.clear();
        self.repeat = false;
    }

    fn forget(&mut self, interest: &Interest, forgotten: BTreeSet<String>) {
        self.held.forget(interest, forgotten);
    }

    fn subscription_request(&mut self, interest: &mut Interest) -> Option<DiscoveryRequest> {
        let wanted = &interest.names;
        let Some(asked) = &mut self.held.asked else {
            interest.changed = false;
            self.held.renewing.clear();
            if wanted.is_empty() {
                return None;
            }
            self.held.asked = Some(wanted.clone());
            self.ever_asked.clone_from(wanted);
            // A control plane may keep silent if this is its version. So say it only if nothing is missing here.
            let complete =
                interest.is_wildcard() || wanted.iter().all(|n| self.held.known.get(n) == Some(&true));
            let version = if complete {
                self.version.clone()
            } else {
                String::new()
            };
            return Some(self.request(&interest.type_url, version));
        };
        let renewing = std::mem::take(&mut self.held.renewing);
        let renewing: BTreeSet<String> = renewing
            .into_iter()
            .filter(|n| asked.contains(n) && wanted.contains(n))
            .collect();
        let legacy_wildcard = !self.explicit && asked.contains(WILDCARD);
        let next: BTreeSet<String> = wanted.difference(&renewing).cloned().collect();
        if !renewing.is_empty() && !legacy_wildcard {
            // `changed` stays: the next request asks for them again.
            self.ask(next);
            return Some(self.request(&interest.type_url, self.version.clone()));
        }
        interest.changed = false;
        let repeat = std::mem::take(&mut self.repeat);
        let cannot_be_said = legacy_wildcard && wanted.is_empty();
        if cannot_be_said || (asked == wanted && !repeat) {
            return None;
        }
        let wanted = wanted.clone();
        self.ask(wanted);
        Some(self.request(&interest.type_url, self.version.clone()))
    }

    fn is_asked(&self) -> bool {
        self.held.asked.is_some()
    }

    fn expiries(&mut self) -> &mut Expiries {
        &mut self.held.expiries
    }

    fn expire(&mut self, names: &[String], refused: &[Rejection]) {
        self.held.remove(names, refused);
        // Whoever says this version on the next stream says that nothing is missing.
        self.version.clear();
    }

    fn introduce(request: &mut DiscoveryRequest, node: Node) {
        request.node = Some(node);
    }

    fn report(type_url: String, error_detail: Option<Status>) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url,
            error_detail,
            ..DiscoveryRequest::default()
        }
    }
}

impl TypeState {
    fn ask(&mut self, names: BTreeSet<String>) {
        let asked = self.held.asked.take().unwrap_or_default();
        for name in names.difference(&asked) {
            self.awaited.insert(name.clone());
            if !self.ever_asked.insert(name.clone()) {
                self.asked_again.insert(name.clone());
            }
        }
        self.awaited.retain(|name| names.contains(name));
        self.held.asked = Some(names);
    }

    /// Takes note of what arrived; says whether names are missing that the control plane may not have read of.
    ///
    /// The answer to the response repeats the names, and so does every later one. That is not enough for a NACK, which
    /// is not read for names, nor for a name that was asked for, dropped, and asked for again while responses were
    /// under way: the control plane may have seen no change. Such names are renewed.
    fn settle(&mut self, offers: &[Offer]) -> bool {
        for offer in offers {
            self.awaited.remove(&offer.name);
            self.renewals.remove(&offer.name);
        }
        for name in self.awaited.intersection(&self.asked_again) {
            let renewals = self.renewals.entry(name.clone()).or_default();
            if *renewals < MAX_RENEWALS {
                *renewals += 1;
                self.held.renewing.insert(name.clone());
            }
        }
        !self.awaited.is_empty()
    }

    /// Remembers what is there now, but for what the owner dropped from its wishes meanwhile.
    fn record(&mut self, is_wanted: impl Fn(&str) -> bool, outcome: &Outcome<'_>) {
        let rejected = outcome.rejected();
        let added = outcome.added.iter().map(|resource| &resource.name);
        for name in added.filter(|name| is_wanted(name)) {
            let is_accepted = !rejected.contains(name.as_str());
            match self.held.known.get_mut(name) {
                Some(accepted) => *accepted |= is_accepted,
                None => {
                    self.held.known.insert(name.clone(), is_accepted);
                }
            }
        }
        self.held.remove_gone(outcome);
    }

    fn answer(
        &mut self,
        type_url: &str,
        version: String,
        nonce: String,
        rejections: &[Rejection],
    ) -> DiscoveryRequest {
        self.nonce = nonce;
        if rejections.is_empty() {
            self.version = version;
        }
        let mut request = self.request(type_url, self.version.clone());
        request.error_detail = (!rejections.is_empty()).then(|| error_detail(rejections));
        request
    }

    fn request(&mut self, type_url: &str, version_info: String) -> DiscoveryRequest {
        let asked = self.held.asked.iter().flatten();
        let only_wildcard = self
            .held
            .asked
            .as_ref()
            .is_some_and(|a| a.len() == 1 && a.contains(WILDCARD));
        let resource_names: Vec<String> = if only_wildcard && !self.explicit {
            Vec::new()
        } else {
            asked.cloned().collect()
        };
        self.explicit |= !resource_names.is_empty();
        DiscoveryRequest {
            version_info,
            resource_names,
            type_url: type_url.to_owned(),
            response_nonce: self.nonce.clone(),
            ..DiscoveryRequest::default()
        }
    }
}

#[cfg(test)]
mod tests;
