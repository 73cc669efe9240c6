//! The control thread's state: every resource and what hangs on it. Read [`Control::apply`].
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use outrigger_model::bootstrap::{Bootstrap, ConfigServer};
use outrigger_model::decode::{
    CLUSTER_TYPE, EXTENSION_TYPE, LISTENER_TYPE, LOAD_ASSIGNMENT_TYPE, NAME_TABLE_TYPE, PROXY_CONFIG_TYPE,
    ROUTE_TABLE_TYPE, SCOPE_TYPE, SECRET_TYPE, VIRTUAL_HOST_TYPE,
};
use outrigger_model::nds::NameTable;
use outrigger_model::secret::Secret;
use tokio::sync::Notify;
use xds_client::{Rejection, Update};

use super::build::Shared;
use super::clusters::Clusters;
use super::connections::Connections;
use super::counters::{ControlStats, DiscoveryStats};
use super::first::First;
use super::history::{Difference, History, Limits, Summary, UnknownVersion};
use super::listeners::Listeners;
use super::names::{self, Names};
use super::proxy_config;
use super::restore::Restore;
use super::secret_updates::Documents;
use super::secrets::{Secrets, Wanted};
use super::store::Store;
use super::wishes::{ByServer, Wishes};
use crate::pace;
use crate::upstream::upkeep;
use crate::worker::WorkerHandle;

/// All configuration, on the control thread.
#[derive(Debug)]
pub(crate) struct Control {
    pub(super) shared: Arc<Shared>,
    workers: Vec<WorkerHandle>,
    pub(super) clusters: Clusters,
    pub(super) listeners: Listeners,
    /// A secret of one server is not that of another.
    pub(super) secret_stores: BTreeMap<ConfigServer, Store<Secret>>,
    pub(super) secrets: Secrets,
    pub(super) secret_documents: Documents,
    pub(super) names: Names,
    pub(super) proxy_config: proxy_config::Received,
    stats: ControlStats,
    connections: Connections,
    pub(super) bootstrap: Bytes,
    node: Bytes,
    pub(super) bootstrap_updated: SystemTime,
    /// The first clusters and listeners of a control plane or a file.
    first: (First, First),
    wishes: Wishes,
    /// Generations of clusters and listeners that the wishes follow from.
    wished: (Option<u64>, Option<u64>),
    history: History,
    /// Configuration on disk, if it is to be kept.
    pub(super) restore: Option<Restore>,
    initialized: bool,
    started: Instant,
}

impl Control {
    /// Takes the bootstrap into force.
    ///
    /// # Errors
    /// A static resource cannot be used: its name and why.
    pub(crate) fn new(
        bootstrap: Bootstrap,
        encoded: Bytes,
        shared: Arc<Shared>,
        workers: Vec<WorkerHandle>,
    ) -> Result<Self, String> {
        let started = Instant::now();
        let registry = &shared.registry;
        let (stats, connections) = (ControlStats::new(registry), Connections::new(registry));
        let (clusters, listeners) = (Clusters::new(registry), Listeners::new(registry));
        let mut control = Self {
            shared,
            workers,
            clusters,
            listeners,
            secret_stores: BTreeMap::new(),
            secrets: Secrets::default(),
            secret_documents: Documents::default(),
            names: Names::default(),
            proxy_config: proxy_config::Received::default(),
            stats,
            connections,
            bootstrap: encoded,
            node: bootstrap.node.encoded.clone().into(),
            bootstrap_updated: SystemTime::now(),
            first: (
                First::new(bootstrap.cds.clone()),
                First::new(bootstrap.lds.clone()),
            ),
            wishes: Wishes::of_bootstrap(bootstrap.cds.as_ref(), bootstrap.lds.as_ref()),
            wished: (None, None),
            history: History::new(Limits::default()),
            restore: None,
            initialized: false,
            started,
        };
        if bootstrap.ads.is_some() && bootstrap.node.captures_dns() {
            control.wishes.set(NAME_TABLE_TYPE, names::wanted());
        }
        if bootstrap.ads.is_some() && bootstrap.node.asks_proxy_config() {
            control.ask_proxy_config();
        }
        for secret in &bootstrap.secrets {
            control
                .secrets
                .set(None, secret)
                .map_err(|error| format!("static_resources.secrets: {error}"))?;
        }
        for cluster in bootstrap.clusters {
            control
                .clusters
                .add_static(cluster, Bytes::new(), &mut control.secrets);
        }
        for listener in bootstrap.listeners {
            let workers = control.workers.len();
            control.listeners.add_static(listener, Bytes::new(), workers)?;
        }
        control.wish();
        control.settle();
        Ok(control)
    }

