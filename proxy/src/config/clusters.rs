//! Clusters and their endpoints: what was accepted, what waits for endpoints or secrets, what is in use.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrigger_model::bootstrap::ConfigSource;
use outrigger_model::cluster::{Cluster as ClusterConfig, Discovery, UpstreamTransport};
use outrigger_model::decode;
use outrigger_model::endpoint::LoadAssignment;
use outrigger_model::tls::UpstreamTls;

use super::build::{self, Shared};
use super::secrets::{self, Secrets, Wanted};
use super::store::{Offered, Store};
use super::wishes::ByServer;
use crate::time::Instant;
use crate::upstream::cluster::Cluster;
use crate::upstream::pool;
use crate::worker::WorkerHandle;

/// All clusters.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    /// CDS and the bootstrap's.
    pub(super) store: Store<ClusterConfig>,
    /// EDS.
    pub(super) endpoints: Store<LoadAssignment>,
    /// Accepted, not in use yet: name and when waiting began.
    pub(super) warming: BTreeMap<String, Instant>,
}

impl Clusters {
    /// A cluster of a CDS response.
    ///
    /// # Errors
    /// Why it is rejected.
    pub(super) fn offer(&mut self, name: &str, version: &str, bytes: Bytes) -> Result<(), String> {
        if self.store.accepted.get(name).is_some_and(|known| known.is_static) {
            let reason =
                format!("cluster {name:?} is one of the bootstrap; dynamic clusters need other names");
            self.store.refuse(name, version, bytes, &reason);
            return Err(reason);
        }
        if let Offered::Changed(pending) = self.store.offer(name, version, bytes, decode::cluster)? {
            self.store.accept(name, pending);
            self.warming.insert(name.to_owned(), Instant::now());
        }
        Ok(())
    }

    /// A cluster of the bootstrap.
    pub(super) fn add_static(&mut self, config: ClusterConfig, bytes: Bytes) {
        let name = config.name.clone();
        self.store.accept_static(&name, bytes, Arc::new(config));
        self.warming.insert(name, Instant::now());
    }

    /// A cluster that the control plane took back.
    pub(super) fn remove(&mut self, name: &str, shared: &Shared, workers: &[WorkerHandle]) {
        self.warming.remove(name);
        if self.store.remove(name)
            && let Some(old) = shared.clusters.remove(name)
        {
            retire(&old, workers);
            if !self
                .store
                .accepted
                .values()
                .any(|other| other.model.stat_name == *old.stat_name)
            {
                shared
                    .registry
                    .remove_prefix(&format!("cluster.{}.", old.stat_name));
            }
        }
    }

    /// Endpoints of an EDS response.
    ///
    /// # Errors
    /// Why they are rejected.
    pub(super) fn offer_endpoints(
        &mut self,
        name: &str,
        version: &str,
        bytes: Bytes,
        shared: &Shared,
        workers: &[WorkerHandle],
    ) -> Result<(), String> {
        let Offered::Changed(pending) =
            self.endpoints
                .offer(name, version, bytes, decode::load_assignment)?
        else {
            return Ok(());
        };
        self.endpoints.accept(name, pending);
        let Some(assignment) = self.endpoints.get(name) else {
            return Ok(());
        };
        for cluster in shared.clusters.all() {
            if service_name(&cluster.config) == Some(name) {
                cluster.stats.update_success.inc();
                if assignment
                    .localities
                    .iter()
                    .all(|group| group.endpoints.is_empty())
                {
                    cluster.stats.update_empty.inc();
                }
                cluster.set_endpoints(assignment, None);
                drop_gone_hosts(&cluster, workers);
            }
        }
        Ok(())
    }

