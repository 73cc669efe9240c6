//! Text that scrolls: what there is at the start, what happens, and without a terminal a line a second.

use std::time::Duration;

use super::text::{clip, latency, percent, wrap};
use super::{COLUMNS, Facts, View};
use crate::run::state::Note;

/// Failures that a second names; the summary names them all.
const FAILURES_SHOWN: usize = 3;

pub(super) fn start(facts: &Facts, columns: usize) -> String {
    let mut text = String::new();
    for moved in &facts.replaced {
        let said = format!(
            "{} is taken; {} listens on {}",
            moved.wanted, moved.what, moved.instead
        );
        text.push_str(&wrap(&said, columns, 2));
    }
    text.push_str("front asks bill-service 100 times a second, through its sidecar and bill's.\n\n");
    text.push_str(&wrap(
        &format!("weights       {}", facts.file.display()),
        columns,
        14,
    ));
    for (index, (name, address)) in facts.admin.iter().enumerate() {
        let what = if index == 0 { "admin" } else { "" };
        text.push_str(&format!("{what:14}http://{address}  {name}\n"));
    }
    text.push_str(&format!(
        "bill-service  http://{}  as front reaches it\n",
        facts.bill_service
    ));
    text.push_str("\nEdit a weight in the file, or kill a process. Ctrl-C ends everything.\n\n");
    text
}

pub(super) fn note(note: &Note, elapsed: Duration, columns: usize) -> String {
    let text = wrap(&note.text, columns.saturating_sub(9), 0);
    let mut lines = text.lines();
    let first = format!(
        "{:>5} s  {}\n",
        elapsed.as_secs(),
        lines.next().unwrap_or_default()
    );
    first + &lines.map(|line| format!("         {line}\n")).collect::<String>()
}

pub(super) fn second(view: &View) -> String {
    let second = &view.tally.second;
    let shares: Vec<String> = view
        .versions()
        .iter()
        .map(|(name, _)| format!("{name} {}", percent(second.share(name))))
        .collect();
    let latencies = second.latencies();
    let text = format!(
        "{:>5} s  {} requests  {}  failed {}  p50 {}  p99 {}",
        view.elapsed.as_secs(),
        second.answered() + second.failed(),
        shares.join("  "),
        second.failed(),
        latency(latencies.percentile(50)),
        latency(latencies.percentile(99)),
    );
    let mut text = clip(&text, COLUMNS) + "\n";
    for (kind, count) in second.failures.iter().take(FAILURES_SHOWN) {
        text.push_str(&(clip(&format!("         {count} x {kind}"), COLUMNS) + "\n"));
    }
    text
}

/// Pairs of identities when there are more than the `said` ones.
pub(super) fn identities(view: &View, said: usize) -> String {
    let pairs = &view.tally.identities;
    let new = if pairs.len() > said { pairs.len() } else { 0 };
    let text = |client: &str, server: &str| format!("         mTLS  {client}\n           to  {server}\n");
    pairs
        .iter()
        .take(new)
        .map(|pair| text(&pair.client, &pair.server))
        .collect()
}

pub(super) fn summary(view: &View) -> String {
    let total = &view.tally.total;
    let latencies = total.latencies();
    let mut text = format!(
        "\n{} requests in {} s, {} failed; p50 {}, p99 {}\n",
        total.answered() + total.failed(),
        view.elapsed.as_secs(),
        total.failed(),
        latency(latencies.percentile(50)),
        latency(latencies.percentile(99)),
    );
    for (name, _) in view.versions() {
        text.push_str(&format!(
            "  {name:8} {:>8}  {}\n",
            total.of(name),
            percent(total.share(name))
        ));
    }
    for (kind, count) in &total.failures {
        text.push_str(&wrap(&format!("{count} x {kind}"), COLUMNS, 4));
    }
    text
}
