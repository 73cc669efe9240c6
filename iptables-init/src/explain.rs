//! `--explain`: one connection, every rule that looks at it, where it goes and why. Pure.
//!
//! Walks the planned rules, not those of the kernel: it needs no privilege, and tells what flags mean.

pub mod question;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Config;
use crate::restore::words;
use crate::rule::{Family, Rule, Target};
use crate::walk::{Direction, LO, Outcome, Packet, Step, Walk, walk};
use crate::{meaning, plan};
pub use question::{Question, Way};

pub use crate::host::Route;

/// Who asks for a connection, if it is one that goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// The explanation.
///
/// `route` is that to the destination, or for a connection that comes in, the interface and the address that it
/// arrives at; `None`: this machine has none, and one is assumed.
pub fn text(config: &Config, question: &Question, owner: Owner, route: Option<&Route>) -> String {
    let assumed = assumed(question);
    let exists = route.is_some();
    let route = route.unwrap_or(&assumed);
    let mut rules = plan::rules(config);
    let packet = packet(question, owner, route);
    let mut text = heading(&packet, exists);
    if Family::of_address(&packet.destination) == Family::V6 && !config.ipv6 {
        rules.clear();
        text.push_str("there are no IPv6 rules (no IPv6 address, or --dual-stack is missing)\n");
    }
    let walk = walk(&rules, &packet);
    let width = walk
        .steps
        .iter()
        .map(|step| words(step.rule).len())
        .max()
        .unwrap_or_default();
    let mut place = None;
    for step in &walk.steps {
        let here = (step.rule.table, step.rule.chain);
        if place != Some(here) {
            let _ = writeln!(text, "{} {}", here.0.name(), here.1.name());
            place = Some(here);
        }
        text.push_str(&line(step, width));
    }
    text.push_str(&conclusion(&walk, &packet));
    text
}

/// As in most pods.
fn assumed(question: &Question) -> Route {
    let source = match question.way {
        Way::Out(to) if to.is_ipv6() => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Way::Out(_) | Way::In(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    Route {
        interface: "eth0".to_owned(),
        source,
    }
}

fn packet(question: &Question, owner: Owner, route: &Route) -> Packet {
    let (direction, source, destination, destination_port) = match question.way {
        Way::Out(to) => (
            Direction::Out {
                interface: route.interface.clone(),
                uid: owner.uid,
                gid: owner.gid,
            },
            route.source,
            to.ip(),
            to.port(),
        ),
        Way::In(port) => (
            Direction::In {
                interface: route.interface.clone(),
            },
            // Anybody: no rule asks for the source of what comes in on another interface than lo.
            match route.source {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            },
            route.source,
            port,
        ),
    };
    Packet {
        direction,
        protocol: question.protocol,
        source,
        source_port: 0,
        destination,
        destination_port,
    }
}

fn heading(packet: &Packet, exists: bool) -> String {
    let (protocol, to, port) = (
        packet.protocol.name(),
        packet.destination,
        packet.destination_port,
    );
    let to = std::net::SocketAddr::new(to, port);
    let mut text = match &packet.direction {
        Direction::Out { interface, uid, gid } => {
            format!("{protocol} to {to}, sent by uid {uid}, gid {gid}, leaving on {interface}")
        }
        Direction::In { interface } => format!("{protocol} to {to}, coming in on {interface}"),
    };
    if !exists {
        let _ = write!(text, " (assumed: this machine has no route)");
    }
    text.push('\n');
    text
}

fn line(step: &Step<'_>, width: usize) -> String {
    let what = match &step.unmet {
        Some((_, fact)) => format!("no: {fact}"),
        None => format!("yes: {}", meaning::of_target(step.rule.target)),
    };
    format!("  {:>2}  {:<width$}  {what}\n", step.position, words(step.rule))
}

fn conclusion(walk: &Walk<'_>, packet: &Packet) -> String {
    let to = std::net::SocketAddr::new(packet.destination, packet.destination_port);
    let goes = match walk.outcome {
        Outcome::Untouched => match &packet.direction {
            Direction::Out { interface, .. } if interface == LO => {
                format!("goes straight to {to}, in this pod; the proxy does not see it")
            }
            Direction::Out { .. } => format!("goes straight to {to}; the proxy does not see it"),
            Direction::In { .. } => format!("arrives at {to}; the proxy does not see it"),
        },
        Outcome::Redirected(port) => {
            format!("goes to port {port} of this pod, where SO_ORIGINAL_DST still tells {to}")
        }
        Outcome::Transparent(port) => {
            format!("goes to the transparent socket on port {port}, still addressed to {to}")
        }
        Outcome::Dropped => "is dropped".to_owned(),
    };
    let why = match deciding(walk) {
        Some(rule) => {
            let (table, chain) = (rule.table.name(), rule.chain.name());
            format!("{table} {chain}: {} ({})", words(rule), meaning::of_rule(rule))
        }
        None => "no rule takes it".to_owned(),
    };
    format!("it {goes}\nbecause of {why}\n")
}

/// The rule to name: the one that sent the packet into the chain where its way ends, since that one made the
/// choice, or the one that returned it.
fn deciding<'a>(walk: &Walk<'a>) -> Option<&'a Rule> {
    let matched: Vec<&Rule> = walk
        .steps
        .iter()
        .filter(|step| step.unmet.is_none())
        .map(|step| step.rule)
        .collect();
    let last = matched.iter().rposition(|rule| match walk.outcome {
        Outcome::Untouched => matches!(rule.target, Target::Return | Target::Accept),
        _ => true,
    })?;
    let end = matched.get(last)?;
    let sent_here = |rule: &&&Rule| matches!(rule.target, Target::Jump(to) if to == end.chain);
    match end.target {
        Target::Redirect(_) | Target::Tproxy { .. } | Target::Drop => matched
            .iter()
            .take(last)
            .rev()
            .find(sent_here)
            .or(Some(end))
            .copied(),
        _ => Some(end),
    }
}

#[cfg(test)]
mod tests;
