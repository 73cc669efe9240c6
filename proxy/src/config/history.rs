//! What the configuration was: the last versions of each type, and what lies between two of them.
//!
//! A version is what one response changed. It holds what the changed resources were before, by their content: what came twice is held
//! once, and what is in force is not held at all. Bounded by versions of a type and by bytes of all; the oldest go first. Secrets have no
//! history.
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use twox_hash::XxHash3_128;

use super::store::Change;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Versions of one type; 0: no history.
    pub(crate) versions: usize,
    /// Of resources that are not in force any more, all types together.
    pub(crate) bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            versions: 10,
            bytes: 2 << 20,
        }
    }
}

/// The versions, in the order in which they were accepted.
#[derive(Debug)]
pub(super) struct History {
    limits: Limits,
    versions: VecDeque<Version>,
    /// Number of the next one.
    next: u64,
    contents: Contents,
}

/// One response that changed something.
#[derive(Debug)]
struct Version {
    number: u64,
    type_url: &'static str,
    version: String,
    at: SystemTime,
    entries: Vec<Entry>,
    totals: Totals,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    before: Option<Content>,
}

/// How many resources a version added, changed and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) added: usize,
    pub(crate) changed: usize,
    pub(crate) removed: usize,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Counted from 1 over all types.
    pub(crate) number: u64,
    /// Its type.
    pub(crate) type_url: &'static str,
    /// As the control plane calls it.
    pub(crate) version: String,
    /// When it was accepted.
    pub(crate) at: SystemTime,
    /// What it did.
    pub(crate) totals: Totals,
}

/// A resource that is not the same in two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Its type.
    pub(crate) type_url: &'static str,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// In the older version; `None`: not there.
    pub(crate) before: Option<Bytes>,
    /// In the newer one.
    pub(crate) after: Option<Bytes>,
}

/// Why there is no difference to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownVersion {
    /// Not a number from here.
    #[error("there is no version {wanted}; the newest is {newest}")]
    Newer { wanted: u64, newest: u64 },
    /// It is not kept any more.
    #[error("version {wanted} is not kept any more; the oldest that can be compared with is {oldest}")]
    Forgotten { wanted: u64, oldest: u64 },
}

