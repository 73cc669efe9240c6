//! `--backend netlink`: the kernel holds what `nft` would have made of the same plan, all of it or nothing.

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::pods::Pods;
use crate::cases;

const NETLINK: &[&str] = &["--backend", "netlink", "--no-selftest"];
const FLAGS: &[&str] = &["-u", "1337", "-i", "*", "-b", "*", "-d", "15090"];

/// `nft -j list ruleset` without what differs from run to run.
fn listed(pods: &Pods) -> Vec<String> {
    let text = pods.output("nft", &["-j", "--stateless", "list", "ruleset"]);
    // One object after the other; a handle is a number of its own in each namespace.
    let objects = text.split("{\"").map(|object| {
        let mut object = object.to_owned();
        while let Some(at) = object.find("\"handle\": ") {
            let end = object[at..].find([',', '}']).map_or(object.len(), |end| at + end);
            object.replace_range(at..end, "");
        }
        object
    });
    objects.filter(|object| !object.starts_with("metainfo")).collect()
}

#[test]
fn the_kernel_holds_what_nft_makes_of_the_same_plan() {
    for host in ["v4", "v6", "dual"] {
        let (ours, theirs) = (Pods::new(host), Pods::new(host));
        let mut seen = 0;
        // The behaviour of all cases is tested elsewhere; here it is the words.
        for case in cases::all()
            .into_iter()
            .filter(|case| case.host == host)
            .step_by(3)
        {
            let run = |pods: &Pods, how: &[&str]| {
                pods.name_servers(&case.dns_servers);
                let mut line: Vec<&str> = case.flags.iter().map(String::as_str).collect();
                line.extend(how);
                let mut program = pods.program(&line);
                program.envs(case.env.iter().map(|(key, value)| (key, value)));
                let output = program.output().unwrap();
                let log = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(0), "{}: {log}", case.name);
                log
            };
            run(&ours, NETLINK);
            run(&theirs, &["--native-nftables", "--no-selftest"]);
            for (ours, theirs) in listed(&ours).iter().zip(listed(&theirs)) {
                assert_eq!(*ours, theirs, "{}", case.name);
            }
            assert_eq!(listed(&ours).len(), listed(&theirs).len(), "{}", case.name);
            // What the program wrote is what this would have written.
            assert!(
                run(&theirs, NETLINK).contains("nftables: all rules are in place"),
                "{}",
                case.name
            );
            seen += 1;
        }
        assert!(seen > 3, "{host}");
        let _ = ours.init_well(&["--cleanup-only", "--backend", "netlink"]);
        assert_eq!(ours.native(), "");
    }
}

#[test]
fn what_was_changed_by_hand_is_replaced() {
    let pods = Pods::new("v4");
    let line = [FLAGS, NETLINK].concat();
    pods.init_well(&line);
    let wanted = listed(&pods);
    for change in [
        "delete chain inet istio-proxy-nat prerouting",
        "add rule inet istio-proxy-nat istio-output counter accept",
        "add chain inet istio-proxy-nat more",
        "flush chain inet istio-proxy-nat istio-redirect",
        "add table inet istio-proxy-raw",
        "delete table inet istio-proxy-nat",
        "flush chain inet istio-proxy-nat istio-in-redirect; add rule inet istio-proxy-nat istio-in-redirect \
         meta l4proto tcp counter redirect to :15007",
    ] {
        pods.output("nft", &[change]);
        assert_ne!(listed(&pods), wanted, "{change}");
        let log = pods.init_well(&line);
        let says = if change.starts_with("delete table") {
            "one batch"
        } else {
            "replacing rules of an earlier run"
        };
        assert!(log.contains(says), "{change}: {log}");
        assert_eq!(listed(&pods), wanted, "{change}");
    }
}

/// Killed at a later moment each time, from before the batch to after it.
#[test]
fn killed_at_any_moment_it_leaves_all_or_nothing() {
    let pods = Pods::new("v4");
    let line = [FLAGS, NETLINK].concat();
    let start = Instant::now();
    pods.init_well(&line);
    let whole = start.elapsed();
    let complete = listed(&pods);
    pods.init_well(&["--cleanup-only"]);
    let nothing = listed(&pods);
    let (mut untouched, mut done) = (0, 0);
    for step in 0..60u32 {
        let mut program = pods.program(&line);
        let mut child = program.stderr(Stdio::null()).process_group(0).spawn().unwrap();
        std::thread::sleep(
            whole
                .mul_f64(f64::from(step) / 50.0)
                .min(Duration::from_millis(200)),
        );
        let _ = child.kill();
        child.wait().unwrap();
        let now = listed(&pods);
        match (now == nothing, now == complete) {
            (true, _) => untouched += 1,
            (_, true) => done += 1,
            _ => panic!("after step {step}: {now:#?}"),
        }
        if now != nothing {
            pods.init_well(&["--cleanup-only"]);
        }
    }
    assert!(
        untouched > 0 && done > 0,
        "{untouched} untouched, {done} complete"
    );
    pods.init_well(&line);
    assert_eq!(listed(&pods), complete);
}

/// An image with nothing in it but this program.
#[test]
fn without_any_program_native_tables_are_written_unasked_and_found_again() {
    let pods = Pods::new("v4");
    let root = tempfile::tempdir().unwrap();
    // Linked to libraries: those of this machine, and nothing else, at their own places.
    let inside = |line: &[&str]| {
        let mut script =
            String::from("set -e; mount -t tmpfs none \"$1\"; cd \"$1\"; mkdir proc lib lib64 usr etc; ");
        script += "mount --rbind /lib lib; [ -e /lib64 ] && mount --rbind /lib64 lib64; mkdir usr/lib; ";
        script += "mount --rbind /usr/lib usr/lib; mount -t proc proc proc; cp \"$2\" init; shift 2; ";
        script += "exec chroot . /init \"$@\"";
        let mut program = pods.command("unshare");
        program.args(["--mount", "sh", "-c", &script, "sh"]);
        program
            .arg(root.path())
            .arg(env!("CARGO_BIN_EXE_iptables-init"))
            .args(line);
        let output = program.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{log}");
        log
    };
    let log = inside(FLAGS);
    assert!(
        log.contains("no iptables programs in this image") && log.contains(" 0 not, "),
        "{log}"
    );
    assert!(pods.native().contains("redirect to :15001"));
    assert!(inside(FLAGS).contains("all rules are in place, nothing to do"));
    inside(&["--cleanup-only"]);
    assert_eq!(pods.native(), "");
}
