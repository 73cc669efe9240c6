//! The incremental protocol: `DeltaAggregatedResources`.
//!
//! Rules kept here:
//! - An answer carries the nonce and nothing about subscriptions; changes of those are requests of their own, without a
//!   nonce (istiod logs an error otherwise: pilot/pkg/xds/delta.go, "Subscribed resources check mismatch").
//! - A type is asked for only when something of it is wanted: an empty first list would mean everything.
//! - The first request of a type on a stream names the versions of what the owner has, so that the control plane can
//!   say what is gone. Versions may be empty strings: istiod's are.
//! - The node goes with the first message of a stream only.

use std::collections::BTreeSet;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::rpc::Status;

use super::intake::{Intake, Offer, Outcome};
use super::machine::{Held, Machine, PerType};
use super::ttl::Expiries;
use super::{Session, error_detail};
use crate::subscriptions::Interest;
use crate::{Counters, DeltaResource, DeltaResponse, Handler, Name, Rejection, Report, Subscriptions};

/// The machine; see [`Session`].
#[derive(Debug)]
pub struct DeltaSession {
    machine: Machine<TypeState>,
    /// This stream has asked for a type before the owner told what it holds of it.
    wants_new_stream: bool,
}

#[derive(Debug, Default)]
struct TypeState {
    /// Known with the version that the owner accepted last.
    held: Held<Option<String>>,
    /// Shown on an earlier stream and never accepted: this stream's control plane does not know that the owner heard
    /// of them, so it would not say that they are gone.
    unconfirmed: BTreeSet<String>,
}

impl DeltaSession {
    /// A machine that introduces itself as `node` and wants `subscriptions`.
    pub fn new(node: Node, subscriptions: Subscriptions) -> Self {
        DeltaSession {
            machine: Machine::new(node, subscriptions),
            wants_new_stream: false,
        }
    }

    fn answer(&mut self, type_url: String, nonce: String, rejections: &[Rejection]) {
        let request = DeltaDiscoveryRequest {
            type_url: type_url.clone(),
            response_nonce: nonce,
            error_detail: (!rejections.is_empty()).then(|| error_detail(rejections)),
            ..DeltaDiscoveryRequest::default()
        };
        self.machine.answer(&type_url, request, !rejections.is_empty());
    }
}

impl Session for DeltaSession {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaResponse;

    fn subscriptions_mut(&mut self) -> &mut Subscriptions {
        &mut self.machine.subscriptions
    }

    fn stream_opened(&mut self) {
        self.wants_new_stream = false;
        self.machine.stream_opened();
    }

    fn stream_closed(&mut self) {
        self.machine.stream_closed();
    }

    fn wants_to_send(&self) -> bool {
        self.machine.wants_to_send()
    }

    fn next_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        self.machine.next_request()
    }

    fn on_response<H: Handler + ?Sized>(&mut self, response: DeltaResponse, handler: &mut H) {
        let DeltaResponse {
            system_version_info,
            resources,
            type_url,
            removed_resources,
            removed_resource_names,
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
            return self.answer(type_url, nonce, &[]);
        };
        let state = machine.types.entry(interest.type_url.clone()).or_default();
        let removed = removed_resources
            .into_iter()
            .chain(removed_resource_names.into_iter().map(|n| n.name));
        let (removed, unasked): (Vec<_>, Vec<_>) = removed.partition(|n| state.can_be_removed(interest, n));
        machine.counters.unrequested += u64::try_from(unasked.len()).unwrap_or(u64::MAX);
        let offers = resources
            .into_iter()
            .map(|resource| offer(resource, handler))
            .collect();
        let mut intake = Intake::sort(
            interest,
            |name| state.held.known.contains_key(name),
            system_version_info,
            offers,
            removed,
            &mut machine.counters,
        );
        state.confirm(interest, &mut intake);

        let revision = interest.revision;
        let mut rejections = intake.rejections;
        let update = &intake.update;
        let nothing_left = update.added.is_empty() && update.removed.is_empty();
        // An empty response to a wildcard says "there are none", which ends an initial fetch.
        if !nothing_left || interest.is_wildcard() {
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
        self.answer(type_url, nonce, &outcome.rejections);
    }

    fn hold(&mut self, type_url: &str, names: BTreeSet<String>) {
        let held = &mut self.machine.types.entry(type_url.into()).or_default().held;
        // `initial_resource_versions` go with the first request of a type.
        self.wants_new_stream |= held.asked.is_some() && !names.is_empty();
        for name in names {
            // Whatever version it was, it may be another now.
            held.known.entry(name).or_insert_with(|| Some(String::new()));
        }
    }

    fn wants_new_stream(&self) -> bool {
        self.wants_new_stream
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
    type Request = DeltaDiscoveryRequest;

    fn start_stream(&mut self) {
        self.held.start_stream();
        self.unconfirmed = self
            .held
            .known
            .iter()
            .filter(|(_, v)| v.is_none())
            .map(|(n, _)| n.clone())
            .collect();
    }

    fn forget(&mut self, interest: &Interest, forgotten: BTreeSet<String>) {
        self.held.forget(interest, forgotten);
    }

    fn subscription_request(&mut self, interest: &mut Interest) -> Option<DeltaDiscoveryRequest> {
        let wanted = &interest.names;
        let mut request = DeltaDiscoveryRequest {
            type_url: interest.type_url.to_string(),
            ..DeltaDiscoveryRequest::default()
        };
        let Some(asked) = &mut self.held.asked else {
            interest.changed = false;
            self.held.renewing.clear();
            if wanted.is_empty() {
                return None;
            }
            self.held.asked = Some(wanted.clone());
            if !interest.is_only_wildcard() {
                request.resource_names_subscribe = wanted.iter().cloned().collect();
            }
            let accepted = self
                .held
                .known
                .iter()
                .filter_map(|(n, v)| Some((n.clone(), v.clone()?)));
            request.initial_resource_versions = accepted.collect();
            return Some(request);
        };
        let mut dropped: BTreeSet<String> = asked.difference(wanted).cloned().collect();
        let renewing = std::mem::take(&mut self.held.renewing);
        let renewing: BTreeSet<String> = renewing.into_iter().filter(|n| asked.contains(n)).collect();
        if renewing.iter().any(|n| wanted.contains(n)) {
            dropped.extend(renewing);
            asked.retain(|n| !dropped.contains(n));
            // `changed` stays: the next request subscribes.
        } else {
            request.resource_names_subscribe = wanted.difference(asked).cloned().collect();
            asked.clone_from(wanted);
            interest.changed = false;
            if dropped.is_empty() && request.resource_names_subscribe.is_empty() {
                return None;
            }
        }
        request.resource_names_unsubscribe = dropped.into_iter().collect();
        Some(request)
    }

    fn is_asked(&self) -> bool {
        self.held.asked.is_some()
    }

    fn expiries(&mut self) -> &mut Expiries {
        &mut self.held.expiries
    }

    fn expire(&mut self, names: &[String], refused: &[Rejection]) {
        self.held.remove(names, refused);
    }

    fn introduce(request: &mut DeltaDiscoveryRequest, node: Node) {
        request.node = Some(node);
    }

    fn report(type_url: String, error_detail: Option<Status>) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        }
    }
}

