//! One ADS stream: what its client subscribed to, and how a push becomes a message of its protocol.
//!
//! Knows no socket. Delta and state-of-the-world differ only here.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use tokio::sync::mpsc::Sender;
use tonic::Status;

use super::resource::{CLUSTER, LISTENER, NAME_TABLE, Named, Snapshot};

/// Where responses of one stream go.
#[derive(Debug)]
pub(super) enum Outlet {
    Delta(Sender<Result<DeltaDiscoveryResponse, Status>>),
    Sotw(Sender<Result<DiscoveryResponse, Status>>),
}

/// What the client of one stream asked for of one type.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub(super) wildcard: bool,
    pub(super) names: BTreeSet<String>,
}

/// A request of either protocol, reduced to what it says.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) node_id: Option<String>,
    pub(super) type_url: String,
    /// Names to add; for state-of-the-world all names.
    pub(super) subscribe: Vec<String>,
    pub(super) unsubscribe: Vec<String>,
    /// Names of what the client has already.
    pub(super) held: Vec<String>,
    pub(super) nonce: String,
    pub(super) error: Option<String>,
}

impl From<DeltaDiscoveryRequest> for Asked {
    fn from(request: DeltaDiscoveryRequest) -> Self {
        Self {
            node_id: request.node.map(|node| node.id),
            type_url: request.type_url,
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            held: request.initial_resource_versions.into_keys().collect(),
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
        }
    }
}

impl From<DiscoveryRequest> for Asked {
    fn from(request: DiscoveryRequest) -> Self {
        Self {
            node_id: request.node.map(|node| node.id),
            type_url: request.type_url,
            subscribe: request.resource_names,
            unsubscribe: Vec::new(),
            held: Vec::new(),
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
        }
    }
}

/// What to send because of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Wanted {
    Nothing,
    /// The whole type.
    All,
    /// These names (delta: the new ones; state-of-the-world: all of them).
    Names(Vec<String>),
}

/// One open stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) node: Option<String>,
    pub(super) outlet: Outlet,
    pub(super) subscriptions: BTreeMap<String, Subscription>,
}

impl Stream {
    pub(super) fn new(outlet: Outlet) -> Self {
        Self {
            node: None,
            outlet,
            subscriptions: BTreeMap::new(),
        }
    }

    /// Notes a request; says what answers it.
    pub(super) fn subscribe(&mut self, asked: &Asked) -> Wanted {
        let first = !self.subscriptions.contains_key(&asked.type_url);
        let subscription = self.subscriptions.entry(asked.type_url.clone()).or_default();
        let star = asked.subscribe.iter().any(|name| name == "*");
        if star || (first && asked.subscribe.is_empty() && is_wildcard(&asked.type_url)) {
            subscription.wildcard = true;
            return Wanted::All;
        }
        match self.outlet {
            Outlet::Delta(_) => {
                subscription.names.extend(asked.subscribe.iter().cloned());
                subscription
                    .names
                    .retain(|name| !asked.unsubscribe.contains(name));
                if asked.subscribe.is_empty() {
                    Wanted::Nothing
                } else {
                    Wanted::Names(asked.subscribe.clone())
                }
            }
            Outlet::Sotw(_) => {
                let names: BTreeSet<String> = asked.subscribe.iter().cloned().collect();
                if subscription.wildcard || (subscription.names == names && !first) {
                    return Wanted::Nothing;
                }
                subscription.names = names;
                Wanted::Names(asked.subscribe.clone())
            }
        }
    }

    /// Sends resources (delta), or with them everything that the client subscribes to (state-of-the-world).
    /// False when the client does not read, or is gone.
    pub(super) fn send(&self, snapshot: &Snapshot, response: DeltaDiscoveryResponse) -> bool {
        match &self.outlet {
            Outlet::Delta(outlet) => outlet.try_send(Ok(response)).is_ok(),
            Outlet::Sotw(outlet) => outlet.try_send(Ok(self.whole(snapshot, response))).is_ok(),
        }
    }

