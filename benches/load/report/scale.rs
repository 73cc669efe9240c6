//! The table of the mesh of a thousand services.

use std::fmt::Write as _;

use crate::cells::memory;
use crate::figures::median;
use crate::peer::Proxy;
use crate::samples::ScaleRow;

/// CPU seconds from `exec` to ready.
const READY_TARGET_S: f64 = 0.40;
/// Resident, MB.
const MEMORY_TARGET_MB: f64 = 60.0;
/// CPU seconds of an identical push, of endpoints and of everything.
const PUSH_TARGET_S: f64 = 0.03;
/// Of Envoy's, for one change of one endpoint of ten thousand.
const CHANGE_TARGET: f64 = 0.1;
/// Response times while it changes, of those when it does not.
const P99_TARGET: f64 = 1.1;

/// Rows: what; columns: proxies; the last column says whether outrigger does what was asked for.
pub(super) fn table(rows: &[ScaleRow], fault: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(fault) = fault {
        let _ = writeln!(text, "{HEAD}**not measured: {fault}**");
    }
    if rows.is_empty() {
        return text;
    }
    text.push_str(HEAD);
    let ours = rows.iter().find(|row| memory::is_ours(&row.proxy));
    let envoy = rows.iter().find(|row| row.proxy == Proxy::Envoy.name());
    let names = rows.iter().map(|row| row.proxy.as_str());
    let _ = writeln!(text, "| | {} | target |", names.collect::<Vec<_>>().join(" | "));
    let _ = writeln!(text, "|---|{}---|", "--:|".repeat(rows.len()));
    let mut line = |what: &str, digits: usize, value: &dyn Fn(&ScaleRow) -> f64, target: String| {
        let values = rows.iter().map(|row| format!("{:.digits$}", value(row)));
        let _ = writeln!(
            text,
            "| {what} | {} | {target} |",
            values.collect::<Vec<_>>().join(" | ")
        );
    };
    let at_most = |value: &dyn Fn(&ScaleRow) -> f64, target: f64, unit: &str| {
        ours.map_or_else(String::new, |row| super::verdict(value(row), target, unit))
    };
    let ready = |row: &ScaleRow| median(&row.ready_cpu_s);
    line(
        "CPU from `exec` to ready, s",
        3,
        &ready,
        at_most(&ready, READY_TARGET_S, " s"),
    );
    line(
        "the same by the clock, s",
        3,
        &|row| median(&row.ready_s),
        String::new(),
    );
    let resident = |row: &ScaleRow| row.resident_mb;
    line(
        "resident 2 s later, MB",
        1,
        &resident,
        at_most(&resident, MEMORY_TARGET_MB, " MB"),
    );
    line("peak until then, MB", 1, &|row| row.peak_mb, String::new());
    line(
        "resident after all pushes, MB",
        1,
        &|row| row.pushed_mb,
        String::new(),
    );
    let endpoints = |row: &ScaleRow| median(&row.same_endpoints_cpu_s);
    line(
        "CPU of all endpoints again, s",
        4,
        &endpoints,
        at_most(&endpoints, PUSH_TARGET_S, " s"),
    );
    let everything = |row: &ScaleRow| median(&row.same_everything_cpu_s);
    line(
        "CPU of everything again, s",
        4,
        &everything,
        at_most(&everything, PUSH_TARGET_S, " s"),
    );
    let change = |row: &ScaleRow| median(&row.change_cpu_ms);
    let limit = envoy.map(|row| change(row) * CHANGE_TARGET);
    let target = limit.map_or_else(String::new, |limit| {
        at_most(&change, (limit * 100.0).round() / 100.0, " ms")
    });
    line(
        "CPU of a change of one endpoint of 10,000, ms",
        2,
        &change,
        target,
    );
    line(
        "p99 without changes, µs",
        0,
        &|row| row.quiet_p99_us,
        String::new(),
    );
    line(
        "p99 with a change every 100 ms, µs",
        0,
        &|row| row.changing_p99_us,
        String::new(),
    );
    let slower = |row: &ScaleRow| row.changing_p99_us / row.quiet_p99_us;
    line("ratio of the two", 3, &slower, at_most(&slower, P99_TARGET, ""));
    for (what, count) in [
        (
            "changes",
            (|row| row.changes.to_string()) as fn(&ScaleRow) -> String,
        ),
        (
            "requests beside them, each answered with 200 and the right body",
            |row| row.changing_requests.to_string(),
        ),
    ] {
        let counts: Vec<_> = rows.iter().map(count).collect();
        let _ = writeln!(text, "| {what} | {} | |", counts.join(" | "));
    }
    let names = rows
        .iter()
        .map(|row| if row.names_the_broken { "yes" } else { "**no**" });
    let _ = writeln!(
        text,
        "| a broken cluster, number 3,999, is refused by name and the others serve | {} | |",
        names.collect::<Vec<_>>().join(" | ")
    );
    for fault in rows.iter().flat_map(|row| &row.faults) {
        let _ = writeln!(text, "\n**{fault}**");
    }
    text
}

const HEAD: &str = "\n### A mesh of a thousand services\n
What a real istiod sent to one sidecar: 4,003 clusters, 1,003 listeners, one route table of 1,001 virtual hosts, 4,000 load
assignments with 30,000 endpoints, over delta ADS from the repository's control plane; Envoy the same without the filters
that stock Envoy does not have. One worker, one core, the proxies one after the other. A change is a push of one service of
10,000 endpoints, one of which moved, every 100 ms under 1,000 requests a second; its CPU time is what the process used more
than in the quiet time between: a second of each, sixty times, of which the table has the median, and the p99 of the
requests of all sixty. A request that fails ends the measurement.\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(proxy: &str, seconds: f64) -> ScaleRow {
        ScaleRow {
            proxy: proxy.to_owned(),
            ready_cpu_s: vec![seconds],
            resident_mb: seconds * 100.0,
            same_endpoints_cpu_s: vec![seconds / 10.0],
            same_everything_cpu_s: vec![seconds / 10.0],
            change_cpu_ms: vec![seconds * 10.0],
            quiet_p99_us: 100.0,
            changing_p99_us: 105.0,
            names_the_broken: true,
            ..ScaleRow::default()
        }
    }

    #[test]
    fn targets_are_met_or_missed() {
        let text = table(&[row("outrigger", 0.2), row("envoy", 4.0)], None);
        assert_eq!(text.matches("met").count(), 6, "{text}");
        let text = table(&[row("outrigger", 0.7), row("envoy", 4.0)], None);
        assert_eq!(text.matches("**missed**").count(), 5, "{text}");
        assert!(table(&[], None).is_empty());
        assert!(table(&[], Some("no root")).contains("**not measured: no root**"));
    }
}