impl TypeState {
    /// By name, "does not exist" is an answer; by wildcard, only what was shown can go.
    fn can_be_removed(&self, interest: &Interest, name: &str) -> bool {
        interest.names.contains(name) || (interest.is_wildcard() && self.held.known.contains_key(name))
    }

    /// On the first response of a stream: what was never accepted and is not in it is gone.
    fn confirm(&mut self, interest: &Interest, intake: &mut Intake) {
        if self.unconfirmed.is_empty() {
            return;
        }
        let present: BTreeSet<&str> = intake.update.added.iter().map(|r| r.name.as_str()).collect();
        let refused: BTreeSet<&str> = intake.rejections.iter().map(|r| r.resource.as_str()).collect();
        let removed: BTreeSet<&str> = intake.update.removed.iter().map(String::as_str).collect();
        let unconfirmed = std::mem::take(&mut self.unconfirmed);
        let gone: Vec<String> = unconfirmed
            .into_iter()
            .filter(|n| interest.is_wildcard() && !interest.names.contains(n))
            .filter(|n| self.held.known.contains_key(n))
            .filter(|n| {
                ![&present, &refused, &removed]
                    .iter()
                    .any(|set| set.contains(n.as_str()))
            })
            .collect();
        intake.update.removed.extend(gone);
    }

    /// Remembers what is there now, but for what the owner dropped from its wishes meanwhile.
    fn record(&mut self, is_wanted: impl Fn(&str) -> bool, outcome: &Outcome<'_>) {
        let rejected = outcome.rejected();
        let added = outcome
            .added
            .iter()
            .map(|resource| (&resource.name, &resource.version));
        for (name, version) in added.filter(|(name, _)| is_wanted(name)) {
            let version = (!rejected.contains(name.as_str())).then_some(version);
            match self.held.known.get_mut(name) {
                // A push of the same copies nothing.
                Some(known) if version.is_some() && known.as_ref() == version => {}
                Some(known) => {
                    if let Some(version) = version {
                        *known = Some(version.clone());
                    }
                }
                None => {
                    self.held.known.insert(name.clone(), version.cloned());
                }
            }
        }
        self.held.remove_gone(outcome);
    }
}

/// Control planes send what is the only one of its type without a name (istiod: name tables); the owner may give it one.
fn offer<H: Handler + ?Sized>(resource: DeltaResource, handler: &H) -> Offer {
    let DeltaResource {
        name,
        resource_name,
        version,
        resource,
        ttl,
    } = resource;
    let name = match resource_name {
        Some(Name { name }) if !name.is_empty() => name,
        _ if !name.is_empty() => name,
        _ => resource
            .as_ref()
            .and_then(|any| handler.resource_name(any))
            .unwrap_or_default(),
    };
    Offer {
        name,
        version,
        any: resource,
        ttl: ttl.as_ref().map(super::ttl),
    }
}

#[cfg(test)]
mod tests;
