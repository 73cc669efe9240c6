//! One stream of a control plane that speaks the incremental protocol as istiod does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as PbResource,
};
use xds_client::{DeltaResponse, DeltaSession, Subscriptions};

use super::owner::Owner;
use super::world::{self, World};
use crate::Plane;

pub(crate) struct DeltaPlane {
    /// False: empty versions, and everything is sent on a reconnect, like istiod.
    versions: bool,
    node_seen: bool,
    types: BTreeMap<String, Watch>,
    nonce: u64,
}

#[derive(Default)]
struct Watch {
    names: BTreeSet<String>,
    /// What the client has or is being sent; `None` for a value it only claims by name.
    sent: BTreeMap<String, Option<u64>>,
    /// To be sent even if unchanged: subscribed just now.
    forced: BTreeSet<String>,
    first: bool,
    unanswered: VecDeque<String>,
    under_way: VecDeque<DeltaDiscoveryResponse>,
}

impl DeltaPlane {
    fn speak(&mut self, type_url: &str, world: &World) {
        let versions = self.versions;
        let watch = self.types.get_mut(type_url).unwrap();
        let visible = world.visible(type_url, &watch.names);
        let forced = std::mem::take(&mut watch.forced);
        let changed = visible
            .iter()
            .filter(|(n, v)| watch.sent.get(*n) != Some(&Some(**v)) || forced.contains(*n));
        let resources: Vec<_> = changed
            .map(|(name, value)| PbResource {
                name: name.clone(),
                version: if versions {
                    value.to_string()
                } else {
                    String::new()
                },
                resource: Some(world::encode(type_url, name, *value)),
                ..PbResource::default()
            })
            .collect();
        let removed: Vec<_> = watch
            .sent
            .keys()
            .filter(|n| !visible.contains_key(*n))
            .cloned()
            .collect();
        watch.sent = visible.into_iter().map(|(n, v)| (n, Some(v))).collect();
        if resources.is_empty() && removed.is_empty() && !std::mem::take(&mut watch.first) {
            return;
        }
        watch.first = false;
        self.nonce += 1;
        watch.unanswered.push_back(self.nonce.to_string());
        watch.under_way.push_back(DeltaDiscoveryResponse {
            type_url: type_url.to_owned(),
            nonce: self.nonce.to_string(),
            resources,
            removed_resources: removed,
            ..DeltaDiscoveryResponse::default()
        });
    }

    fn subscribe(&mut self, request: &DeltaDiscoveryRequest) {
        let is_new = !self.types.contains_key(&request.type_url);
        let watch = self.types.entry(request.type_url.clone()).or_default();
        let (added, dropped) = (
            &request.resource_names_subscribe,
            &request.resource_names_unsubscribe,
        );
        if is_new {
            watch.first = true;
            assert!(
                dropped.is_empty(),
                "unsubscribes from what this stream does not know"
            );
            if added.is_empty() {
                watch.names.insert("*".to_owned());
            }
            for (name, version) in &request.initial_resource_versions {
                assert!(
                    watch.names.contains("*") || added.contains(name),
                    "claims {name}, which it does not want"
                );
                watch.sent.insert(name.clone(), version.parse().ok());
            }
        } else {
            assert!(request.initial_resource_versions.is_empty());
            assert!(
                !added.is_empty() || !dropped.is_empty(),
                "a request that says nothing"
            );
            let known = |n: &String| watch.names.contains(n);
            assert!(!added.iter().any(known), "subscribes to what is subscribed");
            assert!(
                dropped.iter().all(known),
                "unsubscribes from what is not subscribed"
            );
            watch.forced.extend(added.iter().cloned());
        }
        for name in dropped {
            watch.names.remove(name);
            watch.sent.remove(name);
        }
        watch.names.extend(added.iter().cloned());
    }
}

impl Plane for DeltaPlane {
    type Session = DeltaSession;

    fn new(versions: bool) -> Self {
        DeltaPlane {
            versions,
            node_seen: false,
            types: BTreeMap::new(),
            nonce: 0,
        }
    }

    fn receive(&mut self, request: DeltaDiscoveryRequest, world: &World) {
        assert_eq!(
            request.node.is_some(),
            !self.node_seen,
            "the node belongs into the first message only"
        );
        self.node_seen = true;
        if request.response_nonce.is_empty() {
            assert_eq!(request.error_detail, None);
            self.subscribe(&request);
            return self.speak(&request.type_url, world);
        }
        let silent =
            request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty();
        assert!(
            silent && request.initial_resource_versions.is_empty(),
            "an answer changes subscriptions"
        );
        let watch = self.types.get_mut(&request.type_url).unwrap();
        assert_eq!(
            watch.unanswered.pop_front(),
            Some(request.response_nonce),
            "answered out of turn or twice"
        );
    }

    fn push(&mut self, world: &World, random: &mut fastrand::Rng) {
        let mut types: Vec<String> = self.types.keys().cloned().collect();
        random.shuffle(&mut types);
        types.iter().for_each(|type_url| self.speak(type_url, world));
    }

    fn deliver(&mut self, random: &mut fastrand::Rng) -> Option<DeltaResponse> {
        let mut waiting: Vec<_> = self
            .types
            .values_mut()
            .filter(|w| !w.under_way.is_empty())
            .collect();
        if waiting.is_empty() {
            return None;
        }
        let chosen = random.usize(..waiting.len());
        waiting[chosen].under_way.pop_front().map(DeltaResponse::from)
    }

    fn announce(response: &DeltaResponse, owner: &mut Owner) {
        owner.removable = Some(response.removed_resources.iter().cloned().collect());
    }

    fn check_settled(&self, subscriptions: &Subscriptions, seed: u64) {
        for (type_url, watch) in &self.types {
            assert!(
                watch.unanswered.is_empty(),
                "seed {seed}: {type_url} has unanswered responses"
            );
            assert_eq!(
                Some(&watch.names),
                subscriptions.names(type_url),
                "seed {seed}: {type_url}"
            );
        }
    }
}
