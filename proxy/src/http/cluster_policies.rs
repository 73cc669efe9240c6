//! What a cluster says of the requests to it, ready for use: it counts in place of what their route says.
//!
//! Source: http_protocol_options.proto `retry_policy`, `hash_policy`, `request_mirror_policies`, `outlier_detection`; beside Envoy 1.40 in
//! tests/it/alone/cluster_policies.rs.
use std::sync::Arc;

use super::hash_policy::HashPolicies;
use super::matcher::ResponseMatcher;
use super::route_table::{Forward, Retries, Route};
use super::router::mirror::Mirror;
use crate::codec::ResponseHead;
use crate::upstream::cluster::Cluster;
use crate::upstream::cluster_table::ClusterTable;

/// Those of one cluster.
#[derive(Debug)]
struct ClusterPolicies {
    retry: Option<Retries>,
    hash: Option<HashPolicies>,
    mirrors: Vec<Mirror>,
    errors: Option<ResponseMatcher>,
}

impl ClusterPolicies {
    /// Compiled when the first request comes; the model has refused what does not compile.
    fn of<'a>(cluster: &'a Cluster, clusters: &Arc<ClusterTable>) -> Option<&'a Self> {
        cluster.request_policies(|config| Self {
            retry: Retries::new(config.retry_policy.as_ref()).ok().flatten(),
            hash: Some(&config.hash_policies)
                .filter(|policies| !policies.is_empty())
                .and_then(|policies| HashPolicies::new(policies).ok()),
            mirrors: config
                .mirrors
                .iter()
                .filter_map(|mirror| Mirror::new(mirror, clusters).ok())
                .collect(),
            errors: config
                .errors
                .as_ref()
                .and_then(|errors| ResponseMatcher::new(errors).ok()),
        })
    }
}

/// The retries of a request to `cluster`. As in Envoy their time limits are the route's all the same.
pub(super) fn retries<'a>(route: &'a Route, forward: &Forward, cluster: &'a Cluster) -> Option<&'a Retries> {
    let own = ClusterPolicies::of(cluster, &forward.clusters).and_then(|policies| policies.retry.as_ref());
    own.or(route.retry.as_ref())
}

/// What a request to `cluster` hashes to.
pub(super) fn hash<'a>(forward: &'a Forward, cluster: &'a Cluster) -> &'a HashPolicies {
    let own = ClusterPolicies::of(cluster, &forward.clusters).and_then(|policies| policies.hash.as_ref());
    own.unwrap_or(&forward.hash)
}

/// Who gets copies of a request to `cluster`.
pub(super) fn mirrors<'a>(forward: &'a Forward, cluster: &'a Cluster) -> &'a [Mirror] {
    match own_mirrors(cluster, &forward.clusters) {
        [] => &forward.mirrors,
        own => own,
    }
}

/// Whether outlier detection takes a response of `cluster` for an error; `None`: its status says that.
pub(super) fn is_error(forward: &Forward, cluster: &Cluster, head: &ResponseHead) -> Option<bool> {
    let errors = ClusterPolicies::of(cluster, &forward.clusters)?.errors.as_ref()?;
    Some(errors.matches(head))
}

/// Who gets copies of each request to `cluster`, copies included.
pub(super) fn own_mirrors<'a>(cluster: &'a Cluster, clusters: &Arc<ClusterTable>) -> &'a [Mirror] {
    ClusterPolicies::of(cluster, clusters).map_or(&[], |policies| &policies.mirrors)
}
