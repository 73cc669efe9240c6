//! The same rules for native nftables: tables of family `inet`, which both families share.
//!
//! Insertions are done here, so that whoever writes the chains only appends. Source: Istio
//! `tools/istio-nftables/pkg/capture/run.go`. Two differences, both on purpose: mangle output has type `route`
//! ([`Table::chain_type`]); and without IPv6 rules an `inet` table must not take IPv6 packets either, so its
//! base chains return them first.

use crate::config::Config;
use crate::rule::{Chain, Family, Place, Rule, Table, Target, Test, chains};

/// One chain of a native table, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeChain {
    pub table: Table,
    pub chain: Chain,
    /// In the order in which the kernel looks at them. [`Rule::place`] means nothing any more.
    pub rules: Vec<Rule>,
}

/// All chains of all native tables; those that hold nothing and are jumped to by nobody are left out.
///
/// Sorted by table, then base chains first.
pub fn native(config: &Config) -> Vec<NativeChain> {
    let rules = super::rules(config);
    let mut native = Vec::new();
    for ((table, chain), rules) in chains(&rules) {
        let mut rules: Vec<Rule> = rules
            .into_iter()
            .map(|rule| qualified(rule, config.ipv6))
            .collect();
        if chain.is_base() && !config.ipv6 {
            rules.insert(0, foreign_family(table, chain));
        }
        native.push(NativeChain { table, chain, rules });
    }
    native
}

/// A rule of one family that names no address asks for the family instead.
fn qualified(rule: &Rule, both: bool) -> Rule {
    let mut rule = rule.clone();
    rule.place = Place::Last;
    let has_address = |rule: &Rule| {
        let tests = rule.matches.iter().map(|m| &m.test);
        tests
            .into_iter()
            .any(|test| matches!(test, Test::Source(_) | Test::Destination(_)))
    };
    if let Some(family) = rule.family
        && both
        && !has_address(&rule)
    {
        rule.matches.insert(0, Test::Family(family).into());
    }
    rule
}

fn foreign_family(table: Table, chain: Chain) -> Rule {
    Rule {
        family: Some(Family::V6),
        table,
        chain,
        place: Place::Last,
        matches: vec![Test::Family(Family::V6).into()],
        target: Target::Return,
    }
}
