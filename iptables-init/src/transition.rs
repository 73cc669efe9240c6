//! Restore text that leads from what is there to what is wanted. Pure.
//!
//! Within one table old rules go and new ones come in the same commit, so there is no moment without rules and
//! no need to block traffic meanwhile. Rules of others are not mentioned, so they stay.

use std::fmt::Write as _;

use crate::restore;
use crate::rule::{Rule, Table};
use crate::saved::{Ours, Saved, SavedTable, Verdict, compare_table, ours};

/// Text that makes `wanted` out of `saved`, without the tables that are as wanted already unless `all`.
///
/// Where nothing of ours is, this is [`restore::render`].
pub fn replace(saved: &Saved, wanted: &[Rule], all: bool) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let ours = ours(table, saved.table(table), wanted);
        let wants = wanted.iter().any(|rule| rule.table == table);
        let in_place = !all && compare_table(saved, table, wanted) == Verdict::Equal;
        if in_place || (ours.is_empty() && !wants) {
            continue;
        }
        commit(&mut text, table, |text| {
            clear(text, &ours);
            restore::body(text, wanted, table);
        });
    }
    text
}

/// Text that removes our rules; `known` are those that the flags would write.
pub fn remove(saved: &Saved, known: &[Rule]) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let ours = ours(table, saved.table(table), known);
        if !ours.is_empty() {
            commit(&mut text, table, |text| clear(text, &ours));
        }
    }
    text
}

/// Text that makes `before` out of `now`, each rule at its old position.
pub fn put_back(now: &Saved, before: &Saved, known: &[Rule]) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let (now, before) = (now.table(table), before.table(table));
        if now == before {
            continue;
        }
        let old = ours(table, before, known);
        commit(&mut text, table, |text| {
            clear(text, &ours(table, now, known));
            write_back(text, before, &old);
        });
    }
    text
}

fn write_back(text: &mut String, before: &SavedTable, old: &Ours) {
    for chain in &old.chains {
        let _ = writeln!(text, "-N {chain}");
    }
    for chain in &old.chains {
        for words in before.rules(chain) {
            let _ = writeln!(text, "-A {chain} {words}");
        }
    }
    for rule in &old.rules {
        let _ = writeln!(text, "-I {} {} {}", rule.chain, rule.position, rule.words);
    }
}

/// Chains are flushed before any is deleted: one that is jumped to cannot be. Rules go last first, so that the
/// positions of those before are still true; a position is named only where words would find a copy.
fn clear(text: &mut String, ours: &Ours) {
    for rule in ours.rules.iter().rev() {
        let _ = match rule.has_copy {
            true => writeln!(text, "-D {} {}", rule.chain, rule.position),
            false => writeln!(text, "-D {} {}", rule.chain, rule.words),
        };
    }
    for action in ["-F", "-X"] {
        for chain in &ours.chains {
            let _ = writeln!(text, "{action} {chain}");
        }
    }
}

fn commit(text: &mut String, table: Table, body: impl FnOnce(&mut String)) {
    let _ = writeln!(text, "* {}", table.name());
    body(text);
    text.push_str("COMMIT\n");
}