    /// Applies one response of a server, resource by resource. What is wanted now is in [`Self::wishes`].
    ///
    /// # Errors
    /// The resources that were rejected; all others are in force.
    pub(crate) fn apply(&mut self, server: &ConfigServer, update: &Update) -> Result<(), Vec<Rejection>> {
        let since = Instant::now();
        let Update {
            type_url,
            version,
            added,
            removed,
            ..
        } = update;
        self.replace_restored(type_url);
        // Listeners go before others come, as in Envoy: those may want their addresses. Clusters go last.
        let is_listener = **type_url == *LISTENER_TYPE;
        if is_listener {
            removed
                .iter()
                .for_each(|name| self.remove(server, type_url, name, version));
        }
        let mut rejections = Vec::new();
        for resource in added {
            // An unchanged one costs a comparison.
            pace::step();
            if let Err(reason) = self.offer(server, type_url, &resource.name, version, &resource.any.value) {
                tracing::warn!(
                    resource = resource.name,
                    reason,
                    "configuration rejected; the last good one stays"
                );
                rejections.push(Rejection {
                    resource: resource.name.clone(),
                    reason,
                });
            }
        }
        if !is_listener {
            removed
                .iter()
                .for_each(|name| self.remove(server, type_url, name, version));
        }
        let accepted = rejections.is_empty();
        self.answered(type_url, version);
        self.listeners.parts.answered(server, type_url);
        pace::breathe();
        self.record(type_url, version);
        pace::breathe();
        self.settle();
        self.wish();
        if let Some(stats) = self.stats_of(type_url) {
            if accepted {
                stats.accepted(version, since)
            } else {
                stats.rejected()
            }
        }
        if accepted { Ok(()) } else { Err(rejections) }
    }

    /// The names that istiod would have the DNS proxy answer, once they have come.
    pub(crate) fn name_table(&self) -> Option<Arc<NameTable>> {
        self.names.table()
    }

    /// Wants something that no resource leads to.
    pub(super) fn wish_for(&mut self, type_url: &'static str, wanted: ByServer) {
        self.wishes.set(type_url, wanted);
    }

    /// What is wanted now.
    pub(crate) fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// What was accepted from now on can be looked up.
    pub(crate) fn keep_history(&mut self, limits: Limits) {
        self.history = History::new(limits);
        if self.history.is_kept() {
            self.clusters.store.keep_journal();
            self.clusters.endpoints.keep_journal();
            self.listeners.store.keep_journal();
            self.listeners.routes.keep_journal();
            self.listeners.extensions.keep_journal();
        }
    }

    /// Takes note of what a response changed.
    fn record(&mut self, type_url: &str, version: &str) {
        macro_rules! record {
            ($type:expr, $store:expr) => {{
                let changes = $store.take_journal();
                let store = &$store;
                self.history
                    .record($type, version, changes, |name| store.get(name).is_some());
            }};
        }
        match type_url {
            CLUSTER_TYPE => record!(CLUSTER_TYPE, self.clusters.store),
            LOAD_ASSIGNMENT_TYPE => record!(LOAD_ASSIGNMENT_TYPE, self.clusters.endpoints),
            LISTENER_TYPE => record!(LISTENER_TYPE, self.listeners.store),
            ROUTE_TABLE_TYPE => record!(ROUTE_TABLE_TYPE, self.listeners.routes),
            EXTENSION_TYPE => {
                let changes = self.listeners.extensions.take_journal();
                let filters = &self.listeners.extensions;
                self.history.record(EXTENSION_TYPE, version, changes, |name| {
                    filters.bytes(name).is_some()
                });
            }
            // Nobody keeps what secrets were.
            _ => {}
        }
    }

