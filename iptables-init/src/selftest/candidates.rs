//! Connections that could be tried here: of each kind that rules tell apart.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::owner::Owners;
use crate::config::{Config, Dns, Outbound};
use crate::host;
use crate::rule::{Family, Protocol, Rule, Test};
use crate::walk::{Direction, LO, Packet};

/// Most destinations of one list of CIDRs, and most ports, that are tried.
const MOST: usize = 16;

/// The two ends of the pair that leads elsewhere, for each family.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) interface: &'static str,
    /// Here, there.
    pub(super) pairs: Vec<(IpAddr, IpAddr)>,
}

/// Where connections can be made to from here.
pub(super) struct Surroundings {
    pub(super) families: Vec<Family>,
    pub(super) ends: Option<Ends>,
    own: Vec<IpAddr>,
    pub(super) obstacles: Vec<String>,
}

impl Surroundings {
    pub(super) fn look(config: &Config, ends: Option<Ends>) -> Self {
        let mut obstacles = Vec::new();
        let own = host::addresses().unwrap_or_else(|error| {
            obstacles.push(format!("the addresses of this namespace are unknown: {error}"));
            Vec::new()
        });
        let families = if config.ipv6 {
            vec![Family::V4, Family::V6]
        } else {
            vec![Family::V4]
        };
        Surroundings {
            families,
            ends,
            own,
            obstacles,
        }
    }

    fn own_of(&self, family: Family) -> Option<IpAddr> {
        let of_family = |address: &&IpAddr| Family::of_address(address) == family && !address.is_loopback();
        let is_local = |address: &&IpAddr| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments() == INBOUND_V6.segments(),
        };
        self.own
            .iter()
            .filter(of_family)
            .find(|address| !is_local(address))
            .copied()
    }
}

const INBOUND_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
const INBOUND_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);
/// Never in use (RFC 5737, RFC 3849); only asked for where rules keep it from leaving.
const NOWHERE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NOWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

/// All candidates; those that trouble nobody first.
pub(super) fn all(config: &Config, rules: &[Rule], owners: &Owners, around: &Surroundings) -> Vec<Packet> {
    let ports = ports(config, rules);
    let mut packets = Vec::new();
    for family in &around.families {
        let ends: Vec<(IpAddr, IpAddr)> = around
            .ends
            .iter()
            .flat_map(|ends| &ends.pairs)
            .filter(|(here, _)| Family::of_address(here) == *family)
            .copied()
            .collect();
        for (here, _) in &ends {
            let interface = around
                .ends
                .as_ref()
                .map_or(String::new(), |ends| ends.interface.to_owned());
            packets.extend(ports.iter().map(|port| Packet {
                direction: Direction::In {
                    interface: interface.clone(),
                },
                protocol: Protocol::Tcp,
                source: *here,
                source_port: 0,
                destination: *here,
                destination_port: *port,
            }));
        }
        for owner in &owners.all {
            for (source, destination, interface) in ways_out(config, *family, &ends, around) {
                for (protocol, port) in protocols(rules, &ports) {
                    packets.push(Packet {
                        direction: Direction::Out {
                            interface: interface.clone(),
                            uid: owner.uid,
                            gid: owner.gid,
                        },
                        protocol,
                        source,
                        source_port: 0,
                        destination,
                        destination_port: port,
                    });
                }
            }
        }
    }
    packets
}

/// Source, destination, interface.
fn ways_out(
    config: &Config,
    family: Family,
    ends: &[(IpAddr, IpAddr)],
    around: &Surroundings,
) -> Vec<(IpAddr, IpAddr, String)> {
    let (loopback, inbound, nowhere): (IpAddr, IpAddr, IpAddr) = match family {
        Family::V4 => (Ipv4Addr::LOCALHOST.into(), INBOUND_V4.into(), NOWHERE_V4.into()),
        Family::V6 => (Ipv6Addr::LOCALHOST.into(), INBOUND_V6.into(), NOWHERE_V6.into()),
    };
    let mut ways = Vec::new();
    let interface = around.ends.as_ref().map_or("", |ends| ends.interface);
    ways.extend(
        ends.iter()
            .map(|(here, there)| (*here, *there, interface.to_owned())),
    );
    let own = around
        .own_of(family)
        .or_else(|| ends.first().map(|(here, _)| *here));
    // 127.0.0.6 is local anyway, ::6 only once it is added.
    let has_inbound = family == Family::V4 || around.own.contains(&inbound);
    ways.push((loopback, loopback, LO.to_owned()));
    if has_inbound {
        ways.push((loopback, inbound, LO.to_owned()));
    }
    if let Some(own) = own {
        ways.push((own, own, LO.to_owned()));
        if has_inbound {
            ways.push((inbound, own, LO.to_owned()));
        }
    }
    let included: &[IpNet] = match &config.outbound {
        Outbound::All => &[],
        Outbound::Only(cidrs) => cidrs,
    };
    let named = included
        .iter()
        .take(MOST)
        .chain(config.excluded_destinations.iter().take(MOST));
    let mut others: Vec<IpAddr> = named
        .filter(|net| Family::of(net) == family)
        .filter_map(first_host)
        .collect();
    if let Some(Dns::Servers(servers)) = &config.dns {
        others.extend(
            servers
                .iter()
                .filter(|server| Family::of_address(server) == family),
        );
    }
    others.push(nowhere);
    for to in others {
        if let Some(route) = host::route(to) {
            ways.push((route.source, to, route.interface));
        }
    }
    ways
}

fn first_host(net: &IpNet) -> Option<IpAddr> {
    net.hosts().next()
}

/// Every port that a rule names, and one that none does.
fn ports(config: &Config, rules: &[Rule]) -> Vec<u16> {
    let mut ports: BTreeSet<u16> = BTreeSet::new();
    for one in rules.iter().flat_map(|rule| &rule.matches) {
        match &one.test {
            Test::DestinationPort(port) => {
                ports.insert(*port);
            }
            Test::DestinationPorts(more) => ports.extend(more),
            _ => {}
        }
    }
    let unnamed = (config.probe_port.get()..).find(|port| !ports.contains(port));
    unnamed
        .into_iter()
        .chain(ports.iter().copied().take(MOST))
        .collect()
}

/// TCP everywhere, UDP to ports that a rule names together with it.
fn protocols(rules: &[Rule], ports: &[u16]) -> Vec<(Protocol, u16)> {
    let udp = |port: u16| {
        rules.iter().any(|rule| {
            let names = rule
                .matches
                .iter()
                .any(|one| one.test == Test::DestinationPort(port));
            names && rule.protocol() == Some(Protocol::Udp)
        })
    };
    let tcp = ports.iter().map(|port| (Protocol::Tcp, *port));
    let udp = ports
        .iter()
        .filter(|port| udp(**port))
        .map(|port| (Protocol::Udp, *port));
    tcp.chain(udp).collect()
}

/// Where the other end of a connection to `packet`'s destination is.
pub(super) fn target(packet: &Packet) -> SocketAddr {
    SocketAddr::new(packet.destination, packet.destination_port)
}
