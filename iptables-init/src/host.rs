//! What the configuration asks of the machine: environment, users, addresses.
//!
//! Read-only, and needs no privilege.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;

/// The environment variable `name`; an empty one counts as unset.
///
/// Bytes that are not UTF-8 are replaced, so that the value is refused by whoever parses it.
pub fn env(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?;
    let value = value.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

/// The uid of the user called `name`, if `/etc/passwd` knows it.
///
/// Read here and not by getpwnam(3), which in a static program would load libraries of the image.
pub fn uid_of(name: &str) -> Option<u32> {
    number_of(&fs::read_to_string("/etc/passwd").ok()?, name)
}

/// The gid of the group called `name`, if `/etc/group` knows it.
pub fn gid_of(name: &str) -> Option<u32> {
    number_of(&fs::read_to_string("/etc/group").ok()?, name)
}

/// The third field of the line whose first is `name`: passwd(5) and group(5) agree so far.
fn number_of(database: &str, name: &str) -> Option<u32> {
    let mut lines = database.lines().map(|line| line.split(':'));
    let mut fields = lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    fields.nth(1)?.parse().ok()
}

/// This program's effective capabilities, a bit each, if `/proc` tells.
pub fn effective_capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The name servers of `/etc/resolv.conf`; none if there is no such file.
pub fn dns_servers() -> Vec<IpAddr> {
    servers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// The `nameserver` lines of resolv.conf(5); a zone (`fe80::1%eth0`) is no part of an address.
fn servers(resolv_conf: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        address.split('%').next()?.parse().ok()
    };
    resolv_conf.lines().filter_map(server).collect()
}

/// How a connection leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `lo` for addresses of this namespace.
    pub interface: String,
    /// Where it comes from.
    pub source: IpAddr,
}

/// The route to `to`, if there is one.
///
/// Connecting a datagram socket asks for it, and sends nothing.
pub fn route(to: IpAddr) -> Option<Route> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    let mut interfaces = getifaddrs().ok()?;
    let is_own = |address: IpAddr| addresses().is_ok_and(|own| own.contains(&address));
    if to.is_loopback() || is_own(to) {
        return Some(Route {
            interface: "lo".to_owned(),
            source: to,
        });
    }
    let has_source = |interface: &InterfaceAddress| ip(interface) == Some(source);
    let interface = interfaces.find(has_source)?.interface_name;
    Some(Route { interface, source })
}

/// Whether interface `name` is there and up. Where interfaces cannot be listed, it is believed to be.
pub fn is_up(name: &str) -> bool {
    let up = |interface: InterfaceAddress| {
        interface.interface_name == name && interface.flags.contains(InterfaceFlags::IFF_UP)
    };
    getifaddrs().map_or(true, |mut interfaces| interfaces.any(up))
}

/// Where connections from elsewhere arrive: the first interface with an address that others can use.
pub fn way_in() -> Option<Route> {
    getifaddrs().ok()?.find_map(|interface| {
        let source = ip(&interface)?;
        let link_local = matches!(source, IpAddr::V6(v6) if v6.is_unicast_link_local());
        (interface.interface_name != "lo" && !link_local).then_some(Route {
            interface: interface.interface_name,
            source,
        })
    })
}

/// Addresses of all interfaces of this network namespace, in the kernel's order (IPv4 first).
///
/// # Errors
/// The kernel's answer to the netlink question behind `getifaddrs(3)`.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = getifaddrs().map_err(io::Error::from)?;
    Ok(interfaces.filter_map(|interface| ip(&interface)).collect())
}

fn ip(interface: &InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nistio-proxy:x:1337:1337::/:/bin/false\nodd\nbad:x:y:0\n";
        let check = |name, expected| assert_eq!(number_of(passwd, name), expected, "{name}");
        check("root", Some(0));
        check("istio-proxy", Some(1337));
        check("istio", None);
        check("odd", None);
        check("bad", None);
    }

    #[test]
    fn name_servers_are_read_from_resolv_conf() {
        let text = "# nameserver 1.1.1.1\nsearch svc.cluster.local\nnameserver 10.96.0.10\n\
                    nameserver\tfe80::1%eth0 \nnameserver not-an-address\nnameserver\nnameservers 9.9.9.9\n";
        let found: Vec<String> = servers(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["10.96.0.10", "fe80::1"]);
    }
}
