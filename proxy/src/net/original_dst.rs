//! The destination that a connection had before iptables REDIRECT.
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// The original destination, if the kernel's connection tracking knows one (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST).
/// A connection that was not redirected gives its local address, as the kernel does.
pub(crate) fn original_dst(stream: &TcpStream) -> Option<SocketAddr> {
    // A socket of IPv6 that takes connections of IPv4 has addresses of the one in those of the other; the kernel tracked the other.
    let v6 = stream.local_addr().ok()?.ip().to_canonical().is_ipv6();
    let socket = SockRef::from(stream);
    let address = if v6 {
        socket.original_dst_v6()
    } else {
        socket.original_dst_v4()
    };
    address.ok()?.as_socket()
}
