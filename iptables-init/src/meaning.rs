//! A rule as a sentence.

use std::fmt::Write as _;

use crate::rule::{Match, Rule, Target, Test};

/// Matches, then what happens: `tcp, to port 15008: left alone`.
pub fn of_rule(rule: &Rule) -> String {
    let mut matches: Vec<String> = Vec::new();
    // Istio's include list of groups says "none of these" in one match for each.
    let mut others: Vec<&Match> = Vec::new();
    for one in &rule.matches {
        match one.test {
            Test::Gid(_) if one.negated => others.push(one),
            _ => matches.push(of_match(one)),
        }
    }
    if !others.is_empty() {
        let ids: Vec<String> = others.iter().map(|one| id(&one.test)).collect();
        matches.push(format!("not sent by gid {}", ids.join(" or ")));
    }
    let mut text = if matches.is_empty() {
        "everything".to_owned()
    } else {
        matches.join(", ")
    };
    let _ = write!(text, ": {}", of_target(rule.target));
    text
}

fn id(test: &Test) -> String {
    match test {
        Test::Uid(id) | Test::Gid(id) => id.to_string(),
        _ => String::new(),
    }
}

fn of_match(one: &Match) -> String {
    let not = if one.negated { "not " } else { "" };
    let what = match &one.test {
        Test::Family(family) => family.to_string(),
        Test::InInterface(name) => format!("coming in on {name}"),
        Test::OutInterface(name) => format!("leaving on {name}"),
        Test::Source(net) => format!("from {net}"),
        Test::Destination(net) => format!("to {net}"),
        Test::Protocol(protocol) => protocol.name().to_owned(),
        Test::SourcePort(port) => format!("from port {port}"),
        Test::DestinationPort(port) => format!("to port {port}"),
        Test::DestinationPorts(ports) => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            format!("to port {}", ports.join(" or "))
        }
        Test::Uid(_) => format!("sent by uid {}", id(&one.test)),
        Test::Gid(_) => format!("sent by gid {}", id(&one.test)),
        Test::Mark(mark) => format!("marked {mark}"),
        Test::ConnectionMark(mark) => format!("of a connection marked {mark}"),
        Test::Tracked(states) => {
            let states: Vec<String> = states.iter().map(|state| state.name().to_lowercase()).collect();
            format!("of a connection that is {}", states.join(" or "))
        }
    };
    format!("{not}{what}")
}

/// What happens to what matches.
pub fn of_target(target: Target) -> String {
    match target {
        Target::Return => "left alone by the rest of this chain".to_owned(),
        Target::Accept => "let through".to_owned(),
        Target::Drop => "dropped".to_owned(),
        Target::Jump(chain) => format!("on to {}", chain.name()),
        Target::Redirect(port) => format!("redirected to port {port}"),
        Target::Tproxy { port, .. } => format!("handed to the transparent socket on port {port}"),
        Target::SetMark(mark) => format!("marked {mark}"),
        Target::SaveMark => "the connection gets the packet's mark".to_owned(),
        Target::RestoreMark => "the packet gets the connection's mark".to_owned(),
        Target::Zone(zone) => format!("tracked in zone {zone}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use crate::testing::config;

    #[test]
    fn rules_become_sentences() {
        let rules = plan::rules(&config("-u 1337 -i * -b * -m TPROXY"));
        let sentences: Vec<String> = rules.iter().map(of_rule).collect();
        for expected in [
            "tcp, to port 15008: left alone by the rest of this chain",
            "everything: on to ISTIO_OUTPUT",
            "leaving on lo, not to 127.0.0.1/32, tcp, not to port 15008, sent by uid 1337: on to ISTIO_IN_REDIRECT",
            "tcp: redirected to port 15001",
            "not to 127.0.0.1/32, tcp: handed to the transparent socket on port 15006",
            "tcp, of a connection that is related or established: on to ISTIO_DIVERT",
        ] {
            assert!(
                sentences.iter().any(|sentence| sentence == expected),
                "{expected}: {sentences:#?}"
            );
        }
    }
}
