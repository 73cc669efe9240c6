//! Every way into an ejection and out of it, on a clock of its own.
use std::net::SocketAddr;

use outrigger_model::address::Address;
use outrigger_model::cluster::Cluster as ClusterConfig;
use outrigger_model::endpoint::{Endpoint, Health, LoadAssignment, LocalityEndpoints};
use outrigger_model::metadata::Metadata;
use outrigger_model::node::Locality;

use super::*;
use crate::stats::{Counter, Gauge};
use crate::upstream::endpoint::{Availability, HostState, Making, Previous};
use crate::upstream::lb::Settings;

/// A detector with Envoy's defaults but for what `change` sets, and its hosts.
struct Scene {
    detector: Detector,
    hosts: HostSet,
    now: Instant,
}

impl Scene {
    fn new(count: u8, change: impl FnOnce(&mut Config)) -> Self {
        // name: c, outlier_detection: {}
        let bytes = b"\x0a\x01c\x9a\x01\x00";
        let cluster: ClusterConfig = outrigger_model::decode::cluster(bytes).expect("a cluster").value;
        let mut config = cluster.outlier_detection.clone().expect("it is there");
        config.max_ejection_percent = 100;
        change(&mut config);
        let endpoints = (1..=count).map(|last| {
            Arc::new(Endpoint {
                address: Address::Socket(SocketAddr::from(([10, 0, 0, last], 80))),
                additional_addresses: Default::default(),
                hostname: String::new(),
                weight: 1,
                health: Health::Healthy,
                metadata: Metadata::default(),
                health_check: None,
            })
        });
        let assignment = LoadAssignment {
            localities: vec![LocalityEndpoints {
                locality: Locality::default(),
                priority: 0,
                weight: None,
                endpoints: endpoints.collect(),
            }],
            overprovisioning_factor: 140,
            weighs_health: false,
            stale_after: None,
            dropped: outrigger_model::fraction::Fraction::NONE,
        };
        let making = Making {
            settings: &Settings::of(&cluster),
            transport_of: &|_| 0,
            state: &|_, now| HostState::new(now).watched(),
            is_checked: false,
            now: Instant::now(),
        };
        let nothing = HostSet::default();
        let previous = Previous {
            hosts: &nothing,
            is_own: true,
        };
        Self {
            detector: Detector::new(&config, OutlierStats::new(|_| Counter::none(), |_| Gauge::none())),
            hosts: HostSet::build(&assignment, making, previous),
            now: Instant::now(),
        }
    }

    fn tell(&self, host: usize, outcomes: &[Outcome]) {
        let host = &self.hosts.all[host];
        let monitor = host.state.monitor().expect("watched");
        for outcome in outcomes {
            for reason in self.detector.note(monitor, *outcome).into_iter().flatten() {
                self.detector.trip(&self.hosts, host, reason, self.now);
            }
        }
    }

    /// Requests of one host, of which so many failed.
    fn serve(&self, host: usize, requests: usize, failures: usize) {
        // Spread, so that there are never many in a row.
        let outcome = |index: usize| match (index + 1) * failures / requests > index * failures / requests {
            true => Outcome::Status(500),
            false => Outcome::Status(200),
        };
        self.tell(host, &(0..requests).map(outcome).collect::<Vec<_>>());
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.detector.tick(&self.hosts, self.now);
    }

    fn ejected(&self) -> Vec<usize> {
        let is_ejected = |index: &usize| self.hosts.all[*index].state.has(HealthFlag::FailedOutlierCheck);
        (0..self.hosts.all.len()).filter(is_ejected).collect()
    }
}

const OK: Outcome = Outcome::Status(200);
const ERROR: Outcome = Outcome::Status(500);
const GATEWAY: Outcome = Outcome::Status(503);

#[test]
fn five_errors_in_a_row_eject_and_a_success_between_does_not() {
    let check = |outcomes: &[Outcome], expected: &[usize]| {
        let scene = Scene::new(2, |_| {});
        scene.tell(1, outcomes);
        assert_eq!(scene.ejected(), expected, "{outcomes:?}");
    };
    check(&[ERROR; 4], &[]);
    check(&[ERROR; 5], &[1]);
    check(&[ERROR, ERROR, ERROR, ERROR, OK, ERROR], &[]);
    check(&[Outcome::Status(404); 9], &[]);
    check(&[Outcome::ConnectFailed; 5], &[1]);
    check(&[Outcome::TimedOut; 5], &[1]);
    // A connection alone is no answer.
    check(
        &[
            ERROR,
            ERROR,
            Outcome::Connected,
            ERROR,
            Outcome::Connected,
            ERROR,
            ERROR,
        ],
        &[1],
    );
    check(&[ERROR, ERROR, ERROR, ERROR, Outcome::Served, ERROR], &[]);
}

