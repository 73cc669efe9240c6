//! Clients: sockets that belong to the right owner, connecting without waiting.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect as start, getsockname,
    send as write, socket,
};

use crate::rule::Protocol;
use crate::selftest::candidates::target;
use crate::selftest::owner::{Owner, become_owner};
use crate::selftest::peer::token;
use crate::walk::{Direction, LO, Packet};

/// A client on its way, and its address once it has one.
pub(super) type Client = Result<(OwnedFd, Option<SocketAddr>), String>;

/// One client a packet, in their order.
pub(super) fn connect(packets: &[Packet]) -> Vec<Client> {
    let mut by_owner: BTreeMap<Owner, Vec<usize>> = BTreeMap::new();
    for (index, packet) in packets.iter().enumerate() {
        if let Direction::Out { uid, gid, .. } = packet.direction {
            by_owner.entry(Owner { uid, gid }).or_default().push(index);
        }
    }
    let mut clients: Vec<Client> = packets
        .iter()
        .map(|_| Err("goes in, not out".to_owned()))
        .collect();
    for (owner, indices) in by_owner {
        let kinds: Vec<&Packet> = indices.iter().filter_map(|index| packets.get(*index)).collect();
        let own = Owner {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        };
        // The owner of a socket is who made it; who connects it does not matter.
        let made: Vec<Result<OwnedFd, String>> = std::thread::scope(|scope| {
            let work = || {
                if owner != own && !become_owner(owner) {
                    return kinds
                        .iter()
                        .map(|_| Err(format!("uid {} cannot be taken", owner.uid)))
                        .collect();
                }
                kinds.iter().map(|packet| make(packet)).collect()
            };
            scope.spawn(work).join().unwrap_or_default()
        });
        for ((index, packet), socket) in indices.into_iter().zip(kinds).zip(made) {
            if let Some(client) = clients.get_mut(index) {
                *client = socket.and_then(|socket| begin(socket, packet));
            }
        }
    }
    clients
}

fn make(packet: &Packet) -> Result<OwnedFd, String> {
    let family = match packet.destination {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let kind = match packet.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    socket(
        family,
        kind,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(|errno| format!("make a socket: {errno}"))
}

fn begin(socket: OwnedFd, packet: &Packet) -> Client {
    let over_lo = matches!(&packet.direction, Direction::Out { interface, .. } if interface == LO);
    if over_lo && packet.source != packet.destination {
        let source = SockaddrStorage::from(SocketAddr::new(packet.source, 0));
        bind(socket.as_raw_fd(), &source).map_err(|errno| format!("bind {}: {errno}", packet.source))?;
    }
    match start(socket.as_raw_fd(), &SockaddrStorage::from(target(packet))) {
        // A refusal is an answer too: it says that nobody took the connection.
        Ok(()) | Err(Errno::EINPROGRESS | Errno::ECONNREFUSED) => {}
        Err(errno) => return Err(format!("connect: {errno}")),
    }
    let from = address_of(&socket);
    Ok((socket, from))
}

fn address_of(socket: &OwnedFd) -> Option<SocketAddr> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddr::new(v6.ip().into(), v6.port()))
}

/// Sends the client's number; `false` if the connection is not made yet.
pub(super) fn send(client: &OwnedFd, number: usize) -> bool {
    let sent = write(client.as_raw_fd(), &token(number), MsgFlags::MSG_NOSIGNAL);
    !matches!(sent, Err(Errno::EAGAIN | Errno::ENOTCONN))
}
