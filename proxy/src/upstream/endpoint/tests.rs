//! What stays of a host over updates, and what is known of its health.
use outrigger_model::address::Address;
use outrigger_model::endpoint::LocalityEndpoints;
use outrigger_model::metadata::Metadata;

use super::*;
use crate::time::Instant;
use crate::upstream::lb::Settings;

fn endpoint(last: u8, health: Health) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: Address::Socket(SocketAddr::from(([10, 0, 0, last], 80))),
        additional_addresses: Default::default(),
        hostname: String::new(),
        weight: 1,
        health,
        metadata: Metadata::default(),
        health_check: None,
    })
}

fn assignment(endpoints: &[Arc<Endpoint>]) -> LoadAssignment {
    LoadAssignment {
        localities: vec![LocalityEndpoints {
            weight: None,
            locality: Locality::default(),
            priority: 0,
            endpoints: endpoints.to_vec(),
        }],
        overprovisioning_factor: 140,
        weighs_health: false,
        stale_after: None,
        dropped: outrigger_model::fraction::Fraction::NONE,
    }
}

fn build(endpoints: &[Arc<Endpoint>], previous: Previous<'_>) -> HostSet {
    make(endpoints, previous, false)
}

fn make(endpoints: &[Arc<Endpoint>], previous: Previous<'_>, is_checked: bool) -> HostSet {
    let config = outrigger_model::decode::cluster(b"\x0a\x01c")
        .expect("a cluster")
        .value;
    let making = Making {
        settings: &Settings::of(&config),
        transport_of: &|_| 0,
        state: &|_, now| HostState::new(now),
        is_checked,
        now: Instant::now(),
    };
    HostSet::build(&assignment(endpoints), making, previous)
}

fn new(endpoints: &[Arc<Endpoint>]) -> HostSet {
    let hosts = &HostSet::default();
    make(endpoints, Previous { hosts, is_own: true }, false)
}

#[test]
fn an_address_that_stays_keeps_its_counters_and_its_state() {
    let old = new(&[endpoint(1, Health::Healthy), endpoint(2, Health::Healthy)]);
    let changed = [endpoint(1, Health::Unhealthy)];
    let updated = build(
        &changed,
        Previous {
            hosts: &old,
            is_own: true,
        },
    );
    assert!(Arc::ptr_eq(&updated.all[0].counters, &old.all[0].counters));
    assert!(Arc::ptr_eq(&updated.all[0].state, &old.all[0].state));
    let replaced = build(
        &changed,
        Previous {
            hosts: &old,
            is_own: false,
        },
    );
    assert!(Arc::ptr_eq(&replaced.all[0].counters, &old.all[0].counters));
    assert!(!Arc::ptr_eq(&replaced.all[0].state, &old.all[0].state));
}

#[test]
fn the_worst_that_is_known_of_a_host_counts() {
    let check = |health, flags: &[HealthFlag], expected: Availability, text: &str| {
        let set = new(&[endpoint(1, health)]);
        for flag in flags {
            assert!(set.all[0].state.set(*flag, true));
        }
        assert_eq!(set.all[0].availability(), expected, "{health:?} {flags:?}");
        assert_eq!(set.all[0].health_flags(), text);
    };
    use Availability::{Degraded, Healthy, Unhealthy};
    use HealthFlag::{DegradedActiveCheck, FailedActiveCheck, FailedOutlierCheck};
    check(Health::Unknown, &[], Healthy, "healthy");
    check(Health::Healthy, &[], Healthy, "healthy");
    check(Health::Degraded, &[], Degraded, "/degraded_eds_health");
    check(Health::Timeout, &[], Unhealthy, "/failed_eds_health");
    check(Health::Draining, &[], Unhealthy, "/eds_status_draining");
    check(
        Health::Healthy,
        &[DegradedActiveCheck],
        Degraded,
        "/degraded_active_hc",
    );
    let both = [FailedOutlierCheck, FailedActiveCheck];
    check(
        Health::Degraded,
        &both,
        Unhealthy,
        "/failed_active_hc/failed_outlier_check/degraded_eds_health",
    );
}

#[test]
fn hosts_are_counted_by_what_they_may_have() {
    let healths = [
        Health::Unknown,
        Health::Healthy,
        Health::Degraded,
        Health::Draining,
        Health::Unhealthy,
    ];
    let endpoints: Vec<_> = (1..)
        .zip(healths)
        .map(|(last, health)| endpoint(last, health))
        .collect();
    let census = Census {
        total: 5,
        healthy: 2,
        degraded: 1,
        excluded: 1,
    };
    assert_eq!(new(&endpoints).census(), census);
    assert_eq!(crate::upstream::slot::members_of(&assignment(&endpoints)), census);
}

#[test]
fn what_other_checks_found_out_of_a_host_does_not_count() {
    use outrigger_model::endpoint::EndpointHealthCheck;
    let with = |config: Option<EndpointHealthCheck>| {
        Arc::new(Endpoint {
            health_check: config.map(Box::new),
            ..Endpoint::clone(&endpoint(1, Health::Healthy))
        })
    };
    let excused = || {
        with(Some(EndpointHealthCheck {
            is_disabled: true,
            ..EndpointHealthCheck::default()
        }))
    };
    let at = |port| {
        with(Some(EndpointHealthCheck {
            port: Some(port),
            ..EndpointHealthCheck::default()
        }))
    };
    let check = |before: Arc<Endpoint>, after: Arc<Endpoint>, stays: bool| {
        for is_checked in [true, false] {
            let old = make(
                std::slice::from_ref(&before),
                Previous {
                    hosts: &HostSet::default(),
                    is_own: true,
                },
                is_checked,
            );
            let previous = Previous {
                hosts: &old,
                is_own: true,
            };
            let new = make(std::slice::from_ref(&after), previous, is_checked);
            let is_same = Arc::ptr_eq(&old.all[0].state, &new.all[0].state);
            assert_eq!(is_same, stays || !is_checked, "{before:?} {after:?}");
        }
    };
    check(with(None), with(None), true);
    check(at(1), at(1), true);
    check(with(None), at(1), false);
    check(at(1), at(2), false);
    check(with(None), excused(), false);
    check(excused(), with(None), false);
    check(excused(), excused(), true);
}
