//! Secrets as they come in: from streams, from files of secrets, and from files that secrets name.
//!
//! A file of secrets is a server like any other ([`ConfigServer::Path`]): what it holds is offered as a response would be. It is looked at
//! once a second, see [`super::secrets`].
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use outrigger_model::bootstrap::ConfigServer;
use outrigger_model::decode;
use outrigger_model::document::{DocumentError, FileSecret, read_secrets};

use super::control::Control;
use super::secrets::{Reloaded, SecretKey, Wanted, Watch};
use super::store::Offered;

/// The files of secrets, and what is wanted from each.
#[derive(Debug, Default)]
pub(super) struct Documents {
    by_path: BTreeMap<PathBuf, Document>,
}

#[derive(Debug)]
struct Document {
    names: BTreeSet<String>,
    watch: Watch,
}

impl Documents {
    /// Replaces what is wanted. A file from which something else is wanted counts as never read.
    fn want(&mut self, wanted: &Wanted) {
        let mut before = std::mem::take(&mut self.by_path);
        for (server, names) in wanted {
            let ConfigServer::Path(path) = server else {
                continue;
            };
            let known = before.remove(path).filter(|document| document.names == *names);
            let document = known.unwrap_or_else(|| Document {
                names: names.clone(),
                watch: Watch::new([path.clone()]),
            });
            self.by_path.insert(path.clone(), document);
        }
    }

    /// Begins to read what changed.
    fn due(&mut self) -> Vec<(PathBuf, BTreeSet<String>)> {
        let due = self
            .by_path
            .iter_mut()
            .filter(|(_, document)| document.watch.is_due());
        due.map(|(path, document)| {
            document.watch.begin();
            (path.clone(), document.names.clone())
        })
        .collect()
    }
}

/// Why a file of secrets is of no use as it is.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("{file}: {faults}")]
    Secrets { file: String, faults: String },
}

impl Control {
    /// A secret of a stream.
    ///
    /// # Errors
    /// Why it is rejected; what was in force stays.
    pub(crate) fn offer_secret(
        &mut self,
        server: &ConfigServer,
        name: &str,
        version: &str,
        bytes: &[u8],
    ) -> Result<(), String> {
        let taken = self.take_secret(server, name, version, bytes);
        self.count_secret(
            name,
            if taken.is_ok() {
                "update_success"
            } else {
                "update_rejected"
            },
        );
        taken
    }

    /// What is wanted from files has changed, or may have. Files that are new are read at once, so that nothing waits that need not.
    pub(super) fn want_secret_files(&mut self, wanted: &Wanted) {
        self.secret_documents.want(wanted);
        // Streams keep theirs: their server does not repeat what it thinks is known.
        let is_wanted = |server: &ConfigServer, name: &str| {
            !matches!(server, ConfigServer::Path(_))
                || wanted.get(server).is_some_and(|names| names.contains(name))
        };
        self.secrets.retain(is_wanted);
        for (server, store) in &mut self.secret_stores {
            store.accepted.retain(|name, _| is_wanted(server, name));
            store.refused.retain(|name, _| is_wanted(server, name));
        }
        self.read_documents();
    }

    /// Reads files that changed or could not be used so far. Blocks on files, as everything does that reads them.
    pub(super) fn read_secret_files(&mut self) {
        self.read_documents();
        for Reloaded { key, outcome } in self.secrets.reload() {
            let name = key.as_ref().map_or("tls_context", |key| key.name.as_str());
            match outcome {
                Ok(serial) => {
                    tracing::info!(secret = name, serial, "files changed; their content is in force");
                    if let Some(key) = key {
                        self.accept_again(&key);
                    }
                }
                Err(error) => {
                    tracing::warn!(secret = name, %error, "files of a secret cannot be used; the last good content stays");
                    if let Some(key) = key {
                        let counter = format!("sds.{}.key_rotation_failed", key.name);
                        self.shared.registry.counter(counter).inc();
                    }
                }
            }
        }
    }

