//! Listeners. Source: envoy/config/listener/v3/{listener,listener_components}.proto; what Istio sets: contract §1.3.
mod from_proto;
mod proxy_protocol;
mod socket;

pub use proxy_protocol::{ProxyProtocol, TlvRule};
pub use socket::ListenSocket;
use std::time::Duration;

use crate::access_log::AccessLog;
use crate::address::Address;
use crate::filter_chain::FilterChain;
use crate::network_filter::limits::ConnectionRate;

/// A listener's name.
pub type ListenerName = String;

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Unique.
    pub name: ListenerName,
    /// Where it listens, or which original destination it serves when `bind_to_port` is false.
    pub address: Address,
    /// More addresses (dual stack).
    pub additional_addresses: Vec<Address>,
    /// How their sockets are made: that of `address`, then the others'.
    pub sockets: Vec<ListenSocket>,
    /// A socket is bound; false under Istio for all but 15001 and 15006.
    pub bind_to_port: bool,
    /// Hands connections to the listener of their original destination.
    pub use_original_dst: bool,
    /// Takes connections to any address that iptables brings here (TPROXY). Needs CAP_NET_ADMIN.
    pub is_transparent: bool,
    /// INBOUND, OUTBOUND or unspecified.
    pub direction: TrafficDirection,
    /// Limits of the whole process let its connections in, and do not count them but for the runtime's.
    pub ignores_connection_limit: bool,
    /// The overload manager does not know of it.
    pub bypasses_overload_manager: bool,
    /// Chains.
    pub filter_chains: Vec<FilterChain>,
    /// When none matches; `None`: the connection is closed.
    pub default_filter_chain: Option<FilterChain>,
    /// Inspectors in order.
    pub listener_filters: Vec<ListenerFilter>,
    /// Limit for the inspectors together; Envoy's default 15 s; `None`: no limit (`0s`).
    pub listener_filters_timeout: Option<Duration>,
    /// When they time out the connection goes on with what is known; false: it is closed.
    pub continue_on_listener_filters_timeout: bool,
    /// A line for every connection.
    pub access_log: Vec<AccessLog>,
    /// Bytes of a request's body that are kept to send it again, where routes say nothing else; Envoy's default 1 MiB.
    pub buffer_limit_bytes: u32,
}

impl Listener {
    /// Nothing but the filter chains changed: connections on chains that stay need not notice.
    /// Source: Envoy docs, listener discovery, "in place filter chain update".
    pub fn differs_in_chains_only(&self, other: &Listener) -> bool {
        let Listener {
            name,
            address,
            additional_addresses,
            sockets,
            bind_to_port,
            use_original_dst,
            is_transparent,
            direction,
            ignores_connection_limit,
            bypasses_overload_manager,
            filter_chains: _,
            default_filter_chain: _,
            listener_filters,
            listener_filters_timeout,
            continue_on_listener_filters_timeout,
            access_log,
            buffer_limit_bytes,
        } = self;
        *name == other.name
            && *address == other.address
            && *additional_addresses == other.additional_addresses
            && *sockets == other.sockets
            && *bind_to_port == other.bind_to_port
            && *use_original_dst == other.use_original_dst
            && *is_transparent == other.is_transparent
            && *direction == other.direction
            && *ignores_connection_limit == other.ignores_connection_limit
            && *bypasses_overload_manager == other.bypasses_overload_manager
            && *listener_filters == other.listener_filters
            && *listener_filters_timeout == other.listener_filters_timeout
            && *continue_on_listener_filters_timeout == other.continue_on_listener_filters_timeout
            && *access_log == other.access_log
            && *buffer_limit_bytes == other.buffer_limit_bytes
    }
}

/// Source: core/v3/base.proto `TrafficDirection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)]
pub enum TrafficDirection {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

/// A listener filter and when it is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerFilter {
    /// What it does.
    pub kind: ListenerFilterKind,
    /// It is skipped for connections this matches.
    pub disabled: Option<ListenerPredicate>,
}

/// How the ClientHello is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TlsInspector {
    /// A client that has not said all of it in so many bytes is closed; 256 to 16384. `None`: in 16 KiB, without what frames it.
    pub most_hello_bytes: Option<u32>,
    /// A client that says something else is closed; false: it may be served as plaintext.
    pub closes_others: bool,
}

/// The kinds of listener filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerFilterKind {
    /// Restores the destination before REDIRECT.
    OriginalDst,
    /// Reads the ClientHello.
    TlsInspector(TlsInspector),
    /// Recognises plaintext HTTP.
    HttpInspector,
    /// Reads the header of the PROXY protocol.
    ProxyProtocol(Box<ProxyProtocol>),
    /// Connections to servers come from the client's address. Needs CAP_NET_ADMIN.
    OriginalSrc {
        /// `SO_MARK` of their sockets; `None`: not marked.
        mark: Option<u32>,
    },
    /// Connections that come too fast are closed.
    LocalRateLimit(Box<ConnectionRate>),
}

/// Source: listener_components.proto `ListenerFilterChainMatchPredicate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerPredicate {
    /// Always.
    Any,
    /// Destination port in `start..end`.
    DestinationPort {
        /// First inside.
        start: u32,
        /// First outside.
        end: u32,
    },
    /// One holds.
    Or(Vec<ListenerPredicate>),
    /// All hold.
    And(Vec<ListenerPredicate>),
    /// It does not hold.
    Not(Box<ListenerPredicate>),
}
