//! Active health checks: hosts are asked whether they are well, each in a task of its own on the control thread.
//!
//! [`Session`] is pure: what a finding changes and when to ask again. Source: Envoy docs, health checking; `HealthCheckerImplBase`.
mod probe;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use outrigger_model::cluster::HealthCheck as Config;

pub(super) use self::probe::DEGRADED;
pub(crate) use self::probe::LEAVE_OUT;
use self::probe::Probe;
use super::cluster::Cluster;
use super::endpoint::{HealthFlag, Host, HostState};
use super::upkeep::in_use;
use crate::stats::{Counter, Gauge};
use crate::time::{self, Instant};
use crate::worker;

/// `cluster.<name>.health_check.*`. Source: Envoy docs, cluster health check statistics.
#[derive(Debug)]
pub(crate) struct HealthStats {
    attempt: Counter,
    success: Counter,
    failure: Counter,
    passive_failure: Counter,
    network_failure: Counter,
    healthy: Gauge,
    degraded: Gauge,
}

impl HealthStats {
    /// `counter` and `gauge` make stats by the last part of their names.
    pub(crate) fn new(counter: impl Fn(&str) -> Counter, gauge: impl Fn(&str) -> Gauge) -> Self {
        // Always 0: there are no service names to compare.
        counter("health_check.verify_cluster");
        Self {
            attempt: counter("health_check.attempt"),
            success: counter("health_check.success"),
            failure: counter("health_check.failure"),
            passive_failure: counter("health_check.passive_failure"),
            network_failure: counter("health_check.network_failure"),
            healthy: gauge("health_check.healthy"),
            degraded: gauge("health_check.degraded"),
        }
    }

    /// A host said of itself that it fails.
    pub(crate) fn passive_failure(&self) {
        self.failure.inc();
        self.passive_failure.inc();
    }

    /// Shows how many hosts pass.
    pub(crate) fn show(&self, healthy: u64, degraded: u64) {
        self.healthy.set(healthy);
        self.degraded.set(degraded);
    }
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// A good answer; it may say that the host is degraded.
    Well { degraded: bool },
    /// A bad answer: enough at once.
    Ill,
    /// A bad answer that may be another the next time.
    Retriable,
    /// No answer.
    Lost,
    /// No answer in time.
    TimedOut,
}

/// What is remembered of a host between checks.
#[derive(Debug)]
struct Session {
    is_first: bool,
    successes: u32,
    failures: u32,
}

/// What follows from a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    /// The host's availability is another: the load has to be shared anew.
    changed: bool,
    /// A threshold is not reached yet.
    is_edge: bool,
    is_well: bool,
}

impl Session {
    fn new() -> Self {
        Self {
            is_first: true,
            successes: 0,
            failures: 0,
        }
    }

    /// Counts, and sets the host's flags.
    fn judge(&mut self, host: &Host, config: &Config, finding: Finding, now: Instant) -> Step {
        let state = &host.state;
        let is_failed = state.has(HealthFlag::FailedActiveCheck);
        let mut step = Step {
            changed: false,
            is_edge: false,
            is_well: matches!(finding, Finding::Well { .. }),
        };
        if state.take_failed_at_once() {
            (self.successes, self.is_first) = (0, false);
        }
        if let Finding::Well { degraded } = finding {
            self.failures = 0;
            if is_failed {
                self.successes += 1;
                // The very first success is enough: starting is faster.
                if self.is_first || self.successes >= config.healthy_threshold {
                    state.set(HealthFlag::FailedActiveCheck, false);
                    state.set(HealthFlag::ExcludedByImmediateFailure, false);
                    state.became_healthy(now);
                    step.changed = true;
                } else {
                    step.is_edge = true;
                }
            }
            step.changed |= state.set(HealthFlag::DegradedActiveCheck, degraded);
        } else {
            self.successes = 0;
            if !is_failed {
                self.failures += 1;
                if finding == Finding::Ill || self.failures >= config.unhealthy_threshold {
                    state.set(HealthFlag::FailedActiveCheck, true);
                    step.changed = true;
                } else {
                    step.is_edge = true;
                }
            }
        }
        let is_late = finding == Finding::TimedOut && state.has(HealthFlag::FailedActiveCheck);
        state.set(HealthFlag::ActiveCheckTimeout, is_late);
        step.changed |= state.set(HealthFlag::PendingActiveCheck, false);
        self.is_first = false;
        state.set_checked();
        step
    }
}

