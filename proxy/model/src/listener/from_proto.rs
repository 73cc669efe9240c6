//! Protobuf to [`Listener`].
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::listener as filters;
use envoy_types::pb::envoy::r#type::v3 as range;
use pb::listener_filter_chain_match_predicate::{MatchSet, Rule};

use super::proxy_protocol::ProxyProtocol;
use super::socket::{ListenSocket, more_addresses};
use super::{
    Listener, ListenerFilter, ListenerFilterKind, ListenerPredicate, TlsInspector, TrafficDirection,
};
use crate::access_log::AccessLog;
use crate::address::{Address, Names, takes_ipv4};
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::filter_chain::{self, FilterChain};
use crate::network_filter::limits::ConnectionRate;
use crate::scalar::Wrapped;
use crate::socket::{SocketOption, keepalive};

/// `Listener.listener_filters_timeout` when unset.
const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);

/// `per_connection_buffer_limit_bytes` when unset.
const BUFFER_LIMIT_BYTES: u32 = 1024 * 1024;

const LISTENER_FILTERS: [&str; 6] = [
    types::ORIGINAL_DST,
    types::TLS_INSPECTOR,
    types::HTTP_INSPECTOR,
    types::PROXY_PROTOCOL,
    types::ORIGINAL_SRC,
    types::LISTENER_LOCAL_RATE_LIMIT,
];

impl Listener {
    /// Converts a whole listener.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::Listener) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Listener {
            supported {
                name, address, additional_addresses, filter_chains, use_original_dst, default_filter_chain,
                listener_filters, listener_filters_timeout,
                continue_on_listener_filters_timeout, traffic_direction, access_log,
                bind_to_port, deprecated_v1, transparent, ignore_global_conn_limit, bypass_overload_manager,
                freebind, socket_options, tcp_fast_open_queue_length, tcp_backlog_size, enable_mptcp, tcp_keepalive,
            }
            partly {
                per_connection_buffer_limit_bytes: "limits what is kept of a request's body to send it again; HTTP/2 windows and fixed sizes limit other buffers",
            }
            inert {
                max_connections_to_accept_per_socket_event: "paces accept calls; every connection is accepted either way",
                metadata: "only formatters and filters that do not exist here read it",
                drain_type: "says whether /healthcheck/fail drains it, which does not exist here; listeners that change or go drain either way",
                connection_balance_config: "which worker has a connection is invisible from outside",
                reuse_port: "every worker has a socket of its own; which one accepts is invisible from outside",
                enable_reuse_port: "every worker has a socket of its own; which one accepts is invisible from outside",
            }
            unsupported {
                stat_prefix: "telemetry", stats_matcher: "telemetry",
            }
            never {
                per_connection_buffer_high_watermark_timeout: "Istio does not send it; a client that takes nothing is closed by idle timeouts",
            }
            refused {
                fcds_config: "ignoring it would leave the listener without those filter chains",
                filter_chain_matcher: "ignoring it would choose another filter chain",
                udp_listener_config: "ignoring it would listen for TCP instead",
                api_listener: "ignoring it would listen where nobody should",
                listener_specifier: "ignoring it would listen where nobody should",
            }
        });
        let socket = ListenSocket {
            takes_ipv4: takes_ipv4(address.as_ref()),
            binds_freely: freebind.value().unwrap_or(false),
            accept_backlog: tcp_backlog_size.value(),
            fast_open_queue: tcp_fast_open_queue_length.value(),
            is_multipath: enable_mptcp,
            accepted_keepalive: keepalive(tcp_keepalive),
            kernel_options: SocketOption::list(at.field("socket_options"), socket_options)?,
        };
        let more = more_addresses(at.field("additional_addresses"), additional_addresses, &socket)?;
        let (additional_addresses, mut sockets): (Vec<_>, Vec<_>) = more.into_iter().unzip();
        sockets.insert(0, socket);
        let address = ip(&at.field("address"), address)?;
        // Envoy makes up a UUID; the address is as unique and says more.
        let name = if name.is_empty() {
            address.to_string()
        } else {
            name
        };
        let default_filter_chain = match default_filter_chain {
            Some(proto) => Some(FilterChain::from_proto(&at.field("default_filter_chain"), proto)?),
            None => None,
        };
        let filter_chains = filter_chain::list(at.field("filter_chains"), filter_chains)?;
        if filter_chains.is_empty() && default_filter_chain.is_none() {
            return Err(at
                .field("filter_chains")
                .reject("is empty, and there is no default_filter_chain"));
        }
        let timeout = at
            .field("listener_filters_timeout")
            .limit(listener_filters_timeout, LISTENER_FILTERS_TIMEOUT)?;
        Ok(Self {
            name,
            address,
            additional_addresses,
            sockets,
            bind_to_port: bind_to_port.value().unwrap_or(true) && bind_to_port_v1(deprecated_v1),
            use_original_dst: use_original_dst.value().unwrap_or(false),
            is_transparent: transparent.value().unwrap_or(false),
            direction: TrafficDirection::from_proto(&at.field("traffic_direction"), traffic_direction)?,
            ignores_connection_limit: ignore_global_conn_limit,
            bypasses_overload_manager: bypass_overload_manager,
            filter_chains,
            default_filter_chain,
            listener_filters: listener_filter_list(at.field("listener_filters"), listener_filters)?,
            listener_filters_timeout: timeout,
            continue_on_listener_filters_timeout,
            access_log: AccessLog::list(at.field("access_log"), access_log)?,
            buffer_limit_bytes: per_connection_buffer_limit_bytes
                .value()
                .unwrap_or(BUFFER_LIMIT_BYTES),
        })
    }
}

