//! Protobuf to [`Cluster`].
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::{self as pb, cluster};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::google::protobuf;

use super::http::{DeprecatedProtos, HttpProtocol};
use super::lb::{Balancing, Chosen, CommonBalancing};
use super::{
    CircuitBreaker, Cluster, Discovery, Dns, HappyEyeballs, HealthCheck, LbPolicy, OutlierDetection, Percent,
    RequestPolicies, RetryBudget, RoutingPriority, SubsetPolicy, TcpKeepalive, TransportSocketMatch,
    UpstreamTransport, dns,
};
use crate::address::{Names, ip_address};
use crate::any::{TypedConfig, types};
use crate::bootstrap::ConfigSource;
use crate::endpoint::LoadAssignment;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::filter_chain::transport_config;
use crate::fraction::Decimal;
use crate::metadata::{Metadata, struct_from_proto};
use crate::network_filter::metadata_exchange::MetadataExchange;
use crate::proxy_protocol::UpstreamHeader;
use crate::scalar::Wrapped;
use crate::socket::keepalive;
use crate::tls::UpstreamTls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Cluster {
    /// Converts a cluster of CDS or of the bootstrap.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::Cluster) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Cluster {
            supported {
                name, alt_stat_name, cluster_discovery_type, eds_cluster_config, load_assignment, connect_timeout,
                lb_policy, lb_config, load_balancing_policy, circuit_breakers, common_lb_config,
                typed_extension_protocol_options, max_requests_per_connection, common_http_protocol_options,
                http2_protocol_options, protocol_selection, upstream_bind_config, transport_socket_matches,
                transport_socket, metadata, upstream_connection_options, filters, outlier_detection,
                dns_refresh_rate, dns_failure_refresh_rate, respect_dns_ttl, dns_lookup_family, typed_dns_resolver_config,
                dns_resolution_config, dns_resolvers, use_tcp_for_dns_lookups, dns_jitter,
                health_checks, close_connections_on_host_health_failure, lb_subset_config,
                wait_for_warm_on_init, ignore_health_on_host_removal, preconnect_policy, upstream_http_protocol_options,
            }
            inert {
                per_connection_buffer_limit_bytes: "HTTP/2 windows and fixed sizes limit what waits for a server",
                http_protocol_options: "deprecated; HTTP/1.1 is what a cluster speaks without it too",
                cleanup_interval: "the hosts of an ORIGINAL_DST cluster are forgotten within a second of their last connection",
            }
            unsupported {
                stats_matcher: "telemetry",
                track_timeout_budgets: "telemetry", track_cluster_stats: "telemetry",
            }
            never {
                per_connection_buffer_high_watermark_timeout: "Istio does not send it; a server that takes nothing is left at timeouts of routes and idle timeouts",
                queuing_policies: "extensions for the order of requests that wait; they go first in, first out, as Envoy's do by default",
                lrs_server: "load reports, which istiod does not ask for",
                lrs_report_endpoint_metrics: "load reports, which istiod does not ask for",
            }
            refused {
                transport_socket_matcher: "ignoring it could send plaintext where TLS is asked for",
                upstream_config: "ignoring it would connect another way",
                connection_pool_per_downstream_connection: "ignoring it would share connections among clients",
            }
        });
        let name = at.field("name").not_empty(name)?;
        let mut common = CommonBalancing::from_proto(&at.field("common_lb_config"), common_lb_config)?;
        let mut subsets = SubsetPolicy::from_proto(&at.field("lb_subset_config"), lb_subset_config)?;
        let mut override_headers = Vec::new();
        let mut hash_policies = Vec::new();
        let balancing = match load_balancing_policy {
            // Envoy does not look at the older fields then.
            Some(proto) => {
                let chosen = Chosen::from_proto(&at.field("load_balancing_policy"), proto)?;
                common.locality = chosen.locality;
                common.hash_by_hostname = chosen.hashing.by_hostname;
                common.hash_balance_factor = chosen.hashing.balance_factor;
                hash_policies = chosen.hashing.policies;
                subsets = chosen.subsets;
                override_headers = chosen.override_headers;
                chosen.balancing
            }
            None => Balancing::from_proto(at, lb_policy, lb_config)?,
        };
        let dns = Dns::from_protos(
            at,
            dns::Protos {
                refresh_rate: dns_refresh_rate,
                failure_refresh_rate: dns_failure_refresh_rate,
                respects_ttl: respect_dns_ttl,
                lookup_family: dns_lookup_family,
                jitter: dns_jitter,
                resolver: typed_dns_resolver_config,
                resolution: dns_resolution_config,
                resolvers: dns_resolvers,
                uses_tcp: use_tcp_for_dns_lookups,
            },
        )?;
        let outlier = outlier_detection
            .map(|proto| OutlierDetection::from_proto(&at.field("outlier_detection"), proto).map(Box::new));
        let discovery = discovery(
            at,
            &name,
            cluster_discovery_type,
            eds_cluster_config,
            load_assignment,
        )?;
        if matches!(discovery, Discovery::OriginalDst)
            != matches!(balancing.policy, LbPolicy::ClusterProvided)
        {
            let reason = "ORIGINAL_DST clusters have the policy CLUSTER_PROVIDED, and only they";
            return Err(at.field("lb_policy").reject(reason));
        }
        let deprecated = DeprecatedProtos {
            max_requests_per_connection: max_requests_per_connection.value(),
            common: common_http_protocol_options,
            http2: http2_protocol_options,
            names: upstream_http_protocol_options,
            use_downstream_protocol: use_downstream(&at.field("protocol_selection"), protocol_selection)?,
        };
        let timeout = at.field("connect_timeout").positive(connect_timeout)?;
        let (http, mut policies) =
            HttpProtocol::from_proto(at, typed_extension_protocol_options, deprecated)?;
        if !hash_policies.is_empty() {
            // Those of the load balancer go first. Source: Envoy `ThreadAwareLoadBalancerBase::LoadBalancerImpl::chooseHost`.
            policies.hash_policies = hash_policies;
        }
        let connection = ConnectionOptions::from_proto(
            &at.field("upstream_connection_options"),
            upstream_connection_options,
        )?;
        let breakers = Breakers::from_proto(&at.field("circuit_breakers"), circuit_breakers)?;
        Ok(Self {
            stat_name: if alt_stat_name.is_empty() {
                name.clone()
            } else {
                alt_stat_name
            },
            discovery,
            connect_timeout: timeout.unwrap_or(CONNECT_TIMEOUT),
            lb_policy: balancing.policy,
            slow_start: balancing.slow_start,
            active_request_bias: balancing.active_request_bias,
            original_dst_port: balancing.original_dst_port,
            original_dst_header: balancing.original_dst_header,
            healthy_panic_threshold_percent: common.panic_threshold,
            locality: common.locality,
            subsets: subsets.map(Box::new),
            hash_balance_factor: common.hash_balance_factor,
            hash_by_hostname: common.hash_by_hostname,
            override_host_status: common.override_host_status,
            override_host_headers: override_headers,
            closes_on_host_change: common.closes_on_host_change,
            waits_for_names: wait_for_warm_on_init.is_none_or(|waits| waits.value),
            removes_healthy_hosts: ignore_health_on_host_removal,
            new_hosts_wait_for_health: common.new_hosts_wait_for_health,
            outlier_detection: outlier.transpose()?,
            health_checks: health_checks
                .into_iter()
                .enumerate()
                .map(|(index, proto)| HealthCheck::from_proto(&at.field("health_checks").index(index), proto))
                .collect::<Result<_, _>>()?,
            closes_on_failed_check: close_connections_on_host_health_failure,
            dns,
            circuit_breaker: breakers.default,
            circuit_breaker_high: breakers.high,
            http,
            request_policies: Some(policies)
                .filter(|policies| *policies != RequestPolicies::default())
                .map(Box::new),
            bind_source: bind_source(&at.field("upstream_bind_config"), upstream_bind_config)?,
            transport_socket_matches: matches(
                at.field("transport_socket_matches"),
                transport_socket_matches,
            )?,
            transport_socket: UpstreamTransport::from_proto(&at.field("transport_socket"), transport_socket)?,
            metadata_exchange: metadata_exchange(at.field("filters"), filters)?,
            tcp_keepalive: connection.tcp_keepalive,
            happy_eyeballs: connection.happy_eyeballs,
            preconnect_ratio: preconnect_ratio(&at.field("preconnect_policy"), preconnect_policy)?,
            metadata: Metadata::from_proto(&at.field("metadata"), metadata)?,
            name,
        })
    }
}

