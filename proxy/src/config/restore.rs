//! When a snapshot is written, and when it is taken into force; see [`super::snapshot`] for the file.
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use outrigger_model::decode::{
    CLUSTER_TYPE, EXTENSION_TYPE, LISTENER_TYPE, LOAD_ASSIGNMENT_TYPE, ROUTE_TABLE_TYPE,
};

use super::control::Control;
use super::snapshot::{Resources, Snapshot, SnapshotOptions};
use super::store::Store;
use crate::time::Instant;

/// Between two writes: a busy mesh changes all the time.
const WRITE_EVERY: Duration = Duration::from_secs(10);

/// The snapshot of this process.
#[derive(Debug)]
pub(super) struct Restore {
    options: SnapshotOptions,
    /// `node.id`.
    node: String,
    state: State,
    /// The last attempt to write failed.
    failed: Arc<AtomicBool>,
    /// Generations of what was written last, and when.
    written: Option<([u64; 5], Instant)>,
}

/// What there is to know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The control plane has answered, or still may.
    Unused,
    /// It was wanted and could not be used.
    Refused { reason: String, at: SystemTime },
    /// In force, these types of it.
    InForce {
        saved: SystemTime,
        since: SystemTime,
        types: BTreeSet<&'static str>,
    },
}

/// The same for admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotStatus {
    /// The file.
    pub(crate) path: PathBuf,
    /// `unused`, `refused` or `in force`.
    pub(crate) state: &'static str,
    /// Why it was refused.
    pub(crate) reason: Option<String>,
    /// When what is in force was written.
    pub(crate) saved: Option<SystemTime>,
    /// Since when it is refused or in force.
    pub(crate) since: Option<SystemTime>,
    /// The types that the control plane has not sent yet.
    pub(crate) types: Vec<&'static str>,
}

/// In the order in which they are applied: a filter is taken if a listener wants it.
const TYPES: [&str; 5] = [
    CLUSTER_TYPE,
    LOAD_ASSIGNMENT_TYPE,
    LISTENER_TYPE,
    ROUTE_TABLE_TYPE,
    EXTENSION_TYPE,
];

impl Control {
    /// Configuration is kept on disk from now on, as that of node `node`.
    pub(crate) fn keep_snapshot(&mut self, options: SnapshotOptions, node: String) {
        self.restore = Some(Restore {
            options,
            node,
            state: State::Unused,
            failed: Arc::default(),
            written: None,
        });
    }

