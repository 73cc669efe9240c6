//! One accepted cluster: as bytes until somebody uses it, then as a [`Cluster`].
//!
//! A sidecar in a large mesh is told of thousands of clusters and uses a few. A runtime object with its counters, hosts and TLS takes
//! tens of kilobytes; the bytes it is made of are kept anyway, for `/config_dump`. So the first load makes it, on the thread that needs
//! it and once for all workers: about a tenth of a millisecond, 2 µs more for each endpoint. The configuration was judged when it came;
//! nothing new can be wrong with it here. See docs/adr/0010-cold-clusters.md.
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use outrigger_model::address::Address;
use outrigger_model::cluster::RoutingPriority;
use outrigger_model::endpoint::{Health, LoadAssignment};

use super::cluster::Cluster;
use super::endpoint::{AddressSet, Availability, Census, has_endpoints};
use super::stats::{self, UPDATES};
use crate::pace::paced;
use crate::packed::Packed;
use crate::stats::{Show, Unregistered};

/// Makes the cluster.
pub(crate) trait Recipe: Debug + Send {
    /// The runtime object with these endpoints, encoded as they came; `None`: what was valid when it came is not any more.
    fn make(&self, endpoints: Option<&Packed>, counting: Counting) -> Option<Cluster>;
}

/// What a cluster is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// To be used: its stats are registered.
    Registered,
    /// To be looked at: it counts nothing.
    Not,
}

/// The members of `assignment`, before there are hosts.
pub(crate) fn members_of(assignment: &LoadAssignment) -> Census {
    let count = assignment.localities.iter().map(|group| group.endpoints.len());
    let mut known = AddressSet::with_capacity_and_hasher(count.sum(), Default::default());
    let mut members = Census::default();
    for endpoint in paced(assignment.localities.iter().flat_map(|group| &group.endpoints)) {
        // As the host set: one host an address.
        if let Address::Socket(address) = endpoint.address
            && known.insert(address)
        {
            members.total += 1;
            match Availability::of(endpoint.health) {
                Availability::Healthy => members.healthy += 1,
                Availability::Degraded => members.degraded += 1,
                Availability::Unhealthy => {}
            }
            members.excluded += u64::from(endpoint.health == Health::Draining);
        }
    }
    members
}

/// Gauges of limits that nothing has come near to.
fn unlimited() -> Vec<(&'static str, Unregistered)> {
    let names = [
        "cx_open",
        "cx_pool_open",
        "rq_open",
        "rq_pending_open",
        "rq_retry_open",
    ];
    names.map(|name| (name, Unregistered::Gauge(None))).to_vec()
}

/// What a cell of the cluster table holds.
#[derive(Debug)]
pub(crate) struct Slot {
    made: OnceLock<Option<Arc<Cluster>>>,
    /// Held while the cluster is made and while its endpoints change, so that no change is lost between.
    kept: Mutex<Kept>,
    stat_name: Arc<str>,
    members: Mutex<Census>,
    /// Before the cluster was made.
    updates: [AtomicU64; UPDATES.len()],
}

#[derive(Debug, Default)]
struct Kept {
    recipe: Option<Box<dyn Recipe>>,
    endpoints: Option<Packed>,
    is_retired: bool,
}

impl Slot {
    /// One that is made at its first use.
    pub(crate) fn unused(stat_name: Arc<str>, recipe: Box<dyn Recipe>) -> Self {
        Self {
            made: OnceLock::new(),
            kept: Mutex::new(Kept {
                recipe: Some(recipe),
                ..Kept::default()
            }),
            stat_name,
            members: Default::default(),
            updates: Default::default(),
        }
    }

    /// One that is there.
    pub(crate) fn made(cluster: Arc<Cluster>) -> Self {
        Self {
            stat_name: cluster.stat_name.clone(),
            made: OnceLock::from(Some(cluster)),
            kept: Mutex::default(),
            members: Default::default(),
            updates: Default::default(),
        }
    }

    /// The cluster, made now if need be.
    #[inline]
    pub(crate) fn get(&self) -> Option<Arc<Cluster>> {
        match self.made.get() {
            Some(made) => made.clone(),
            None => self.make(),
        }
    }

    /// The cluster if somebody has used it.
    pub(crate) fn used(&self) -> Option<Arc<Cluster>> {
        self.made.get()?.clone()
    }

