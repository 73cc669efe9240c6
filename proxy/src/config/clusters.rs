//! Clusters and their endpoints: what was accepted, what waits for endpoints or secrets, what is in use.
mod replaced;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrigger_model::bootstrap::ConfigSource;
use outrigger_model::cluster::{Cluster as ClusterConfig, Discovery};
use outrigger_model::decode;
use outrigger_model::endpoint::Remembered;
use outrigger_model::tls::UpstreamTls;
use tokio::sync::Notify;

use self::replaced::Replaced;
use super::build::{self, Shared};
use super::owners::Owners;
use super::recipe::Encoded;
use super::secrets::{self, ClientNeeds, Secrets, Wanted};
use super::store::{Changes, Offered, Store};
use super::wishes::ByServer;
use crate::pace::{self, breathe, paced};
use crate::stats::Registry;
use crate::time::Instant;
use crate::tls::ClientTls;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Census;
use crate::upstream::pool;
use crate::upstream::slot::{self, Slot};
use crate::upstream::upkeep;
use crate::worker::WorkerHandle;

/// A cluster with more hosts is made when they come, not at its first use: nobody should wait for so many.
const MANY_HOSTS: u64 = 500;

/// What is kept of an accepted cluster beside its bytes.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) stat_name: Arc<str>,
    /// Where its endpoints come from; `None`: it has them, or needs none.
    endpoints: Option<Endpoints>,
    /// Of its TLS transports, in the order of `Cluster::transports`.
    pub(super) tls: Box<[ClientNeeds]>,
    /// A private key is written in it.
    pub(super) holds_key: bool,
    /// Its hosts are checked, so it is made before somebody uses it: hosts begin as unhealthy.
    is_checked: bool,
    /// The whole, for a cluster that is made at once.
    eager: Option<Arc<ClusterConfig>>,
}

#[derive(Debug)]
struct Endpoints {
    service: Box<str>,
    source: ConfigSource,
}

/// What is kept of endpoints beside their bytes.
#[derive(Debug)]
pub(super) struct KeptEndpoints {
    pub(super) members: Census,
    /// They are of no use after this time.
    stale_after: Option<Duration>,
    /// Of many endpoints, so that the next assignment costs what has changed.
    remembered: Option<Box<Remembered>>,
}

/// Assignments from this size on are remembered: about a hundred endpoints.
const REMEMBERED_BYTES: usize = 8 << 10;

/// All clusters.
#[derive(Debug)]
pub(super) struct Clusters {
    /// CDS and the bootstrap's.
    pub(super) store: Store<Kept>,
    /// EDS.
    pub(super) endpoints: Store<KeptEndpoints>,
    /// Who has them.
    pub(super) owners: Owners,
    /// Accepted, not in use yet: name and when waiting began.
    pub(super) warming: BTreeMap<String, Instant>,
    /// In use while another of their name waits.
    replaced: Replaced,
    /// Made, and waiting for the addresses of their names.
    prepared: BTreeMap<String, Arc<Cluster>>,
    /// Told when one of them has what it waits for.
    pub(super) warmed: Arc<Notify>,
    /// Services whose endpoints are of no use after this.
    stale_at: BTreeMap<String, Instant>,
    /// Clusters whose service has another name, by that.
    aliases: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
}

