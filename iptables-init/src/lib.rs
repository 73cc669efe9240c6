//! Programs a pod's nat table so that its traffic passes through the sidecar.
//!
//! Flags and environment ([`flags`]) become a validated [`config::Config`]; [`plan`] turns that into
//! ordered rules and [`restore`] into `iptables-restore` text, both without touching anything; [`apply`]
//! chooses the iptables binaries ([`backend`]), compares with what is there ([`check`]) and restores.
//! Knows nothing of the proxy itself: ports and ids are all the two share.
//! Source: Istio's `tools/istio-iptables`, whose command line and rules this program keeps.

#![forbid(unsafe_code)]

pub mod apply;
pub mod backend;
pub mod check;
pub mod config;
pub mod dry_run;
pub mod flags;
pub mod host;
pub mod log;
pub mod loopback;
pub mod nft;
pub mod plan;
pub mod restore;
pub mod rule;

use std::ffi::OsString;
use std::io::Write;

/// Runs the program with `args` (the first is the program's own name) and answers the exit code.
///
/// 0: the rules are in place (or were printed). 1: anything else, explained on standard error.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let flags = match flags::parse(args) {
        Ok(flags) => flags,
        Err(stop) => {
            // A closed terminal must not change the exit code.
            let _ = stop.print();
            return u8::from(stop.use_stderr());
        }
    };
    let config = match configure(&flags) {
        Ok(config) => config,
        Err(error) => {
            // Logging may be what is misconfigured, so this line needs no logger.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            return 1;
        }
    };
    let log = config.log;
    for note in &config.notes {
        log.warn(note);
    }
    match apply::run(&config, &log) {
        Ok(()) => 0,
        Err(error) => {
            log.error(&error.to_string());
            1
        }
    }
}

fn configure(flags: &flags::Flags) -> Result<config::Config, config::ConfigError> {
    let addresses = host::addresses().map_err(config::ConfigError::Addresses)?;
    let facts = config::Host {
        env: &host::env,
        uid_of: &host::uid_of,
        gid_of: &host::gid_of,
        addresses: &addresses,
        dns_servers: &host::dns_servers(),
    };
    config::Config::new(flags, &facts)
}
