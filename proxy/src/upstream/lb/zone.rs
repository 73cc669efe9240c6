//! This proxy's own zone first, as far as that keeps the load of all zones even: they are compared with those of its peers.
//!
//! The peers are the hosts of the local cluster, all proxies of this kind; where it names none there is no such routing. A priority 0
//! is either routed to its own zone alone, or that gets what it can take and the rest goes where capacity is left.
//! Source: Envoy docs, zone aware routing; Envoy `ZoneAwareLoadBalancerBase`.
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use outrigger_model::cluster::ZoneAware;
use outrigger_model::node::Locality;
use tokio::sync::watch;

use super::tier::Tier;
use crate::stats::Counter;
use crate::upstream::endpoint::{Availability, Host};

/// A whole, in hundredths of a percent.
const ALL: u64 = 10_000;

/// Where this proxy is, and where its peers are.
#[derive(Debug)]
pub(crate) struct LocalZone {
    /// Their cluster; empty: there is none.
    cluster: String,
    locality: Locality,
    peers: ArcSwap<Peers>,
    changed: watch::Sender<()>,
}

impl Default for LocalZone {
    fn default() -> Self {
        Self::new(String::new(), Locality::default())
    }
}

/// The hosts of the local cluster.
#[derive(Debug, Default, PartialEq, Eq)]
struct Peers {
    /// Healthy ones: how many, and the sum of their weights.
    healthy: HashMap<Locality, [u64; 2]>,
    localities: usize,
    /// One of them is where this proxy is.
    has_own: bool,
    usable: usize,
    counted: usize,
}

impl LocalZone {
    /// `cluster`: name of the peers' cluster; empty: there is none.
    pub(crate) fn new(cluster: String, locality: Locality) -> Self {
        Self {
            cluster,
            locality,
            peers: ArcSwap::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// There are peers to compare with.
    pub(crate) fn is_known(&self) -> bool {
        !self.cluster.is_empty()
    }

    /// The peers are its hosts.
    pub(crate) fn is_of(&self, cluster: &str) -> bool {
        self.is_known() && cluster == self.cluster
    }

    /// `cluster` has these hosts now. Tells of it if peers are others.
    pub(crate) fn note(&self, cluster: &str, all: &[Arc<Host>]) {
        if !self.is_of(cluster) {
            return;
        }
        let mut peers = Peers::default();
        let mut localities: Vec<&Locality> = Vec::new();
        for host in all.iter().filter(|host| host.priority == 0) {
            if !localities.contains(&&*host.locality) {
                localities.push(&host.locality);
            }
            peers.counted += usize::from(!host.is_excluded());
            peers.usable += usize::from(host.availability() != Availability::Unhealthy);
            if host.availability() == Availability::Healthy {
                let [count, weight] = peers.healthy.entry(Locality::clone(&host.locality)).or_default();
                *count += 1;
                *weight += u64::from(host.weight);
            }
        }
        peers.localities = localities.len();
        peers.has_own = self.has_place() && localities.contains(&&self.locality);
        if **self.peers.load() != peers {
            self.peers.store(Arc::new(peers));
            self.changed.send_replace(());
        }
    }

    /// Told when the peers are others.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// It is known where this proxy is.
    fn has_place(&self) -> bool {
        self.locality != Locality::default()
    }

    /// This proxy is there.
    pub(super) fn is_own(&self, locality: &Locality) -> bool {
        self.has_place() && *locality == self.locality
    }
}

impl Peers {
    /// So few are well that nothing can be said.
    fn are_in_panic(&self, threshold: u32) -> bool {
        let percent = match self.counted {
            0 => 0.0,
            counted => 100.0 * self.usable as f64 / counted as f64,
        };
        percent < f64::from(threshold)
    }
}

/// `cluster.<name>.lb_zone_*`. Source: Envoy docs, cluster load balancer statistics.
#[derive(Debug)]
pub(crate) struct ZoneStats {
    recalculate_zone_structures: Counter,
    local_cluster_not_ok: Counter,
    cluster_too_small: Counter,
    all_directly: Counter,
    sampled: Counter,
    cross_zone: Counter,
    no_capacity_left: Counter,
}

impl ZoneStats {
    /// `counter` makes stats by the last part of their names.
    pub(crate) fn new(counter: impl Fn(&str) -> Counter) -> Self {
        // Always 0, as in Envoy.
        counter("lb_zone_number_differs");
        Self {
            recalculate_zone_structures: counter("lb_recalculate_zone_structures"),
            local_cluster_not_ok: counter("lb_local_cluster_not_ok"),
            cluster_too_small: counter("lb_zone_cluster_too_small"),
            all_directly: counter("lb_zone_routing_all_directly"),
            sampled: counter("lb_zone_routing_sampled"),
            cross_zone: counter("lb_zone_routing_cross_zone"),
            no_capacity_left: counter("lb_zone_no_capacity_left"),
        }
    }
}

/// What a cluster needs for it.
#[derive(Debug, Clone)]
pub(super) struct Zoned {
    pub(super) local: Arc<LocalZone>,
    pub(super) stats: Arc<ZoneStats>,
    pub(super) settings: ZoneAware,
    /// Of the cluster, whole percent.
    pub(super) panic_threshold: u32,
}

/// Healthy hosts of one locality: how many, and the sum of their weights.
#[derive(Debug)]
pub(super) struct Zone<'a> {
    pub(super) locality: &'a Locality,
    pub(super) healthy: [u64; 2],
}

/// How requests are shared among zones, the own one first if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// All to the own one.
    Direct,
    Residual {
        /// To the own one, of [`ALL`].
        local: u64,
        /// Running sums of the capacity that is left.
        capacity: Vec<u64>,
    },
}

