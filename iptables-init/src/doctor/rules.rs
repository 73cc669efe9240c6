//! Rules that are there already: in both backends at once, or in the way of ours.
//!
//! The kernel walks the chains of legacy iptables, of the nf_tables variant and of native nf_tables tables,
//! each for itself: what is in one is invisible to the programs of the others.

use super::finding::{Area, Finding, Severity};
use crate::netlink::nft::{Chain, OUTPUT, PREROUTING};

/// What `iptables-save` of one kind and family printed.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    /// `iptables-legacy`, `ip6tables-nft`.
    pub(super) program: String,
    pub(super) legacy: bool,
    pub(super) text: String,
}

/// One rule as saved.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    table: &'a str,
    rule: &'a str,
}

pub(super) fn examine(saved: &[Saved], chains: &[Chain]) -> Vec<Finding> {
    let mut findings = vec![both(saved, chains)];
    findings.extend(saved.iter().filter_map(foreign));
    findings.extend(foreign_tables(chains));
    findings
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut table = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
        } else if let Some(rule) = line.strip_prefix("-A ") {
            lines.push(Line { table, rule });
        }
    }
    lines
}

fn is_ours(rule: &str) -> bool {
    rule.split(' ').any(|word| word.starts_with("ISTIO_"))
}

fn is_native(chain: &Chain) -> bool {
    chain.table.starts_with("istio-proxy-")
}

/// Rules, ours or not, in more than one place.
fn both(saved: &[Saved], chains: &[Chain]) -> Finding {
    let id = "rules.backends";
    let holds = |legacy: bool, ours: bool| {
        let of = saved.iter().filter(|saved| saved.legacy == legacy);
        of.filter(|saved| lines(&saved.text).iter().any(|line| !ours || is_ours(line.rule)))
            .map(|saved| saved.program.clone())
            .collect::<Vec<String>>()
    };
    let native = chains.iter().any(is_native);
    let ours: Vec<(bool, String)> = [
        (!holds(true, true).is_empty(), "--force-iptables-binary legacy"),
        (!holds(false, true).is_empty(), "--force-iptables-binary nft"),
        (native, "--backend netlink"),
    ]
    .map(|(there, flag)| (there, flag.to_owned()))
    .into_iter()
    .filter(|(there, _)| *there)
    .collect();
    if ours.len() > 1 {
        let mut finding = Finding::new(
            Area::Rules,
            id,
            Severity::Error,
            "our rules are in more than one backend: the kernel follows all of them, and each program sees its own",
        );
        for program in [holds(true, true), holds(false, true)].concat() {
            finding = finding.seen(format!("{program}-save lists ISTIO_ chains"));
        }
        if native {
            finding = finding.seen("nf_tables lists tables istio-proxy-*");
        }
        for (_, flag) in ours {
            finding = finding.fix(format!(
                "to clear one of them: iptables-init --cleanup-only {flag}"
            ));
        }
        return finding;
    }
    let (legacy, nft) = (holds(true, false), holds(false, false));
    if legacy.is_empty() || nft.is_empty() {
        return Finding::new(
            Area::Rules,
            id,
            Severity::Fine,
            "rules are in one backend at most",
        );
    }
    let mut finding = Finding::new(
        Area::Rules,
        id,
        Severity::Warning,
        "there are rules in legacy and in nft tables: the kernel follows both, and each program sees its own",
    );
    for program in legacy.into_iter().chain(nft) {
        finding = finding.seen(format!("{program}-save lists rules"));
    }
    finding.fix("say which one to use: --force-iptables-binary nft (or legacy), and clear the other: iptables-legacy -t nat -F")
}

/// Rules of others in the nat chains that ours hang on.
fn foreign(saved: &Saved) -> Option<Finding> {
    let all = lines(&saved.text);
    let mut before = Vec::new();
    let mut after = Vec::new();
    for chain in ["PREROUTING ", "OUTPUT "] {
        let in_chain = all
            .iter()
            .filter(|line| line.table == "nat" && line.rule.starts_with(chain));
        let mut jumped = false;
        for line in in_chain {
            let jumps = line.rule.contains("-j ISTIO_");
            jumped |= jumps;
            match (jumps || is_ours(line.rule), jumped) {
                (true, _) => {}
                (false, true) => after.push(line.rule),
                (false, false) => before.push(line.rule),
            }
        }
    }
    if before.is_empty() && after.is_empty() {
        return None;
    }
    let severity = if before.is_empty() {
        Severity::Note
    } else {
        Severity::Warning
    };
    let summary = format!(
        "{}: nat rules of others in PREROUTING or OUTPUT: {} before ours, {} after; what one before ours takes, \
         the proxy never sees",
        saved.program,
        before.len(),
        after.len()
    );
    let mut finding = Finding::new(
        Area::Rules,
        format!("rules.foreign.{}", saved.program),
        severity,
        summary,
    );
    for rule in before.iter().chain(&after) {
        finding = finding.seen(format!("-t nat -A {rule}"));
    }
    for rule in &before {
        finding = finding.fix(format!("if nobody needs it: {} -t nat -D {rule}", saved.program));
    }
    Some(finding)
}

