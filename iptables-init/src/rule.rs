//! What one rule is: table, chain, place, matches and target, as values.
//!
//! Everything that knows rules meets here: [`crate::plan`] makes them, [`crate::restore`] and [`crate::nft`]
//! write them as text, [`crate::saved`] reads them back; encoders and explanations walk them. Knows no flags
//! and no programs. The two dialects (xtables and native nf_tables) differ in names and words only, so each
//! name here has both.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;

/// IPv4 or IPv6; with iptables each has its own tables and its own programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Family::V4,
            IpNet::V6(_) => Family::V6,
        }
    }

    pub fn of_address(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
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
    Raw,
}

impl Table {
    pub const ALL: [Table; 3] = [Table::Mangle, Table::Nat, Table::Raw];

    /// As xtables calls it.
    pub fn name(self) -> &'static str {
        match self {
            Table::Mangle => "mangle",
            Table::Nat => "nat",
            Table::Raw => "raw",
        }
    }

    /// The native table of family `inet`.
    pub fn native_name(self) -> &'static str {
        match self {
            Table::Mangle => "istio-proxy-mangle",
            Table::Nat => "istio-proxy-nat",
            Table::Raw => "istio-proxy-raw",
        }
    }

    /// Priority of the native base chains: those of the xtables hooks.
    ///
    /// Source: linux/netfilter_ipv4.h `nf_ip_hook_priorities`.
    pub fn priority(self) -> i32 {
        match self {
            Table::Mangle => -150,
            Table::Nat => -100,
            Table::Raw => -300,
        }
    }

    /// Type of the native base chain `chain` of this table.
    ///
    /// `route` where a mark set on output must change the route, as xtables' mangle OUTPUT does.
    pub fn chain_type(self, chain: Chain) -> &'static str {
        match (self, chain) {
            (Table::Nat, _) => "nat",
            (Table::Mangle, Chain::Output) => "route",
            _ => "filter",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Table::ALL.into_iter().find(|table| table.name() == name)
    }
}

/// A chain: two of the kernel's own, the rest ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chain {
    /// Packets that come in.
    Prerouting,
    /// Packets that a process of this namespace sends.
    Output,
    IstioInbound,
    IstioRedirect,
    IstioInRedirect,
    IstioOutput,
    IstioOutputDns,
    IstioDivert,
    IstioTproxy,
    IstioDrop,
}

impl Chain {
    pub const ALL: [Chain; 10] = [
        Chain::Prerouting,
        Chain::Output,
        Chain::IstioInbound,
        Chain::IstioRedirect,
        Chain::IstioInRedirect,
        Chain::IstioOutput,
        Chain::IstioOutputDns,
        Chain::IstioDivert,
        Chain::IstioTproxy,
        Chain::IstioDrop,
    ];

    /// As xtables calls it.
    pub fn name(self) -> &'static str {
        match self {
            Chain::Prerouting => "PREROUTING",
            Chain::Output => "OUTPUT",
            Chain::IstioInbound => "ISTIO_INBOUND",
            Chain::IstioRedirect => "ISTIO_REDIRECT",
            Chain::IstioInRedirect => "ISTIO_IN_REDIRECT",
            Chain::IstioOutput => "ISTIO_OUTPUT",
            Chain::IstioOutputDns => "ISTIO_OUTPUT_DNS",
            Chain::IstioDivert => "ISTIO_DIVERT",
            Chain::IstioTproxy => "ISTIO_TPROXY",
            Chain::IstioDrop => "ISTIO_DROP",
        }
    }

    /// As the native tables call it.
    pub fn native_name(self) -> &'static str {
        match self {
            Chain::Prerouting => "prerouting",
            Chain::Output => "output",
            Chain::IstioInbound => "istio-inbound",
            Chain::IstioRedirect => "istio-redirect",
            Chain::IstioInRedirect => "istio-in-redirect",
            Chain::IstioOutput => "istio-output",
            Chain::IstioOutputDns => "istio-output-dns",
            Chain::IstioDivert => "istio-divert",
            Chain::IstioTproxy => "istio-tproxy",
            Chain::IstioDrop => "istio-drop",
        }
    }

    /// Whether packets enter here by themselves; all other chains are ours and must be jumped to.
    pub fn is_base(self) -> bool {
        matches!(self, Chain::Prerouting | Chain::Output)
    }

    pub fn parse(name: &str) -> Option<Self> {
        Chain::ALL.into_iter().find(|chain| chain.name() == name)
    }
}

