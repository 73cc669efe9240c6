//! What `iptables-save` shows, read back: which rules are ours, and whether they are those that are wanted.
//!
//! Pure. The kernel does not give rules back in the words they came in, so lines become [`Rule`]s again and
//! those are compared, in order. A line of a chain of ours that cannot be read is a difference, no error: at worst
//! rules are replaced by the same rules.

mod ours;
mod words;

use std::collections::BTreeMap;

use crate::rule::{Chain, Rule, Table, Test, chains};
pub use ours::{Ours, Placed, ours};

/// How names of our chains begin, those of other versions too.
const PREFIX: &str = "ISTIO_";

/// The rules of one family, as saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    tables: BTreeMap<Table, SavedTable>,
    /// Whether the tables that are looked at hold any rule, or any chain of ours.
    residue: bool,
}

/// Chains of one table in the order in which they were saved, each with its rules: what follows `-A CHAIN `.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedTable {
    chains: BTreeMap<String, Vec<String>>,
}

/// How saved rules and wanted rules relate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing of ours is there.
    Absent,
    /// All that is wanted is there in its order, and nothing else of ours.
    Equal,
    /// The difference that was found first, for people.
    Differs(String),
}

impl Saved {
    /// Reads `iptables-save` output; lines that it does not know are skipped.
    pub fn parse(text: &str) -> Self {
        let mut saved = Saved::default();
        let mut table = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.trim();
                continue;
            }
            let Some((chain, rule)) = chain_and_rule(line) else {
                continue;
            };
            let known = Table::parse(table);
            if known.is_some() || table == "filter" {
                saved.residue |= rule.is_some() || chain.starts_with(PREFIX);
            }
            if let Some(known) = known {
                let chains = &mut saved.tables.entry(known).or_default().chains;
                let rules = chains.entry(chain.to_owned()).or_default();
                rules.extend(rule.map(str::to_owned));
            }
        }
        saved
    }

    /// Whether there is any rule, or any chain of ours, in filter, mangle, nat or raw: Istio's residue.
    pub fn has_residue(&self) -> bool {
        self.residue
    }

    /// Whether any chain of ours is there.
    pub fn has_ours(&self) -> bool {
        self.tables
            .values()
            .any(|table| table.own_chains().next().is_some())
    }

    /// TPROXY mode's mark, if these rules are of that mode.
    pub fn tproxy_mark(&self) -> Option<u32> {
        ours::tproxy_mark(Table::Mangle, self.table(Table::Mangle))
    }

    pub fn table(&self, table: Table) -> &SavedTable {
        static EMPTY: SavedTable = SavedTable {
            chains: BTreeMap::new(),
        };
        self.tables.get(&table).unwrap_or(&EMPTY)
    }
}

impl SavedTable {
    /// Names of our chains.
    pub fn own_chains(&self) -> impl Iterator<Item = &str> {
        self.chains
            .keys()
            .map(String::as_str)
            .filter(|name| name.starts_with(PREFIX))
    }

    /// The rules of `chain`, in order.
    pub fn rules(&self, chain: &str) -> &[String] {
        self.chains.get(chain).map(Vec::as_slice).unwrap_or_default()
    }
}

/// `:CHAIN POLICY [0:0]` or `-A CHAIN rule`.
fn chain_and_rule(line: &str) -> Option<(&str, Option<&str>)> {
    if let Some(chain) = line.strip_prefix(':') {
        return Some((chain.split(' ').next()?, None));
    }
    let rule = line.strip_prefix("-A ")?;
    Some(
        rule.split_once(' ')
            .map_or((rule, Some("")), |(chain, rule)| (chain, Some(rule))),
    )
}

