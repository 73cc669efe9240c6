//! What the configuration asks of the machine: environment, users, addresses.
//!
//! Read-only, and needs no privilege.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::unistd::User;

/// The environment variable `name`; an empty one counts as unset.
///
/// Bytes that are not UTF-8 are replaced, so that the value is refused by whoever parses it.
pub fn env(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?;
    let value = value.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

/// The uid of the user called `name`, if the user database knows it.
pub fn uid_of(name: &str) -> Option<u32> {
    let user = User::from_name(name).ok()??;
    Some(user.uid.as_raw())
}

/// Addresses of all interfaces of this network namespace, in the kernel's order (IPv4 first).
///
/// # Errors
/// The kernel's answer to the netlink question behind `getifaddrs(3)`.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = getifaddrs().map_err(io::Error::from)?;
    Ok(interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            if let Some(v4) = address.as_sockaddr_in() {
                return Some(IpAddr::V4(v4.ip()));
            }
            address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
        })
        .collect())
}
