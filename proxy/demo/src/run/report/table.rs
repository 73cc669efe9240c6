//! The live table.

use super::View;
use super::text::{clip, latency, percent};
use crate::run::state::PartState;

/// Kinds of failures that have a row.
const FAILURES_SHOWN: usize = 4;
/// Pairs of identities that have rows.
const IDENTITIES_SHOWN: usize = 2;

/// Lines with their ends, none longer than `columns`.
pub(super) fn rows(view: &View, columns: usize) -> Vec<String> {
    let mut rows = Vec::new();
    requests(view, &mut rows);
    failures(view, &mut rows);
    processes(view, &mut rows);
    identities(view, &mut rows);
    rows.iter().map(|row| clip(row, columns) + "\n").collect()
}

fn requests(view: &View, rows: &mut Vec<String>) {
    let (second, since) = (&view.tally.second, &view.tally.since_change);
    rows.push(format!(
        "{:<10}{:>7} │{:>9}{:>9} │{:>9}{:>9}{:>11}{:>11}",
        format!("{} s", view.elapsed.as_secs()),
        "weight",
        "last s",
        "share",
        "so far",
        "share",
        "p50",
        "p99"
    ));
    for (name, weight) in view.versions() {
        let weight = weight.map_or_else(|| "-".to_owned(), |weight| weight.to_string());
        let latencies = since.versions.get(name);
        let percentile = |percent| latency(latencies.and_then(|it| it.percentile(percent)));
        rows.push(format!(
            "{:<10}{weight:>7} │{:>9}{:>9} │{:>9}{:>9}{:>11}{:>11}",
            clip(name, 10),
            second.of(name),
            percent(second.share(name)),
            since.of(name),
            percent(since.share(name)),
            percentile(50),
            percentile(99),
        ));
    }
    let (failed, failed_since) = (second.failed(), since.failed());
    rows.push(format!(
        "{:<10}{:>7} │{failed:>9}{:>9} │{failed_since:>9}",
        "failed", "", ""
    ));
    if view.is_refused {
        rows.push("the file as it stands is refused; what was there before stays".to_owned());
    }
}

fn failures(view: &View, rows: &mut Vec<String>) {
    let (second, since) = (&view.tally.second, &view.tally.since_change);
    // What happens now first.
    let mut kinds: Vec<_> = since
        .failures
        .iter()
        .map(|(kind, count)| (second.failures.get(kind).copied().unwrap_or(0), *count, kind))
        .collect();
    kinds.sort_unstable_by_key(|kind| std::cmp::Reverse((kind.0, kind.1)));
    for (now, count, kind) in kinds.into_iter().take(FAILURES_SHOWN) {
        rows.push(format!("{now:>6} ({count}) x {kind}"));
    }
}

fn processes(view: &View, rows: &mut Vec<String>) {
    rows.push(String::new());
    for (name, state) in &view.parts {
        rows.push(match state {
            PartState::Running { pid } => format!("{name:<17} runs, process {pid}"),
            PartState::Ended { why, again } => {
                let wait = again.saturating_duration_since(view.now).as_secs_f64().ceil();
                format!("{name:<17} {why}; again in {wait} s")
            }
        });
    }
}

fn identities(view: &View, rows: &mut Vec<String>) {
    for pair in view.tally.identities.iter().take(IDENTITIES_SHOWN) {
        rows.push(String::new());
        rows.push(format!("mTLS  {}", pair.client));
        rows.push(format!("   to {}", pair.server));
    }
}
