//! Proves with connections that the rules in the kernel do what was planned.
//!
//! The plan itself says which connections: `choose` takes away one rule after the other on paper and looks for
//! a connection that would then end up elsewhere, so a rule that is missing or wrong in the kernel shows. A child
//! in a namespace of its own, joined by a pair of interfaces, is "elsewhere" ([`peer`]); where none can be made,
//! or another user's id cannot be taken, what needs it is reported as not proven, never as good.
//! Source of the idea: Istio `tools/istio-iptables/pkg/validation`, which makes one connection.

mod candidates;
mod choose;
mod owner;
pub mod peer;
mod traffic;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::log::Log;
use crate::rule::Rule;
use crate::walk::{Direction, LO, Outcome, Packet};
use crate::{host, meaning, plan};
use candidates::Surroundings;
use peer::Peer;

/// The whole test ends by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// Somewhere else than the plan says.
    Failed(String),
    /// It cannot be told where.
    Unproven(String),
}

/// One connection that was tried.
#[derive(Clone, Debug)]
pub struct Check {
    pub packet: Packet,
    pub expected: Outcome,
    pub verdict: Verdict,
}

/// Everything that was tried.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub checks: Vec<Check>,
    /// What stood in the way of trying more.
    pub obstacles: Vec<String>,
    /// Rules whose absence no connection would show, as sentences.
    pub uncovered: Vec<String>,
    /// Rules that some connection proves.
    pub covered: usize,
    pub took: Duration,
}

impl Report {
    /// Whether a connection went where it should not.
    pub fn has_failed(&self) -> bool {
        self.checks
            .iter()
            .any(|check| matches!(check.verdict, Verdict::Failed(_)))
    }

    fn count(&self, of: fn(&Verdict) -> bool) -> usize {
        self.checks.iter().filter(|check| of(&check.verdict)).count()
    }

    /// One line.
    pub fn summary(&self) -> String {
        format!(
            "self-test: {} connections as planned, {} not, {} undecided, in {} ms; they prove {} rules, and {} are not proven",
            self.count(|verdict| *verdict == Verdict::Passed),
            self.count(|verdict| matches!(verdict, Verdict::Failed(_))),
            self.count(|verdict| matches!(verdict, Verdict::Unproven(_))),
            self.took.as_millis(),
            self.covered,
            self.uncovered.len()
        )
    }
}

/// Tries connections, in this thread's network namespace, within two seconds.
pub fn run(config: &Config) -> Report {
    let start = Instant::now();
    let rules = plan::rules(config);
    let mut report = Report::default();
    if !host::is_up(LO) {
        report.obstacles.push(
            "lo is down, and whatever is redirected goes over lo: nothing is tried; ip link set lo up"
                .to_owned(),
        );
        report.uncovered = rules.iter().map(described).collect();
        return report;
    }
    let peer = match Peer::join(config.ipv6) {
        Ok(peer) => Some(peer),
        Err(reason) => {
            report.obstacles.push(format!(
                "nobody elsewhere to connect with, so nothing that comes in is tried: {reason}"
            ));
            None
        }
    };
    let owners = owner::available(config);
    if !owners.can_change {
        report.obstacles.push(format!(
            "only uid {} and gid {} can be tried: other ids take the capabilities SETUID and SETGID",
            owners.own.uid, owners.own.gid
        ));
    }
    let surroundings = Surroundings::look(config, peer.as_ref().map(|_| peer::addresses(config.ipv6)));
    report.obstacles.extend(surroundings.obstacles.iter().cloned());
    let candidates = candidates::all(config, &rules, &owners, &surroundings);
    let chosen = choose::choose(&rules, &candidates);
    let planned: BTreeSet<usize> = (0..rules.len()).collect();
    let uncovered = planned.difference(&chosen.covered);
    report.uncovered = uncovered
        .filter_map(|index| rules.get(*index))
        .map(described)
        .collect();
    report.covered = chosen.covered.len();
    let tried = traffic::run(chosen.packets, peer, start + PATIENCE);
    report.obstacles.extend(tried.obstacles);
    report.checks = tried.checks;
    report.took = start.elapsed();
    report
}

fn described(rule: &Rule) -> String {
    let (table, chain) = (rule.table.name(), rule.chain.name());
    format!("{table} {chain}: {}", meaning::of_rule(rule))
}

/// Writes what was found: failures as errors, what could not be proven as warnings, the rest as information.
pub fn tell(report: &Report, log: &Log) {
    for obstacle in &report.obstacles {
        log.warn(&format!("self-test: {obstacle}"));
    }
    for check in &report.checks {
        let text = sentence(check);
        match &check.verdict {
            Verdict::Passed => log.info(&format!("self-test: good: {text}")),
            Verdict::Failed(what) => log.error(&format!("self-test: failed: {text}; but {what}")),
            Verdict::Unproven(why) => log.warn(&format!("self-test: not proven: {text}; {why}")),
        }
    }
    for rule in &report.uncovered {
        log.debug(&format!(
            "self-test: no connection would show the loss of: {rule}"
        ));
    }
    log.info(&report.summary());
}

/// `tcp to 203.0.113.2:15002, sent by uid 0, gid 0: to port 15001`
fn sentence(check: &Check) -> String {
    let packet = &check.packet;
    let to = SocketAddr::new(packet.destination, packet.destination_port);
    let protocol = packet.protocol.name();
    let who = match &packet.direction {
        Direction::Out { uid, gid, .. }
            if packet.source == packet.destination || packet.source.is_unspecified() =>
        {
            format!("sent by uid {uid}, gid {gid}")
        }
        Direction::Out { uid, gid, .. } => format!("from {}, sent by uid {uid}, gid {gid}", packet.source),
        Direction::In { .. } => "from elsewhere".to_owned(),
    };
    let expected = match check.expected {
        Outcome::Untouched => "left alone".to_owned(),
        Outcome::Redirected(port) => format!("redirected to port {port}"),
        Outcome::Transparent(port) => format!("handed to port {port}"),
        Outcome::Dropped => "dropped".to_owned(),
    };
    format!("{protocol} to {to}, {who}: should be {expected}")
}