impl Clusters {
    /// None yet.
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            replaced: Replaced::default(),
            prepared: BTreeMap::new(),
            warmed: Arc::default(),
            stale_at: BTreeMap::new(),
            store: Store::new(Changes::new(registry, "cluster_manager.cluster")).packing(),
            endpoints: Store::default().packing(),
            owners: Owners::default(),
            warming: BTreeMap::new(),
            aliases: BTreeMap::new(),
        }
    }

    /// A cluster of a CDS response.
    ///
    /// # Errors
    /// Why it is rejected.
    pub(super) fn offer(
        &mut self,
        name: &str,
        version: &str,
        bytes: &[u8],
        secrets: &mut Secrets,
    ) -> Result<(), String> {
        if self.store.is_static(name) {
            self.store.pass_over(name, version, bytes);
            return Ok(());
        }
        let Offered::Changed(pending) = self
            .store
            .offer(name, version, bytes, |bytes| decode::cluster(bytes))?
        else {
            return Ok(());
        };
        if let Some(error) = tls_of(&pending.model).find_map(|tls| ClientTls::check(tls).err()) {
            let reason = format!("cluster {name:?}: transport_socket: {error}");
            self.store.refuse(name, version, bytes, &reason);
            return Err(reason);
        }
        let kept = Kept::of(&pending.model, secrets);
        self.forget_alias(name);
        self.note_alias(name, &kept);
        if let Some(in_use) = self.store.get(name).filter(|_| !self.warming.contains_key(name)) {
            self.replaced.begin(name, in_use);
        }
        self.store.accept(name, pending.keep(|config| kept.with(config)));
        self.warming.insert(name.to_owned(), Instant::now());
        Ok(())
    }

    /// A cluster of the bootstrap.
    pub(super) fn add_static(&mut self, config: ClusterConfig, bytes: Bytes, secrets: &mut Secrets) {
        let name = config.name.clone();
        let kept = Kept {
            eager: Some(Arc::new(config.clone())),
            ..Kept::of(&config, secrets)
        };
        self.note_alias(&name, &kept);
        self.store.accept_static(&name, bytes, Arc::new(kept));
        self.warming.insert(name, Instant::now());
    }

    /// A cluster that the control plane took back.
    pub(super) fn remove(&mut self, name: &str, shared: &Shared, workers: &[WorkerHandle]) {
        if self.store.is_static(name) {
            // Only what was passed over is gone.
            self.store.remove(name);
            return;
        }
        self.warming.remove(name);
        self.replaced.end(name);
        self.prepared.remove(name);
        self.forget_alias(name);
        let stat_name = self.store.get(name).map(|kept| kept.stat_name.clone());
        if !self.store.remove(name) {
            return;
        }
        if let Some(old) = shared.clusters.remove(name) {
            retire(&old, workers);
        }
        let Some(stat_name) = stat_name else { return };
        let mut others = self.store.accepted.values();
        if !others.any(|other| other.model.stat_name == stat_name) {
            shared.registry.remove_prefix(&format!("cluster.{stat_name}."));
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
        bytes: &[u8],
        shared: &Shared,
        workers: &[WorkerHandle],
    ) -> Result<(), String> {
        let is_large = bytes.len() >= REMEMBERED_BYTES;
        let before = self.endpoints.get(name).filter(|_| is_large).cloned();
        let mut layout = None;
        let decode = |bytes: &Bytes| {
            if !is_large {
                return decode::load_assignment(bytes);
            }
            let nothing = Remembered::default();
            let before = before.as_ref().and_then(|before| before.remembered.as_deref());
            let (converted, now) = before.unwrap_or(&nothing).load_assignment(bytes, &pace::step)?;
            layout = Some(now);
            Ok(converted)
        };
        let Offered::Changed(pending) = self.endpoints.offer(name, version, bytes, decode)? else {
            self.note_freshness(name);
            return Ok(());
        };
        let stale_after = pending.model.stale_after;
        let members = slot::members_of(&pending.model);
        for cluster in self.of_service(name) {
            let Some(slot) = shared.clusters.cell(cluster).slot() else {
                continue;
            };
            let mut used = slot.set_endpoints(pending.bytes(), &pending.model, members);
            if members.total > MANY_HOSTS && used.is_none() {
                used = slot.get();
            }
            if let Some(cluster) = used {
                drop_gone_hosts(&cluster, workers);
            }
        }
        let kept = |assignment| KeptEndpoints {
            members,
            stale_after,
            remembered: layout.map(|layout| Box::new(layout.remember(assignment))),
        };
        self.endpoints.accept(name, pending.keep(kept));
        self.note_freshness(name);
        let forgotten = before.and_then(Arc::into_inner);
        if let Some(remembered) = forgotten.and_then(|before| before.remembered) {
            remembered.forget(&pace::step);
        }
        Ok(())
    }

    /// Endpoints have come, whether they are new or not.
    fn note_freshness(&mut self, service: &str) {
        let stale_after = self.endpoints.get(service).and_then(|kept| kept.stale_after);
        match stale_after {
            Some(time) => drop(self.stale_at.insert(service.to_owned(), Instant::now() + time)),
            None => drop(self.stale_at.remove(service)),
        }
    }

    /// Clusters lose endpoints that nobody has confirmed for too long. Source: Envoy `EdsClusterImpl::onAssignmentTimeout`.
    pub(super) fn drop_stale(&mut self, shared: &Shared, workers: &[WorkerHandle]) {
        let now = Instant::now();
        let stale = self.stale_at.extract_if(.., |_, at| *at <= now);
        let stale: Vec<String> = stale.map(|(service, _)| service).collect();
        for service in stale {
            // Nobody may want them any more.
            if self.endpoints.get(&service).is_none() {
                continue;
            }
            tracing::info!(service, "endpoints are stale");
            for cluster in self.of_service(&service) {
                let slot = shared.clusters.cell(cluster).slot();
                if let Some(cluster) = slot.and_then(|slot| slot.clear_endpoints()) {
                    drop_gone_hosts(&cluster, workers);
                }
            }
            self.endpoints.remove(&service);
        }
    }

    /// The clusters in use with endpoints of this service.
    fn of_service<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a str> {
        let is_own = self
            .store
            .get(service)
            .is_some_and(|kept| kept.service() == Some(service));
        let others = self.aliases.get(service).into_iter().flatten();
        let accepted = is_own
            .then_some(service)
            .into_iter()
            .chain(others.map(|name| &**name));
        accepted
            .filter(|name| !self.replaced.contains(name))
            .filter(|name| self.store.get(name).is_some_and(|kept| self.has_source(kept)))
            .chain(self.replaced.of_service(service, |kept| self.has_source(kept)))
    }

    /// Its own server is the one that is asked for its endpoints, if it has any of a server.
    fn has_source(&self, kept: &Kept) -> bool {
        let source = kept.endpoints.as_ref();
        source.is_none_or(|Endpoints { service, source }| self.owners.is_of(service, &source.server))
    }

    /// Differs from an earlier one if anything that is accepted or in use does.
    pub(super) fn generation(&self) -> u64 {
        self.store.generation() + self.replaced.generation()
    }

    fn note_alias(&mut self, name: &str, kept: &Kept) {
        if let Some(service) = kept.service().filter(|service| *service != name) {
            self.aliases
                .entry(service.into())
                .or_default()
                .insert(name.into());
        }
    }

    fn forget_alias(&mut self, name: &str) {
        let Some(service) = self.store.get(name).and_then(|kept| kept.service()) else {
            return;
        };
        if let Some(names) = self.aliases.get_mut(service) {
            names.remove(name);
            if names.is_empty() {
                self.aliases.remove(service);
            }
        }
    }

    /// The service names to subscribe, by server. Assignments that nobody wants any more are forgotten.
    pub(super) fn wanted_endpoints(&mut self) -> ByServer {
        let mut names: HashSet<&str> = HashSet::new();
        let accepted = self.store.accepted.values().map(|cluster| cluster.model.as_ref());
        let accepted = services(accepted, &mut names);
        let in_use = services(self.replaced.all(), &mut names);
        self.endpoints.retain(|name| names.contains(name));
        self.stale_at.retain(|name, _| names.contains(name.as_str()));
        let asked = self.owners.settle(accepted, in_use);
        for name in asked.moved {
            self.endpoints.remove(&name);
        }
        asked.wanted
    }

    /// The secrets of all clusters, by server.
    pub(super) fn want_secrets(&self, wanted: &mut Wanted) {
        let mut seen: Vec<*const _> = Vec::new();
        let accepted = self.store.accepted.values().map(|cluster| cluster.model.as_ref());
        for needs in paced(accepted.chain(self.replaced.all())).flat_map(|kept| &kept.tls) {
            // Thousands of clusters share a few lists.
            let list = Arc::as_ptr(&needs.names);
            if !seen.contains(&list) {
                seen.push(list);
                secrets::want_each(needs.names.iter(), wanted);
            }
        }
    }

    /// Puts in use whatever has everything it waits for, or has waited long enough. Returns how many went in use.
    pub(super) fn publish_warm(
        &mut self,
        secrets: &Secrets,
        shared: &Arc<Shared>,
        workers: &[WorkerHandle],
    ) -> usize {
        if shared.resolves_names {
            self.prepare(shared);
        }
        let is_ready = |name: &str, since: Instant| {
            let kept = self.store.get(name);
            // A control plane is reached over a static cluster, so those do not wait for the names of their hosts.
            let is_static = self.store.accepted.get(name).is_some_and(|known| known.is_static);
            let may_begin = |cluster: &Arc<Cluster>| {
                cluster.is_warm() || (is_static && cluster.config.health_checks.is_empty())
            };
            let has_addresses = self.prepared.get(name).is_none_or(may_begin);
            has_addresses && kept.is_none_or(|kept| self.is_warm(kept, since, secrets))
        };
        let waiting = paced(&self.warming);
        let ready: Vec<String> = waiting
            .filter(|(name, since)| is_ready(name, **since))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &ready {
            breathe();
            self.warming.remove(name);
            let prepared = self.prepared.remove(name);
            self.publish(name, prepared, shared, workers);
            self.replaced.end(name);
        }
        ready.len()
    }

    /// Makes the clusters that wait for addresses, so that these are asked for.
    fn prepare(&mut self, shared: &Arc<Shared>) {
        for name in self.warming.keys() {
            let Some(kept) = self.store.get(name) else {
                continue;
            };
            let Some(config) = kept.eager.as_ref().filter(|config| Cluster::warms_up(config)) else {
                continue;
            };
            let is_same = |cluster: &Arc<Cluster>| Arc::ptr_eq(&cluster.config, config);
            if self.prepared.get(name).is_some_and(is_same) {
                continue;
            }
            let previous = shared.clusters.cell(name).slot().and_then(|slot| slot.used());
            let cluster = Arc::new(build::cluster(shared, config, kept, previous.as_deref()));
            cluster.tell_when_warm(&self.warmed);
            upkeep::start(&cluster);
            self.prepared.insert(name.clone(), cluster);
        }
    }

    fn publish(
        &self,
        name: &str,
        prepared: Option<Arc<Cluster>>,
        shared: &Arc<Shared>,
        workers: &[WorkerHandle],
    ) {
        let Some(accepted) = self.store.accepted.get(name) else {
            return;
        };
        let kept = &accepted.model;
        let endpoints = kept
            .service()
            .filter(|_| self.has_source(kept))
            .and_then(|service| self.endpoints.accepted.get(service));
        let members = endpoints.map(|endpoints| endpoints.model.members);
        let encoded = endpoints.map(|endpoints| endpoints.bytes.clone());
        let previous = shared.clusters.cell(name).slot().and_then(|slot| slot.used());
        let recipe = Encoded::new(accepted.bytes.clone(), kept, shared);
        let is_used = previous.is_some()
            || kept.is_checked
            || members.is_some_and(|members| members.total > MANY_HOSTS);
        let slot = match &kept.eager {
            Some(config) => {
                let make = || Arc::new(build::cluster(shared, config, kept, previous.as_deref()));
                let slot = Slot::made(prepared.unwrap_or_else(make));
                // Of one of the bootstrap, whose endpoints came first.
                if let (Some(encoded), Some(members)) = (&encoded, members)
                    && let Ok(assignment) = decode::load_assignment(&encoded.bytes())
                {
                    slot.set_endpoints(encoded, &assignment.value, members);
                }
                slot
            }
            None if is_used => match recipe.make_after(encoded.as_ref(), previous.as_deref()) {
                Some(cluster) => Slot::made(Arc::new(cluster)),
                None => return,
            },
            None => {
                let slot = Slot::unused(kept.stat_name.clone(), Box::new(recipe));
                if let (Some(encoded), Some(members)) = (encoded, members) {
                    slot.begin_with(encoded, members);
                }
                slot
            }
        };
        tracing::debug!(cluster = name, "in use");
        if let Some(cluster) = slot.used().filter(|_| shared.resolves_names) {
            upkeep::start(&cluster);
        }
        let next = slot.used();
        if let Some(old) = shared.clusters.set(name, slot) {
            retire(&old, workers);
        }
        if let (Some(previous), Some(next)) = (previous, next) {
            self.forget_stats(name, &previous, &next, shared);
        }
    }

    /// What the last one showed of what the next one does not have is shown no more.
    fn forget_stats(&self, name: &str, previous: &Cluster, next: &Cluster, shared: &Shared) {
        let stat_name = &previous.stat_name;
        let mut others = self.store.accepted.iter();
        if others.any(|(other, kept)| **other != *name && kept.model.stat_name == *stat_name) {
            return;
        }
        previous.end_subsets(next);
        for kind in previous.stats_beyond(next) {
            shared
                .registry
                .remove_prefix(&format!("cluster.{stat_name}.{kind}"));
        }
    }

    fn is_warm(&self, kept: &Kept, since: Instant, secrets: &Secrets) -> bool {
        let endpoints = kept
            .endpoints
            .as_ref()
            .is_none_or(|Endpoints { service, source }| {
                let has_come = self.endpoints.get(service).is_some() && self.has_source(kept);
                has_come || waited(source, since)
            });
        endpoints
            && kept
                .tls
                .iter()
                .all(|needs| secrets.are_there(needs.names.iter(), since))
    }
}

