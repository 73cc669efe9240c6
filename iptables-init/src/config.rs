//! Flags, environment and defaults become one validated [`Config`].
//!
//! The only place that knows precedence (flag, then environment, then default) and which values are good.
//! What comes out is believed by everything else. Touches nothing: facts of the machine come in as [`Host`].
//! Source: Istio `tools/istio-iptables/pkg/cmd/root.go`, `tools/common/config`.

mod host;
mod merge;
mod name;
mod own;
mod setting;
mod values;

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::backend::Variant;
use crate::flags::Flags;
use crate::log::Log;
use crate::rule::Id;
pub use host::Host;
pub use own::Explain;
use setting::Settings;

const DEFAULT_OUTBOUND_PORT: NonZeroU16 = NonZeroU16::new(15001).expect("15001 is not 0");
const DEFAULT_INBOUND_PORT: NonZeroU16 = NonZeroU16::new(15006).expect("15006 is not 0");
const DEFAULT_TUNNEL_PORT: NonZeroU16 = NonZeroU16::new(15008).expect("15008 is not 0");
const DEFAULT_PROBE_PORT: NonZeroU16 = NonZeroU16::new(15002).expect("15002 is not 0");
const DEFAULT_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

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
    pub proxy_uids: Vec<Id>,
    /// Groups of the proxy's own sockets (`-g`). Not empty.
    pub proxy_gids: Vec<Id>,
    /// `-m`.
    pub mode: Mode,
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
    /// `None`: DNS is not captured.
    pub dns: Option<Dns>,
    pub drop_invalid: bool,
    /// Whether IPv6 rules are written beside the IPv4 ones.
    pub ipv6: bool,
    pub dry_run: bool,
    /// Where `--dry-run` writes its text a second time.
    pub dry_run_file: Option<PathBuf>,
    /// Write the rules even if they are there already.
    pub force_apply: bool,
    /// Replace rules of an earlier run that differ; else they are an error.
    pub reconcile: bool,
    /// Remove our rules, and do nothing else.
    pub cleanup_only: bool,
    pub skip_rule_apply: bool,
    /// Prove with a connection that the rules work.
    pub run_validation: bool,
    pub probe_port: NonZeroU16,
    pub probe_timeout: Duration,
    pub method: Method,
    pub force_variant: Option<Variant>,
    /// Prove the rules once they are in place.
    pub selftest: bool,
    /// Explain one connection, and do nothing else.
    pub explain: Option<Explain>,
    pub log: Log,
    /// Things worth a warning that are no error.
    pub notes: Vec<String>,
}

/// How inbound connections are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The destination is rewritten; the proxy sees the client's address, the app the proxy's.
    Redirect,
    /// Nothing is rewritten; the app sees the client's address too.
    Tproxy(Tproxy),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tproxy {
    /// On captured packets (`-t`). Neither 0 nor [`crate::plan::OUTBOUND_MARK`].
    pub mark: u32,
    /// Routes marked packets to lo (`-r`). None of the kernel's own tables.
    pub route_table: u32,
}

/// Which DNS queries go to the proxy's resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    All,
    /// Those to these servers, of both families. Not empty.
    Servers(Vec<IpAddr>),
}

/// What writes the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `iptables-restore` and `ip6tables-restore`.
    Iptables,
    /// `nft`, tables of our own.
    Nftables,
    /// The same tables, without a program.
    Netlink,
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
    AllExcept(Vec<Id>),
    /// At least one, at most 64.
    Only(Vec<Id>),
}

/// The command line or the environment asks for something impossible. One line, always.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{origin}: bad value {value:?}: {reason}")]
    Bad {
        origin: String,
        value: String,
        reason: String,
    },
}

