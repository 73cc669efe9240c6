//! What was received of one resource type, by name: the accepted bytes and the last rejection.
//!
//! Bytes are compared with those in force before anything is decoded: what is the same costs that comparison and nothing else. What is
//! kept is copied, because what comes is a part of a whole response, which is not to stay in memory for its sake. Of the decoded value
//! only what its owner needs is kept; the bytes are kept anyway, for `/config_dump`, packed where there are thousands.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use outrigger_model::field::{Converted, Problem, Rejection};

use crate::packed::{Packed, Packer};
use crate::stats::{Counter, Registry};

/// The last accepted configuration of a resource.
#[derive(Debug)]
pub(super) struct Accepted<T> {
    /// As received; `/config_dump` renders from it.
    pub(super) bytes: Packed,
    /// The response's version.
    pub(super) version: Arc<str>,
    /// When.
    pub(super) updated: SystemTime,
    /// What is kept of its meaning.
    pub(super) model: Arc<T>,
    /// Fields without behaviour; resources with the same ones share the list.
    pub(super) problems: Arc<[Problem]>,
    /// From the bootstrap file.
    pub(super) is_static: bool,
}

/// The last refused configuration of a resource; gone as soon as one is accepted.
#[derive(Debug)]
pub(super) struct Refused {
    /// As received.
    pub(super) bytes: Bytes,
    /// The response's version.
    pub(super) version: Arc<str>,
    /// When it last came.
    pub(super) updated: SystemTime,
    /// When it was first refused for this reason.
    pub(super) since: SystemTime,
    /// Why.
    pub(super) reason: String,
}

/// One resource type.
#[derive(Debug)]
pub(super) struct Store<T> {
    /// What is in force.
    pub(super) accepted: HashMap<Arc<str>, Accepted<T>>,
    /// What is not.
    pub(super) refused: BTreeMap<Arc<str>, Refused>,
    /// Version of the last response that was applied.
    pub(super) version: String,
    /// Where changes are counted.
    changes: Changes,
    /// Goes up with everything that is in force or no more.
    generation: u64,
    /// What changed since [`Self::take_journal`]; `None`: nobody asks.
    journal: Option<Vec<Change>>,
    /// Of a type of which there are many; `None`: bytes are kept as they came.
    packer: Option<Packer>,
    /// Lists of problems that resources share.
    problems: HashSet<Arc<[Problem]>>,
    /// The version of the resource that came last: all of a response have the same.
    last_version: Arc<str>,
}

/// What a resource was before it changed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) name: Arc<str>,
    /// `None`: it was not there.
    pub(super) before: Option<Bytes>,
}

/// `cluster_manager.cluster_*`, `listener_manager.listener_*`. Source: Envoy docs, cluster manager and listener manager statistics.
#[derive(Debug)]
pub(super) struct Changes {
    added: Counter,
    modified: Counter,
    removed: Counter,
}

impl Changes {
    /// Registers them; `prefix` ends where `_added` begins.
    pub(super) fn new(registry: &Registry, prefix: &str) -> Self {
        let counter = |change: &str| registry.counter(format!("{prefix}_{change}"));
        Self {
            added: counter("added"),
            modified: counter("modified"),
            removed: counter("removed"),
        }
    }

    /// For what nobody counts.
    fn none() -> Self {
        Self {
            added: Counter::none(),
            modified: Counter::none(),
            removed: Counter::none(),
        }
    }
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self::new(Changes::none())
    }
}

impl<T> Store<T> {
    /// An empty one.
    pub(super) fn new(changes: Changes) -> Self {
        Self {
            accepted: HashMap::new(),
            refused: BTreeMap::new(),
            version: String::new(),
            changes,
            generation: 0,
            journal: None,
            packer: None,
            problems: HashSet::new(),
            last_version: "".into(),
        }
    }
}

/// What became of a resource.
pub(super) enum Offered<M> {
    /// The same bytes as before: nothing to do.
    Unchanged,
    /// New or changed; [`Store::accept`] makes it count.
    Changed(Pending<M>),
}

