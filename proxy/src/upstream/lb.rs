//! Choosing a host: a priority by its load, then a host of it by the cluster's policy.
mod least_request;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use outrigger_model::cluster::LbPolicy;

use super::endpoint::{Host, HostSet, Tier};

/// State of round robin: the number of hosts handed out. One a cluster: workers take turns together, so that a few connections on many
/// workers are spread too.
#[derive(Debug)]
pub(crate) struct Cursor(AtomicUsize);

/// What one request or connection asks of the balancer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish<'a> {
    /// Where a redirected connection wanted to go; for ORIGINAL_DST.
    pub(crate) dialled: Option<SocketAddr>,
    /// What the hash policies make of the request; read by RING_HASH and MAGLEV only, so compute it only if
    /// [`Cluster::wants_hash`](super::cluster::Cluster::wants_hash). `None`: no policy applies, and a random number takes its place.
    pub(crate) hash: Option<u64>,
    /// Hosts that have failed.
    pub(crate) avoided: Avoided<'a>,
}

/// Hosts that a retry avoids while it can.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Avoided<'a> {
    /// They have failed.
    pub(crate) tried: &'a [SocketAddr],
    /// Draws by the policy before any other host of the priority is taken (`host_selection_retry_max_attempts`).
    pub(crate) attempts: u32,
}

/// Picks a host; `None`: no host may be used (`UH`).
fn pick(set: &HostSet, policy: &LbPolicy, cursor: &Cursor, random: &mut fastrand::Rng) -> Option<Arc<Host>> {
    let tier = tier(set, random.u32(0..100))?;
    let index = match policy {
        LbPolicy::LeastRequest { choice_count } => least_request::pick(tier, *choice_count, random),
        LbPolicy::Random | LbPolicy::ClusterProvided => draw(tier, random),
        LbPolicy::RoundRobin => Some(cursor.next(tier, random)),
        // The configuration's problems say so: least request takes their place until the traffic issue.
        LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => least_request::pick(tier, 2, random),
    }?;
    tier.hosts.get(index).cloned()
}

/// Picks a host that is not among `tried`: up to `attempts` further draws by the policy (Envoy's `host_selection_retry_max_attempts`), then
/// any untried one of the same priority. Envoy then takes a tried one; least request makes that likely, since a host that refuses
/// connections has no active request. A tried host is taken only when there is no other.
pub(crate) fn pick_untried(
    set: &HostSet,
    policy: &LbPolicy,
    cursor: &Cursor,
    random: &mut fastrand::Rng,
    Avoided { tried, attempts }: Avoided<'_>,
) -> Option<Arc<Host>> {
    let mut host = pick(set, policy, cursor, random)?;
    if tried.is_empty() {
        return Some(host);
    }
    for _ in 0..attempts {
        if !tried.contains(&host.address) {
            return Some(host);
        }
        host = pick(set, policy, cursor, random)?;
    }
    if tried.contains(&host.address)
        && let Some(tier) = set.usable.get(host.priority as usize)
    {
        let start = random.usize(0..tier.hosts.len().max(1));
        let mut from_start = tier.hosts.iter().cycle().skip(start).take(tier.hosts.len());
        host = from_start
            .find(|other| !tried.contains(&other.address))
            .cloned()
            .unwrap_or(host);
    }
    Some(host)
}

/// The priority that `percent` (0..100) falls into.
fn tier(set: &HostSet, percent: u32) -> Option<&Tier> {
    let mut sum = 0;
    set.load
        .iter()
        .zip(&set.usable)
        .find(|(load, _)| {
            sum += **load;
            percent < sum
        })
        .map(|(_, tier)| tier)
        .filter(|tier| !tier.hosts.is_empty())
}

/// A random host by weight.
fn draw(tier: &Tier, random: &mut fastrand::Rng) -> Option<usize> {
    match tier.cumulative_weights.last() {
        _ if tier.hosts.is_empty() => None,
        None => Some(random.usize(0..tier.hosts.len())),
        Some(sum) => {
            let ticket = random.u64(0..*sum);
            Some(tier.cumulative_weights.partition_point(|upto| *upto <= ticket))
        }
    }
}

impl Default for Cursor {
    /// Begins anywhere: many proxies that start together do not all begin with the same host.
    fn default() -> Self {
        Self(AtomicUsize::new(fastrand::usize(..usize::MAX / 2)))
    }
}

impl Cursor {
    fn next(&self, tier: &Tier, random: &mut fastrand::Rng) -> usize {
        // Unequal weights: a weighted draw has the same shares as Envoy's EDF schedule, with more variance.
        if !tier.cumulative_weights.is_empty() {
            return draw(tier, random).unwrap_or(0);
        }
        let index = self.0.fetch_add(1, Ordering::Relaxed);
        index % tier.hosts.len().max(1)
    }
}
