//! rtnetlink: a pair of joined interfaces, addresses, and interfaces that are up.
//!
//! Source: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/veth.h.

use std::net::IpAddr;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockProtocol;

use super::attribute::Attributes;
use super::{CREATE, EXCLUSIVE, Message, Socket};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const LINK_NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const LINK_NAMESPACE_OF_PROCESS: u16 = 19;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const UP: u32 = 1;
/// IFA_F_NODAD: the address is good at once.
const NO_DUPLICATE_CHECK: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Makes interface `name` here and its other end, of the same name, in the network namespace of `process`.
///
/// # Errors
/// `EPERM` without NET_ADMIN in both namespaces, `EEXIST`, `EOPNOTSUPP` without the module veth.
pub(crate) fn new_pair(name: &str, process: u32) -> Result<(), Errno> {
    let mut peer = interface(0, 0, 0);
    let there = Attributes::new()
        .text(LINK_NAME, name)
        .bytes(LINK_NAMESPACE_OF_PROCESS, &process.to_ne_bytes());
    peer.extend(there.into_bytes());
    let data = Attributes::new().bytes(VETH_PEER, &peer);
    let info = Attributes::new().text(INFO_KIND, "veth").nested(INFO_DATA, &data);
    let attributes = Attributes::new().text(LINK_NAME, name).nested(LINK_INFO, &info);
    ask(NEW_LINK, CREATE | EXCLUSIVE, interface(0, 0, 0), attributes)
}

/// Deletes interface `name`, and with it its other end.
///
/// # Errors
/// `ENODEV` if there is none.
pub(crate) fn delete(name: &str) -> Result<(), Errno> {
    ask(
        DELETE_LINK,
        0,
        interface(if_nametoindex(name)?, 0, 0),
        Attributes::new(),
    )
}

/// Sets interface `name` up.
///
/// # Errors
/// `ENODEV` if there is none.
pub(crate) fn up(name: &str) -> Result<(), Errno> {
    ask(
        NEW_LINK,
        0,
        interface(if_nametoindex(name)?, UP, UP),
        Attributes::new(),
    )
}

/// Gives interface `name` an address.
///
/// # Errors
/// `EEXIST`; `EACCES` for an IPv6 one where IPv6 is disabled.
pub(crate) fn add_address(name: &str, address: IpAddr, prefix_bits: u8) -> Result<(), Errno> {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    };
    let mut body = vec![family, prefix_bits, NO_DUPLICATE_CHECK, 0];
    body.extend(if_nametoindex(name)?.to_ne_bytes());
    let attributes = Attributes::new().bytes(LOCAL, &octets).bytes(ADDRESS, &octets);
    ask(NEW_ADDRESS, CREATE | EXCLUSIVE, body, attributes)
}

/// struct ifinfomsg: family and type left open, index, flags, and which flags count.
fn interface(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    body
}

fn ask(kind: u16, flags: u16, mut body: Vec<u8>, attributes: Attributes) -> Result<(), Errno> {
    body.extend(attributes.into_bytes());
    Socket::open(SockProtocol::NetlinkRoute)?.ask(&Message { kind, flags, body })
}
