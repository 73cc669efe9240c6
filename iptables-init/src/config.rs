//! Flags, environment and defaults become one validated [`Config`].
//!
//! The only place that knows precedence (flag, then environment, then default) and which values are good.
//! What comes out is believed by everything else. Touches nothing: facts of the machine come in as [`Host`].
//! Source: Istio `tools/istio-iptables/pkg/cmd/root.go`, `tools/common/config`.

mod setting;
mod values;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use crate::backend::Variant;
use crate::flags::Flags;
use crate::log::{Level, Log};
use setting::{Name, Setting, Settings};

const DEFAULT_OUTBOUND_PORT: NonZeroU16 = NonZeroU16::new(15001).expect("15001 is not 0");
const DEFAULT_INBOUND_PORT: NonZeroU16 = NonZeroU16::new(15006).expect("15006 is not 0");
const DEFAULT_TUNNEL_PORT: NonZeroU16 = NonZeroU16::new(15008).expect("15008 is not 0");
const DEFAULT_PROXY_USER: &str = "istio-proxy";
const DEFAULT_PROXY_UID: u32 = 1337;

/// What to redirect, and how to go about it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where outbound connections go (`-p`).
    pub outbound_port: NonZeroU16,
    /// Where inbound connections go (`-z`).
    pub inbound_port: NonZeroU16,
    /// Never redirected: the proxy listens there itself (`-e`).
    pub tunnel_port: NonZeroU16,
    /// Owners of the proxy's own sockets (`-u`). Not empty.
    pub proxy_uids: Vec<u32>,
    /// Groups of the proxy's own sockets (`-g`). Not empty.
    pub proxy_gids: Vec<u32>,
    /// `-b` and `-d`.
    pub inbound: Inbound,
    /// `-i`.
    pub outbound: Outbound,
    /// `-x`, both families.
    pub excluded_destinations: Vec<IpNet>,
    /// `-q`.
    pub outbound_ports: Vec<NonZeroU16>,
    /// `-o`.
    pub excluded_outbound_ports: Vec<NonZeroU16>,
    /// `-c`.
    pub excluded_interfaces: Vec<String>,
    /// `-k`.
    pub virtual_interfaces: Vec<String>,
    pub owner_groups: OwnerGroups,
    /// What counts as loopback in IPv4 rules: 127.0.0.1/32 unless ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR.
    pub loopback: Ipv4Net,
    pub drop_invalid: bool,
    /// Whether IPv6 rules are written beside the IPv4 ones.
    pub ipv6: bool,
    pub dry_run: bool,
    /// Where `--dry-run` writes its text a second time.
    pub dry_run_file: Option<PathBuf>,
    pub force_apply: bool,
    pub force_variant: Option<Variant>,
    pub log: Log,
    /// Things worth a warning that are no error.
    pub notes: Vec<String>,
}

/// Which inbound connections are redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    Nothing,
    AllExcept(Vec<NonZeroU16>),
    Only(Vec<NonZeroU16>),
}

/// Which outbound destinations are redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    All,
    /// Perhaps none.
    Only(Vec<IpNet>),
}

/// Whose outbound traffic is redirected, by group (names or numbers, as iptables takes them).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerGroups {
    AllExcept(Vec<String>),
    /// At least one, at most 64.
    Only(Vec<String>),
}

/// Facts of the machine that settle defaults.
pub struct Host<'a> {
    /// An environment variable that is set and not empty.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub uid_of: &'a dyn Fn(&str) -> Option<u32>,
    /// Addresses of all interfaces, in the kernel's order.
    pub addresses: &'a [IpAddr],
}

/// The command line or the environment asks for something impossible.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{origin}: bad value {value:?}: {reason}")]
    Bad {
        origin: String,
        value: String,
        reason: String,
    },
    #[error("{origin}: {value:?} is not supported by this version: {reason}; remove it")]
    Unsupported {
        origin: String,
        value: String,
        reason: &'static str,
    },
    #[error("list the addresses of this network namespace: {0}")]
    Addresses(io::Error),
}

