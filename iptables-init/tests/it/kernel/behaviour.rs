//! Every case of `tests/golden` in the kernel: applied, probed, applied again, removed.

use super::pods::Pods;
use super::probe::Listeners;
use crate::cases::{self, Case};

/// One way to have rules written: the flags that choose it, and the program that lists them.
struct Backend {
    flags: &'static [&'static str],
    lists: &'static [&'static str],
    takes: fn(&Case) -> bool,
}

const LEGACY: Backend = Backend {
    flags: &["--force-iptables-binary", "legacy"],
    lists: &["iptables-legacy-save", "ip6tables-legacy-save"],
    takes: is_for_iptables,
};
const NFT: Backend = Backend {
    flags: &["--force-iptables-binary", "nft"],
    lists: &["iptables-nft-save", "ip6tables-nft-save"],
    takes: is_for_iptables,
};
const NATIVE: Backend = Backend {
    flags: &["--native-nftables"],
    lists: &[],
    takes: |_| true,
};

const NETLINK: Backend = Backend {
    flags: &["--backend", "netlink"],
    lists: &[],
    takes: |_| true,
};

fn is_for_iptables(case: &Case) -> bool {
    !case.flags.iter().any(|flag| flag == "--native-nftables")
}

/// Runs the cases of each kind of host in one pod after the other; two cases of three meet the rules of the
/// one before and must replace them.
fn check(backend: &Backend) {
    let cases: Vec<Case> = cases::all().into_iter().filter(backend.takes).collect();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let hosts = ["v4", "v6", "dual"].map(|host| {
            let cases = cases.iter().filter(move |case| case.host == host);
            scope.spawn(move || check_host(backend, host, cases))
        });
        hosts
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check_host<'a>(backend: &Backend, host: &str, cases: impl Iterator<Item = &'a Case>) -> Vec<String> {
    let pods = Pods::new(host);
    let listeners = Listeners::new(&pods);
    let mut wrong = Vec::new();
    for (index, case) in cases.enumerate() {
        // Without a redirected destination of its family, an interface of a virtual machine leaves a rule that
        // only the same flags recognize.
        let has_virtual = case.flags.iter().any(|flag| flag == "-k");
        let found = check_case(&pods, &listeners, backend, case, has_virtual || index % 3 == 0);
        wrong.extend(found.into_iter().map(|what| format!("{}: {what}", case.name)));
    }
    wrong
}

fn check_case(
    pods: &Pods,
    listeners: &Listeners,
    backend: &Backend,
    case: &Case,
    clean: bool,
) -> Vec<String> {
    pods.name_servers(&case.dns_servers);
    let run = |more: &[&str]| {
        let mut line: Vec<&str> = case.flags.iter().map(String::as_str).collect();
        line.extend(backend.flags);
        // This test makes its own connections, and its listeners would be handed those of the self-test too.
        line.push("--no-selftest");
        line.extend(more);
        let mut program = pods.program(&line);
        program.envs(case.env.iter().map(|(key, value)| (key, value)));
        let output = program.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(log)
        } else {
            Err(log)
        }
    };
    if let Err(log) = run(&[]) {
        return vec![log];
    }
    let mut wrong: Vec<String> = case
        .probes
        .iter()
        .filter_map(|probe| listeners.check(probe).err())
        .collect();
    // Listing takes longer than all else: in every case the log says what a second run did.
    let list = || {
        if !clean {
            return String::new();
        }
        let lists = backend.lists.iter().map(|program| pods.listed(program));
        lists.collect::<String>() + &pods.native() + &pods.routing()
    };
    let before = list();
    match run(&[]) {
        Ok(log) if log.contains("nothing to do") && !log.contains("restore --noflush") => {}
        Ok(log) | Err(log) => wrong.push(format!("a second run did something: {log}")),
    }
    if list() != before {
        wrong.push("a second run changed something".to_owned());
    }
    if clean {
        wrong.extend(run(&["--cleanup-only"]).err());
        let residue = pods.saved() + &pods.routing();
        if !residue.is_empty() {
            wrong.push(format!("after --cleanup-only there is still\n{residue}"));
        }
    }
    wrong
}

#[test]
fn connections_end_where_istio_means_them_to_with_legacy_programs() {
    check(&LEGACY);
}

#[test]
fn connections_end_where_istio_means_them_to_with_nft_programs() {
    check(&NFT);
}

#[test]
fn connections_end_where_istio_means_them_to_with_native_tables() {
    check(&NATIVE);
}

#[test]
fn connections_end_where_istio_means_them_to_without_any_program() {
    check(&NETLINK);
}
