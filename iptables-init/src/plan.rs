//! The rules, in order. Pure: a [`Config`] goes in, rules come out.
//!
//! Order and wording are Istio's to the byte (`tools/istio-iptables/pkg/capture/run.go`): tools that look
//! for residue compare them, and the kernel takes the first rule that matches. The step numbers in the
//! comments are the order in which one rule must precede another.

mod dns;
mod inbound;
mod matches;
mod native;
mod tproxy;

use ipnet::IpNet;

use crate::config::{Config, Mode, Outbound, OwnerGroups};
use crate::rule::{Chain, Family, Id, Match, Place, Protocol, Rule, Table, Target, Test};
pub use dns::DNS_PORT;
use matches::{destination, destination_port, in_interface, not, out_interface, protocol, source, tcp};
pub use native::{NativeChain, native};
pub use tproxy::OUTBOUND_MARK;

/// Loopback interface.
const LO: &str = "lo";
/// From these addresses the proxy sends to the app; rules tell its packets by them.
const INBOUND_SOURCES: [&str; 2] = ["127.0.0.6/32", "::6/128"];
const LOOPBACK_V6: &str = "::1/128";

/// All rules of all wanted families, in the order in which they are to be written.
///
/// [`crate::rule::of_family`] picks those of one family; a rule of both stands here once.
pub fn rules(config: &Config) -> Vec<Rule> {
    let mut plan = Plan {
        config,
        families: if config.ipv6 {
            &Family::BOTH
        } else {
            &Family::BOTH[..1]
        },
        rules: Vec::new(),
    };
    plan.interfaces();
    plan.invalid_packets();
    plan.redirect_chains();
    plan.inbound();
    plan.outbound_first();
    for uid in &config.proxy_uids {
        plan.own_traffic(Owner::User(uid));
    }
    for gid in &config.proxy_gids {
        plan.own_traffic(Owner::Group(gid));
    }
    plan.owner_groups();
    plan.dns();
    plan.outbound_exclusions();
    plan.outbound_inclusions();
    plan.tproxy_marks();
    plan.rules
}

/// One owner of the proxy's sockets.
#[derive(Clone, Copy)]
enum Owner<'a> {
    User(&'a Id),
    Group(&'a Id),
}

impl Owner<'_> {
    fn is(self) -> Match {
        match self {
            Owner::User(id) => Test::Uid(id.clone()),
            Owner::Group(id) => Test::Gid(id.clone()),
        }
        .into()
    }
}

struct Plan<'a> {
    config: &'a Config,
    families: &'static [Family],
    rules: Vec<Rule>,
}

