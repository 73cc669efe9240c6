//! From a run and its samples to docs/performance.md: tables, what they rest on, and where a target is missed.
//!
//! Reads only what was written to disk, so a report can be made again, and shows what was lost as well as what was won.

mod scale;

use std::fmt::Write as _;

use crate::cells::memory;
use crate::figures::{Estimate, estimate, median, ratios};
use crate::peer::Proxy;
use crate::samples::{Cell, Run, Sample};

/// Of Envoy's CPU time, in hop, pair and both sides of the mesh.
pub const CPU_TARGET: f64 = 0.45;
/// Resident memory with one worker, MB, at the start and 10 s after a `/config_dump`.
pub const MEMORY_TARGET_MB: f64 = 20.0;
/// From `exec` to the first accepted connection, ms.
pub const START_TARGET_MS: f64 = 15.0;
/// The second instance of a program may differ from the first by so much; beyond, the run proves nothing.
const SAME_WITHIN: f64 = 0.03;
/// A slice in which others took more of the proxies' core than this, percent, is counted as disturbed.
const DISTURBED_PERCENT: f64 = 3.0;

/// One line of a table: a proxy in a part.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name of the proxy.
    pub proxy: String,
    /// Part that it played.
    pub side: String,
    /// CPU time a request, µs.
    pub micros: Estimate,
    /// Of Envoy's in the same part, from slices that lie beside each other.
    pub of_envoy: Option<Estimate>,
    /// Requests a second in the closed loop, median.
    pub rate: f64,
    /// Disturbed slices, of all.
    pub disturbed: (usize, usize),
}

/// The lines of one cell, proxies in the order in which they were measured, parts together.
pub fn rows(samples: &[Sample]) -> Vec<Row> {
    let mut parts: Vec<&str> = Vec::new();
    let mut proxies: Vec<&str> = Vec::new();
    for sample in samples {
        if !parts.contains(&sample.side.as_str()) {
            parts.push(&sample.side);
        }
        if !proxies.contains(&sample.proxy.as_str()) {
            proxies.push(&sample.proxy);
        }
    }
    let of = |proxy: &str, side: &str| -> Vec<&Sample> {
        let mut found: Vec<_> = samples
            .iter()
            .filter(|sample| sample.proxy == proxy && sample.side == side)
            .collect();
        found.sort_by_key(|sample| sample.pass);
        found
    };
    let micros = |samples: &[&Sample]| samples.iter().map(|sample| sample.micros()).collect::<Vec<_>>();
    let mut rows = Vec::new();
    for side in &parts {
        let envoy = micros(&of(Proxy::Envoy.name(), side));
        for proxy in &proxies {
            let own = of(proxy, side);
            if own.is_empty() {
                continue;
            }
            let values = micros(&own);
            let is_compared = *proxy != Proxy::Envoy.name() && envoy.len() == values.len();
            let disturbed = own
                .iter()
                .filter(|sample| sample.strangers_percent > DISTURBED_PERCENT)
                .count();
            rows.push(Row {
                proxy: (*proxy).to_owned(),
                side: (*side).to_owned(),
                micros: estimate(&values),
                of_envoy: is_compared.then(|| estimate(&ratios(&values, &envoy))),
                rate: median(&own.iter().map(|sample| sample.rate()).collect::<Vec<_>>()),
                disturbed: (disturbed, own.len()),
            });
        }
    }
    rows
}

/// Whether a figure is below its target.
fn verdict(value: f64, target: f64, unit: &str) -> String {
    let word = if value <= target { "met" } else { "**missed**" };
    format!("≤ {target}{unit}: {word}")
}

fn has_target(cell: &Cell, row: &Row) -> bool {
    memory::is_ours(&row.proxy) && ["hop", "pair", "mesh"].contains(&cell.name.as_str())
}

