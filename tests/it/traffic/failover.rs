//! A zone dies: its hosts are ejected for the connections that they refuse, and the next zone serves; then the next region.

use std::time::Duration;

use e2e::http::{Request, Response};
use e2e::mesh::{Mesh, PATIENCE, Plan, Scenario};
use e2e::process::until;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::LbPolicy;
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use outrigger_demo::control_plane::{CLUSTER, ENDPOINTS, Verdict};

use super::{CLIENT, SHOPS, shop};
use crate::pair::{Pair, assert_no_failure, assert_share, for_like_pairs, linger, requests};

const NEAREST: &str = "outbound|80||shop.default.svc.cluster.local";
const ITEMS: &str = "outbound|80|v1|shop.default.svc.cluster.local";

/// Envoy's workers hear of changes of health at most once in this time (`update_merge_window`).
const MERGED: Duration = Duration::from_millis(1100);

for_like_pairs!(the_next_zone_serves_when_one_dies_and_then_the_next_region);
for_like_pairs!(a_retry_goes_to_the_next_zone);
for_like_pairs!(a_subset_with_a_hash_leaves_its_zone_when_its_host_is_ejected);

fn near() -> Request {
    // A host that no other route of the shop matches.
    Request::get("10.96.0.40", "/")
}

fn the_next_zone_serves_when_one_dies_and_then_the_next_region(pair: Pair) {
    let mut mesh = Mesh::start(&Plan::new(Scenario::Traffic, pair.front, pair.bill).only(SHOPS));
    let report = requests(&mesh, CLIENT, shop(80), near(), 200);
    assert_no_failure(&report);
    let nearest = report.share("shop-0") + report.share("shop-2");
    assert!(nearest > 99.9, "{nearest} % of requests stayed in the zone");

    for name in ["shop-0", "shop-2"] {
        let pod = mesh.pod_mut(name);
        pod.proxy = None;
        pod.app = None;
    }
    // A request asks each of the two at most three times, and four failures eject one.
    until("both hosts are ejected", PATIENCE, || {
        mesh.send(CLIENT, shop(80), &near());
        (ejected(&mesh, NEAREST) == 2).then_some(())
    });
    linger(MERGED);
    let report = requests(&mesh, CLIENT, shop(80), near(), 200);
    assert_no_failure(&report);
    assert_share(&report, "shop-1", 100.0, 0.0);

    // istiod hears of the next one.
    let nonce = mesh.control.edit(
        CLIENT,
        ENDPOINTS,
        NEAREST,
        |endpoints: &mut ClusterLoadAssignment| {
            let hosts = endpoints
                .endpoints
                .iter_mut()
                .flat_map(|locality| &mut locality.lb_endpoints);
            for host in hosts {
                let Some(HostIdentifier::Endpoint(endpoint)) = &host.host_identifier else {
                    continue;
                };
                if format!("{endpoint:?}").contains("10.20.0.41") {
                    host.health_status = HealthStatus::Unhealthy.into();
                }
            }
        },
    );
    let verdict = mesh.block_on(
        mesh.control
            .verdict(&nonce.expect("front is connected"), PATIENCE),
    );
    assert_eq!(verdict.expect("an answer"), Verdict::Ack);
    linger(Duration::from_millis(300));
    let report = requests(&mesh, CLIENT, shop(80), near(), 100);
    assert_no_failure(&report);
    assert_share(&report, "shop-3", 100.0, 0.0);
}

/// `retryRemoteLocalities`: two attempts in the nearest zone, then one in the next. Of a subset without a hash.
fn a_retry_goes_to_the_next_zone(pair: Pair) {
    let plan = Plan::new(Scenario::Traffic, pair.front, pair.bill).only(&["shop-0", "shop-1"]);
    let mut mesh = Mesh::build(&plan);
    mesh.control
        .edit(CLIENT, CLUSTER, ITEMS, |cluster: &mut Cluster| {
            cluster.lb_policy = LbPolicy::RoundRobin.into();
            cluster.lb_config = None;
        });
    mesh.start_all();
    assert_eq!(item(&mesh).seen()["version"], "shop-0");
    // Its proxy stays, and answers with 503. After three of those the host is ejected.
    mesh.pod_mut("shop-0").app = None;
    for _ in 0..10 {
        let response = item(&mesh);
        assert_eq!(response.status(), 200, "{}", response.body);
        assert_eq!(response.seen()["version"], "shop-1");
    }
}

/// A ring knows no retries: `retryRemoteLocalities` of its route is without effect, as with Envoy, until the host is ejected.
fn a_subset_with_a_hash_leaves_its_zone_when_its_host_is_ejected(pair: Pair) {
    let plan = Plan::new(Scenario::Traffic, pair.front, pair.bill).only(&["shop-0", "shop-1"]);
    let mut mesh = Mesh::start(&plan);
    assert_eq!(item(&mesh).seen()["version"], "shop-0");
    // Its proxy stays, and answers with 503.
    mesh.pod_mut("shop-0").app = None;
    let first = item(&mesh);
    assert_eq!(first.status(), 503, "{}", first.body);
    until("the host is ejected", PATIENCE, || {
        item(&mesh);
        (ejected(&mesh, ITEMS) == 1).then_some(())
    });
    linger(MERGED);
    for _ in 0..5 {
        assert_eq!(item(&mesh).seen()["version"], "shop-1");
    }
}

/// Asks for what only subset v1 has.
fn item(mesh: &Mesh) -> Response {
    let item = Request::get("shop", "/items/1").header("x-v", "v1");
    mesh.send(CLIENT, shop(80), &item)
}

/// How many hosts of a cluster are ejected now.
fn ejected(mesh: &Mesh, cluster: &str) -> usize {
    let text = mesh.admin(CLIENT, "/clusters").body;
    let flags = text
        .lines()
        .filter(|line| line.starts_with(&format!("{cluster}::")) && line.contains("::health_flags::"));
    flags.filter(|line| line.contains("failed_outlier_check")).count()
}
