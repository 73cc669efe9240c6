//! What became of the configurations of filters that come by themselves, under Envoy's names.
//!
//! One set for each name: as in Envoy, filters of one name from two servers share it. Source: Envoy docs, "Extension configuration:
//! statistics"; Envoy `FilterConfigSubscription`; what counts when was read off Envoy 1.40 (tests/it/alone/extensions.rs).
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant as Arrived;

use outrigger_model::bootstrap::{ConfigServer, ConfigSource};

use crate::config::clusters::waited;
use crate::config::counters::DiscoveryStats;
use crate::stats::{Counter, Registry};
use crate::time::Instant;

/// `extension_config_discovery.http_filter.<name>.*` of every filter that is wanted.
#[derive(Debug)]
pub(super) struct FilterCounters {
    registry: Arc<Registry>,
    by_name: BTreeMap<String, OfFilter>,
}

#[derive(Debug)]
struct OfFilter {
    updates: DiscoveryStats,
    config_reload: Counter,
    config_fail: Counter,
    config_conflict: Counter,
    since: Instant,
    /// An answer has come, good or bad, or the wait for it is over.
    is_settled: bool,
}

/// What a server said of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Something new, or that it is gone.
    Changed,
    /// What is there already.
    Same,
    /// What cannot be used.
    Refused,
}

impl FilterCounters {
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        Self {
            registry: registry.clone(),
            by_name: BTreeMap::new(),
        }
    }

    /// These are wanted, each with a server that it is wanted from; those of others go.
    pub(super) fn keep<'a>(&mut self, wanted: impl Iterator<Item = (&'a str, &'a ConfigServer)>) {
        let mut before = std::mem::take(&mut self.by_name);
        for (name, server) in wanted {
            let kept = before.remove(name);
            let entry = self.by_name.entry(name.to_owned());
            entry.or_insert_with(|| kept.unwrap_or_else(|| OfFilter::new(&self.registry, name, server)));
        }
        for name in before.into_keys() {
            let prefix = prefix(&name) + ".";
            // `a.` is where the names of those of `a.b` begin too.
            let is_part = |other: &String| other.starts_with(&format!("{name}."));
            if !self.by_name.keys().any(is_part) {
                self.registry.remove_prefix(&prefix);
            }
        }
    }

    /// A server said something in a response of this version, which came at `since`.
    pub(super) fn answered(&mut self, name: &str, said: Said, version: &str, since: Arrived) {
        let Some(filter) = self.by_name.get_mut(name) else {
            return;
        };
        filter.is_settled = true;
        match said {
            Said::Refused => {
                filter.updates.rejected();
                filter.config_fail.inc();
            }
            Said::Changed | Said::Same => {
                filter.updates.accepted(version, since);
                if said == Said::Changed {
                    filter.config_reload.inc();
                }
            }
        }
    }

    /// What has come is of a type that a new place for it does not allow.
    pub(super) fn conflict(&self, name: &str) {
        if let Some(filter) = self.by_name.get(name) {
            filter.config_conflict.inc();
        }
    }

    /// The server cannot be asked. As in Envoy, a file that cannot be read counts as a configuration that failed, a stream does not.
    pub(super) fn unreachable(&self, name: &str, server: &ConfigServer) {
        if let Some(filter) = self.by_name.get(name) {
            filter.updates.unreachable();
            if matches!(server, ConfigServer::Path(_)) {
                filter.config_fail.inc();
            }
        }
    }

    /// Counts, once, that the wait for a first answer is over.
    pub(super) fn expire<'a>(&mut self, wanted: impl Iterator<Item = (&'a str, &'a ConfigSource)>) {
        for (name, source) in wanted {
            let Some(filter) = self.by_name.get_mut(name) else {
                continue;
            };
            // Envoy has no such wait for a file.
            let is_file = matches!(source.server, ConfigServer::Path(_));
            if !filter.is_settled && !is_file && waited(source, filter.since) {
                filter.is_settled = true;
                filter.config_fail.inc();
                filter.updates.timed_out();
            }
        }
    }
}

impl OfFilter {
    fn new(registry: &Arc<Registry>, name: &str, server: &ConfigServer) -> Self {
        let prefix = prefix(name);
        let counter = |name: &str| registry.counter(format!("{prefix}.{name}"));
        let updates = DiscoveryStats::new(registry, prefix.clone());
        // Of files and polls each reading is an attempt; of streams the subscription is one.
        if matches!(
            server,
            ConfigServer::Ads | ConfigServer::Grpc(_) | ConfigServer::DeltaGrpc(_)
        ) {
            updates.attempted();
        }
        Self {
            updates,
            config_reload: counter("config_reload"),
            config_fail: counter("config_fail"),
            config_conflict: counter("config_conflict"),
            since: Instant::now(),
            is_settled: false,
        }
    }
}

fn prefix(name: &str) -> String {
    format!("extension_config_discovery.http_filter.{name}")
}
