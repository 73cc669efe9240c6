//! Protobuf to [`Dns`]: how the names of a cluster's endpoints are resolved.
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use envoy_types::pb::google::protobuf;

use super::{Dns, DnsLookupFamily, DnsResolver};
use crate::address::{Address, Names};
use crate::any::{TypedConfig, types};
use crate::endpoint::LoadAssignment;
use crate::field::{FieldPath, Rejection, verdicts};
use crate::scalar::Wrapped;

/// `Cluster.dns_refresh_rate` when unset.
const REFRESH_RATE: Duration = Duration::from_secs(5);
/// Source: cluster.proto, `dns_refresh_rate`.
const SHORTEST_REFRESH_RATE: Duration = Duration::from_millis(1);

/// The fields of `Cluster` that are about names.
pub(super) struct Protos {
    pub(super) refresh_rate: Option<protobuf::Duration>,
    pub(super) failure_refresh_rate: Option<cluster::RefreshRate>,
    pub(super) respects_ttl: bool,
    pub(super) jitter: Option<protobuf::Duration>,
    pub(super) lookup_family: i32,
    pub(super) resolver: Option<core::TypedExtensionConfig>,
    pub(super) resolution: Option<core::DnsResolutionConfig>,
    pub(super) resolvers: Vec<core::Address>,
    pub(super) uses_tcp: bool,
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
            jitter: at
                .field("dns_jitter")
                .duration(protos.jitter)?
                .unwrap_or_default(),
            family: match at.field("dns_lookup_family").enumeration(protos.lookup_family)? {
                cluster::DnsLookupFamily::Auto => DnsLookupFamily::Auto,
                cluster::DnsLookupFamily::V4Only => DnsLookupFamily::V4Only,
                cluster::DnsLookupFamily::V6Only => DnsLookupFamily::V6Only,
                cluster::DnsLookupFamily::V4Preferred => DnsLookupFamily::V4Preferred,
                cluster::DnsLookupFamily::All => DnsLookupFamily::All,
            },
            resolver: DnsResolver::from_protos(
                at,
                protos.resolver,
                protos.resolution,
                protos.resolvers,
                protos.uses_tcp,
            )?,
        })
    }
}

/// An endpoint without a name has that of its address, which may be an IP address. Source: Envoy `StrictDnsClusterImpl::ResolveTarget`.
pub(super) fn with_names(mut assignment: LoadAssignment) -> LoadAssignment {
    let localities = assignment.localities.iter_mut();
    let endpoints = localities.flat_map(|locality| &mut locality.endpoints);
    for endpoint in endpoints.filter(|endpoint| endpoint.hostname.is_empty()) {
        let name = match &endpoint.address {
            Address::Host { name, .. } => name.clone(),
            Address::Socket(address) => address.ip().to_string(),
            Address::Pipe(_) => continue,
        };
        Arc::make_mut(endpoint).hostname = name;
    }
    assignment
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

impl DnsResolver {
    /// The first of the three ways to say it that is used counts. Source: Envoy `makeDnsResolverConfig`.
    fn from_protos(
        at: &FieldPath<'_>,
        typed: Option<core::TypedExtensionConfig>,
        resolution: Option<core::DnsResolutionConfig>,
        servers: Vec<core::Address>,
        uses_tcp: bool,
    ) -> Result<Self, Rejection> {
        if let Some(proto) = typed {
            return Self::typed(&at.field("typed_dns_resolver_config"), proto);
        }
        let Some(proto) = resolution else {
            return Ok(Self {
                servers: addresses(&at.field("dns_resolvers"), servers)?,
                uses_tcp,
                ..Self::default()
            });
        };
        let at = at.field("dns_resolution_config");
        verdicts!(at, proto => core::DnsResolutionConfig { supported { resolvers, dns_resolver_options } });
        Ok(Self {
            servers: addresses(&at.field("resolvers"), resolvers)?,
            ..Self::options(dns_resolver_options)
        })
    }

    fn options(proto: Option<core::DnsResolverOptions>) -> Self {
        let Some(proto) = proto else {
            return Self::default();
        };
        verdicts!(at, proto => core::DnsResolverOptions {
            supported { use_tcp_for_dns_lookups, no_default_search_domain }
        });
        Self {
            uses_tcp: use_tcp_for_dns_lookups,
            is_absolute: no_default_search_domain,
            ..Self::default()
        }
    }

    fn typed(at: &FieldPath<'_>, proto: core::TypedExtensionConfig) -> Result<Self, Rejection> {
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
            return Ok(Self::default());
        }
        verdicts!(at, config.message(&at)? => CaresDnsResolverConfig {
            supported {
                resolvers, use_resolvers_as_fallback, dns_resolver_options, query_timeout_seconds, query_tries,
                rotate_nameservers, edns0_max_payload_size,
            }
            inert {
                udp_max_queries: "how many queries c-ares puts on one socket, and c-ares is not here",
                qcache_max_ttl: "how long c-ares keeps answers, and c-ares is not here",
                reinit_channel_on_timeout: "how c-ares recovers, and c-ares is not here",
                max_udp_channel_duration: "how long c-ares keeps a socket, and c-ares is not here",
            }
            unsupported { filter_unroutable_families: "traffic" }
        });
        let tries = query_tries.value();
        let seconds = query_timeout_seconds.map(|seconds| seconds.value);
        let payload = edns0_max_payload_size.value();
        let payload_at = at.field("edns0_max_payload_size");
        Ok(Self {
            servers: addresses(&at.field("resolvers"), resolvers)?,
            is_fallback: use_resolvers_as_fallback,
            query_timeout: seconds
                .map(|seconds| {
                    at.field("query_timeout_seconds")
                        .within_u64(seconds, 1..=u64::MAX)
                })
                .transpose()?
                .map(Duration::from_secs),
            query_tries: tries
                .map(|tries| at.field("query_tries").within(tries, 1..=u32::MAX))
                .transpose()?,
            rotates: rotate_nameservers,
            edns_payload: payload
                .map(|bytes| payload_at.within(bytes, 512..=4096))
                .transpose()?
                .and_then(|bytes| u16::try_from(bytes).ok()),
            ..Self::options(dns_resolver_options)
        })
    }
}

fn addresses(at: &FieldPath<'_>, protos: Vec<core::Address>) -> Result<Vec<Address>, Rejection> {
    let protos = protos.into_iter().enumerate();
    protos
        .map(|(index, proto)| Address::from_proto(&at.index(index), Some(proto), Names::Refused))
        .collect()
}
