//! What the configuration asks of the machine, as values, so that tests can answer.

use std::net::IpAddr;

/// Facts of the machine that settle defaults.
pub struct Host<'a> {
    /// An environment variable that is set and not empty.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub uid_of: &'a dyn Fn(&str) -> Option<u32>,
    pub gid_of: &'a dyn Fn(&str) -> Option<u32>,
    /// Addresses of all interfaces, in the kernel's order.
    pub addresses: &'a [IpAddr],
    /// Name servers of `/etc/resolv.conf`.
    pub dns_servers: &'a [IpAddr],
}
