//! Protobuf to [`FilterChain`].
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{self as core, transport_socket};
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;

use super::{FilterChain, FilterChainMatch, NetworkFilter, ServerName, SourceType, TerminalFilter};
use crate::address::ranges;
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::hcm::HttpConnectionManager;
use crate::network_filter::ext_authz::ExtAuthz;
use crate::network_filter::istio_stats::IstioStats;
use crate::network_filter::limits::{ConnectionLimit, ConnectionRate};
use crate::network_filter::metadata_exchange::MetadataExchange;
use crate::network_filter::mongo_proxy::MongoProxy;
use crate::network_filter::rbac::Rbac;
use crate::network_filter::tcp_proxy::TcpProxy;
use crate::scalar::Wrapped;
use crate::tls::DownstreamTls;

/// Filters that keep connections out. Passing over one would let anybody in, so its listener is refused until the security issue builds it.
const POLICY_FILTERS: [&str; 2] = [types::NETWORK_RBAC, types::NETWORK_EXT_AUTHZ];

const NETWORK_FILTERS: [&str; 7] = [
    types::HTTP_CONNECTION_MANAGER,
    types::TCP_PROXY,
    types::TCP_METADATA_EXCHANGE,
    types::ISTIO_STATS,
    types::MONGO_PROXY,
    types::CONNECTION_LIMIT,
    types::NETWORK_LOCAL_RATE_LIMIT,
];

/// Converts a listener's chains.
///
/// # Errors
/// One does not convert, or two match the same connections.
pub(crate) fn list(at: FieldPath<'_>, protos: Vec<pb::FilterChain>) -> Result<Vec<FilterChain>, Rejection> {
    let mut chains: Vec<FilterChain> = Vec::with_capacity(protos.len());
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        let chain = FilterChain::from_proto(&at, proto)?;
        if let Some(other) = chains
            .iter()
            .position(|other| overlap(&other.matcher, &chain.matcher))
        {
            let reason = format!("matches connections that filter_chains[{other}] matches just as well");
            return Err(at.field("filter_chain_match").reject(reason));
        }
        chains.push(chain);
    }
    Ok(chains)
}

/// Whether some connection matches both equally well: in every criterion they share a value, or both have none.
fn overlap(left: &FilterChainMatch, right: &FilterChainMatch) -> bool {
    fn share<T: PartialEq>(left: &[T], right: &[T]) -> bool {
        (left.is_empty() && right.is_empty()) || left.iter().any(|item| right.contains(item))
    }
    left.destination_port == right.destination_port
        && left.transport_protocol == right.transport_protocol
        && left.source_type == right.source_type
        && share(&left.prefix_ranges, &right.prefix_ranges)
        && share(&left.server_names, &right.server_names)
        && share(&left.application_protocols, &right.application_protocols)
        && share(
            &left.direct_source_prefix_ranges,
            &right.direct_source_prefix_ranges,
        )
        && share(&left.source_prefix_ranges, &right.source_prefix_ranges)
        && share(&left.source_ports, &right.source_ports)
}

impl FilterChain {
    /// Converts one chain.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::FilterChain) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::FilterChain {
            supported {
                name, filter_chain_match, filters, transport_socket, transport_socket_connect_timeout,
            }
            partly { use_proxy_proto: "false only; true is refused: the PROXY header would reach the application" }
            inert { metadata: "only formatters and filters that do not exist here read it; /config_dump shows what was received" }
        });
        let field = at.field("use_proxy_proto");
        field.only_false(
            use_proxy_proto,
            "ignoring it would send the PROXY header to the application",
        )?;
        let field = at.field("transport_socket_connect_timeout");
        let (filters, terminal) = network_filters(at.field("filters"), filters)?;
        Ok(Self {
            name,
            matcher: FilterChainMatch::from_proto(&at.field("filter_chain_match"), filter_chain_match)?,
            tls: downstream_transport(&at.field("transport_socket"), transport_socket)?,
            transport_connect_timeout: field.limit(transport_socket_connect_timeout, Duration::ZERO)?,
            filters,
            terminal,
        })
    }
}

