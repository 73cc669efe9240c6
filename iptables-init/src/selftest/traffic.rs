//! Makes the chosen connections, all at once, and sees where each arrives.
//!
//! The proxy's ports are listened on here while nobody else does. Where somebody does, connection tracking is
//! asked instead: a connection that merely succeeds proves nothing.

mod arrivals;
mod sockets;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::candidates::target;
use super::peer::{Event, Peer};
use super::{Check, Verdict};
use crate::netlink::conntrack;
use crate::rule::Protocol;
use crate::walk::{Direction, LO, Outcome, Packet};
use arrivals::{Arrival, Listeners};

/// Once everything that should arrive has, how long to look out for what should not.
const SETTLE: Duration = Duration::from_millis(50);
/// Without news for this long, nothing more will arrive: all of it is on this machine. Long enough for TCP to try
/// again once (RFC 6298: after a second), so that one lost packet is no failure.
const QUIET: Duration = Duration::from_millis(1200);

/// One connection under way.
struct Probe {
    packet: Packet,
    expected: Outcome,
    /// `Err`: it was not made.
    client: Result<Option<OwnedFd>, String>,
    is_sent: bool,
    /// Where the client's end is.
    from: Option<SocketAddr>,
    arrival: Option<Arrival>,
}

impl Probe {
    /// Who should see it, if anybody can.
    fn place(&self, elsewhere: &[IpAddr]) -> Place {
        match (self.expected, &self.packet.direction) {
            (Outcome::Redirected(port) | Outcome::Transparent(port), _) => Place::Here(port.get()),
            (Outcome::Dropped, _) => Place::Nobody,
            (Outcome::Untouched, Direction::In { .. }) => Place::Here(self.packet.destination_port),
            (Outcome::Untouched, Direction::Out { interface, .. }) if interface == LO => {
                Place::Here(self.packet.destination_port)
            }
            (Outcome::Untouched, _) if elsewhere.contains(&self.packet.destination) => Place::Elsewhere,
            (Outcome::Untouched, _) => Place::Nobody,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Here(u16),
    Elsewhere,
    Nobody,
}

/// Tries `packets` until `deadline` at the latest.
pub(super) fn run(packets: Vec<(Packet, Outcome)>, peer: Option<Peer>, deadline: Instant) -> Tried {
    let elsewhere = peer.as_ref().map_or_else(Vec::new, |peer| peer.addresses.clone());
    let mut probes: Vec<Probe> = packets
        .into_iter()
        .map(|(packet, expected)| Probe {
            packet,
            expected,
            client: Ok(None),
            is_sent: false,
            from: None,
            arrival: None,
        })
        .collect();
    let mut test = Test {
        listeners: Listeners::open(&needed(&probes, &elsewhere)),
        peer,
        elsewhere,
    };
    test.start(&mut probes);
    test.watch(&mut probes, deadline);
    Tried {
        obstacles: test.listeners.obstacles(),
        checks: probes.iter().map(|probe| test.judge(probe)).collect(),
    }
}

/// What became of the connections, and what stood in the way of seeing it.
pub(super) struct Tried {
    pub(super) checks: Vec<Check>,
    pub(super) obstacles: Vec<String>,
}

/// Protocol, port and whether the listener must be transparent.
fn needed(probes: &[Probe], elsewhere: &[IpAddr]) -> BTreeMap<(Protocol, u16), bool> {
    let mut needed = BTreeMap::new();
    for probe in probes {
        if let Place::Here(port) = probe.place(elsewhere) {
            let transparent = matches!(probe.expected, Outcome::Transparent(_));
            *needed.entry((probe.packet.protocol, port)).or_default() |= transparent;
        }
    }
    needed
}

struct Test {
    listeners: Listeners,
    peer: Option<Peer>,
    elsewhere: Vec<IpAddr>,
}

impl Test {
    fn start(&mut self, probes: &mut [Probe]) {
        if let Some(peer) = &mut self.peer {
            let ports = |protocol: Protocol| -> Vec<u16> {
                let to = probes
                    .iter()
                    .filter(|probe| self.elsewhere.contains(&probe.packet.destination));
                let mut ports: Vec<u16> = to
                    .filter(|probe| probe.packet.protocol == protocol)
                    .map(|probe| probe.packet.destination_port)
                    .collect();
                ports.sort_unstable();
                ports.dedup();
                ports
            };
            let (tcp, udp) = (ports(Protocol::Tcp), ports(Protocol::Udp));
            if let Err(error) = peer.listen(&tcp, &udp) {
                for probe in probes.iter_mut() {
                    probe.client = Err(error.clone());
                }
                return;
            }
            for (number, probe) in probes.iter_mut().enumerate() {
                if matches!(probe.packet.direction, Direction::In { .. })
                    && let Err(error) = peer.connect(number, target(&probe.packet))
                {
                    probe.client = Err(error);
                }
            }
        }
        let going_out: Vec<(usize, &mut Probe)> = probes
            .iter_mut()
            .enumerate()
            .filter(|(_, probe)| matches!(probe.packet.direction, Direction::Out { .. }))
            .filter(|(_, probe)| !is_stranger_to_others(probe, &self.elsewhere))
            .collect();
        let packets: Vec<Packet> = going_out.iter().map(|(_, probe)| probe.packet.clone()).collect();
        for ((_, probe), client) in going_out.into_iter().zip(sockets::connect(&packets)) {
            match client {
                Ok((client, from)) => {
                    probe.client = Ok(Some(client));
                    probe.from = from;
                }
                Err(error) => probe.client = Err(error),
            }
        }
    }

    fn watch(&mut self, probes: &mut [Probe], deadline: Instant) {
        let mut news = Instant::now();
        let mut complete = None;
        loop {
            for (number, probe) in probes.iter_mut().enumerate() {
                if !probe.is_sent
                    && !self.is_others(probe)
                    && let Ok(Some(client)) = &probe.client
                {
                    probe.is_sent = sockets::send(client, number);
                }
            }
            let mut arrived = self.listeners.arrivals();
            if let Some(peer) = &mut self.peer
                && arrivals::is_readable(peer.descriptor())
            {
                for event in peer.events() {
                    match event {
                        Event::Arrived { number, port } => arrived.push((number, Arrival::Elsewhere(port))),
                        Event::From { number, address } => {
                            if let Some(probe) = probes.get_mut(number) {
                                probe.from = Some(address);
                                news = Instant::now();
                            }
                        }
                    }
                }
            }
            for (number, arrival) in arrived {
                if let Some(probe) = probes.get_mut(number) {
                    probe.arrival = Some(arrival);
                    news = Instant::now();
                }
            }
            let now = Instant::now();
            let waits = probes.iter().any(|probe| self.is_awaited(probe));
            complete = if waits { None } else { complete.or(Some(now)) };
            let settled = complete.is_some_and(|since: Instant| now.duration_since(since) >= SETTLE);
            if settled || now >= deadline || now.duration_since(news) >= QUIET {
                return;
            }
            self.listeners.wait(self.peer.as_ref().map(Peer::descriptor));
        }
    }

    /// Whether somebody else's listener should get it: who gets no more than a connection.
    fn is_others(&self, probe: &Probe) -> bool {
        match probe.place(&self.elsewhere) {
            Place::Here(port) => self.listeners.refused(probe.packet.protocol, port).is_some(),
            Place::Elsewhere | Place::Nobody => false,
        }
    }

    fn is_awaited(&self, probe: &Probe) -> bool {
        if probe.arrival.is_some() || probe.client.is_err() {
            return false;
        }
        match probe.place(&self.elsewhere) {
            // Somebody else's port: its end of the connection is never seen here.
            Place::Here(port) if self.listeners.refused(probe.packet.protocol, port).is_some() => {
                probe.from.is_none()
            }
            Place::Here(_) | Place::Elsewhere => true,
            Place::Nobody => false,
        }
    }

    fn judge(&self, probe: &Probe) -> Check {
        Check {
            packet: probe.packet.clone(),
            expected: probe.expected,
            verdict: self.verdict(probe),
        }
    }

    fn verdict(&self, probe: &Probe) -> Verdict {
        if is_stranger_to_others(probe, &self.elsewhere) {
            return Verdict::Unproven("a datagram like that would trouble a real server".to_owned());
        }
        if let Err(error) = &probe.client {
            return Verdict::Unproven(error.clone());
        }
        let place = probe.place(&self.elsewhere);
        if let Place::Here(port) = place
            && probe.arrival.is_none()
            && let Some(errno) = self.listeners.refused(probe.packet.protocol, port)
        {
            return by_tracking(probe, port, errno);
        }
        match (&probe.arrival, place) {
            (None, Place::Nobody) => Verdict::Passed,
            (None, _) => Verdict::Failed("it arrived nowhere".to_owned()),
            (Some(arrival), _) => match arrival.is_as(probe.expected, &probe.packet, place) {
                true => Verdict::Passed,
                false => Verdict::Failed(format!("it arrived {arrival}")),
            },
        }
    }
}

/// A datagram to somebody who is really there is not sent.
fn is_stranger_to_others(probe: &Probe, elsewhere: &[IpAddr]) -> bool {
    probe.packet.protocol == Protocol::Udp && probe.place(elsewhere) == Place::Nobody
}

/// Somebody else listens on `port`: what does the kernel say of the connection?
fn by_tracking(probe: &Probe, port: u16, refused: Errno) -> Verdict {
    let taken = match refused {
        Errno::EADDRINUSE => format!("port {port} is held by another program"),
        errno => format!("port {port} cannot be listened on: {errno}"),
    };
    if probe.packet.protocol == Protocol::Udp {
        return Verdict::Unproven(taken);
    }
    let Some(from) = probe.from else {
        return Verdict::Unproven(format!("{taken}, and the connection was refused"));
    };
    match conntrack::answered_from(from, target(&probe.packet)) {
        Ok(end) if end.port() == port => Verdict::Passed,
        Ok(end) => Verdict::Failed(format!("connection tracking says that it went to {end}")),
        Err(errno) => Verdict::Unproven(format!("{taken}, and connection tracking does not tell: {errno}")),
    }
}