/// Compares all tables with `wanted`, the rules of one family.
pub fn compare(saved: &Saved, wanted: &[Rule]) -> Verdict {
    let mut verdicts = Table::ALL
        .into_iter()
        .map(|table| compare_table(saved, table, wanted));
    if let Some(differs) = verdicts.find(|verdict| matches!(verdict, Verdict::Differs(_))) {
        // Where nothing of ours is, there is nothing to differ from.
        return if saved.has_ours() {
            differs
        } else {
            Verdict::Absent
        };
    }
    if saved.has_ours() {
        Verdict::Equal
    } else {
        Verdict::Absent
    }
}

/// Compares one table. [`Verdict::Absent`] if nothing is there and nothing is wanted.
pub fn compare_table(saved: &Saved, table: Table, wanted: &[Rule]) -> Verdict {
    let saved_table = saved.table(table);
    let ours = ours(table, saved_table, wanted);
    let wanted: Vec<Rule> = wanted
        .iter()
        .filter(|rule| rule.table == table)
        .cloned()
        .collect();
    let expected = chains(&wanted);
    if ours.is_empty() && expected.is_empty() {
        return Verdict::Absent;
    }
    let name = table.name();
    if let Some(extra) = ours
        .chains
        .iter()
        .find(|chain| Chain::parse(chain).is_none_or(|chain| !expected.contains_key(&(table, chain))))
    {
        return Verdict::Differs(format!("chain {extra} in {name} is not wanted"));
    }
    for base in [Chain::Prerouting, Chain::Output] {
        if !expected.contains_key(&(table, base))
            && let Some(rule) = ours.rules.iter().find(|rule| rule.chain == base.name())
        {
            return Verdict::Differs(format!(
                "`-A {} {}` in {name} is not wanted",
                rule.chain, rule.words
            ));
        }
    }
    for ((_, chain), rules) in &expected {
        if let Some(difference) = chain_difference(table, *chain, &ours, saved_table, rules) {
            return Verdict::Differs(difference);
        }
    }
    Verdict::Equal
}

fn chain_difference(
    table: Table,
    chain: Chain,
    ours: &Ours,
    saved: &SavedTable,
    wanted: &[&Rule],
) -> Option<String> {
    let (name, place) = (chain.name(), table.name());
    let found: Vec<&str> = if chain.is_base() {
        let own = ours.rules.iter().filter(|rule| rule.chain == name);
        own.map(|rule| rule.words.as_str()).collect()
    } else {
        if !ours.chains.iter().any(|own| own == name) {
            return Some(format!("no chain {name} in {place}"));
        }
        saved.rules(name).iter().map(String::as_str).collect()
    };
    if found.len() != wanted.len() {
        return Some(format!(
            "{} rules of ours in {place}/{name}, {} wanted",
            found.len(),
            wanted.len()
        ));
    }
    let mut pairs = found.iter().zip(wanted);
    let differs = pairs.find(|(found, wanted)| words::parse(table, chain, found) != Some(normal(wanted)))?;
    Some(format!(
        "`-A {name} {}` in {place} where `{}` is wanted",
        differs.0, differs.1
    ))
}

/// `rule` without what the kernel does not keep: where it was inserted, the order of matches, names of users,
/// bits of addresses that the prefix does not cover, matches that every packet passes.
pub fn normal(rule: &Rule) -> Rule {
    let mut rule = rule.clone();
    rule.family = None;
    rule.place = crate::rule::Place::Last;
    rule.matches
        .retain(|one| one.negated || !is_always_true(&one.test));
    for one in &mut rule.matches {
        match &mut one.test {
            Test::Source(net) | Test::Destination(net) => *net = net.trunc(),
            Test::Uid(id) | Test::Gid(id) => id.name = None,
            Test::Tracked(states) => states.sort_unstable(),
            _ => {}
        }
    }
    rule.matches.sort_unstable();
    rule
}

fn is_always_true(test: &Test) -> bool {
    match test {
        Test::Source(net) | Test::Destination(net) => net.prefix_len() == 0,
        Test::InInterface(name) | Test::OutInterface(name) => name == "+",
        _ => false,
    }
}

#[cfg(test)]
mod tests;
