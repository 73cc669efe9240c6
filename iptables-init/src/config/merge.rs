//! One setting each: flag, variable and default become a value.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::setting::{Setting, Settings};
use super::{ConfigError, Dns, Host, Inbound, Mode, Outbound, OwnerGroups, Tproxy, name, values};
use crate::backend::Variant;
use crate::flags::Flags;
use crate::log::{Level, Log};
use crate::rule::Id;

const DEFAULT_PROXY_USER: &str = "istio-proxy";
const DEFAULT_PROXY_UID: u32 = 1337;
const DEFAULT_TPROXY: Tproxy = Tproxy {
    mark: 1337,
    route_table: 133,
};

pub(super) fn proxy_uids(
    flags: &Flags,
    settings: &Settings<'_>,
    host: &Host<'_>,
) -> Result<Vec<Id>, ConfigError> {
    let uids = settings.ids(&flags.proxy_uid, name::PROXY_UID, host.uid_of)?;
    if !uids.is_empty() {
        return Ok(uids);
    }
    if let Some(user) = settings.env("ENVOY_USER") {
        let unknown = || user.bad("no user of this name");
        return Ok(vec![(host.uid_of)(&user.value).ok_or_else(unknown)?.into()]);
    }
    Ok(vec![
        (host.uid_of)(DEFAULT_PROXY_USER)
            .unwrap_or(DEFAULT_PROXY_UID)
            .into(),
    ])
}

/// The same numbers; a user's name need not be a group's.
pub(super) fn as_groups(users: &[Id]) -> Vec<Id> {
    users.iter().map(|user| user.number.into()).collect()
}

pub(super) fn mode(flags: &Flags, settings: &Settings<'_>) -> Result<Mode, ConfigError> {
    let mark = settings.flag(&flags.istio_inbound_tproxy_mark, name::TPROXY_MARK);
    let route_table = settings.flag(&flags.istio_inbound_tproxy_route_table, name::TPROXY_TABLE);
    // Checked in the other mode too, as all values that have no effect: a typo would surface on the worst day.
    let tproxy = Tproxy {
        mark: mark.map_or(Ok(DEFAULT_TPROXY.mark), |mark| mark.one(values::mark))?,
        route_table: route_table.map_or(Ok(DEFAULT_TPROXY.route_table), |table| {
            table.one(values::route_table)
        })?,
    };
    match settings.flag(&flags.istio_inbound_interception_mode, name::MODE) {
        None => Ok(Mode::Redirect),
        Some(mode) if mode.value == "REDIRECT" => Ok(Mode::Redirect),
        Some(mode) if mode.value == "TPROXY" => Ok(Mode::Tproxy(tproxy)),
        Some(mode) => Err(mode.bad("neither REDIRECT nor TPROXY")),
    }
}

/// As Istio: servers matter only where not all DNS is captured, and without any nothing is captured.
pub(super) fn dns(
    flags: &Flags,
    settings: &Settings<'_>,
    host: &Host<'_>,
    notes: &mut Vec<String>,
) -> Result<Option<Dns>, ConfigError> {
    let redirect = settings.switch(&flags.redirect_dns, name::REDIRECT_DNS)?;
    let all = settings.switch(&flags.capture_all_dns, name::CAPTURE_ALL_DNS)?;
    Ok(match (redirect, all) {
        (false, false) => None,
        (false, true) => {
            notes.push("--capture-all-dns has no effect without --redirect-dns".to_owned());
            None
        }
        (true, true) => Some(Dns::All),
        (true, false) if host.dns_servers.is_empty() => {
            notes.push(
                "--redirect-dns has no effect: there is no name server in /etc/resolv.conf, and \
                 --capture-all-dns is not set"
                    .to_owned(),
            );
            None
        }
        (true, false) => Some(Dns::Servers(host.dns_servers.to_vec())),
    })
}

pub(super) fn inbound(flags: &Flags, settings: &Settings<'_>) -> Result<Inbound, ConfigError> {
    // Checked even where it has no effect (-b is a list).
    let excluded = settings.list(
        &flags.istio_local_exclude_ports,
        name::INBOUND_PORTS_EXCLUDE,
        values::port,
    )?;
    let Some(ports) = settings.flag(&flags.istio_inbound_ports, name::INBOUND_PORTS) else {
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

pub(super) fn outbound(flags: &Flags, settings: &Settings<'_>) -> Result<Outbound, ConfigError> {
    match settings.flag(&flags.istio_service_cidr, name::SERVICE_CIDR) {
        None => Ok(Outbound::Only(Vec::new())),
        Some(all) if all.value == "*" => Ok(Outbound::All),
        Some(cidrs) => Ok(Outbound::Only(cidrs.list(values::cidr)?)),
    }
}

/// The limit of 64 is Istio's: all included groups become matches of one rule.
pub(super) fn owner_groups(
    settings: &Settings<'_>,
    host: &Host<'_>,
    notes: &mut Vec<String>,
) -> Result<OwnerGroups, ConfigError> {
    const MOST: usize = 64;
    let groups = |setting: &Setting| setting.ids(host.gid_of);
    let excluded = settings.env("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE");
    let excluded = excluded.map(|s| groups(&s)).transpose()?.unwrap_or_default();
    let included = match settings.env("ISTIO_OUTBOUND_OWNER_GROUPS") {
        Some(groups) if groups.value != "*" => groups,
        _ => return Ok(OwnerGroups::AllExcept(excluded)),
    };
    let groups = groups(&included)?;
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

pub(super) fn loopback(settings: &Settings<'_>) -> Result<Ipv4Net, ConfigError> {
    match settings.env("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR") {
        Some(cidr) => cidr.one(values::loopback),
        None => Ok(Ipv4Net::from(Ipv4Addr::LOCALHOST)),
    }
}

pub(super) fn force_variant(flags: &Flags, settings: &Settings<'_>) -> Result<Option<Variant>, ConfigError> {
    match settings.flag(&flags.force_iptables_binary, name::FORCE_BINARY) {
        None => Ok(None),
        Some(name) if name.value == "legacy" => Ok(Some(Variant::Legacy)),
        Some(name) if name.value == "nft" => Ok(Some(Variant::Nft)),
        Some(name) => Err(name.bad("neither legacy nor nft")),
    }
}

/// Log flags have no environment: in Istio they belong to the logger, not to this program.
pub(super) fn log(flags: &Flags, notes: &mut Vec<String>) -> Result<Log, ConfigError> {
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
pub(super) fn wants_ipv6(addresses: &[IpAddr], dual_stack: bool) -> bool {
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