/// nat chains of native nf_tables tables that are neither ours nor those of the iptables programs.
fn foreign_tables(chains: &[Chain]) -> Option<Finding> {
    let is_nat = |chain: &&Chain| {
        let hooked = chain
            .hook
            .as_ref()
            .is_some_and(|(kind, number, _)| kind == "nat" && [PREROUTING, OUTPUT].contains(number));
        hooked && !is_native(chain) && chain.table != "nat"
    };
    let found: Vec<&Chain> = chains.iter().filter(is_nat).collect();
    if found.is_empty() {
        return None;
    }
    let mut finding = Finding::new(
        Area::Rules,
        "rules.foreign.nf_tables",
        Severity::Warning,
        "nf_tables tables of others translate addresses here too; the lower priority goes first (ours: -100)",
    );
    for chain in found {
        let priority = chain.hook.as_ref().map_or(0, |(_, _, priority)| *priority);
        let family = match chain.family {
            1 => "inet",
            2 => "ip",
            10 => "ip6",
            _ => "other",
        };
        finding = finding
            .seen(format!(
                "table {family} {}, chain {}, priority {priority}",
                chain.table, chain.name
            ))
            .fix(format!("look at it: nft list table {family} {}", chain.table));
    }
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n";

    fn saved(legacy: bool, text: &str) -> Saved {
        Saved {
            program: if legacy { "iptables-legacy" } else { "iptables-nft" }.to_owned(),
            legacy,
            text: text.to_owned(),
        }
    }

    fn check(saved: &[Saved], chains: &[Chain], expected: &[(&str, Severity)]) -> Vec<Finding> {
        let findings = examine(saved, chains);
        let found: Vec<_> = findings.iter().map(|f| (f.id.as_str(), f.severity)).collect();
        assert_eq!(found, expected);
        findings
    }

    fn chain(table: &str, kind: &str) -> Chain {
        Chain {
            family: 1,
            table: table.to_owned(),
            name: "out".to_owned(),
            hook: Some((kind.to_owned(), OUTPUT, -200)),
        }
    }

    #[test]
    fn rules_in_one_backend_are_fine() {
        check(&[], &[], &[("rules.backends", Severity::Fine)]);
        check(
            &[saved(false, OURS), saved(true, "*nat\nCOMMIT\n")],
            &[],
            &[("rules.backends", Severity::Fine)],
        );
    }

    #[test]
    fn our_rules_in_two_backends_are_an_error_with_a_way_out() {
        let found = check(
            &[saved(false, OURS), saved(true, OURS)],
            &[],
            &[("rules.backends", Severity::Error)],
        );
        assert_eq!(
            found[0].fix[0],
            "to clear one of them: iptables-init --cleanup-only --force-iptables-binary legacy"
        );
        check(
            &[saved(true, OURS)],
            &[chain("istio-proxy-nat", "nat")],
            &[("rules.backends", Severity::Error)],
        );
    }

    #[test]
    fn rules_of_others_in_both_backends_are_a_warning() {
        let filter = "*filter\n-A INPUT -j DROP\nCOMMIT\n";
        check(
            &[saved(false, OURS), saved(true, filter)],
            &[],
            &[("rules.backends", Severity::Warning)],
        );
    }

    #[test]
    fn foreign_nat_rules_are_told_apart_by_their_place() {
        let before = OURS.replace("-A OUTPUT", "-A OUTPUT -p udp -j RETURN\n-A OUTPUT");
        let found = check(
            &[saved(false, &before)],
            &[],
            &[
                ("rules.backends", Severity::Fine),
                ("rules.foreign.iptables-nft", Severity::Warning),
            ],
        );
        assert_eq!(
            found[1].fix,
            ["if nobody needs it: iptables-nft -t nat -D OUTPUT -p udp -j RETURN"]
        );
        let after = OURS.replace("COMMIT", "-A OUTPUT -p udp -j RETURN\nCOMMIT");
        check(
            &[saved(false, &after)],
            &[],
            &[
                ("rules.backends", Severity::Fine),
                ("rules.foreign.iptables-nft", Severity::Note),
            ],
        );
    }

    #[test]
    fn native_nat_tables_of_others_are_named() {
        let found = check(
            &[],
            &[chain("cni", "nat"), chain("cni", "filter"), chain("nat", "nat")],
            &[
                ("rules.backends", Severity::Fine),
                ("rules.foreign.nf_tables", Severity::Warning),
            ],
        );
        assert_eq!(found[1].seen, ["table inet cni, chain out, priority -200"]);
    }
}
