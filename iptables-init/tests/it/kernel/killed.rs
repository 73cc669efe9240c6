//! Killed, or refused by a program, at every step: each table is as before or as wanted, and the next run ends well.
//!
//! In `$PATH` stand false programs before the real ones. They count how often any of them is called, and at one
//! count kill the program that called them, or do half of what they are asked to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use tempfile::TempDir;

use super::pods::Pods;

const FIRST: &[&str] = &[
    "-u",
    "1337",
    "-i",
    "*",
    "-b",
    "80",
    "-c",
    "eth9",
    "--drop-invalid",
    "--dual-stack",
    "--no-selftest",
];
/// Three tables in each family, none as in [`FIRST`].
const SECOND: &[&str] = &[
    "-u",
    "1337",
    "-i",
    "10.0.0.0/8",
    "-b",
    "*",
    "-m",
    "TPROXY",
    "--redirect-dns",
    "--capture-all-dns",
    "--dual-stack",
    "--no-selftest",
];
/// More calls than any run makes.
const MOST_CALLS: usize = 40;

const SCRIPT: &str = r#"#!/bin/sh
name=${0##*/} folder=${0%/*}
real=$(PATH=/usr/sbin:/sbin:/usr/bin command -v "$name")
count=$(($(cat "$folder/count") + 1))
echo "$count" >"$folder/count"
[ "$count" = "$AT" ] || exec "$real" "$@"
case $MODE in
  # One table of several, and then no more.
  half) sed '/^COMMIT/q' | "$real" "$@"; kill -9 "$PPID" ;;
  # The program is gone before its child has begun.
  late) kill -9 "$PPID"; sleep 0.4; "$real" "$@"; echo done >"$folder/late" ;;
  refuse)
    case $name$1 in *save* | nftlist) exec "$real" "$@" ;; esac
    sed '/^COMMIT/q' | "$real" "$@"; echo "$name: no more today" >&2; exit 1 ;;
  lacking) echo "$name: can't initialize table 'nat': Table does not exist (do you need to insmod?)" >&2; exit 3 ;;
esac
"#;

/// False programs for all that the program calls.
struct False {
    folder: TempDir,
}

impl False {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        fs::write(&script, SCRIPT).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        for family in ["iptables", "ip6tables"] {
            for variant in ["", "-nft", "-legacy"] {
                for verb in ["save", "restore"] {
                    symlink(&script, folder.path().join(format!("{family}{variant}-{verb}"))).unwrap();
                }
            }
        }
        symlink(&script, folder.path().join("nft")).unwrap();
        False { folder }
    }

    /// Runs the program, whose call number `at` meets `mode`.
    fn run(&self, pods: &Pods, line: &[&str], mode: &str, at: &str) -> Output {
        fs::write(self.folder.path().join("count"), "0").unwrap();
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.folder.path().display());
        let mut program = pods.program(line);
        program.env("PATH", path).env("MODE", mode).env("AT", at);
        program.output().unwrap()
    }

    /// How often any was called in the last run.
    fn calls(&self) -> usize {
        let count = fs::read_to_string(self.folder.path().join("count")).unwrap();
        count.trim().parse().unwrap()
    }
}

/// Every table of every program by itself, and what belongs to no table.
fn tables(pods: &Pods) -> BTreeMap<String, String> {
    let mut tables = BTreeMap::new();
    for program in [
        "iptables-nft-save",
        "ip6tables-nft-save",
        "iptables-legacy-save",
        "ip6tables-legacy-save",
    ] {
        let text = pods.output(program, &[]);
        let mut name = String::new();
        for line in text.lines() {
            if let Some(table) = line.strip_prefix('*') {
                name = format!("{program} {table}");
            } else if line.starts_with('-') || line.starts_with(":ISTIO") {
                let table: &mut String = tables.entry(name.clone()).or_default();
                *table += &format!("{}\n", line.split(" [").next().unwrap());
            }
        }
    }
    let native = pods.native();
    if !native.is_empty() {
        tables.insert("native".to_owned(), native);
    }
    tables
}

/// From `first` to `second`, stopped at each call.
fn check(first: &[&str], second: &[&str]) {
    let (pods, programs) = (Pods::new("dual"), False::new());
    pods.init_well(second);
    let wanted = tables(&pods);
    let wanted_routing = pods.routing();
    for at in 1..=MOST_CALLS {
        pods.init_well(first);
        let before = tables(&pods);
        // A call that only asks is as good as finished by its half.
        let output = programs.run(&pods, second, "half", &at.to_string());
        if output.status.success() {
            assert!(at > 8, "call {at}: so few calls?");
            assert_eq!(tables(&pods), wanted, "call {at}: nothing stopped it");
            return;
        }
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(9), "call {at}: {log}");
        let after = tables(&pods);
        for name in before.keys().chain(wanted.keys()).chain(after.keys()) {
            let found = after.get(name);
            let whole = found == before.get(name) || found == wanted.get(name);
            assert!(
                whole,
                "call {at}: {name} is neither as before nor as wanted: {found:?}"
            );
        }
        pods.init_well(second);
        assert_eq!(tables(&pods), wanted, "call {at}, then run again");
        assert_eq!(pods.routing(), wanted_routing, "call {at}, then run again");
    }
    panic!("more than {MOST_CALLS} calls");
}

