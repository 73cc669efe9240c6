//! What is there before anything is done, and the steps from there to what is wanted.

use crate::backend::kernel::Kernel;
use crate::backend::nft::Nft;
use crate::backend::{Backend, Variants};
use crate::config::{Config, Method, Mode};
use crate::log::{Level, Log};
use crate::plan::{self, NativeChain};
use crate::routing::{self, Item};
use crate::rule::{Family, Rule, of_family};
use crate::saved::{Verdict, compare};
use crate::transition;

use super::ApplyError;
use super::native::Native;
use super::step::Step;

/// Programs that were found, with the rules that they showed.
pub(super) struct Situation {
    /// Hold our rules when all is done.
    chosen: Vec<Backend>,
    /// Must hold none of ours then.
    others: Vec<Backend>,
    native: Result<Native, ApplyError>,
}

impl Situation {
    pub(super) fn look(config: &Config, log: &Log) -> Result<Self, ApplyError> {
        let (mut chosen, mut others) = (Vec::new(), Vec::new());
        for family in Family::BOTH {
            let variants = Variants::find(family);
            if config.wants(family) && config.method == Method::Iptables {
                let (backend, rest) = variants.choose(config.force_variant, log)?;
                chosen.push(backend);
                others.extend(rest);
            } else {
                others.extend(variants.usable());
            }
        }
        let native = native_tables(config);
        if config.method != Method::Iptables && !config.cleanup_only {
            // Whoever asks for native tables gets nothing without them.
            return Ok(Situation {
                chosen,
                others,
                native: Ok(native?),
            });
        }
        Ok(Situation {
            chosen,
            others,
            native,
        })
    }

    /// New rules come before old ones of other programs go: there is no moment without any.
    pub(super) fn steps(&self, config: &Config, log: &Log) -> Result<Vec<Step<'_>>, ApplyError> {
        let mut steps = self.routing(config)?;
        let rules = plan::rules(config);
        for backend in &self.chosen {
            let wanted = of_family(&rules, backend.family);
            let verdict = compare(&backend.saved, &wanted);
            let name = backend.family.to_string();
            if due(&name, &verdict, config, log)? {
                let text = transition::replace(&backend.saved, &wanted, config.force_apply);
                steps.push(Step::restore(backend, text, wanted));
            }
        }
        if let Ok(native) = &self.native {
            let wanted = wanted(config);
            if !wanted.is_empty() {
                if due("nftables", &native.compare(&wanted), config, log)? {
                    steps.push(Step::native(native, wanted));
                }
            } else if !native.is_empty() {
                steps.push(Step::native(native, wanted));
            }
        }
        for backend in &self.others {
            let known = of_family(&rules, backend.family);
            steps.extend(removal(backend, known));
        }
        Ok(steps)
    }

    /// Addresses and routes come first: rules without them lose packets. What is left over of a mark goes first
    /// too, while rules still tell the mark.
    fn routing(&self, config: &Config) -> Result<Vec<Step<'_>>, ApplyError> {
        let wanted = if config.cleanup_only {
            Vec::new()
        } else {
            routing::items(config)
        };
        let backends = || self.chosen.iter().chain(&self.others);
        let mut marks: Vec<u32> = backends()
            .filter_map(|backend| backend.saved.tproxy_mark())
            .collect();
        marks.extend(self.native.as_ref().ok().and_then(Native::tproxy_mark));
        if let Mode::Tproxy(tproxy) = config.mode {
            marks.push(tproxy.mark);
        }
        let mut gone = routing::left_over(&wanted, &marks).map_err(ApplyError::Rules)?;
        let had_ipv6 = backends().any(|backend| backend.family == Family::V6 && backend.saved.has_ours());
        if !wanted.contains(&Item::InboundSource) && (had_ipv6 || config.cleanup_only) {
            gone.push(Item::InboundSource);
        }
        let gone = gone.into_iter().map(Step::Remove);
        Ok(gone.chain(wanted.into_iter().map(Step::Add)).collect())
    }

    /// Shows the rules in the log. Only for its reader: they are in place whether or not they can be shown.
    pub(super) fn report(&self, log: &Log) {
        if log.level < Level::Info {
            return;
        }
        for backend in &self.chosen {
            match backend.list() {
                Ok(saved) => log.info(&format!("{}: rules now\n{}", backend.family, saved.trim_end())),
                Err(error) => log.warn(&format!("{}: rules cannot be listed: {error}", backend.family)),
            }
        }
        if self.chosen.is_empty()
            && let Ok(native) = &self.native
            && let Ok(listing) = native.list()
        {
            log.info(&format!("nftables: rules now\n{}", listing.trim_end()));
        }
    }
}

impl Config {
    /// Whether rules of `family` are to be there when all is done.
    fn wants(&self, family: Family) -> bool {
        !self.cleanup_only && (family == Family::V4 || self.ipv6)
    }
}

fn wanted(config: &Config) -> Vec<NativeChain> {
    match config.method {
        Method::Nftables | Method::Netlink if !config.cleanup_only => plan::native(config),
        _ => Vec::new(),
    }
}

/// Who reads and writes native tables. Without the program the kernel itself is spoken to, so that tables of an
/// earlier run are found in any image.
fn native_tables(config: &Config) -> Result<Native, ApplyError> {
    match (config.method, Nft::find()) {
        (Method::Nftables, nft) => Ok(Native::Program(nft?)),
        (Method::Iptables, Ok(nft)) => Ok(Native::Program(nft)),
        _ => Ok(Native::Kernel(Kernel::look()?)),
    }
}

/// Whether rules must be written.
fn due(name: &str, verdict: &Verdict, config: &Config, log: &Log) -> Result<bool, ApplyError> {
    match verdict {
        Verdict::Absent => Ok(true),
        Verdict::Equal if config.force_apply => {
            log.info(&format!(
                "{name}: all rules are in place, and written again (--force-apply)"
            ));
            Ok(true)
        }
        Verdict::Equal => {
            log.info(&format!("{name}: all rules are in place, nothing to do"));
            Ok(false)
        }
        Verdict::Differs(difference) if config.reconcile => {
            log.warn(&format!(
                "{name}: replacing rules of an earlier run: {difference}"
            ));
            Ok(true)
        }
        Verdict::Differs(difference) => Err(ApplyError::Differs(difference.clone())),
    }
}

fn removal(backend: &Backend, known: Vec<Rule>) -> Option<Step<'_>> {
    let text = transition::remove(&backend.saved, &known);
    (!text.is_empty()).then(|| Step::restore(backend, text, known))
}