fn use_downstream(at: &FieldPath<'_>, number: i32) -> Result<bool, Rejection> {
    Ok(match at.enumeration(number)? {
        cluster::ClusterProtocolSelection::UseConfiguredProtocol => false,
        cluster::ClusterProtocolSelection::UseDownstreamProtocol => true,
    })
}

fn discovery(
    at: &FieldPath<'_>,
    name: &str,
    kind: Option<cluster::ClusterDiscoveryType>,
    eds: Option<cluster::EdsClusterConfig>,
    assignment: Option<endpoint::ClusterLoadAssignment>,
) -> Result<Discovery, Rejection> {
    choices!(cluster::ClusterDiscoveryType {
        supported { Type }
        refused { ClusterType: "no custom cluster type exists here" }
    });
    let number = match kind {
        None => cluster::DiscoveryType::Static as i32,
        Some(cluster::ClusterDiscoveryType::Type(number)) => number,
        Some(cluster::ClusterDiscoveryType::ClusterType(custom)) => {
            let field = at.field("cluster_type");
            return Err(field.reject(format!("the cluster type {:?} is not supported", custom.name)));
        }
    };
    let endpoints = |names| {
        let field = at.field("load_assignment");
        match assignment {
            Some(proto) => LoadAssignment::from_proto(&field, proto, names),
            None => Ok(LoadAssignment::default()),
        }
    };
    Ok(match at.field("type").enumeration(number)? {
        cluster::DiscoveryType::Static => Discovery::Static(endpoints(Names::Refused)?),
        cluster::DiscoveryType::StrictDns => {
            Discovery::StrictDns(dns::with_names(endpoints(Names::Resolved)?))
        }
        cluster::DiscoveryType::LogicalDns => {
            let assignment = endpoints(Names::Resolved)?;
            if assignment
                .localities
                .iter()
                .map(|locality| locality.endpoints.len())
                .sum::<usize>()
                != 1
            {
                return Err(at
                    .field("load_assignment")
                    .reject("a LOGICAL_DNS cluster has exactly one endpoint"));
            }
            Discovery::LogicalDns(dns::with_names(assignment))
        }
        cluster::DiscoveryType::OriginalDst => Discovery::OriginalDst,
        cluster::DiscoveryType::Eds => {
            let at = at.field("eds_cluster_config");
            verdicts!(at, at.required(eds)? => cluster::EdsClusterConfig { supported { eds_config, service_name } });
            let source = ConfigSource::from_proto(&at.field("eds_config"), eds_config)?;
            Discovery::Eds {
                service_name: if service_name.is_empty() {
                    name.to_owned()
                } else {
                    service_name
                },
                source,
            }
        }
    })
}

