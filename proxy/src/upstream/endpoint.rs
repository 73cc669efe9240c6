//! Hosts of a cluster and how they are grouped for balancing.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use outrigger_model::address::Address;
use outrigger_model::endpoint::{Endpoint, Health, LoadAssignment};
use outrigger_model::metadata::Metadata;
use outrigger_model::node::Locality;

use crate::telemetry::workload::Workload;

/// One upstream host. Immutable but for its counters, which survive endpoint updates that keep the address.
#[derive(Debug)]
pub(crate) struct Host {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Its name, empty when it has none.
    pub(crate) hostname: String,
    /// 1..
    pub(crate) weight: u32,
    /// As the control plane said.
    pub(crate) health: Health,
    /// 0 is the most wanted.
    pub(crate) priority: u32,
    /// Where it runs.
    pub(crate) locality: Locality,
    /// Endpoint metadata.
    pub(crate) metadata: Metadata,
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
        matches!(self.health, Health::Unknown | Health::Healthy | Health::Degraded)
    }
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
}

/// The hosts of one priority.
#[derive(Debug, Default)]
pub(crate) struct Tier {
    /// Pickable hosts.
    pub(crate) hosts: Vec<Arc<Host>>,
    /// Running sums of weights beside `hosts`; empty when all weights are equal.
    pub(crate) cumulative_weights: Vec<u64>,
}

impl HostSet {
    /// Groups the endpoints of an assignment. `transport_of` chooses the transport by endpoint metadata; hosts with a name for an
    /// address have to be resolved before. Counters come from `previous` where the address stays.
    pub(crate) fn build(
        assignment: &LoadAssignment,
        panic_threshold_percent: u32,
        transport_of: impl Fn(&Metadata) -> usize,
        previous: &HostSet,
    ) -> Self {
        let mut all: Vec<Arc<Host>> = Vec::new();
        for group in &assignment.localities {
            for endpoint in &group.endpoints {
                let Address::Socket(address) = endpoint.address else {
                    continue;
                };
                // Envoy keeps the first of endpoints with the same address.
                if all.iter().any(|host| host.address == address) {
                    continue;
                }
                let counters = previous
                    .find(address)
                    .map(|host| host.counters.clone())
                    .unwrap_or_default();
                all.push(Arc::new(host(
                    endpoint,
                    address,
                    group.priority,
                    &group.locality,
                    &transport_of,
                    counters,
                )));
            }
        }
        Self::from_hosts(all, panic_threshold_percent, assignment.overprovisioning_factor)
    }

    /// Groups hosts by priority and health.
    fn from_hosts(all: Vec<Arc<Host>>, panic_threshold_percent: u32, overprovisioning: u32) -> Self {
        let priorities = all
            .iter()
            .map(|host| host.priority as usize + 1)
            .max()
            .unwrap_or(0);
        let mut totals = vec![0_usize; priorities];
        let mut healthy = vec![Vec::new(); priorities];
        for host in &all {
            let priority = host.priority as usize;
            if let (Some(total), Some(tier)) = (totals.get_mut(priority), healthy.get_mut(priority)) {
                *total += 1;
                if host.is_healthy() {
                    tier.push(host.clone());
                }
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
        Self { all, usable, load }
    }

    /// The host at this address.
    pub(crate) fn find(&self, address: SocketAddr) -> Option<&Arc<Host>> {
        self.all.iter().find(|host| host.address == address)
    }

    /// Hosts that EDS calls healthy.
    pub(crate) fn healthy_count(&self) -> usize {
        self.all.iter().filter(|host| host.is_healthy()).count()
    }
}

fn host(
    endpoint: &Endpoint,
    address: SocketAddr,
    priority: u32,
    locality: &Locality,
    transport_of: &impl Fn(&Metadata) -> usize,
    counters: Arc<HostCounters>,
) -> Host {
    Host {
        address,
        hostname: endpoint.hostname.clone(),
        weight: endpoint.weight.max(1),
        health: endpoint.health,
        priority,
        locality: locality.clone(),
        metadata: endpoint.metadata.clone(),
        workload: workload(&endpoint.metadata),
        transport: transport_of(&endpoint.metadata),
        counters,
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
                locality: Locality::default(),
                priority,
                endpoints: tier
                    .iter()
                    .map(|health| {
                        last += 1;
                        endpoint(last, *health)
                    })
                    .collect(),
            })
            .collect();
        let assignment = LoadAssignment {
            localities,
            overprovisioning_factor: 140,
        };
        HostSet::build(&assignment, panic, |_| 0, &HostSet::default())
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
                locality: Locality::default(),
                priority: 0,
                endpoints: vec![endpoint(1, DOWN)],
            }],
            overprovisioning_factor: 140,
        };
        let new = HostSet::build(&assignment, 0, |_| 0, &old);
        assert!(Arc::ptr_eq(&new.all[0].counters, &old.all[0].counters));
    }
}
