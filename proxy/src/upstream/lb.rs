//! Choosing a host: a priority by its load, then a host of it by the cluster's policy.
mod least_request;

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_model::cluster::LbPolicy;

use super::endpoint::{Host, HostSet, Tier};

/// State of round robin, one a worker and cluster.
#[derive(Debug, Default)]
pub(crate) struct Cursor(std::cell::Cell<usize>);

/// Picks a host; `None`: no host may be used (`UH`).
pub(crate) fn pick(
    set: &HostSet,
    policy: &LbPolicy,
    cursor: &Cursor,
    random: &mut fastrand::Rng,
) -> Option<Arc<Host>> {
    let tier = tier(set, random.u32(0..100))?;
    let index = match policy {
        LbPolicy::LeastRequest { choice_count } => least_request::pick(tier, *choice_count, random),
        LbPolicy::Random | LbPolicy::ClusterProvided => draw(tier, random),
        LbPolicy::RoundRobin => Some(cursor.next(tier, random)),
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
    tried: &[SocketAddr],
    attempts: u32,
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

impl Cursor {
    fn next(&self, tier: &Tier, random: &mut fastrand::Rng) -> usize {
        // Unequal weights: a weighted draw has the same shares as Envoy's EDF schedule, with more variance.
        if !tier.cumulative_weights.is_empty() {
            return draw(tier, random).unwrap_or(0);
        }
        let index = self.0.get();
        self.0.set(index.wrapping_add(1));
        index % tier.hosts.len().max(1)
    }
}
