//! Hosts of a cluster and how they are grouped for balancing.
mod places;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use outrigger_model::address::Address;
use outrigger_model::endpoint::{Endpoint, Health, LoadAssignment};
use outrigger_model::metadata::Metadata;
use outrigger_model::node::Locality;

pub(super) use self::places::AddressSet;
use self::places::Places;
use crate::telemetry::workload::Workload;

/// One upstream host. Immutable but for its counters, which survive endpoint updates that keep the address.
#[derive(Debug)]
pub(crate) struct Host {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// 1..
    pub(crate) weight: u32,
    /// As the control plane said.
    pub(crate) health: Health,
    /// 0 is the most wanted.
    pub(crate) priority: u32,
    /// Where it runs.
    pub(crate) locality: Arc<Locality>,
    /// What else is said of it: name, metadata.
    pub(crate) config: Arc<Endpoint>,
    /// Who it is, as its metadata says; for metrics.
    pub(crate) workload: Option<Arc<Workload>>,
    /// Index into the cluster's transports.
    pub(crate) transport: usize,
    /// Counters.
    pub(crate) counters: Arc<HostCounters>,
}

/// Counters of one host over all workers. Source: Envoy `HostStats` (`/clusters`).
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct HostCounters {
    pub(crate) rq_active: AtomicU32,
    pub(crate) cx_active: AtomicU32,
    pub(crate) cx_total: AtomicU64,
    pub(crate) cx_connect_fail: AtomicU64,
    pub(crate) rq_total: AtomicU64,
    pub(crate) rq_success: AtomicU64,
    pub(crate) rq_error: AtomicU64,
    pub(crate) rq_timeout: AtomicU64,
}

impl Host {
    /// EDS lets it have traffic. Source: health_check.proto: UNKNOWN counts as healthy.
    pub(crate) fn is_healthy(&self) -> bool {
        is_healthy(self.health)
    }
}

/// EDS lets an endpoint have traffic. Source: health_check.proto: UNKNOWN counts as healthy.
pub(crate) fn is_healthy(health: Health) -> bool {
    matches!(health, Health::Unknown | Health::Healthy | Health::Degraded)
}

/// There is an endpoint.
pub(crate) fn has_endpoints(assignment: &LoadAssignment) -> bool {
    assignment
        .localities
        .iter()
        .any(|group| !group.endpoints.is_empty())
}

/// All hosts of a cluster, by priority.
///
/// Invariants: `healthy ⊆ all` in each priority; `load` has one entry a priority and sums to 100, or is all 0 when no host may be used.
#[derive(Debug, Default)]
pub(crate) struct HostSet {
    /// Every host, in the order received.
    pub(crate) all: Vec<Arc<Host>>,
    /// Hosts that may be picked, by priority: the healthy ones, or all in panic.
    pub(crate) usable: Vec<Tier>,
    /// Percent of requests a priority gets.
    pub(crate) load: Vec<u32>,
    /// Places in `all`.
    places: Places,
}

/// The hosts of one priority.
#[derive(Debug, Default)]
pub(crate) struct Tier {
    /// Pickable hosts.
    pub(crate) hosts: Vec<Arc<Host>>,
    /// Running sums of weights beside `hosts`; empty when all weights are equal.
    pub(crate) cumulative_weights: Vec<u64>,
}

/// The hosts that were there before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Previous<'a> {
    /// They.
    pub(crate) hosts: &'a HostSet,
    /// Of the same cluster object: what did not change stays as it is. Else only counters are taken over.
    pub(crate) is_own: bool,
}

impl HostSet {
    /// The host of `address`, looked for first at `place`, where it is if nothing changed. `place` goes to the next one.
    fn near(&self, place: &mut usize, endpoint: &Arc<Endpoint>, address: SocketAddr) -> Option<&Arc<Host>> {
        let is_it = |host: &&Arc<Host>| Arc::ptr_eq(&host.config, endpoint) || host.address == address;
        for step in 0..2 {
            if let Some(host) = self.all.get(*place + step).filter(is_it) {
                *place += step + 1;
                return Some(host);
            }
        }
        *place += 1;
        self.find(address)
    }