/// The table of one cell, with what voids it.
pub fn cell(cell: &Cell, samples: &[Sample]) -> String {
    let mut text = String::new();
    let rows = rows(samples);
    if !rows.is_empty() {
        text.push_str(
            "| proxy | part | CPU a request, µs | of Envoy's | target | requests/s | disturbed slices |\n",
        );
        text.push_str("|---|---|--:|--:|---|--:|--:|\n");
    }
    for row in &rows {
        let Row {
            proxy,
            side,
            micros,
            of_envoy,
            rate,
            disturbed,
        } = row;
        let ratio = of_envoy.map_or_else(String::new, |ratio| with_interval(ratio, 3));
        let loss = if of_envoy.is_some_and(|ratio| ratio.low > 1.0) && memory::is_ours(proxy) {
            " **loss**"
        } else {
            ""
        };
        let target = of_envoy
            .filter(|_| has_target(cell, row))
            .map_or_else(String::new, |ratio| verdict(ratio.median, CPU_TARGET, ""));
        let micros = with_interval(*micros, 2);
        let _ = writeln!(
            text,
            "| {proxy} | {side} | {micros} | {ratio}{loss} | {target} | {rate:.0} | {} of {} |",
            disturbed.0, disturbed.1
        );
    }
    for fault in faults(cell, &rows) {
        let _ = writeln!(text, "\n**{fault}**");
    }
    text
}

/// What must be known before a figure is believed.
fn faults(cell: &Cell, rows: &[Row]) -> Vec<String> {
    let mut faults = cell.faults.clone();
    let again = rows
        .iter()
        .find(|row| row.proxy == crate::cells::AGAIN)
        .and_then(|row| row.of_envoy);
    if let Some(ratio) = again
        && (ratio.median - 1.0).abs() > SAME_WITHIN
    {
        faults.push(format!(
            "void: a second Envoy costs {:.3} of the first, and should cost 1.00 ± {SAME_WITHIN}; the machine was not quiet",
            ratio.median
        ));
    }
    let (disturbed, all) = rows.iter().fold((0, 0), |sum, row| {
        (sum.0 + row.disturbed.0, sum.1 + row.disturbed.1)
    });
    if disturbed * 4 > all {
        faults.push(format!(
            "disturbed: in {disturbed} of {all} slices others took more than {DISTURBED_PERCENT} % of the proxies' core"
        ));
    }
    faults
}

fn with_interval(estimate: Estimate, digits: usize) -> String {
    let Estimate { median, low, high } = estimate;
    format!("{median:.digits$} [{low:.digits$}–{high:.digits$}]")
}

/// The tables of memory, starts and counts.
pub fn others(run: &Run) -> String {
    let mut text = String::new();
    if !run.memory.is_empty() {
        text.push_str("### Memory\n\nResident, MB of 10^6 bytes, one worker.\n\n");
        text.push_str("| proxy | with | at start | under load | 10 s after `/config_dump` | peak | target |\n|---|---|--:|--:|--:|--:|---|\n");
    }
    for row in &run.memory {
        let dump = row
            .after_dump
            .map_or_else(|| "–".to_owned(), |dump| format!("{dump:.1}"));
        let worst = row.after_dump.unwrap_or(0.0).max(row.start);
        let target = if memory::is_ours(&row.proxy) {
            verdict(worst, MEMORY_TARGET_MB, " MB")
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} | {dump} | {:.1} | {target} |",
            row.proxy, row.setting, row.start, row.load, row.peak
        );
    }
    if !run.startup.is_empty() {
        text.push_str("\n### Start\n\nMilliseconds from `exec`, median [95 % interval].\n\n");
        text.push_str(
            "| proxy | first accepted connection | first answer | starts | target |\n|---|--:|--:|--:|---|\n",
        );
    }
    for row in &run.startup {
        let accept = estimate(&row.accept_ms);
        let target = if memory::is_ours(&row.proxy) {
            verdict(accept.median, START_TARGET_MS, " ms")
        } else {
            String::new()
        };
        let (accept, answer) = (
            with_interval(accept, 1),
            with_interval(estimate(&row.answer_ms), 1),
        );
        let _ = writeln!(
            text,
            "| {} | {accept} | {answer} | {} | {target} |",
            row.proxy,
            row.accept_ms.len()
        );
    }
    if !run.counts.is_empty() {
        text.push_str(
            "\n### Counted\n\nThe HTTP/1.1 hop, one connection; the difference between a run of 2N requests and one of N, \
             divided by N. Nothing is timed, so a busy machine does not matter.\n\n",
        );
        text.push_str("| proxy | instructions a request, user space | system calls a request | N |\n|---|--:|--:|--:|\n");
    }
    for row in &run.counts {
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.2} | {} |",
            row.proxy, row.instructions, row.syscalls, row.requests
        );
    }
    text.push_str(&scale::table(&run.scale, run.scale_fault.as_deref()));
    text
}

