//! The program as others call it: exit codes, `--dry-run`, messages. Needs no privilege and no iptables.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn program(line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iptables-init"));
    command.args(line).env_clear().env("PATH", "/nonexistent");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn refused(output: &Output, parts: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(output.stdout.is_empty());
    assert_eq!(message.lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "{message:?} does not hold {part:?}");
    }
}

#[test]
fn dry_run_prints_rules_without_iptables_and_writes_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules");
    let line = [
        "istio-iptables",
        "-p",
        "15001",
        "-z",
        "15006",
        "-u",
        "1337",
        "-m",
        "REDIRECT",
        "-i",
        "*",
        "-x",
        "",
        "-b",
        "*",
        "-d",
        "15090,15021,15020",
        "--log_output_level=default:info",
        "--log_as_json",
        "--dry-run",
    ];
    let output = program(&line).env("DRY_RUN_FILE_PATH", &file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(
        printed.starts_with("# iptables-restore --noflush\n* nat\n-N ISTIO_INBOUND\n"),
        "{printed}"
    );
    assert!(
        printed.contains("-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN\n"),
        "{printed}"
    );
    // Beside the exact text, standard output has its meaning, in comments.
    let exact = std::fs::read_to_string(&file).unwrap();
    let table = printed.strip_prefix(&exact).unwrap();
    assert!(exact.ends_with("COMMIT\n"), "{exact}");
    assert!(table.lines().all(|line| line.starts_with('#')), "{table}");
    assert!(
        table.contains("-p tcp --dport 15090 -j RETURN")
            && table.contains("| tcp, to port 15090: left alone"),
        "{table}"
    );
}

#[test]
fn a_dry_run_file_that_cannot_be_written_is_named() {
    let output = program(&["-n"])
        .env("DRY_RUN_FILE_PATH", "/nonexistent/rules")
        .output()
        .unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("/nonexistent/rules") && message.contains("DRY_RUN_FILE_PATH"),
        "{message}"
    );
}

#[test]
fn a_bad_flag_exits_with_2_and_is_named_in_one_line() {
    let run = |line: &[&str]| program(line).output().unwrap();
    refused(
        &run(&["--dry-run", "-p", "70000"]),
        &["-p/--envoy-port", "\"70000\"", "not a port"],
    );
    refused(
        &run(&["--dry-run", "-x", "*"]),
        &["-x/--istio-service-exclude-cidr", "\"*\""],
    );
    refused(
        &run(&["-b", "80, 8080"]),
        &["-b/--istio-inbound-ports", "\" 8080\""],
    );
    refused(
        &run(&["-m", "REDIRECTS"]),
        &["-m/--istio-inbound-interception-mode", "REDIRECTS"],
    );
    refused(&run(&["-u", "no-such-user"]), &["-u/--proxy-uid", "no-such-user"]);
    refused(&run(&["-p", "-1"]), &["-p/--envoy-port", "\"-1\""]);
    refused(&run(&["--dry-run=perhaps"]), &["--dry-run", "perhaps"]);
    refused(&run(&["--no-such-flag"]), &["--no-such-flag"]);
    refused(&run(&["-p"]), &["--envoy-port"]);
    refused(&run(&["--cni-mode"]), &["--cni-mode", "--network-namespace"]);
    refused(
        &run(&["--network-namespace", "/no/such/file"]),
        &["--network-namespace", "/no/such/file"],
    );
}

#[test]
fn help_and_version_are_no_failures() {
    for (flag, part) in [
        ("--help", "--istio-service-cidr"),
        ("--version", env!("CARGO_PKG_VERSION")),
    ] {
        let output = program(&[flag]).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains(part));
    }
}