impl Config {
    /// Merges and validates.
    ///
    /// # Errors
    /// The first bad or unsupported value, with the flag or variable it came from.
    pub fn new(flags: &Flags, host: &Host<'_>) -> Result<Self, ConfigError> {
        let settings = Settings { env: host.env };
        refuse_unsupported(flags, &settings)?;
        let mut notes = Vec::new();
        let proxy_uids = proxy_uids(flags, &settings, host)?;
        let gids = settings
            .flag(&flags.proxy_gid, PROXY_GID)
            .map(|s| s.list(values::id))
            .transpose()?;
        let dual_stack = settings.switch(&flags.dual_stack, DUAL_STACK)?;
        let excluded = settings.flag(&flags.istio_service_exclude_cidr, SERVICE_EXCLUDE_CIDR);
        Ok(Config {
            outbound_port: settings.port(&flags.envoy_port, ENVOY_PORT, DEFAULT_OUTBOUND_PORT)?,
            inbound_port: settings.port(&flags.inbound_capture_port, INBOUND_PORT, DEFAULT_INBOUND_PORT)?,
            tunnel_port: settings.port(&flags.inbound_tunnel_port, TUNNEL_PORT, DEFAULT_TUNNEL_PORT)?,
            proxy_gids: gids
                .filter(|gids| !gids.is_empty())
                .unwrap_or_else(|| proxy_uids.clone()),
            proxy_uids,
            inbound: inbound(flags, &settings)?,
            outbound: outbound(flags, &settings)?,
            excluded_destinations: excluded
                .map(|s| s.list(values::cidr))
                .transpose()?
                .unwrap_or_default(),
            outbound_ports: settings.list(&flags.istio_outbound_ports, OUTBOUND_PORTS, values::port)?,
            excluded_outbound_ports: settings.list(
                &flags.istio_local_outbound_ports_exclude,
                OUTBOUND_PORTS_EXCLUDE,
                values::port,
            )?,
            excluded_interfaces: settings.list(
                &flags.istio_exclude_interfaces,
                EXCLUDE_INTERFACES,
                values::interface,
            )?,
            virtual_interfaces: settings.list(
                &flags.kube_virt_interfaces,
                VIRT_INTERFACES,
                values::interface,
            )?,
            owner_groups: owner_groups(&settings, &mut notes)?,
            loopback: loopback(&settings)?,
            drop_invalid: settings.switch(&flags.drop_invalid, DROP_INVALID)?,
            ipv6: wants_ipv6(host.addresses, dual_stack),
            dry_run: settings.switch(&flags.dry_run, DRY_RUN)?,
            dry_run_file: (host.env)("DRY_RUN_FILE_PATH").map(PathBuf::from),
            force_apply: settings.switch(&flags.force_apply, FORCE_APPLY)?,
            force_variant: force_variant(flags, &settings)?,
            log: log(flags, &mut notes)?,
            notes,
        })
    }
}

const ENVOY_PORT: Name = Name::short('p', "envoy-port");
const INBOUND_PORT: Name = Name::short('z', "inbound-capture-port");
const TUNNEL_PORT: Name = Name::short('e', "inbound-tunnel-port");
const PROXY_UID: Name = Name::short('u', "proxy-uid");
const PROXY_GID: Name = Name::short('g', "proxy-gid");
const MODE: Name = Name::short('m', "istio-inbound-interception-mode");
const TPROXY_MARK: Name = Name::short('t', "istio-inbound-tproxy-mark");
const TPROXY_TABLE: Name = Name::short('r', "istio-inbound-tproxy-route-table");
const INBOUND_PORTS: Name = Name::short('b', "istio-inbound-ports");
const INBOUND_PORTS_EXCLUDE: Name = Name::short('d', "istio-local-exclude-ports");
const SERVICE_CIDR: Name = Name::short('i', "istio-service-cidr");
const SERVICE_EXCLUDE_CIDR: Name = Name::short('x', "istio-service-exclude-cidr");
const OUTBOUND_PORTS: Name = Name::short('q', "istio-outbound-ports");
const OUTBOUND_PORTS_EXCLUDE: Name = Name::short('o', "istio-local-outbound-ports-exclude");
const EXCLUDE_INTERFACES: Name = Name::short('c', "istio-exclude-interfaces");
const VIRT_INTERFACES: Name = Name::short('k', "kube-virt-interfaces");
const DRY_RUN: Name = Name::short('n', "dry-run");
const DROP_INVALID: Name = Name::aliased("drop-invalid", "INVALID_DROP");
const DUAL_STACK: Name = Name::aliased("dual-stack", "ISTIO_DUAL_STACK");
const REDIRECT_DNS: Name = Name::aliased("redirect-dns", "ISTIO_META_DNS_CAPTURE");
const FORCE_APPLY: Name = Name::long("force-apply");
const FORCE_BINARY: Name = Name::long("force-iptables-binary");

