//! The command line, as Istio's injection template writes it.
//!
//! Only words: every value stays text until [`crate::config`] has merged the environment and knows which
//! of the two to blame. A leading `istio-iptables` (the subcommand of `pilot-agent`) is accepted.
//! Source: Istio `tools/istio-iptables/pkg/cmd/root.go`, names and short forms.

use std::ffi::OsString;

use clap::Parser;

/// Flags as given; `None` where absent, so that the environment or the default applies.
///
/// A flag given twice counts once, the last, as in Istio. Switches take `=true` and `=false` too.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "iptables-init",
    version,
    args_override_self = true,
    about = "Redirects a pod's traffic to the sidecar with iptables or nftables",
    after_help = "Every flag --a-b can be given as environment variable A_B; the flag wins.\n\
                  Environment only: ISTIO_OUTBOUND_OWNER_GROUPS, ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE, \
                  ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR, ENVOY_USER, DRY_RUN_FILE_PATH."
)]
pub struct Flags {
    /// Port of the proxy for outbound traffic [default: 15001]
    #[arg(short = 'p', long, allow_hyphen_values = true, value_name = "PORT")]
    pub envoy_port: Option<String>,
    /// Port of the proxy for inbound traffic [default: 15006]
    #[arg(short = 'z', long, allow_hyphen_values = true, value_name = "PORT")]
    pub inbound_capture_port: Option<String>,
    /// Port of the tunnel, never redirected [default: 15008]
    #[arg(short = 'e', long, allow_hyphen_values = true, value_name = "PORT")]
    pub inbound_tunnel_port: Option<String>,
    /// Users whose traffic is the proxy's own [default: uid of $ENVOY_USER or istio-proxy, else 1337]
    #[arg(short = 'u', long, allow_hyphen_values = true, value_name = "UIDS")]
    pub proxy_uid: Option<String>,
    /// Groups whose traffic is the proxy's own [default: the same numbers as --proxy-uid]
    #[arg(short = 'g', long, allow_hyphen_values = true, value_name = "GIDS")]
    pub proxy_gid: Option<String>,
    /// How inbound traffic is taken: REDIRECT or TPROXY [default: REDIRECT]
    #[arg(short = 'm', long, allow_hyphen_values = true, value_name = "MODE")]
    pub istio_inbound_interception_mode: Option<String>,
    /// Packet mark of TPROXY mode [default: 1337]
    #[arg(short = 't', long, allow_hyphen_values = true, value_name = "MARK")]
    pub istio_inbound_tproxy_mark: Option<String>,
    /// Routing table of TPROXY mode [default: 133]
    #[arg(short = 'r', long, allow_hyphen_values = true, value_name = "TABLE")]
    pub istio_inbound_tproxy_route_table: Option<String>,
    /// Inbound ports to redirect, or * for all [default: none]
    #[arg(short = 'b', long, allow_hyphen_values = true, value_name = "PORTS")]
    pub istio_inbound_ports: Option<String>,
    /// Inbound ports to leave alone when -b is *
    #[arg(short = 'd', long, allow_hyphen_values = true, value_name = "PORTS")]
    pub istio_local_exclude_ports: Option<String>,
    /// Outbound destinations to redirect, as CIDRs, or * for all [default: none]
    #[arg(short = 'i', long, allow_hyphen_values = true, value_name = "CIDRS")]
    pub istio_service_cidr: Option<String>,
    /// Outbound destinations to leave alone, as CIDRs
    #[arg(short = 'x', long, allow_hyphen_values = true, value_name = "CIDRS")]
    pub istio_service_exclude_cidr: Option<String>,
    /// Outbound ports to redirect whatever the destination
    #[arg(short = 'q', long, allow_hyphen_values = true, value_name = "PORTS")]
    pub istio_outbound_ports: Option<String>,
    /// Outbound ports to leave alone
    #[arg(short = 'o', long, allow_hyphen_values = true, value_name = "PORTS")]
    pub istio_local_outbound_ports_exclude: Option<String>,
    /// Interfaces to leave alone in both directions
    #[arg(short = 'c', long, allow_hyphen_values = true, value_name = "INTERFACES")]
    pub istio_exclude_interfaces: Option<String>,
    /// Interfaces of virtual machines, whose inbound traffic counts as outbound
    #[arg(short = 'k', long, allow_hyphen_values = true, value_name = "INTERFACES")]
    pub kube_virt_interfaces: Option<String>,
    /// Port of --run-validation [default: 15002]
    #[arg(long, allow_hyphen_values = true, value_name = "PORT")]
    pub iptables_probe_port: Option<String>,
    /// Patience of --run-validation [default: 5s]
    #[arg(long, allow_hyphen_values = true, value_name = "DURATION")]
    pub probe_timeout: Option<String>,
    /// Redirect DNS queries to the servers of /etc/resolv.conf to the sidecar
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub redirect_dns: Option<String>,
    /// With --redirect-dns: queries to any server
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub capture_all_dns: Option<String>,
    /// Drop packets that belong to no known connection
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub drop_invalid: Option<String>,
    /// Write IPv6 rules if any address is IPv6, not only if the first is
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dual_stack: Option<String>,
    /// Print what would be done, and do nothing
    #[arg(
        short = 'n', long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    pub dry_run: Option<String>,
    /// Do not write rules; for --run-validation alone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub skip_rule_apply: Option<String>,
    /// Prove with a connection that the rules work; exit code 126 if they do not
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub run_validation: Option<String>,
    /// Write the rules even if they are there already
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub force_apply: Option<String>,
    /// Replace rules of an earlier run that differ; =false makes them an error [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub reconcile: Option<String>,
    /// Remove the rules of an earlier run, and do nothing else
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cleanup_only: Option<String>,
    /// Work in this network namespace, a file such as /run/netns/NAME or /proc/PID/ns/net
    #[arg(long, allow_hyphen_values = true, value_name = "PATH")]
    pub network_namespace: Option<String>,
    /// Run outside the pod; --network-namespace says in which one
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cni_mode: Option<String>,
    /// Write native nftables tables with nft in place of iptables
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub native_nftables: Option<String>,
    /// Use these iptables binaries: legacy or nft [default: found out]
    #[arg(long, allow_hyphen_values = true, value_name = "BACKEND")]
    pub force_iptables_binary: Option<String>,
    /// What writes the rules: auto, legacy, nft, nftables or netlink (which needs no program) [default: auto]
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<String>,
    /// Do not prove the rules with connections once they are in place
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_selftest: Option<String>,
    /// Follow one connection through the planned rules, and do nothing else: 10.0.0.5:3306, udp://10.0.0.10:53,
    /// inbound:8080
    #[arg(long, value_name = "CONNECTION")]
    pub explain: Option<String>,
    /// Whose connection --explain follows [default: 0]
    #[arg(long, value_name = "UID")]
    pub uid: Option<String>,
    /// The same by group [default: the number of --uid]
    #[arg(long, value_name = "GID")]
    pub gid: Option<String>,
    /// Least important level that is logged, as default:LEVEL
    #[arg(long = "log_output_level", allow_hyphen_values = true, value_name = "LEVELS")]
    pub log_output_level: Option<String>,
    /// Log JSON lines
    #[arg(
        long = "log_as_json", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    pub log_as_json: Option<String>,
}

