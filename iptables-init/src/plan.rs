//! The rules, in order. Pure: a [`Config`] goes in, rules of one family come out.
//!
//! Order and wording are Istio's to the byte (`tools/istio-iptables/pkg/capture/run.go`): tools that look
//! for residue compare them, and the kernel takes the first rule that matches. The step numbers in the
//! comments are the order in which one rule must precede another.

use std::fmt;
use std::num::NonZeroU16;

use ipnet::IpNet;

use crate::config::{Config, Inbound, Outbound, OwnerGroups};

const INBOUND: &str = "ISTIO_INBOUND";
const OUTPUT: &str = "ISTIO_OUTPUT";
const REDIRECT: &str = "ISTIO_REDIRECT";
const IN_REDIRECT: &str = "ISTIO_IN_REDIRECT";
const DROP: &str = "ISTIO_DROP";

/// IPv4 or IPv6; each has its own tables and its own programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Family::V4 { "IPv4" } else { "IPv6" })
    }
}

/// A kernel table; sorted as `iptables-restore` text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Mangle,
    Nat,
}

impl Table {
    pub fn name(self) -> &'static str {
        match self {
            Table::Mangle => "mangle",
            Table::Nat => "nat",
        }
    }
}

/// Where in its chain a rule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Last,
    First,
}

/// One rule: matches and target as iptables words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub table: Table,
    pub chain: &'static str,
    pub place: Place,
    pub words: Vec<String>,
}

impl Rule {
    /// The chain or target of `-j`.
    pub fn target(&self) -> Option<&str> {
        let jump = self.words.iter().position(|word| word == "-j")?;
        self.words.get(jump + 1).map(String::as_str)
    }

    /// The arguments that ask `iptables` whether this rule exists, wherever it stands.
    pub fn check_args(&self) -> Vec<&str> {
        let mut args = vec!["-t", self.table.name(), "-C", self.chain];
        args.extend(self.words.iter().map(String::as_str));
        args
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Last => write!(f, "-A {}", self.chain)?,
            Place::First => write!(f, "-I {} 1", self.chain)?,
        }
        self.words.iter().try_for_each(|word| write!(f, " {word}"))
    }
}

/// All rules of `family`, in the order in which they are to be restored.
pub fn rules(config: &Config, family: Family) -> Vec<Rule> {
    let mut plan = Plan {
        config,
        family,
        rules: Vec::new(),
    };
    plan.interfaces();
    plan.invalid_packets();
    plan.redirect_chains();
    plan.inbound();
    plan.outbound_first();
    for uid in &config.proxy_uids {
        plan.own_traffic("--uid-owner", *uid);
    }
    for gid in &config.proxy_gids {
        plan.own_traffic("--gid-owner", *gid);
    }
    plan.owner_groups();
    plan.outbound_exclusions();
    plan.outbound_inclusions();
    plan.rules
}

struct Plan<'a> {
    config: &'a Config,
    family: Family,
    rules: Vec<Rule>,
}