/// A converted resource that is not in force yet.
pub(super) struct Pending<M> {
    /// What it means.
    pub(super) model: M,
    bytes: Packed,
    version: Arc<str>,
    problems: Vec<Problem>,
}

impl<M> Pending<M> {
    /// As it came.
    pub(super) fn bytes(&self) -> &Packed {
        &self.bytes
    }

    /// With what is to be kept of its meaning.
    pub(super) fn keep<T>(self, kept: impl FnOnce(M) -> T) -> Pending<T> {
        let Self {
            model,
            bytes,
            version,
            problems,
        } = self;
        Pending {
            model: kept(model),
            bytes,
            version,
            problems,
        }
    }
}

impl<T> Store<T> {
    /// The same, for a type of which there are many that look alike.
    pub(super) fn packing(self) -> Self {
        Self {
            packer: Some(Packer::default()),
            ..self
        }
    }

    /// Looks at a resource: the same bytes cost one comparison and no decode.
    ///
    /// # Errors
    /// The model's rejection; it is remembered for `/config_dump`.
    pub(super) fn offer<M>(
        &mut self,
        name: &str,
        version: &str,
        bytes: &[u8],
        decode: impl FnOnce(&Bytes) -> Result<Converted<M>, Rejection>,
    ) -> Result<Offered<M>, String> {
        if *self.last_version != *version {
            self.last_version = version.into();
        }
        if let Some(known) = self.accepted.get_mut(name)
            && known.bytes == *bytes
        {
            if !Arc::ptr_eq(&known.version, &self.last_version) {
                known.version = self.last_version.clone();
            }
            self.refused.remove(name);
            return Ok(Offered::Unchanged);
        }
        let bytes = Bytes::copy_from_slice(bytes);
        match decode(&bytes) {
            Ok(Converted { value, problems }) => Ok(Offered::Changed(Pending {
                model: value,
                bytes: match &mut self.packer {
                    Some(packer) => packer.pack(bytes),
                    None => Packed::whole(bytes),
                },
                version: self.last_version.clone(),
                problems,
            })),
            Err(rejection) => {
                let reason = rejection.to_string();
                self.refuse(name, version, &bytes, &reason);
                Err(reason)
            }
        }
    }

    /// Puts a resource in force.
    pub(super) fn accept(&mut self, name: &str, pending: Pending<T>) {
        let Pending {
            model,
            bytes,
            version,
            problems,
        } = pending;
        self.refused.remove(name);
        for problem in &problems {
            tracing::debug!(resource = name, %problem, "configuration field without effect");
        }
        let accepted = Accepted {
            bytes,
            version,
            updated: SystemTime::now(),
            model: Arc::new(model),
            problems: self.shared(problems),
            is_static: false,
        };
        self.insert(name, accepted);
    }

    /// Puts a resource of the bootstrap in force.
    pub(super) fn accept_static(&mut self, name: &str, bytes: Bytes, model: Arc<T>) {
        let accepted = Accepted {
            bytes: Packed::whole(bytes),
            version: "".into(),
            updated: SystemTime::now(),
            model,
            problems: Arc::default(),
            is_static: true,
        };
        self.insert(name, accepted);
    }

