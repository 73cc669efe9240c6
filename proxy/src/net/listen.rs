//! Listening sockets. One per worker and address, with SO_REUSEPORT, so that the kernel spreads connections.
use std::io;
use std::net::SocketAddr;

use outrigger_model::listener::ListenSocket;
use outrigger_model::socket::{SocketOption, SocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::options;

/// Level and name of the option `tcp_fast_open_queue_length` (Linux, tcp(7)).
const TCP_FASTOPEN: (i32, i32) = (6, 23);

/// Binds and listens. The socket is non-blocking, and shared with nobody.
///
/// # Errors
/// `AddrInUse` when somebody else (not of our user, or without SO_REUSEPORT) has the port; those of [`bind_for_workers`] of options.
pub(crate) fn bind(address: SocketAddr, options: &[SocketOption]) -> io::Result<std::net::TcpListener> {
    let how = ListenSocket {
        kernel_options: options.to_vec(),
        ..ListenSocket::default()
    };
    let sharing = Sharing::default();
    let socket = bound(address, sharing, &how)?;
    start(&socket, &how)?;
    Ok(socket)
}

/// A socket that [`bind_for_workers`] has made listens from now on.
///
/// # Errors
/// `AddrInUse` when somebody else without SO_REUSEPORT listens there by now; the kernel refuses an option.
pub(crate) fn start(socket: &std::net::TcpListener, how: &ListenSocket) -> io::Result<()> {
    // What is more than the system allows, it cuts to `net.core.somaxconn`, Envoy's default.
    let backlog = how
        .accept_backlog
        .map_or(i32::MAX, |backlog| i32::try_from(backlog).unwrap_or(i32::MAX));
    SockRef::from(socket).listen(backlog)?;
    if let Some(queue) = how.fast_open_queue {
        let (level, name) = TCP_FASTOPEN;
        options::number(socket, level, name, &queue.to_ne_bytes())?;
    }
    options::set(
        socket,
        &how.kernel_options,
        socket.local_addr()?,
        SocketState::Listening,
    )
}

/// How a socket is bound.
#[derive(Debug, Clone, Copy, Default)]
struct Sharing {
    reuse_port: bool,
    transparent: bool,
}

fn bound(address: SocketAddr, sharing: Sharing, how: &ListenSocket) -> io::Result<std::net::TcpListener> {
    let Sharing {
        reuse_port,
        transparent,
    } = sharing;
    let protocol = match how.is_multipath {
        true => Protocol::MPTCP,
        false => Protocol::TCP,
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // As Envoy: `[::]` serves IPv6 only unless ipv4_compat is set, so that 0.0.0.0 can be bound beside it.
        socket.set_only_v6(!how.takes_ipv4)?;
    }
    // In Envoy's order: the options that have numbers are the last, and may change the others.
    if let Some(keepalive) = &how.accepted_keepalive {
        socket.set_tcp_keepalive(&super::connect::keepalive(
            keepalive.time,
            keepalive.interval,
            keepalive.probes,
        ))?;
    }
    if transparent {
        set_transparent(&socket, address.is_ipv6())?;
    }
    if how.binds_freely {
        match address.is_ipv6() {
            true => socket.set_freebind_v6(true)?,
            false => socket.set_freebind_v4(true)?,
        }
    }
    socket.set_nonblocking(true)?;
    options::set(&socket, &how.kernel_options, address, SocketState::Made)?;
    socket.bind(&address.into())?;
    options::set(&socket, &how.kernel_options, address, SocketState::Bound)?;
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
/// As [`bind`]; `PermissionDenied` when `transparent` is asked for without CAP_NET_ADMIN or CAP_NET_RAW; the kernel refuses an option.
pub(crate) fn bind_for_workers(
    address: SocketAddr,
    workers: usize,
    transparent: bool,
    how: &ListenSocket,
) -> io::Result<Vec<std::net::TcpListener>> {
    let alone = Sharing {
        reuse_port: false,
        transparent,
    };
    drop(bound(address, alone, how)?);
    bind_beside_own(address, workers, transparent, how)
}

/// As [`bind_for_workers`], where sockets of this process may have the port already.
///
/// # Errors
/// As [`bind_for_workers`].
pub(crate) fn bind_beside_own(
    address: SocketAddr,
    workers: usize,
    transparent: bool,
    how: &ListenSocket,
) -> io::Result<Vec<std::net::TcpListener>> {
    let sharing = Sharing {
        reuse_port: true,
        transparent,
    };
    let first = bound(address, sharing, how)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(bound(address, sharing, how)?);
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
        let sockets = bind_for_workers(loopback(), 3, false, &ListenSocket::default()).expect("a free port");
        let ports: Vec<_> = sockets
            .iter()
            .map(|s| s.local_addr().expect("bound").port())
            .collect();
        assert!(ports.iter().all(|p| *p == ports[0]));
    }

    #[test]
    fn nobody_is_taken_in_before_the_socket_listens() {
        let how = ListenSocket::default();
        let sockets = bind_for_workers(loopback(), 1, false, &how).expect("a free port");
        let address = sockets[0].local_addr().expect("bound");
        let connect = || std::net::TcpStream::connect(address);
        assert_eq!(
            connect().expect_err("refused").kind(),
            io::ErrorKind::ConnectionRefused
        );
        start(&sockets[0], &how).expect("listens");
        connect().expect("taken in");
        let beside = bind_beside_own(address, 2, false, &how).expect("ours");
        beside
            .iter()
            .try_for_each(|socket| start(socket, &how))
            .expect("listen too");
    }

    #[test]
    fn a_port_in_use_is_an_error_even_with_reuse_port() {
        let how = ListenSocket::default();
        let taken = bind_for_workers(loopback(), 1, false, &how).expect("a free port");
        start(&taken[0], &how).expect("listens");
        let error =
            bind_for_workers(taken[0].local_addr().expect("bound"), 2, false, &how).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_option_that_the_kernel_refuses_is_an_error_that_names_it() {
        let option = |level, name, when| ListenSocket {
            kernel_options: vec![SocketOption {
                option_level: level,
                option_name: name,
                option_bytes: 1_i32.to_ne_bytes().to_vec(),
                set_when: when,
                only_v6: None,
            }],
            ..ListenSocket::default()
        };
        for when in [SocketState::Made, SocketState::Bound] {
            let error = bind_for_workers(loopback(), 1, false, &option(6, 9999, when)).expect_err("unknown");
            assert!(error.to_string().starts_with("socket option 6/9999: "), "{error}");
        }
        let how = option(1, 9999, SocketState::Listening);
        let sockets = bind_for_workers(loopback(), 1, false, &how).expect("not yet");
        assert!(start(&sockets[0], &how).is_err());
        let mut how = option(6, 9999, SocketState::Made);
        how.kernel_options[0].only_v6 = Some(true);
        bind_for_workers(loopback(), 1, false, &how).expect("of another version of IP");
    }
}
