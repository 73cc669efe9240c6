//! What is told of a connection.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::config;

fn explain(flags: &str, about: &str, uid: u32, interface: &str) -> String {
    let route = Route {
        interface: interface.to_owned(),
        source: "10.20.0.11".parse().unwrap(),
    };
    let owner = Owner { uid, gid: uid };
    text(
        &config(flags),
        &question::parse(about).unwrap(),
        owner,
        Some(&route),
    )
}

fn check(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part:?} is not (in this order) in:\n{text}"));
        rest = &rest[at + part.len()..];
    }
}

const INJECTED: &str = "-u 1337 -i * -b * -d 15090 -x 10.1.0.0/16";

#[test]
fn a_captured_connection_is_followed_to_the_proxy() {
    let text = explain(INJECTED, "10.0.0.5:3306", 1000, "eth0");
    check(
        &text,
        &[
            "tcp to 10.0.0.5:3306, sent by uid 1000, gid 1000, leaving on eth0\n",
            "nat OUTPUT\n",
            "-j ISTIO_OUTPUT",
            "yes: on to ISTIO_OUTPUT",
            "-m owner --uid-owner 1337 -j RETURN",
            "no: its owner is uid 1000",
            "-d 10.1.0.0/16 -j RETURN",
            "no: it goes to 10.0.0.5",
            "nat ISTIO_REDIRECT\n",
            "yes: redirected to port 15001",
            "it goes to port 15001 of this pod, where SO_ORIGINAL_DST still tells 10.0.0.5:3306\n",
            "because of nat ISTIO_OUTPUT: -j ISTIO_REDIRECT (everything: on to ISTIO_REDIRECT)\n",
        ],
    );
}

#[test]
fn what_is_left_alone_names_the_rule_that_does_so() {
    check(
        &explain(INJECTED, "10.1.2.3:80", 1000, "eth0"),
        &[
            "it goes straight to 10.1.2.3:80; the proxy",
            "because of nat ISTIO_OUTPUT: -d 10.1.0.0/16 -j RETURN",
        ],
    );
    check(
        &explain(INJECTED, "10.0.0.5:80", 1337, "eth0"),
        &["because of nat ISTIO_OUTPUT: -m owner --uid-owner 1337 -j RETURN (sent by uid 1337: left alone"],
    );
    check(
        &explain(INJECTED, "inbound:15090", 0, "eth0"),
        &[
            "tcp to 10.20.0.11:15090, coming in on eth0",
            "it arrives at 10.20.0.11:15090",
            "because of nat ISTIO_INBOUND: -p tcp --dport 15090 -j RETURN",
        ],
    );
    check(
        &explain("-u 1337", "udp://10.0.0.5:53", 1000, "eth0"),
        &["because of no rule takes it"],
    );
}

#[test]
fn ipv6_without_ipv6_rules_is_said() {
    let text = explain(INJECTED, "[fd00::5]:80", 1000, "eth0");
    check(
        &text,
        &["there are no IPv6 rules", "it goes straight to [fd00::5]:80"],
    );
}