    fn insert(&mut self, name: &str, accepted: Accepted<T>) {
        self.generation += 1;
        // The names of the journal, and those here, are the same strings.
        let name = match self.accepted.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => name.into(),
        };
        let before = self.accepted.insert(name.clone(), accepted);
        let change = match &before {
            None => &self.changes.added,
            Some(_) => &self.changes.modified,
        };
        change.inc();
        self.note(name, before);
    }

    /// The list itself if it is new, else the one there is. A thousand resources that look alike have the same problems.
    fn shared(&mut self, problems: Vec<Problem>) -> Arc<[Problem]> {
        if problems.is_empty() {
            return Arc::default();
        }
        if let Some(known) = self.problems.get(problems.as_slice()) {
            return known.clone();
        }
        if self.problems.len() >= SHARED_PROBLEMS {
            self.problems.retain(|list| Arc::strong_count(list) > 1);
        }
        let problems: Arc<[Problem]> = problems.into();
        self.problems.insert(problems.clone());
        problems
    }

    /// It came with the bootstrap.
    pub(super) fn is_static(&self, name: &str) -> bool {
        self.accepted.get(name).is_some_and(|accepted| accepted.is_static)
    }

    /// As Envoy, one of the bootstrap is not replaced, and nobody is told but who asks for problems.
    pub(super) fn pass_over(&mut self, name: &str, version: &str, bytes: &[u8]) {
        let reason = "is one of the bootstrap, which stays; dynamic ones need other names";
        if !self.refused.contains_key(name) {
            tracing::warn!(resource = name, reason, "configuration is passed over");
        }
        self.refuse(name, version, bytes, reason);
    }

    /// Remembers a refusal; what was in force stays.
    pub(super) fn refuse(&mut self, name: &str, version: &str, bytes: &[u8], reason: &str) {
        let now = SystemTime::now();
        let before = self.refused.get(name).filter(|before| before.reason == reason);
        let refused = Refused {
            bytes: Bytes::copy_from_slice(bytes),
            version: version.into(),
            updated: now,
            since: before.map_or(now, |before| before.since),
            reason: reason.to_owned(),
        };
        self.refused.insert(name.into(), refused);
    }

    /// Forgets a resource; static ones stay. True: it was in force.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.refused.remove(name);
        if self.is_static(name) {
            return false;
        }
        let removed = self.accepted.remove_entry(name);
        let was_there = removed.is_some();
        if let Some((name, accepted)) = removed {
            self.generation += 1;
            self.note(name, Some(accepted));
            self.changes.removed.inc();
        }
        was_there
    }

    /// Forgets every resource that nobody wants any more.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.refused.retain(|name, _| is_wanted(name));
        let unwanted: Vec<_> = self
            .accepted
            .keys()
            .filter(|name| !is_wanted(name))
            .cloned()
            .collect();
        for name in unwanted {
            self.remove(&name);
        }
    }

    fn note(&mut self, name: Arc<str>, before: Option<Accepted<T>>) {
        if let Some(journal) = &mut self.journal {
            let before = before.map(|before| before.bytes.bytes());
            journal.push(Change { name, before });
        }
    }

    /// Changes are noted from now on.
    pub(super) fn keep_journal(&mut self) {
        self.journal = Some(Vec::new());
    }

    /// What changed since the last time.
    pub(super) fn take_journal(&mut self) -> Vec<Change> {
        self.journal.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Differs from an earlier one if anything in force does.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The resource in force, as received.
    pub(super) fn bytes(&self, name: &str) -> Option<Bytes> {
        self.accepted.get(name).map(|accepted| accepted.bytes.bytes())
    }

    /// What is kept of the resource in force.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.accepted.get(name).map(|accepted| &accepted.model)
    }
}

/// Lists of problems that are looked through before those are forgotten that nobody has.
const SHARED_PROBLEMS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{TagRules, text};

    #[test]
    fn what_is_new_changed_and_gone_is_counted() {
        let registry = Registry::new(TagRules::new(&[], false).expect("no rule"));
        let mut store = Store::<String>::new(Changes::new(&registry, "cluster_manager.cluster"));
        let decode = |bytes: &Bytes| {
            Ok(Converted {
                value: String::from_utf8_lossy(bytes).into_owned(),
                problems: Vec::new(),
            })
        };
        for bytes in ["a", "a", "b", "c"] {
            if let Ok(Offered::Changed(pending)) = store.offer("x", "1", bytes.as_bytes(), decode) {
                store.accept("x", pending);
            }
        }
        assert!(store.remove("x") && !store.remove("x"));
        store.accept_static("s", Bytes::new(), Arc::new(String::new()));
        assert!(!store.remove("s"), "the bootstrap's stay");
        let expected = "cluster_manager.cluster_added: 2\ncluster_manager.cluster_modified: 2\n\
                        cluster_manager.cluster_removed: 1\n";
        assert_eq!(text(&registry, None, true), expected);
    }
}
