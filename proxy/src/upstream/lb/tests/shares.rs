//! What each of 100,000 requests gets, beyond hosts of one kind: equal hosts, labels, zones.
use std::collections::BTreeMap;

use outrigger_model::metadata::Value;

use super::subsets::of_versions;
use super::*;
use crate::stats::Counter;

/// Each host's part of 100,000 picks is within 2 % of what is expected; `next` makes a wish.
fn check_wishes<'a>(set: &HostSet, expected: &[f64], mut next: impl FnMut(&mut fastrand::Rng) -> Wish<'a>) {
    let mut random = fastrand::Rng::with_seed(11);
    let breaker = CircuitBreaker::default();
    let mut counts: HashMap<SocketAddr, u32> = HashMap::new();
    for _ in 0..PICKS {
        let wish = next(&mut random);
        let picked = pick(set, &breaker, &wish, &mut random).expect("a host");
        *counts.entry(picked.host.address).or_default() += 1;
    }
    assert_eq!(set.all.len(), expected.len());
    for (host, expected) in set.all.iter().zip(expected) {
        let share = f64::from(counts.get(&host.address).copied().unwrap_or(0)) / f64::from(PICKS);
        assert!(
            (share - expected).abs() < 0.02,
            "{share} instead of {expected}: {counts:?}"
        );
    }
}

/// Every policy there is that chooses a host, so that a new one is not forgotten here.
fn every_policy() -> Vec<LbPolicy> {
    let policies = vec![
        LEAST_REQUEST,
        FULL_SCAN,
        LbPolicy::RoundRobin,
        LbPolicy::Random,
        LbPolicy::PeakEwma {
            decay: Duration::from_secs(10),
            default_rtt: Duration::from_millis(30),
        },
        LbPolicy::RingHash {
            minimum_size: 100_000,
            maximum_size: 8 << 20,
            function: HashFunction::XxHash,
        },
        MAGLEV,
    ];
    for policy in &policies {
        match policy {
            LbPolicy::LeastRequest { .. }
            | LbPolicy::RoundRobin
            | LbPolicy::Random
            | LbPolicy::PeakEwma { .. }
            | LbPolicy::RingHash { .. }
            | LbPolicy::Maglev { .. } => {}
            LbPolicy::ClusterProvided => unreachable!("chooses none: the client has"),
        }
    }
    policies
}

fn any(random: &mut fastrand::Rng) -> Wish<'static> {
    hashed(Some(random.u64(..)))
}

#[test]
fn equal_hosts_share_alike_under_every_policy() {
    for policy in every_policy() {
        let set = of_weights(&[1; 5], &settings(policy));
        check_wishes(&set, &[0.2; 5], any);
    }
}

#[test]
fn hosts_with_the_labels_of_a_request_share_alike_under_every_policy() {
    let wanted = BTreeMap::from([("version".to_owned(), Value::String("v1".to_owned()))]);
    let labels = Labels::new(&wanted);
    for policy in every_policy() {
        let settings = Settings {
            subsets: Some(Arc::new(super::subsets::subsets())),
            ..settings(policy)
        };
        let set = of_versions(&["v1", "v2", "v1", "v2", "v1", "v1"], &settings);
        let expected = [0.25, 0.0, 0.25, 0.0, 0.25, 0.25];
        check_wishes(&set, &expected, |random| Wish {
            labels: labels.as_ref(),
            ..any(random)
        });
    }
}

/// Source: Envoy docs, zone aware routing: of the 40 % of requests that begin here, 25 of 40 can stay, and the rest goes where there is room.
#[test]
fn zones_share_by_where_requests_begin_under_every_policy_without_hash() {
    for policy in every_policy() {
        let settings = settings(policy);
        if settings.wants_hash() {
            continue;
        }
        let place = Locality {
            zone: "a".to_owned(),
            ..Locality::default()
        };
        let local = Arc::new(LocalZone::new("peers".into(), place));
        let healthy = |count: usize| vec![(1, Health::Healthy); count];
        let peers = [healthy(4), healthy(4), healthy(2)];
        let peers: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .zip(&peers)
            .map(|(zone, hosts)| (zone, 0, None, hosts.as_slice()))
            .collect();
        local.note("peers", &hosts(&peers, &settings).all);
        let settings = settings.with_zones(&local, "c", || ZoneStats::new(|_| Counter::none()));
        let members = [healthy(5), healthy(10), healthy(5)];
        let members: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .zip(&members)
            .map(|(zone, hosts)| (zone, 0, None, hosts.as_slice()))
            .collect();
        let set = hosts(&members, &settings);
        let each = [(5, 0.625), (10, 0.375 * 2.0 / 3.0), (5, 0.375 / 3.0)];
        let expected = each.map(|(count, share)| vec![share / f64::from(count as u32); count]);
        check_wishes(&set, &expected.concat(), any);
    }
}
