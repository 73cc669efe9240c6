//! Proofs that run for several pairs of proxies, and what they ask of a load's report.
//!
//! What a mesh with Envoy on both sides does is what the others must do.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::http::Request;
use e2e::load::{self, Plan, Report};
use e2e::mesh::Mesh;
use e2e::proxy::Kind;
use outrigger_demo::control_plane::Verdict;

/// The proxy of the client, and that of every other pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) front: Kind,
    pub(crate) bill: Kind,
}

/// One test of `$proof` for each of these pairs.
macro_rules! for_pairs {
    ($proof:ident: $($name:ident = $front:ident, $bill:ident;)+) => {
        mod $proof {
            use e2e::proxy::Kind::{Envoy, Outrigger};

            use crate::pair::Pair;

            $(#[test]
            fn $name() {
                super::$proof(Pair {
                    front: $front,
                    bill: $bill,
                });
            })+
        }
    };
}
pub(crate) use for_pairs;

/// One test for each pair of proxies.
macro_rules! for_every_pair {
    ($proof:ident) => {
        $crate::pair::for_pairs! { $proof:
            with_outrigger_on_both_sides = Outrigger, Outrigger;
            with_envoy_in_front = Envoy, Outrigger;
            with_envoy_as_bill = Outrigger, Envoy;
            with_envoy_on_both_sides = Envoy, Envoy;
        }
    };
}
pub(crate) use for_every_pair;

/// One test with outrigger everywhere, one with Envoy everywhere: for proofs that take long.
macro_rules! for_like_pairs {
    ($proof:ident) => {
        $crate::pair::for_pairs! { $proof:
            with_outrigger_on_both_sides = Outrigger, Outrigger;
            with_envoy_on_both_sides = Envoy, Envoy;
        }
    };
}
pub(crate) use for_like_pairs;

/// Fails unless `version` answered `expected` percent of the requests, give or take `tolerance` points.
#[track_caller]
pub(crate) fn assert_share(report: &Report, version: &str, expected: f64, tolerance: f64) {
    let share = report.share(version);
    let requests = report.samples.len();
    assert!(
        (share - expected).abs() <= tolerance,
        "{version} answered {share:.1} % of {requests} requests, expected {expected} ± {tolerance}"
    );
}

/// Fails unless every request got a 200.
#[track_caller]
pub(crate) fn assert_no_failure(report: &Report) {
    let failures = report.failures();
    assert!(
        failures.is_empty(),
        "of {} requests failed: {failures:#?}",
        report.samples.len()
    );
}

/// Lets load run for a while under one configuration.
pub(crate) fn linger(time: Duration) {
    std::thread::sleep(time);
}

/// So many requests from `pod` to `address`, eight at once.
pub(crate) fn requests(mesh: &Mesh, pod: &str, address: SocketAddr, request: Request, count: u64) -> Report {
    let plan = Plan {
        address,
        request,
        parallel: 8,
        keeps_alive: true,
        every: Duration::ZERO,
    };
    load::send(&mesh.pod(pod).namespace, plan, count)
}

/// Fails when a proxy of the mesh refused anything.
#[track_caller]
pub(crate) fn assert_nothing_refused(mesh: &Mesh) {
    let refused: Vec<_> = mesh
        .control
        .journal()
        .sent
        .into_iter()
        .filter_map(|sent| match sent.verdict {
            Some((Verdict::Nack(reason), _)) => Some((sent.node, sent.type_url, reason)),
            _ => None,
        })
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}