    /// The cluster to look at: made for that if nobody has used it, and not kept.
    pub(crate) fn look(&self) -> Option<Arc<Cluster>> {
        if let Some(made) = self.made.get() {
            return made.clone();
        }
        let kept = self.lock();
        let cluster = kept
            .recipe
            .as_ref()?
            .make(kept.endpoints.as_ref(), Counting::Not)?;
        Some(Arc::new(cluster))
    }

    #[cold]
    fn make(&self) -> Option<Arc<Cluster>> {
        let mut kept = self.lock();
        // Somebody else may have been faster.
        let made = self.made.get_or_init(|| {
            let (recipe, endpoints) = (kept.recipe.take()?, kept.endpoints.take());
            let made = recipe
                .make(endpoints.as_ref(), Counting::Registered)
                .map(Arc::new);
            if let Some(cluster) = &made {
                self.hand_over(cluster);
                if kept.is_retired {
                    cluster.retire();
                }
            }
            made
        });
        made.clone()
    }

    /// What was counted so far goes on in the registry.
    fn hand_over(&self, cluster: &Cluster) {
        let counters = cluster.stats.updates();
        for (counter, counted) in counters.into_iter().zip(&self.updates) {
            match counted.load(Relaxed) {
                0 => {}
                count => counter.add(count),
            }
        }
    }

    /// Endpoints of an EDS response: `encoded` as they came, `assignment` what they mean. Returns the cluster if somebody uses it.
    pub(crate) fn set_endpoints(
        &self,
        encoded: &Packed,
        assignment: &LoadAssignment,
        members: Census,
    ) -> Option<Arc<Cluster>> {
        let mut kept = self.lock();
        let cluster = self.used();
        match &cluster {
            Some(cluster) => {
                cluster.stats.update_success.inc();
                if !has_endpoints(assignment) {
                    cluster.stats.update_empty.inc();
                }
                if assignment.stale_after.is_some() {
                    cluster.stats.assignment_timeout_received.inc();
                }
                cluster.set_endpoints(assignment, None);
            }
            None => {
                kept.endpoints = Some(encoded.clone());
                let [success, empty, change, may_stale, _] = &self.updates;
                success.fetch_add(1, Relaxed);
                empty.fetch_add(u64::from(!has_endpoints(assignment)), Relaxed);
                change.fetch_add(1, Relaxed);
                may_stale.fetch_add(u64::from(assignment.stale_after.is_some()), Relaxed);
                self.set_members(members);
            }
        }
        cluster
    }

    /// What was said of endpoints is of no use any more. Returns the cluster if somebody uses it.
    pub(crate) fn clear_endpoints(&self) -> Option<Arc<Cluster>> {
        let mut kept = self.lock();
        kept.endpoints = None;
        self.set_members(Census::default());
        let cluster = self.used();
        match &cluster {
            Some(cluster) => cluster.stats.assignment_stale.inc(),
            None => {
                let [.., stale] = &self.updates;
                stale.fetch_add(1, Relaxed);
            }
        }
        if let Some(cluster) = &cluster {
            cluster.set_endpoints(&LoadAssignment::default(), None);
        }
        cluster
    }

    /// Endpoints that were there before the cluster was. For one that nobody uses.
    pub(crate) fn begin_with(&self, encoded: Packed, members: Census) {
        self.lock().endpoints = Some(encoded);
        self.set_members(members);
    }

    fn set_members(&self, members: Census) {
        *self.members.lock().unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// Another has its place: no connection is kept for later. Returns the cluster if somebody uses it.
    pub(crate) fn retire(&self) -> Option<Arc<Cluster>> {
        self.lock().is_retired = true;
        let cluster = self.used();
        if let Some(cluster) = &cluster {
            cluster.retire();
        }
        cluster
    }

    /// The stats of a cluster that nobody has used; those of others are registered.
    pub(super) fn show(&self, show: &mut Show<'_>) {
        if let Some(made) = self.made.get() {
            if let Some(cluster) = made {
                let prefix = format!("cluster.{}.circuit_breakers.", self.stat_name);
                for (name, priority) in [
                    ("default", RoutingPriority::Default),
                    ("high", RoutingPriority::High),
                ] {
                    let gauges = cluster.breaker.gauges(priority, cluster.limits(priority));
                    show(&format!("{prefix}{name}."), &gauges);
                }
            }
            return;
        }
        let members = *self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let updates = self.updates.each_ref().map(|counted| counted.load(Relaxed));
        let stats = stats::unused(members, updates);
        show(&format!("cluster.{}.", self.stat_name), &stats);
        for priority in ["default", "high"] {
            let prefix = format!("cluster.{}.circuit_breakers.{priority}.", self.stat_name);
            show(&prefix, &unlimited());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
