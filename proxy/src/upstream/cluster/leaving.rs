//! What stays of hosts that leave their cluster, and of a cluster that leaves its place.
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use outrigger_model::address::Address;
use outrigger_model::cluster::{Discovery, LbPolicy};
use outrigger_model::endpoint::{Health, LoadAssignment, LocalityEndpoints};
use outrigger_model::node::Locality;

use super::Cluster;
use crate::upstream::endpoint::{HealthFlag, Host, HostSet};

impl Cluster {
    /// With hosts that are gone from `assignment` and pass their active checks: they go when they fail. `None`: there is none.
    /// Source: Envoy `BaseDynamicClusterImpl::updateDynamicHostList`.
    pub(super) fn with_healthy_hosts(
        &self,
        assignment: &LoadAssignment,
        current: &HostSet,
    ) -> Option<LoadAssignment> {
        let changes = matches!(
            self.config.discovery,
            Discovery::Eds { .. } | Discovery::StrictDns(_)
        );
        if self.health_stats.is_none() || self.config.removes_healthy_hosts || !changes {
            return None;
        }
        let endpoints = assignment.localities.iter().flat_map(|group| &group.endpoints);
        let named: HashSet<&Address> = endpoints.map(|endpoint| &endpoint.address).collect();
        let mut grown = None;
        for host in current.all.iter() {
            let stays = !named.contains(&host.config.address)
                && !host.state.has(HealthFlag::FailedActiveCheck)
                // Nothing would ever say that it fails.
                && !host.is_excused()
                // As the control plane said when it still spoke of it.
                && !matches!(host.health, Health::Unhealthy | Health::Timeout | Health::Draining);
            host.state.set(HealthFlag::PendingRemoval, stays);
            if stays {
                let grown = grown.get_or_insert_with(|| assignment.clone());
                keep_in(grown, host);
            }
        }
        grown
    }

    pub(super) fn awaiting_removal(&self) -> MutexGuard<'_, Option<LoadAssignment>> {
        self.awaiting_removal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// An active check has found out something new of a host.
    pub(in crate::upstream) fn health_changed(&self, host: &Host) {
        let has = |flag| host.state.has(flag);
        let is_to_go = has(HealthFlag::PendingRemoval) && has(HealthFlag::FailedActiveCheck);
        let assignment = is_to_go.then(|| self.awaiting_removal().clone()).flatten();
        match assignment {
            Some(assignment) => self.set_endpoints(&assignment, None),
            None => self.rebalance(),
        }
    }

    /// Forgets dialled hosts that nobody holds. Called now and then by the control thread (Envoy: `cleanup_interval`).
    pub(crate) fn forget_unused_dialled_hosts(&self) {
        let unused = |host: &Arc<Host>| {
            host.counters.cx_active.load(Ordering::Relaxed) == 0
                && host.counters.rq_active.load(Ordering::Relaxed) == 0
        };
        if self.dialled.load().values().any(unused) {
            self.dialled.rcu(|known| {
                let mut kept = HashMap::clone(known);
                kept.retain(|_, host| !unused(host));
                Arc::new(kept)
            });
        }
    }

    /// What the names of those of its stats begin with that `next` does not have.
    pub(crate) fn stats_beyond(&self, next: &Self) -> impl Iterator<Item = &'static str> {
        let own = self.optional_stats().into_iter().zip(next.optional_stats());
        own.filter(|((_, here), (_, there))| *here && !*there)
            .map(|((name, _), _)| name)
    }

    /// `next` has its place, and its subsets are no more.
    pub(crate) fn end_subsets(&self, next: &Self) {
        if let (Some(stats), Some(subsets)) = (&self.subset_stats, &self.hosts.load().subsets) {
            stats.end(subsets, next.subset_stats.is_none());
        }
    }

    fn optional_stats(&self) -> [(&'static str, bool); 5] {
        let policy = &self.config.lb_policy;
        [
            ("outlier_detection.", self.outlier.is_some()),
            ("health_check.", self.health_stats.is_some()),
            (
                "lb_subsets_single_host_per_subset_duplicate",
                self.subset_stats.is_some(),
            ),
            ("ring_hash_lb.", matches!(policy, LbPolicy::RingHash { .. })),
            ("maglev_lb.", matches!(policy, LbPolicy::Maglev { .. })),
        ]
    }
}

/// Puts a host back where it was.
fn keep_in(assignment: &mut LoadAssignment, host: &Host) {
    let mut groups = assignment.localities.iter_mut();
    let group = groups.find(|group| group.priority == host.priority && group.locality == *host.locality);
    match group {
        Some(group) => group.endpoints.push(host.config.clone()),
        None => assignment.localities.push(LocalityEndpoints {
            locality: Locality::clone(&host.locality),
            priority: host.priority,
            weight: None,
            endpoints: vec![host.config.clone()],
        }),
    }
}
