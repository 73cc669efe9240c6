//! TCP proxy. Source: envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto.
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
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
    /// The waits between them; `None`: there are none.
    pub backoff: Option<Backoff>,
    /// A server is connected to when the client has said something; false: at once, or after its TLS handshake.
    pub waits_for_data: bool,
    /// Bytes of the client that are read before there is a server; `None`: none is.
    pub early_data_bytes: Option<u32>,
    /// A connection that moves bytes while its listener drains is closed.
    pub closes_when_draining: bool,
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

/// Waits, each at random below a limit that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first limit; at least 1 ms.
    pub base: Duration,
    /// The last one; not shorter.
    pub max: Duration,
}

/// `TcpProxy.idle_timeout` when unset.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Envoy's limit of `max_early_data_bytes`.
const MOST_EARLY_BYTES: u32 = 1024 * 1024;

impl TcpProxy {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::TcpProxy) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::TcpProxy {
            supported {
                stat_prefix, cluster_specifier, idle_timeout, access_log, max_connect_attempts, metadata_match, hash_policy,
                max_downstream_connection_duration, max_downstream_connection_duration_jitter_percentage, tunneling_config,
                backoff_options, upstream_connect_mode, max_early_data_bytes, check_drain_close,
            }
            unsupported {
                access_log_flush_interval: "telemetry",
                flush_access_log_on_connected: "telemetry", access_log_options: "telemetry",
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
        let early_data_bytes = max_early_data_bytes.value();
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
            backoff: backoff(at.field("backoff_options"), backoff_options)?,
            waits_for_data: waits_for_data(at, upstream_connect_mode, early_data_bytes)?,
            early_data_bytes: early_data_bytes
                .map(|bytes| {
                    at.field("max_early_data_bytes")
                        .within(bytes, 0..=MOST_EARLY_BYTES)
                })
                .transpose()?,
            closes_when_draining: check_drain_close.value().unwrap_or(false),
            access_log: AccessLog::list(at.field("access_log"), access_log)?,
            tunnel: tunnel.transpose()?,
        })
    }
}

fn backoff(at: FieldPath<'_>, proto: Option<core::BackoffStrategy>) -> Result<Option<Backoff>, Rejection> {
    let Some(proto) = proto else {
        return Ok(None);
    };
    verdicts!(at, proto => core::BackoffStrategy { supported { base_interval, max_interval } });
    let field = at.field("base_interval");
    let base = field.required(field.duration(base_interval)?)?;
    if base < Duration::from_millis(1) {
        return Err(field.reject("is shorter than 1 ms"));
    }
    let max = at
        .field("max_interval")
        .positive(max_interval)?
        .unwrap_or(base * 10);
    if max < base {
        return Err(at.field("max_interval").reject("is shorter than base_interval"));
    }
    Ok(Some(Backoff { base, max }))
}

/// Whether a server is connected to when there is something for it. The TLS handshake comes before in any case here.
fn waits_for_data(at: &FieldPath<'_>, mode: i32, early_data_bytes: Option<u32>) -> Result<bool, Rejection> {
    let waits = match at.field("upstream_connect_mode").enumeration(mode)? {
        pb::UpstreamConnectMode::Immediate => return Ok(false),
        pb::UpstreamConnectMode::OnDownstreamTlsHandshake => false,
        pb::UpstreamConnectMode::OnDownstreamData => true,
    };
    at.field("max_early_data_bytes").required(early_data_bytes)?;
    Ok(waits)
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
