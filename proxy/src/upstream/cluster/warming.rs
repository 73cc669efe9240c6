//! When somebody may use a cluster: its names are answered for, and its hosts checked once.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use outrigger_model::cluster as model;
use tokio::sync::Notify;

use super::Cluster;
use crate::upstream::dns;

impl Cluster {
    /// `waiting` is told when [`Self::is_warm`] becomes true. Call it before the hosts are looked after.
    pub(crate) fn tell_when_warm(&self, waiting: &Arc<Notify>) {
        let _told_before = self.warmed.set(waiting.clone());
    }

    /// The first answer for one of its names has come, or the first failure.
    pub(in crate::upstream) fn set_resolved(&self) {
        if !self.is_resolved.swap(true, Ordering::Relaxed) {
            // There may be nobody to check.
            self.new_hosts.send_replace(());
            self.tell_if_warm();
        }
    }

    /// Somebody may use it: neither a name nor a first health check is waited for.
    pub(crate) fn is_warm(&self) -> bool {
        let is_checked = self.health_stats.is_none() || self.is_checked.load(Ordering::Relaxed);
        is_checked && self.has_first_hosts()
    }

    /// Its names have been answered for, if that is waited for.
    fn has_first_hosts(&self) -> bool {
        !self.config.waits_for_names
            || self.is_resolved.load(Ordering::Relaxed)
            || !dns::has_names(&self.config.discovery)
    }

    fn tell_if_warm(&self) {
        if let Some(waiting) = self.warmed.get().filter(|_| self.is_warm()) {
            waiting.notify_one();
        }
    }

    /// Hosts have to be resolved or checked before somebody may use it.
    pub(crate) fn warms_up(config: &model::Cluster) -> bool {
        dns::has_names(&config.discovery) || !config.health_checks.is_empty()
    }

    /// An active check has come to an end, or hosts have come: finds out whether all of the first hosts have been checked once.
    /// Source: Envoy `ClusterImplBase::finishInitialization`.
    pub(in crate::upstream) fn note_checks(&self) {
        if self.is_checked.load(Ordering::Relaxed) || !self.has_first_hosts() {
            return;
        }
        if self.hosts().all.iter().all(|host| !host.state.is_unchecked()) {
            self.is_checked.store(true, Ordering::Relaxed);
            self.tell_if_warm();
        }
    }
}