    /// The control plane is down, or has not answered for some time. True: the snapshot is in force now. Blocks on the file, once.
    pub(crate) fn restore(&mut self) -> bool {
        let has_answer = self.has_answered();
        let Some(restore) = &mut self.restore else {
            return false;
        };
        if has_answer || restore.state != State::Unused {
            return false;
        }
        let now = SystemTime::now();
        let snapshot = match Snapshot::read(&restore.options, &restore.node) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(
                    reason,
                    "the control plane is down, and the configuration snapshot cannot be used"
                );
                restore.state = State::Refused { reason, at: now };
                return false;
            }
        };
        restore.state = State::InForce {
            saved: snapshot.saved,
            since: now,
            types: BTreeSet::from(TYPES),
        };
        tracing::warn!(
            file = %restore.options.path.display(),
            age_s = snapshot.saved.elapsed().unwrap_or_default().as_secs(),
            "the control plane is down; the configuration snapshot is in force until it answers"
        );
        for resources in snapshot.types {
            self.apply_restored(resources);
        }
        true
    }

    fn apply_restored(&mut self, restored: Resources) {
        let Resources {
            type_url,
            version,
            resources,
        } = restored;
        let Some(type_url) = TYPES.into_iter().find(|known| **known == *type_url) else {
            return;
        };
        for (name, bytes) in resources {
            if let Err(reason) = self.offer_restored(type_url, &name, &version, &bytes) {
                tracing::warn!(
                    resource = name,
                    reason,
                    "a resource of the configuration snapshot is refused"
                );
            }
        }
        self.restored(type_url, &version);
    }

    /// The names of clusters or listeners that are in force and did not come with the bootstrap.
    pub(super) fn restored_names(&self, type_url: &str) -> BTreeSet<String> {
        fn names<T>(store: &Store<T>) -> BTreeSet<String> {
            let dynamic = store.accepted.iter().filter(|(_, accepted)| !accepted.is_static);
            dynamic.map(|(name, _)| name.to_string()).collect()
        }
        match type_url {
            CLUSTER_TYPE => names(&self.clusters.store),
            LISTENER_TYPE => names(&self.listeners.store),
            _ => BTreeSet::new(),
        }
    }

    /// The control plane has sent something of this type, and said what of it is gone: it counts now.
    pub(super) fn replace_restored(&mut self, type_url: &str) {
        if let Some(Restore {
            state: State::InForce { types, .. },
            ..
        }) = &mut self.restore
        {
            types.remove(type_url);
        }
    }

    /// The snapshot is no longer in force once the control plane has sent every type of which there is something.
    fn end_restored(&mut self) {
        let is_empty = |type_url: &str| match type_url {
            LOAD_ASSIGNMENT_TYPE => self.clusters.endpoints.accepted.is_empty(),
            ROUTE_TABLE_TYPE => self.listeners.routes.accepted.is_empty(),
            EXTENSION_TYPE => self.listeners.extensions.accepted().next().is_none(),
            _ => false,
        };
        if let Some(restore) = &mut self.restore
            && let State::InForce { types, .. } = &mut restore.state
        {
            types.retain(|type_url| !is_empty(type_url));
            if types.is_empty() {
                tracing::info!("the control plane has sent all that was from the configuration snapshot");
                restore.state = State::Unused;
            }
        }
    }

    /// What is on disk, and whether it is in use.
    pub(crate) fn snapshot_status(&self) -> Option<SnapshotStatus> {
        let restore = self.restore.as_ref()?;
        let mut status = SnapshotStatus {
            path: restore.options.path.clone(),
            state: "unused",
            reason: None,
            saved: None,
            since: None,
            types: Vec::new(),
        };
        match &restore.state {
            State::Unused => {}
            State::Refused { reason, at } => {
                status.state = "refused";
                status.reason = Some(reason.clone());
                status.since = Some(*at);
            }
            State::InForce { saved, since, types } => {
                status.state = "in force";
                status.saved = Some(*saved);
                status.since = Some(*since);
                status.types = types.iter().copied().collect();
            }
        }
        Some(status)
    }

    /// Writes the configuration in force if it is good, whole, and not the one that was written. On a thread of its own.
    pub(super) fn write_snapshot(&mut self) {
        self.end_restored();
        let is_whole = self.is_initialized() && self.has_answered();
        let generations = [
            self.clusters.store.generation(),
            self.clusters.endpoints.generation(),
            self.listeners.store.generation(),
            self.listeners.routes.generation(),
            self.listeners.extensions.generation(),
        ];
        let Some(restore) = self.restore.as_mut().filter(|_| is_whole) else {
            return;
        };
        if matches!(restore.state, State::InForce { .. }) {
            return;
        }
        let failed = restore.failed.load(Ordering::Relaxed);
        let is_due = |(written, at): &([u64; 5], Instant)| {
            (failed || *written != generations) && at.elapsed() >= WRITE_EVERY
        };
        if !restore.written.as_ref().is_none_or(is_due) {
            return;
        }
        restore.written = Some((generations, Instant::now()));
        let (path, node) = (restore.options.path.clone(), restore.node.clone());
        let outcome = restore.failed.clone();
        let snapshot = Snapshot {
            node,
            saved: SystemTime::now(),
            types: self.resources_to_keep(),
        };
        tokio::task::spawn_blocking(move || {
            let written = snapshot.write(&path);
            outcome.store(written.is_err(), Ordering::Relaxed);
            if let Err(error) = written {
                tracing::warn!(file = %path.display(), %error, "the configuration snapshot cannot be written");
            }
        });
    }

    /// All that came from the control plane and holds no private key.
    pub(super) fn resources_to_keep(&self) -> Vec<Resources> {
        vec![
            resources(CLUSTER_TYPE, &self.clusters.store, |cluster| cluster.holds_key),
            resources(LOAD_ASSIGNMENT_TYPE, &self.clusters.endpoints, |_| false),
            resources(LISTENER_TYPE, &self.listeners.store, super::listeners::holds_key),
            resources(ROUTE_TABLE_TYPE, &self.listeners.routes, |_| false),
            Resources {
                type_url: EXTENSION_TYPE.to_owned(),
                version: String::new(),
                resources: self.listeners.extensions.accepted().collect(),
            },
        ]
    }
}

fn resources<T>(type_url: &str, store: &Store<T>, holds_key: impl Fn(&T) -> bool) -> Resources {
    let from_control_plane = store.accepted.iter().filter(|(_, accepted)| !accepted.is_static);
    let mut resources: Vec<(String, Bytes)> = Vec::new();
    for (name, accepted) in from_control_plane {
        if holds_key(&accepted.model) {
            tracing::debug!(resource = %name, "holds a private key, so the configuration snapshot is without it");
        } else {
            resources.push((name.to_string(), accepted.bytes.bytes()));
        }
    }
    Resources {
        type_url: type_url.to_owned(),
        version: store.version.clone(),
        resources,
    }
}

#[cfg(test)]
mod tests;
