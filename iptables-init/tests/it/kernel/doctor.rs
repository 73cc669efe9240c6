//! The doctor in the real kernel: its refusals, not descriptions of them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use super::pods::Pods;

const FLAGS: &[&str] = &["-u", "1337", "-i", "*", "-b", "*"];
const PROGRAM: &str = env!("CARGO_BIN_EXE_iptables-init");

fn check(output: &Output, code: i32, parts: &[&str]) {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_healthy_pod_has_nothing_to_complain_of() {
    let pods = Pods::new("v4");
    let before = pods.saved();
    let output = pods.init(&[&["doctor"], FLAGS].concat());
    check(
        &output,
        0,
        &[
            "doctor: 0 errors",
            "fine    kernel.ipv4: all that the rules need works",
        ],
    );
    assert_eq!(pods.saved(), before);
}

#[test]
fn a_dropped_capability_is_named_with_its_remedy_and_sets_the_exit_code() {
    let pods = Pods::new("v4");
    let without = |first: &[&str], output: fn(&mut std::process::Command) -> Output| {
        let mut program = pods.command("setpriv");
        program.args(["--bounding-set=-net_admin,-net_raw", "--inh-caps=-all", PROGRAM]);
        output(program.args(first).args(FLAGS))
    };
    let output = without(&["doctor"], |program| program.output().unwrap());
    check(
        &output,
        4,
        &[
            "error   capability.net_admin: NET_ADMIN is missing",
            "the runtime dropped it for good",
            "fix:  securityContext of the container: {runAsUser: 0, capabilities: {add: [NET_ADMIN, NET_RAW]}}",
            // The kernel is well: asked in a namespace where this process may do everything.
            "fine    kernel.ipv4:",
        ],
    );
    // By itself, when the rules cannot be applied.
    let output = without(&[], |program| program.output().unwrap());
    check(
        &output,
        1,
        &["error   capability.net_admin: NET_ADMIN is missing"],
    );
    let output = without(&["doctor", "--log_as_json"], |program| program.output().unwrap());
    check(
        &output,
        4,
        &["{\"exit\":4,\"findings\":[{\"id\":\"capability.net_admin\",\"severity\":\"error\""],
    );
}

/// Another process owns a table of our name; nobody else may touch it (nft(8), flag `owner`).
#[test]
fn a_table_that_cannot_be_made_is_named_and_nothing_changes() {
    let pods = Pods::new("v4");
    let mut owner = pods
        .command("nft")
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = owner.stdin.take().unwrap();
    lines
        .write_all(b"add table inet istio-proxy-nat { flags owner; }\n")
        .unwrap();
    let is_there = || pods.native().contains("istio-proxy-nat");
    while !is_there() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let output = pods.init(&[FLAGS, &["--backend", "netlink", "--no-selftest"]].concat());
    check(
        &output,
        1,
        &["nf_tables, table istio-proxy-nat", "EPERM", "doctor: "],
    );
    assert!(!pods.native().contains("istio-proxy-mangle"));
    drop(lines);
    owner.wait().unwrap();
    pods.init_well(&[FLAGS, &["--backend", "netlink"]].concat());
}

/// Programs that say what those of a node without the module say.
#[test]
fn a_missing_module_is_named_with_its_remedy() {
    let pods = Pods::new("v4");
    let folder = tempfile::tempdir().unwrap();
    for stem in ["iptables", "ip6tables"] {
        for kind in ["", "-legacy", "-nft"] {
            for suffix in ["", "-save", "-restore"] {
                fake(folder.path(), &format!("{stem}{kind}{suffix}"));
            }
        }
    }
    let run = |first: &[&str]| {
        let mut program = pods.program(&[first, FLAGS].concat());
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display());
        program.env("PATH", path).output().unwrap()
    };
    let parts = [
        "error   kernel.ipv4.nat: the table nat cannot be used",
        "can't initialize iptables table `nat': Table does not exist",
        "module iptable_nat: ",
        "or --backend netlink: it needs no program, and all it needs works here",
    ];
    check(&run(&["doctor"]), 3, &parts);
    // What helps depends on the machine: modprobe, a package, or another kernel.
    let text = run(&["doctor"]).stdout;
    let text = String::from_utf8_lossy(&text);
    let fix = text
        .lines()
        .find(|line| line.contains("fix:") && line.contains("iptable_nat"));
    assert!(fix.is_some(), "{text}");
    // By itself after the failed run, whose exit code says the same.
    check(&run(&[]), 3, &parts);
    check(&run(&["--backend", "netlink"]), 0, &["self-test: "]);
}

fn fake(folder: &Path, name: &str) {
    let file = folder.join(name);
    let script = "#!/bin/sh\ncase \"$1\" in --version) echo 'iptables v1.8.9 (legacy)'; exit 0;; esac\n\
                  case \"$0\" in *-save) exit 0;; esac\n\
                  echo \"iptables v1.8.9 (legacy): can't initialize iptables table \\`nat': Table does not exist \
                  (do you need to insmod?)\" >&2\nexit 3\n";
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn our_rules_in_two_backends_are_found() {
    let pods = Pods::new("v4");
    pods.init_well(&[FLAGS, &["--no-selftest"]].concat());
    // As a run with a program that does not see the other's tables would leave it.
    pods.output("iptables-legacy", &["-t", "nat", "-N", "ISTIO_OUTPUT"]);
    pods.output(
        "iptables-legacy",
        &["-t", "nat", "-A", "OUTPUT", "-j", "ISTIO_OUTPUT"],
    );
    pods.output(
        "iptables-nft",
        &["-t", "nat", "-I", "OUTPUT", "-p", "udp", "-j", "RETURN"],
    );
    let output = pods.init(&[&["doctor"], FLAGS].concat());
    check(
        &output,
        5,
        &[
            "error   rules.backends: our rules are in more than one backend",
            "iptables-legacy-save lists ISTIO_ chains",
            "warning rules.foreign.iptables-nft:",
            "if nobody needs it: iptables-nft -t nat -D OUTPUT -p udp -j RETURN",
        ],
    );
}

#[test]
fn ipv6_that_is_disabled_on_lo_is_found() {
    let pods = Pods::new("dual");
    let disable = "echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6";
    pods.output("sh", &["-c", disable]);
    let output = pods.init(&[&["doctor", "--dual-stack"], FLAGS].concat());
    check(
        &output,
        6,
        &["error   ipv6:", "fix:  sysctl -w net.ipv6.conf.lo.disable_ipv6=0"],
    );
}