/// Reads a command line whose first word is the program's name.
///
/// # Errors
/// Unknown flags and missing values; also `--help` and `--version`, which are not failures
/// ([`clap::Error::use_stderr`] tells them apart).
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Flags, clap::Error> {
    let mut words: Vec<OsString> = args.into_iter().collect();
    if words.get(1).is_some_and(|word| word == "istio-iptables") {
        words.remove(1);
    }
    Flags::try_parse_from(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(line: &[&str]) -> Vec<OsString> {
        std::iter::once("iptables-init")
            .chain(line.iter().copied())
            .map(OsString::from)
            .collect()
    }

    #[test]
    fn takes_the_injected_arguments_unchanged() {
        let line = [
            "istio-iptables",
            "-p",
            "15001",
            "-z",
            "15006",
            "-u",
            "1337",
            "-m",
            "REDIRECT",
            "-i",
            "*",
            "-x",
            "",
            "-b",
            "*",
            "-d",
            "15090,15021,15020",
            "--log_output_level=default:info",
            "--log_as_json",
        ];
        let flags = parse(words(&line)).unwrap();
        assert_eq!(flags.envoy_port.as_deref(), Some("15001"));
        assert_eq!(flags.istio_service_exclude_cidr.as_deref(), Some(""));
        assert_eq!(flags.istio_inbound_ports.as_deref(), Some("*"));
        assert_eq!(flags.log_as_json.as_deref(), Some("true"));
    }

    #[test]
    fn the_last_of_two_equal_flags_wins() {
        let flags = parse(words(&[
            "-p",
            "1",
            "--envoy-port=2",
            "--dry-run",
            "--dry-run=false",
        ]))
        .unwrap();
        assert_eq!(flags.envoy_port.as_deref(), Some("2"));
        assert_eq!(flags.dry_run.as_deref(), Some("false"));
    }

    #[test]
    fn unknown_flags_and_stray_words_are_refused() {
        for line in [
            ["--envoy-prot=1"].as_slice(),
            &["clean"],
            &["-p", "1", "istio-iptables"],
        ] {
            let error = parse(words(line)).unwrap_err();
            assert!(error.use_stderr());
            assert!(
                error
                    .to_string()
                    .contains(line[line.len() - 1].trim_end_matches("=1")),
                "{error}"
            );
        }
    }
}