fn with<'a>(line: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [line, more].concat()
}

#[test]
fn a_killed_run_leaves_whole_tables_with_nft_programs() {
    let nft = &["--force-iptables-binary", "nft"];
    check(&with(FIRST, nft), &with(SECOND, nft));
}

#[test]
fn a_killed_run_leaves_whole_tables_with_legacy_programs() {
    let legacy = &["--force-iptables-binary", "legacy"];
    check(&with(FIRST, legacy), &with(SECOND, legacy));
}

#[test]
fn a_killed_run_leaves_whole_tables_on_the_way_to_native_ones_and_back() {
    let (nft, native) = (&["--force-iptables-binary", "nft"], &["--native-nftables"]);
    check(&with(FIRST, nft), &with(SECOND, native));
    check(&with(FIRST, native), &with(SECOND, nft));
}

#[test]
fn a_program_that_outlives_a_killed_run_is_waited_for() {
    let (pods, programs) = (Pods::new("dual"), False::new());
    for line in [
        with(SECOND, &["--force-iptables-binary", "nft"]),
        with(SECOND, &["--native-nftables"]),
    ] {
        pods.init_well(&line);
        let wanted = tables(&pods);
        for at in (1..=MOST_CALLS).step_by(2) {
            pods.init_well(&with(&line, &["--cleanup-only"]));
            let killed = programs.run(&pods, &line, "late", &at.to_string());
            pods.init_well(&line);
            assert_eq!(tables(&pods), wanted, "call {at}");
            if killed.status.success() {
                assert!(at > 5, "so few calls?");
                break;
            }
            let late = fs::remove_file(programs.folder.path().join("late"));
            assert!(late.is_ok(), "call {at}: the next run did not wait for it");
        }
    }
}

#[test]
fn a_killed_cleanup_is_completed_by_the_next() {
    let (pods, programs) = (Pods::new("dual"), False::new());
    let clean = with(SECOND, &["--cleanup-only"]);
    for at in 1..=MOST_CALLS {
        pods.init_well(SECOND);
        let output = programs.run(&pods, &clean, "half", &at.to_string());
        pods.init_well(&clean);
        assert_eq!(
            pods.saved() + &pods.routing(),
            "",
            "half of call {at}, then run again"
        );
        if output.status.success() {
            assert!(at > 5, "so few calls?");
            return;
        }
    }
    panic!("more than {MOST_CALLS} calls");
}

#[test]
fn what_was_there_is_put_back_when_a_program_refuses_half_way() {
    let (pods, programs) = (Pods::new("dual"), False::new());
    for more in [
        &["--force-iptables-binary", "nft"][..],
        &["--force-iptables-binary", "legacy"],
    ] {
        let mut refusals = 0;
        let iptables = format!("iptables-{}", more[1]);
        for at in 1..=MOST_CALLS {
            pods.init_well(&with(FIRST, more));
            // A rule of somebody else between ours, whose place must not change.
            pods.output(
                &iptables,
                &["-t", "nat", "-I", "OUTPUT", "2", "-p", "udp", "-j", "ACCEPT"],
            );
            let before = (tables(&pods), pods.routing());
            let output = programs.run(&pods, &with(SECOND, more), "refuse", &at.to_string());
            let log = String::from_utf8_lossy(&output.stderr);
            if !output.status.success() {
                refusals += 1;
                assert_eq!(output.status.code(), Some(1), "call {at}: {log}");
                assert!(log.contains("no more today"), "call {at}: {log}");
                assert_eq!((tables(&pods), pods.routing()), before, "call {at}: {log}");
            }
            pods.output(
                &iptables,
                &["-t", "nat", "-D", "OUTPUT", "-p", "udp", "-j", "ACCEPT"],
            );
            pods.init_well(&with(SECOND, &["--cleanup-only"]));
            assert_eq!(pods.saved(), "", "call {at}: {log}");
            if programs.calls() < at {
                break;
            }
        }
        assert_eq!(refusals, 2, "one for each family");
    }
}

#[test]
fn a_kernel_without_a_table_is_told_from_other_failures() {
    let (pods, programs) = (Pods::new("v4"), False::new());
    // The first restore is the one that asks whether tables can be written.
    let line = with(FIRST, &["--force-iptables-binary", "legacy"]);
    let codes: Vec<Option<i32>> = (1..8)
        .map(|at| {
            let output = programs.run(&pods, &line, "lacking", &at.to_string());
            pods.init_well(&with(&line, &["--cleanup-only"]));
            output.status.code()
        })
        .collect();
    assert!(codes.contains(&Some(3)), "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 3))), "{codes:?}");
}