/// What Istio's program does and this one does not yet: saying so beats a pod with half its rules.
fn refuse_unsupported(flags: &Flags, settings: &Settings<'_>) -> Result<(), ConfigError> {
    let switches: [(&Option<String>, Name, &'static str); 8] = [
        (
            &flags.redirect_dns,
            REDIRECT_DNS,
            "DNS traffic cannot be redirected",
        ),
        (
            &flags.capture_all_dns,
            Name::long("capture-all-dns"),
            "DNS traffic cannot be redirected",
        ),
        (
            &flags.skip_rule_apply,
            Name::long("skip-rule-apply"),
            "applying rules is all it can do",
        ),
        (
            &flags.run_validation,
            Name::long("run-validation"),
            "rules are not probed with traffic",
        ),
        (
            &flags.reconcile,
            Name::long("reconcile"),
            "differing rules of an earlier run are not replaced",
        ),
        (
            &flags.cleanup_only,
            Name::long("cleanup-only"),
            "rules are not removed",
        ),
        (
            &flags.cni_mode,
            Name::long("cni-mode"),
            "it runs inside the pod, not as a CNI plugin",
        ),
        (
            &flags.native_nftables,
            Name::long("native-nftables"),
            "rules are written with iptables only",
        ),
    ];
    for (flag, name, reason) in switches {
        if let Some(setting) = settings.flag(flag, name)
            && setting.one(values::switch)?
        {
            return Err(setting.unsupported(reason));
        }
    }
    // Without the feature behind them these values have no effect, so only the default is harmless.
    let fixed: [(&Option<String>, Name, &str, &'static str); 5] = [
        (
            &flags.network_namespace,
            Name::long("network-namespace"),
            "",
            "it works in its own namespace",
        ),
        (
            &flags.iptables_probe_port,
            Name::long("iptables-probe-port"),
            "15002",
            "there is no validation",
        ),
        (
            &flags.probe_timeout,
            Name::long("probe-timeout"),
            "5s",
            "there is no validation",
        ),
        (
            &flags.istio_inbound_tproxy_mark,
            TPROXY_MARK,
            "1337",
            "there is no TPROXY mode",
        ),
        (
            &flags.istio_inbound_tproxy_route_table,
            TPROXY_TABLE,
            "133",
            "there is no TPROXY mode",
        ),
    ];
    for (flag, name, default, reason) in fixed {
        if let Some(setting) = settings.flag(flag, name)
            && setting.value != default
        {
            return Err(setting.unsupported(reason));
        }
    }
    match settings.flag(&flags.istio_inbound_interception_mode, MODE) {
        Some(mode) if mode.value == "TPROXY" => Err(mode.unsupported("use REDIRECT")),
        Some(mode) if mode.value != "REDIRECT" => Err(mode.bad("neither REDIRECT nor TPROXY")),
        _ => Ok(()),
    }
}

fn proxy_uids(flags: &Flags, settings: &Settings<'_>, host: &Host<'_>) -> Result<Vec<u32>, ConfigError> {
    let uids = settings.list(&flags.proxy_uid, PROXY_UID, values::id)?;
    if !uids.is_empty() {
        return Ok(uids);
    }
    let user = (host.env)("ENVOY_USER").unwrap_or_else(|| DEFAULT_PROXY_USER.to_owned());
    Ok(vec![(host.uid_of)(&user).unwrap_or(DEFAULT_PROXY_UID)])
}

fn inbound(flags: &Flags, settings: &Settings<'_>) -> Result<Inbound, ConfigError> {
    // Checked even where it has no effect (-b is a list): a typo there would surface on the worst day.
    let excluded = settings.list(
        &flags.istio_local_exclude_ports,
        INBOUND_PORTS_EXCLUDE,
        values::port,
    )?;
    let Some(ports) = settings.flag(&flags.istio_inbound_ports, INBOUND_PORTS) else {
        return Ok(Inbound::Nothing);
    };
    if ports.value == "*" {
        return Ok(Inbound::AllExcept(excluded));
    }
    let ports = ports.list(values::port)?;
    Ok(if ports.is_empty() {
        Inbound::Nothing
    } else {
        Inbound::Only(ports)
    })
}

fn outbound(flags: &Flags, settings: &Settings<'_>) -> Result<Outbound, ConfigError> {
    match settings.flag(&flags.istio_service_cidr, SERVICE_CIDR) {
        None => Ok(Outbound::Only(Vec::new())),
        Some(all) if all.value == "*" => Ok(Outbound::All),
        Some(cidrs) => Ok(Outbound::Only(cidrs.list(values::cidr)?)),
    }
}

/// The limit of 64 is Istio's: all included groups become matches of one rule.
fn owner_groups(settings: &Settings<'_>, notes: &mut Vec<String>) -> Result<OwnerGroups, ConfigError> {
    const MOST: usize = 64;
    let excluded = settings.env("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE");
    let excluded = excluded
        .map(|s| s.list(values::group))
        .transpose()?
        .unwrap_or_default();
    let included = match settings.env("ISTIO_OUTBOUND_OWNER_GROUPS") {
        Some(groups) if groups.value != "*" => groups,
        _ => return Ok(OwnerGroups::AllExcept(excluded)),
    };
    let groups = included.list(values::group)?;
    if groups.is_empty() {
        return Err(included.bad("names no group; write * for all"));
    }
    if groups.len() > MOST {
        return Err(included.bad(&format!("{} groups, at most {MOST} are possible", groups.len())));
    }
    if !excluded.is_empty() {
        notes.push(
            "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE has no effect: ISTIO_OUTBOUND_OWNER_GROUPS names the groups"
                .to_owned(),
        );
    }
    Ok(OwnerGroups::Only(groups))
}

fn loopback(settings: &Settings<'_>) -> Result<Ipv4Net, ConfigError> {
    match settings.env("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR") {
        Some(cidr) => cidr.one(values::loopback),
        None => Ok(Ipv4Net::from(Ipv4Addr::LOCALHOST)),
    }
}

fn force_variant(flags: &Flags, settings: &Settings<'_>) -> Result<Option<Variant>, ConfigError> {
    match settings.flag(&flags.force_iptables_binary, FORCE_BINARY) {
        None => Ok(None),
        Some(name) if name.value == "legacy" => Ok(Some(Variant::Legacy)),
        Some(name) if name.value == "nft" => Ok(Some(Variant::Nft)),
        Some(name) => Err(name.bad("neither legacy nor nft")),
    }
}

/// Log flags have no environment: in Istio they belong to the logger, not to this program.
fn log(flags: &Flags, notes: &mut Vec<String>) -> Result<Log, ConfigError> {
    let json = match &flags.log_as_json {
        Some(text) => Setting::new("--log_as_json", text).one(values::switch)?,
        None => false,
    };
    let mut level = Level::Info;
    let levels = flags.log_output_level.as_deref().unwrap_or_default();
    let levels = Setting::new("--log_output_level", levels).list(values::scope_level)?;
    for (scope, scope_level) in levels {
        match scope.as_str() {
            "default" | "all" => level = scope_level,
            _ => notes.push(format!(
                "--log_output_level: scope {scope:?} has no effect, there is only default"
            )),
        }
    }
    Ok(Log { level, json })
}

/// Whether IPv6 rules are needed: the first address that other pods could use is IPv6, or with
/// `dual_stack` any of them. A namespace with nothing but loopback gets IPv4 rules.
///
/// Source: Istio `tools/common/config/config.go`, which asks the same of `net.InterfaceAddrs`.
fn wants_ipv6(addresses: &[IpAddr], dual_stack: bool) -> bool {
    let mut usable = addresses
        .iter()
        .map(|address| address.to_canonical())
        .filter(is_usable);
    if dual_stack {
        usable.any(|address| address.is_ipv6())
    } else {
        usable.next().is_some_and(|a| a.is_ipv6())
    }
}

fn is_usable(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !address.is_loopback() && !link_local
}

#[cfg(test)]
mod tests;