impl FilterChainMatch {
    fn from_proto(at: &FieldPath<'_>, proto: Option<pb::FilterChainMatch>) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => pb::FilterChainMatch {
            supported {
                destination_port, prefix_ranges, direct_source_prefix_ranges, source_type, source_prefix_ranges,
                source_ports, server_names, transport_protocol, application_protocols,
            }
            refused {
                address_suffix: "ignoring it would match more connections",
                suffix_len: "ignoring it would match more connections",
            }
        });
        let destination_port = match destination_port.value() {
            Some(0) => return Err(at.field("destination_port").reject("0 is no port")),
            Some(port) => Some(at.field("destination_port").port(port)?),
            None => None,
        };
        let ports = source_ports.into_iter().enumerate();
        let ports = ports.map(|(index, port)| at.field("source_ports").index(index).port(port));
        let names = server_names.into_iter().enumerate();
        let names =
            names.map(|(index, name)| ServerName::parse(&at.field("server_names").index(index), &name));
        Ok(Self {
            destination_port,
            prefix_ranges: ranges(at.field("prefix_ranges"), prefix_ranges)?,
            server_names: names.collect::<Result<_, _>>()?,
            transport_protocol,
            application_protocols,
            direct_source_prefix_ranges: ranges(
                at.field("direct_source_prefix_ranges"),
                direct_source_prefix_ranges,
            )?,
            source_type: SourceType::from_proto(&at.field("source_type"), source_type)?,
            source_prefix_ranges: ranges(at.field("source_prefix_ranges"), source_prefix_ranges)?,
            source_ports: ports.collect::<Result<_, _>>()?,
        })
    }
}

impl ServerName {
    /// `*` may only stand for the first label. Source: Envoy, `server_names` of listener_components.proto.
    fn parse(at: &FieldPath<'_>, name: &str) -> Result<Self, Rejection> {
        let name = at.not_empty(name.to_ascii_lowercase())?;
        match name.strip_prefix('*') {
            None if !name.contains('*') => Ok(Self::Exact(name)),
            Some(suffix) if suffix.starts_with('.') && suffix.len() > 1 && !suffix.contains('*') => {
                Ok(Self::Suffix(suffix.to_owned()))
            }
            _ => Err(at.reject(format!("{name:?} has a `*` that is not the whole first label"))),
        }
    }
}

impl SourceType {
    fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        use pb::filter_chain_match::ConnectionSourceType;
        Ok(match at.enumeration(number)? {
            ConnectionSourceType::Any => Self::Any,
            ConnectionSourceType::SameIpOrLoopback => Self::SameIpOrLoopback,
            ConnectionSourceType::External => Self::External,
        })
    }
}

/// What a `TransportSocket` holds; `None` when it is not there.
pub(crate) fn transport_config(
    at: &FieldPath<'_>,
    proto: Option<core::TransportSocket>,
) -> Result<Option<(TypedConfig, String)>, Rejection> {
    let Some(proto) = proto else { return Ok(None) };
    verdicts!(at, proto => core::TransportSocket {
        supported { config_type }
        partly { name: "in rejections; what a transport socket does is in the type of its config" }
    });
    choices!(transport_socket::ConfigType { supported { TypedConfig } });
    let any = config_type.map(|transport_socket::ConfigType::TypedConfig(any)| any);
    Ok(Some((TypedConfig::open(&at.field("typed_config"), any)?, name)))
}

fn downstream_transport(
    at: &FieldPath<'_>,
    proto: Option<core::TransportSocket>,
) -> Result<Option<DownstreamTls>, Rejection> {
    let Some((config, name)) = transport_config(at, proto)? else {
        return Ok(None);
    };
    let at = at.field("typed_config");
    match config.type_name.as_str() {
        types::RAW_BUFFER => {
            verdicts!(at, config.message(&at)? => RawBuffer {});
            Ok(None)
        }
        types::DOWNSTREAM_TLS => Ok(Some(DownstreamTls::from_proto(&at, config.message(&at)?)?)),
        _ => Err(config.reject(
            &at,
            "transport socket",
            &name,
            &[types::RAW_BUFFER, types::DOWNSTREAM_TLS],
        )),
    }
}

