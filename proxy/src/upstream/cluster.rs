//! One cluster at run time.
mod leaving;
mod outcomes;
mod warming;

use std::any::Any;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use outrigger_model::address::Address;
use outrigger_model::cluster::{
    self as model, CircuitBreaker as CircuitBreakerLimits, Discovery, RoutingPriority, UpstreamTransport,
};
use outrigger_model::endpoint::{Endpoint, Health, LoadAssignment};
use outrigger_model::fraction::Fraction;
use outrigger_model::metadata::{Metadata, Struct};
use outrigger_model::proxy_protocol::UpstreamHeader;
use tokio::sync::{Notify, watch};

use super::circuit_breaker::{CircuitBreaker, Permit, Resource};
use super::endpoint::{HealthFlag, Healths, Host, HostCounters, HostSet, HostState, Making, Previous};
use super::health_check::HealthStats;
use super::lb::{self, First, LocalZone, Picking, Settings, SubsetStats, Wish};
use super::outlier::Detector;
use super::stats::ClusterStats;
use crate::telemetry::istio_stats::Destination;
use crate::time::Instant;
use crate::tls::ClientTls;

/// Key in endpoint metadata that chooses the transport. Source: cluster.proto `transport_socket_matches`.
const TRANSPORT_MATCH: &str = "envoy.transport_socket_match";

/// How an endpoint is reached.
#[derive(Debug)]
pub(crate) enum TransportSocket {
    /// Plaintext.
    RawBuffer,
    /// TLS.
    Tls(Arc<ClientTls>),
}

/// One transport of a cluster.
#[derive(Debug)]
pub(crate) struct TransportChoice {
    /// All must equal the endpoint's labels; `None`: the cluster's fallback.
    pub(crate) criteria: Option<Struct>,
    /// The socket.
    pub(crate) socket: TransportSocket,
    /// Goes before everything else.
    pub(crate) proxy_header: Option<UpstreamHeader>,
}

/// A cluster. Made once for each accepted configuration; its host set is a cell of its own.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Differs between two runtime objects of one name: the key of their pools.
    pub(crate) id: u64,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its name in stats and in `%UPSTREAM_CLUSTER%`.
    pub(crate) stat_name: Arc<str>,
    /// The service behind it.
    pub(crate) destination: Arc<Destination>,
    /// What it was made of.
    pub(crate) config: Arc<model::Cluster>,
    /// Counters.
    pub(crate) stats: ClusterStats,
    /// Shared with the object that this one replaces.
    pub(crate) breaker: Arc<CircuitBreaker>,
    /// The matches in order, then the fallback.
    pub(crate) transports: Vec<TransportChoice>,
    hosts: ArcSwap<HostSet>,
    dialled: ArcSwap<HashMap<SocketAddr, Arc<Host>>>,
    balancing: Settings,
    zone: Arc<LocalZone>,
    /// Health that a host of a session may have.
    session_healths: Healths,
    /// What the layer above made of `request_policies`.
    request_policies: OnceLock<Box<dyn Any + Send + Sync>>,
    outlier: Option<Detector>,
    health_stats: Option<HealthStats>,
    subset_stats: Option<SubsetStats>,
    /// Parts of a million of its requests that are refused.
    dropped: AtomicU32,
    /// Told when the hosts are others.
    new_hosts: watch::Sender<()>,
    /// How often hosts came or went, if connections are to be closed then.
    host_changes: AtomicU64,
    /// Somebody looks after it on the control thread.
    pub(super) is_kept_up: AtomicBool,
    /// Names have been answered for once.
    is_resolved: AtomicBool,
    /// All hosts have been checked once.
    is_checked: AtomicBool,
    /// Told when it may be used, if somebody waits for that.
    warmed: OnceLock<Arc<Notify>>,
    /// The last assignment, while hosts are kept that are not in it.
    awaiting_removal: Mutex<Option<LoadAssignment>>,
    /// Held while the hosts change.
    changing: Mutex<()>,
    /// Somebody could not wait for that, and the load is to be shared anew.
    is_stale: AtomicBool,
    retired: AtomicBool,
}

