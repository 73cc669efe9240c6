//! The IPv6 address on lo that the proxy sends from towards the app.
//!
//! IPv4 needs nothing, all of 127.0.0.0/8 is local; of IPv6 only `::1` is.

use std::net::Ipv6Addr;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::message::{AF_INET6, Message};

/// Source address of the proxy's connections to the app.
pub const INBOUND_SOURCE: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Adds `::6/128` to `lo`, or removes it.
///
/// # Errors
/// EEXIST or EADDRNOTAVAIL if that was so already; EPERM without CAP_NET_ADMIN, EACCES when IPv6 is disabled on `lo`.
pub(super) fn change(add: bool) -> Result<(), Errno> {
    let lo = if_nametoindex("lo")?;
    let mut header = vec![AF_INET6, 128, 0, 0]; // family, prefix length, flags, scope
    header.extend(lo.to_ne_bytes());
    let address = INBOUND_SOURCE.octets();
    // The address twice: lo is no point-to-point link.
    let message = Message::new(if add { RTM_NEWADDR } else { RTM_DELADDR }, &header)
        .attribute(IFA_LOCAL, &address)
        .attribute(IFA_ADDRESS, &address);
    if add { message.create() } else { message.ask() }
}
