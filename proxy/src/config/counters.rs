//! What configuration updates did, under Envoy's names; Istio's readiness probe and dashboards read them (contract §2.5).
//!
//! Source: Envoy docs, "Configuration: management server", cluster manager and listener manager statistics.
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use twox_hash::XxHash64;

use crate::listener::runtime::{Chain, Listener};
use crate::stats::{Counter, Gauge, Histogram, Registry};

/// `cluster_manager.cds.*`, `listener_manager.lds.*`: what became of the responses of one resource type.
#[derive(Debug)]
pub(super) struct DiscoveryStats {
    registry: Arc<Registry>,
    prefix: String,
    update_attempt: Counter,
    update_success: Counter,
    update_rejected: Counter,
    update_failure: Counter,
    init_fetch_timeout: Counter,
    update_duration: Histogram,
    update_time: Gauge,
    version: Gauge,
}

impl DiscoveryStats {
    /// Registers them; `prefix` ends before the last dot.
    pub(super) fn new(registry: &Arc<Registry>, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        let counter = |name: &str| registry.counter(format!("{prefix}.{name}"));
        registry.set_text(format!("{prefix}.version_text"), "");
        Self {
            registry: Arc::clone(registry),
            update_attempt: counter("update_attempt"),
            update_success: counter("update_success"),
            update_rejected: counter("update_rejected"),
            update_failure: counter("update_failure"),
            init_fetch_timeout: counter("init_fetch_timeout"),
            update_duration: registry.histogram(format!("{prefix}.update_duration")),
            update_time: registry.gauge(format!("{prefix}.update_time")),
            version: registry.gauge(format!("{prefix}.version")),
            prefix,
        }
    }

    /// A subscription began; in Envoy that of a stream is the first attempt.
    pub(super) fn attempted(&self) {
        self.update_attempt.inc();
    }

    /// A response was applied whole; `since`: when it came.
    pub(super) fn accepted(&self, version: &str, since: Instant) {
        self.update_attempt.inc();
        self.update_success.inc();
        self.update_duration.record(milliseconds(since.elapsed()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.update_time.set(milliseconds(now));
        self.version.set(version_number(version));
        self.registry
            .set_text(format!("{}.version_text", self.prefix), version);
    }

    /// Some of a response was refused.
    pub(super) fn rejected(&self) {
        self.update_attempt.inc();
        self.update_rejected.inc();
    }

    /// The first answer took too long.
    pub(super) fn timed_out(&self) {
        self.update_attempt.inc();
        self.init_fetch_timeout.inc();
    }

    /// The stream ended, or could not be opened.
    pub(super) fn unreachable(&self) {
        self.update_attempt.inc();
        self.update_failure.inc();
    }
}

/// `cluster_manager.*` and `listener_manager.*` but for what is counted where it happens.
#[derive(Debug)]
pub(super) struct ControlStats {
    pub(super) cds: DiscoveryStats,
    pub(super) lds: DiscoveryStats,
    pub(super) active_clusters: Gauge,
    pub(super) warming_clusters: Gauge,
    pub(super) listeners_active: Gauge,
    pub(super) listeners_warming: Gauge,
    /// `server.initialization_time_ms`, known here because it ends with the last listener or cluster.
    pub(super) initialization_time: Histogram,
}

impl ControlStats {
    /// Registers them.
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        let subscribed = |prefix: &str| {
            let stats = DiscoveryStats::new(registry, prefix);
            stats.attempted();
            stats
        };
        Self {
            cds: subscribed("cluster_manager.cds"),
            lds: subscribed("listener_manager.lds"),
            active_clusters: registry.gauge("cluster_manager.active_clusters"),
            warming_clusters: registry.gauge("cluster_manager.warming_clusters"),
            listeners_active: registry.gauge("listener_manager.total_listeners_active"),
            listeners_warming: registry.gauge("listener_manager.total_listeners_warming"),
            initialization_time: registry.histogram("server.initialization_time_ms"),
        }
    }

    /// Everything that was asked for at the start is in use, so long after the start.
    pub(super) fn initialized(&self, after: Duration) {
        self.initialization_time.record(milliseconds(after));
    }
}

/// `listener_manager.listener_*`: how listeners came into use and went out of it.
#[derive(Debug)]
pub(super) struct ListenerChanges {
    create_success: Counter,
    create_failure: Counter,
    in_place_updated: Counter,
    stopped: Counter,
    draining: Draining,
}

/// What still has connections although it was replaced or removed.
#[derive(Debug)]
struct Draining {
    listeners: Gauge,
    filter_chains: Gauge,
    watched_listeners: Vec<Weak<Listener>>,
    watched_chains: Vec<Weak<Chain>>,
}

impl ListenerChanges {
    /// Registers them.
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name: &str| registry.counter(format!("listener_manager.listener_{name}"));
        Self {
            create_success: counter("create_success"),
            create_failure: counter("create_failure"),
            in_place_updated: counter("in_place_updated"),
            stopped: counter("stopped"),
            draining: Draining {
                listeners: registry.gauge("listener_manager.total_listeners_draining"),
                filter_chains: registry.gauge("listener_manager.total_filter_chains_draining"),
                watched_listeners: Vec::new(),
                watched_chains: Vec::new(),
            },
        }
    }

    /// Every worker has it.
    pub(super) fn created(&self, workers: usize) {
        self.create_success.add(workers as u64);
    }

    /// It cannot be put in use.
    pub(super) fn not_created(&self) {
        self.create_failure.inc();
    }

    /// `new` took the place of `old`, whose sockets stay. Only chains that changed drain.
    pub(super) fn updated(&mut self, old: &Arc<Listener>, new: &Listener, workers: usize) {
        self.created(workers);
        if old.config.differs_in_chains_only(&new.config) {
            self.in_place_updated.inc();
            let ending = old.chains_not_in(new).map(Arc::downgrade);
            self.draining.watched_chains.extend(ending);
        } else {
            self.draining.watched_listeners.push(Arc::downgrade(old));
        }
    }

    /// It accepts nothing any more.
    pub(super) fn stopped(&mut self, old: &Arc<Listener>) {
        self.stopped.inc();
        self.draining.watched_listeners.push(Arc::downgrade(old));
    }

    /// Counts what drains still. Cost: what drains.
    pub(super) fn refresh(&mut self) {
        self.draining.refresh();
    }
}

impl Draining {
    fn refresh(&mut self) {
        self.watched_listeners
            .retain(|listener| listener.strong_count() > 0);
        // A connection keeps its listener, and with it all of its chains: what counts is who still listens to the chain's drain.
        self.watched_chains
            .retain(|chain| chain.upgrade().is_some_and(|chain| chain.drain.is_watched()));
        self.listeners.set(self.watched_listeners.len() as u64);
        self.filter_chains.set(self.watched_chains.len() as u64);
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A version as a gauge, so that two proxies can be compared; as Envoy, XXH64 with seed 0.
fn version_number(version: &str) -> u64 {
    XxHash64::oneshot(0, version.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_number_that_envoy_shows() {
        // Read off Envoy 1.40.
        assert_eq!(version_number("demo-9"), 12_625_557_250_357_337_480);
        assert_eq!(version_number("demo-19"), 13_664_181_900_431_107_585);
    }
}
