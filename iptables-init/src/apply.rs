//! The spine: look, decide, act, report; or print, for `--dry-run`.
//!
//! What is to be done is a list of steps. If one fails, those before it are taken back, last first, so that the
//! namespace is as it was. Each step changes a table whole or not at all, or one address or route, so a program
//! that is killed leaves nothing half done either; the next run goes on from there.
//! Source: Istio `tools/istio-iptables/pkg/capture/run.go`, decision on residue and delta.

mod native;
mod situation;
mod step;
mod turn;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::backend::kernel::KernelError;
use crate::backend::{NoBackend, ProgramError, has_no_programs};
use crate::config::{Config, Method};
use crate::dry_run;
use crate::log::Log;
use crate::routing::RoutingError;
use situation::Situation;
pub use turn::Turn;

/// Why the rules are not in place.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Backend(#[from] NoBackend),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Routing(#[from] RoutingError),
    #[error("wait for another run in this network namespace: {0}")]
    Turn(io::Error),
    #[error("list routing rules: {0}")]
    Rules(nix::errno::Errno),
    #[error(
        "this network namespace holds rules of ours that differ: {0}; recreate the pod, or leave out \
         --reconcile=false to have them replaced"
    )]
    Differs(String),
    #[error("write the dry run to standard output: {0}")]
    Print(io::Error),
    #[error("write the dry run to {} (from DRY_RUN_FILE_PATH): {source}", .path.display())]
    DryRunFile { path: PathBuf, source: io::Error },
}

impl ApplyError {
    /// Whether something may be wrong with the machine.
    pub fn is_for_the_doctor(&self) -> bool {
        !matches!(
            self,
            ApplyError::Print(_) | ApplyError::DryRunFile { .. } | ApplyError::Differs(_)
        )
    }

    /// Whether the image lacks a program or the node's kernel lacks a part.
    pub fn is_missing_support(&self) -> bool {
        match self {
            ApplyError::Backend(NoBackend { tried, .. }) => {
                tried.iter().all(ProgramError::is_missing_support)
            }
            ApplyError::Program(error) => error.is_missing_support(),
            ApplyError::Kernel(error) => error.is_missing_support(),
            _ => false,
        }
    }
}

/// Does what `config` says. While the [`Turn`] is held, no other run changes it.
///
/// # Errors
/// The first thing that stopped it; what was done before it is taken back.
pub fn run(config: &Config, log: &Log) -> Result<Option<Turn>, ApplyError> {
    if config.dry_run {
        return dry_run(config).map(|()| None);
    }
    if config.skip_rule_apply {
        log.info("no rules are written (--skip-rule-apply)");
        return Ok(None);
    }
    let config = &with_usable_method(config, log);
    let turn = Turn::take().map_err(ApplyError::Turn)?;
    let situation = Situation::look(config, log)?;
    let steps = situation.steps(config, log)?;
    step::take(&steps, log)?;
    situation.report(log);
    Ok(Some(turn))
}

/// An image without any iptables program gets native tables, unless programs were asked for by name.
fn with_usable_method(config: &Config, log: &Log) -> Config {
    let mut config = config.clone();
    let is_open = config.method == Method::Iptables && config.force_variant.is_none();
    if is_open && !config.cleanup_only && has_no_programs(config.ipv6) {
        log.warn(
            "no iptables programs in this image: native tables are written over netlink (--backend netlink)",
        );
        config.method = Method::Netlink;
    }
    config
}

/// Standard output has the exact text and, as comments, its meaning; the file the text alone.
fn dry_run(config: &Config) -> Result<(), ApplyError> {
    let text = dry_run::text(config);
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(dry_run::table(config).as_bytes()))
        .and_then(|()| stdout.flush())
        .map_err(ApplyError::Print)?;
    match &config.dry_run_file {
        Some(path) => fs::write(path, text).map_err(|source| ApplyError::DryRunFile {
            path: path.clone(),
            source,
        }),
        None => Ok(()),
    }
}