    /// The versions that are kept, newest first.
    pub(crate) fn history(&self) -> Vec<Summary> {
        self.history.summaries()
    }

    /// What differs between two versions.
    ///
    /// # Errors
    /// One of them is not known, or not any more.
    pub(crate) fn differences(&self, from: u64, to: u64) -> Result<Vec<Difference>, UnknownVersion> {
        self.history
            .differences(from, to, |type_url, name| match type_url {
                CLUSTER_TYPE => self.clusters.store.bytes(name),
                LOAD_ASSIGNMENT_TYPE => self.clusters.endpoints.bytes(name),
                LISTENER_TYPE => self.listeners.store.bytes(name),
                EXTENSION_TYPE => self.listeners.extensions.bytes(name),
                _ => self.listeners.routes.bytes(name),
            })
    }

    /// Finds out what is wanted after clusters, listeners or parts of routes were accepted, put in use or removed.
    fn wish(&mut self) {
        let generations = (
            Some(self.clusters.generation()),
            Some(self.listeners.generation()),
        );
        let before = std::mem::replace(&mut self.wished, generations);
        if before == generations {
            return;
        }
        if before.0 != generations.0 {
            let wanted = self.clusters.wanted_endpoints();
            self.wishes.set(LOAD_ASSIGNMENT_TYPE, wanted);
        }
        if before.1 != generations.1 {
            // Scopes lead to tables, and tables to virtual hosts.
            self.wishes.set(SCOPE_TYPE, self.listeners.wanted_scopes());
            let wanted = self.listeners.wanted_routes();
            self.wishes.set(ROUTE_TABLE_TYPE, wanted);
            self.wishes
                .set(VIRTUAL_HOST_TYPE, self.listeners.parts.wanted_hosts());
            let wanted = self.listeners.wanted_filters();
            self.wishes.set(EXTENSION_TYPE, wanted);
        }
        let wanted = self.wanted_secrets();
        self.want_secret_files(&wanted);
        self.wishes.set(SECRET_TYPE, wanted);
    }

    fn offer(
        &mut self,
        server: &ConfigServer,
        type_url: &str,
        name: &str,
        version: &str,
        bytes: &[u8],
    ) -> Result<(), String> {
        match type_url {
            CLUSTER_TYPE => self.clusters.offer(name, version, bytes, &mut self.secrets),
            LOAD_ASSIGNMENT_TYPE => {
                self.clusters
                    .offer_endpoints(name, version, bytes, &self.shared, &self.workers)
            }
            LISTENER_TYPE => self.listeners.offer(name, version, bytes, self.workers.len()),
            ROUTE_TABLE_TYPE => self
                .listeners
                .offer_routes(server, name, version, bytes, &self.shared),
            SECRET_TYPE => self.offer_secret(server, name, version, bytes),
            SCOPE_TYPE => self.listeners.parts.offer_scope(server, name, version, bytes),
            VIRTUAL_HOST_TYPE => self.listeners.parts.offer_host(server, name, version, bytes),
            EXTENSION_TYPE => self.listeners.extensions.offer(server, name, version, bytes),
            NAME_TABLE_TYPE => self.names.offer(version, bytes),
            PROXY_CONFIG_TYPE => self.offer_proxy_config(version, bytes),
            // Nobody asked for it: ignored, as xds-client does with whole responses.
            _ => Ok(()),
        }
    }

