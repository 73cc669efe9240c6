//! A stream recorded from istiod, fed through the incremental session.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use prost::Message;
use xds_client::{DeltaSession, Handler, Node, Rejection, Session, Subscriptions, Update};

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// 4 bytes of length, big endian, then a response; repeated.
fn responses() -> Vec<DeltaDiscoveryResponse> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/data/bill/front-cutover.bin"
    );
    let bytes = std::fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut responses = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (message, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        responses.push(DeltaDiscoveryResponse::decode(message).unwrap());
        rest = tail;
    }
    responses
}

/// Subscribes endpoints of the outbound clusters and the two routes, as a proxy would.
#[derive(Default)]
struct Proxy {
    clusters: BTreeSet<String>,
    endpoints: BTreeSet<String>,
    removed_clusters: Vec<String>,
    updates: usize,
}

impl Handler for Proxy {
    fn on_update(
        &mut self,
        update: &Update,
        subscriptions: &mut Subscriptions,
    ) -> Result<(), Vec<Rejection>> {
        self.updates += 1;
        match &*update.type_url {
            CLUSTER => {
                self.clusters.extend(update.added.iter().map(|r| r.name.clone()));
                for name in &update.removed {
                    self.clusters.remove(name);
                    self.endpoints.remove(name);
                }
                self.removed_clusters.extend(update.removed.iter().cloned());
                let outbound = self
                    .clusters
                    .iter()
                    .filter(|n| n.starts_with("outbound|"))
                    .cloned()
                    .collect();
                subscriptions.set_names(ENDPOINTS, outbound);
            }
            LISTENER => {
                let routes = ["8080", "9999"].map(str::to_owned);
                subscriptions.set_names(ROUTES, routes.into());
            }
            ENDPOINTS => self.endpoints.extend(update.added.iter().map(|r| r.name.clone())),
            _ => {}
        }
        Ok(())
    }
}

#[test]
fn the_recorded_cutover_is_taken_whole_and_late_endpoints_are_dropped() {
    const REMOVED: &str = "outbound|9999|v1|bill-service.default.svc.cluster.local";
    let responses = responses();
    assert_eq!(responses.len(), 19);
    let mut wishes = Subscriptions::default();
    wishes.wildcard(CLUSTER);
    wishes.wildcard(LISTENER);
    let mut session = DeltaSession::new(Node::default(), wishes);
    let mut proxy = Proxy::default();
    session.stream_opened();
    let drain =
        |session: &mut DeltaSession| std::iter::from_fn(|| session.next_request()).collect::<Vec<_>>();
    drain(&mut session);
    let mut unsubscribed = Vec::new();
    for response in responses {
        let (type_url, nonce) = (response.type_url.clone(), response.nonce.clone());
        session.on_response(response.into(), &mut proxy);
        let requests = drain(&mut session);
        let (answer, changes) = requests.split_first().unwrap();
        assert_eq!((&answer.type_url, &answer.response_nonce), (&type_url, &nonce));
        assert_eq!(answer.error_detail, None, "{type_url}");
        assert!(answer.resource_names_subscribe.is_empty() && answer.resource_names_unsubscribe.is_empty());
        for change in changes {
            assert!(change.response_nonce.is_empty());
            unsubscribed.extend(change.resource_names_unsubscribe.clone());
        }
    }
    assert_eq!(proxy.removed_clusters, [REMOVED]);
    assert_eq!(unsubscribed, [REMOVED]);
    assert!(
        !proxy.endpoints.contains(REMOVED),
        "the late answer reached the owner"
    );
    let counters = *session.counters_mut();
    assert_eq!(counters.unrequested, 1, "endpoints of the removed subset");
    assert_eq!(counters.unrequested_types, 1, "the name table");
    assert_eq!((counters.updates_accepted, counters.updates_rejected), (19, 0));
    assert_eq!(proxy.updates, 18);

    // What a new istiod is told after a restart: names with istiod's empty versions, and only of what is wanted.
    session.stream_opened();
    let first = drain(&mut session);
    let types: Vec<_> = first.iter().map(|r| r.type_url.as_str()).collect();
    assert_eq!(types, [CLUSTER, LISTENER, ENDPOINTS, ROUTES]);
    let held: BTreeSet<String> = first[0].initial_resource_versions.keys().cloned().collect();
    assert_eq!(held, proxy.clusters);
    assert!(first[0].initial_resource_versions.values().all(String::is_empty));
    assert!(!first[2].initial_resource_versions.contains_key(REMOVED));
}
