//! Follows the first packet of one connection through planned rules. Pure.
//!
//! What the kernel would do: tables in the order of their priority (raw, mangle, nat), a chain rule by rule, the
//! first that matches and ends the walk decides. Packets over lo pass both ways out and in, but their addresses
//! are translated only once, on the way out. Source: linux/netfilter_ipv4.h, nf_nat_core.c `nf_nat_inet_fn`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::rule::{Chain, Family, Match, Protocol, Rule, Table, Target, Test, chains};

/// The loopback interface.
pub(crate) const LO: &str = "lo";
const DEEPEST: usize = 8;

/// Which way a connection goes, seen from the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Sent by a process of the pod.
    Out { interface: String, uid: u32, gid: u32 },
    /// From elsewhere.
    In { interface: String },
}

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    pub direction: Direction,
    pub protocol: Protocol,
    pub source: IpAddr,
    /// 0 where it does not matter.
    pub source_port: u16,
    pub destination: IpAddr,
    pub destination_port: u16,
}

/// Where the connection ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Where it was going.
    Untouched,
    /// At this port of the pod itself; the original destination can be asked for (`SO_ORIGINAL_DST`).
    Redirected(NonZeroU16),
    /// At the transparent socket of this port, its destination unchanged.
    Transparent(NonZeroU16),
    Dropped,
}

/// One rule that was looked at.
#[derive(Clone, Debug)]
pub struct Step<'a> {
    pub rule: &'a Rule,
    /// In its chain, from 1.
    pub position: usize,
    /// What kept it from matching, and what the packet has instead; `None`: it matched.
    pub unmet: Option<(&'a Match, String)>,
}

/// Everything that was looked at, and the end of it.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    pub steps: Vec<Step<'a>>,
    pub outcome: Outcome,
}

/// Follows `packet` through `rules`, which are those of [`crate::plan::rules`].
pub fn walk<'a>(rules: impl IntoIterator<Item = &'a Rule>, packet: &Packet) -> Walk<'a> {
    let family = Family::of_address(&packet.destination);
    let mut walker = Walker {
        chains: chains(rules.into_iter().filter(|rule| rule.applies_to(family))),
        packet: packet.clone(),
        mark: 0,
        connection_mark: 0,
        steps: Vec::new(),
    };
    let outcome = walker.run();
    Walk {
        steps: walker.steps,
        outcome,
    }
}

struct Walker<'a> {
    chains: BTreeMap<(Table, Chain), Vec<&'a Rule>>,
    packet: Packet,
    mark: u32,
    connection_mark: u32,
    steps: Vec<Step<'a>>,
}

/// How a chain was left.
enum End {
    /// On to the next rule of the chain that jumped here; in a base chain, on to the next table.
    Return,
    Accept,
    Final(Outcome),
}

impl<'a> Walker<'a> {
    fn run(&mut self) -> Outcome {
        let (base, over_lo) = match &self.packet.direction {
            Direction::In { .. } => (Chain::Prerouting, false),
            Direction::Out { interface, .. } => (Chain::Output, interface == LO),
        };
        let first = self.tables(base, &[Table::Raw, Table::Mangle, Table::Nat]);
        match first {
            Outcome::Untouched if over_lo => {
                self.packet.direction = Direction::In {
                    interface: LO.to_owned(),
                };
                // The address was settled on the way out, even if only to stay what it is.
                self.tables(Chain::Prerouting, &[Table::Raw, Table::Mangle])
            }
            first => first,
        }
    }

    fn tables(&mut self, base: Chain, tables: &[Table]) -> Outcome {
        for table in tables {
            if let End::Final(outcome) = self.chain(*table, base, DEEPEST) {
                return outcome;
            }
        }
        Outcome::Untouched
    }

