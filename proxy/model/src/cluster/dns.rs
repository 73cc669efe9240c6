//! Protobuf to [`Dns`]: how the names of a cluster's endpoints are resolved.
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use envoy_types::pb::google::protobuf;

use super::{Dns, DnsLookupFamily};
use crate::address::{Address, Names};
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, verdicts};

/// `Cluster.dns_refresh_rate` when unset.
const REFRESH_RATE: Duration = Duration::from_secs(5);
/// Source: cluster.proto, `dns_refresh_rate`.
const SHORTEST_REFRESH_RATE: Duration = Duration::from_millis(1);

/// The fields of `Cluster` that are about names.
pub(super) struct Protos {
    pub(super) refresh_rate: Option<protobuf::Duration>,
    pub(super) failure_refresh_rate: Option<cluster::RefreshRate>,
    pub(super) respects_ttl: bool,
    pub(super) lookup_family: i32,
    pub(super) resolver: Option<core::TypedExtensionConfig>,
}

impl Dns {
    /// Converts the settings; what is unset has Envoy's default.
    pub(super) fn from_protos(at: &FieldPath<'_>, protos: Protos) -> Result<Self, Rejection> {
        let field = at.field("dns_refresh_rate");
        let refresh_rate = field.duration(protos.refresh_rate)?.unwrap_or(REFRESH_RATE);
        if refresh_rate <= SHORTEST_REFRESH_RATE {
            return Err(field.reject("must be longer than 1ms"));
        }
        let failure =
            failure_refresh_rate(&at.field("dns_failure_refresh_rate"), protos.failure_refresh_rate)?;
        Ok(Self {
            refresh_rate,
            failure_refresh_rate: failure.unwrap_or((refresh_rate, refresh_rate)),
            respects_ttl: protos.respects_ttl,
            family: match at.field("dns_lookup_family").enumeration(protos.lookup_family)? {
                cluster::DnsLookupFamily::Auto => DnsLookupFamily::Auto,
                cluster::DnsLookupFamily::V4Only => DnsLookupFamily::V4Only,
                cluster::DnsLookupFamily::V6Only => DnsLookupFamily::V6Only,
                cluster::DnsLookupFamily::V4Preferred => DnsLookupFamily::V4Preferred,
                cluster::DnsLookupFamily::All => DnsLookupFamily::All,
            },
            resolvers: resolvers(&at.field("typed_dns_resolver_config"), protos.resolver)?,
        })
    }
}

fn failure_refresh_rate(
    at: &FieldPath<'_>,
    proto: Option<cluster::RefreshRate>,
) -> Result<Option<(Duration, Duration)>, Rejection> {
    let Some(proto) = proto else { return Ok(None) };
    verdicts!(at, proto => cluster::RefreshRate { supported { base_interval, max_interval } });
    let field = at.field("base_interval");
    let base = field.required(field.positive(base_interval)?)?;
    match at.field("max_interval").positive(max_interval)? {
        None => Ok(Some((base, base.saturating_mul(10)))),
        Some(max) if max < base => Err(at.field("max_interval").reject("is shorter than base_interval")),
        Some(max) => Ok(Some((base, max))),
    }
}

/// The name servers to ask; empty: the system's.
fn resolvers(
    at: &FieldPath<'_>,
    proto: Option<core::TypedExtensionConfig>,
) -> Result<Vec<Address>, Rejection> {
    let Some(proto) = proto else { return Ok(Vec::new()) };
    verdicts!(at, proto => core::TypedExtensionConfig {
        supported { typed_config }
        partly { name: "in rejections; what an extension does is in the type of its config" }
    });
    let at = at.field("typed_config");
    let config = TypedConfig::open(&at, typed_config)?;
    if config.type_name != types::CARES_DNS_RESOLVER {
        at.problem(format!(
            "the resolver {name:?} of type {:?} does not exist here; the system's is asked",
            config.type_name
        ));
        return Ok(Vec::new());
    }
    verdicts!(at, config.message(&at)? => CaresDnsResolverConfig {
        supported { resolvers }
        inert {
            udp_max_queries: "how many queries c-ares puts on one socket, and c-ares is not here",
            qcache_max_ttl: "how long c-ares keeps answers, and c-ares is not here",
            reinit_channel_on_timeout: "how c-ares recovers, and c-ares is not here",
            max_udp_channel_duration: "how long c-ares keeps a socket, and c-ares is not here",
        }
        unsupported {
            use_resolvers_as_fallback: "traffic", filter_unroutable_families: "traffic", dns_resolver_options: "traffic",
            query_timeout_seconds: "traffic", query_tries: "traffic", rotate_nameservers: "traffic",
            edns0_max_payload_size: "traffic",
        }
    });
    let resolvers = resolvers.into_iter().enumerate();
    resolvers
        .map(|(index, proto)| {
            Address::from_proto(&at.field("resolvers").index(index), Some(proto), Names::Refused)
        })
        .collect()
}
