//! Programs a pod's network namespace so that its traffic passes through the sidecar.
//!
//! Flags and environment ([`flags`]) become a validated [`config::Config`]; [`plan`] turns that into
//! ordered [`rule`]s, and [`restore`] or [`nft`] writes those as text, all without touching anything; [`apply`] looks
//! at what is there ([`backend`], [`saved`]), finds the way from there ([`transition`]) and goes it; [`validate`]
//! proves the result. Knows nothing of the proxy itself: ports and ids are all the two share.
//! Source: Istio's `tools/istio-iptables`, whose command line and rules this program keeps.

#![forbid(unsafe_code)]

pub mod apply;
pub mod backend;
mod command;
pub mod config;
pub mod doctor;
pub mod dry_run;
pub mod explain;
pub mod flags;
pub mod host;
pub mod log;
pub mod meaning;
pub mod namespace;
pub mod netlink;
pub mod nft;
pub mod plan;
pub mod restore;
pub mod routing;
pub mod rule;
pub mod saved;
pub mod selftest;
#[cfg(test)]
mod testing;
pub mod throwaway;
pub mod transition;
pub mod validate;
pub mod walk;

use std::ffi::OsString;
use std::io::Write;

/// How the program ends. The numbers are documented, and others act on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The rules are in place (or printed, or gone).
    Done = 0,
    /// They are not; what was there before is.
    Failed = 1,
    /// A flag or variable is wrong; nothing was touched.
    BadFlag = 2,
    /// The image lacks a program, or the node's kernel a part; nothing has changed.
    MissingSupport = 3,
    /// `doctor`: a capability is missing, or taken away by seccomp or a user namespace.
    NoPrivilege = 4,
    /// `doctor`: rules that are there already are in the way.
    Conflict = 5,
    /// `doctor`: IPv6, a sysctl or a port is not as the rules need it.
    BadSetting = 6,
    /// They do not capture. Istio's CNI repairs pods whose container `istio-validation` ends so.
    NotValid = 126,
}

/// Runs the program with `args` (the first is the program's own name); explains on standard error.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(exit) = command::run(&args) {
        return exit;
    }
    let config = match configured(args) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let log = config.log;
    for note in &config.notes {
        log.warn(note);
    }
    if let Some(about) = &config.explain {
        return command::explain(&config, about);
    }
    let turn = match apply::run(&config, &log) {
        Ok(turn) => turn,
        Err(error) => return command::failed(&config, &error),
    };
    if config.selftest && !config.dry_run && !config.skip_rule_apply && !config.cleanup_only {
        let exit = command::prove(&config);
        if exit != Exit::Done {
            return exit;
        }
    }
    drop(turn);
    if config.run_validation
        && !config.dry_run
        && !config.cleanup_only
        && let Err(error) = validate::run(&config, &log)
    {
        log.error(&error.to_string());
        return Exit::NotValid;
    }
    Exit::Done
}

/// The configuration of a command line, or how to end without one.
fn configured(args: Vec<OsString>) -> Result<config::Config, Exit> {
    let flags = flags::parse(args).map_err(|stop| {
        if stop.use_stderr() {
            return bad_flag(&one_line(&stop));
        }
        // A closed terminal must not change the exit code.
        let _ = stop.print();
        Exit::Done
    })?;
    configure(&flags)
}

/// Settles flags, environment and machine; enters the namespace that is to be worked in.
fn configure(flags: &flags::Flags) -> Result<config::Config, Exit> {
    let namespace =
        config::network_namespace(flags, &host::env).map_err(|error| bad_flag(&error.to_string()))?;
    if let Some(path) = namespace {
        namespace::enter(&path).map_err(|error| {
            let exit = bad_flag(&error.to_string());
            if error.is_bad_value() { exit } else { Exit::Failed }
        })?;
    }
    let addresses = host::addresses().map_err(|error| {
        bad_flag(&format!("list the addresses of this network namespace: {error}"));
        Exit::Failed
    })?;
    let facts = config::Host {
        env: &host::env,
        uid_of: &host::uid_of,
        gid_of: &host::gid_of,
        addresses: &addresses,
        dns_servers: &host::dns_servers(),
    };
    config::Config::new(flags, &facts).map_err(|error| bad_flag(&error.to_string()))
}

/// Logging may be what is misconfigured, so this line needs no logger.
fn bad_flag(message: &str) -> Exit {
    let _ = writeln!(std::io::stderr(), "error: {message}");
    Exit::BadFlag
}

/// The first line of a complaint about the command line; the rest is a summary of all flags.
fn one_line(complaint: &clap::Error) -> String {
    let text = complaint.to_string();
    let line = text.lines().next().unwrap_or_default();
    format!("{}; --help lists all flags", line.trim_start_matches("error: "))
}