#[test]
fn gateway_errors_have_a_counter_of_their_own() {
    let check = |outcomes: &[Outcome], expected: &[usize]| {
        let scene = Scene::new(2, |config| {
            config.consecutive_gateway_failure = 3;
            config.enforcing_consecutive_gateway_failure = 100;
            config.enforcing_consecutive_5xx = 0;
        });
        scene.tell(0, outcomes);
        assert_eq!(scene.ejected(), expected, "{outcomes:?}");
    };
    check(&[GATEWAY; 3], &[0]);
    check(&[GATEWAY, GATEWAY, ERROR, GATEWAY, GATEWAY], &[]);
    check(&[ERROR; 9], &[]);
}

#[test]
fn errors_of_this_side_count_apart_when_they_are_split() {
    let check = |outcomes: &[Outcome], expected: &[usize]| {
        let scene = Scene::new(2, |config| {
            config.splits_local_origin_errors = true;
            config.consecutive_local_origin_failure = 3;
        });
        scene.tell(0, outcomes);
        assert_eq!(scene.ejected(), expected, "{outcomes:?}");
    };
    check(
        &[Outcome::ConnectFailed, Outcome::TimedOut, Outcome::ConnectFailed],
        &[0],
    );
    // An answer says nothing of connections, a connection does.
    check(
        &[
            Outcome::ConnectFailed,
            Outcome::ConnectFailed,
            ERROR,
            Outcome::ConnectFailed,
        ],
        &[0],
    );
    check(
        &[
            Outcome::ConnectFailed,
            Outcome::ConnectFailed,
            Outcome::Connected,
            Outcome::ConnectFailed,
        ],
        &[],
    );
    check(&[ERROR, ERROR, Outcome::ConnectFailed, ERROR, ERROR, ERROR], &[0]);
}

#[test]
fn not_more_than_the_allowed_share_is_ejected() {
    let check = |count: u8, percent: u32, always_one: bool, expected: usize| {
        let scene = Scene::new(count, |config| {
            config.max_ejection_percent = percent;
            config.always_ejects_one_host = always_one;
        });
        (0..usize::from(count)).for_each(|host| scene.tell(host, &[ERROR; 5]));
        assert_eq!(scene.ejected().len(), expected, "{count} {percent}");
    };
    // Envoy's default of 10 % ejects nobody of nine hosts.
    check(9, 10, false, 0);
    check(9, 10, true, 1);
    check(10, 10, false, 1);
    check(20, 10, false, 2);
    check(3, 50, false, 1);
    check(3, 100, false, 3);
}

#[test]
fn what_is_not_enforced_ejects_nobody_and_is_seen_again() {
    let scene = Scene::new(2, |config| config.enforcing_consecutive_5xx = 0);
    scene.tell(0, &[ERROR; 20]);
    assert!(scene.ejected().is_empty());
}

/// Source: Envoy docs, ejection algorithm: base ejection time times the number of times in a row, capped; decremented in good times.
#[test]
fn each_ejection_is_longer_up_to_the_limit_and_shorter_after_good_times() {
    let mut scene = Scene::new(2, |config| config.max_ejection_time = Duration::from_secs(60));
    let mut lasted = Vec::new();
    for _ in 0..4 {
        scene.tell(0, &[ERROR; 5]);
        assert_eq!(scene.ejected(), [0]);
        let begun = scene.now;
        while !scene.ejected().is_empty() {
            scene.pass(10);
        }
        lasted.push((scene.now - begun).as_secs());
    }
    assert_eq!(lasted, [30, 60, 60, 60]);
    // Four quiet intervals take back what is above one.
    (0..4).for_each(|_| scene.pass(10));
    scene.tell(0, &[ERROR; 5]);
    scene.pass(20);
    assert_eq!(scene.ejected(), [0]);
    scene.pass(10);
    assert!(scene.ejected().is_empty());
}

#[test]
fn jitter_makes_an_ejection_longer() {
    let mut scene = Scene::new(2, |config| {
        config.max_ejection_time_jitter = Duration::from_secs(1000)
    });
    let mut longest = 0;
    for _ in 0..5 {
        scene.tell(0, &[ERROR; 5]);
        let begun = scene.now;
        while !scene.ejected().is_empty() {
            scene.pass(10);
        }
        longest = longest.max((scene.now - begun).as_secs());
        (0..9).for_each(|_| scene.pass(10));
    }
    assert!((60..=1310).contains(&longest), "{longest}");
}