impl Zoned {
    /// `None`: zones do not count.
    pub(super) fn route(&self, zones: &[Zone<'_>]) -> Option<Route> {
        let peers = self.local.peers.load();
        self.stats.recalculate_zone_structures.inc();
        let is_forced = self.settings.forced_min_size.is_some();
        if zones.len() < 2 || (peers.localities < 2 && !is_forced) {
            return None;
        }
        if !peers.has_own {
            self.stats.local_cluster_not_ok.inc();
            return None;
        }
        let healthy: u64 = zones.iter().map(|zone| zone.healthy[0]).sum();
        if healthy < self.settings.min_cluster_size {
            self.stats.cluster_too_small.inc();
            return None;
        }
        Some(self.shares(zones, &peers))
    }

    fn shares(&self, zones: &[Zone<'_>], peers: &Peers) -> Route {
        let basis = usize::from(self.settings.compares_weights);
        let of = |healthy: &[u64; 2]| healthy.get(basis).copied().unwrap_or(0);
        let all_peers: u64 = peers.healthy.values().map(of).sum();
        let all_hosts: u64 = zones.iter().map(|zone| of(&zone.healthy)).sum();
        let percentages = |zone: &Zone<'_>| {
            // Without hosts nothing goes there, whatever the peers are.
            if zone.healthy[0] == 0 {
                return (0, 0);
            }
            let peers = peers.healthy.get(zone.locality).map_or(0, of);
            let part = |part: u64, whole: u64| (ALL * part).checked_div(whole).unwrap_or(0);
            (part(peers, all_peers), part(of(&zone.healthy), all_hosts))
        };
        let own = zones.first().filter(|zone| self.local.is_own(zone.locality));
        let (local, upstream) = own.map_or((0, 0), percentages);
        let forced = self.settings.forced_min_size.map(u64::from);
        let is_forced = own.is_some_and(|own| forced.is_some_and(|least| own.healthy[0] >= least));
        if is_forced || (upstream > 0 && upstream >= local) {
            return Route::Direct;
        }
        let mut sum = 0;
        let capacity = zones.iter().enumerate().map(|(index, zone)| {
            if index > 0 || own.is_none() {
                let (local, upstream) = percentages(zone);
                sum += upstream.saturating_sub(local);
            }
            sum
        });
        Route::Residual {
            capacity: capacity.collect(),
            local: (upstream * ALL).checked_div(local).unwrap_or(0),
        }
    }
}

/// The hosts of a priority of one availability, by zone.
#[derive(Debug)]
pub(super) struct Zones {
    zoned: Zoned,
    route: Route,
    by_zone: Vec<Option<Tier>>,
    /// For requests that are not routed by zone.
    whole: Tier,
}

impl Zones {
    pub(super) fn new(zoned: &Zoned, route: Route, by_zone: Vec<Option<Tier>>, whole: Tier) -> Self {
        Self {
            zoned: zoned.clone(),
            route,
            by_zone,
            whole,
        }
    }