impl Plan<'_> {
    /// Steps 1 and 2: interfaces that are none of our business, and those of virtual machines, whose
    /// traffic is not inbound.
    fn interfaces(&mut self) {
        for name in &self.config.excluded_interfaces {
            self.append("PREROUTING", format!("-i {name} -j RETURN"));
            self.append("OUTPUT", format!("-o {name} -j RETURN"));
        }
        for name in &self.config.virtual_interfaces {
            self.insert("PREROUTING", format!("-i {name} -j RETURN"));
        }
    }

    /// Step 3: packets outside any window are dropped, where the kernel would reset the connection.
    fn invalid_packets(&mut self) {
        if self.config.drop_invalid {
            self.add(
                Table::Mangle,
                "PREROUTING",
                Place::Last,
                format!("-m conntrack --ctstate INVALID -j {DROP}"),
            );
            self.add(Table::Mangle, DROP, Place::Last, "-j DROP".to_owned());
        }
    }

    /// Steps 4 and 5: the chains that others jump to.
    fn redirect_chains(&mut self) {
        let Config {
            tunnel_port,
            outbound_port,
            inbound_port,
            ..
        } = self.config;
        self.append(INBOUND, format!("-p tcp --dport {tunnel_port} -j RETURN"));
        self.append(REDIRECT, format!("-p tcp -j REDIRECT --to-ports {outbound_port}"));
        self.append(
            IN_REDIRECT,
            format!("-p tcp -j REDIRECT --to-ports {inbound_port}"),
        );
    }

    /// Step 6.
    fn inbound(&mut self) {
        let to_chain = format!("-p tcp -j {INBOUND}");
        match &self.config.inbound {
            Inbound::Nothing => {}
            Inbound::AllExcept(excluded) => {
                self.append("PREROUTING", to_chain);
                self.each_port(INBOUND, "tcp", excluded, "RETURN");
                self.append(INBOUND, format!("-p tcp -j {IN_REDIRECT}"));
            }
            Inbound::Only(ports) => {
                self.append("PREROUTING", to_chain);
                self.each_port(INBOUND, "tcp", ports, IN_REDIRECT);
            }
        }
    }

    /// Steps 7 to 9: the way into our chain, excluded ports, and what the proxy sends to the app: it binds
    /// 127.0.0.6 (or ::6) there, which must not come back to the proxy.
    fn outbound_first(&mut self) {
        self.append("OUTPUT", format!("-j {OUTPUT}"));
        for port in &self.config.excluded_outbound_ports {
            self.append(OUTPUT, format!("-p tcp --dport {port} -j RETURN"));
            self.append(OUTPUT, format!("-p udp --dport {port} -j RETURN"));
        }
        let passthrough = self.pick("127.0.0.6/32", "::6/128");
        self.append(OUTPUT, format!("-o lo -s {passthrough} -j RETURN"));
    }

    /// Steps 10 and 11, for one owner of the proxy's sockets. `owner` is the match's option.
    ///
    /// An app that calls itself through its service address goes app → proxy → proxy → app; the second
    /// arrow is the proxy's own traffic over lo, which only the first rule sends to the inbound port.
    fn own_traffic(&mut self, owner: &str, id: u32) {
        let (loopback, tunnel) = (self.loopback(), self.config.tunnel_port);
        self.append(
            OUTPUT,
            format!("-o lo ! -d {loopback} -p tcp ! --dport {tunnel} -m owner {owner} {id} -j {IN_REDIRECT}"),
        );
        // An include list with a loopback address asks for exactly what this rule would prevent.
        if !self.includes_loopback() {
            self.append(OUTPUT, format!("-o lo -m owner ! {owner} {id} -j RETURN"));
        }
        self.append(OUTPUT, format!("-m owner {owner} {id} -j RETURN"));
    }

    /// Step 12. Included groups are the matches of one rule: not this one and not that one.
    fn owner_groups(&mut self) {
        match &self.config.owner_groups {
            OwnerGroups::AllExcept(groups) => {
                for group in groups {
                    self.append(OUTPUT, format!("-m owner --gid-owner {group} -j RETURN"));
                }
            }
            OwnerGroups::Only(groups) => {
                let none_of: Vec<_> = groups
                    .iter()
                    .map(|group| format!("-m owner ! --gid-owner {group}"))
                    .collect();
                self.append(OUTPUT, format!("{} -j RETURN", none_of.join(" ")));
            }
        }
    }

    /// Steps 14 and 15 (13 is DNS).
    fn outbound_exclusions(&mut self) {
        self.append(OUTPUT, format!("-d {} -j RETURN", self.loopback()));
        for cidr in self.of_family(&self.config.excluded_destinations) {
            self.append(OUTPUT, format!("-d {cidr} -j RETURN"));
        }
    }

    /// Steps 16 and 17.
    fn outbound_inclusions(&mut self) {
        self.each_port(OUTPUT, "tcp", &self.config.outbound_ports, REDIRECT);
        let interfaces = &self.config.virtual_interfaces;
        match &self.config.outbound {
            Outbound::All => {
                self.append(OUTPUT, format!("-j {REDIRECT}"));
                for name in interfaces {
                    self.insert("PREROUTING", format!("-i {name} -j {REDIRECT}"));
                }
            }
            Outbound::Only(cidrs) => {
                for cidr in self.of_family(cidrs) {
                    for name in interfaces {
                        self.insert("PREROUTING", format!("-i {name} -d {cidr} -j {REDIRECT}"));
                    }
                    self.append(OUTPUT, format!("-d {cidr} -j {REDIRECT}"));
                }
            }
        }
    }

    fn each_port(&mut self, chain: &'static str, protocol: &str, ports: &[NonZeroU16], target: &str) {
        for port in ports {
            self.append(chain, format!("-p {protocol} --dport {port} -j {target}"));
        }
    }

    /// Asked of both families at once, as Istio does.
    fn includes_loopback(&self) -> bool {
        match &self.config.outbound {
            Outbound::All => false,
            Outbound::Only(cidrs) => cidrs.iter().any(|cidr| cidr.addr().is_loopback()),
        }
    }

    fn loopback(&self) -> String {
        self.pick(&self.config.loopback.to_string(), "::1/128")
    }

    fn pick(&self, v4: &str, v6: &str) -> String {
        if self.family == Family::V4 { v4 } else { v6 }.to_owned()
    }

    fn of_family(&self, cidrs: &[IpNet]) -> Vec<IpNet> {
        let of_v4 = self.family == Family::V4;
        cidrs
            .iter()
            .copied()
            .filter(|cidr| matches!(cidr, IpNet::V4(_)) == of_v4)
            .collect()
    }

    fn append(&mut self, chain: &'static str, rule: String) {
        self.add(Table::Nat, chain, Place::Last, rule);
    }

    fn insert(&mut self, chain: &'static str, rule: String) {
        self.add(Table::Nat, chain, Place::First, rule);
    }

    /// No value holds a space ([`crate::config`] sees to it), so words are what spaces part.
    fn add(&mut self, table: Table, chain: &'static str, place: Place, rule: String) {
        let words = rule.split(' ').map(str::to_owned).collect();
        self.rules.push(Rule {
            table,
            chain,
            place,
            words,
        });
    }
}
