//! Settings of false machines, and what is made of them.

#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;

/// Findings about `files` with IPv6 rules wanted or not, by id.
fn check(files: &[(&str, &str)], v6: bool, id: &str, expected: Severity, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let wanted = Wanted {
        v4: Some(String::new()),
        v6: v6.then(String::new),
        ways: vec![Way::Legacy],
        ports: vec![15001, 15006],
    };
    let findings = examine(&Machine::new(folder.path()), &wanted, false);
    let finding = findings.iter().find(|finding| finding.id == id);
    let finding = finding.unwrap_or_else(|| panic!("no {id}: {findings:?}"));
    assert_eq!(finding.severity, expected, "{finding:?}");
    let text = format!("{finding:?}");
    for part in parts {
        assert!(text.contains(part), "{text} does not hold {part}");
    }
}

const INET6: (&str, &str) = (
    "proc/net/if_inet6",
    "00000000000000000000000000000001 01 80 10 80       lo\n\
     fd000020000000000000000000000011 02 40 00 80     eth0\n",
);

#[test]
fn ipv6_is_compared_with_what_is_wanted() {
    check(&[], true, "ipv6", Severity::Error, &["ipv6.disable=1"]);
    check(&[], false, "ipv6", Severity::Fine, &[]);
    check(&[INET6], true, "ipv6", Severity::Fine, &[]);
    check(
        &[INET6],
        false,
        "ipv6",
        Severity::Warning,
        &["--dual-stack", "fd0000200000"],
    );
    let only_lo = ("proc/net/if_inet6", INET6.1.lines().next().unwrap());
    check(&[only_lo], false, "ipv6", Severity::Fine, &[]);
    let disabled = ("proc/sys/net/ipv6/conf/lo/disable_ipv6", "1\n");
    check(
        &[INET6, disabled],
        true,
        "ipv6",
        Severity::Error,
        &["sysctl -w net.ipv6.conf.lo.disable_ipv6=0"],
    );
}

#[test]
fn a_full_connection_table_is_a_warning() {
    let files = |count| {
        [
            ("proc/sys/net/netfilter/nf_conntrack_count", count),
            ("proc/sys/net/netfilter/nf_conntrack_max", "1000\n"),
        ]
    };
    check(
        &files("899"),
        false,
        "conntrack",
        Severity::Fine,
        &["899 of 1000"],
    );
    check(
        &files("900"),
        false,
        "conntrack",
        Severity::Warning,
        &["nf_conntrack_max=2000"],
    );
    check(&[], false, "conntrack", Severity::Note, &["nf_conntrack"]);
}

#[test]
fn ports_that_outgoing_connections_may_get_are_a_warning() {
    let id = "sysctl.ip_local_port_range";
    let range = |text| ("proc/sys/net/ipv4/ip_local_port_range", text);
    check(&[range("32768\t60999\n")], false, id, Severity::Fine, &[]);
    check(
        &[range("1024 65535")],
        false,
        id,
        Severity::Warning,
        &["ip_local_reserved_ports=15001,15006"],
    );
    let reserved = ("proc/sys/net/ipv4/ip_local_reserved_ports", "15000-15003,15006");
    check(&[range("1024 65535"), reserved], false, id, Severity::Fine, &[]);
    check(&[], false, id, Severity::Note, &[]);
}

#[test]
fn who_listens_on_the_proxys_ports_is_named() {
    let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
               0: 00000000:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1337        0 1 1\n   \
               1: 00000000:3A9E 00000000:0000 01 00000000:00000000 00:00000000 00000000  1337        0 1 1\n";
    check(
        &[("proc/net/tcp", tcp)],
        false,
        "port.15001",
        Severity::Note,
        &["uid 1337", "port 15001"],
    );
}

#[test]
fn a_lock_that_cannot_be_had_stops_legacy() {
    check(&[], false, "xtables.lock", Severity::Error, &["emptyDir at /run"]);
}