impl Config {
    /// Merges and validates.
    ///
    /// # Errors
    /// The first bad value, with the flag or variable it came from.
    pub fn new(flags: &Flags, host: &Host<'_>) -> Result<Self, ConfigError> {
        let settings = Settings { env: host.env };
        let mut notes = Vec::new();
        let proxy_uids = merge::proxy_uids(flags, &settings, host)?;
        let gids = settings.ids(&flags.proxy_gid, name::PROXY_GID, host.gid_of)?;
        let dual_stack = settings.switch(&flags.dual_stack, name::DUAL_STACK)?;
        let ports = |given, name| settings.list(given, name, values::port);
        let interfaces = |given, name| settings.list(given, name, values::interface);
        let (method, variant) = own::method(flags, &settings, merge::force_variant(flags, &settings)?)?;
        Ok(Config {
            outbound_port: settings.port(&flags.envoy_port, name::ENVOY_PORT, DEFAULT_OUTBOUND_PORT)?,
            inbound_port: settings.port(
                &flags.inbound_capture_port,
                name::INBOUND_PORT,
                DEFAULT_INBOUND_PORT,
            )?,
            tunnel_port: settings.port(&flags.inbound_tunnel_port, name::TUNNEL_PORT, DEFAULT_TUNNEL_PORT)?,
            proxy_gids: if gids.is_empty() {
                merge::as_groups(&proxy_uids)
            } else {
                gids
            },
            proxy_uids,
            mode: merge::mode(flags, &settings)?,
            inbound: merge::inbound(flags, &settings)?,
            outbound: merge::outbound(flags, &settings)?,
            excluded_destinations: settings.list(
                &flags.istio_service_exclude_cidr,
                name::SERVICE_EXCLUDE_CIDR,
                values::cidr,
            )?,
            outbound_ports: ports(&flags.istio_outbound_ports, name::OUTBOUND_PORTS)?,
            excluded_outbound_ports: ports(
                &flags.istio_local_outbound_ports_exclude,
                name::OUTBOUND_PORTS_EXCLUDE,
            )?,
            excluded_interfaces: interfaces(&flags.istio_exclude_interfaces, name::EXCLUDE_INTERFACES)?,
            virtual_interfaces: interfaces(&flags.kube_virt_interfaces, name::VIRT_INTERFACES)?,
            owner_groups: merge::owner_groups(&settings, host, &mut notes)?,
            loopback: merge::loopback(&settings)?,
            dns: merge::dns(flags, &settings, host, &mut notes)?,
            drop_invalid: settings.switch(&flags.drop_invalid, name::DROP_INVALID)?,
            ipv6: merge::wants_ipv6(host.addresses, dual_stack),
            dry_run: settings.switch(&flags.dry_run, name::DRY_RUN)?,
            dry_run_file: (host.env)("DRY_RUN_FILE_PATH").map(PathBuf::from),
            force_apply: settings.switch(&flags.force_apply, name::FORCE_APPLY)?,
            reconcile: settings.switch_or(&flags.reconcile, name::RECONCILE, true)?,
            cleanup_only: settings.switch(&flags.cleanup_only, name::CLEANUP_ONLY)?,
            skip_rule_apply: settings.switch(&flags.skip_rule_apply, name::SKIP_RULE_APPLY)?,
            run_validation: settings.switch(&flags.run_validation, name::RUN_VALIDATION)?,
            probe_port: settings.port(&flags.iptables_probe_port, name::PROBE_PORT, DEFAULT_PROBE_PORT)?,
            probe_timeout: settings
                .flag(&flags.probe_timeout, name::PROBE_TIMEOUT)
                .map_or(Ok(DEFAULT_PROBE_TIMEOUT), |setting| setting.one(values::duration))?,
            method,
            force_variant: variant,
            selftest: own::selftest(flags)?,
            explain: own::explain(flags)?,
            log: merge::log(flags, &mut notes)?,
            notes,
        })
    }
}

/// The network namespace to work in, if it is not the program's own; asked first, since what [`Host`] tells
/// must be true of that namespace.
///
/// # Errors
/// `--cni-mode` with a value that is neither true nor false, or without a namespace.
pub fn network_namespace(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<PathBuf>, ConfigError> {
    let settings = Settings { env };
    let path = settings.flag(&flags.network_namespace, name::NETWORK_NAMESPACE);
    if let Some(cni) = settings.flag(&flags.cni_mode, name::CNI_MODE)
        && cni.one(values::switch)?
        && path.is_none()
    {
        return Err(cni.bad("needs --network-namespace, the pod's"));
    }
    Ok(path.map(|path| PathBuf::from(path.value)))
}

#[cfg(test)]
mod tests;
