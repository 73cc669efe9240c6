//! Can the kernel do what the rules need? The answers of [`super::probe`], and which module would help.

use super::finding::{Area, Finding, Severity};
use super::machine::{Machine, Module};
use super::probe::{Answer, FEATURES, Feature, Way};
use super::wanted::Wanted;

/// Loaded at boot from here (modules-load.d(5)).
const MODULES_FILE: &str = "/etc/modules-load.d/iptables-init.conf";

/// What was asked, and of whom the plain programs are.
pub(super) struct Probed<'a> {
    pub(super) machine: &'a Machine,
    pub(super) wanted: &'a Wanted,
    pub(super) answers: &'a [Answer],
    /// Why programs could not be asked; then `answers` are those of nf_tables itself.
    pub(super) untried: Option<&'a str>,
    /// Whether `iptables` is the nf_tables variant.
    pub(super) plain_is_nft: bool,
}

pub(super) fn examine(probed: &Probed<'_>) -> Vec<Finding> {
    match probed.untried {
        Some(reason) => vec![untried(probed, reason)],
        None => {
            let families = probed.wanted.families();
            families.into_iter().flat_map(|v6| family(probed, v6)).collect()
        }
    }
}

/// Without a namespace to try things in, only nf_tables answers; lists of modules prove nothing.
fn untried(probed: &Probed<'_>, reason: &str) -> Finding {
    let mut finding = Finding::new(
        Area::Kernel,
        "kernel.probe",
        Severity::Warning,
        "what the kernel can do was not tried: there is no namespace to try it in",
    )
    .seen(reason);
    for v6 in probed.wanted.families() {
        for feature in FEATURES.iter().filter(|feature| probed.wanted.needs(v6, feature)) {
            for module in modules(feature, Way::Nft, v6, true) {
                let line = format!("{module}: {}", state(probed, module).text());
                if !finding.seen.contains(&line) {
                    finding = finding.seen(line);
                }
            }
        }
    }
    finding.fix("run doctor as root on the node: nsenter -t PID -n iptables-init doctor, PID being a process of the pod")
}

/// The ways that can write all rules of a family, and what keeps the others from it.
fn family(probed: &Probed<'_>, v6: bool) -> Vec<Finding> {
    let name = if v6 { "ipv6" } else { "ipv4" };
    let own = |way: Way| {
        let both = way == Way::Netlink;
        let answers = probed.answers.iter();
        answers.filter(move |answer| answer.way == way && (both || answer.v6 == v6))
    };
    let asked = |way: &Way| own(*way).next().is_some();
    let missing = |way: Way| refused(probed, &own(way).collect::<Vec<_>>(), v6);
    let allowed = &probed.wanted.ways;
    if !allowed.iter().any(asked) {
        return vec![no_programs(allowed, name)];
    }
    let usable: Vec<Way> = Way::ALL
        .into_iter()
        .filter(|way| asked(way) && missing(*way).is_empty())
        .collect();
    let names = |ways: &[Way]| ways.iter().map(|way| way.name()).collect::<Vec<_>>().join(", ");
    if usable.iter().any(|way| allowed.contains(way)) {
        let mut finding = Finding::new(
            Area::Kernel,
            format!("kernel.{name}"),
            Severity::Fine,
            format!(
                "all that the rules need works, tried in another namespace, with: {}",
                names(&usable)
            ),
        );
        for way in Way::ALL
            .into_iter()
            .filter(|way| asked(way) && !usable.contains(way))
        {
            for answer in missing(way) {
                finding = finding.seen(refusal(answer));
            }
        }
        return vec![finding];
    }
    let refused: Vec<&Answer> = allowed
        .iter()
        .filter(|way| asked(way))
        .flat_map(|way| missing(*way))
        .collect();
    let mut features: Vec<usize> = refused.iter().map(|answer| answer.feature).collect();
    features.sort_unstable();
    features.dedup();
    let elsewhere: Vec<Way> = usable.into_iter().filter(|way| !allowed.contains(way)).collect();
    let of =
        |index: usize| -> Vec<&Answer> { refused.iter().copied().filter(|a| a.feature == index).collect() };
    features
        .into_iter()
        .filter_map(|index| {
            Some(missing_feature(
                probed,
                FEATURES.get(index)?,
                &of(index),
                &elsewhere,
                v6,
            ))
        })
        .collect()
}

