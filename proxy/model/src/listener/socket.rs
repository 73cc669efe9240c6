//! How the sockets of a listener are made.
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as pb;

use super::from_proto::ip;
use crate::address::{Address, takes_ipv4};
use crate::cluster::TcpKeepalive;
use crate::field::{FieldPath, Rejection, verdicts};
use crate::socket::{SocketOption, keepalive};

/// How the socket of one address is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenSocket {
    /// One of IPv6 takes connections of IPv4 too.
    pub takes_ipv4: bool,
    /// It may have an address that this machine does not have (IP_FREEBIND).
    pub binds_freely: bool,
    /// Connections that wait to be accepted; `None`: as many as the system allows.
    pub accept_backlog: Option<u32>,
    /// Connections that wait for the end of their handshake and have sent data already (TCP_FASTOPEN); `None`: not set.
    pub fast_open_queue: Option<u32>,
    /// Clients may use several paths (MPTCP).
    pub is_multipath: bool,
    /// Of the connections that it takes; `None`: none.
    pub accepted_keepalive: Option<TcpKeepalive>,
    /// By number.
    pub kernel_options: Vec<SocketOption>,
}

/// More addresses, each with its socket. Source: listener.proto `AdditionalAddress`: what it does not say is the listener's.
pub(super) fn more_addresses(
    at: FieldPath<'_>,
    protos: Vec<pb::AdditionalAddress>,
    first: &ListenSocket,
) -> Result<Vec<(Address, ListenSocket)>, Rejection> {
    let addresses = protos.into_iter().enumerate().map(|(index, proto)| {
        let at = at.index(index);
        verdicts!(at, proto => pb::AdditionalAddress { supported { address, socket_options, tcp_keepalive } });
        let mut socket = ListenSocket {
            takes_ipv4: takes_ipv4(address.as_ref()),
            ..first.clone()
        };
        if let Some(proto) = socket_options {
            let at = at.field("socket_options");
            verdicts!(at, proto => core::SocketOptionsOverride { supported { socket_options } });
            socket.kernel_options = SocketOption::list(at.field("socket_options"), socket_options)?;
        }
        if tcp_keepalive.is_some() {
            socket.accepted_keepalive = keepalive(tcp_keepalive);
        }
        Ok((ip(&at.field("address"), address)?, socket))
    });
    addresses.collect()
}