    fn remove(&mut self, server: &ConfigServer, type_url: &str, name: &str, version: &str) {
        match type_url {
            CLUSTER_TYPE => self.clusters.remove(name, &self.shared, &self.workers),
            LISTENER_TYPE => self.listeners.remove(name),
            SCOPE_TYPE => self.listeners.parts.remove_scope(server, name),
            VIRTUAL_HOST_TYPE => self.listeners.parts.remove_host(server, name),
            EXTENSION_TYPE => self.listeners.extensions.remove(server, name, version),
            // Endpoints and routes live as long as what refers to them (Envoy: removal of EDS and RDS resources changes nothing).
            _ => {}
        }
    }

    fn answered(&mut self, type_url: &str, version: &str) {
        match type_url {
            CLUSTER_TYPE => {
                self.first.0.come();
                version.clone_into(&mut self.clusters.store.version);
            }
            LISTENER_TYPE => {
                self.first.1.come();
                version.clone_into(&mut self.listeners.store.version);
            }
            _ => {}
        }
    }

    /// A resource of a snapshot.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn offer_restored(
        &mut self,
        type_url: &str,
        name: &str,
        version: &str,
        bytes: &[u8],
    ) -> Result<(), String> {
        if type_url == EXTENSION_TYPE {
            let Some((server, name)) = self.listeners.extensions.wanted_as(name) else {
                return Ok(());
            };
            let filters = &mut self.listeners.extensions;
            return filters.take(&server, &name, version, bytes).map(drop);
        }
        self.offer(&ConfigServer::Ads, type_url, name, version, bytes)
    }

    /// All resources of a type of a snapshot are in force.
    pub(super) fn restored(&mut self, type_url: &str, version: &str) {
        self.answered(type_url, version);
        self.record(type_url, version);
        self.settle();
        self.wish();
    }

    /// A control plane or a file has given the first clusters or listeners.
    pub(super) fn has_answered(&self) -> bool {
        self.first.0.has_come() || self.first.1.has_come()
    }

    fn stats_of(&self, type_url: &str) -> Option<&DiscoveryStats> {
        match type_url {
            CLUSTER_TYPE => Some(&self.stats.cds),
            LISTENER_TYPE => Some(&self.stats.lds),
            _ => None,
        }
    }

    /// A server's stream ended, or could not be opened; or a poll failed, or a file cannot be read.
    pub(crate) fn unreachable(&mut self, server: &ConfigServer) {
        self.first.0.unreachable(server);
        self.first.1.unreachable(server);
        for (_, type_url, _) in self.wishes.iter().filter(|(from, _, _)| *from == server) {
            if let Some(stats) = self.stats_of(type_url) {
                stats.unreachable();
            }
        }
        self.listeners.extensions.unreachable(server);
    }

    /// Puts in use what is ready. Called after every change and once a second (time limits). Listeners go in use only after the first
    /// clusters have, static ones too, so that no connection finds its cluster missing while the process starts (as Envoy's init manager).
    pub(crate) fn settle(&mut self) {
        self.clusters
            .publish_warm(&self.secrets, &self.shared, &self.workers);
        self.listeners.publish_routes(&self.shared);
        self.listeners.extensions.publish(&self.shared);
        self.first.0.begin();
        let clusters_ready = self.first.0.is_over() && self.clusters.warming.is_empty();
        if clusters_ready || self.initialized {
            self.listeners
                .publish_warm(&mut self.secrets, &self.shared, &self.workers);
            self.first.1.begin();
            let listeners_ready = self.first.1.is_over();
            if !self.initialized && clusters_ready && listeners_ready && self.listeners.warming.is_empty() {
                self.initialized = true;
                self.stats.initialized(self.started.elapsed());
            }
        }
        let count = |number: usize| number as u64;
        self.stats.active_clusters.set(count(self.shared.clusters.len()));
        self.stats
            .warming_clusters
            .set(count(self.clusters.warming.len()));
        self.stats
            .listeners_active
            .set(count(self.listeners.active.len()));
        self.stats
            .listeners_warming
            .set(count(self.listeners.warming.len()));
    }

    /// Told when a cluster may go in use: [`Self::resettle`] is to be called then.
    pub(crate) fn warmed(&self) -> Arc<Notify> {
        self.clusters.warmed.clone()
    }

    /// Puts in use what has become ready by itself.
    pub(crate) fn resettle(&mut self) {
        self.settle();
        self.wish();
    }

    /// Housekeeping, once a second.
    pub(crate) fn tick(&mut self) {
        self.read_secret_files();
        self.listeners.extensions.expire();
        self.clusters.drop_stale(&self.shared, &self.workers);
        self.expire_first();
        self.settle();
        self.wish();
        self.refresh_stats();
        self.write_snapshot();
        self.shared.clusters.sweep();
        for cluster in self.shared.clusters.used() {
            cluster.forget_unused_dialled_hosts();
            cluster.catch_up();
            upkeep::start(&cluster);
        }
    }

    /// What the bootstrap brought is served without what does not come.
    fn expire_first(&mut self) {
        let (clusters, listeners) = &mut self.first;
        let each = [
            (clusters, &self.stats.cds, "clusters"),
            (listeners, &self.stats.lds, "listeners"),
        ];
        for (first, stats, kind) in each {
            if first.expire() {
                stats.timed_out();
                tracing::warn!(kind, "initial_fetch_timeout is over: the start goes on without");
            }
        }
    }

    /// What this client does counts for the static cluster that it connects to.
    pub(crate) fn count_connections(&mut self, cluster: &str, client: xds_client::Handle, is_http2: bool) {
        self.connections
            .count(client, self.shared.clusters.cell(cluster), is_http2);
    }

    /// Counts what drains still, and what the connections to control planes did.
    pub(crate) fn refresh_stats(&mut self) {
        self.connections.refresh();
        self.listeners.changes.refresh();
    }

    /// How long the certificate of ours that ends first is still valid; `None`: there is none.
    pub(crate) fn first_certificate_expires_in(&self) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expiry = self.secrets.first_expiry()?;
        Some(Duration::from_secs(u64::try_from(expiry).unwrap_or(0)).saturating_sub(now))
    }

    /// Everything that was asked for at the start is in use.
    pub(crate) fn is_initialized(&self) -> bool {
        self.initialized
    }

    /// CDS has answered, is not used, or is not waited for any more.
    pub(crate) fn has_clusters(&self) -> bool {
        self.first.0.is_over()
    }

    /// The secrets wanted now, by server.
    pub(super) fn wanted_secrets(&self) -> Wanted {
        let mut wanted = Wanted::new();
        self.clusters.want_secrets(&mut wanted);
        self.listeners.want_secrets(&mut wanted);
        wanted
    }

    /// What the process shares.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Listeners with sockets, by name.
    pub(crate) fn bound_listeners(&self) -> Vec<(String, SocketAddr)> {
        let bound = |(name, active): (&String, &super::listeners::Active)| {
            active
                .bound
                .iter()
                .map(|address| (name.clone(), *address))
                .collect::<Vec<_>>()
        };
        self.listeners.active.iter().flat_map(bound).collect()
    }

    /// Tells connections to go; listeners stay.
    pub(crate) fn drain_connections(&self, inbound_only: bool) {
        self.listeners.drain_connections(inbound_only);
    }

    /// Closes listening sockets.
    pub(crate) fn close_listeners(&self, inbound_only: bool) {
        self.listeners.close(inbound_only);
    }

    /// The cluster came with the bootstrap.
    pub(crate) fn is_static_cluster(&self, name: &str) -> bool {
        self.clusters
            .store
            .accepted
            .get(name)
            .is_some_and(|cluster| cluster.is_static)
    }

    /// The encoded `core.v3.Node`.
    pub(crate) fn encoded_node(&self) -> Bytes {
        self.node.clone()
    }
}
