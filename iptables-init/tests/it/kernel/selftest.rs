//! The self-test: says so when a rule is missing, and when it cannot say.

use std::net::TcpListener;
use std::process::Command;

use super::pods::{Pods, command};

const FLAGS: &[&str] = &[
    "-u",
    "1337",
    "-g",
    "1337",
    "-i",
    "*",
    "-x",
    "10.1.0.0/16",
    "-b",
    "*",
    "-d",
    "15090",
    "-q",
    "5000",
    "-o",
    "3306",
    "--log_output_level=default:debug",
];

/// Exit code and log of a self-test of the rules that are there.
fn selftest(program: &mut Command) -> (Option<i32>, String) {
    let output = program.output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn with_word<'a>(word: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    std::iter::once(word).chain(flags.iter().copied()).collect()
}

#[test]
fn a_run_proves_its_rules_and_leaves_nothing_of_that_behind() {
    let pods = Pods::new("dual");
    for more in [
        ["--dual-stack", "-m", "REDIRECT"],
        ["--dual-stack", "-m", "TPROXY"],
    ] {
        let log = pods.init_well(&[FLAGS, &more].concat());
        assert!(
            log.contains("self-test: ") && log.contains(" 0 not, 0 undecided"),
            "{log}"
        );
        assert!(!pods.output("ip", &["link"]).contains("istio-selftest"));
    }
    let log = pods.init_well(&[FLAGS, &["--no-selftest"]].concat());
    assert!(!log.contains("self-test"), "{log}");
}

/// Every rule whose loss would send some connection elsewhere; which those are, the self-test says itself.
#[test]
fn each_rule_that_is_deleted_by_hand_is_missed() {
    let pods = Pods::new("v4");
    let log = pods.init_well(FLAGS);
    let complete = pods.output("iptables-nft-save", &[]);
    let nat = complete.split("*nat\n").nth(1).unwrap();
    let rules: Vec<&str> = nat.lines().filter_map(|line| line.strip_prefix("-A ")).collect();
    let unproven = log.matches("no connection would show the loss of").count();
    let mut unnoticed = Vec::new();
    for rule in &rules {
        let words: Vec<&str> = ["-t", "nat", "-D"].into_iter().chain(rule.split(' ')).collect();
        pods.output("iptables-nft", &words);
        let (code, log) = selftest(&mut pods.program(&with_word("selftest", FLAGS)));
        match code {
            Some(126) => assert!(log.contains("self-test: failed: "), "{rule}: {log}"),
            Some(0) => unnoticed.push(*rule),
            other => panic!("{rule}: {other:?} {log}"),
        }
        let mut restore = pods.command("iptables-nft-restore");
        let file = std::env::temp_dir().join(&pods.pod);
        std::fs::write(&file, &complete).unwrap();
        restore.stdin(std::fs::File::open(&file).unwrap());
        assert!(restore.status().unwrap().success());
        std::fs::remove_file(&file).unwrap();
    }
    assert!(rules.len() >= 15, "{rules:?}");
    assert_eq!(unnoticed.len(), unproven, "{unnoticed:#?}\n{log}");
    // What another rule does as well is no loss; that is all there is.
    assert!(unnoticed.len() <= 5, "{unnoticed:#?}");
}

#[test]
fn a_failed_selftest_is_exit_126_of_the_run_itself() {
    let pods = Pods::new("v4");
    // Whatever the rules say, somebody else's come first.
    let foreign = [
        "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "15002", "-j", "ACCEPT",
    ];
    pods.output("iptables-nft", &foreign);
    let output = pods.init(FLAGS);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(126), "{log}");
    assert!(
        log.contains("should be redirected to port 15001; but it arrived elsewhere, at port 15002"),
        "{log}"
    );
}

#[test]
fn where_a_proxy_listens_already_connection_tracking_is_asked() {
    let pods = Pods::new("v4");
    pods.init_well(FLAGS);
    let _proxy = ["0.0.0.0:15001", "0.0.0.0:15006"]
        .map(|address| super::probe::inside(&pods.pod, (1337, 1337), || TcpListener::bind(address).unwrap()));
    let (code, log) = selftest(&mut pods.program(&with_word("selftest", FLAGS)));
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("another program listens on tcp port 15001"), "{log}");
    assert!(log.contains(" 0 not, 0 undecided"), "{log}");
    pods.output("iptables-nft", &["-t", "nat", "-D", "ISTIO_IN_REDIRECT", "1"]);
    let (code, log) = selftest(&mut pods.program(&with_word("selftest", FLAGS)));
    assert_eq!(code, Some(126), "{log}");
}

#[test]
fn what_privilege_it_lacks_is_told_and_the_rest_is_proven() {
    let pods = Pods::new("v4");
    pods.init_well(FLAGS);
    // As Istio's container istio-validation.
    let mut program = pods.command("setpriv");
    program.args(["--reuid=1337", "--regid=1337", "--clear-groups"]);
    program
        .arg(env!("CARGO_BIN_EXE_iptables-init"))
        .args(with_word("selftest", FLAGS));
    let (code, log) = selftest(&mut program);
    assert_eq!(code, Some(0), "{log}");
    assert!(
        log.contains("it takes NET_ADMIN") && log.contains("take the capabilities SETUID and SETGID"),
        "{log}"
    );
    assert!(
        log.contains("good: tcp to 127.0.0.6:15002") && log.contains("redirected to port 15006"),
        "{log}"
    );
    // Nothing is left of it, not even for a moment.
    assert!(
        command("ip")
            .args(["-n", &pods.pod, "link", "show", "istio-selftest"])
            .output()
            .unwrap()
            .stdout
            .is_empty()
    );
}
