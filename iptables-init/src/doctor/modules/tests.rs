//! Refusals of the kernel and files of false machines, and what is made of them.

#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;

const RULES: &str =
    "* nat\n-A OUTPUT -p tcp -m owner --uid-owner 1337 -j REDIRECT --to-ports 15001\nCOMMIT\n";
const NO_TABLE: &str = "can't initialize iptables table `nat': Table does not exist (do you need to insmod?)";

/// Everything works, but for `refused`: way, feature's table and name, complaint.
fn answers(refused: &[(Way, &str, &str, &str)]) -> Vec<Answer> {
    let ways = [Way::Legacy, Way::Nft, Way::Netlink];
    let of = |way: Way| {
        FEATURES.iter().enumerate().map(move |(index, feature)| {
            // Who has no table has nothing in it.
            let refusal = refused.iter().find(|(of, table, name, _)| {
                *of == way && *table == feature.table && (*name == feature.name || *name == "table")
            });
            Answer {
                way,
                v6: false,
                feature: index,
                outcome: refusal.map_or(Ok(()), |(.., complaint)| Err((*complaint).to_owned())),
            }
        })
    };
    ways.into_iter().flat_map(of).collect()
}

fn findings(ways: &[Way], refused: &[(Way, &str, &str, &str)], files: &[(&str, &str)]) -> Vec<Finding> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let wanted = Wanted {
        v4: Some(RULES.to_owned()),
        ways: ways.to_vec(),
        ..Wanted::default()
    };
    examine(&Probed {
        machine: &Machine::new(folder.path()),
        wanted: &wanted,
        answers: &answers(refused),
        untried: None,
        plain_is_nft: true,
    })
}

const MODULES: (&str, &str) = ("proc/modules", "nf_nat 1 0 - Live 0x0\n");
const KERNEL: (&str, &str) = ("proc/sys/kernel/osrelease", "6.1.0\n");

#[test]
fn one_way_that_works_is_enough() {
    let refused = [(Way::Legacy, "nat", "table", NO_TABLE)];
    let found = findings(&[Way::Legacy, Way::Nft], &refused, &[MODULES]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].id.as_str(), found[0].severity),
        ("kernel.ipv4", Severity::Fine)
    );
    assert!(found[0].summary.ends_with("with: nft, netlink"), "{found:?}");
    assert_eq!(found[0].seen, [format!("legacy, nat table: {NO_TABLE}")]);
}

#[test]
fn a_missing_table_names_its_modules_and_both_remedies() {
    let refused = [(Way::Legacy, "nat", "table", NO_TABLE)];
    let found = findings(&[Way::Legacy], &refused, &[MODULES]);
    assert_eq!(found.len(), 1, "REDIRECT is in the table: {found:?}");
    assert_eq!(
        (found[0].id.as_str(), found[0].severity),
        ("kernel.ipv4.nat", Severity::Error)
    );
    assert_eq!(
        found[0].seen,
        [
            &format!("legacy, nat table: {NO_TABLE}"),
            "module iptable_nat: not loaded (its file is out of sight here)",
            "module nf_nat: there: the kernel used it for another way"
        ]
    );
    assert_eq!(
        found[0].fix,
        [
            "on the node, now: modprobe -a iptable_nat",
            "on the node, for every start: printf '%s\\n' iptable_nat >/etc/modules-load.d/iptables-init.conf",
            "or --force-iptables-binary nft: all it needs works here",
            "or --backend netlink: it needs no program, and all it needs works here"
        ]
    );
}

#[test]
fn what_modprobe_cannot_do_is_not_advised() {
    let refused = [
        (Way::Legacy, "nat", "owner of a socket", "no such match"),
        (Way::Nft, "nat", "table", "x"),
        (Way::Netlink, "nat", "table", "x"),
    ];
    let fix = |files: &[(&str, &str)]| findings(&[Way::Legacy], &refused, files)[0].fix.join("|");
    let dep = ("lib/modules/6.1.0/modules.dep", "kernel/xt_other.ko:\n");
    let absent = fix(&[MODULES, KERNEL, dep]);
    assert!(
        absent.contains("(xt_owner): apt install linux-modules-extra-6.1.0"),
        "{absent}"
    );
    assert!(!absent.contains("modprobe"), "{absent}");
    let without = fix(&[("proc/self/status", "Name: x")]);
    assert!(without.starts_with("modprobe cannot help"), "{without}");
    let locked = fix(&[MODULES, ("proc/sys/kernel/modules_disabled", "1")]);
    assert!(locked.starts_with("kernel.modules_disabled=1"), "{locked}");
}

#[test]
fn a_way_that_was_never_answered_has_no_programs() {
    let found = findings(&[Way::Plain], &[], &[MODULES]);
    assert_eq!(
        (found[0].id.as_str(), found[0].severity),
        ("programs.ipv4", Severity::Error)
    );
}

#[test]
fn without_a_namespace_to_try_in_nothing_is_claimed() {
    let wanted = Wanted {
        v4: Some(RULES.to_owned()),
        ways: vec![Way::Legacy],
        ..Wanted::default()
    };
    let native: Vec<Answer> = answers(&[])
        .into_iter()
        .filter(|a| a.way == Way::Netlink)
        .collect();
    let found = examine(&Probed {
        machine: &Machine::new("/nonexistent"),
        wanted: &wanted,
        answers: &native,
        untried: Some("EPERM"),
        plain_is_nft: true,
    });
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].id.as_str(), found[0].severity),
        ("kernel.probe", Severity::Warning)
    );
    let seen = found[0].seen.join("|");
    assert!(seen.starts_with("EPERM|"), "{seen}");
    assert!(seen.contains("nf_tables: there: the kernel used it"), "{seen}");
    assert!(seen.contains("xt_owner: not loaded"), "{seen}");
}
