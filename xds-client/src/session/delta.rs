//! The incremental protocol: `DeltaAggregatedResources`.
//!
//! Rules kept here:
//! - An answer carries the nonce and nothing about subscriptions; changes of those are requests of their own, without a
//!   nonce (istiod logs an error otherwise: pilot/pkg/xds/delta.go, "Subscribed resources check mismatch").
//! - A type is asked for only when something of it is wanted: an empty first list would mean everything.
//! - The first request of a type on a stream names the versions of what the owner has, so that the control plane can
//!   say what is gone. Versions may be empty strings: istiod's are.
//! - The node goes with the first message of a stream only.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as PbResource, ResourceName,
};

use super::intake::{Intake, Offer, Outcome};
use super::{Session, error_detail};
use crate::subscriptions::{Interest, WILDCARD};
use crate::{Counters, Handler, Subscriptions};

/// The machine; see [`Session`].
#[derive(Debug)]
pub struct DeltaSession {
    node: Node,
    subscriptions: Subscriptions,
    types: HashMap<Arc<str>, TypeState>,
    answers: VecDeque<DeltaDiscoveryRequest>,
    stream_open: bool,
    node_sent: bool,
    counters: Counters,
}

#[derive(Debug, Default)]
struct TypeState {
    /// Every resource that the owner was shown and that is not gone, with the version it accepted last.
    known: BTreeMap<String, Option<String>>,
    /// What this stream asked for; `None` before the first request of the type.
    asked: Option<BTreeSet<String>>,
    /// Asked for, dropped and wanted again: to be unsubscribed and then subscribed, which makes every control plane
    /// send it again (istiod ignores a subscription to what is subscribed).
    renewing: BTreeSet<String>,
    /// Shown on an earlier stream and never accepted: this stream's control plane does not know that the owner heard
    /// of them, so it would not say that they are gone.
    unconfirmed: BTreeSet<String>,
}