impl History {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            versions: VecDeque::new(),
            next: 1,
            contents: Contents::default(),
        }
    }

    /// Whether anything is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.limits.versions > 0
    }

    /// Takes note of what a response changed. `is_there`: the resource is in force now.
    pub(super) fn record(
        &mut self,
        type_url: &'static str,
        version: &str,
        changes: Vec<Change>,
        is_there: impl Fn(&str) -> bool,
    ) {
        if changes.is_empty() || !self.is_kept() {
            return;
        }
        let mut totals = Totals::default();
        for change in &changes {
            match (change.before.is_some(), is_there(&change.name)) {
                (false, _) => totals.added += 1,
                (true, true) => totals.changed += 1,
                (true, false) => totals.removed += 1,
            }
        }
        let contents = &mut self.contents;
        let entry = |change: Change| Entry {
            name: change.name,
            before: change.before.map(|bytes| contents.hold(bytes)),
        };
        let entries = changes.into_iter().map(entry).collect();
        self.versions.push_back(Version {
            number: self.next,
            type_url,
            version: version.to_owned(),
            at: SystemTime::now(),
            entries,
            totals,
        });
        self.next += 1;
        self.forget(type_url);
    }

    /// Brings the history back within its limits.
    fn forget(&mut self, type_url: &str) {
        let of_type = |version: &Version| version.type_url == type_url;
        if self.versions.iter().filter(|version| of_type(version)).count() > self.limits.versions
            && let Some(oldest) = self.versions.iter().position(of_type)
        {
            self.drop_version(oldest);
        }
        while self.contents.bytes > self.limits.bytes && self.versions.len() > 1 {
            self.drop_version(0);
        }
        // A single version may be too much by itself: then nothing before it can be shown.
        if self.contents.bytes > self.limits.bytes {
            self.drop_version(0);
        }
    }

    fn drop_version(&mut self, place: usize) {
        for entry in self
            .versions
            .remove(place)
            .into_iter()
            .flat_map(|version| version.entries)
        {
            if let Some(content) = entry.before {
                self.contents.release(content);
            }
        }
    }

    /// The versions that are kept, newest first.
    pub(super) fn summaries(&self) -> Vec<Summary> {
        let summary = |version: &Version| Summary {
            number: version.number,
            type_url: version.type_url,
            version: version.version.clone(),
            at: version.at,
            totals: version.totals,
        };
        self.versions.iter().rev().map(summary).collect()
    }

    /// What differs between the configuration as version `from` left it and as version `to` left it; 0 is the one before the first.
    /// `current` has what is in force.
    ///
    /// # Errors
    /// One of them is not known, or something between was forgotten.
    pub(super) fn differences(
        &self,
        from: u64,
        to: u64,
        current: impl Fn(&str, &str) -> Option<Bytes>,
    ) -> Result<Vec<Difference>, UnknownVersion> {
        let (older, newer) = (from.min(to), from.max(to));
        let newest = self.next - 1;
        if newer > newest {
            return Err(UnknownVersion::Newer {
                wanted: newer,
                newest,
            });
        }
        // Every version after `older` has to be there.
        let oldest = self.oldest_comparable();
        if older < oldest {
            return Err(UnknownVersion::Forgotten {
                wanted: older,
                oldest,
            });
        }
        let mut changed: BTreeMap<(&'static str, Arc<str>), Option<Bytes>> = BTreeMap::new();
        let between = |version: &&Version| (older + 1..=newer).contains(&version.number);
        for version in self.versions.iter().filter(between) {
            for entry in &version.entries {
                // The first change after `older` tells what it was then.
                changed
                    .entry((version.type_url, entry.name.clone()))
                    .or_insert_with(|| entry.before.as_ref().map(|content| content.bytes.clone()));
            }
        }
        let mut differences = Vec::new();
        for ((type_url, name), before) in changed {
            let after = match self.first_change_after(newer, type_url, &name) {
                Some(entry) => entry.before.as_ref().map(|content| content.bytes.clone()),
                None => current(type_url, &name),
            };
            if before != after {
                let (before, after) = if from <= to {
                    (before, after)
                } else {
                    (after, before)
                };
                differences.push(Difference {
                    type_url,
                    name,
                    before,
                    after,
                });
            }
        }
        Ok(differences)
    }

    /// The oldest version after which nothing was forgotten.
    fn oldest_comparable(&self) -> u64 {
        let mut oldest = self.next - 1;
        for version in self.versions.iter().rev() {
            if version.number != oldest {
                break;
            }
            oldest -= 1;
        }
        oldest
    }

    fn first_change_after(&self, number: u64, type_url: &str, name: &str) -> Option<&Entry> {
        let later = self.versions.iter().filter(|version| version.number > number);
        let of_type = later.filter(|version| version.type_url == type_url);
        of_type
            .flat_map(|version| &version.entries)
            .find(|entry| &*entry.name == name)
    }
}

/// Bytes by their content, each held once.
#[derive(Debug, Default)]
struct Contents {
    by_hash: HashMap<u128, (Bytes, usize)>,
    bytes: usize,
}

/// What a resource was.
#[derive(Debug)]
struct Content {
    hash: u128,
    bytes: Bytes,
}

impl Contents {
    fn hold(&mut self, bytes: Bytes) -> Content {
        let hash = XxHash3_128::oneshot(&bytes);
        let (held, holders) = self.by_hash.entry(hash).or_insert_with(|| (bytes.clone(), 0));
        *holders += 1;
        if *holders == 1 {
            self.bytes += bytes.len();
        }
        // A collision can be made, but not by chance: then both are held, and the account is off by one of them.
        let bytes = if *held == bytes { held.clone() } else { bytes };
        Content { hash, bytes }
    }

    fn release(&mut self, content: Content) {
        let Some((held, holders)) = self.by_hash.get_mut(&content.hash) else {
            return;
        };
        *holders -= 1;
        if *holders == 0 {
            self.bytes -= held.len();
            self.by_hash.remove(&content.hash);
        }
    }
}

#[cfg(test)]
mod tests;
