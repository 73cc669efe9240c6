//! Servers: every port of this namespace that a connection may end at, and what arrives there.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockopt, listen, setsockopt,
    socket, sockopt,
};

use super::Place;
use crate::rule::Protocol;
use crate::selftest::candidates::target;
use crate::selftest::peer::{TOKEN_BYTES, number};
use crate::walk::{Outcome, Packet};

/// Where a connection showed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Here {
        /// Of the listener.
        port: u16,
        /// What the accepted socket says: its own address, and where the client wanted to go. Not for datagrams.
        tcp: Option<(SocketAddr, Option<SocketAddr>)>,
    },
    /// At this port of the peer.
    Elsewhere(u16),
}

impl Arrival {
    pub(super) fn is_as(&self, expected: Outcome, packet: &Packet, place: Place) -> bool {
        let to = target(packet);
        match (self, place) {
            (Arrival::Elsewhere(port), Place::Elsewhere) => *port == to.port(),
            (Arrival::Here { port, tcp }, Place::Here(wanted)) => {
                let addressed = match (expected, tcp) {
                    (_, None) => true,
                    (Outcome::Redirected(_), Some((_, original))) => *original == Some(to),
                    (_, Some((local, _))) => *local == to,
                };
                *port == wanted && addressed
            }
            _ => false,
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arrival::Elsewhere(port) => write!(f, "elsewhere, at port {port}"),
            Arrival::Here { port, tcp: None } => write!(f, "at port {port}"),
            Arrival::Here {
                tcp: Some((local, Some(original))),
                ..
            } => write!(f, "at {local} with the original destination {original}"),
            Arrival::Here {
                tcp: Some((local, None)),
                ..
            } => write!(f, "at {local} without an original destination"),
        }
    }
}

enum Server {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// Listeners of both families, and who got none.
pub(super) struct Listeners {
    servers: Vec<(u16, Server)>,
    /// Accepted, and not heard of yet.
    fresh: Vec<(u16, TcpStream)>,
    refused: BTreeMap<(Protocol, u16), Errno>,
}

impl Listeners {
    /// Listens on each of `needed`; `true` asks for a transparent socket.
    pub(super) fn open(needed: &BTreeMap<(Protocol, u16), bool>) -> Self {
        let mut listeners = Listeners {
            servers: Vec::new(),
            fresh: Vec::new(),
            refused: BTreeMap::new(),
        };
        for ((protocol, port), transparent) in needed {
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                match server(family, *protocol, *port, *transparent) {
                    Ok(server) => listeners.servers.push((*port, server)),
                    // A kernel without IPv6 has no such connections either.
                    Err(Errno::EAFNOSUPPORT) if family == AddressFamily::Inet6 => {}
                    Err(errno) => {
                        listeners.refused.insert((*protocol, *port), errno);
                    }
                }
            }
        }
        listeners
    }

    /// Why this port is not listened on here.
    pub(super) fn refused(&self, protocol: Protocol, port: u16) -> Option<Errno> {
        self.refused.get(&(protocol, port)).copied()
    }

    /// Ports that are not listened on here, for people.
    pub(super) fn obstacles(&self) -> Vec<String> {
        let told = |((protocol, port), errno): (&(Protocol, u16), &Errno)| {
            let protocol = protocol.name();
            match errno {
                Errno::EADDRINUSE => format!(
                    "another program listens on {protocol} port {port}: it is handed the connections to that port, \
                     without data, and connection tracking is asked where they went"
                ),
                errno => format!("{protocol} port {port} cannot be listened on: {errno}"),
            }
        };
        self.refused.iter().map(told).collect()
    }

    /// Numbers of connections that have arrived since the last call.
    pub(super) fn arrivals(&mut self) -> Vec<(usize, Arrival)> {
        let mut arrived = Vec::new();
        for (port, server) in &self.servers {
            match server {
                Server::Tcp(listener) => {
                    while let Ok((stream, _)) = listener.accept() {
                        if stream.set_nonblocking(true).is_ok() {
                            self.fresh.push((*port, stream));
                        }
                    }
                }
                Server::Udp(socket) => {
                    let mut token = [0; TOKEN_BYTES];
                    while socket.recv(&mut token).is_ok() {
                        let arrival = Arrival::Here {
                            port: *port,
                            tcp: None,
                        };
                        arrived.extend(number(&token).map(|number| (number, arrival)));
                    }
                }
            }
        }
        self.fresh.retain_mut(|(port, stream)| {
            let mut token = [0; TOKEN_BYTES];
            match stream.read_exact(&mut token) {
                Ok(()) => {
                    let tcp = stream
                        .local_addr()
                        .ok()
                        .map(|local| (local, original(stream, local)));
                    arrived.extend(number(&token).map(|number| (number, Arrival::Here { port: *port, tcp })));
                    false
                }
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        });
        arrived
    }

    /// Waits a moment, or until something happens.
    pub(super) fn wait(&self, peer: Option<BorrowedFd<'_>>) {
        let servers = self.servers.iter().map(|(_, server)| match server {
            Server::Tcp(listener) => listener.as_fd(),
            Server::Udp(socket) => socket.as_fd(),
        });
        let fresh = self.fresh.iter().map(|(_, stream)| stream.as_fd());
        let mut all: Vec<PollFd<'_>> = servers
            .chain(fresh)
            .chain(peer)
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        let _ = poll(&mut all, PollTimeout::from(MOMENT_MILLIS));
    }
}

const MOMENT_MILLIS: u8 = 5;

/// Whether a read would not wait.
pub(super) fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let mut one = [PollFd::new(descriptor, PollFlags::POLLIN)];
    poll(&mut one, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn server(family: AddressFamily, protocol: Protocol, port: u16, transparent: bool) -> Result<Server, Errno> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket: OwnedFd = socket(
        family,
        kind,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let any: IpAddr = if family == AddressFamily::Inet6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    if transparent {
        setsockopt(&socket, sockopt::IpTransparent, &true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of an earlier test may still be in TIME_WAIT.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(
        socket.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(any, port)),
    )?;
    Ok(match protocol {
        Protocol::Tcp => {
            listen(&socket, Backlog::new(64)?)?;
            Server::Tcp(TcpListener::from(socket))
        }
        Protocol::Udp => Server::Udp(UdpSocket::from(socket)),
    })
}

/// SO_ORIGINAL_DST, which netfilter answers for redirected connections.
fn original(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    if local.is_ipv6() {
        let raw = getsockopt(stream, sockopt::Ip6tOriginalDst).ok()?;
        return Some(SocketAddr::from((
            raw.sin6_addr.s6_addr,
            u16::from_be(raw.sin6_port),
        )));
    }
    let raw = getsockopt(stream, sockopt::OriginalDst).ok()?;
    let address = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
    Some(SocketAddr::from((address, u16::from_be(raw.sin_port))))
}