/// Where in its chain a rule goes when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Last,
    /// Before the rule that is at this position now; the first is 1.
    At(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

/// A user or group: its number, and the name it was given by, if it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub number: u32,
    pub name: Option<String>,
}

impl From<u32> for Id {
    fn from(number: u32) -> Self {
        Id { number, name: None }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.number),
        }
    }
}

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrackedState {
    Invalid,
    Established,
    Related,
}

impl TrackedState {
    /// As iptables spells it; nft uses lower case.
    pub fn name(self) -> &'static str {
        match self {
            TrackedState::Invalid => "INVALID",
            TrackedState::Established => "ESTABLISHED",
            TrackedState::Related => "RELATED",
        }
    }
}

/// One question to a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    /// Native rules only: with iptables the table has the family.
    Family(Family),
    /// A trailing `+` matches any ending.
    InInterface(String),
    OutInterface(String),
    Source(IpNet),
    Destination(IpNet),
    Protocol(Protocol),
    /// A [`Test::Protocol`] stands before it in the rule, as for the other two.
    SourcePort(u16),
    DestinationPort(u16),
    /// Any of them; negated: none of them.
    DestinationPorts(Vec<u16>),
    /// File-system uid of the process that owns the socket.
    Uid(Id),
    Gid(Id),
    /// The packet's mark (all 32 bits).
    Mark(u32),
    /// The mark of the tracked connection.
    ConnectionMark(u32),
    /// Any of them.
    Tracked(Vec<TrackedState>),
}

/// A test, or its opposite.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    pub test: Test,
    pub negated: bool,
}

/// What happens to a packet that passes all matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Back to the chain that jumped here; in a base chain: accepted.
    Return,
    Accept,
    Drop,
    Jump(Chain),
    /// To this port of the machine itself.
    Redirect(NonZeroU16),
    /// To the transparent socket on this port, marked; ends the table.
    Tproxy {
        port: NonZeroU16,
        mark: u32,
    },
    /// Sets the packet's mark and goes on with the next rule, as do the ones below.
    SetMark(u32),
    /// The packet's mark becomes the connection's.
    SaveMark,
    /// The connection's mark becomes the packet's.
    RestoreMark,
    /// Tracks the connection in this zone; only the first zone that is set counts.
    Zone(u16),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// `None`: the same rule is in the tables of both families.
    pub family: Option<Family>,
    pub table: Table,
    pub chain: Chain,
    pub place: Place,
    /// In the order in which they are written.
    pub matches: Vec<Match>,
    pub target: Target,
}

impl Rule {
    /// Whether this rule is in the tables of `family`.
    pub fn applies_to(&self, family: Family) -> bool {
        self.family.is_none_or(|own| own == family)
    }

    /// The protocol that it asks for.
    pub fn protocol(&self) -> Option<Protocol> {
        self.matches.iter().find_map(|m| match m.test {
            Test::Protocol(protocol) if !m.negated => Some(protocol),
            _ => None,
        })
    }
}

/// The rules of `family`, in the order in which they are written.
pub fn of_family(rules: &[Rule], family: Family) -> Vec<Rule> {
    rules
        .iter()
        .filter(|rule| rule.applies_to(family))
        .cloned()
        .collect()
}

/// The chains that the kernel has once `rules` are written, each rule where it ends up: insertions are done.
///
/// Chains that are only jumped to are there, empty.
pub fn chains<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> BTreeMap<(Table, Chain), Vec<&'a Rule>> {
    let mut chains: BTreeMap<(Table, Chain), Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        let chain = chains.entry((rule.table, rule.chain)).or_default();
        match rule.place {
            Place::Last => chain.push(rule),
            Place::At(position) => chain.insert(position.saturating_sub(1).min(chain.len()), rule),
        }
        if let Target::Jump(to) = rule.target {
            chains.entry((rule.table, to)).or_default();
        }
    }
    chains
}