/// The whole document. `samples` has the samples of each cell by its name.
pub fn document(run: &Run, samples: &dyn Fn(&str) -> Vec<Sample>) -> String {
    let mut text = String::from(HEAD);
    text.push_str("\n## What it ran on\n\n| | |\n|---|---|\n");
    for (name, value) in &run.machine {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    let _ = writeln!(text, "| command | `{}` |", run.command);
    for again in &run.again {
        let _ = writeln!(text, "| measured again, later | {again} |");
    }
    text.push_str("\n## Figures\n\n![CPU a request, memory and start beside each other](performance.svg)\n");
    for entry in &run.cells {
        let _ = writeln!(text, "\n### {}\n", entry.title);
        for line in &entry.setting {
            let _ = writeln!(text, "- {line}");
        }
        text.push('\n');
        text.push_str(&cell(entry, &samples(&entry.name)));
        if !entry.latency.is_empty() {
            text.push_str(
                "\nResponse times of an open loop, the same rate for all (half of what the slowest carries), counted from the \
                 moment at which a request should have gone out:\n\n| proxy | requests/s | p50, µs | p99, µs |\n|---|--:|--:|--:|\n",
            );
        }
        for row in &entry.latency {
            let _ = writeln!(
                text,
                "| {} | {:.0} | {:.0} | {:.0} |",
                row.proxy, row.rate, row.p50_us, row.p99_us
            );
        }
        let _ = writeln!(
            text,
            "\nEvery sample: [{0}.csv](performance/{0}.csv).",
            entry.name
        );
        if !entry.commands.is_empty() {
            text.push_str("\n```\n");
            for command in &entry.commands {
                let _ = writeln!(text, "{command}");
            }
            text.push_str("```\n");
        }
    }
    let others = others(run);
    if !others.is_empty() {
        let _ = write!(
            text,
            "\n{others}\nEvery figure of these: [run.json](performance/run.json).\n"
        );
    }
    text
}

const HEAD: &str = "# Performance

Written by `make bench`; do not edit. It takes about fifteen minutes, wants the machine for itself, and needs root for the
bill mesh and the mesh of a thousand services. `make bench ARGS='--quick hop'` prints one table in under a minute and writes
nothing here.

How to read it:

- **CPU a request** is the time that the proxy's threads were on a core (`/proc/PID/task/*/schedstat`, first field),
  divided by the requests that were answered. Proxies are pinned to one core, load and backends to another.
- Proxies take turns, A B C D, then D C B A. **Of Envoy's** is the median of the ratios of slices of the same turn, with a
  95 % interval by bootstrap; below 1 is less than Envoy takes.
- `envoy-again` is a second Envoy. It must come out at 1.00 ± 0.03, or the table is void and says so.
- A slice is **disturbed** when anybody else, or the hypervisor, took more than 3 % of the proxies' core.
- Requests/s is that of a closed loop in which load and backends share a core: what they leave, not what the proxy could
  carry. No response time is quoted from it.
- Memory is taken with the load between the start and the dump, so the last figure holds what the load left behind.
- On loopback, the kernel's work for a packet is done on the time of whoever sends it; it is in all figures alike.
- An answer that is not 200 with the right body ends the cell, and so does an access log without its lines; counters of
  failed and overflowed requests of outrigger and Envoy are read afterwards. Circuit breakers are as istiod sends them.
- Targets are those of the project's issue on its first figures: CPU ≤ 0.45 of Envoy's with Istio's filters and access log on,
  20 MB, 15 ms. What misses one says **missed**, what is worse than Envoy **loss**.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pass: u32, proxy: &str, cpu_ns: u64) -> Sample {
        Sample {
            pass,
            proxy: proxy.to_owned(),
            side: "proxy".to_owned(),
            requests: 1000,
            seconds: 1.0,
            cpu_ns,
            strangers_percent: 0.0,
        }
    }

    fn hop() -> Cell {
        Cell {
            name: "hop".to_owned(),
            title: "hop".to_owned(),
            ..Cell::default()
        }
    }

    fn samples(ours: u64, again: u64) -> Vec<Sample> {
        let pass = |pass: u32| {
            [
                sample(pass, "outrigger", ours),
                sample(pass, "envoy", 20_000_000),
                sample(pass, "envoy-again", again),
            ]
        };
        (0..6).flat_map(pass).collect()
    }

    fn check(samples: &[Sample], has: &[&str], has_not: &[&str]) {
        let text = cell(&hop(), samples);
        for expected in has {
            assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
        }
        for unexpected in has_not {
            assert!(!text.contains(unexpected), "{unexpected:?} is in\n{text}");
        }
    }

    #[test]
    fn a_ratio_below_the_target_is_met_and_above_it_missed() {
        check(
            &samples(8_000_000, 20_000_000),
            &["8.00 [8.00–8.00] | 0.400", "met"],
            &["**missed**", "void", "loss"],
        );
        check(
            &samples(10_000_000, 20_000_000),
            &["0.500", "**missed**"],
            &["loss"],
        );
    }

    #[test]
    fn worse_than_envoy_is_marked_as_a_loss() {
        check(
            &samples(30_000_000, 20_000_000),
            &["1.500", "**loss**", "**missed**"],
            &[],
        );
    }

    #[test]
    fn a_second_envoy_that_costs_something_else_voids_the_table() {
        check(
            &samples(8_000_000, 22_000_000),
            &["void: a second Envoy costs 1.100"],
            &[],
        );
    }

    #[test]
    fn disturbance_is_counted_and_said() {
        let mut disturbed = samples(8_000_000, 20_000_000);
        for sample in &mut disturbed {
            sample.strangers_percent = 10.0;
        }
        check(&disturbed, &["6 of 6", "disturbed: in 18 of 18 slices"], &[]);
    }

    #[test]
    fn pairs_are_of_the_same_pass_whatever_the_order_in_the_file() {
        let mut mixed = vec![
            sample(1, "outrigger", 6),
            sample(0, "outrigger", 1),
            sample(0, "envoy", 2),
        ];
        mixed.push(sample(1, "envoy", 12));
        let rows = rows(&mixed);
        let ratio = rows.iter().find_map(|row| row.of_envoy);
        assert!(
            ratio.is_some_and(|ratio| (ratio.high - 0.5).abs() < 1e-9),
            "{rows:?}"
        );
    }

    #[test]
    fn a_cell_that_could_not_be_measured_stays_in_the_report() {
        let failed = Cell {
            faults: vec!["not measured: no root".to_owned()],
            ..hop()
        };
        let run = Run {
            cells: vec![failed],
            ..Run::default()
        };
        let text = document(&run, &|_| Vec::new());
        assert!(text.contains("**not measured: no root**"), "{text}");
    }
}