fn bind_to_port_v1(proto: Option<pb::listener::DeprecatedV1>) -> bool {
    verdicts!((), proto.unwrap_or_default() => pb::listener::DeprecatedV1 { supported { bind_to_port } });
    bind_to_port.value().unwrap_or(true)
}

/// An address to listen on.
pub(super) fn ip(at: &FieldPath<'_>, proto: Option<core::Address>) -> Result<Address, Rejection> {
    match Address::from_proto(at, proto, Names::Refused)? {
        Address::Pipe(_) => Err(at
            .field("pipe")
            .reject("a listener on a pipe is not supported; write socket_address")),
        address => Ok(address),
    }
}

impl TrafficDirection {
    fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        Ok(match at.enumeration(number)? {
            core::TrafficDirection::Unspecified => Self::Unspecified,
            core::TrafficDirection::Inbound => Self::Inbound,
            core::TrafficDirection::Outbound => Self::Outbound,
        })
    }
}

fn listener_filter_list(
    at: FieldPath<'_>,
    protos: Vec<pb::ListenerFilter>,
) -> Result<Vec<ListenerFilter>, Rejection> {
    protos
        .into_iter()
        .enumerate()
        .map(|(index, proto)| ListenerFilter::from_proto(&at.index(index), proto))
        .collect()
}

impl ListenerFilter {
    fn from_proto(at: &FieldPath<'_>, proto: pb::ListenerFilter) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ListenerFilter {
            supported { filter_disabled, config_type }
            partly { name: "in rejections; what a filter does is in the type of its config" }
        });
        choices!(pb::listener_filter::ConfigType {
            supported { TypedConfig }
            refused { ConfigDiscovery: "extension discovery has no behaviour here" }
        });
        let any = match config_type {
            Some(pb::listener_filter::ConfigType::TypedConfig(any)) => Some(any),
            Some(pb::listener_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(at
                    .field("config_discovery")
                    .reject("extension discovery is not supported"));
            }
            None => None,
        };
        let config = at.field("typed_config");
        let disabled =
            filter_disabled.map(|rule| ListenerPredicate::from_proto(&at.field("filter_disabled"), rule));
        Ok(Self {
            kind: listener_filter_kind(&config, TypedConfig::open(&config, any)?, &name)?,
            disabled: disabled.transpose()?,
        })
    }
}