impl Cluster {
    /// Builds the runtime object. `client_tls` is asked for each TLS transport, in the order of `transports`.
    pub(crate) fn new(
        config: Arc<model::Cluster>,
        stats: ClusterStats,
        previous: Option<&Cluster>,
        zone: &Arc<LocalZone>,
        mut client_tls: impl FnMut(&outrigger_model::tls::UpstreamTls) -> Arc<ClientTls>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut socket = |transport: &UpstreamTransport| match &transport.tls_context {
            None => TransportSocket::RawBuffer,
            Some(tls) => TransportSocket::Tls(client_tls(tls)),
        };
        let mut transports: Vec<_> = config
            .transport_socket_matches
            .iter()
            .map(|choice| TransportChoice {
                criteria: Some(choice.criteria.clone()),
                socket: socket(&choice.transport),
                proxy_header: choice.transport.proxy_header.clone(),
            })
            .collect();
        transports.push(TransportChoice {
            criteria: None,
            socket: socket(&config.transport_socket),
            proxy_header: config.transport_socket.proxy_header.clone(),
        });
        let cluster = Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: config.name.as_str().into(),
            stat_name: config.stat_name.as_str().into(),
            destination: Arc::new(Destination::of_cluster(&config.name, &config.metadata)),
            breaker: previous.map(|old| old.breaker.clone()).unwrap_or_default(),
            transports,
            hosts: ArcSwap::from_pointee(HostSet::default()),
            dialled: ArcSwap::default(),
            balancing: Settings::of(&config).with_zones(zone, &config.name, || stats.zones()),
            zone: zone.clone(),
            session_healths: Healths::of_sessions(&config.override_host_status),
            request_policies: OnceLock::new(),
            outlier: config
                .outlier_detection
                .as_ref()
                .map(|outlier| Detector::new(outlier, stats.outlier())),
            health_stats: (!config.health_checks.is_empty()).then(|| stats.health_check()),
            subset_stats: config.subsets.as_ref().map(|_| stats.subsets()),
            dropped: AtomicU32::new(Fraction::NONE.0),
            new_hosts: watch::Sender::new(()),
            host_changes: AtomicU64::new(0),
            is_checked: AtomicBool::new(false),
            warmed: OnceLock::new(),
            is_kept_up: AtomicBool::new(false),
            is_resolved: AtomicBool::new(false),
            awaiting_removal: Mutex::default(),
            changing: Mutex::default(),
            is_stale: AtomicBool::new(false),
            stats,
            retired: AtomicBool::new(false),
            config,
        };
        match &cluster.config.discovery {
            // Addresses need no resolver; names wait for one.
            Discovery::Static(assignment)
            | Discovery::StrictDns(assignment)
            | Discovery::LogicalDns(assignment) => {
                cluster.set_endpoints(assignment, previous.map(|old| old.hosts()).as_deref());
            }
            Discovery::Eds { .. } | Discovery::OriginalDst => {}
        }
        cluster
    }

    /// The limits of a priority.
    pub(crate) fn limits(&self, priority: RoutingPriority) -> &CircuitBreakerLimits {
        match priority {
            RoutingPriority::Default => &self.config.circuit_breaker,
            RoutingPriority::High => &self.config.circuit_breaker_high,
        }
    }

    /// Takes one unit unless the limits of its priority forbid it.
    pub(crate) fn permit(&self, priority: RoutingPriority, resource: Resource) -> Option<Permit> {
        self.breaker.acquire(priority, resource, self.limits(priority))
    }

    /// The share of requests that is refused at once.
    #[inline]
    pub(crate) fn dropped(&self) -> Fraction {
        Fraction(self.dropped.load(Ordering::Relaxed))
    }

    /// The hosts now.
    pub(crate) fn hosts(&self) -> Arc<HostSet> {
        self.hosts.load_full()
    }

    /// Connections made under another number are not to be used any more.
    pub(crate) fn host_generation(&self) -> u64 {
        self.host_changes.load(Ordering::Relaxed)
    }

    /// What it says of requests in place of their routes, as `make` made it at the first call; `T` is always the same. A branch if it
    /// says nothing.
    #[inline]
    pub(crate) fn request_policies<T: Send + Sync + 'static>(
        &self,
        make: impl FnOnce(&model::RequestPolicies) -> T,
    ) -> Option<&T> {
        let config = self.config.request_policies.as_deref()?;
        let made = self.request_policies.get_or_init(|| Box::new(make(config)));
        made.downcast_ref()
    }

    /// The policy looks at the hash of a request.
    pub(crate) fn wants_hash(&self) -> bool {
        self.balancing.wants_hash()
    }

    /// Some hosts are told who the client is before anything else.
    pub(crate) fn wants_client(&self) -> bool {
        self.transports.iter().any(|choice| choice.proxy_header.is_some())
    }

    /// This host is told who the client is before anything else.
    pub(crate) fn introduces_clients_to(&self, host: &Host) -> bool {
        let choice = self.transports.get(host.transport);
        choice.is_some_and(|choice| choice.proxy_header.is_some())
    }

    /// A host for one exchange or connection; `None`: none may be used (`UH`). An ORIGINAL_DST cluster has none for a connection that
    /// was not redirected, as Envoy's.
    pub(crate) fn choose(&self, wish: &Wish<'_>, random: &mut fastrand::Rng) -> Option<Arc<Host>> {
        if self.is_original_dst() {
            let port = self.config.original_dst_port;
            return wish.dialled.map(|dialled| {
                let port = port.unwrap_or_else(|| dialled.port());
                self.dialled_host(SocketAddr::new(dialled.ip(), port))
            });
        }
        let hosts = self.hosts.load();
        if let Some(first) = wish.first
            && let Some(answer) = self.first(&hosts, first)
        {
            return answer;
        }
        let picking = Picking {
            breaker: &self.breaker,
            wish,
            random,
        };
        let picked = lb::choose(&hosts, self.subset_stats.as_ref(), picking)?;
        if picked.in_panic {
            self.stats.lb_healthy_panic.inc();
        }
        Some(picked.host.clone())
    }

    /// The host that a request names. `None`: the policy chooses; `Some(None)`: nobody is to have it.
    fn first(&self, hosts: &HostSet, first: First) -> Option<Option<Arc<Host>>> {
        let (address, is_strict) = match first {
            First::Any(address) => return hosts.find(address).cloned().map(Some),
            First::Session { address, is_strict } => (address, is_strict),
        };
        let found = address.and_then(|address| hosts.find(address));
        match found.filter(|host| self.session_healths.contains(host.health_status())) {
            Some(host) => Some(Some(host.clone())),
            None => is_strict.then_some(None),
        }
    }

    /// Replaces the hosts. `previous` gives counters when this object has had none yet.
    pub(crate) fn set_endpoints(&self, assignment: &LoadAssignment, previous: Option<&HostSet>) {
        let alone = self.change_hosts();
        self.dropped.store(assignment.dropped.0, Ordering::Relaxed);
        let current = self.hosts.load_full();
        let grown = self.with_healthy_hosts(assignment, &current);
        *self.awaiting_removal() = grown.as_ref().map(|_| assignment.clone());
        let assignment = grown.as_ref().unwrap_or(assignment);
        let previous = match previous.filter(|_| current.all.is_empty()) {
            Some(hosts) => Previous { hosts, is_own: false },
            None => Previous {
                hosts: &current,
                is_own: true,
            },
        };
        let making = Making {
            settings: &self.balancing,
            transport_of: &|metadata| self.transport_of(metadata),
            state: &|endpoint, now| self.new_state(endpoint, now),
            is_checked: self.health_stats.is_some(),
            now: Instant::now(),
        };
        let hosts = HostSet::build(assignment, making, previous);
        let has_other_members = hosts.has_other_members(&current);
        if has_other_members {
            self.stats.membership_change.inc();
        }
        self.put(hosts);
        if has_other_members && self.config.closes_on_host_change {
            self.host_changes.fetch_add(1, Ordering::Relaxed);
        }
        drop(alone);
        self.catch_up();
        self.new_hosts.send_replace(());
    }

    /// Shares the load anew: the health of hosts has changed, or their weights with time.
    pub(crate) fn rebalance(&self) {
        let _alone = self.change_hosts();
        self.rebalance_alone();
    }

    /// While nobody else changes them.
    fn rebalance_alone(&self) {
        let hosts = self.hosts.load().rebalanced(&self.balancing, Instant::now());
        self.put(hosts);
    }

    /// Does what [`Self::rebalance_soon`] left to be done. Called once a second too.
    pub(crate) fn catch_up(&self) {
        if self.is_stale.swap(false, Ordering::AcqRel) {
            self.rebalance();
        }
    }

    /// Shares the load anew, from a worker.
    fn rebalance_soon(&self) {
        match self.changing.try_lock() {
            Ok(_alone) => self.rebalance_alone(),
            // A worker does not wait for the control thread: that one sees to it when it is through.
            Err(_) => self.is_stale.store(true, Ordering::Release),
        }
    }

    /// Of a host that nothing is known of: with active checks it has to pass one first, unless it is excused from them.
    fn new_state(&self, endpoint: &Endpoint, now: Instant) -> HostState {
        let state = match self.outlier {
            Some(_) => HostState::new(now).watched(),
            None => HostState::new(now),
        };
        if self.health_stats.is_some() && !endpoint.is_excused() {
            state.set(HealthFlag::FailedActiveCheck, true);
            state.set(
                HealthFlag::PendingActiveCheck,
                self.config.new_hosts_wait_for_health,
            );
            state.set_unchecked();
        }
        state
    }

    /// Told when zones count otherwise; `None`: they do not.
    pub(super) fn zone_changes(&self) -> Option<watch::Receiver<()>> {
        self.balancing.zone_changes()
    }

    /// Told when the hosts are others.
    pub(super) fn host_changes(&self) -> watch::Receiver<()> {
        self.new_hosts.subscribe()
    }

    /// Counts of active checks, if they are configured.
    pub(super) fn health_stats(&self) -> Option<&HealthStats> {
        self.health_stats.as_ref()
    }

    /// A host passed an active check: that ends an ejection, unless it is configured not to.
    pub(super) fn passed_check(&self, host: &Host) {
        let Some(detector) = &self.outlier else { return };
        if detector.ends_with_health_check() && detector.uneject(host, Instant::now()) {
            self.rebalance();
        }
    }

    /// It has had a connection for a request.
    pub(super) fn has_had_connection(&self) -> bool {
        let hosts = self.hosts.load();
        let mut totals = hosts
            .all
            .iter()
            .map(|host| host.counters.cx_total.load(Ordering::Relaxed));
        totals.any(|total| total > 0)
    }

    fn put(&self, hosts: HostSet) {
        // Another object of this name may count in the same cells.
        if !self.is_retired() {
            self.show(&hosts);
        }
        self.zone.note(&self.name, &hosts.all);
        self.hosts.store(Arc::new(hosts));
    }

    fn show(&self, hosts: &HostSet) {
        let census = hosts.census();
        self.stats.members(census);
        if let Some(stats) = &self.health_stats {
            stats.show(hosts.passing(), census.degraded);
        }
        if let Some(detector) = &self.outlier {
            detector.show_ejected(hosts.ejected());
        }
        if let Some(ring) = hosts.balance.ring() {
            self.stats.ring(&self.config.lb_policy, ring);
        }
        if let (Some(stats), Some(subsets)) = (&self.subset_stats, &hosts.subsets) {
            stats.show(subsets, self.hosts.load().subsets.as_deref());
        }
    }

    fn change_hosts(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host for an address that a client dialled (ORIGINAL_DST). Made at its first use, one object for all workers.
    pub(crate) fn dialled_host(&self, address: SocketAddr) -> Arc<Host> {
        if let Some(host) = self.dialled.load().get(&address) {
            return host.clone();
        }
        let host = Arc::new(Host {
            address,
            weight: 1,
            health: Health::Unknown,
            priority: 0,
            locality: Arc::default(),
            config: Arc::new(Endpoint {
                address: Address::Socket(address),
                additional_addresses: Default::default(),
                hostname: String::new(),
                weight: 1,
                health: Health::Unknown,
                metadata: Metadata::default(),
                health_check: None,
            }),
            workload: None,
            transport: self.transport_of(&Metadata::default()),
            counters: Arc::new(HostCounters::default()),
            state: Arc::new(HostState::new(Instant::now())),
        });
        let mut winner = host.clone();
        self.dialled.rcu(|known| {
            if let Some(other) = known.get(&address) {
                winner = other.clone();
                return known.clone();
            }
            winner = host.clone();
            let mut grown = HashMap::clone(known);
            grown.insert(address, host.clone());
            Arc::new(grown)
        });
        winner
    }

    /// Hosts made by [`Self::dialled_host`].
    pub(crate) fn dialled_hosts(&self) -> Vec<Arc<Host>> {
        self.dialled.load().values().cloned().collect()
    }

    /// Another object has this one's place: no connection is kept for later.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// [`Self::retire`] was called.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// The cluster dials what the client dialled.
    pub(crate) fn is_original_dst(&self) -> bool {
        matches!(self.config.discovery, Discovery::OriginalDst)
    }

    /// Connections to this host are TLS.
    pub(crate) fn is_tls(&self, host: &Host) -> bool {
        let choice = self.transports.get(host.transport);
        choice.is_some_and(|choice| matches!(choice.socket, TransportSocket::Tls(_)))
    }

    /// Index of the transport for an endpoint with this metadata: the first match all of whose criteria equal, else the fallback.
    fn transport_of(&self, metadata: &Metadata) -> usize {
        let labels = metadata.0.get(TRANSPORT_MATCH);
        let matches = |criteria: &Struct| {
            criteria
                .iter()
                .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        };
        self.transports
            .iter()
            .position(|choice| choice.criteria.as_ref().is_none_or(matches))
            .unwrap_or(self.transports.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests;
