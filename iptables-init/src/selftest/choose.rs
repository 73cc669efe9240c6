//! Few connections that prove many rules. Pure.

use std::collections::BTreeSet;

use crate::rule::Rule;
use crate::walk::{Direction, LO, Outcome, Packet, walk};

/// Most connections of one test.
const MOST: usize = 48;

pub(super) struct Chosen {
    pub(super) packets: Vec<(Packet, Outcome)>,
    /// Indices of rules whose loss would send one of the packets elsewhere.
    pub(super) covered: BTreeSet<usize>,
}

/// Chooses from `candidates`, of which earlier ones are better.
///
/// One of each plain kind first, whatever it proves: a reader looks for these.
pub(super) fn choose(rules: &[Rule], candidates: &[Packet]) -> Chosen {
    let mut chosen = Chosen {
        packets: Vec::new(),
        covered: BTreeSet::new(),
    };
    let mut kinds = BTreeSet::new();
    let mut rest = Vec::new();
    for packet in candidates {
        let outcome = walk(rules, packet).outcome;
        if kinds.insert(kind(packet, outcome)) {
            chosen.covered.extend(proves(rules, packet, outcome));
            chosen.packets.push((packet.clone(), outcome));
        } else {
            rest.push((packet, outcome));
        }
    }
    for (packet, outcome) in rest {
        if chosen.packets.len() >= MOST {
            break;
        }
        let proves = proves(rules, packet, outcome);
        if !proves.is_subset(&chosen.covered) {
            chosen.covered.extend(proves);
            chosen.packets.push((packet.clone(), outcome));
        }
    }
    chosen
}

/// Direction, over lo or not, whose, and how it ends.
fn kind(packet: &Packet, outcome: Outcome) -> (bool, bool, String) {
    let over_lo = matches!(&packet.direction, Direction::Out { interface, .. } if interface == LO);
    let comes_in = matches!(packet.direction, Direction::In { .. });
    (comes_in, over_lo, format!("{outcome:?}"))
}

/// Rules without which `packet` would end up elsewhere. Only one that matches can make a difference.
fn proves(rules: &[Rule], packet: &Packet, outcome: Outcome) -> BTreeSet<usize> {
    let matched: Vec<&Rule> = walk(rules, packet)
        .steps
        .iter()
        .filter(|step| step.unmet.is_none())
        .map(|step| step.rule)
        .collect();
    let without = |index: usize| {
        rules
            .iter()
            .enumerate()
            .filter(move |(i, _)| *i != index)
            .map(|(_, rule)| rule)
    };
    let decides = |(index, rule): (usize, &Rule)| {
        let took_part = matched.iter().any(|one| std::ptr::eq(*one, rule));
        (took_part && walk(without(index), packet).outcome != outcome).then_some(index)
    };
    rules.iter().enumerate().filter_map(decides).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use crate::rule::Protocol;
    use crate::testing::config;

    fn out(interface: &str, uid: u32, gid: u32, to: [u8; 4], port: u16) -> Packet {
        let over_lo = interface == LO;
        Packet {
            direction: Direction::Out {
                interface: interface.to_owned(),
                uid,
                gid,
            },
            protocol: Protocol::Tcp,
            source: if over_lo {
                to.into()
            } else {
                [10, 20, 0, 11].into()
            },
            source_port: 0,
            destination: to.into(),
            destination_port: port,
        }
    }

    #[test]
    fn a_connection_that_proves_nothing_new_is_left_out() {
        let rules = plan::rules(&config("-u 1337 -g 1337 -i * -x 10.1.0.0/16"));
        let captured = out("eth0", 1000, 1000, [10, 0, 0, 5], 80);
        let same = out("eth0", 1000, 1000, [10, 0, 0, 6], 80);
        let by_uid = out("eth0", 1337, 1000, [10, 0, 0, 5], 80);
        let by_gid = out("eth0", 1000, 1337, [10, 0, 0, 5], 80);
        let excluded = out("eth0", 1000, 1000, [10, 1, 0, 5], 80);
        let chosen = choose(
            &rules,
            &[
                captured.clone(),
                same,
                by_uid.clone(),
                by_gid.clone(),
                excluded.clone(),
            ],
        );
        let packets: Vec<&Packet> = chosen.packets.iter().map(|(packet, _)| packet).collect();
        assert_eq!(packets, [&captured, &by_uid, &by_gid, &excluded]);
        let covered: Vec<String> = chosen
            .covered
            .iter()
            .filter_map(|index| rules.get(*index))
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            covered,
            [
                "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
                "-A OUTPUT -j ISTIO_OUTPUT",
                "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
                "-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN",
                "-A ISTIO_OUTPUT -d 10.1.0.0/16 -j RETURN",
                "-A ISTIO_OUTPUT -j ISTIO_REDIRECT",
            ]
        );
    }
}
