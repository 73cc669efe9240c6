//! What findings do to a host, and when it is asked again.
use std::net::SocketAddr;

use outrigger_model::address::Address;
use outrigger_model::cluster::HealthChecker;
use outrigger_model::endpoint::{Endpoint, Health};
use outrigger_model::metadata::Metadata;

use super::*;
use crate::upstream::endpoint::{Availability, HostState};

fn config() -> Config {
    let seconds = Duration::from_secs;
    Config {
        timeout: seconds(1),
        interval: seconds(10),
        initial_jitter: Duration::ZERO,
        interval_jitter: Duration::ZERO,
        interval_jitter_percent: 0,
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        reuses_connection: true,
        no_traffic_interval: seconds(60),
        no_traffic_healthy_interval: seconds(70),
        unhealthy_interval: seconds(20),
        unhealthy_edge_interval: seconds(3),
        healthy_edge_interval: seconds(2),
        checker: HealthChecker::Tcp {
            send: Vec::new(),
            receive: Vec::new(),
        },
    }
}

fn host() -> Host {
    let state = HostState::new(Instant::now());
    state.set(HealthFlag::FailedActiveCheck, true);
    Host {
        address: SocketAddr::from(([10, 0, 0, 1], 80)),
        weight: 1,
        health: Health::Unknown,
        priority: 0,
        locality: Arc::default(),
        config: Arc::new(Endpoint {
            address: Address::Socket(SocketAddr::from(([10, 0, 0, 1], 80))),
            additional_addresses: Default::default(),
            hostname: String::new(),
            weight: 1,
            health: Health::Unknown,
            metadata: Metadata::default(),
            health_check: None,
        }),
        workload: None,
        transport: 0,
        counters: Arc::default(),
        state: Arc::new(state),
    }
}

const WELL: Finding = Finding::Well { degraded: false };
const DEGRADED: Finding = Finding::Well { degraded: true };
use Availability::{Degraded, Healthy, Unhealthy};
use Finding::{Ill, Lost, Retriable, TimedOut};

/// Availability after each finding, and seconds until the next check with traffic.
fn check(findings: &[(Finding, Availability, u64)]) {
    let (host, config, mut session) = (host(), config(), Session::new());
    for (index, (finding, availability, seconds)) in findings.iter().enumerate() {
        let before = host.availability();
        let step = session.judge(&host, &config, *finding, Instant::now());
        assert_eq!(host.availability(), *availability, "{index} of {findings:?}");
        assert_eq!(step.changed, before != *availability, "{index} of {findings:?}");
        assert_eq!(
            wait(&config, step, true),
            Duration::from_secs(*seconds),
            "{index} of {findings:?}"
        );
    }
}

#[test]
fn the_first_success_is_enough_and_later_ones_are_counted() {
    check(&[(WELL, Healthy, 10), (WELL, Healthy, 10)]);
    check(&[
        (Lost, Unhealthy, 20),
        (WELL, Unhealthy, 2),
        (Lost, Unhealthy, 20),
        (WELL, Unhealthy, 2),
        (WELL, Healthy, 10),
    ]);
}

#[test]
fn lost_answers_are_counted_and_a_bad_one_is_enough() {
    check(&[
        (WELL, Healthy, 10),
        (Lost, Healthy, 3),
        (TimedOut, Healthy, 3),
        (WELL, Healthy, 10),
        (Lost, Healthy, 3),
        (Lost, Healthy, 3),
        (TimedOut, Unhealthy, 20),
    ]);
    check(&[(WELL, Healthy, 10), (Ill, Unhealthy, 20)]);
    check(&[
        (WELL, Healthy, 10),
        (Retriable, Healthy, 3),
        (Lost, Healthy, 3),
        (Retriable, Unhealthy, 20),
    ]);
}

#[test]
fn an_answer_may_say_that_the_host_is_degraded() {
    check(&[
        (DEGRADED, Degraded, 10),
        (WELL, Healthy, 10),
        (DEGRADED, Degraded, 10),
    ]);
}

#[test]
fn without_traffic_checks_are_rare_and_jitter_only_adds() {
    let mut config = config();
    let step = |is_well, is_edge| Step {
        changed: false,
        is_edge,
        is_well,
    };
    assert_eq!(wait(&config, step(false, true), false), Duration::from_secs(60));
    assert_eq!(wait(&config, step(true, true), false), Duration::from_secs(60));
    assert_eq!(wait(&config, step(true, false), false), Duration::from_secs(70));
    config.interval_jitter_percent = 50;
    config.interval_jitter = Duration::from_secs(1);
    for _ in 0..100 {
        let wait = wait(&config, step(true, true), true);
        assert!((2.0..=4.0).contains(&wait.as_secs_f64()), "{wait:?}");
    }
}

#[test]
fn a_late_answer_is_told_apart_in_the_flags() {
    let (host, config, mut session) = (host(), config(), Session::new());
    session.judge(&host, &config, TimedOut, Instant::now());
    assert_eq!(host.health_flags(), "/failed_active_hc/active_hc_timeout");
    session.judge(&host, &config, Lost, Instant::now());
    assert_eq!(host.health_flags(), "/failed_active_hc");
    session.judge(&host, &config, WELL, Instant::now());
    session.judge(&host, &config, WELL, Instant::now());
    session.judge(&host, &config, TimedOut, Instant::now());
    assert_eq!(host.health_flags(), "healthy");
}

#[test]
fn a_host_that_failed_by_its_own_word_has_to_pass_as_often_as_any() {
    let (host, config, mut session) = (host(), config(), Session::new());
    let judge = |session: &mut Session| session.judge(&host, &config, WELL, Instant::now());
    judge(&mut session);
    assert!(host.state.fail_at_once() && !host.state.fail_at_once());
    assert_eq!(
        host.health_flags(),
        "/failed_active_hc/excluded_via_immediate_hc_fail"
    );
    assert!(judge(&mut session).is_edge && host.is_excluded());
    assert!(judge(&mut session).changed);
    assert_eq!(host.health_flags(), "healthy");
}

#[test]
fn blocks_come_in_their_order() {
    let blocks = [b"ab".to_vec(), b"c".to_vec()];
    assert!(probe::has_all(b"xabxc", &blocks) && probe::has_all(b"", &[]));
    assert!(!probe::has_all(b"cab", &blocks) && !probe::has_all(b"a", &blocks));
}

#[test]
fn a_grpc_answer_is_one_whole_message_that_says_serving() {
    for answer in [&[0, 0, 0, 0, 2, 8, 1][..], &[0, 0, 0, 0, 4, 8, 1, 16, 7]] {
        assert!(probe::is_serving(answer), "{answer:?}");
    }
    let others = [
        &[][..],
        &[0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 2, 8, 2],
        &[0, 0, 0, 0, 2, 8],
        &[0, 0, 0, 0, 1, 8],
        &[1, 0, 0, 0, 2, 8, 1],
        &[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 1],
        &[0, 255, 255, 255, 255, 8, 1],
    ];
    for answer in others {
        assert!(!probe::is_serving(answer), "{answer:?}");
    }
}
