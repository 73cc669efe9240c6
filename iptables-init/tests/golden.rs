//! The text of `--dry-run` for many flag sets, compared with `tests/golden/*.txt`.
//!
//! `UPDATE=1 cargo test -p iptables-init --test golden` writes the files anew; review the difference, it is
//! what other pods get.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use iptables_init::config::{Config, Host};
use iptables_init::{dry_run, flags};

const V4: &[&str] = &["127.0.0.1", "10.20.0.11"];
const V6: &[&str] = &["127.0.0.1", "::1", "fd00:20::11"];

/// `line` is one command line, words parted by spaces, `""` an empty word.
fn check(name: &str, line: &str, env: &[(&str, &str)], addresses: &[&str]) {
    let words = line
        .split_whitespace()
        .map(|word| if word == "\"\"" { "" } else { word });
    let flags = flags::parse(std::iter::once("iptables-init").chain(words).map(OsString::from)).unwrap();
    let lookup = |name: &str| {
        env.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let host = Host {
        env: &lookup,
        uid_of: &|_| None,
        gid_of: &|name| match name {
            "java" => Some(2000),
            "ftp" => Some(21),
            _ => None,
        },
        addresses: &addresses,
        dns_servers: &[],
    };
    let config = Config::new(&flags, &host).unwrap();

    let mut text = format!("# flags: {line}\n");
    for (key, value) in env {
        text.push_str(&format!("# env: {key}={value}\n"));
    }
    text.push_str(&dry_run::text(&config));

    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE=1 writes it", file.display()));
    assert_eq!(
        text,
        expected,
        "{} differs; UPDATE=1 writes it anew",
        file.display()
    );
}

const INJECTED: &str = "istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x \"\" -b * \
                        -d 15090,15021,15020 --log_output_level=default:info";

#[test]
fn injected_defaults() {
    check("injected", INJECTED, &[], V4);
}

#[test]
fn injected_defaults_on_ipv6() {
    check("injected-v6", INJECTED, &[], V6);
}

#[test]
fn dual_stack() {
    let env = [("ISTIO_DUAL_STACK", "true")];
    check(
        "dual-stack",
        "-u 1337 -i * -x 10.1.0.0/16,fd00:1::/32 -b *",
        &env,
        &["10.20.0.11", "fd00:20::11"],
    );
}

#[test]
fn no_flags_in_a_namespace_with_loopback_only() {
    check("no-flags", "", &[], &["127.0.0.1", "::1"]);
}

#[test]
fn inbound_port_list() {
    check("inbound-ports", "-u 1337 -i * -b 80,8080 -d 15090", &[], V4);
}

#[test]
fn outbound_cidrs_included_and_excluded() {
    check(
        "cidrs",
        "-u 1337 -i 10.96.0.0/12,fd00:96::/108 -x 10.97.0.0/16,fd00:97::/108 -b *",
        &[],
        V6,
    );
}

#[test]
fn an_included_loopback_address_drops_the_loopback_return() {
    check(
        "loopback-cidr",
        "-u 1337 -g 1338 -i 127.1.2.3/32,10.0.0.0/8 -b *",
        &[],
        V6,
    );
}

#[test]
fn outbound_ports_and_virtual_and_excluded_interfaces() {
    check(
        "ports-and-interfaces",
        "-u 1337 -i * -q 5000,6000 -o 9042,3306 -k eth1,eth2 -c eth9,eth8 -b *",
        &[],
        V6,
    );
}

#[test]
fn cidrs_with_virtual_interfaces() {
    check(
        "cidrs-virtual-interfaces",
        "-u 1337 -i 10.0.0.0/8,172.16.0.0/12 -k eth1,eth2",
        &[],
        V4,
    );
}

#[test]
fn several_uids_and_gids() {
    check("ids", "-u 3,4 -g 1,2 -i * -x 9.9.0.0/16 -b *", &[], V4);
}

#[test]
fn everything_from_the_environment() {
    let env = [
        ("ENVOY_PORT", "25001"),
        ("INBOUND_CAPTURE_PORT", "25006"),
        ("INBOUND_TUNNEL_PORT", "25008"),
        ("PROXY_UID", "2000"),
        ("PROXY_GID", "3000"),
        ("ISTIO_INBOUND_INTERCEPTION_MODE", "REDIRECT"),
        ("ISTIO_INBOUND_PORTS", "*"),
        ("ISTIO_LOCAL_EXCLUDE_PORTS", "22"),
        ("ISTIO_SERVICE_CIDR", "*"),
        ("ISTIO_SERVICE_EXCLUDE_CIDR", "10.9.0.0/16"),
        ("ISTIO_OUTBOUND_PORTS", "5000"),
        ("ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE", "53"),
        ("ISTIO_EXCLUDE_INTERFACES", "eth9"),
        ("KUBE_VIRT_INTERFACES", "eth1"),
        ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "888,ftp"),
        ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.0/8"),
        ("INVALID_DROP", "true"),
    ];
    check("environment", "", &env, V4);
}

#[test]
fn owner_groups_included() {
    let env = [("ISTIO_OUTBOUND_OWNER_GROUPS", "java,202")];
    check("owner-groups", "-u 1337 -i *", &env, V4);
}