/// Either kind of network filter.
enum Filter {
    Middle(NetworkFilter),
    Terminal(TerminalFilter),
}

/// All filters before the last, and the last.
fn network_filters(
    at: FieldPath<'_>,
    protos: Vec<pb::Filter>,
) -> Result<(Vec<NetworkFilter>, TerminalFilter), Rejection> {
    let last = protos.len().saturating_sub(1);
    let mut filters = Vec::with_capacity(last);
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        match Filter::from_proto(&at, proto)? {
            Filter::Terminal(terminal) if index == last => {
                if matches!(terminal, TerminalFilter::Http(_)) && filters.iter().any(is_stats) {
                    at.problem("istio.stats before it has no effect here: put it among the http filters");
                }
                return Ok((filters, terminal));
            }
            Filter::Terminal(_) => return Err(at.reject("ends the chain, but filters follow it")),
            Filter::Middle(filter) => filters.push(filter),
        }
    }
    Err(at.reject("needs a tcp_proxy or an http_connection_manager at its end"))
}

fn is_stats(filter: &NetworkFilter) -> bool {
    matches!(filter, NetworkFilter::IstioStats(_))
}

/// Checks what a policy filter says.
fn policy_filter(at: &FieldPath<'_>, config: TypedConfig) -> Result<(), Rejection> {
    match config.type_name.as_str() {
        types::NETWORK_RBAC => Rbac::from_proto(at, config.message(at)?).map(drop),
        _ => ExtAuthz::from_proto(at, config.message(at)?).map(drop),
    }
}

impl Filter {
    fn from_proto(at: &FieldPath<'_>, proto: pb::Filter) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Filter {
            supported { config_type }
            partly { name: "in rejections; what a filter does is in the type of its config" }
        });
        choices!(pb::filter::ConfigType {
            supported { TypedConfig }
            refused { ConfigDiscovery: "extension discovery has no behaviour here" }
        });
        let any = match config_type {
            Some(pb::filter::ConfigType::TypedConfig(any)) => Some(any),
            Some(pb::filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(at
                    .field("config_discovery")
                    .reject("extension discovery is not supported"));
            }
            None => None,
        };
        let at = at.field("typed_config");
        let config = TypedConfig::open(&at, any)?;
        Ok(match config.type_name.as_str() {
            types::HTTP_CONNECTION_MANAGER => {
                let manager = HttpConnectionManager::from_proto(&at, config.message(&at)?)?;
                Self::Terminal(TerminalFilter::Http(Box::new(manager)))
            }
            types::TCP_PROXY => {
                let tcp_proxy = TcpProxy::from_proto(&at, config.message(&at)?)?;
                Self::Terminal(TerminalFilter::TcpProxy(Box::new(tcp_proxy)))
            }
            types::TCP_METADATA_EXCHANGE => {
                let exchange = MetadataExchange::from_proto(&at, config.message_or_json(&at)?)?;
                Self::Middle(NetworkFilter::MetadataExchange(exchange))
            }
            types::ISTIO_STATS => Self::Middle(NetworkFilter::IstioStats(IstioStats::from_proto(
                &at,
                config.message(&at)?,
            )?)),
            types::MONGO_PROXY => {
                let mongo = MongoProxy::from_proto(&at, config.message(&at)?)?;
                Self::Middle(NetworkFilter::MongoProxy(Box::new(mongo)))
            }
            types::CONNECTION_LIMIT => Self::Middle(NetworkFilter::ConnectionLimit(
                ConnectionLimit::from_proto(&at, config.message(&at)?)?,
            )),
            types::NETWORK_LOCAL_RATE_LIMIT => {
                let rate = ConnectionRate::of_chain(&at, config.message(&at)?)?;
                Self::Middle(NetworkFilter::ConnectionRate(Box::new(rate)))
            }
            policy if POLICY_FILTERS.contains(&policy) => {
                let rejection = config.reject_policy(&at, "network filter", &name);
                return Err(policy_filter(&at, config).err().unwrap_or(rejection));
            }
            _ => return Err(config.reject(&at, "network filter", &name, &NETWORK_FILTERS)),
        })
    }
}