impl Plan<'_> {
    /// Steps 1 and 2: interfaces that are none of our business, and those of virtual machines, whose
    /// traffic is not inbound.
    fn interfaces(&mut self) {
        let config = self.config;
        let tproxy = matches!(config.mode, Mode::Tproxy(_));
        let tables = [Table::Nat, Table::Mangle];
        for table in &tables[..if tproxy { 2 } else { 1 }] {
            for name in &config.excluded_interfaces {
                self.append(
                    *table,
                    Chain::Prerouting,
                    vec![in_interface(name)],
                    Target::Return,
                );
                self.append(*table, Chain::Output, vec![out_interface(name)], Target::Return);
            }
        }
        for name in &config.virtual_interfaces {
            self.insert_inbound(None, vec![in_interface(name)], Target::Return);
        }
    }

    /// Step 3: packets outside any window are dropped, where the kernel would reset the connection.
    fn invalid_packets(&mut self) {
        if self.config.drop_invalid {
            let invalid = Test::Tracked(vec![crate::rule::TrackedState::Invalid]).into();
            self.append(
                Table::Mangle,
                Chain::Prerouting,
                vec![invalid],
                Target::Jump(Chain::IstioDrop),
            );
            self.append(Table::Mangle, Chain::IstioDrop, vec![], Target::Drop);
        }
    }

    /// Steps 4 and 5: the chains that others jump to.
    fn redirect_chains(&mut self) {
        let config = self.config;
        let tunnel = tcp(destination_port(config.tunnel_port.get()));
        self.append(Table::Nat, Chain::IstioInbound, tunnel, Target::Return);
        for (chain, port) in [
            (Chain::IstioRedirect, config.outbound_port),
            (Chain::IstioInRedirect, config.inbound_port),
        ] {
            self.append(
                Table::Nat,
                chain,
                vec![protocol(Protocol::Tcp)],
                Target::Redirect(port),
            );
        }
    }

    /// Steps 7 to 9: the way into our chain, excluded ports, and what the proxy sends to the app: it binds
    /// 127.0.0.6 (or ::6) there, which must not come back to the proxy.
    fn outbound_first(&mut self) {
        self.append(
            Table::Nat,
            Chain::Output,
            vec![],
            Target::Jump(Chain::IstioOutput),
        );
        for port in &self.config.excluded_outbound_ports {
            for proto in [Protocol::Tcp, Protocol::Udp] {
                self.outbound(
                    None,
                    vec![protocol(proto), destination_port(port.get())],
                    Target::Return,
                );
            }
        }
        for family in self.families {
            let matches = vec![out_interface(LO), source(inbound_source(*family))];
            self.outbound(Some(*family), matches, Target::Return);
        }
    }

    /// Steps 10 and 11, for one owner of the proxy's sockets.
    ///
    /// An app that calls itself through its service address goes app → proxy → proxy → app; the second
    /// arrow is the proxy's own traffic over lo, which only the first rule sends to the inbound port. DNS over
    /// TCP is none of that: it goes from the app to the proxy's resolver to the server, so with DNS capture
    /// port 53 is left out, and an app's queries to a server on lo are not returned.
    fn own_traffic(&mut self, owner: Owner<'_>) {
        let dns = self.config.dns.is_some();
        let tunnel = self.config.tunnel_port.get();
        for family in self.families {
            let ports = match owner {
                Owner::User(_) if dns => Test::DestinationPorts(vec![DNS_PORT, tunnel]).into(),
                _ => destination_port(tunnel),
            };
            let mut matches = vec![out_interface(LO), not(destination(self.loopback(*family)))];
            matches.extend(tcp(not(ports)));
            matches.push(owner.is());
            self.outbound(Some(*family), matches, Target::Jump(Chain::IstioInRedirect));
        }
        // An include list with a loopback address asks for exactly what this rule would prevent.
        if !self.includes_loopback() {
            let mut matches = vec![out_interface(LO)];
            if dns {
                matches.extend(tcp(not(destination_port(DNS_PORT))));
            }
            matches.push(not(owner.is()));
            self.outbound(None, matches, Target::Return);
        }
        self.outbound(None, vec![owner.is()], Target::Return);
    }

    /// Step 12. Included groups are the matches of one rule: not this one and not that one.
    fn owner_groups(&mut self) {
        match &self.config.owner_groups {
            OwnerGroups::AllExcept(groups) => {
                for group in groups {
                    self.outbound(None, vec![Test::Gid(group.clone()).into()], Target::Return);
                }
            }
            OwnerGroups::Only(groups) => {
                let none_of = groups.iter().map(|group| not(Test::Gid(group.clone()).into()));
                self.outbound(None, none_of.collect(), Target::Return);
            }
        }
    }

    /// Steps 14 and 15 (13 is DNS).
    fn outbound_exclusions(&mut self) {
        for family in self.families {
            let loopback = destination(self.loopback(*family));
            self.outbound(Some(*family), vec![loopback], Target::Return);
        }
        for (family, cidr) in self.by_family(&self.config.excluded_destinations) {
            self.outbound(Some(family), vec![destination(cidr)], Target::Return);
        }
    }

    /// Steps 16 and 17.
    fn outbound_inclusions(&mut self) {
        let config = self.config;
        let to_proxy = Target::Jump(Chain::IstioRedirect);
        for port in &config.outbound_ports {
            self.outbound(None, tcp(destination_port(port.get())), to_proxy);
        }
        match &config.outbound {
            Outbound::All => {
                self.outbound(None, vec![], to_proxy);
                for name in &config.virtual_interfaces {
                    self.insert_inbound(None, vec![in_interface(name)], to_proxy);
                }
            }
            Outbound::Only(cidrs) => {
                for (family, cidr) in self.by_family(cidrs) {
                    for name in &config.virtual_interfaces {
                        let matches = vec![in_interface(name), destination(cidr)];
                        self.insert_inbound(Some(family), matches, to_proxy);
                    }
                    self.outbound(Some(family), vec![destination(cidr)], to_proxy);
                }
            }
        }
    }

    /// Asked of both families at once, as Istio does.
    fn includes_loopback(&self) -> bool {
        match &self.config.outbound {
            Outbound::All => false,
            Outbound::Only(cidrs) => cidrs.iter().any(|cidr| cidr.addr().is_loopback()),
        }
    }

    fn loopback(&self, family: Family) -> IpNet {
        match family {
            Family::V4 => IpNet::V4(self.config.loopback),
            Family::V6 => net(LOOPBACK_V6),
        }
    }

    /// Those of wanted families, IPv4 first.
    fn by_family(&self, cidrs: &[IpNet]) -> Vec<(Family, IpNet)> {
        let of = |family: &Family| {
            let family = *family;
            cidrs
                .iter()
                .filter(move |cidr| Family::of(cidr) == family)
                .map(move |cidr| (family, *cidr))
        };
        self.families.iter().flat_map(of).collect()
    }

    /// A rule of nat ISTIO_OUTPUT.
    fn outbound(&mut self, family: Option<Family>, matches: Vec<Match>, target: Target) {
        self.add(family, Table::Nat, Chain::IstioOutput, matches, target);
    }

    fn append(&mut self, table: Table, chain: Chain, matches: Vec<Match>, target: Target) {
        self.add(None, table, chain, matches, target);
    }

    fn add(
        &mut self,
        family: Option<Family>,
        table: Table,
        chain: Chain,
        matches: Vec<Match>,
        target: Target,
    ) {
        self.rules.push(Rule {
            family,
            table,
            chain,
            place: Place::Last,
            matches,
            target,
        });
    }

    /// Before everything else that comes in.
    fn insert_inbound(&mut self, family: Option<Family>, matches: Vec<Match>, target: Target) {
        self.rules.push(Rule {
            family,
            table: Table::Nat,
            chain: Chain::Prerouting,
            place: Place::At(1),
            matches,
            target,
        });
    }
}

fn inbound_source(family: Family) -> IpNet {
    net(match family {
        Family::V4 => INBOUND_SOURCES[0],
        Family::V6 => INBOUND_SOURCES[1],
    })
}

/// Reads one of the constants above.
fn net(constant: &str) -> IpNet {
    constant.parse().expect("a constant CIDR")
}
