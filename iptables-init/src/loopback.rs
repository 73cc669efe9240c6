//! Gives the loopback interface the IPv6 address that the proxy sends from towards the app.
//!
//! IPv4 needs nothing, all of 127.0.0.0/8 is local; of IPv6 only `::1` is. Speaks rtnetlink itself, so that
//! a minimal image needs no `ip` program. Source: Istio `tools/common/tproxy`; rtnetlink(7).

use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// Source address of the proxy's connections to the app.
pub const INBOUND_SOURCE: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

const AF_INET6: u8 = 10;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE.
const NEW_WITH_ACK: u16 = 0x1 | 0x4 | 0x200 | 0x400;

/// Adds `::6/128` to `lo`; that it is there already is fine.
///
/// # Errors
/// The kernel's: EPERM without CAP_NET_ADMIN, EACCES when IPv6 is disabled on `lo`; EPROTO for an answer that
/// is not an acknowledgement.
pub fn add_inbound_source() -> Result<(), Errno> {
    let lo = if_nametoindex("lo")?;
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(netlink.as_raw_fd(), &request(lo), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match acknowledgement(answer.get(..length).unwrap_or_default()) {
        Some(0) => Ok(()),
        Some(code) => match Errno::from_raw(code.wrapping_neg()) {
            Errno::EEXIST => Ok(()),
            errno => Err(errno),
        },
        None => Err(Errno::EPROTO),
    }
}

/// nlmsghdr, ifaddrmsg, then the address twice (lo is no point-to-point link).
fn request(interface: u32) -> Vec<u8> {
    const LENGTH: u32 = 16 + 8 + 2 * 20;
    let mut message = Vec::new();
    message.extend(LENGTH.to_ne_bytes());
    message.extend(RTM_NEWADDR.to_ne_bytes());
    message.extend(NEW_WITH_ACK.to_ne_bytes());
    message.extend([0; 8]); // sequence number, sender
    message.extend([AF_INET6, 128, 0, 0]); // family, prefix length, flags, scope
    message.extend(interface.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        message.extend(20u16.to_ne_bytes());
        message.extend(attribute.to_ne_bytes());
        message.extend(INBOUND_SOURCE.octets());
    }
    message
}

/// The code of an NLMSG_ERROR message: 0 or a negative errno.
fn acknowledgement(message: &[u8]) -> Option<i32> {
    let kind = message.get(4..6)?.try_into().ok()?;
    if u16::from_ne_bytes(kind) != NLMSG_ERROR {
        return None;
    }
    Some(i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?))
}