    fn read_documents(&mut self) {
        for (path, names) in self.secret_documents.due() {
            let read = self.read_document(&path, &names);
            let complaint = read.as_ref().err().map(ToString::to_string);
            let document = self.secret_documents.by_path.get_mut(&path);
            let is_new = document.is_some_and(|document| document.watch.end(complaint.as_deref()));
            if let Some(reason) = complaint.filter(|_| is_new) {
                tracing::warn!(
                    reason,
                    "secrets of a file cannot be used; the last good ones stay, and what needs others waits"
                );
            }
            let outcome = match &read {
                Ok(()) => "update_success",
                Err(Unusable::Document(_)) => "update_failure",
                Err(Unusable::Secrets { .. }) => "update_rejected",
            };
            if read.is_ok() {
                tracing::info!(file = %path.display(), "secrets of a file are in force");
            }
            if read.is_ok() || is_new {
                names.iter().for_each(|name| self.count_secret(name, outcome));
            }
        }
    }

    fn read_document(&mut self, path: &Path, names: &BTreeSet<String>) -> Result<(), Unusable> {
        let secrets = read_secrets(path)?;
        let server = ConfigServer::Path(path.to_owned());
        let mut faults = Vec::new();
        for name in names {
            let found = secrets.iter().find(|secret| secret.name == *name);
            let taken = match found {
                Some(secret) => self.take_secret(&server, name, &secret.version, &secret.bytes),
                None => Err(not_there(name, &secrets)),
            };
            faults.extend(taken.err());
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Unusable::Secrets {
                file: path.display().to_string(),
                faults: faults.join("; "),
            }),
        }
    }

    fn take_secret(
        &mut self,
        server: &ConfigServer,
        name: &str,
        version: &str,
        bytes: &[u8],
    ) -> Result<(), String> {
        let store = self.secret_stores.entry(server.clone()).or_default();
        let was_refused = store.refused.contains_key(name);
        let pending = match store.offer(name, version, bytes, |bytes| decode::secret(bytes))? {
            Offered::Changed(pending) => pending,
            Offered::Unchanged => {
                // What was refused may have left its files to be watched.
                return match store.get(name).filter(|_| was_refused) {
                    Some(known) => self
                        .secrets
                        .set(Some(server), known)
                        .map_err(|error| error.to_string()),
                    None => Ok(()),
                };
            }
        };
        if let Err(error) = self.secrets.set(Some(server), &pending.model) {
            let reason = error.to_string();
            store.refuse(name, version, bytes, &reason);
            return Err(reason);
        }
        store.accept(name, pending);
        self.settle();
        Ok(())
    }

    /// A secret that was refused because of its files is in force now.
    fn accept_again(&mut self, key: &SecretKey) {
        let Some(server) = &key.server else { return };
        let refused = self.secret_stores.get(server);
        if let Some(refused) = refused.and_then(|store| store.refused.get(key.name.as_str())) {
            let (version, bytes) = (refused.version.clone(), refused.bytes.clone());
            // Good a moment ago; if it no longer is, the next look says so.
            let _ = self.take_secret(server, &key.name, &version, &bytes);
        }
    }

    /// Source: Envoy docs, SDS statistics; the names of `sds.<secret>.` do not have the server either.
    fn count_secret(&self, name: &str, outcome: &str) {
        let counter = |what: &str| self.shared.registry.counter(format!("sds.{name}.{what}"));
        counter("update_attempt").inc();
        for possible in ["update_success", "update_rejected", "update_failure"] {
            let counter = counter(possible);
            if possible == outcome {
                counter.inc();
            }
        }
    }
}

fn not_there(name: &str, secrets: &[FileSecret]) -> String {
    let names: Vec<_> = secrets.iter().map(|secret| secret.name.as_str()).collect();
    format!(
        "has no secret `{name}`, but {}",
        if names.is_empty() {
            "none".to_owned()
        } else {
            format!("`{}`", names.join("`, `"))
        }
    )
}

#[cfg(test)]
mod tests;
