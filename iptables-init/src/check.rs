//! Compares what `iptables-save` shows with the rules that are wanted.
//!
//! Pure but for one question, whether a rule exists, which the caller answers with `iptables -C`: the kernel
//! does not give rules back in the words they came in, so text must not be compared. Order is ignored.
//! Source: Istio `tools/istio-iptables/pkg/capture/helper.go` (residue, delta).

use std::collections::BTreeMap;

use crate::restore;
use crate::rule::Rule;

/// Tables that are looked at.
const TABLES: [&str; 4] = ["filter", "mangle", "nat", "raw"];

/// Rules per chain, per table, as saved. Our chains are listed even when empty, built-in ones with rules only.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    rules: BTreeMap<(String, String), usize>,
}

/// What is to be done about the rules of one family.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No rule at all, ours or others'.
    Clean,
    /// Everything that is wanted is there, and nothing else of ours.
    Equal,
    /// The difference that was found first, for people.
    Differs(String),
}

impl State {
    /// Reads `iptables-save` output; lines that it does not know are skipped.
    pub fn parse(saved: &str) -> Self {
        let mut state = State::default();
        let mut table = "";
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.trim();
            } else if !TABLES.contains(&table) {
                continue;
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or_default();
                if is_ours(name) {
                    state.rules.entry(key(table, name)).or_default();
                }
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let name = rule.split(' ').next().unwrap_or_default();
                *state.rules.entry(key(table, name)).or_default() += 1;
            }
        }
        state
    }

    /// Whether there is any rule, or any chain of ours.
    pub fn has_residue(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Our chains, as `table/chain`.
    pub fn our_chains(&self) -> Vec<String> {
        let ours = self.rules.keys().filter(|(_, chain)| is_ours(chain));
        ours.map(|(table, chain)| format!("{table}/{chain}")).collect()
    }
}

/// Compares, asking `exists` about a rule only when names and counts agree.
///
/// # Errors
/// Those of `exists`.
pub fn compare<E>(
    state: &State,
    wanted: &[Rule],
    mut exists: impl FnMut(&Rule) -> Result<bool, E>,
) -> Result<Verdict, E> {
    if !state.has_residue() {
        return Ok(Verdict::Clean);
    }
    if let Some(difference) = count_difference(state, wanted) {
        return Ok(Verdict::Differs(difference));
    }
    for rule in wanted {
        if !exists(rule)? {
            return Ok(Verdict::Differs(format!(
                "no rule `{rule}` in {}",
                rule.table.name()
            )));
        }
    }
    Ok(Verdict::Equal)
}

fn count_difference(state: &State, wanted: &[Rule]) -> Option<String> {
    let mut expected: BTreeMap<(String, String), usize> = BTreeMap::new();
    for rule in wanted {
        let table = rule.table.name();
        *expected.entry(key(table, rule.chain.name())).or_default() += 1;
        for chain in restore::own_chains(&[rule]) {
            expected.entry(key(table, chain.name())).or_default();
        }
    }
    for (place @ (table, chain), count) in &expected {
        match state.rules.get(place) {
            None => return Some(format!("no chain {chain} with rules in {table}")),
            Some(found) if is_ours(chain) && found != count => {
                return Some(format!("{found} rules in {table}/{chain}, {count} wanted"));
            }
            // Others may have rules in built-in chains too.
            Some(_) => {}
        }
    }
    let extra = state
        .rules
        .keys()
        .find(|place| is_ours(&place.1) && !expected.contains_key(*place));
    extra.map(|(table, chain)| format!("chain {chain} in {table} is not wanted"))
}

fn is_ours(chain: &str) -> bool {
    chain.starts_with("ISTIO_")
}

fn key(table: &str, chain: &str) -> (String, String) {
    (table.to_owned(), chain.to_owned())
}
