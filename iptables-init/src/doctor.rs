//! Why rules cannot be written here, or would not do what they say, and what to do about it.
//!
//! Looks at everything, changes nothing: whatever takes a try is tried in a namespace to throw away
//! ([`probe`]), or in a batch that the kernel checks and forgets. Runs for `iptables-init doctor`, and by itself
//! when rules could not be applied.

pub mod finding;
mod machine;
mod modules;
mod privilege;
pub mod probe;
mod rules;
mod settings;
mod wanted;

use std::path::Path;

use nix::unistd::{AccessFlags, access};

use crate::backend::{Variant, has_no_programs, program};
use crate::config::{Config, Method};
use crate::netlink::nft;
use crate::rule::{Family, of_family};
use crate::{plan, restore};
pub use finding::Report;
use finding::{Area, Finding, Severity};
use machine::Machine;
use probe::Way;
use rules::Saved;
use wanted::Wanted;

/// Examines this machine and network namespace for the rules that `config` asks for.
pub fn examine(config: &Config) -> Report {
    let machine = Machine::new("/");
    let wanted = wanted(config);
    let asked = probe::ask(wanted.text(true).is_some());
    let mut findings = privilege::examine(&machine, &privilege::try_out());
    findings.extend(modules::examine(&modules::Probed {
        machine: &machine,
        wanted: &wanted,
        answers: &asked.answers,
        untried: asked.untried.as_deref(),
        plain_is_nft: plain_is_nft(),
    }));
    findings.extend(nft_program(config));
    findings.extend(rules::examine(&saved(), &nft::chains().unwrap_or_default()));
    findings.extend(settings::examine(&machine, &wanted, lock_is_usable()));
    Report { findings }
}

/// Of what kind the programs without a suffix are.
fn plain_is_nft() -> bool {
    let version = program::find("iptables").and_then(|path| program::run(&path, &["--version"], ""));
    version.is_ok_and(|version| version.contains("nf_tables"))
}

/// What each kind of program lists here. A program that is missing or refuses lists nothing; that it refuses
/// is in other findings.
fn saved() -> Vec<Saved> {
    let mut saved = Vec::new();
    for (suffix, legacy) in [("-legacy", true), ("-nft", false)] {
        for stem in ["iptables", "ip6tables"] {
            let program = format!("{stem}{suffix}");
            let text =
                program::find(&format!("{program}-save")).and_then(|path| program::run(&path, &[], ""));
            if let Ok(text) = text {
                saved.push(Saved {
                    program,
                    legacy,
                    text,
                });
            }
        }
    }
    saved
}

/// Whether legacy programs get at their lock: it is opened for reading, and made if it is not there.
fn lock_is_usable() -> bool {
    let file = std::env::var_os("XTABLES_LOCKFILE").unwrap_or_else(|| "/run/xtables.lock".into());
    let file = Path::new(&file);
    if file.exists() {
        return access(file, AccessFlags::R_OK).is_ok();
    }
    file.parent()
        .is_some_and(|folder| access(folder, AccessFlags::W_OK).is_ok())
}

fn wanted(config: &Config) -> Wanted {
    let rules = plan::rules(config);
    let text = |family| restore::render(&of_family(&rules, family));
    Wanted {
        v4: Some(text(Family::V4)),
        v6: config.ipv6.then(|| text(Family::V6)),
        ways: ways(config),
        ports: vec![config.outbound_port.get(), config.inbound_port.get()],
    }
}

/// Whom a run with these flags may use.
fn ways(config: &Config) -> Vec<Way> {
    match (config.method, config.force_variant) {
        // The program for native tables asks the kernel for the same as this one does.
        (Method::Nftables | Method::Netlink, _) => vec![Way::Netlink],
        (Method::Iptables, Some(Variant::Legacy)) => vec![Way::Legacy],
        (Method::Iptables, Some(Variant::Nft)) => vec![Way::Nft],
        (Method::Iptables, Some(Variant::Plain)) => vec![Way::Plain],
        (Method::Iptables, None) if has_no_programs(config.ipv6) => vec![Way::Netlink],
        (Method::Iptables, None) => vec![Way::Legacy, Way::Nft, Way::Plain],
    }
}

/// The one program that native tables may need.
fn nft_program(config: &Config) -> Option<Finding> {
    let missing = config.method == Method::Nftables && program::find("nft").is_err();
    let finding = || {
        Finding::new(Area::Kernel, "programs.nft", Severity::Error, "--native-nftables needs the program nft")
            .seen("looked in $PATH and the usual folders")
            .fix("install nftables in the image, or use --backend netlink, which writes the same tables without it")
    };
    missing.then(finding)
}
