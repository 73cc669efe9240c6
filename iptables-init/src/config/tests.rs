//! Precedence, defaults and refusals.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;

use super::*;

fn config(line: &[&str], env: &[(&str, &str)], addresses: &[&str]) -> Result<Config, ConfigError> {
    let words = std::iter::once("iptables-init")
        .chain(line.iter().copied())
        .map(OsString::from);
    let flags = crate::flags::parse(words).unwrap();
    let lookup = |name: &str| {
        env.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let uid_of = |name: &str| (name == "proxy-user").then_some(4242);
    Config::new(
        &flags,
        &Host {
            env: &lookup,
            uid_of: &uid_of,
            addresses: &addresses,
        },
    )
}

/// `line` (and `env`) is refused, and the message holds every one of `parts`.
fn refused(line: &[&str], env: &[(&str, &str)], parts: &[&str]) {
    let message = config(line, env, &[]).unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not hold {part:?}");
    }
}

#[test]
fn without_flags_nothing_is_captured_and_the_ports_are_istios() {
    let config = config(&[], &[], &[]).unwrap();
    assert_eq!(
        (config.outbound_port.get(), config.inbound_port.get()),
        (15001, 15006)
    );
    assert_eq!(config.tunnel_port.get(), 15008);
    assert_eq!((config.proxy_uids, config.proxy_gids), (vec![1337], vec![1337]));
    assert_eq!(
        (config.inbound, config.outbound),
        (Inbound::Nothing, Outbound::Only(vec![]))
    );
    assert_eq!(config.loopback.to_string(), "127.0.0.1/32");
    assert!(!config.ipv6 && !config.dry_run && !config.drop_invalid);
}

#[test]
fn a_flag_beats_its_variable_and_the_variable_its_alias() {
    let env = [
        ("ENVOY_PORT", "1"),
        ("INBOUND_CAPTURE_PORT", "2"),
        ("DROP_INVALID", "false"),
        ("INVALID_DROP", "x"),
    ];
    let got = config(&["-p", "3"], &env, &[]).unwrap();
    assert_eq!(
        (got.outbound_port.get(), got.inbound_port.get(), got.drop_invalid),
        (3, 2, false)
    );
    assert!(
        config(&[], &[("INVALID_DROP", "true")], &[])
            .unwrap()
            .drop_invalid
    );
    // An explicit empty value hides the variable.
    let got = config(&["-x", ""], &[("ISTIO_SERVICE_EXCLUDE_CIDR", "10.0.0.0/8")], &[]).unwrap();
    assert!(got.excluded_destinations.is_empty());
}

#[test]
fn ids_default_to_the_proxy_user_and_gids_to_uids() {
    let got = config(&[], &[("ENVOY_USER", "proxy-user")], &[]).unwrap();
    assert_eq!((got.proxy_uids, got.proxy_gids), (vec![4242], vec![4242]));
    let got = config(&["-u", "1,2", "-g", ""], &[("ENVOY_USER", "proxy-user")], &[]).unwrap();
    assert_eq!((got.proxy_uids, got.proxy_gids), (vec![1, 2], vec![1, 2]));
    let got = config(&["-u", "", "-g", "7"], &[("ENVOY_USER", "nobody-knows")], &[]).unwrap();
    assert_eq!((got.proxy_uids, got.proxy_gids), (vec![1337], vec![7]));
}

#[test]
fn ipv6_follows_the_first_usable_address() {
    let check = |line: &[&str], env: &[(&str, &str)], addresses: &[&str], expected: bool| {
        assert_eq!(
            config(line, env, addresses).unwrap().ipv6,
            expected,
            "{line:?} {addresses:?}"
        );
    };
    check(&[], &[], &[], false);
    check(&[], &[], &["127.0.0.1", "::1", "fe80::1", "169.254.1.1"], false);
    check(&[], &[], &["127.0.0.1", "::1", "fd00::1"], true);
    check(&[], &[], &["127.0.0.1", "10.0.0.1", "fd00::1"], false);
    check(&[], &[], &["::ffff:10.0.0.1"], false);
    check(&["--dual-stack"], &[], &["10.0.0.1", "fd00::1"], true);
    check(&["--dual-stack"], &[], &["10.0.0.1", "::1", "fe80::1"], false);
    check(
        &[],
        &[("ISTIO_DUAL_STACK", "true")],
        &["10.0.0.1", "fd00::1"],
        true,
    );
}

