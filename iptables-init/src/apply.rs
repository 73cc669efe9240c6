//! The spine: compare, restore, report; or print, for `--dry-run`.
//!
//! Each family is settled on its own, IPv4 first: if IPv6 failed after IPv4, another run with the same flags
//! finds IPv4 in place and goes on. Within a family the kernel takes a table whole or not at all.
//! Source: Istio `tools/istio-iptables/pkg/capture/run.go`, decision on residue and delta.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::backend::{Backend, NoBackend, ProgramError};
use crate::check::{Verdict, compare};
use crate::config::Config;
use crate::log::Log;
use crate::loopback;
use crate::rule::{Family, Rule, of_family};
use crate::{dry_run, plan, restore};

/// Why the rules are not in place.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Backend(#[from] NoBackend),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(
        "{source}; this network namespace holds other rules of ours ({chains}), and the first difference is: \
         {difference}; recreate the pod, or remove those chains and the jumps to them"
    )]
    Leftovers {
        chains: String,
        difference: String,
        source: ProgramError,
    },
    #[error("add {address}/128 to lo: {source}; IPv6 rules need CAP_NET_ADMIN and IPv6 enabled on lo")]
    Loopback {
        address: std::net::Ipv6Addr,
        source: nix::errno::Errno,
    },
    #[error("write the dry run to standard output: {0}")]
    Print(io::Error),
    #[error("write the dry run to {} (from DRY_RUN_FILE_PATH): {source}", .path.display())]
    DryRunFile { path: PathBuf, source: io::Error },
}

/// Does what `config` says.
///
/// # Errors
/// The first thing that stopped it; families before it are in place.
pub fn run(config: &Config, log: &Log) -> Result<(), ApplyError> {
    if config.dry_run {
        return print(&dry_run::text(config), config.dry_run_file.as_deref());
    }
    settle(Family::V4, config, log)?;
    if config.ipv6 {
        settle(Family::V6, config, log)?;
        let address = loopback::INBOUND_SOURCE;
        loopback::add_inbound_source().map_err(|source| ApplyError::Loopback { address, source })?;
    }
    Ok(())
}

fn print(text: &str, file: Option<&Path>) -> Result<(), ApplyError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(ApplyError::Print)?;
    match file {
        Some(path) => fs::write(path, text).map_err(|source| ApplyError::DryRunFile {
            path: path.to_owned(),
            source,
        }),
        None => Ok(()),
    }
}

/// Brings one family's rules into place unless they are.
fn settle(family: Family, config: &Config, log: &Log) -> Result<(), ApplyError> {
    let backend = Backend::choose(family, config.force_variant, log)?;
    let rules = of_family(&plan::rules(config), family);
    let difference = match compare(&backend.state, &rules, |rule| backend.exists(rule))? {
        Verdict::Clean => None,
        Verdict::Equal if config.force_apply => Some("none (--force-apply)".to_owned()),
        Verdict::Equal => {
            log.info(&format!("{family}: all rules are in place, nothing to do"));
            return Ok(());
        }
        Verdict::Differs(difference) => {
            log.warn(&format!(
                "{family}: there are rules already, and they differ: {difference}"
            ));
            Some(difference)
        }
    };
    restore(&backend, &rules, difference, log)?;
    // Only for the reader of the log: the rules are in place whether or not they can be shown.
    match backend.save() {
        Ok(saved) => log.info(&format!("{family}: rules are in place\n{}", saved.trim_end())),
        Err(error) => log.warn(&format!(
            "{family}: rules are in place, but cannot be listed: {error}"
        )),
    }
    Ok(())
}

fn restore(
    backend: &Backend,
    rules: &[Rule],
    difference: Option<String>,
    log: &Log,
) -> Result<(), ApplyError> {
    let text = restore::render(rules);
    log.info(&format!("{}: restoring\n{}", backend.family, text.trim_end()));
    let Err(source) = backend.restore(&text) else {
        return Ok(());
    };
    let chains = backend.state.our_chains();
    match difference {
        Some(difference) if !chains.is_empty() => Err(ApplyError::Leftovers {
            chains: chains.join(" "),
            difference,
            source,
        }),
        _ => Err(source.into()),
    }
}
