//! Asks connection tracking where a connection really goes.
//!
//! Source: linux/netfilter/nfnetlink_conntrack.h. Needs NET_ADMIN and the module nf_conntrack_netlink.

use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::attribute::{self, Attributes};
use super::{Message, Socket};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// From whom the answers to the TCP connection from `source` to `destination` come: where it really went.
///
/// # Errors
/// `ENOENT`: nobody tracks it; `EPERM`; `EINVAL` without the module.
pub(crate) fn answered_from(source: SocketAddr, destination: SocketAddr) -> Result<SocketAddr, Errno> {
    let family = if destination.is_ipv4() { 2 } else { 10 };
    let mut body = vec![family, 0, 0, 0];
    body.extend(
        Attributes::new()
            .nested(ORIGINAL, &tuple(source, destination))
            .into_bytes(),
    );
    let message = Message {
        kind: SUBSYSTEM << 8 | GET,
        flags: 0,
        body,
    };
    let answers = Socket::open(SockProtocol::NetlinkNetFilter)?.dump(&message)?;
    answers
        .iter()
        .find_map(|(_, body)| replier(body.get(4..)?))
        .ok_or(Errno::EPROTO)
}

fn tuple(source: SocketAddr, destination: SocketAddr) -> Attributes {
    let first = if destination.is_ipv4() { 1 } else { 3 };
    let addresses = Attributes::new()
        .bytes(first, &octets(source.ip()))
        .bytes(first + 1, &octets(destination.ip()));
    let protocol = Attributes::new()
        .bytes(NUMBER, &[6])
        .bytes(SOURCE_PORT, &source.port().to_be_bytes())
        .bytes(DESTINATION_PORT, &destination.port().to_be_bytes());
    Attributes::new()
        .nested(ADDRESSES, &addresses)
        .nested(PROTOCOL, &protocol)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Source of the reply tuple.
fn replier(body: &[u8]) -> Option<SocketAddr> {
    let reply = attribute::find(body, REPLY)?;
    let addresses = attribute::find(reply, ADDRESSES)?;
    let v4 = attribute::find(addresses, 1).and_then(|octets| <[u8; 4]>::try_from(octets).ok());
    let v6 = attribute::find(addresses, 3).and_then(|octets| <[u8; 16]>::try_from(octets).ok());
    let address = v4.map(IpAddr::from).or_else(|| v6.map(IpAddr::from))?;
    let port = attribute::find(attribute::find(reply, PROTOCOL)?, SOURCE_PORT)?;
    Some(SocketAddr::new(
        address,
        u16::from_be_bytes(port.try_into().ok()?),
    ))
}