impl RoutingPriority {
    /// Converts that of a route or of limits.
    pub(crate) fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        Ok(match at.enumeration(number)? {
            core::RoutingPriority::Default => Self::Default,
            core::RoutingPriority::High => Self::High,
        })
    }
}

impl CircuitBreaker {
    /// Source: circuit_breaker.proto.
    const DEFAULT: Self = Self {
        max_connections: 1024,
        max_pending_requests: 1024,
        max_requests: 1024,
        max_retries: 3,
        max_connections_per_host: None,
        retry_budget: None,
        max_connection_pools: None,
        tracks_remaining: false,
    };
}

/// The limits of a cluster.
struct Breakers {
    default: CircuitBreaker,
    high: CircuitBreaker,
}

impl Breakers {
    fn from_proto(at: &FieldPath<'_>, proto: Option<pb::CircuitBreakers>) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => pb::CircuitBreakers {
            supported { thresholds }
            partly { per_host_thresholds: "max_connections of the first of each priority, as in Envoy" }
        });
        let (mut default, mut high) = (None, None);
        for (index, proto) in thresholds.into_iter().enumerate() {
            let at = at.field("thresholds").index(index);
            let (priority, breaker) = Self::thresholds(&at, proto)?;
            // As in Envoy the first entry of a priority counts.
            match priority {
                RoutingPriority::High => high.get_or_insert(breaker),
                RoutingPriority::Default => default.get_or_insert(breaker),
            };
        }
        let mut breakers = Self {
            default: default.unwrap_or(CircuitBreaker::DEFAULT),
            high: high.unwrap_or(CircuitBreaker::DEFAULT),
        };
        // Only `max_connections` may be set for a host. Source: circuit_breaker.proto, `per_host_thresholds`.
        for (index, host) in per_host_thresholds.into_iter().enumerate().rev() {
            let at = at.field("per_host_thresholds").index(index);
            let breaker = match RoutingPriority::from_proto(&at.field("priority"), host.priority)? {
                RoutingPriority::High => &mut breakers.high,
                RoutingPriority::Default => &mut breakers.default,
            };
            breaker.max_connections_per_host = host.max_connections.value();
        }
        Ok(breakers)
    }

    fn thresholds(
        at: &FieldPath<'_>,
        proto: pb::circuit_breakers::Thresholds,
    ) -> Result<(RoutingPriority, CircuitBreaker), Rejection> {
        verdicts!(at, proto => pb::circuit_breakers::Thresholds {
            supported {
                max_connections, max_pending_requests, max_requests, max_retries, retry_budget, track_remaining,
                priority, max_connection_pools,
            }
        });
        let default = CircuitBreaker::DEFAULT;
        let breaker = CircuitBreaker {
            max_connections: max_connections.value().unwrap_or(default.max_connections),
            max_pending_requests: max_pending_requests
                .value()
                .unwrap_or(default.max_pending_requests),
            max_requests: max_requests.value().unwrap_or(default.max_requests),
            max_retries: max_retries.value().unwrap_or(default.max_retries),
            max_connections_per_host: None,
            retry_budget: RetryBudget::from_proto(&at.field("retry_budget"), retry_budget)?,
            max_connection_pools: max_connection_pools.value(),
            tracks_remaining: track_remaining,
        };
        Ok((
            RoutingPriority::from_proto(&at.field("priority"), priority)?,
            breaker,
        ))
    }
}