fn listener_filter_kind(
    at: &FieldPath<'_>,
    config: TypedConfig,
    name: &str,
) -> Result<ListenerFilterKind, Rejection> {
    match config.type_name.as_str() {
        types::ORIGINAL_DST => {
            verdicts!(at, config.message(at)? => filters::original_dst::v3::OriginalDst {});
            Ok(ListenerFilterKind::OriginalDst)
        }
        types::HTTP_INSPECTOR => {
            verdicts!(at, config.message(at)? => filters::http_inspector::v3::HttpInspector {});
            Ok(ListenerFilterKind::HttpInspector)
        }
        types::TLS_INSPECTOR => {
            verdicts!(at, config.message(at)? => filters::tls_inspector::v3::TlsInspector {
                supported { close_connection_on_client_hello_parsing_errors, max_client_hello_size }
                inert { initial_read_buffer_size: "how many bytes the first look at a ClientHello takes is invisible" }
                unsupported { enable_ja3_fingerprinting: "telemetry", enable_ja4_fingerprinting: "telemetry" }
            });
            let most = max_client_hello_size
                .value()
                .map(|bytes| at.field("max_client_hello_size").within(bytes, 256..=16_384));
            Ok(ListenerFilterKind::TlsInspector(TlsInspector {
                most_hello_bytes: most.transpose()?,
                closes_others: close_connection_on_client_hello_parsing_errors,
            }))
        }
        types::PROXY_PROTOCOL => {
            let filter = ProxyProtocol::from_proto(at, config.message(at)?)?;
            Ok(ListenerFilterKind::ProxyProtocol(Box::new(filter)))
        }
        types::ORIGINAL_SRC => {
            verdicts!(at, config.message(at)? => filters::original_src::v3::OriginalSrc {
                supported { mark }
                never { bind_port: "Envoy does not do it either" }
            });
            let mark = (mark != 0).then_some(mark);
            Ok(ListenerFilterKind::OriginalSrc { mark })
        }
        types::LISTENER_LOCAL_RATE_LIMIT => {
            let rate = ConnectionRate::of_listener(at, config.message(at)?)?;
            Ok(ListenerFilterKind::LocalRateLimit(Box::new(rate)))
        }
        _ => Err(config.reject(at, "listener filter", name, &LISTENER_FILTERS)),
    }
}

impl ListenerPredicate {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: pb::ListenerFilterChainMatchPredicate,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ListenerFilterChainMatchPredicate { supported { rule } });
        choices!(Rule { supported { OrMatch, AndMatch, NotMatch, AnyMatch, DestinationPortRange } });
        match at.required(rule)? {
            Rule::OrMatch(set) => Ok(Self::Or(Self::set(&at.field("or_match"), set)?)),
            Rule::AndMatch(set) => Ok(Self::And(Self::set(&at.field("and_match"), set)?)),
            Rule::NotMatch(rule) => Ok(Self::Not(Box::new(Self::from_proto(
                &at.field("not_match"),
                *rule,
            )?))),
            Rule::AnyMatch(true) => Ok(Self::Any),
            Rule::AnyMatch(false) => Err(at
                .field("any_match")
                .reject("must be true; leave filter_disabled out instead")),
            Rule::DestinationPortRange(proto) => {
                let at = at.field("destination_port_range");
                verdicts!(at, proto => range::Int32Range { supported { start, end } });
                match (u32::try_from(start), u32::try_from(end)) {
                    (Ok(start), Ok(end)) if end <= 65_536 => Ok(Self::DestinationPort { start, end }),
                    _ => Err(at.reject(format!("{start}..{end} is no range of ports"))),
                }
            }
        }
    }

    fn set(at: &FieldPath<'_>, proto: MatchSet) -> Result<Vec<Self>, Rejection> {
        verdicts!(at, proto => MatchSet { supported { rules } });
        if rules.len() < 2 {
            return Err(at.field("rules").reject("needs at least two rules"));
        }
        let rules = rules
            .into_iter()
            .enumerate()
            .map(|(index, rule)| Self::from_proto(&at.field("rules").index(index), rule));
        rules.collect()
    }
}
