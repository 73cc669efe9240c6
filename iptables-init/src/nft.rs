//! Rules as a file for `nft -f`. Pure.
//!
//! One file is one transaction: the kernel takes all of it or nothing. Each of our tables is added, so that it
//! exists, deleted, so that nothing of an earlier run stays, and added anew if it is wanted.
//! Source: nft(8); names and priorities are those of Istio `tools/istio-nftables`.

use std::fmt::{self, Write as _};

use ipnet::IpNet;

use crate::plan::NativeChain;
use crate::rule::{Chain, Family, Match, Rule, Table, Target, Test};

/// The file that replaces all our tables by `chains`.
pub fn render(chains: &[NativeChain]) -> String {
    let mut text = cleanup();
    for table in Table::ALL {
        let chains: Vec<&NativeChain> = chains.iter().filter(|chain| chain.table == table).collect();
        if chains.is_empty() {
            continue;
        }
        let _ = writeln!(text, "add table inet {}", table.native_name());
        for NativeChain { chain, .. } in &chains {
            let _ = writeln!(
                text,
                "add chain inet {} {}{}",
                table.native_name(),
                chain.native_name(),
                hook(table, *chain)
            );
        }
        for NativeChain { chain, rules, .. } in chains {
            for rule in rules {
                let (table, chain) = (table.native_name(), chain.native_name());
                let _ = writeln!(text, "add rule inet {table} {chain} {}", words(rule));
            }
        }
    }
    text
}

/// The file that removes all our tables, whether they are there or not.
pub fn cleanup() -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let name = table.native_name();
        let _ = writeln!(text, "add table inet {name}\ndelete table inet {name}");
    }
    text
}

fn hook(table: Table, chain: Chain) -> String {
    if !chain.is_base() {
        return String::new();
    }
    let (kind, priority) = (table.chain_type(chain), table.priority());
    format!(
        " {{ type {kind} hook {} priority {priority} ; policy accept ; }}",
        chain.native_name()
    )
}

/// Matches, a counter, and what is done.
pub fn words(rule: &Rule) -> String {
    let mut text = String::new();
    for (index, one) in rule.matches.iter().enumerate() {
        // A port asks for its protocol by itself.
        let port_follows = matches!(
            rule.matches.get(index + 1).map(|next| &next.test),
            Some(Test::SourcePort(_) | Test::DestinationPort(_) | Test::DestinationPorts(_))
        );
        if !(port_follows && matches!(one.test, Test::Protocol(_))) {
            let _ = write!(text, "{} ", Word { rule, one });
        }
    }
    let _ = write!(text, "counter {}", statement(rule));
    text
}

struct Word<'a> {
    rule: &'a Rule,
    one: &'a Match,
}

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.one.negated { "!= " } else { "" };
        let protocol = self.rule.protocol().map_or("th", |protocol| protocol.name());
        match &self.one.test {
            Test::Family(Family::V4) => write!(f, "meta nfproto {not}ipv4"),
            Test::Family(Family::V6) => write!(f, "meta nfproto {not}ipv6"),
            Test::InInterface(name) => write!(f, "iifname {not}\"{}\"", wildcard(name)),
            Test::OutInterface(name) => write!(f, "oifname {not}\"{}\"", wildcard(name)),
            Test::Source(net) => write!(f, "{} saddr {not}{net}", header(net)),
            Test::Destination(net) => write!(f, "{} daddr {not}{net}", header(net)),
            Test::Protocol(protocol) => write!(f, "meta l4proto {not}{}", protocol.name()),
            Test::SourcePort(port) => write!(f, "{protocol} sport {not}{port}"),
            Test::DestinationPort(port) => write!(f, "{protocol} dport {not}{port}"),
            Test::DestinationPorts(ports) if self.one.negated => {
                // None of them: each in turn, which needs no set.
                let each: Vec<String> = ports
                    .iter()
                    .map(|port| format!("{protocol} dport != {port}"))
                    .collect();
                f.write_str(&each.join(" "))
            }
            Test::DestinationPorts(ports) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                write!(f, "{protocol} dport {{ {} }}", ports.join(", "))
            }
            // Numbers, as nft gives them back: names would look like a change at every run.
            Test::Uid(id) => write!(f, "meta skuid {not}{}", id.number),
            Test::Gid(id) => write!(f, "meta skgid {not}{}", id.number),
            Test::Mark(mark) => write!(f, "meta mark {not}{mark}"),
            Test::ConnectionMark(mark) => write!(f, "ct mark {not}{mark}"),
            Test::Tracked(states) => {
                let states: Vec<String> = states
                    .iter()
                    .map(|state| state.name().to_ascii_lowercase())
                    .collect();
                write!(f, "ct state {not}{}", states.join(","))
            }
        }
    }
}

fn statement(rule: &Rule) -> String {
    match rule.target {
        Target::Return => "return".to_owned(),
        Target::Accept => "accept".to_owned(),
        Target::Drop => "drop".to_owned(),
        Target::Jump(chain) => format!("jump {}", chain.native_name()),
        Target::Redirect(port) => format!("redirect to :{port}"),
        Target::Tproxy { port, mark } => {
            let family = if rule.family == Some(Family::V6) {
                "ip6"
            } else {
                "ip"
            };
            format!("tproxy {family} to :{port} meta mark set {mark} accept")
        }
        Target::SetMark(mark) => format!("meta mark set {mark}"),
        Target::SaveMark => "ct mark set meta mark".to_owned(),
        Target::RestoreMark => "meta mark set ct mark".to_owned(),
        Target::Zone(zone) => format!("ct zone set {zone}"),
    }
}

fn header(net: &IpNet) -> &'static str {
    match net {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    }
}

/// What xtables writes `eth+` is `eth*` here.
fn wildcard(name: &str) -> String {
    match name.strip_suffix('+') {
        Some(start) => format!("{start}*"),
        None => name.to_owned(),
    }
}