    /// `deeper`: how many more jumps there may be. Plans jump forward only, three times at most.
    fn chain(&mut self, table: Table, chain: Chain, deeper: usize) -> End {
        let rules = self.chains.get(&(table, chain)).cloned().unwrap_or_default();
        for (position, rule) in (1..).zip(rules) {
            let unmet = rule.matches.iter().find(|one| !self.passes(one));
            let missed = unmet.is_some();
            self.steps.push(Step {
                rule,
                position,
                unmet: unmet.map(|one| (one, self.fact(one))),
            });
            if missed {
                continue;
            }
            match rule.target {
                Target::Return => return End::Return,
                Target::Accept => return End::Accept,
                Target::Drop => return End::Final(Outcome::Dropped),
                Target::Redirect(port) => return End::Final(Outcome::Redirected(port)),
                Target::Tproxy { port, .. } => return End::Final(Outcome::Transparent(port)),
                Target::Jump(to) if deeper > 0 => match self.chain(table, to, deeper - 1) {
                    End::Return => {}
                    end => return end,
                },
                Target::Jump(_) => return End::Return,
                Target::SetMark(mark) => self.mark = mark,
                Target::SaveMark => self.connection_mark = self.mark,
                Target::RestoreMark => self.mark = self.connection_mark,
                // Keeps connections apart; takes none of them anywhere.
                Target::Zone(_) => {}
            }
        }
        End::Return
    }

    fn passes(&self, one: &Match) -> bool {
        let packet = &self.packet;
        let passes = match &one.test {
            Test::Family(family) => *family == Family::of_address(&packet.destination),
            Test::InInterface(name) => match &packet.direction {
                Direction::In { interface } => is_named(interface, name),
                Direction::Out { .. } => false,
            },
            Test::OutInterface(name) => match &packet.direction {
                Direction::Out { interface, .. } => is_named(interface, name),
                Direction::In { .. } => false,
            },
            Test::Source(net) => net.contains(&packet.source),
            Test::Destination(net) => net.contains(&packet.destination),
            Test::Protocol(protocol) => *protocol == packet.protocol,
            Test::SourcePort(port) => *port == packet.source_port,
            Test::DestinationPort(port) => *port == packet.destination_port,
            Test::DestinationPorts(ports) => ports.contains(&packet.destination_port),
            Test::Uid(_) | Test::Gid(_) => return self.owner_passes(one),
            Test::Mark(mark) => *mark == self.mark,
            Test::ConnectionMark(mark) => *mark == self.connection_mark,
            // The first packet of a connection is none of these.
            Test::Tracked(_) => false,
        };
        passes != one.negated
    }

    /// What the packet has of what `one` asks about, for people.
    fn fact(&self, one: &Match) -> String {
        let packet = &self.packet;
        match (&one.test, &packet.direction) {
            (Test::Family(_), _) => format!("it is {}", Family::of_address(&packet.destination)),
            (Test::InInterface(_) | Test::OutInterface(_), Direction::Out { interface, .. }) => {
                format!("it leaves on {interface}")
            }
            (Test::InInterface(_) | Test::OutInterface(_), Direction::In { interface }) => {
                format!("it comes in on {interface}")
            }
            (Test::Source(_), _) => format!("it comes from {}", packet.source),
            (Test::Destination(_), _) => format!("it goes to {}", packet.destination),
            (Test::Protocol(_), _) => format!("it is {}", packet.protocol.name()),
            (Test::SourcePort(_), _) => format!("it comes from port {}", packet.source_port),
            (Test::DestinationPort(_) | Test::DestinationPorts(_), _) => {
                format!("it goes to port {}", packet.destination_port)
            }
            (Test::Uid(_), Direction::Out { uid, .. }) => format!("its owner is uid {uid}"),
            (Test::Gid(_), Direction::Out { gid, .. }) => format!("its owner is gid {gid}"),
            (Test::Uid(_) | Test::Gid(_), Direction::In { .. }) => {
                "what comes in has no owner here".to_owned()
            }
            (Test::Mark(_), _) => format!("its mark is {}", self.mark),
            (Test::ConnectionMark(_), _) => format!("its connection's mark is {}", self.connection_mark),
            (Test::Tracked(_), _) => "it is the first of its connection".to_owned(),
        }
    }

    /// A packet from elsewhere has no owner here: neither the match nor its opposite passes (xt_owner.c).
    fn owner_passes(&self, one: &Match) -> bool {
        let Direction::Out { uid, gid, .. } = self.packet.direction else {
            return false;
        };
        let is = match &one.test {
            Test::Uid(id) => id.number == uid,
            Test::Gid(id) => id.number == gid,
            _ => return false,
        };
        is != one.negated
    }
}

/// `eth+` names every interface that begins so.
fn is_named(interface: &str, name: &str) -> bool {
    match name.strip_suffix('+') {
        Some(start) => interface.starts_with(start),
        None => interface == name,
    }
}

#[cfg(test)]
mod tests;