    pub(super) fn pick(&self, random: &mut fastrand::Rng) -> Option<&Arc<Host>> {
        let Zoned {
            settings,
            stats,
            local,
            panic_threshold,
        } = &self.zoned;
        if settings.routing_percent < 100 && random.u32(0..100) >= settings.routing_percent {
            return self.whole.pick(random);
        }
        if local.peers.load().are_in_panic(*panic_threshold) {
            stats.local_cluster_not_ok.inc();
            return match settings.fail_on_panic {
                true => None,
                false => self.whole.pick(random),
            };
        }
        let zone = self.zone(stats, random);
        self.by_zone.get(zone)?.as_ref()?.pick(random)
    }

    fn zone(&self, stats: &ZoneStats, random: &mut fastrand::Rng) -> usize {
        let (local, capacity) = match &self.route {
            Route::Direct => {
                stats.all_directly.inc();
                return 0;
            }
            Route::Residual { local, capacity } => (*local, capacity),
        };
        if random.u64(0..ALL) < local {
            stats.sampled.inc();
            return 0;
        }
        stats.cross_zone.inc();
        match capacity.last() {
            // Rounding has left nothing: any will do.
            None | Some(0) => {
                stats.no_capacity_left.inc();
                random.usize(0..self.by_zone.len().max(1))
            }
            Some(total) => {
                let ticket = random.u64(0..*total);
                capacity.partition_point(|upto| *upto <= ticket)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Healthy hosts of this proxy's zone and others, of peers and of the cluster.
    fn check(settings: ZoneAware, zones: &[(u64, u64)], expected: Option<Route>) {
        let place = |index: usize| Locality {
            zone: index.to_string(),
            ..Locality::default()
        };
        let local = LocalZone::new("peers".into(), place(0));
        let places: Vec<Locality> = (0..zones.len()).map(place).collect();
        let healthy = places
            .iter()
            .cloned()
            .zip(zones.iter().map(|(peers, _)| [*peers; 2]));
        local.peers.store(Arc::new(Peers {
            healthy: healthy.collect(),
            localities: zones.len(),
            has_own: true,
            usable: 1,
            counted: 1,
        }));
        let zoned = Zoned {
            local: Arc::new(local),
            stats: Arc::new(ZoneStats::new(|_| Counter::none())),
            settings,
            panic_threshold: 50,
        };
        let hosts = places.iter().zip(zones).map(|(locality, (_, hosts))| Zone {
            locality,
            healthy: [*hosts; 2],
        });
        assert_eq!(zoned.route(&hosts.collect::<Vec<_>>()), expected, "{zones:?}");
    }

    #[test]
    fn zones_take_what_is_even_and_pass_on_the_rest() {
        let default = ZoneAware::default();
        let residual = |local: u64, capacity: &[u64]| {
            Some(Route::Residual {
                local,
                capacity: capacity.to_vec(),
            })
        };
        check(default, &[(1, 5), (1, 5)], Some(Route::Direct));
        check(default, &[(1, 6), (3, 4)], Some(Route::Direct));
        // Envoy docs: 25 of the 40 per cent that begin here can stay.
        check(
            default,
            &[(4, 5), (4, 10), (2, 5)],
            residual(6250, &[0, 1000, 1500]),
        );
        check(default, &[(4, 0), (4, 10), (2, 5)], residual(0, &[0, 2666, 3999]));
        check(default, &[(1, 2), (1, 3)], None);
        check(default, &[(1, 9)], None);
        let forced = |least| ZoneAware {
            forced_min_size: Some(least),
            ..default
        };
        check(forced(5), &[(4, 5), (4, 10), (2, 5)], Some(Route::Direct));
        check(
            forced(6),
            &[(4, 5), (4, 10), (2, 5)],
            residual(6250, &[0, 1000, 1500]),
        );
    }
}