impl RetryBudget {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::circuit_breakers::thresholds::RetryBudget>,
    ) -> Result<Option<Self>, Rejection> {
        let Some(proto) = proto else { return Ok(None) };
        verdicts!(at, proto => pb::circuit_breakers::thresholds::RetryBudget {
            supported { budget_percent, min_retry_concurrency, budget_interval }
        });
        Ok(Some(Self {
            budget: at
                .field("budget_percent")
                .percent(budget_percent)?
                .unwrap_or(Percent(2_000)),
            min_concurrency: min_retry_concurrency.value().unwrap_or(3),
            budget_interval: at
                .field("budget_interval")
                .limit(budget_interval, Duration::ZERO)?,
        }))
    }
}

fn bind_source(at: &FieldPath<'_>, proto: Option<core::BindConfig>) -> Result<Option<SocketAddr>, Rejection> {
    let Some(proto) = proto else { return Ok(None) };
    verdicts!(at, proto => core::BindConfig {
        supported { source_address }
        inert { validate_network_namespaces: "network namespaces are refused with the address that names one" }
        unsupported {
            freebind: "traffic", socket_options: "traffic", extra_source_addresses: "traffic",
            additional_source_addresses: "traffic", local_address_selector: "traffic",
        }
    });
    source_address
        .map(|proto| ip_address(&at.field("source_address"), proto))
        .transpose()
}

