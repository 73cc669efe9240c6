//! Precedence, defaults and refusals.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::net::Ipv4Addr;

use super::*;
use crate::log::Level;

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
    let gid_of = |name: &str| (name == "java").then_some(2000);
    Config::new(
        &flags,
        &Host {
            env: &lookup,
            uid_of: &uid_of,
            gid_of: &gid_of,
            addresses: &addresses,
            dns_servers: &[IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10))],
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
    assert_eq!(
        (config.proxy_uids, config.proxy_gids),
        (ids(&[1337]), ids(&[1337]))
    );
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

fn ids(numbers: &[u32]) -> Vec<Id> {
    numbers.iter().map(|number| Id::from(*number)).collect()
}

#[test]
fn ids_default_to_the_proxy_user_and_gids_to_uids() {
    let check = |line: &[&str], env: &[(&str, &str)], uids: &[u32], gids: &[u32]| {
        let got = config(line, env, &[]).unwrap();
        assert_eq!(
            (got.proxy_uids, got.proxy_gids),
            (ids(uids), ids(gids)),
            "{line:?}"
        );
    };
    let user = [("ENVOY_USER", "proxy-user")];
    check(&[], &user, &[4242], &[4242]);
    check(&["-u", "1,2", "-g", ""], &user, &[1, 2], &[1, 2]);
    check(&["-u", "", "-g", "7"], &[], &[1337], &[7]);
    refused(
        &["-g", "7"],
        &[("ENVOY_USER", "nobody-knows")],
        &["ENVOY_USER", "nobody-knows"],
    );
}

#[test]
fn a_name_keeps_its_name_and_gets_its_number() {
    let got = config(
        &["-u", "proxy-user", "-g", "java"],
        &[("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "java,5")],
        &[],
    )
    .unwrap();
    let java = Id {
        number: 2000,
        name: Some("java".to_owned()),
    };
    assert_eq!(
        (got.proxy_uids[0].number, &got.proxy_gids),
        (4242, &vec![java.clone()])
    );
    assert_eq!(got.owner_groups, OwnerGroups::AllExcept(vec![java, Id::from(5)]));
    // Groups default to the user's number: there need not be a group of its name.
    assert_eq!(
        config(&["-u", "proxy-user"], &[], &[]).unwrap().proxy_gids,
        ids(&[4242])
    );
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
fn nonsense_is_refused_whether_or_not_it_would_have_an_effect() {
    refused(
        &["-b", "80, 8080"],
        &[],
        &["-b/--istio-inbound-ports", "\" 8080\""],
    );
    refused(
        &["-i", "10.0.0.0/8 "],
        &[],
        &["-i/--istio-service-cidr", "\"10.0.0.0/8 \""],
    );
    refused(
        &["-u", "nobody-knows"],
        &[],
        &["-u/--proxy-uid", "\"nobody-knows\""],
    );
    refused(
        &["-g", "nobody-knows"],
        &[],
        &["-g/--proxy-gid", "\"nobody-knows\""],
    );
    refused(
        &[],
        &[("ISTIO_OUTBOUND_OWNER_GROUPS", "nobody-knows")],
        &["ISTIO_OUTBOUND_OWNER_GROUPS", "\"nobody-knows\""],
    );
    for mark in ["0", "0x", "1338", "0x53a", "4294967296", "-1", "0x1g"] {
        refused(&["-t", mark], &[], &["-t/--istio-inbound-tproxy-mark", mark]);
    }
    for table in ["0", "254", "255", "main"] {
        refused(
            &["-r", table],
            &[],
            &["-r/--istio-inbound-tproxy-route-table", table],
        );
    }
    for timeout in ["5", "s", "-1s", "5 s", "0s", "2h", "1h1ms", "99999999999s", "5d"] {
        refused(&["--probe-timeout", timeout], &[], &["--probe-timeout", timeout]);
    }
    refused(
        &["--iptables-probe-port=0"],
        &[],
        &["--iptables-probe-port", "\"0\""],
    );
    refused(&["--reconcile=maybe"], &[], &["--reconcile", "\"maybe\""]);
}

#[test]
fn tproxy_has_a_mark_and_a_routing_table() {
    let check = |line: &[&str], mark, route_table| {
        let expected = Mode::Tproxy(Tproxy { mark, route_table });
        assert_eq!(config(line, &[], &[]).unwrap().mode, expected);
    };
    check(&["-m", "TPROXY"], 1337, 133);
    check(&["-m", "TPROXY", "-t", "0x10", "-r", "1000"], 16, 1000);
    assert_eq!(config(&["-t", "7"], &[], &[]).unwrap().mode, Mode::Redirect);
}

#[test]
fn dns_is_captured_by_server_or_altogether_and_never_by_the_second_flag_alone() {
    let check = |line: &[&str], env: &[(&str, &str)], expected: Option<Dns>| {
        assert_eq!(config(line, env, &[]).unwrap().dns, expected, "{line:?}");
    };
    let servers = Some(Dns::Servers(vec![IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10))]));
    check(&["--redirect-dns"], &[], servers.clone());
    check(&[], &[("ISTIO_META_DNS_CAPTURE", "true")], servers);
    check(&["--redirect-dns", "--capture-all-dns"], &[], Some(Dns::All));
    check(&["--capture-all-dns"], &[], None);
    check(
        &["--redirect-dns=false"],
        &[("ISTIO_META_DNS_CAPTURE", "true")],
        None,
    );
}

#[test]
fn a_cni_plugin_must_say_whose_namespace() {
    let ask = |line: &[&str], env: &[(&str, &str)]| {
        let words = std::iter::once("iptables-init")
            .chain(line.iter().copied())
            .map(OsString::from);
        let lookup = |name: &str| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        network_namespace(&crate::flags::parse(words).unwrap(), &lookup)
    };
    assert_eq!(ask(&[], &[]).unwrap(), None);
    let path = Some(PathBuf::from("/run/netns/x"));
    assert_eq!(
        ask(&["--cni-mode", "--network-namespace", "/run/netns/x"], &[]).unwrap(),
        path
    );
    assert_eq!(ask(&[], &[("NETWORK_NAMESPACE", "/run/netns/x")]).unwrap(), path);
    let message = ask(&["--cni-mode"], &[]).unwrap_err().to_string();
    assert!(
        message.contains("--cni-mode") && message.contains("--network-namespace"),
        "{message}"
    );
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