#[test]
fn bad_values_name_flag_value_and_reason() {
    refused(&["-p", "0"], &[], &["-p/--envoy-port", "\"0\"", "not a port"]);
    refused(
        &["-z", "70000"],
        &[],
        &["-z/--inbound-capture-port", "\"70000\"", "not a port"],
    );
    refused(
        &["-d", "15090,x"],
        &[],
        &["-d/--istio-local-exclude-ports", "\"x\"", "not a port"],
    );
    refused(
        &["-b", "80,*"],
        &[],
        &["-b/--istio-inbound-ports", "\"*\"", "stands alone"],
    );
    refused(
        &["-i", "10.0.0.0/33"],
        &[],
        &["-i/--istio-service-cidr", "\"10.0.0.0/33\"", "not a CIDR"],
    );
    refused(
        &["-i", "10.0.0.1"],
        &[],
        &["-i/--istio-service-cidr", "10.0.0.1/32"],
    );
    refused(
        &["-x", "*"],
        &[],
        &["-x/--istio-service-exclude-cidr", "\"*\"", "for -i only"],
    );
    refused(
        &["-u", "root"],
        &[],
        &["-u/--proxy-uid", "\"root\"", "not a user"],
    );
    refused(&["-g", "4294967295"], &[], &["-g/--proxy-gid", "4294967295"]);
    refused(&["-k", "a b"], &[], &["-k/--kube-virt-interfaces", "\"a b\""]);
    refused(&["-c", "eth0\nCOMMIT"], &[], &["-c/--istio-exclude-interfaces"]);
    refused(
        &["-m", "redirect"],
        &[],
        &["-m/--istio-inbound-interception-mode", "\"redirect\""],
    );
    refused(
        &["--dual-stack=yes"],
        &[],
        &["--dual-stack", "\"yes\"", "neither true nor false"],
    );
    refused(
        &["--force-iptables-binary", "xt"],
        &[],
        &["--force-iptables-binary", "\"xt\""],
    );
    refused(
        &["--log_output_level=default:loud"],
        &[],
        &["--log_output_level", "\"default:loud\""],
    );
    refused(
        &[],
        &[("ENVOY_PORT", "+1")],
        &["environment variable ENVOY_PORT", "\"+1\""],
    );
    refused(
        &[],
        &[("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "10.0.0.0/8")],
        &["127.0.0.0/8"],
    );
    refused(
        &[],
        &[("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.0/7")],
        &["127.0.0.0/8"],
    );
    let many = vec!["1"; 65].join(",");
    refused(&[], &[("ISTIO_OUTBOUND_OWNER_GROUPS", &many)], &["65 groups"]);
}

#[test]
fn what_cannot_be_done_is_refused_unless_it_is_switched_off() {
    for name in [
        "redirect-dns",
        "capture-all-dns",
        "skip-rule-apply",
        "run-validation",
        "reconcile",
        "cleanup-only",
        "cni-mode",
        "native-nftables",
    ] {
        let flag = format!("--{name}");
        refused(&[&flag], &[], &[&flag, "not supported"]);
        config(&[&format!("{flag}=false")], &[], &[]).unwrap();
        let variable = name.to_ascii_uppercase().replace('-', "_");
        refused(&[], &[(&variable, "true")], &[&variable, "not supported"]);
    }
    refused(
        &["-m", "TPROXY"],
        &[],
        &["-m/--istio-inbound-interception-mode", "TPROXY", "not supported"],
    );
    refused(
        &["-t", "1"],
        &[],
        &["-t/--istio-inbound-tproxy-mark", "not supported"],
    );
    refused(
        &["-r", "1"],
        &[],
        &["-r/--istio-inbound-tproxy-route-table", "not supported"],
    );
    refused(
        &["--network-namespace", "/x"],
        &[],
        &["--network-namespace", "not supported"],
    );
    refused(
        &["--probe-timeout=1s"],
        &[],
        &["--probe-timeout", "not supported"],
    );
    refused(
        &[],
        &[("ISTIO_META_DNS_CAPTURE", "true")],
        &["ISTIO_META_DNS_CAPTURE", "not supported"],
    );
    config(
        &[
            "-t",
            "1337",
            "-r",
            "133",
            "--probe-timeout=5s",
            "--iptables-probe-port=15002",
        ],
        &[],
        &[],
    )
    .unwrap();
    config(&[], &[("ISTIO_META_DNS_CAPTURE", "false")], &[]).unwrap();
}

#[test]
fn the_log_level_is_that_of_the_default_scope() {
    let got = config(
        &["--log_output_level=default:debug,ads:error", "--log_as_json=true"],
        &[],
        &[],
    )
    .unwrap();
    assert_eq!((got.log.level, got.log.json), (Level::Debug, true));
    assert!(
        got.notes.iter().any(|note| note.contains("\"ads\"")),
        "{:?}",
        got.notes
    );
    assert_eq!(
        config(&["--log_output_level=warn"], &[], &[]).unwrap().log.level,
        Level::Warn
    );
}