fn matches(
    at: FieldPath<'_>,
    protos: Vec<cluster::TransportSocketMatch>,
) -> Result<Vec<TransportSocketMatch>, Rejection> {
    let matches = protos.into_iter().enumerate().map(|(index, proto)| {
        let at = at.index(index);
        verdicts!(at, proto => cluster::TransportSocketMatch {
            supported { r#match, transport_socket }
            partly { name: "must be there; it only names a counter that does not exist here" }
        });
        at.field("name").not_empty(name)?;
        Ok(TransportSocketMatch {
            criteria: struct_from_proto(&at.field("match"), r#match.unwrap_or_default())?,
            transport: UpstreamTransport::from_proto(&at.field("transport_socket"), transport_socket)?,
        })
    });
    matches.collect()
}

/// What may stand in a `transport_socket`.
const TRANSPORTS: [&str; 3] = [
    types::RAW_BUFFER,
    types::UPSTREAM_TLS,
    types::UPSTREAM_PROXY_PROTOCOL,
];

impl UpstreamTransport {
    fn from_proto(at: &FieldPath<'_>, proto: Option<core::TransportSocket>) -> Result<Self, Rejection> {
        let Some((config, name)) = transport_config(at, proto)? else {
            return Ok(Self::default());
        };
        let at = at.field("typed_config");
        match config.type_name.as_str() {
            types::RAW_BUFFER => {
                verdicts!(at, config.message(&at)? => RawBuffer {});
                Ok(Self::default())
            }
            types::UPSTREAM_TLS => Ok(Self {
                tls_context: Some(Box::new(UpstreamTls::from_proto(&at, config.message(&at)?)?)),
                proxy_header: None,
            }),
            types::UPSTREAM_PROXY_PROTOCOL => Self::with_header(&at, config.message(&at)?),
            _ => Err(config.reject(&at, "transport socket", &name, &TRANSPORTS)),
        }
    }

    fn with_header(at: &FieldPath<'_>, proto: ProxyProtocolUpstreamTransport) -> Result<Self, Rejection> {
        verdicts!(at, proto => ProxyProtocolUpstreamTransport {
            supported { config, transport_socket }
            never {
                allow_unspecified_address: "Envoy hides it from users",
                tlv_as_pool_key: "Envoy hides it from users",
            }
        });
        let inner = at.field("transport_socket");
        let inside = Self::from_proto(&inner, Some(inner.required(transport_socket)?))?;
        if inside.proxy_header.is_some() {
            return Err(inner.reject("sends a second PROXY header"));
        }
        Ok(Self {
            proxy_header: Some(UpstreamHeader::from_proto(&at.field("config"), config)?),
            tls_context: inside.tls_context,
        })
    }
}

fn metadata_exchange(
    at: FieldPath<'_>,
    protos: Vec<pb::Filter>,
) -> Result<Option<MetadataExchange>, Rejection> {
    let mut exchange = None;
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        verdicts!(at, proto => pb::Filter {
            supported { typed_config }
            partly { name: "in rejections; what a filter does is in the type of its config" }
            refused { config_discovery: "ignoring it would leave out the filter" }
        });
        let at = at.field("typed_config");
        let config = TypedConfig::open(&at, typed_config)?;
        if config.type_name != types::TCP_METADATA_EXCHANGE {
            return Err(config.reject(
                &at,
                "upstream network filter",
                &name,
                &[types::TCP_METADATA_EXCHANGE],
            ));
        }
        if exchange.is_some() {
            return Err(at.reject("exchanges metadata a second time"));
        }
        exchange = Some(MetadataExchange::from_proto(&at, config.message_or_json(&at)?)?);
    }
    Ok(exchange)
}

/// What is asked for of connections to one host.
fn preconnect_ratio(
    at: &FieldPath<'_>,
    proto: Option<cluster::PreconnectPolicy>,
) -> Result<Option<Decimal>, Rejection> {
    verdicts!(at, proto.unwrap_or_default() => cluster::PreconnectPolicy {
        partly { per_upstream_preconnect_ratio: "for HTTP/1.1; HTTP/2 has room on its connection, and TCP has none ahead" }
        never {
            predictive_preconnect_ratio: "balancers here do not know which host is next",
            preconnect_enabled_metadata: "all healthy hosts of the cluster get connections ahead",
        }
    });
    let Some(protobuf::DoubleValue { value }) = per_upstream_preconnect_ratio else {
        return Ok(None);
    };
    if !(1.0..=3.0).contains(&value) {
        let field = at.field("per_upstream_preconnect_ratio");
        return Err(field.reject(format!("{value} is not between 1 and 3")));
    }
    Ok((value > 1.0).then_some(Decimal(value)))
}

/// `upstream_connection_options`.
struct ConnectionOptions {
    tcp_keepalive: Option<TcpKeepalive>,
    happy_eyeballs: HappyEyeballs,
}

impl ConnectionOptions {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::UpstreamConnectionOptions>,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => pb::UpstreamConnectionOptions {
            supported { tcp_keepalive, happy_eyeballs_config }
            unsupported { set_local_interface_name_on_upstream_connections: "telemetry" }
        });
        Ok(Self {
            tcp_keepalive: keepalive(tcp_keepalive),
            happy_eyeballs: HappyEyeballs::from_proto(
                &at.field("happy_eyeballs_config"),
                happy_eyeballs_config,
            )?,
        })
    }
}

impl HappyEyeballs {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::upstream_connection_options::HappyEyeballsConfig>,
    ) -> Result<Self, Rejection> {
        use pb::upstream_connection_options::{FirstAddressFamilyVersion as Family, HappyEyeballsConfig};
        verdicts!(at, proto.unwrap_or_default() => HappyEyeballsConfig {
            supported { first_address_family_count }
            partly { first_address_family_version: "DEFAULT, V4 and V6; no endpoint has an address of another family here" }
        });
        let family = at
            .field("first_address_family_version")
            .enumeration(first_address_family_version)?;
        let count = first_address_family_count.value().unwrap_or(1);
        Ok(Self {
            first_is_v6: match family {
                Family::Default | Family::Pipe | Family::Internal => None,
                Family::V4 => Some(false),
                Family::V6 => Some(true),
            },
            first_count: at
                .field("first_address_family_count")
                .within(count, 1..=u32::MAX)?,
        })
    }
}