/// Time until the next check. `has_traffic`: the cluster has had a connection.
fn wait(config: &Config, step: Step, has_traffic: bool) -> Duration {
    let base = match (has_traffic, step.is_well, step.is_edge) {
        (false, true, false) => config.no_traffic_healthy_interval,
        (false, _, _) => config.no_traffic_interval,
        (true, true, true) => config.healthy_edge_interval,
        (true, true, false) => config.interval,
        (true, false, true) => config.unhealthy_edge_interval,
        (true, false, false) => config.unhealthy_interval,
    };
    let percent = f64::from(config.interval_jitter_percent) / 100.0;
    base + base.mul_f64(percent * fastrand::f64()) + config.interval_jitter.mul_f64(fastrand::f64())
}

/// Checks the hosts of `cluster`, if that is configured.
pub(super) fn start(cluster: &Arc<Cluster>) {
    if !cluster.config.health_checks.is_empty() {
        worker::spawn(follow_hosts(Arc::downgrade(cluster)));
    }
}

async fn follow_hosts(cluster: Weak<Cluster>) {
    let Some(mut changes) = in_use(&cluster).map(|cluster| cluster.host_changes()) else {
        return;
    };
    // By where their states are, which are kept so that no other is there.
    let mut known: HashMap<usize, Arc<HostState>> = HashMap::new();
    while let Some(now) = in_use(&cluster) {
        let hosts = now.hosts();
        let checked = hosts.all.iter().filter(|host| !host.is_excused());
        let mut current = HashMap::with_capacity(hosts.all.len());
        for host in checked {
            let key = Arc::as_ptr(&host.state).addr();
            // One that is excused, or gone, and comes back is another: its state is new.
            if !known.contains_key(&key) && !current.contains_key(&key) {
                worker::spawn(check(cluster.clone(), host.clone()));
            }
            current.insert(key, host.state.clone());
        }
        known = current;
        now.note_checks();
        drop((hosts, now));
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// The host as it is now, if it is one of the cluster's still and to be checked.
fn current(cluster: &Cluster, host: &Host) -> Option<Arc<Host>> {
    let hosts = cluster.hosts();
    let current = hosts.find(host.address)?;
    (Arc::ptr_eq(&current.state, &host.state) && !current.is_excused()).then(|| current.clone())
}

async fn check(cluster: Weak<Cluster>, mut host: Arc<Host>) {
    let (mut session, mut probe) = (Session::new(), Probe::default());
    let jitter = in_use(&cluster).and_then(|now| Some(now.config.health_checks.first()?.initial_jitter));
    if let Some(jitter) = jitter.filter(|jitter| !jitter.is_zero()) {
        time::sleep(jitter.mul_f64(fastrand::f64())).await;
    }
    loop {
        let Some(now) = in_use(&cluster) else { return };
        let Some(known) = current(&now, &host) else { return };
        host = known;
        let (Some(config), Some(stats)) = (now.config.health_checks.first(), now.health_stats()) else {
            return;
        };
        stats.attempt.inc();
        let mut finding = probe.ask(&now, &host, config).await;
        let mut now = Some(now);
        // A connection that is lost meanwhile counts too, and does not put off the next question for ever.
        loop {
            let Some(cluster_now) = now.or_else(|| in_use(&cluster)) else {
                return;
            };
            let wait = session.settle(&cluster_now, &host, finding);
            now = None;
            drop(cluster_now);
            tokio::select! {
                () = time::sleep(wait) => break,
                () = probe.lost() => finding = Finding::Lost,
            }
        }
    }
}

impl Session {
    /// Does what follows from a finding, and says when to ask again.
    fn settle(&mut self, cluster: &Cluster, host: &Host, finding: Finding) -> Duration {
        let (Some(config), Some(stats)) = (cluster.config.health_checks.first(), cluster.health_stats())
        else {
            return Duration::MAX;
        };
        match finding {
            Finding::Well { .. } => stats.success.inc(),
            Finding::Ill | Finding::Retriable => stats.failure.inc(),
            Finding::Lost | Finding::TimedOut => {
                stats.failure.inc();
                stats.network_failure.inc();
            }
        }
        let step = self.judge(host, config, finding, Instant::now());
        // A host that is gone and was left out by its own word is failed already, and to go.
        let is_to_go =
            host.state.has(HealthFlag::PendingRemoval) && host.state.has(HealthFlag::FailedActiveCheck);
        if step.changed || is_to_go {
            tracing::debug!(cluster = %cluster.name, host = %host.address, ?finding, "health changed");
            cluster.health_changed(host);
        }
        if step.is_well {
            cluster.passed_check(host);
        }
        cluster.note_checks();
        wait(config, step, cluster.has_had_connection())
    }
}

#[cfg(test)]
mod tests;