#[test]
fn a_host_that_came_back_begins_to_count_anew() {
    let mut scene = Scene::new(2, |_| {});
    scene.tell(0, &[ERROR; 5]);
    scene.tell(0, &[ERROR; 4]);
    scene.pass(30);
    assert!(scene.ejected().is_empty());
    scene.tell(0, &[ERROR; 4]);
    assert!(scene.ejected().is_empty());
    scene.tell(0, &[ERROR]);
    assert_eq!(scene.ejected(), [0]);
    assert!(scene.detector.uneject(&scene.hosts.all[0], scene.now));
    assert!(!scene.detector.uneject(&scene.hosts.all[0], scene.now));
}

/// Source: the example in Envoy's documentation of the success rate: 50, 100, 100, 100, 100 have the threshold 52.
#[test]
fn a_host_far_below_the_mean_success_rate_is_ejected() {
    let mut scene = Scene::new(5, |config| config.enforcing_consecutive_5xx = 0);
    scene.serve(0, 200, 100);
    (1..5).for_each(|host| scene.serve(host, 200, 0));
    scene.pass(10);
    let threshold = scene.detector.thresholds().external;
    assert!(
        (threshold.mean - 90.0).abs() < 1e-9 && (threshold.ejection - 52.0).abs() < 1e-9,
        "{threshold:?}"
    );
    assert_eq!(scene.ejected(), [0]);
    let shown = |host: usize| {
        scene.hosts.all[host]
            .state
            .monitor()
            .expect("watched")
            .shown_rate(false)
    };
    assert_eq!([shown(0), shown(1)], [50.0, 100.0]);
}

#[test]
fn too_few_hosts_or_requests_are_not_judged() {
    let check = |hosts: u8, requests: usize| {
        let mut scene = Scene::new(hosts, |config| config.enforcing_consecutive_5xx = 0);
        scene.serve(0, requests, requests);
        (1..usize::from(hosts)).for_each(|host| scene.serve(host, requests, 0));
        scene.pass(10);
        assert_eq!(scene.detector.thresholds().external, UNKNOWN);
        assert!(scene.ejected().is_empty());
    };
    check(4, 200);
    check(5, 99);
}

#[test]
fn a_share_of_failures_ejects_when_it_is_enforced() {
    let mut scene = Scene::new(6, |config| {
        config.enforcing_consecutive_5xx = 0;
        config.enforcing_success_rate = 0;
        config.enforcing_failure_percentage = 100;
    });
    scene.serve(0, 100, 85);
    scene.serve(1, 100, 84);
    (2..6).for_each(|host| scene.serve(host, 100, 0));
    scene.pass(10);
    assert_eq!(scene.ejected(), [0]);
}

#[test]
fn thresholds_are_reached_once_however_many_workers_count() {
    let scene = Scene::new(2, |_| {});
    let monitor = Monitor::default();
    let reached: usize = std::thread::scope(|scope| {
        let worker = || {
            let noted = (0..10_000).map(|_| scene.detector.note(&monitor, ERROR));
            noted
                .filter(|reasons| reasons[1] == Some(Reason::Consecutive5xx))
                .count()
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a count"))
            .sum()
    });
    assert_eq!(reached, 1);
}

#[test]
fn a_host_that_says_it_is_degraded_is_that_as_long_as_an_ejection_lasts() {
    let mut scene = Scene::new(2, |config| config.detects_degraded_hosts = true);
    let is_degraded = |scene: &Scene| scene.hosts.all[1].availability() == Availability::Degraded;
    for seconds in [30, 60] {
        let host = scene.hosts.all[1].clone();
        assert!(scene.detector.degrade(&host, scene.now));
        // What it says meanwhile changes nothing.
        assert!(!scene.detector.degrade(&host, scene.now + Duration::from_secs(9)));
        scene.pass(seconds - 1);
        assert!(is_degraded(&scene), "{seconds}");
        scene.pass(1);
        assert!(!is_degraded(&scene), "{seconds}");
    }
    assert_eq!(scene.ejected(), [0; 0]);
    // In order for long enough, the next time is short again.
    (0..9).for_each(|_| scene.pass(10));
    assert!(scene.detector.degrade(&scene.hosts.all[1].clone(), scene.now));
    scene.pass(30);
    assert!(!is_degraded(&scene));
}
