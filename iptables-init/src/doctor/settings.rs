//! Settings of the namespace and the node that decide whether rules have the effect they should have.

use super::finding::{Area, Finding, Severity};
use super::machine::{Machine, Module};
use super::probe::Way;
use super::wanted::Wanted;

/// Share of the connection table that is in use, in percent, from which on it is a warning.
const FULL_PERCENT: u64 = 90;
/// Where legacy programs lock the tables.
const LOCK: &str = "/run/xtables.lock";

pub(super) fn examine(machine: &Machine, wanted: &Wanted, lock_is_usable: bool) -> Vec<Finding> {
    let mut findings = vec![
        ipv6(machine, wanted),
        conntrack(machine),
        local_ports(machine, wanted),
    ];
    findings.extend(listeners(machine, wanted));
    findings.extend(bridge(machine));
    if wanted.ways.contains(&Way::Legacy) && !lock_is_usable {
        findings.push(lock(wanted));
    }
    findings
}

fn setting(id: &str, severity: Severity, summary: impl Into<String>) -> Finding {
    Finding::new(Area::Settings, id, severity, summary)
}

fn ipv6(machine: &Machine, wanted: &Wanted) -> Finding {
    let id = "ipv6";
    let is_wanted = wanted.text(true).is_some();
    let Some(addresses) = machine.read("/proc/net/if_inet6") else {
        let severity = if is_wanted {
            Severity::Error
        } else {
            Severity::Fine
        };
        return setting(id, severity, "this kernel has no IPv6")
            .seen("/proc/net/if_inet6 does not exist")
            .fix_if(
                is_wanted,
                "start the node without ipv6.disable=1, or drop the IPv6 addresses of the pod",
            );
    };
    if is_wanted {
        let disabled = |name: &str| {
            machine
                .sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"))
                .as_deref()
                == Some("1")
        };
        if disabled("lo") {
            return setting(id, Severity::Error, "IPv6 rules are wanted, and IPv6 is disabled on lo")
                .seen("net.ipv6.conf.lo.disable_ipv6 = 1")
                .fix("sysctl -w net.ipv6.conf.lo.disable_ipv6=0 in the pod's namespace")
                .fix("securityContext of the pod: {sysctls: [{name: net.ipv6.conf.lo.disable_ipv6, value: \"0\"}]}");
        }
        return setting(id, Severity::Fine, "IPv6 rules are wanted, and IPv6 is there");
    }
    // address, interface index, prefix length, scope (0: global), flags, name
    let global = |line: &&str| line.split_whitespace().nth(3) == Some("00");
    match addresses.lines().find(global) {
        Some(line) => setting(
            id,
            Severity::Warning,
            "there are IPv6 addresses and no IPv6 rules: IPv6 connections pass the proxy by",
        )
        .seen(format!(
            "/proc/net/if_inet6: {}",
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        ))
        .fix("--dual-stack (ISTIO_DUAL_STACK=true)"),
        None => setting(id, Severity::Fine, "no IPv6 addresses, no IPv6 rules"),
    }
}

fn conntrack(machine: &Machine) -> Finding {
    let id = "conntrack";
    let number = |name: &str| {
        machine
            .sysctl(&format!("net.netfilter.{name}"))?
            .parse::<u64>()
            .ok()
    };
    match (number("nf_conntrack_count"), number("nf_conntrack_max")) {
        (Some(count), Some(max)) if max > 0 && count.saturating_mul(100) / max >= FULL_PERCENT => setting(
            id,
            Severity::Warning,
            format!("the connection table is nearly full ({count} of {max}): new connections are dropped"),
        )
        .seen(format!(
            "net.netfilter.nf_conntrack_count = {count}, nf_conntrack_max = {max}"
        ))
        .fix(format!(
            "on the node: sysctl -w net.netfilter.nf_conntrack_max={}",
            max.saturating_mul(2)
        )),
        (Some(count), Some(max)) => setting(
            id,
            Severity::Fine,
            format!("{count} of {max} connections are tracked"),
        ),
        _ => setting(
            id,
            Severity::Note,
            "connection tracking is not loaded yet; nat rules load it",
        )
        .seen(format!(
            "module nf_conntrack: {}",
            machine.module("nf_conntrack").text()
        )),
    }
}

