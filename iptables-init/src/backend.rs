//! The iptables programs: which of them to use, how to run them, what their complaints mean.
//!
//! Knows no rules but their text. A family's programs come in variants that see different kernel tables: *legacy*
//! (ip_tables), *nft* (nf_tables), and the *plain* names, which a distribution points at one of the two.
//! Source: Istio `tools/istio-iptables/pkg/dependencies`, order of choice.

pub mod kernel;
pub mod nft;
pub(crate) mod program;

use std::fmt;
use std::path::PathBuf;

use crate::log::Log;
use crate::rule::Family;
use crate::saved::Saved;
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
    pub family: Family,
    /// One reason a variant that was tried.
    pub tried: Vec<ProgramError>,
}

/// Whether there are no programs of any variant for the families that rules are wanted of.
pub fn has_no_programs(ipv6: bool) -> bool {
    let stems: &[&str] = if ipv6 {
        &["iptables", "ip6tables"]
    } else {
        &["iptables"]
    };
    let variants = [Variant::Legacy, Variant::Nft, Variant::Plain];
    let mut names = stems
        .iter()
        .flat_map(|stem| variants.map(|variant| format!("{stem}{variant}-restore")));
    names.all(|name| find(&name).is_err())
}

/// The programs of one family and variant, and what they showed.
pub struct Backend {
    pub family: Family,
    pub variant: Variant,
    /// What `iptables-save` showed when it was found.
    pub saved: Saved,
    save: PathBuf,
    restore: PathBuf,
    /// `--wait=30` where several programs may hold the tables' lock: legacy since 1.6.2.
    wait: bool,
}

/// All variants of one family's programs.
pub struct Variants {
    family: Family,
    legacy: Result<Backend, ProgramError>,
    nft: Result<Backend, ProgramError>,
}

impl Variants {
    /// Finds them, and lists their rules.
    pub fn find(family: Family) -> Self {
        Variants {
            family,
            legacy: Backend::find(family, Variant::Legacy),
            nft: Backend::find(family, Variant::Nft),
        }
    }

    /// Chooses the one that is to hold our rules and gives the others beside it: `forced` if given, else legacy if
    /// it holds rules, else nft, else plain; at last an empty legacy, for kernels without nf_tables.
    ///
    /// # Errors
    /// Why none of them works: missing programs, missing kernel support, missing privilege.
    pub fn choose(self, forced: Option<Variant>, log: &Log) -> Result<(Backend, Vec<Backend>), NoBackend> {
        let family = self.family;
        let legacy_first = self
            .legacy
            .as_ref()
            .is_ok_and(|legacy| legacy.saved.has_residue());
        let order = match forced {
            Some(variant) => vec![variant],
            None if legacy_first => vec![Variant::Legacy, Variant::Nft, Variant::Plain],
            None => vec![Variant::Nft, Variant::Plain, Variant::Legacy],
        };
        let (mut legacy, mut nft) = (Some(self.legacy), Some(self.nft));
        let mut tried = Vec::new();
        for variant in order {
            let candidate = match variant {
                Variant::Legacy => legacy.take(),
                Variant::Nft => nft.take(),
                Variant::Plain => None,
            };
            let candidate = candidate.unwrap_or_else(|| Backend::find(family, variant));
            let probed = candidate.and_then(|backend| backend.probe().map(|()| backend));
            match probed {
                Ok(chosen) => {
                    log.info(&format!("{family}: using {chosen}"));
                    let others = [legacy, nft].into_iter().flatten().flatten();
                    return Ok((chosen, others.collect()));
                }
                Err(error) => {
                    log.debug(&error.to_string());
                    tried.push(error);
                }
            }
        }
        Err(NoBackend { family, tried })
    }

    /// Those that can list rules.
    pub fn usable(self) -> Vec<Backend> {
        let family = self.family;
        let mut found: Vec<Backend> = [self.legacy, self.nft].into_iter().flatten().collect();
        if found.is_empty() {
            found.extend(Backend::find(family, Variant::Plain));
        }
        found
    }
}

impl Backend {
    /// Finds the programs and lists the rules.
    ///
    /// # Errors
    /// A program that is missing, or the complaint of `iptables-save`.
    pub fn find(family: Family, variant: Variant) -> Result<Self, ProgramError> {
        let stem = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let save = find(&format!("{stem}{variant}-save"))?;
        let restore = find(&format!("{stem}{variant}-restore"))?;
        let wait = match variant {
            // These names are younger than the option.
            Variant::Legacy => true,
            Variant::Nft => false,
            Variant::Plain => needs_wait(&run(&restore, &["--version"], "")?),
        };
        let mut backend = Backend {
            family,
            variant,
            saved: Saved::default(),
            save,
            restore,
            wait,
        };
        backend.saved = backend.now()?;
        Ok(backend)
    }

    /// Feeds `text` to `iptables-restore`, leaving alone what is there.
    ///
    /// # Errors
    /// The program's complaint.
    pub fn restore(&self, text: &str) -> Result<(), ProgramError> {
        let mut args = vec!["--noflush"];
        if self.wait {
            args.push("--wait=30");
        }
        run(&self.restore, &args, text).map(drop)
    }

    /// What `iptables-save` shows now.
    ///
    /// # Errors
    /// The program's complaint.
    pub fn list(&self) -> Result<String, ProgramError> {
        run(&self.save, &[], "")
    }

    /// The same, read.
    ///
    /// # Errors
    /// The program's complaint.
    pub fn now(&self) -> Result<Saved, ProgramError> {
        Ok(Saved::parse(&self.list()?))
    }

    /// Adds and removes a rule that no packet can match (protocol 255 is reserved, RFC 5237): listing works
    /// without the modules and the privilege that writing needs. Both in one commit, so that nothing stays.
    /// Where our chains are, writing has worked.
    fn probe(&self) -> Result<(), ProgramError> {
        const TEXT: &str = "*nat\n-A INPUT -p 255 -j RETURN\n-D INPUT -p 255 -j RETURN\nCOMMIT\n";
        if self.saved.has_ours() {
            return Ok(());
        }
        self.restore(TEXT)
    }
}

/// Reads `iptables-restore v1.8.9 (legacy)`. Before 1.8 no variant is named: all were legacy.
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

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.restore.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_legacy_since_1_6_2_waits_for_the_lock() {
        let check = |version: &str, expected| assert_eq!(needs_wait(version), expected, "{version}");
        check("iptables-restore v1.8.9 (legacy)", true);
        check("ip6tables-restore v1.8.9 (legacy)\n", true);
        check("iptables-restore v1.8.9 (nf_tables)", false);
        check("iptables-restore v1.6.2", true);
        check("iptables-restore v1.6.1", false);
        check("iptables-restore v1.10.0 (legacy)", true);
        check("something else", false);
    }
}
