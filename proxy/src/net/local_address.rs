//! The address of this machine that a peer elsewhere would know. Source: Envoy `Network::Utility::getLocalAddress`.
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::LazyLock;

use nix::ifaddrs::getifaddrs;

/// The first IPv4 address that is not of loopback, else 127.0.0.1. Looked up once.
pub(crate) fn local_address() -> IpAddr {
    static ADDRESS: LazyLock<IpAddr> = LazyLock::new(|| {
        let interfaces = getifaddrs().into_iter().flatten();
        let mut addresses = interfaces.filter_map(|interface| {
            let address = interface.address?;
            Some(*SocketAddrV4::from(*address.as_sockaddr_in()?).ip())
        });
        let found = addresses.find(|address| !address.is_loopback());
        IpAddr::V4(found.unwrap_or(Ipv4Addr::LOCALHOST))
    });
    *ADDRESS
}
