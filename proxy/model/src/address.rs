//! Socket addresses as configuration writes them.
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use envoy_types::pb::envoy::config::core::v3::{self as pb, address, socket_address};
use envoy_types::pb::xds::core::v3 as xds;
use ipnet::IpNet;

use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::scalar::Wrapped;

/// Where to listen or connect. Source: envoy/config/core/v3/address.proto.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// A Unix domain socket; a leading `@` means the abstract namespace.
    Pipe(PathBuf),
    /// A host name that DNS resolves (only in STRICT_DNS and LOGICAL_DNS clusters).
    Host {
        /// The name to resolve.
        name: String,
        /// Port, 1..=65535.
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "{address}"),
            Self::Pipe(path) => write!(f, "{}", path.display()),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

/// Whether an address may be a name that DNS resolves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    Refused,
    Resolved,
}

impl Address {
    /// Converts an address that must be there.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::Address>,
        names: Names,
    ) -> Result<Self, Rejection> {
        verdicts!(at, at.required(proto)? => pb::Address { supported { address } });
        choices!(address::Address {
            supported { SocketAddress }
            partly { Pipe: "of a control plane; endpoints on one are listed, as requests are not sent there, and listeners on one are refused" }
            refused { EnvoyInternalAddress: "internal listeners have no behaviour here" }
        });
        match address {
            Some(address::Address::SocketAddress(socket)) => {
                socket_address(&at.field("socket_address"), socket, names)
            }
            Some(address::Address::Pipe(proto)) => pipe(&at.field("pipe"), proto),
            Some(address::Address::EnvoyInternalAddress(_)) => Err(at
                .field("envoy_internal_address")
                .reject("internal listeners are not supported")),
            None => Err(at.reject("has neither socket_address nor pipe")),
        }
    }
}

/// Converts an address that must be an IP address and a port.
pub(crate) fn ip_address(at: &FieldPath<'_>, proto: pb::SocketAddress) -> Result<SocketAddr, Rejection> {
    match socket_address(at, proto, Names::Refused)? {
        Address::Socket(address) => Ok(address),
        Address::Pipe(_) | Address::Host { .. } => Err(at.reject("must be an IP address")),
    }
}

/// `ipv4_compat`: a socket that is bound to this address of IPv6 takes connections of IPv4 too.
pub(crate) fn takes_ipv4(proto: Option<&pb::Address>) -> bool {
    match proto.and_then(|proto| proto.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => socket.ipv4_compat,
        _ => false,
    }
}

fn socket_address(at: &FieldPath<'_>, proto: pb::SocketAddress, names: Names) -> Result<Address, Rejection> {
    verdicts!(at, proto => pb::SocketAddress {
        supported { address, port_specifier }
        partly {
            protocol: "TCP only; UDP is refused",
            ipv4_compat: "of listeners; elsewhere it means nothing, in Envoy neither",
        }
        never { resolver_name: "resolver extensions do not exist here" }
        refused { network_namespace_filepath: "ignoring it would use another network namespace" }
    });
    // See `takes_ipv4`.
    let _ = ipv4_compat;
    choices!(socket_address::PortSpecifier {
        supported { PortValue }
        refused { NamedPort: "only resolvers that do not exist here know such ports" }
    });
    match at.field("protocol").enumeration(protocol)? {
        socket_address::Protocol::Tcp => (),
        socket_address::Protocol::Udp => return Err(at.field("protocol").reject("UDP is not supported")),
    }
    let port = match port_specifier {
        Some(socket_address::PortSpecifier::PortValue(value)) => at.field("port_value").port(value)?,
        Some(socket_address::PortSpecifier::NamedPort(_)) => {
            return Err(at
                .field("named_port")
                .reject("is not supported; write port_value"));
        }
        None => return Err(at.field("port_value").reject("is missing")),
    };
    match address.parse::<IpAddr>() {
        Ok(ip) => Ok(Address::Socket(SocketAddr::new(ip, port))),
        Err(_) if names == Names::Resolved && !address.is_empty() && port != 0 => {
            Ok(Address::Host { name: address, port })
        }
        Err(_) => Err(at
            .field("address")
            .reject(format!("{address:?} is no IP address"))),
    }
}

fn pipe(at: &FieldPath<'_>, proto: pb::Pipe) -> Result<Address, Rejection> {
    verdicts!(at, proto => pb::Pipe {
        supported { path }
        refused { mode: "ignoring it would let other users connect" }
    });
    Ok(Address::Pipe(PathBuf::from(at.field("path").not_empty(path)?)))
}

/// Converts address ranges.
pub(crate) fn ranges(at: FieldPath<'_>, protos: Vec<pb::CidrRange>) -> Result<Vec<IpNet>, Rejection> {
    protos
        .into_iter()
        .enumerate()
        .map(|(index, proto)| range(&at.index(index), proto))
        .collect()
}

/// Converts address ranges of the other package.
pub(crate) fn cidr_list(at: FieldPath<'_>, protos: Vec<xds::CidrRange>) -> Result<Vec<IpNet>, Rejection> {
    let ranges = protos.into_iter().enumerate().map(|(index, proto)| {
        verdicts!((), proto => xds::CidrRange { awaited "security" { address_prefix, prefix_len } });
        let proto = pb::CidrRange {
            address_prefix,
            prefix_len,
        };
        range(&at.index(index), proto)
    });
    ranges.collect()
}

/// Converts one address range.
pub(crate) fn range(at: &FieldPath<'_>, proto: pb::CidrRange) -> Result<IpNet, Rejection> {
    verdicts!(at, proto => pb::CidrRange { supported { address_prefix, prefix_len } });
    let reject = || {
        at.field("address_prefix")
            .reject(format!("{address_prefix:?} is no IP address"))
    };
    let ip: IpAddr = address_prefix.parse().map_err(|_| reject())?;
    let bits = prefix_len.value().unwrap_or_default();
    let network = u8::try_from(bits).ok().and_then(|bits| IpNet::new(ip, bits).ok());
    match network {
        Some(network) => Ok(network.trunc()),
        None => Err(at
            .field("prefix_len")
            .reject(format!("{bits} bits are more than {ip} has"))),
    }
}