/// What of the needed things one way has not. Who has no table has nothing in it, which goes without saying.
fn refused<'a>(probed: &Probed<'_>, answers: &[&'a Answer], v6: bool) -> Vec<&'a Answer> {
    let needed = |answer: &Answer| {
        let feature = FEATURES.get(answer.feature);
        feature.is_some_and(|feature| probed.wanted.needs(v6, feature))
    };
    let refused: Vec<&Answer> = answers
        .iter()
        .copied()
        .filter(|a| a.outcome.is_err() && needed(a))
        .collect();
    let follows = |answer: &Answer| {
        refused
            .iter()
            .any(|table| is_table_of(table.feature, answer.feature))
    };
    refused
        .iter()
        .copied()
        .filter(|answer| !follows(answer))
        .collect()
}

fn missing_feature(
    probed: &Probed<'_>,
    feature: &Feature,
    refused: &[&Answer],
    elsewhere: &[Way],
    v6: bool,
) -> Finding {
    let family = if v6 { "ipv6" } else { "ipv4" };
    let what = match feature.word {
        None => feature.table.to_owned(),
        Some(_) => feature.name.to_lowercase().replace(' ', "-"),
    };
    let ways: Vec<&str> = refused.iter().map(|answer| answer.way.name()).collect();
    let noun = if feature.word.is_none() { "the table " } else { "" };
    let summary = format!(
        "{noun}{what} cannot be used for {family} with: {}",
        ways.join(", ")
    );
    let mut finding = Finding::new(
        Area::Kernel,
        format!("kernel.{family}.{what}"),
        Severity::Error,
        summary,
    );
    let mut missing: Vec<(&str, Module)> = Vec::new();
    for answer in refused {
        finding = finding.seen(refusal(answer));
        // No module gives permission.
        let lacks = if is_permission(answer) {
            Vec::new()
        } else {
            modules(feature, answer.way, v6, probed.plain_is_nft)
        };
        for module in lacks {
            if !missing.iter().any(|(known, _)| *known == module) {
                missing.push((module, state(probed, module)));
            }
        }
    }
    for (module, state) in &missing {
        finding = finding.seen(format!("module {module}: {}", state.text()));
    }
    finding.fix.extend(remedies(probed.machine, &missing));
    for way in elsewhere {
        finding = finding.fix(match way {
            Way::Netlink => {
                "or --backend netlink: it needs no program, and all it needs works here".to_owned()
            }
            way => format!(
                "or --force-iptables-binary {}: all it needs works here",
                way.name()
            ),
        });
    }
    finding
}

/// What another way achieved proves more than any list.
fn state(probed: &Probed<'_>, module: &str) -> Module {
    let proves = |answer: &Answer| {
        let feature = FEATURES.get(answer.feature).filter(|_| answer.outcome.is_ok());
        feature.is_some_and(|f| modules(f, answer.way, answer.v6, probed.plain_is_nft).contains(&module))
    };
    if probed.answers.iter().any(proves) {
        return Module::Proven;
    }
    probed.machine.module(module)
}

fn is_permission(answer: &Answer) -> bool {
    let complaint = answer.outcome.as_ref().err().map_or("", String::as_str);
    ["Permission denied", "not permitted", "must be root"]
        .iter()
        .any(|words| complaint.contains(words))
}

fn remedies(machine: &Machine, modules: &[(&str, Module)]) -> Vec<String> {
    let of = |states: &[Module]| -> Vec<&str> {
        let those = modules.iter().filter(|(_, state)| states.contains(state));
        those.map(|(module, _)| *module).collect()
    };
    let mut fixes = Vec::new();
    if machine.sysctl("kernel.modules_disabled").as_deref() == Some("1") {
        fixes.push(
            "kernel.modules_disabled=1: no module can be loaded before the node is started again".to_owned(),
        );
    }
    let loadable = of(&[Module::OnDisk, Module::NotLoaded]);
    if !loadable.is_empty() {
        fixes.push(format!("on the node, now: modprobe -a {}", loadable.join(" ")));
        fixes.push(format!(
            "on the node, for every start: printf '%s\\n' {} >{MODULES_FILE}",
            loadable.join(" ")
        ));
    }
    let absent = of(&[Module::Absent]);
    if !absent.is_empty() {
        let kernel = machine.kernel().unwrap_or_else(|| "$(uname -r)".to_owned());
        fixes.push(format!(
            "on the node, install the rest of the kernel's modules ({}): apt install linux-modules-extra-{kernel}, \
             or dnf install kernel-modules-extra",
            absent.join(" ")
        ));
    }
    let impossible = of(&[Module::NoModules]);
    if !impossible.is_empty() {
        fixes.push(format!(
            "modprobe cannot help, this kernel has no loadable modules: start the node with one that has {}",
            impossible.join(" ")
        ));
    }
    fixes
}

fn no_programs(allowed: &[Way], family: &str) -> Finding {
    let names: Vec<&str> = allowed.iter().map(|way| way.name()).collect();
    Finding::new(
        Area::Kernel,
        format!("programs.{family}"),
        Severity::Error,
        format!(
            "no iptables programs of any kind that may be used ({})",
            names.join(", ")
        ),
    )
    .seen("looked in $PATH and the usual folders")
    .fix("install iptables in the image, or use --backend netlink, which needs no program")
}

fn refusal(answer: &Answer) -> String {
    let what = FEATURES.get(answer.feature).map_or_else(String::new, |feature| {
        format!("{} {}", feature.table, feature.name)
    });
    let complaint = answer.outcome.as_ref().err().map_or("", String::as_str);
    format!("{}, {what}: {complaint}", answer.way.name())
}

fn is_table_of(table: usize, feature: usize) -> bool {
    match (FEATURES.get(table), FEATURES.get(feature)) {
        (Some(table), Some(feature)) => {
            table.word.is_none() && feature.word.is_some() && table.table == feature.table
        }
        _ => false,
    }
}

/// Modules that have `feature` for `way`.
fn modules(feature: &Feature, way: Way, v6: bool, plain_is_nft: bool) -> Vec<&'static str> {
    let legacy = way == Way::Legacy || way == Way::Plain && !plain_is_nft;
    let mut modules: Vec<&str> = Vec::new();
    if way == Way::Netlink {
        modules.extend(feature.native_modules);
    } else if legacy {
        modules.push(match (feature.table, v6) {
            ("nat", false) => "iptable_nat",
            ("nat", true) => "ip6table_nat",
            ("mangle", false) => "iptable_mangle",
            ("mangle", true) => "ip6table_mangle",
            (_, false) => "iptable_raw",
            (_, true) => "ip6table_raw",
        });
        modules.extend(feature.modules);
    } else {
        modules.extend(["nf_tables", "nft_compat"]);
        if feature.table == "nat" {
            modules.push("nft_chain_nat");
        }
        modules.extend(feature.modules);
    }
    modules
}

#[cfg(test)]
mod tests;