impl DeltaSession {
    /// A machine that introduces itself as `node` and wants `subscriptions`.
    pub fn new(node: Node, subscriptions: Subscriptions) -> Self {
        DeltaSession {
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
    fn forget_dropped(&mut self) {
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

    fn stamp(&mut self, mut request: DeltaDiscoveryRequest) -> DeltaDiscoveryRequest {
        if !self.node_sent {
            self.node_sent = true;
            request.node = Some(self.node.clone());
        }
        self.counters.requests += 1;
        request
    }

    fn answer(&mut self, type_url: String, nonce: String, outcome: Option<&Outcome>) {
        let rejections = outcome.map(|o| o.rejections.as_slice()).unwrap_or_default();
        self.answers.push_back(DeltaDiscoveryRequest {
            type_url,
            response_nonce: nonce,
            error_detail: (!rejections.is_empty()).then(|| error_detail(rejections)),
            ..DeltaDiscoveryRequest::default()
        });
    }
}

impl Session for DeltaSession {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn subscriptions_mut(&mut self) -> &mut Subscriptions {
        &mut self.subscriptions
    }

    fn stream_opened(&mut self) {
        self.stream_closed();
        self.forget_dropped();
        self.stream_open = true;
        self.node_sent = false;
        for state in self.types.values_mut() {
            state.start_stream();
        }
        self.subscriptions.mark_all_changed();
    }

    fn stream_closed(&mut self) {
        self.stream_open = false;
        self.counters.stale_nonces += u64::try_from(self.answers.len()).unwrap_or(u64::MAX);
        self.answers.clear();
    }

    fn wants_to_send(&self) -> bool {
        self.stream_open && (!self.answers.is_empty() || self.subscriptions.any_changed())
    }

    fn next_request(&mut self) -> Option<DeltaDiscoveryRequest> {
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

    fn on_response<H: Handler + ?Sized>(&mut self, response: DeltaDiscoveryResponse, handler: &mut H) {
        let DeltaDiscoveryResponse {
            system_version_info,
            resources,
            type_url,
            removed_resources,
            removed_resource_names,
            nonce,
            control_plane: _,
            resource_errors,
        } = response;
        self.counters.responses += 1;
        self.counters.resource_errors += u64::try_from(resource_errors.len()).unwrap_or(u64::MAX);
        self.forget_dropped();
        let Some(interest) = self.subscriptions.find(&type_url).filter(|i| !i.names.is_empty()) else {
            self.counters.unrequested_types += 1;
            self.counters.updates_accepted += 1;
            return self.answer(type_url, nonce, None);
        };
        let state = self.types.entry(interest.type_url.clone()).or_default();
        let removed = removed_resources
            .into_iter()
            .chain(removed_resource_names.into_iter().map(|n| n.name));
        let (removed, unasked): (Vec<_>, Vec<_>) = removed.partition(|n| state.can_be_removed(interest, n));
        self.counters.unrequested += u64::try_from(unasked.len()).unwrap_or(u64::MAX);
        let offers = resources.into_iter().map(offer).collect();
        let mut intake = Intake::sort(interest, system_version_info, offers, removed, &mut self.counters);
        state.confirm(interest, &mut intake);

        let (added, removed) = intake.names();
        let mut rejections = intake.rejections;
        let nothing_left = added.is_empty() && removed.is_empty();
        // An empty response to a wildcard says "there are none", which ends an initial fetch.
        if !nothing_left || interest.is_wildcard() {
            rejections.extend(
                handler
                    .on_update(intake.update, &mut self.subscriptions)
                    .err()
                    .unwrap_or_default(),
            );
        }
        let outcome = Outcome {
            added,
            removed,
            rejections,
        };
        if let Some(interest) = self.subscriptions.find(&type_url) {
            state.record(interest, &outcome);
        }
        outcome.count(&mut self.counters);
        self.answer(type_url, nonce, Some(&outcome));
    }

    fn waiting_answers(&self) -> usize {
        self.answers.len()
    }

    fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

impl TypeState {
    fn start_stream(&mut self) {
        self.asked = None;
        self.renewing.clear();
        self.unconfirmed = self
            .known
            .iter()
            .filter(|(_, v)| v.is_none())
            .map(|(n, _)| n.clone())
            .collect();
    }

    fn forget(&mut self, interest: &Interest, forgotten: BTreeSet<String>) {
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

    /// The next request that brings the stream closer to what is wanted; clears `changed` when none is left.
    fn subscription_request(&mut self, interest: &mut Interest) -> Option<DeltaDiscoveryRequest> {
        let wanted = &interest.names;
        let mut request = DeltaDiscoveryRequest {
            type_url: interest.type_url.to_string(),
            ..DeltaDiscoveryRequest::default()
        };
        let Some(asked) = &mut self.asked else {
            interest.changed = false;
            self.renewing.clear();
            if wanted.is_empty() {
                return None;
            }
            self.asked = Some(wanted.clone());
            if !interest.is_only_wildcard() {
                request.resource_names_subscribe = wanted.iter().cloned().collect();
            }
            let accepted = self
                .known
                .iter()
                .filter_map(|(n, v)| Some((n.clone(), v.clone()?)));
            request.initial_resource_versions = accepted.collect();
            return Some(request);
        };
        let mut dropped: BTreeSet<String> = asked.difference(wanted).cloned().collect();
        let renewing = std::mem::take(&mut self.renewing);
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

    /// By name, "does not exist" is an answer; by wildcard, only what was shown can go.
    fn can_be_removed(&self, interest: &Interest, name: &str) -> bool {
        interest.names.contains(name) || (interest.is_wildcard() && self.known.contains_key(name))
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
            .filter(|n| self.known.contains_key(n))
            .filter(|n| {
                ![&present, &refused, &removed]
                    .iter()
                    .any(|set| set.contains(n.as_str()))
            })
            .collect();
        intake.update.removed.extend(gone);
    }

    fn record(&mut self, interest: &Interest, outcome: &Outcome) {
        let rejected = outcome.rejected();
        for (name, version) in outcome.added.iter().filter(|(name, _)| interest.holds(name)) {
            let known = self.known.entry(name.clone()).or_default();
            if !rejected.contains(name.as_str()) {
                *known = Some(version.clone());
            }
        }
        for name in outcome
            .removed
            .iter()
            .filter(|name| !rejected.contains(name.as_str()))
        {
            self.known.remove(name);
        }
    }
}

fn offer(resource: PbResource) -> Offer {
    let PbResource {
        name,
        resource_name,
        aliases: _,
        version,
        resource,
        ttl,
        cache_control: _,
        metadata: _,
    } = resource;
    let name = match resource_name {
        Some(ResourceName {
            name,
            dynamic_parameter_constraints: _,
        }) if !name.is_empty() => name,
        _ => name,
    };
    Offer {
        name,
        version,
        any: resource,
        has_ttl: ttl.is_some(),
    }
}

#[cfg(test)]
mod tests;
