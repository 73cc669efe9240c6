//! Rules as `iptables-restore` text. Pure.
//!
//! Tables in alphabetical order; in each, new chains (those with rules, then those only jumped to), rules,
//! `COMMIT`. The kernel takes one table at a time, all or nothing.
//! Source: Istio `tools/istio-iptables/pkg/builder`, whose text this is (`* nat` has its space there).

use std::fmt::{self, Write as _};

use crate::rule::{Chain, Match, Place, Protocol, Rule, Table, Target, Test};

/// The text for the rules of one family.
pub fn render(rules: &[Rule]) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        if rules.iter().any(|rule| rule.table == table) {
            let _ = writeln!(text, "* {}", table.name());
            body(&mut text, rules, table);
            text.push_str("COMMIT\n");
        }
    }
    text
}

/// New chains and rules of one table.
pub(crate) fn body(text: &mut String, rules: &[Rule], table: Table) {
    let rules: Vec<&Rule> = rules.iter().filter(|rule| rule.table == table).collect();
    for chain in own_chains(&rules) {
        let _ = writeln!(text, "-N {}", chain.name());
    }
    for rule in rules {
        let _ = writeln!(text, "{rule}");
    }
}

/// Our chains among `rules`: those that hold rules, then those that are only jumped to.
pub fn own_chains(rules: &[&Rule]) -> Vec<Chain> {
    let holding = rules.iter().map(|rule| rule.chain);
    let targets = rules.iter().filter_map(|rule| match rule.target {
        Target::Jump(chain) => Some(chain),
        _ => None,
    });
    let mut chains: Vec<Chain> = Vec::new();
    for chain in holding.chain(targets).filter(|chain| !chain.is_base()) {
        if !chains.contains(&chain) {
            chains.push(chain);
        }
    }
    chains
}

/// Matches and target as `iptables` takes them.
pub fn words(rule: &Rule) -> String {
    let mut text = String::new();
    for one in &rule.matches {
        let _ = write!(text, "{} ", Word(one));
    }
    let _ = write!(text, "-j {}", target(rule));
    text
}

impl fmt::Display for Rule {
    /// As a line of restore text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Last => write!(f, "-A {} ", self.chain.name())?,
            Place::At(position) => write!(f, "-I {} {position} ", self.chain.name())?,
        }
        f.write_str(&words(self))
    }
}

struct Word<'a>(&'a Match);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.0.negated { "! " } else { "" };
        match &self.0.test {
            // The table has the family already.
            Test::Family(_) => Ok(()),
            Test::InInterface(name) => write!(f, "{not}-i {name}"),
            Test::OutInterface(name) => write!(f, "{not}-o {name}"),
            Test::Source(net) => write!(f, "{not}-s {net}"),
            Test::Destination(net) => write!(f, "{not}-d {net}"),
            Test::Protocol(protocol) => write!(f, "{not}-p {}", protocol.name()),
            Test::SourcePort(port) => write!(f, "{not}--sport {port}"),
            Test::DestinationPort(port) => write!(f, "{not}--dport {port}"),
            Test::DestinationPorts(ports) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                write!(f, "-m multiport {not}--dports {}", ports.join(","))
            }
            Test::Uid(id) => write!(f, "-m owner {not}--uid-owner {id}"),
            Test::Gid(id) => write!(f, "-m owner {not}--gid-owner {id}"),
            Test::Mark(mark) => write!(f, "-m mark {not}--mark {mark}"),
            Test::ConnectionMark(mark) => write!(f, "-m connmark {not}--mark {mark}"),
            Test::Tracked(states) => {
                let states: Vec<&str> = states.iter().map(|state| state.name()).collect();
                write!(f, "-m conntrack {not}--ctstate {}", states.join(","))
            }
        }
    }
}

fn target(rule: &Rule) -> String {
    match rule.target {
        Target::Return => "RETURN".to_owned(),
        Target::Accept => "ACCEPT".to_owned(),
        Target::Drop => "DROP".to_owned(),
        Target::Jump(chain) => chain.name().to_owned(),
        // The singular is Istio's spelling for UDP; iptables takes any beginning of an option that is unique.
        Target::Redirect(port) if rule.protocol() == Some(Protocol::Udp) => {
            format!("REDIRECT --to-port {port}")
        }
        Target::Redirect(port) => format!("REDIRECT --to-ports {port}"),
        Target::Tproxy { port, mark } => format!("TPROXY --tproxy-mark {mark}/0xffffffff --on-port {port}"),
        Target::SetMark(mark) => format!("MARK --set-mark {mark}"),
        Target::SaveMark => "CONNMARK --save-mark".to_owned(),
        Target::RestoreMark => "CONNMARK --restore-mark".to_owned(),
        Target::Zone(zone) => format!("CT --zone {zone}"),
    }
}
