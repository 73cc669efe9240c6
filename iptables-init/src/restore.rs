//! Rules as `iptables-restore` text. Pure.
//!
//! Tables in alphabetical order; in each, new chains (those with rules, then those only jumped to), rules,
//! `COMMIT`. The kernel takes one table at a time, all or nothing.
//! Source: Istio `tools/istio-iptables/pkg/builder`, whose text this is (`* nat` has its space there).

use std::fmt::Write as _;

use crate::config::Config;
use crate::loopback::INBOUND_SOURCE;
use crate::plan::{self, Family, Rule, Table};

/// The text for the rules of one family.
pub fn render(rules: &[Rule]) -> String {
    let mut tables: Vec<Table> = rules.iter().map(|rule| rule.table).collect();
    tables.sort_unstable();
    tables.dedup();
    let mut text = String::new();
    for table in tables {
        let rules: Vec<&Rule> = rules.iter().filter(|rule| rule.table == table).collect();
        let _ = writeln!(text, "* {}", table.name());
        for chain in chains(&rules) {
            let _ = writeln!(text, "-N {chain}");
        }
        for rule in rules {
            let _ = writeln!(text, "{rule}");
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// Our chains among `rules`: those that hold rules, then those that are only jumped to.
pub fn chains<'a>(rules: &[&'a Rule]) -> Vec<&'a str> {
    let holding = rules.iter().map(|rule| rule.chain);
    let targets = rules.iter().filter_map(|rule| rule.target());
    let mut chains: Vec<&str> = Vec::new();
    for chain in holding.chain(targets).filter(|chain| chain.starts_with("ISTIO_")) {
        if !chains.contains(&chain) {
            chains.push(chain);
        }
    }
    chains
}

/// What `--dry-run` prints: every step, commands as comments before the text they would be fed.
pub fn dry_run(config: &Config) -> String {
    let mut text = String::from("# iptables-restore --noflush\n");
    text.push_str(&render(&plan::rules(config, Family::V4)));
    if config.ipv6 {
        text.push_str("# ip6tables-restore --noflush\n");
        text.push_str(&render(&plan::rules(config, Family::V6)));
        let _ = writeln!(text, "# ip -6 addr add {INBOUND_SOURCE}/128 dev lo");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Place;

    fn rule(table: Table, chain: &'static str, words: &str) -> Rule {
        Rule {
            table,
            chain,
            place: Place::Last,
            words: words.split(' ').map(str::to_owned).collect(),
        }
    }

    #[test]
    fn tables_are_sorted_and_chains_come_before_rules() {
        let rules = [
            rule(Table::Nat, "PREROUTING", "-p tcp -j ISTIO_ONLY_TARGET"),
            rule(Table::Nat, "ISTIO_B", "-p tcp -j REDIRECT --to-ports 15001"),
            rule(Table::Mangle, "ISTIO_A", "-j DROP"),
            rule(Table::Nat, "ISTIO_B", "-j RETURN"),
        ];
        let expected = "* mangle\n-N ISTIO_A\n-A ISTIO_A -j DROP\nCOMMIT\n\
                        * nat\n-N ISTIO_B\n-N ISTIO_ONLY_TARGET\n-A PREROUTING -p tcp -j ISTIO_ONLY_TARGET\n\
                        -A ISTIO_B -p tcp -j REDIRECT --to-ports 15001\n-A ISTIO_B -j RETURN\nCOMMIT\n";
        assert_eq!(render(&rules), expected);
        assert_eq!(render(&[]), "");
    }
}