    /// The service names to subscribe, by server. Assignments that nobody wants any more are forgotten.
    pub(super) fn wanted_endpoints(&mut self) -> ByServer {
        let mut wanted = ByServer::new();
        let mut names = BTreeSet::new();
        for cluster in self.store.accepted.values() {
            if let Discovery::Eds { service_name, source } = &cluster.model.discovery {
                let of_server = wanted.entry(source.server.clone()).or_default();
                of_server.insert(service_name.clone());
                names.insert(service_name);
            }
        }
        self.endpoints.accepted.retain(|name, _| names.contains(name));
        self.endpoints.refused.retain(|name, _| names.contains(name));
        wanted
    }

    /// The secrets of all clusters, by server.
    pub(super) fn want_secrets(&self, wanted: &mut Wanted) {
        for tls in self
            .store
            .accepted
            .values()
            .flat_map(|cluster| tls_of(&cluster.model))
        {
            secrets::want(&tls.common, wanted);
        }
    }

    /// Puts in use whatever has everything it waits for, or has waited long enough. Returns how many went in use.
    pub(super) fn publish_warm(
        &mut self,
        secrets: &mut Secrets,
        shared: &Shared,
        workers: &[WorkerHandle],
    ) -> usize {
        let ready: Vec<String> = self
            .warming
            .iter()
            .filter(|(name, since)| {
                self.store
                    .get(name)
                    .is_none_or(|config| self.is_warm(config, **since, secrets))
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in &ready {
            self.warming.remove(name);
            self.publish(name, secrets, shared, workers);
        }
        ready.len()
    }

    fn publish(&self, name: &str, secrets: &mut Secrets, shared: &Shared, workers: &[WorkerHandle]) {
        let Some(config) = self.store.get(name) else {
            return;
        };
        let previous = shared.clusters.cell(name).load();
        let cluster = build::cluster(shared, secrets, config, previous.as_deref());
        if let Some(assignment) = service_name(config).and_then(|service| self.endpoints.get(service)) {
            cluster.set_endpoints(assignment, previous.as_ref().map(|old| old.hosts()).as_deref());
        }
        tracing::debug!(cluster = name, "in use");
        if let Some(old) = shared.clusters.set(Arc::new(cluster)) {
            retire(&old, workers);
        }
    }

    fn is_warm(&self, config: &ClusterConfig, since: Instant, secrets: &Secrets) -> bool {
        let endpoints = match &config.discovery {
            Discovery::Eds { service_name, source } => {
                self.endpoints.get(service_name).is_some() || waited(source, since)
            }
            _ => true,
        };
        endpoints && tls_of(config).all(|tls| secrets.is_warm(&tls.common, since))
    }
}

/// The `initial_fetch_timeout` of `source` is over; never when it is 0.
pub(super) fn waited(source: &ConfigSource, since: Instant) -> bool {
    source
        .initial_fetch_timeout
        .is_some_and(|limit: Duration| since.elapsed() >= limit)
}

/// The EDS name of a cluster.
fn service_name(config: &ClusterConfig) -> Option<&str> {
    match &config.discovery {
        Discovery::Eds { service_name, .. } => Some(service_name),
        _ => None,
    }
}

fn tls_of(config: &ClusterConfig) -> impl Iterator<Item = &UpstreamTls> {
    config
        .transport_socket_matches
        .iter()
        .map(|choice| &choice.transport)
        .chain([&config.transport_socket])
        .filter_map(|transport| match transport {
            UpstreamTransport::Tls(tls) => Some(tls.as_ref()),
            UpstreamTransport::RawBuffer => None,
        })
}

/// The cluster object is replaced or gone: its idle connections close on every worker.
fn retire(cluster: &Arc<Cluster>, workers: &[WorkerHandle]) {
    cluster.retire();
    for worker in workers {
        let id = cluster.id;
        worker.run(move || pool::retain(id, |_| false));
    }
}

/// Connections to hosts that are gone close when they are idle.
fn drop_gone_hosts(cluster: &Arc<Cluster>, workers: &[WorkerHandle]) {
    for worker in workers {
        let cluster = cluster.clone();
        worker.run(move || {
            let hosts = cluster.hosts();
            pool::retain(cluster.id, |address| hosts.find(address).is_some());
        });
    }
}
