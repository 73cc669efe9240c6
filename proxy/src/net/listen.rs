//! Listening sockets. One per worker and address, with SO_REUSEPORT, so that the kernel spreads connections.
use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// As Envoy's `tcp_backlog_size` default on Linux.
const BACKLOG: i32 = 4096;

/// Binds and listens. The socket is non-blocking.
///
/// # Errors
/// `AddrInUse` when somebody else (not of our user, or without SO_REUSEPORT) has the port.
pub(crate) fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    let sharing = Sharing {
        reuse_port,
        transparent: false,
    };
    let socket = bound(address, sharing)?;
    start(&socket)?;
    Ok(socket)
}

/// A socket that [`bound`] has made listens from now on.
///
/// # Errors
/// `AddrInUse` when somebody else without SO_REUSEPORT listens there by now.
pub(crate) fn start(socket: &std::net::TcpListener) -> io::Result<()> {
    SockRef::from(socket).listen(BACKLOG)
}

/// How a socket is bound.
#[derive(Debug, Clone, Copy, Default)]
struct Sharing {
    reuse_port: bool,
    transparent: bool,
}

fn bound(address: SocketAddr, sharing: Sharing) -> io::Result<std::net::TcpListener> {
    let Sharing {
        reuse_port,
        transparent,
    } = sharing;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // As Envoy: `[::]` serves IPv6 only unless ipv4_compat is set, so that 0.0.0.0 can be bound beside it.
        socket.set_only_v6(true)?;
    }
    if transparent {
        set_transparent(&socket, address.is_ipv6())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The socket may have an address that is not this machine's (IP_TRANSPARENT).
///
/// # Errors
/// `PermissionDenied` without CAP_NET_ADMIN or CAP_NET_RAW.
pub(super) fn set_transparent(socket: &Socket, is_ipv6: bool) -> io::Result<()> {
    match is_ipv6 {
        true => socket.set_ip_transparent_v6(true),
        false => socket.set_ip_transparent_v4(true),
    }
}

/// Binds one socket per worker; [`start`] makes them listen. The first is bound alone before the others, so a port in use by someone
/// else is an error even when that someone set SO_REUSEPORT too.
///
/// # Errors
/// As [`bind`]; `PermissionDenied` when `transparent` is asked for without CAP_NET_ADMIN or CAP_NET_RAW.
pub(crate) fn bind_for_workers(
    address: SocketAddr,
    workers: usize,
    transparent: bool,
) -> io::Result<Vec<std::net::TcpListener>> {
    let alone = Sharing {
        reuse_port: false,
        transparent,
    };
    drop(bound(address, alone)?);
    bind_beside_own(address, workers, transparent)
}

/// As [`bind_for_workers`], where sockets of this process may have the port already.
///
/// # Errors
/// As [`bind_for_workers`].
pub(crate) fn bind_beside_own(
    address: SocketAddr,
    workers: usize,
    transparent: bool,
) -> io::Result<Vec<std::net::TcpListener>> {
    let sharing = Sharing {
        reuse_port: true,
        transparent,
    };
    let first = bound(address, sharing)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(bound(address, sharing)?);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn workers_share_one_port() {
        let sockets = bind_for_workers(loopback(), 3, false).expect("a free port");
        let ports: Vec<_> = sockets
            .iter()
            .map(|s| s.local_addr().expect("bound").port())
            .collect();
        assert!(ports.iter().all(|p| *p == ports[0]));
    }

    #[test]
    fn nobody_is_taken_in_before_the_socket_listens() {
        let sockets = bind_for_workers(loopback(), 1, false).expect("a free port");
        let address = sockets[0].local_addr().expect("bound");
        let connect = || std::net::TcpStream::connect(address);
        assert_eq!(
            connect().expect_err("refused").kind(),
            io::ErrorKind::ConnectionRefused
        );
        start(&sockets[0]).expect("listens");
        connect().expect("taken in");
        let beside = bind_beside_own(address, 2, false).expect("ours");
        beside.iter().try_for_each(start).expect("listen too");
    }

    #[test]
    fn a_port_in_use_is_an_error_even_with_reuse_port() {
        let taken = bind(loopback(), true).expect("a free port");
        let error = bind_for_workers(taken.local_addr().expect("bound"), 2, false).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
