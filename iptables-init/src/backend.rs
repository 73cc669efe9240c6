//! The iptables programs: which of them to use, how to run them, what their complaints mean.
//!
//! Knows no rules. A family's programs come in variants that see different kernel tables: *legacy*
//! (ip_tables), *nft* (nf_tables), and the *plain* names, which a distribution points at one of the two.
//! Source: Istio `tools/istio-iptables/pkg/dependencies`, order of choice.

mod program;

use std::fmt;
use std::path::PathBuf;

use crate::check::State;
use crate::log::Log;
use crate::restore;
use crate::rule::{Family, Rule};
pub use program::ProgramError;
use program::{find, run};

/// Which set of binaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Legacy,
    Nft,
    Plain,
}

/// No variant of a family's programs can be used.
#[derive(Debug, thiserror::Error)]
#[error("no usable iptables programs for {family}:{}", .tried.iter().map(|why| format!("\n  {why}")).collect::<String>())]
pub struct NoBackend {
    family: Family,
    /// One reason a variant that was tried.
    tried: Vec<ProgramError>,
}

/// The programs of one family and variant, found and tried.
pub struct Backend {
    pub family: Family,
    /// What `iptables-save` showed when it was chosen.
    pub state: State,
    programs: Programs,
}

struct Programs {
    iptables: PathBuf,
    save: PathBuf,
    restore: PathBuf,
    /// `--wait=30` where several programs may hold the tables' lock: legacy since 1.6.2.
    wait: bool,
}

impl Backend {
    /// Chooses: `forced` if given, else legacy if it holds rules, else nft, else plain; at last an empty
    /// legacy, for kernels without nf_tables.
    ///
    /// # Errors
    /// Why none of them works: missing programs, missing kernel support, missing privilege.
    pub fn choose(family: Family, forced: Option<Variant>, log: &Log) -> Result<Self, NoBackend> {
        let mut tried = Vec::new();
        let mut attempt = |outcome: Result<Backend, ProgramError>| match outcome {
            Ok(backend) => {
                log.info(&format!("{family}: using {}", backend.programs.restore.display()));
                Some(backend)
            }
            Err(error) => {
                log.debug(&error.to_string());
                tried.push(error);
                None
            }
        };
        if let Some(variant) = forced {
            return attempt(probed(family, variant)).ok_or(NoBackend { family, tried });
        }
        if let Ok(legacy) = listed(family, Variant::Legacy)
            && legacy.state.has_residue()
            && let Some(backend) = attempt(legacy.probe())
        {
            return Ok(backend);
        }
        for variant in [Variant::Nft, Variant::Plain, Variant::Legacy] {
            if let Some(backend) = attempt(probed(family, variant)) {
                return Ok(backend);
            }
        }
        Err(NoBackend { family, tried })
    }

    /// Whether `rule` exists in the kernel, wherever it stands in its chain.
    ///
    /// # Errors
    /// The program cannot be run; that it refuses the rule means it is not there.
    pub fn exists(&self, rule: &Rule) -> Result<bool, ProgramError> {
        let mut args = self.wait_args();
        args.extend(["-t", rule.table.name(), "-C", rule.chain.name()]);
        let words = restore::words(rule);
        args.extend(words.split(' '));
        match run(&self.programs.iptables, &args, "") {
            Ok(_) => Ok(true),
            Err(ProgramError::Refused { .. }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Feeds `text` to `iptables-restore`, leaving alone what is there.
    ///
    /// # Errors
    /// The program's complaint.
    pub fn restore(&self, text: &str) -> Result<(), ProgramError> {
        let mut args = vec!["--noflush"];
        args.extend(self.wait_args());
        run(&self.programs.restore, &args, text).map(drop)
    }

    /// What `iptables-save` shows now.
    ///
    /// # Errors
    /// The program's complaint.
    pub fn save(&self) -> Result<String, ProgramError> {
        run(&self.programs.save, &[], "")
    }

    /// Adds and removes a rule that no packet can match (protocol 255 is reserved, RFC 5237): listing works
    /// without the modules and the privilege that writing needs. Where our chains are, writing has worked.
    fn probe(self) -> Result<Self, ProgramError> {
        if !self.state.our_chains().is_empty() {
            return Ok(self);
        }
        for action in ["-A", "-D"] {
            let mut args = self.wait_args();
            args.extend(["-t", "nat", action, "INPUT", "-p", "255", "-j", "RETURN"]);
            run(&self.programs.iptables, &args, "")?;
        }
        Ok(self)
    }

    fn wait_args(&self) -> Vec<&'static str> {
        if self.programs.wait {
            vec!["--wait=30"]
        } else {
            Vec::new()
        }
    }
}

fn probed(family: Family, variant: Variant) -> Result<Backend, ProgramError> {
    listed(family, variant)?.probe()
}

/// Finds the programs and lists the rules.
fn listed(family: Family, variant: Variant) -> Result<Backend, ProgramError> {
    let stem = format!(
        "{}{variant}",
        if family == Family::V4 {
            "iptables"
        } else {
            "ip6tables"
        }
    );
    let iptables = find(&stem)?;
    let save = find(&format!("{stem}-save"))?;
    let restore = find(&format!("{stem}-restore"))?;
    let version = run(&iptables, &["--version"], "")?;
    let state = State::parse(&run(&save, &[], "")?);
    Ok(Backend {
        family,
        state,
        programs: Programs {
            iptables,
            save,
            restore,
            wait: needs_wait(&version),
        },
    })
}

/// Reads `iptables v1.8.9 (legacy)`. Before 1.8 no variant is named: all were legacy.
fn needs_wait(version: &str) -> bool {
    if version.contains("nf_tables") {
        return false;
    }
    let number = version
        .split_whitespace()
        .find_map(|word| word.strip_prefix('v'))
        .unwrap_or_default();
    let parts: Vec<u32> = number.split('.').map_while(|part| part.parse().ok()).collect();
    parts.as_slice() >= [1, 6, 2].as_slice()
}

impl fmt::Display for Variant {
    /// As it follows `iptables` in a program's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Variant::Legacy => "-legacy",
            Variant::Nft => "-nft",
            Variant::Plain => "",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_legacy_since_1_6_2_waits_for_the_lock() {
        let check = |version: &str, expected| assert_eq!(needs_wait(version), expected, "{version}");
        check("iptables v1.8.9 (legacy)", true);
        check("ip6tables v1.8.9 (legacy)\n", true);
        check("iptables v1.8.9 (nf_tables)", false);
        check("iptables v1.6.2", true);
        check("iptables v1.6.1", false);
        check("iptables v1.10.0 (legacy)", true);
        check("something else", false);
    }
}
