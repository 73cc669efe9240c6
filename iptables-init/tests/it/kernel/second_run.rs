//! A second run, rules of others, and what stops the program.

use std::net::TcpListener;

use super::pods::Pods;
use super::probe::inside;

const INJECTED: &[&str] = &[
    "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d",
    "15090",
];

#[test]
fn a_second_run_succeeds_and_changes_nothing() {
    for backend in [[].as_slice(), &["--force-iptables-binary", "legacy"]] {
        let pods = Pods::new("v4");
        let line = [
            INJECTED,
            backend,
            &["-o", "53", "-q", "5000", "-k", "eth1,eth2", "-c", "eth9"],
        ]
        .concat();
        pods.init_well(&line);
        let first = pods.saved();
        assert!(
            first.contains("-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n"),
            "{first}"
        );
        // The second run finds the programs of the first without being told.
        let second = [
            INJECTED,
            &["-o", "53", "-q", "5000", "-k", "eth1,eth2", "-c", "eth9"],
        ]
        .concat();
        let log = pods.init_well(&second);
        assert!(
            log.contains("IPv4: all rules are in place, nothing to do"),
            "{log}"
        );
        assert_eq!(pods.saved(), first);
    }
}

#[test]
fn other_flags_replace_the_rules_unless_that_is_forbidden() {
    let pods = Pods::new("v4");
    pods.init_well(INJECTED);
    let first = pods.saved();
    let other = ["-p", "15001", "-u", "1337", "-b", "80", "-i", "*"];
    let output = pods.init(&[&other[..], &["--reconcile=false"]].concat());
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("nat") && log.contains("--reconcile=false"), "{log}");
    assert_eq!(pods.saved(), first);
    pods.init_well(&other);
    let second = pods.saved();
    assert!(second.contains("--dport 80 -j ISTIO_IN_REDIRECT"), "{second}");
    assert!(!second.contains("--dport 15090"), "{second}");
    assert!(pods.init_well(&other).contains("nothing to do"));
}

#[test]
fn rules_of_others_do_not_stop_a_first_run() {
    let pods = Pods::new("v4");
    pods.output(
        "iptables-nft",
        &["-t", "nat", "-A", "OUTPUT", "-p", "udp", "-j", "RETURN"],
    );
    pods.init_well(INJECTED);
    assert!(pods.init_well(INJECTED).contains("nothing to do"));
}

#[test]
fn a_namespace_without_addresses_gets_ipv4_rules() {
    let pods = Pods::new("v4");
    for name in ["eth0", "eth1", "eth9"] {
        pods.output("ip", &["link", "del", name]);
    }
    pods.init_well(INJECTED);
    assert!(pods.listed("iptables-nft-save").contains("ISTIO_OUTPUT"));
    assert_eq!(pods.listed("ip6tables-nft-save"), "");
}

#[test]
fn lo_gets_the_address_that_the_proxy_sends_from() {
    let pods = Pods::new("v6");
    pods.init_well(INJECTED);
    inside(&pods.pod, (1337, 1337), || TcpListener::bind("[::6]:0").map(drop)).unwrap();
}

#[test]
fn without_the_right_to_change_tables_the_capability_is_named() {
    let pods = Pods::new("v4");
    let program = env!("CARGO_BIN_EXE_iptables-init");
    let output = pods
        .command("setpriv")
        .args(["--reuid=65534", "--clear-groups", program])
        .args(INJECTED)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("NET_ADMIN"), "{log}");
}

#[test]
fn legacy_programs_without_net_raw_are_denied_and_the_kernel_is_not_blamed() {
    let pods = Pods::new("v4");
    let mut program = pods.command("setpriv");
    program.args(["--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin"]);
    program.arg(env!("CARGO_BIN_EXE_iptables-init")).args(INJECTED);
    let output = program
        .args(["--force-iptables-binary", "legacy"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("NET_RAW"), "{log}");
}

#[test]
fn runs_at_the_same_time_take_turns() {
    let pods = Pods::new("v4");
    for backend in [
        "--force-iptables-binary=nft",
        "--force-iptables-binary=legacy",
        "--native-nftables",
    ] {
        let runs: Vec<_> = ["80", "*", "8080", "*"]
            .iter()
            .map(|ports| {
                let mut program = pods.program(&["-u", "1337", "-i", "*", "-b", ports, backend]);
                program.stderr(std::process::Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for run in runs {
            let output = run.wait_with_output().unwrap();
            assert_eq!(
                output.status.code(),
                Some(0),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        pods.init_well(&["--cleanup-only"]);
        assert_eq!(pods.saved(), "", "{backend}");
    }
}
