//! One stream of a control plane that speaks the state of the world as istiod does: it ignores requests with an old
//! nonce, reads no names from a NACK, and sends by name only what changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use xds_client::{SotwResponse, SotwSession, Subscriptions};

use super::owner::Owner;
use super::world::{self, CLUSTERS, World};
use crate::Plane;

pub(crate) struct SotwPlane {
    /// True: sends the whole set also by name, and keeps silent on a new stream if the client has this version.
    whole: bool,
    node_seen: bool,
    types: BTreeMap<String, Watch>,
    nonce: u64,
}

#[derive(Default)]
struct Watch {
    names: BTreeSet<String>,
    sent: BTreeMap<String, u64>,
    /// Nonces in the order sent; those at the front are answered first.
    unanswered: VecDeque<String>,
    last_nonce: String,
    under_way: VecDeque<DiscoveryResponse>,
}

impl SotwPlane {
    fn speak(&mut self, type_url: &str, world: &World, must: bool) {
        let whole = self.whole || type_url == CLUSTERS;
        let watch = self.types.get_mut(type_url).unwrap();
        let visible = world.visible(type_url, &watch.names);
        if visible == watch.sent && !must {
            return;
        }
        let changed = visible
            .iter()
            .filter(|(n, v)| whole || watch.sent.get(*n) != Some(*v));
        let resources = changed.map(|(n, v)| world::encode(type_url, n, *v)).collect();
        watch.sent = visible;
        self.nonce += 1;
        watch.last_nonce = self.nonce.to_string();
        watch.unanswered.push_back(watch.last_nonce.clone());
        watch.under_way.push_back(DiscoveryResponse {
            version_info: world.version().to_string(),
            nonce: watch.last_nonce.clone(),
            type_url: type_url.to_owned(),
            resources,
            ..DiscoveryResponse::default()
        });
    }
}

impl Plane for SotwPlane {
    type Session = SotwSession;

    fn new(versions: bool) -> Self {
        SotwPlane {
            whole: versions,
            node_seen: false,
            types: BTreeMap::new(),
            nonce: 0,
        }
    }

    fn receive(&mut self, request: DiscoveryRequest, world: &World) {
        assert_eq!(
            request.node.is_some(),
            !self.node_seen,
            "the node belongs into the first message only"
        );
        self.node_seen = true;
        let is_new = !self.types.contains_key(&request.type_url);
        let watch = self.types.entry(request.type_url.clone()).or_default();
        let mut names: BTreeSet<String> = request.resource_names.into_iter().collect();
        if names.is_empty() && request.type_url == CLUSTERS {
            names.insert("*".to_owned());
        }
        if request.response_nonce.is_empty() {
            assert!(is_new || request.error_detail.is_none());
            watch.names = names;
            watch.sent.clear();
            if self.whole && is_new && request.version_info == world.version().to_string() {
                watch.sent = world.visible(&request.type_url, &watch.names);
                return;
            }
            return self.speak(&request.type_url, world, true);
        }
        if watch.unanswered.front() == Some(&request.response_nonce) {
            watch.unanswered.pop_front();
        } else {
            assert!(
                !watch.unanswered.contains(&request.response_nonce),
                "answered out of turn"
            );
            assert_eq!(request.error_detail, None, "a NACK for what was answered");
        }
        if request.error_detail.is_some()
            || request.response_nonce != watch.last_nonce
            || names == watch.names
        {
            return;
        }
        watch
            .sent
            .retain(|name, _| watch.names.contains(name) && names.contains(name));
        let adds = !names.is_subset(&watch.names);
        watch.names = names;
        self.speak(&request.type_url, world, adds);
    }

    fn push(&mut self, world: &World, random: &mut fastrand::Rng) {
        let mut types: Vec<String> = self.types.keys().cloned().collect();
        random.shuffle(&mut types);
        types
            .iter()
            .for_each(|type_url| self.speak(type_url, world, false));
    }

    fn deliver(&mut self, random: &mut fastrand::Rng) -> Option<SotwResponse> {
        let mut waiting: Vec<_> = self
            .types
            .values_mut()
            .filter(|w| !w.under_way.is_empty())
            .collect();
        if waiting.is_empty() {
            return None;
        }
        let chosen = random.usize(..waiting.len());
        waiting[chosen].under_way.pop_front().map(SotwResponse::from)
    }

    fn announce(_: &SotwResponse, owner: &mut Owner) {
        owner.removable = None;
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