/// An outgoing connection that happens to get the proxy's port keeps the proxy from listening there.
fn local_ports(machine: &Machine, wanted: &Wanted) -> Finding {
    let id = "sysctl.ip_local_port_range";
    let range = machine.sysctl("net.ipv4.ip_local_port_range").unwrap_or_default();
    let mut bounds = range.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(low)), Some(Ok(high))) = (bounds.next(), bounds.next()) else {
        return setting(id, Severity::Note, "net.ipv4.ip_local_port_range cannot be read");
    };
    let reserved = machine
        .sysctl("net.ipv4.ip_local_reserved_ports")
        .unwrap_or_default();
    let taken = |port: &&u16| (low..=high).contains(*port) && !is_in_list(&reserved, **port);
    let ports: Vec<String> = wanted.ports.iter().filter(taken).map(u16::to_string).collect();
    if ports.is_empty() {
        return setting(
            id,
            Severity::Fine,
            "the proxy's ports are none that outgoing connections get",
        );
    }
    setting(
        id,
        Severity::Warning,
        format!(
            "outgoing connections may get the proxy's ports ({}), which then cannot listen",
            ports.join(", ")
        ),
    )
    .seen(format!("net.ipv4.ip_local_port_range = {low} {high}"))
    .fix(format!(
        "sysctl -w net.ipv4.ip_local_reserved_ports={}",
        ports.join(",")
    ))
}

/// `80,1000-2000`
fn is_in_list(list: &str, port: u16) -> bool {
    list.split(',').any(|item| {
        let (low, high) = item.split_once('-').unwrap_or((item, item));
        let bounds = low
            .trim()
            .parse::<u16>()
            .ok()
            .zip(high.trim().parse::<u16>().ok());
        bounds.is_some_and(|(low, high)| (low..=high).contains(&port))
    })
}

/// Who listens on the proxy's ports.
fn listeners(machine: &Machine, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = machine.read(file).unwrap_or_default();
        for (port, uid) in text.lines().filter_map(listening) {
            if wanted.ports.contains(&port) {
                let summary = format!("somebody with uid {uid} listens on port {port} already");
                findings.push(
                    setting(&format!("port.{port}"), Severity::Note, summary)
                        .seen(format!("{file}, state LISTEN")),
                );
            }
        }
    }
    findings
}

/// Port and uid of a line of `/proc/net/tcp` in state LISTEN (0A).
fn listening(line: &str) -> Option<(u16, u32)> {
    let mut fields = line.split_whitespace().skip(1);
    let port = fields.next()?.rsplit(':').next()?;
    let mut fields = fields.skip(1);
    if fields.next()? != "0A" {
        return None;
    }
    let uid = fields.nth(3)?;
    Some((u16::from_str_radix(port, 16).ok()?, uid.parse().ok()?))
}

/// Only a bridge on the node asks for it, so from inside a pod it is no more than a hint.
fn bridge(machine: &Machine) -> Option<Finding> {
    let state = machine.module("br_netfilter");
    if matches!(state, Module::Loaded | Module::BuiltIn | Module::NoModules)
        || machine.exists("/proc/sys/net/bridge")
    {
        return None;
    }
    Some(
        setting(
            "module.br_netfilter",
            Severity::Note,
            "br_netfilter is not loaded: pods behind a bridge of the node reach services of their own node only with \
             it; rules inside a pod do not need it",
        )
        .seen(format!("module br_netfilter: {}", state.text()))
        .fix("if the network of the node is a bridge: modprobe br_netfilter, and the same word in /etc/modules-load.d/iptables-init.conf"),
    )
}

fn lock(wanted: &Wanted) -> Finding {
    let only = wanted.ways == [Way::Legacy];
    let severity = if only { Severity::Error } else { Severity::Warning };
    setting(
        "xtables.lock",
        severity,
        format!("{LOCK} can be neither opened nor made: legacy iptables will not start"),
    )
    .seen(format!("access to {LOCK}, or to its folder, is refused"))
    .fix("readOnlyRootFilesystem: mount an emptyDir at /run, or set XTABLES_LOCKFILE to a file in one (iptables 1.8.6)")
}

impl Finding {
    fn fix_if(self, when: bool, what: &str) -> Self {
        if when { self.fix(what) } else { self }
    }
}

#[cfg(test)]
mod tests;
