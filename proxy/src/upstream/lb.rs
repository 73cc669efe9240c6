//! Choosing a host: a priority by its load, then a locality by its weight, then a host by the cluster's policy.
//!
//! All that depends on the hosts alone is computed when they change ([`Balance`]); a pick takes no lock and allocates nothing.
mod balance;
mod hashing;
mod labels;
mod least_request;
mod priority;
mod schedule;
mod slow_start;
mod subset;
mod tier;
mod zone;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_model::cluster::{Cluster as Config, LbPolicy, LocalityMode, Percent, SlowStart, SubsetPolicy};
use tokio::sync::watch;

pub(crate) use self::balance::{Balance, Grouping, Ring};
pub(crate) use self::labels::Labels;
pub(crate) use self::subset::{Making as SubsetMaking, SubsetStats, Subsets};
use self::zone::Zoned;
pub(crate) use self::zone::{LocalZone, ZoneStats};
use super::circuit_breaker::CircuitBreaker;
use super::endpoint::{Availability, Host, HostSet};

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
    /// Labels that the host has to have; for clusters with subsets.
    pub(crate) labels: Option<&'a Labels>,
    /// Priorities that get nothing while there are others.
    pub(crate) excluded_priorities: &'a [u32],
    /// A host that is taken before the policy is asked.
    pub(crate) first: Option<First>,
}

/// A host that a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// That of its session, if its health allows.
    Session {
        /// `None`: what the session says is no address.
        address: Option<SocketAddr>,
        /// No other host will do.
        is_strict: bool,
    },
    /// Whatever its health is.
    Any(SocketAddr),
}

/// Hosts that a retry avoids while it can.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Avoided<'a> {
    /// They have failed.
    pub(crate) tried: &'a [SocketAddr],
    /// Draws by the policy before any other host of the priority is taken (`host_selection_retry_max_attempts`).
    pub(crate) attempts: u32,
}

/// What of a cluster's configuration decides how its hosts share the load.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    policy: LbPolicy,
    /// Whole percent, as Envoy compares.
    panic_threshold: u32,
    locality: LocalityMode,
    slow_start: Option<SlowStart>,
    /// How much active requests count; 0: not at all, and by weight alone.
    active_request_bias: f64,
    hash_balance_factor: Option<u32>,
    hash_by_hostname: bool,
    subsets: Option<Arc<SubsetPolicy>>,
    /// Zones count.
    zoned: Option<Zoned>,
}

impl Settings {
    /// Those of `config`.
    pub(crate) fn of(config: &Config) -> Self {
        let Percent(hundredths) = config.healthy_panic_threshold_percent;
        Self {
            policy: config.lb_policy.clone(),
            panic_threshold: (hundredths + 50) / 100,
            locality: config.locality,
            slow_start: config.slow_start,
            active_request_bias: config.active_request_bias.map_or(1.0, |bias| bias.0.max(0.0)),
            hash_balance_factor: config.hash_balance_factor,
            hash_by_hostname: config.hash_by_hostname,
            subsets: config.subsets.as_deref().map(|subsets| Arc::new(subsets.clone())),
            zoned: None,
        }
    }

    /// With zones, if it is known where this proxy and its peers are; `stats` makes their statistics. The peers' own cluster, `cluster`
    /// or another, has none: it would be told of itself.
    pub(crate) fn with_zones(
        self,
        local: &Arc<LocalZone>,
        cluster: &str,
        stats: impl FnOnce() -> ZoneStats,
    ) -> Self {
        let LocalityMode::ZoneAware(settings) = self.locality else {
            return self;
        };
        if !local.is_known() || local.is_of(cluster) || self.wants_hash() {
            return self;
        }
        let zoned = Zoned {
            local: local.clone(),
            stats: Arc::new(stats()),
            settings,
            panic_threshold: self.panic_threshold,
        };
        Self {
            zoned: Some(zoned),
            ..self
        }
    }

    /// Told when zones count otherwise; `None`: they do not.
    pub(crate) fn zone_changes(&self) -> Option<watch::Receiver<()>> {
        self.zoned.as_ref().map(|zoned| zoned.local.changes())
    }

    /// By which labels hosts are grouped, if they are.
    pub(crate) fn subsets(&self) -> Option<&Arc<SubsetPolicy>> {
        self.subsets.as_ref()
    }

    /// Time in which measured latencies fade, if the policy looks at them.
    pub(crate) fn latency_decay(&self) -> Option<Duration> {
        match self.policy {
            LbPolicy::PeakEwma { decay, .. } => Some(decay),
            _ => None,
        }
    }

    /// The policy looks at the hash of a request.
    pub(crate) fn wants_hash(&self) -> bool {
        matches!(self.policy, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. })
    }
}

/// A chosen host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Picked<'a> {
    /// It.
    pub(crate) host: &'a Arc<Host>,
    /// Chosen whatever its health is.
    pub(crate) in_panic: bool,
}

/// Chooses among `hosts`; `None`: no host may be used (`UH`).
///
/// A host that is not among the avoided ones is preferred: up to `attempts` further draws by the policy (Envoy's
/// `host_selection_retry_max_attempts`), then any other one of the same priority. Envoy then takes a tried one; least request makes that
/// likely, since a host that refuses connections has no active request. A tried host is taken only when there is no other.
pub(crate) fn choose<'a>(
    hosts: &'a HostSet,
    stats: Option<&SubsetStats>,
    mut picking: Picking<'_>,
) -> Option<Picked<'a>> {
    let any = (&hosts.balance, &hosts.all[..]);
    match &hosts.subsets {
        None => among(any.0, any.1, &mut picking),
        Some(subsets) => subsets.choose(any, stats, &mut picking),
    }
}

/// What a pick goes by, beside the hosts.
pub(crate) struct Picking<'a> {
    /// Active requests of the cluster.
    pub(crate) breaker: &'a CircuitBreaker,
    /// What is asked for.
    pub(crate) wish: &'a Wish<'a>,
    /// Chance.
    pub(crate) random: &'a mut fastrand::Rng,
}

/// Chooses among `all`, whose load `balance` shares.
#[inline]
fn among<'a>(
    balance: &'a Balance,
    all: &'a [Arc<Host>],
    Picking {
        breaker,
        wish,
        random,
    }: &mut Picking<'_>,
) -> Option<Picked<'a>> {
    let Avoided { tried, attempts } = wish.avoided;
    let mut picked = balance.pick(wish, 0, breaker, random)?;
    if tried.is_empty() {
        return Some(picked);
    }
    for attempt in 1..=attempts {
        if !tried.contains(&picked.host.address) {
            return Some(picked);
        }
        picked = balance.pick(wish, attempt, breaker, random)?;
    }
    if tried.contains(&picked.host.address)
        && let Some(host) = untried(all, picked, tried, random)
    {
        picked.host = host;
    }
    Some(picked)
}

/// Another host of the same priority that may be used.
fn untried<'a>(
    all: &'a [Arc<Host>],
    picked: Picked<'_>,
    tried: &[SocketAddr],
    random: &mut fastrand::Rng,
) -> Option<&'a Arc<Host>> {
    let start = random.usize(0..all.len().max(1));
    let mut from_start = all.iter().cycle().skip(start).take(all.len());
    from_start.find(|host| {
        host.priority == picked.host.priority
            && (picked.in_panic || host.availability() != Availability::Unhealthy)
            && !tried.contains(&host.address)
    })
}

#[cfg(test)]
mod tests;