    /// Ends the stream as a control plane that goes away.
    pub(super) fn end(&self) {
        let status = || Status::unavailable("the control plane goes away");
        // A client that does not read loses its stream without the status.
        match &self.outlet {
            Outlet::Delta(outlet) => drop(outlet.try_send(Err(status()))),
            Outlet::Sotw(outlet) => drop(outlet.try_send(Err(status()))),
        }
    }

    fn whole(&self, snapshot: &Snapshot, response: DeltaDiscoveryResponse) -> DiscoveryResponse {
        let DeltaDiscoveryResponse {
            type_url,
            nonce,
            resources,
            ..
        } = response;
        let pushed: BTreeMap<String, _> = resources
            .into_iter()
            .map(|resource| (resource.name, resource.resource))
            .collect();
        let resources = match self.subscriptions.get(&type_url) {
            Some(Subscription {
                wildcard: false,
                names,
            }) => names
                .iter()
                .filter_map(|name| match pushed.get(name) {
                    Some(any) => any.clone(),
                    None => snapshot.answer(&type_url, name).map(|named| named.any),
                })
                .collect(),
            _ => snapshot
                .all(&type_url)
                .iter()
                .map(|named| named.any.clone())
                .collect(),
        };
        DiscoveryResponse {
            version_info: nonce.clone(),
            nonce,
            type_url,
            resources,
            ..Default::default()
        }
    }
}

/// A delta response as istiod makes it: without resource versions.
pub(super) fn response(
    type_url: &str,
    nonce: String,
    resources: Vec<Named>,
    removed: Vec<String>,
) -> DeltaDiscoveryResponse {
    let resources = resources
        .into_iter()
        .map(|named| Resource {
            name: named.name,
            resource: Some(named.any),
            ..Default::default()
        })
        .collect();
    DeltaDiscoveryResponse {
        system_version_info: nonce.clone(),
        type_url: type_url.to_owned(),
        nonce,
        resources,
        removed_resources: removed,
        ..Default::default()
    }
}

fn is_wildcard(type_url: &str) -> bool {
    matches!(type_url, CLUSTER | LISTENER | NAME_TABLE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::resource::ENDPOINTS;
    use super::*;

    fn asked(type_url: &str, subscribe: &[&str], unsubscribe: &[&str]) -> Asked {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Asked {
            node_id: None,
            type_url: type_url.to_owned(),
            subscribe: owned(subscribe),
            unsubscribe: owned(unsubscribe),
            held: Vec::new(),
            nonce: String::new(),
            error: None,
        }
    }

    fn check(stream: &mut Stream, request: &Asked, expected: Wanted) {
        assert_eq!(stream.subscribe(request), expected, "{request:?}");
    }

    #[test]
    fn delta_answers_new_names_only() {
        let (outlet, _kept) = tokio::sync::mpsc::channel(1);
        let mut stream = Stream::new(Outlet::Delta(outlet));
        check(&mut stream, &asked(CLUSTER, &[], &[]), Wanted::All);
        check(&mut stream, &asked(CLUSTER, &[], &[]), Wanted::Nothing);
        check(
            &mut stream,
            &asked(ENDPOINTS, &["a", "b"], &[]),
            Wanted::Names(vec!["a".into(), "b".into()]),
        );
        check(
            &mut stream,
            &asked(ENDPOINTS, &["c"], &["a"]),
            Wanted::Names(vec!["c".into()]),
        );
        let names: Vec<_> = stream.subscriptions[ENDPOINTS]
            .names
            .iter()
            .map(String::as_str)
            .collect();
        assert_eq!(names, ["b", "c"]);
    }

    #[test]
    fn state_of_the_world_answers_all_names_when_they_change() {
        let (outlet, _kept) = tokio::sync::mpsc::channel(1);
        let mut stream = Stream::new(Outlet::Sotw(outlet));
        check(
            &mut stream,
            &asked(ENDPOINTS, &["a"], &[]),
            Wanted::Names(vec!["a".into()]),
        );
        check(&mut stream, &asked(ENDPOINTS, &["a"], &[]), Wanted::Nothing);
        check(
            &mut stream,
            &asked(ENDPOINTS, &["a", "b"], &[]),
            Wanted::Names(vec!["a".into(), "b".into()]),
        );
    }
}
