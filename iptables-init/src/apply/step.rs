//! Steps, one after the other, and back again if one fails.

use crate::backend::Backend;
use crate::log::Log;
use crate::plan::NativeChain;
use crate::routing::Item;
use crate::rule::Rule;
use crate::transition;

use super::ApplyError;
use super::native::Native;

/// One change.
pub(super) enum Step<'a> {
    Add(Item),
    Remove(Item),
    /// Each table of `text` changes whole or not at all.
    Restore {
        backend: &'a Backend,
        text: String,
        /// Rules that are ours, wherever they are found.
        known: Vec<Rule>,
    },
    /// All of it or nothing.
    Native {
        native: &'a Native,
        /// Nothing: our tables go.
        wanted: Vec<NativeChain>,
    },
}

impl<'a> Step<'a> {
    pub(super) fn restore(backend: &'a Backend, text: String, known: Vec<Rule>) -> Self {
        Step::Restore { backend, text, known }
    }

    pub(super) fn native(native: &'a Native, wanted: Vec<NativeChain>) -> Self {
        Step::Native { native, wanted }
    }

    /// Whether it changed anything.
    fn take(&self, log: &Log) -> Result<bool, ApplyError> {
        Ok(match self {
            Step::Add(item) => changed(item.add()?, *item, "add", log),
            Step::Remove(item) => changed(item.remove()?, *item, "del", log),
            Step::Restore { backend, text, .. } => {
                log.info(&format!(
                    "{}: {backend} --noflush\n{}",
                    backend.family,
                    text.trim_end()
                ));
                backend.restore(text)?;
                true
            }
            Step::Native { native, wanted } => {
                log.info(&native.describe(wanted));
                native.replace(wanted)?;
                true
            }
        })
    }

    /// Undoes it, or as much of it as was done.
    fn take_back(&self) -> Result<(), ApplyError> {
        match self {
            Step::Add(item) => drop(item.remove()?),
            Step::Remove(item) => drop(item.add()?),
            Step::Restore { backend, known, .. } => {
                let text = transition::put_back(&backend.now()?, &backend.saved, known);
                if !text.is_empty() {
                    backend.restore(&text)?;
                }
            }
            Step::Native { native, .. } => native.put_back()?,
        }
        Ok(())
    }

    /// A failed restore may have committed some of its tables; the other steps have done nothing then.
    fn may_be_half_done(&self) -> bool {
        matches!(self, Step::Restore { .. })
    }
}

fn changed(changed: bool, item: Item, verb: &str, log: &Log) -> bool {
    if changed {
        log.info(&item.command(verb));
    }
    changed
}

/// Takes all steps, or none.
pub(super) fn take(steps: &[Step<'_>], log: &Log) -> Result<(), ApplyError> {
    let mut taken: Vec<&Step<'_>> = Vec::new();
    for step in steps {
        match step.take(log) {
            Ok(true) => taken.push(step),
            Ok(false) => {}
            Err(error) => {
                if step.may_be_half_done() {
                    taken.push(step);
                }
                take_back(&taken, log);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// The error that is reported is the first one; what goes wrong on the way back can only be logged.
fn take_back(taken: &[&Step<'_>], log: &Log) {
    for step in taken.iter().rev() {
        if let Err(error) = step.take_back() {
            log.error(&format!("what was there before cannot be put back: {error}"));
        }
    }
}