impl Kept {
    fn of(config: &ClusterConfig, known: &mut Secrets) -> Self {
        let endpoints = match &config.discovery {
            Discovery::Eds { service_name, source } => Some(Endpoints {
                service: service_name.as_str().into(),
                source: source.clone(),
            }),
            _ => None,
        };
        Self {
            stat_name: config.stat_name.as_str().into(),
            endpoints,
            tls: tls_of(config)
                .map(|tls| known.client_needs(&tls.common))
                .collect(),
            is_checked: !config.health_checks.is_empty(),
            holds_key: tls_of(config).any(|tls| secrets::holds_key(&tls.common)),
            eager: None,
        }
    }

    /// With the whole configuration, if that is needed.
    fn with(self, config: ClusterConfig) -> Self {
        let is_eager = self.endpoints.is_none();
        Self {
            eager: is_eager.then(|| Arc::new(config)),
            ..self
        }
    }

    /// The EDS name.
    fn service(&self) -> Option<&str> {
        self.endpoints.as_ref().map(|endpoints| &*endpoints.service)
    }
}

/// The services of clusters, by server; notes their names.
fn services<'a>(clusters: impl Iterator<Item = &'a Kept>, names: &mut HashSet<&'a str>) -> ByServer {
    let mut wanted = ByServer::new();
    for Endpoints { service, source } in paced(clusters.filter_map(|kept| kept.endpoints.as_ref())) {
        if !wanted.contains_key(&source.server) {
            wanted.insert(source.server.clone(), BTreeSet::new());
        }
        if let Some(of_server) = wanted.get_mut(&source.server) {
            of_server.insert(service.to_string());
        }
        names.insert(service);
    }
    wanted
}

/// The `initial_fetch_timeout` of `source` is over; never when it is 0.
pub(super) fn waited(source: &ConfigSource, since: Instant) -> bool {
    source
        .initial_fetch_timeout
        .is_some_and(|limit: Duration| since.elapsed() >= limit)
}

fn tls_of(config: &ClusterConfig) -> impl Iterator<Item = &UpstreamTls> {
    config
        .transport_socket_matches
        .iter()
        .map(|choice| &choice.transport)
        .chain([&config.transport_socket])
        .filter_map(|transport| transport.tls_context.as_deref())
}

/// The cluster is replaced or gone: its idle connections close on every worker.
fn retire(slot: &Slot, workers: &[WorkerHandle]) {
    let Some(cluster) = slot.retire() else { return };
    for worker in workers {
        let id = cluster.id;
        worker.run(move || pool::close_all(id));
    }
}

/// Connections to hosts that are gone close when they are idle.
fn drop_gone_hosts(cluster: &Arc<Cluster>, workers: &[WorkerHandle]) {
    for worker in workers {
        let id = cluster.id;
        worker.run(move || pool::close_gone(id));
    }
}
