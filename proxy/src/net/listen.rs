//! Listening sockets. One per worker and address, with SO_REUSEPORT, so that the kernel spreads connections.
use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// As Envoy's `tcp_backlog_size` default on Linux.
const BACKLOG: i32 = 4096;

/// Binds and listens. The socket is non-blocking.
///
/// # Errors
/// `AddrInUse` when somebody else (not of our user, or without SO_REUSEPORT) has the port.
pub(crate) fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // As Envoy: `[::]` serves IPv6 only unless ipv4_compat is set, so that 0.0.0.0 can be bound beside it.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds one socket per worker. The first is bound alone before the others, so a port in use by someone else is an error even when
/// that someone set SO_REUSEPORT too.
///
/// # Errors
/// As [`bind`].
pub(crate) fn bind_for_workers(
    address: SocketAddr,
    workers: usize,
) -> io::Result<Vec<std::net::TcpListener>> {
    drop(bind(address, false)?);
    let first = bind(address, true)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(bind(bound, true)?);
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
        let sockets = bind_for_workers(loopback(), 3).expect("a free port");
        let ports: Vec<_> = sockets
            .iter()
            .map(|s| s.local_addr().expect("bound").port())
            .collect();
        assert!(ports.iter().all(|p| *p == ports[0]));
    }

    #[test]
    fn a_port_in_use_is_an_error_even_with_reuse_port() {
        let taken = bind(loopback(), true).expect("a free port");
        let error = bind_for_workers(taken.local_addr().expect("bound"), 2).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
