//! TCP proxy. Source: envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto.
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{self as pb, tcp_proxy};
use envoy_types::pb::envoy::r#type::v3 as types;

use crate::access_log::AccessLog;
use crate::cluster::{ClusterName, Percent};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::metadata::{Struct, subset_labels};
use crate::network_filter::tunnel::Tunnel;
use crate::scalar::Wrapped;

/// Bytes between the client and one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpProxy {
    /// Stats are `tcp.<stat_prefix>.`.
    pub stat_prefix: String,
    /// Where to; weights sum to 1..=u32::MAX.
    pub clusters: Vec<TcpShare>,
    /// Closes when no byte moved for this long; Envoy's default 1 h, `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Closes at this age; `None`: never.
    pub max_duration: Option<Duration>,
    /// At random up to this share of `max_duration` comes on top.
    pub duration_jitter: Option<Percent>,
    /// Consistent hashing goes by the client's address; false: hosts are taken at random there.
    pub hashes_source: bool,
    /// Connection attempts; Envoy's default 1.
    pub max_connect_attempts: u32,
    /// Logged once per connection.
    pub access_log: Vec<AccessLog>,
    /// The bytes go through one; `None`: as they are.
    pub tunnel: Option<Tunnel>,
}

/// One cluster of a [`TcpProxy`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpShare {
    /// Its name.
    pub cluster: ClusterName,
    /// Its share of the connections.
    pub weight: u32,
    /// Labels that its hosts have to have, for clusters with subsets; empty: any host will do.
    pub subset_labels: Struct,
}

/// `TcpProxy.idle_timeout` when unset.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

impl TcpProxy {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::TcpProxy) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::TcpProxy {
            supported {
                stat_prefix, cluster_specifier, idle_timeout, access_log, max_connect_attempts, metadata_match, hash_policy,
                max_downstream_connection_duration, max_downstream_connection_duration_jitter_percentage, tunneling_config,
            }
            unsupported {
                backoff_options: "traffic", access_log_flush_interval: "telemetry",
                flush_access_log_on_connected: "telemetry", access_log_options: "telemetry",
                upstream_connect_mode: "traffic", max_early_data_bytes: "traffic", check_drain_close: "traffic",
            }
            never {
                downstream_idle_timeout: "Envoy does not read it",
                upstream_idle_timeout: "Envoy does not read it",
                on_demand: "discovery on demand, which istiod does not serve",
                proxy_protocol_tlvs: "Istio does not send it; TLVs are added where the cluster's transport socket says so",
                proxy_protocol_tlv_merge_policy: "Istio does not send it",
            }
        });
        let tunnel = tunneling_config.map(|proto| Tunnel::from_proto(&at.field("tunneling_config"), proto));
        let attempts = max_connect_attempts.value().unwrap_or(1);
        Ok(Self {
            stat_prefix: at.field("stat_prefix").not_empty(stat_prefix)?,
            clusters: clusters(at, cluster_specifier, &subset_labels(at, metadata_match)?)?,
            idle_timeout: at.field("idle_timeout").limit(idle_timeout, IDLE_TIMEOUT)?,
            max_duration: at
                .field("max_downstream_connection_duration")
                .positive(max_downstream_connection_duration)?,
            duration_jitter: at
                .field("max_downstream_connection_duration_jitter_percentage")
                .percent(max_downstream_connection_duration_jitter_percentage)?,
            hashes_source: hashes_source(at.field("hash_policy"), hash_policy)?,
            max_connect_attempts: at.field("max_connect_attempts").within(attempts, 1..=u32::MAX)?,
            access_log: AccessLog::list(at.field("access_log"), access_log)?,
            tunnel: tunnel.transpose()?,
        })
    }
}

/// Whether the client's address is hashed. Envoy takes one policy.
fn hashes_source(at: FieldPath<'_>, protos: Vec<types::HashPolicy>) -> Result<bool, Rejection> {
    use types::hash_policy::{FilterState, PolicySpecifier, SourceIp};
    choices!(types::hash_policy::PolicySpecifier {
        supported { SourceIp }
        partly { FilterState: "nothing sets filter state here: it is listed, and hosts are taken at random" }
    });
    if protos.len() > 1 {
        return Err(at.reject(format!("has {} policies; at most 1", protos.len())));
    }
    let Some(proto) = protos.into_iter().next() else {
        return Ok(false);
    };
    let at = at.index(0);
    verdicts!(at, proto => types::HashPolicy { supported { policy_specifier } });
    match at.required(policy_specifier)? {
        PolicySpecifier::SourceIp(proto) => {
            verdicts!((), proto => SourceIp {});
            Ok(true)
        }
        PolicySpecifier::FilterState(proto) => {
            let at = at.field("filter_state");
            verdicts!(at, proto => FilterState { partly { key: "must be there; nothing sets filter state here" } });
            let at = at.field("key");
            at.not_empty(key)?;
            at.problem("has no effect here: nothing sets filter state");
            Ok(false)
        }
    }
}

fn clusters(
    at: &FieldPath<'_>,
    proto: Option<tcp_proxy::ClusterSpecifier>,
    labels: &Struct,
) -> Result<Vec<TcpShare>, Rejection> {
    choices!(tcp_proxy::ClusterSpecifier { supported { Cluster, WeightedClusters } });
    let proto = match proto {
        Some(tcp_proxy::ClusterSpecifier::Cluster(name)) => {
            return Ok(vec![TcpShare {
                cluster: at.field("cluster").not_empty(name)?,
                weight: 1,
                subset_labels: labels.clone(),
            }]);
        }
        Some(tcp_proxy::ClusterSpecifier::WeightedClusters(proto)) => proto,
        None => return Err(at.reject("has neither cluster nor weighted_clusters")),
    };
    let at = at.field("weighted_clusters");
    verdicts!(at, proto => tcp_proxy::WeightedCluster { supported { clusters } });
    let mut sum = 0_u64;
    let mut weighted = Vec::with_capacity(clusters.len());
    for (index, proto) in clusters.into_iter().enumerate() {
        let at = at.field("clusters").index(index);
        verdicts!(at, proto => tcp_proxy::weighted_cluster::ClusterWeight {
            supported { name, weight, metadata_match }
        });
        sum += u64::from(at.field("weight").within(weight, 1..=u32::MAX)?);
        let mut all = labels.clone();
        all.extend(subset_labels(&at, metadata_match)?);
        weighted.push(TcpShare {
            cluster: at.field("name").not_empty(name)?,
            weight,
            subset_labels: all,
        });
    }
    if !(1..=u64::from(u32::MAX)).contains(&sum) {
        return Err(at
            .field("clusters")
            .reject(format!("the weights sum to {sum}, not to 1..={}", u32::MAX)));
    }
    Ok(weighted)
}
