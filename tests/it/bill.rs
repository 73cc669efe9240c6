//! The proof of the bill-service mesh: captured and recorded istiod configuration carries real traffic.
//!
//! Each behaviour is proved for four pairs of proxies: outrigger on both sides, mixed with Envoy either way, and Envoy on
//! both sides. What the last one does is what the others must do. Two outriggers agreeing with each other would prove
//! nothing about ALPN, SAN checks or XFCC.

mod bad_input;
mod certificates;
mod compare;
mod dead_hosts;
mod manager_stats;
mod metrics;
mod rotation;
mod snapshot;
mod split;
mod streams;
mod updates;

use std::time::Duration;

use e2e::load::Report;
use e2e::proxy::Kind;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use prost::Message;

/// The proxy of front, and that of every bill pod.
#[derive(Clone, Copy, Debug)]
struct Pair {
    front: Kind,
    bill: Kind,
}

/// One test for each pair of proxies.
macro_rules! for_every_pair {
    ($proof:ident) => {
        mod $proof {
            use e2e::proxy::Kind::{Envoy, Outrigger};

            use crate::bill::Pair;

            #[test]
            fn with_outrigger_on_both_sides() {
                super::$proof(Pair {
                    front: Outrigger,
                    bill: Outrigger,
                });
            }

            #[test]
            fn with_envoy_in_front() {
                super::$proof(Pair {
                    front: Envoy,
                    bill: Outrigger,
                });
            }

            #[test]
            fn with_envoy_as_bill() {
                super::$proof(Pair {
                    front: Outrigger,
                    bill: Envoy,
                });
            }

            #[test]
            fn with_envoy_on_both_sides() {
                super::$proof(Pair {
                    front: Envoy,
                    bill: Envoy,
                });
            }
        }
    };
}
use for_every_pair;

/// Fails unless `version` answered `expected` percent of the requests, give or take `tolerance` points.
#[track_caller]
fn assert_share(report: &Report, version: &str, expected: f64, tolerance: f64) {
    let share = report.share(version);
    let requests = report.samples.len();
    assert!(
        (share - expected).abs() <= tolerance,
        "{version} answered {share:.1} % of {requests} requests, expected {expected} ± {tolerance}"
    );
}

/// Fails unless every request got a 200.
#[track_caller]
fn assert_no_failure(report: &Report) {
    let failures = report.failures();
    assert!(
        failures.is_empty(),
        "of {} requests failed: {failures:#?}",
        report.samples.len()
    );
}

/// Lets load run for a while under one configuration.
fn linger(time: Duration) {
    std::thread::sleep(time);
}

/// Gives every connection manager of a listener this `server` header: a change that every response shows.
fn rename_server(listener: &mut Listener, name: &str) {
    let chains = listener
        .filter_chains
        .iter_mut()
        .chain(&mut listener.default_filter_chain);
    for filter in chains.flat_map(|chain| &mut chain.filters) {
        if let Some(ConfigType::TypedConfig(any)) = &mut filter.config_type
            && any.type_url.ends_with("HttpConnectionManager")
        {
            let mut manager = HttpConnectionManager::decode(any.value.as_slice()).expect("captures decode");
            manager.server_name = name.to_owned();
            any.value = manager.encode_to_vec();
        }
    }
}
