//! May this process write rules? Capabilities as the kernel lists them, and as it acts.
//!
//! The list alone is no answer: a capability of a user namespace counts only for network namespaces that
//! belong to it, and a seccomp filter refuses what a capability allows. So each is tried, without effect.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::finding::{Area, Finding, Severity};
use super::machine::Machine;
use crate::netlink::nft;

const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const SECURITY_CONTEXT: &str =
    "securityContext of the container: {runAsUser: 0, capabilities: {add: [NET_ADMIN, NET_RAW]}}";

/// What the kernel said when it was asked to do something without effect.
pub(super) struct Tried {
    /// Listing nf_tables' tables, which takes NET_ADMIN.
    pub(super) admin: Result<(), Errno>,
    /// Opening a raw socket, which takes NET_RAW; legacy iptables needs one.
    pub(super) raw: Result<(), Errno>,
}

pub(super) fn try_out() -> Tried {
    Tried {
        admin: nft::tables().map(drop),
        raw: socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        )
        .map(drop),
    }
}

pub(super) fn examine(machine: &Machine, tried: &Tried) -> Vec<Finding> {
    vec![
        capability(machine, "net_admin", NET_ADMIN, tried.admin),
        capability(machine, "net_raw", NET_RAW, tried.raw),
        seccomp(machine, tried),
        user_namespace(machine),
    ]
}

fn capability(machine: &Machine, name: &str, bit: u32, tried: Result<(), Errno>) -> Finding {
    let upper = name.to_uppercase();
    let id = format!("capability.{name}");
    let held = |set: &str| {
        let bits = u64::from_str_radix(&machine.status(set)?, 16).ok()?;
        Some(bits >> bit & 1 == 1)
    };
    let effective = held("CapEff");
    let refused = matches!(tried, Err(Errno::EPERM | Errno::EACCES));
    if effective == Some(true) && !refused {
        return Finding::new(Area::Privilege, id, Severity::Fine, format!("{upper} is there"));
    }
    // Only legacy programs need a raw socket.
    let severity = if bit == NET_RAW {
        Severity::Warning
    } else {
        Severity::Error
    };
    let summary = match effective {
        Some(false) => format!("{upper} is missing"),
        Some(true) => format!("{upper} is listed, but the kernel refuses what it allows"),
        None => format!("{upper}: /proc/self/status does not say"),
    };
    let mut finding = Finding::new(Area::Privilege, id, severity, summary);
    for (set, what) in [("CapEff", "effective"), ("CapBnd", "bounding")] {
        if let Some(bits) = machine.status(set) {
            finding = finding.seen(format!("/proc/self/status: {set} {bits} ({what} set)"));
        }
    }
    if let Err(errno) = tried {
        let what = if bit == NET_RAW {
            "a raw socket"
        } else {
            "the list of nf_tables' tables"
        };
        finding = finding.seen(format!("asked for {what}: {errno}"));
    }
    if let Some(uids) = machine.status("Uid") {
        finding = finding.seen(format!("/proc/self/status: Uid {}", uids.replace('\t', " ")));
    }
    if held("CapBnd") == Some(false) {
        finding = finding.seen(format!(
            "{upper} is not in the bounding set: the runtime dropped it for good"
        ));
    }
    finding.fix(SECURITY_CONTEXT)
}

/// A filter is usual, and no trouble unless it refuses what the capabilities allow.
fn seccomp(machine: &Machine, tried: &Tried) -> Finding {
    let (id, mode) = ("seccomp", machine.status("Seccomp"));
    let text = match mode.as_deref() {
        Some("0") => "no seccomp filter",
        Some("1") => "seccomp is in strict mode",
        Some("2") => "a seccomp filter is in force",
        _ => {
            return Finding::new(
                Area::Privilege,
                id,
                Severity::Note,
                "/proc/self/status does not say",
            );
        }
    };
    let unusual = |tried: &Result<(), Errno>| matches!(tried, Err(Errno::EAFNOSUPPORT | Errno::ENOSYS));
    let filtered = mode.as_deref() != Some("0");
    if filtered && let Some(Err(errno)) = [tried.admin, tried.raw].into_iter().find(unusual) {
        return Finding::new(
            Area::Privilege,
            id,
            Severity::Error,
            format!("{text}, and a socket that rules need is refused with an errno that capabilities do not give"),
        )
        .seen(format!("socket: {errno}"))
        .fix("seccompProfile: {type: RuntimeDefault} for this container, or allow socket(AF_NETLINK) and socket(AF_INET, SOCK_RAW)");
    }
    Finding::new(
        Area::Privilege,
        id,
        Severity::Fine,
        format!("{text}, and it lets the sockets through"),
    )
}

fn user_namespace(machine: &Machine) -> Finding {
    let id = "user-namespace";
    let whole = |map: &str| map.split_whitespace().eq(["0", "0", "4294967295"]);
    match machine.read("/proc/self/uid_map") {
        Some(map) if whole(&map) => Finding::new(
            Area::Privilege,
            id,
            Severity::Fine,
            "uids are those of the machine",
        ),
        Some(map) => Finding::new(
            Area::Privilege,
            id,
            Severity::Note,
            "in a user namespace: a uid that its map lacks (1337?) cannot stand in a rule",
        )
        .seen(format!(
            "/proc/self/uid_map: {}",
            map.split_whitespace().collect::<Vec<_>>().join(" ")
        )),
        None => Finding::new(
            Area::Privilege,
            id,
            Severity::Note,
            "/proc/self/uid_map cannot be read",
        ),
    }
}