    /// Groups the endpoints of an assignment. `transport_of` chooses the transport by endpoint metadata; hosts with a name for an
    /// address have to be resolved before. Counters come from `previous` where the address stays.
    pub(crate) fn build(
        assignment: &LoadAssignment,
        panic_threshold_percent: u32,
        transport_of: impl Fn(&Metadata) -> usize,
        previous: Previous<'_>,
    ) -> Self {
        let count = assignment
            .localities
            .iter()
            .map(|group| group.endpoints.len())
            .sum();
        let mut all: Vec<Arc<Host>> = Vec::with_capacity(count);
        let mut places = Places::with_capacity(count);
        // Where a host of the same configuration stood before, if the order is that of before.
        let mut place = 0;
        for group in &assignment.localities {
            let mut locality: Option<Arc<Locality>> = None;
            for endpoint in &group.endpoints {
                let Address::Socket(address) = endpoint.address else {
                    continue;
                };
                let before = previous.hosts.near(&mut place, endpoint, address);
                let is_in_group = |host: &&Arc<Host>| {
                    let is_here = match &locality {
                        // Of the same object, most often.
                        Some(locality) => host.locality == *locality,
                        None => *host.locality == group.locality,
                    };
                    is_here && host.priority == group.priority
                };
                let same_place = before.filter(is_in_group);
                let locality = locality.get_or_insert_with(|| match same_place {
                    Some(host) => host.locality.clone(),
                    None => Arc::new(group.locality.clone()),
                });
                let host = match same_place {
                    Some(host) if previous.is_own && Arc::ptr_eq(&host.config, endpoint) => host.clone(),
                    _ => Arc::new(Host {
                        address,
                        weight: endpoint.weight.max(1),
                        health: endpoint.health,
                        priority: group.priority,
                        locality: locality.clone(),
                        workload: workload(&endpoint.metadata),
                        transport: transport_of(&endpoint.metadata),
                        counters: before.map(|host| host.counters.clone()).unwrap_or_default(),
                        config: endpoint.clone(),
                    }),
                };
                // Envoy keeps the first of endpoints with the same address.
                places.push(&mut all, host);
            }
        }
        Self {
            places,
            ..Self::from_hosts(all, panic_threshold_percent, assignment.overprovisioning_factor)
        }
    }

    /// Groups hosts by priority and health.
    fn from_hosts(all: Vec<Arc<Host>>, panic_threshold_percent: u32, overprovisioning: u32) -> Self {
        let priorities = all
            .iter()
            .map(|host| host.priority as usize + 1)
            .max()
            .unwrap_or(0);
        let mut totals = vec![0_usize; priorities];
        for host in &all {
            if let Some(total) = totals.get_mut(host.priority as usize) {
                *total += 1;
            }
        }
        let mut healthy: Vec<_> = totals.iter().map(|total| Vec::with_capacity(*total)).collect();
        for host in all.iter().filter(|host| host.is_healthy()) {
            if let Some(tier) = healthy.get_mut(host.priority as usize) {
                tier.push(host.clone());
            }
        }
        let counts: Vec<_> = healthy.iter().map(Vec::len).zip(totals.iter().copied()).collect();
        let panic = in_panic(&counts, panic_threshold_percent, overprovisioning);
        let usable = healthy
            .into_iter()
            .enumerate()
            .map(|(priority, tier)| {
                let hosts = if panic {
                    all.iter()
                        .filter(|host| host.priority as usize == priority)
                        .cloned()
                        .collect()
                } else {
                    tier
                };
                Tier::new(hosts)
            })
            .collect();
        let load = if panic {
            panic_load(&counts)
        } else {
            priority_load(&counts, overprovisioning)
        };
        Self {
            all,
            usable,
            load,
            places: Places::default(),
        }
    }

    /// The host at this address.
    pub(crate) fn find(&self, address: SocketAddr) -> Option<&Arc<Host>> {
        self.places.find(&self.all, address)
    }

    /// Hosts that EDS calls healthy.
    pub(crate) fn healthy_count(&self) -> usize {
        self.all.iter().filter(|host| host.is_healthy()).count()
    }
}

/// What istiod writes about the workload of an endpoint.
fn workload(metadata: &Metadata) -> Option<Arc<Workload>> {
    let encoded = metadata.get("istio", "workload")?.as_str()?;
    Workload::endpoint(encoded).map(Arc::new)
}

impl Tier {
    fn new(hosts: Vec<Arc<Host>>) -> Self {
        let equal = hosts.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let mut sum = 0;
        let cumulative_weights = if equal {
            Vec::new()
        } else {
            hosts
                .iter()
                .map(|host| {
                    sum += u64::from(host.weight);
                    sum
                })
                .collect()
        };
        Self {
            hosts,
            cumulative_weights,
        }
    }
}

