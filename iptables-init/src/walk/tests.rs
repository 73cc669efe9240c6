//! Where packets end up, for flags as they are given.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::plan;
use crate::testing::config;

const INJECTED: &str = "-p 15001 -z 15006 -u 1337 -i * -b * -d 15090,15021 -x 10.1.0.0/16 -o 3306";

fn packet(direction: Direction, to: &str) -> Packet {
    let (protocol, to) = match to.strip_prefix("udp ") {
        Some(to) => (Protocol::Udp, to),
        None => (Protocol::Tcp, to),
    };
    let to: std::net::SocketAddr = to.parse().unwrap();
    let lo = matches!(&direction, Direction::Out { interface, .. } if interface == LO);
    Packet {
        direction,
        protocol,
        source: if lo {
            to.ip()
        } else {
            "10.20.0.11".parse().unwrap()
        },
        source_port: 0,
        destination: to.ip(),
        destination_port: to.port(),
    }
}

fn sent(flags: &str, interface: &str, uid: u32, to: &str, expected: Outcome) {
    let direction = Direction::Out {
        interface: interface.to_owned(),
        uid,
        gid: uid,
    };
    check(flags, direction, to, expected);
}

fn arriving(flags: &str, interface: &str, to: &str, expected: Outcome) {
    let direction = Direction::In {
        interface: interface.to_owned(),
    };
    check(flags, direction, to, expected);
}

fn check(flags: &str, direction: Direction, to: &str, expected: Outcome) {
    let rules = plan::rules(&config(flags));
    let packet = packet(direction, to);
    assert_eq!(walk(&rules, &packet).outcome, expected, "{flags}: {packet:?}");
}

fn redirected(port: u16) -> Outcome {
    Outcome::Redirected(NonZeroU16::new(port).unwrap())
}

#[test]
fn outbound_goes_to_the_proxy_and_what_is_excluded_does_not() {
    sent(INJECTED, "eth0", 1000, "10.96.0.10:80", redirected(15001));
    sent(INJECTED, "eth0", 1337, "10.96.0.10:80", Outcome::Untouched);
    sent(INJECTED, "eth0", 1000, "10.1.2.3:80", Outcome::Untouched);
    sent(INJECTED, "eth0", 1000, "10.96.0.10:3306", Outcome::Untouched);
    sent(INJECTED, "eth0", 1000, "udp 10.96.0.10:80", Outcome::Untouched);
    sent(
        "-u 1337 -i 10.96.0.0/12 -b *",
        "eth0",
        1000,
        "10.1.2.3:80",
        Outcome::Untouched,
    );
    sent(
        "-u 1337 -q 80 -b *",
        "eth0",
        1000,
        "10.1.2.3:80",
        redirected(15001),
    );
}

#[test]
fn loopback_is_left_alone_but_for_the_proxy_calling_its_own_pod() {
    sent(INJECTED, LO, 1000, "127.0.0.1:80", Outcome::Untouched);
    sent(INJECTED, LO, 1000, "10.20.0.11:80", Outcome::Untouched);
    sent(INJECTED, LO, 1337, "127.0.0.1:80", Outcome::Untouched);
    sent(INJECTED, LO, 1337, "10.20.0.11:80", redirected(15006));
    sent(INJECTED, LO, 1337, "10.20.0.11:15008", Outcome::Untouched);
}

#[test]
fn inbound_goes_to_the_proxy_and_owner_rules_do_not_see_it() {
    arriving(INJECTED, "eth0", "10.20.0.11:80", redirected(15006));
    arriving(INJECTED, "eth0", "10.20.0.11:15090", Outcome::Untouched);
    arriving(INJECTED, "eth0", "10.20.0.11:15008", Outcome::Untouched);
    arriving("-u 1337 -b 8080", "eth0", "10.20.0.11:80", Outcome::Untouched);
    // A virtual machine's inbound is outbound; the later insertion stands before.
    arriving(
        "-u 1337 -b * -i * -k eth1",
        "eth1",
        "10.20.0.11:80",
        redirected(15001),
    );
    arriving(
        "-u 1337 -b * -i * -c eth+",
        "eth1",
        "10.20.0.11:80",
        Outcome::Untouched,
    );
}

#[test]
fn dns_goes_to_the_resolver_unless_the_proxy_asks() {
    let flags = "-u 1337 -i * --redirect-dns --capture-all-dns";
    sent(flags, "eth0", 1000, "udp 10.96.0.10:53", redirected(15053));
    sent(flags, "eth0", 1000, "10.96.0.10:53", redirected(15053));
    sent(flags, "eth0", 1337, "udp 10.96.0.10:53", Outcome::Untouched);
}

#[test]
fn transparent_mode_hands_over_without_translation() {
    let flags = "-u 1337 -m TPROXY -i * -b * -d 15090";
    let transparent = Outcome::Transparent(NonZeroU16::new(15006).unwrap());
    arriving(flags, "eth0", "10.20.0.11:80", transparent);
    arriving(flags, "eth0", "10.20.0.11:15090", Outcome::Untouched);
    // Over lo only what the proxy marked on its way out.
    sent(flags, LO, 1000, "10.20.0.11:80", Outcome::Untouched);
}

#[test]
fn every_rule_looked_at_is_told_with_what_kept_it_from_matching() {
    let rules = plan::rules(&config("-u 1337 -i *"));
    let out = Direction::Out {
        interface: "eth0".to_owned(),
        uid: 1000,
        gid: 1000,
    };
    let walk = walk(&rules, &packet(out, "10.96.0.10:80"));
    let told: Vec<(String, String)> = walk
        .steps
        .iter()
        .map(|step| {
            let unmet = step
                .unmet
                .as_ref()
                .map_or(String::new(), |(_, fact)| fact.clone());
            (step.rule.to_string(), unmet)
        })
        .collect();
    let yes = |rule: &str| (rule.to_owned(), String::new());
    assert_eq!(told[0], yes("-A OUTPUT -j ISTIO_OUTPUT"));
    let uid = (
        "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN".to_owned(),
        "its owner is uid 1000".to_owned(),
    );
    assert!(told.contains(&uid), "{told:?}");
    assert_eq!(
        told[told.len() - 1],
        yes("-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001")
    );
}
