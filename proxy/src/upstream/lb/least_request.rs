//! Least request: of a few random hosts the one with the fewest active requests.
//!
//! As Envoy with equal weights: draws with replacement, strictly fewer wins, the first drawn on ties. With unequal weights Envoy
//! switches to an EDF schedule over `weight / (active + 1)`; here hosts are drawn by weight and compared by `(active + 1) / weight`,
//! which has the same fixed point and no O(n) rebuild. Source: Envoy docs, weighted least request.
use std::sync::atomic::Ordering;

use super::draw;
use crate::upstream::endpoint::{Host, Tier};

/// Index of the chosen host; `None` when there is none.
pub(super) fn pick(tier: &Tier, choice_count: u32, random: &mut fastrand::Rng) -> Option<usize> {
    if tier.hosts.len() == 1 {
        return Some(0);
    }
    let mut best = draw(tier, random)?;
    for _ in 1..choice_count.max(2) {
        let other = draw(tier, random)?;
        if let (Some(a), Some(b)) = (tier.hosts.get(other), tier.hosts.get(best))
            && less_loaded(a, b, !tier.cumulative_weights.is_empty())
        {
            best = other;
        }
    }
    Some(best)
}

fn less_loaded(a: &Host, b: &Host, weighted: bool) -> bool {
    let active = |host: &Host| u64::from(host.counters.rq_active.load(Ordering::Relaxed));
    if weighted {
        (active(a) + 1) * u64::from(b.weight) < (active(b) + 1) * u64::from(a.weight)
    } else {
        active(a) < active(b)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::Ordering;

    use outrigger_model::address::Address;
    use outrigger_model::cluster::LbPolicy;
    use std::sync::Arc;

    use outrigger_model::endpoint::{Endpoint, Health, LoadAssignment, LocalityEndpoints};
    use outrigger_model::metadata::Metadata;
    use outrigger_model::node::Locality;

    use crate::upstream::endpoint::{HostSet, Previous};
    use crate::upstream::lb::{Avoided, Cursor, pick, pick_untried};

    fn set(weights: &[u32]) -> HostSet {
        let endpoints = weights
            .iter()
            .zip(1..)
            .map(|(weight, last)| Endpoint {
                address: Address::Socket(SocketAddr::from(([10, 0, 0, last], 80))),
                hostname: String::new(),
                weight: *weight,
                health: Health::Unknown,
                metadata: Metadata::default(),
            })
            .map(Arc::new)
            .collect();
        let group = LocalityEndpoints {
            weight: None,
            locality: Locality::default(),
            priority: 0,
            endpoints,
        };
        let assignment = LoadAssignment {
            localities: vec![group],
            overprovisioning_factor: 140,
        };
        let none = Previous {
            hosts: &HostSet::default(),
            is_own: false,
        };
        HostSet::build(&assignment, 0, |_| 0, none)
    }

    /// Share of the first host over many picks, percent.
    fn share_of_first(set: &HostSet) -> f64 {
        let mut random = fastrand::Rng::with_seed(7);
        let policy = LbPolicy::LeastRequest { choice_count: 2 };
        let first = (0..20_000)
            .filter(|_| {
                pick(set, &policy, &Cursor::default(), &mut random)
                    .is_some_and(|h| h.address.ip().to_string() == "10.0.0.1")
            })
            .count();
        first as f64 / 200.0
    }

    #[test]
    fn a_busier_host_of_two_gets_a_quarter_as_in_envoy() {
        let set = set(&[1, 1]);
        set.all[0].counters.rq_active.store(5, Ordering::Relaxed);
        assert!((share_of_first(&set) - 25.0).abs() < 1.5);
    }

    #[test]
    fn idle_hosts_share_by_weight() {
        assert!(share_of_first(&set(&[3, 1])) > 74.0);
    }

    #[test]
    fn a_tried_host_is_avoided_while_another_exists_even_when_it_looks_idle() {
        let set = set(&[1, 1]);
        set.all[1].counters.rq_active.store(9, Ordering::Relaxed);
        let tried = [SocketAddr::from(([10, 0, 0, 1], 80))];
        let avoided = Avoided {
            tried: &tried,
            attempts: 5,
        };
        let mut random = fastrand::Rng::with_seed(7);
        let policy = LbPolicy::LeastRequest { choice_count: 2 };
        for _ in 0..1000 {
            let host = pick_untried(&set, &policy, &Cursor::default(), &mut random, avoided).expect("a host");
            assert!(!tried.contains(&host.address));
        }
    }

    #[test]
    fn a_tried_host_is_taken_when_there_is_no_other() {
        let set = set(&[1]);
        let tried = [SocketAddr::from(([10, 0, 0, 1], 80))];
        let avoided = Avoided {
            tried: &tried,
            attempts: 5,
        };
        let mut random = fastrand::Rng::with_seed(7);
        let policy = LbPolicy::LeastRequest { choice_count: 2 };
        assert!(pick_untried(&set, &policy, &Cursor::default(), &mut random, avoided).is_some());
    }
}