/// Effective health of each priority, percent. Source: Envoy docs, priority levels: `min(100, 1.4 × healthy/total)`.
fn health_percent(counts: &[(usize, usize)], overprovisioning: u32) -> Vec<u32> {
    counts
        .iter()
        .map(|(healthy, total)| match total {
            0 => 0,
            total => {
                let percent = u64::from(overprovisioning) * *healthy as u64 / *total as u64;
                u32::try_from(percent.min(100)).unwrap_or(100)
            }
        })
        .collect()
}

fn priority_load(counts: &[(usize, usize)], overprovisioning: u32) -> Vec<u32> {
    let health = health_percent(counts, overprovisioning);
    let sum = health.iter().sum::<u32>().min(100);
    if sum == 0 {
        return vec![0; counts.len()];
    }
    let mut left = 100;
    let mut load: Vec<u32> = health
        .iter()
        .map(|health| {
            let share = (health * 100 / sum).min(left);
            left -= share;
            share
        })
        .collect();
    // Rounding leaves a remainder: the first priority with health takes it, as Envoy.
    if let Some(position) = health.iter().position(|health| *health > 0)
        && let Some(first) = load.get_mut(position)
    {
        *first += left;
    }
    load
}

/// Envoy panics per priority when the whole cluster's normalised health is below 100; with one priority that is: healthy below threshold.
fn in_panic(counts: &[(usize, usize)], threshold_percent: u32, overprovisioning: u32) -> bool {
    if health_percent(counts, overprovisioning).iter().sum::<u32>() >= 100 {
        return false;
    }
    let (healthy, total) = counts
        .iter()
        .fold((0, 0), |(h, t), (healthy, all)| (h + healthy, t + all));
    total > 0 && (healthy * 100) < (threshold_percent as usize * total)
}

fn panic_load(counts: &[(usize, usize)]) -> Vec<u32> {
    let all_usable: Vec<_> = counts.iter().map(|(_, total)| (*total, *total)).collect();
    priority_load(&all_usable, 140)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_model::endpoint::LocalityEndpoints;

    fn endpoint(last: u8, health: Health) -> Endpoint {
        Endpoint {
            address: Address::Socket(SocketAddr::from(([10, 0, 0, last], 80))),
            hostname: String::new(),
            weight: 1,
            health,
            metadata: Metadata::default(),
        }
    }

    fn set(tiers: &[&[Health]], panic: u32) -> HostSet {
        let mut last = 0;
        let localities = tiers
            .iter()
            .zip(0..)
            .map(|(tier, priority)| LocalityEndpoints {
                weight: None,
                locality: Locality::default(),
                priority,
                endpoints: tier
                    .iter()
                    .map(|health| {
                        last += 1;
                        Arc::new(endpoint(last, *health))
                    })
                    .collect(),
            })
            .collect();
        let assignment = LoadAssignment {
            localities,
            overprovisioning_factor: 140,
        };
        let none = Previous {
            hosts: &HostSet::default(),
            is_own: false,
        };
        HostSet::build(&assignment, panic, |_| 0, none)
    }

    const UP: Health = Health::Healthy;
    const DOWN: Health = Health::Unhealthy;

    #[test]
    fn priorities_spill_as_envoy_documents() {
        assert_eq!(set(&[&[UP; 4], &[UP; 4]], 0).load, [100, 0]);
        assert_eq!(set(&[&[UP, DOWN], &[UP; 4]], 0).load, [70, 30]);
        assert_eq!(set(&[&[DOWN; 2], &[UP; 4]], 0).load, [0, 100]);
    }

    #[test]
    fn a_threshold_of_zero_never_panics() {
        let set = set(&[&[DOWN, DOWN]], 0);
        assert!(set.usable[0].hosts.is_empty());
        assert_eq!(set.load, [0]);
    }

    #[test]
    fn below_the_threshold_health_is_ignored() {
        assert_eq!(set(&[&[DOWN, DOWN, UP]], 50).usable[0].hosts.len(), 3);
    }

    #[test]
    fn an_address_that_stays_keeps_its_counters() {
        let old = set(&[&[UP, UP]], 0);
        let assignment = LoadAssignment {
            localities: vec![LocalityEndpoints {
                weight: None,
                locality: Locality::default(),
                priority: 0,
                endpoints: vec![endpoint(1, DOWN).into()],
            }],
            overprovisioning_factor: 140,
        };
        let previous = Previous {
            hosts: &old,
            is_own: true,
        };
        let new = HostSet::build(&assignment, 0, |_| 0, previous);
        assert!(Arc::ptr_eq(&new.all[0].counters, &old.all[0].counters));
    }
}
