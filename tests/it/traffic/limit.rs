//! bill's local rate limit lets one request a second through, whoever asks.

use std::time::{Duration, Instant};

use e2e::http::Request;
use e2e::load::{self, Load};
use e2e::mesh::{BILL, BILL_HOST, Mesh, Plan, Scenario};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_demo::control_plane::ENDPOINTS;

use super::CLIENT;
use crate::pair::{Pair, assert_nothing_refused, for_like_pairs, linger};

const CLUSTER: &str = "outbound|9999||bill-service.default.svc.cluster.local";
const LASTS: Duration = Duration::from_millis(3500);

for_like_pairs!(one_request_a_second_passes_of_eight_clients);

fn one_request_a_second_passes_of_eight_clients(pair: Pair) {
    let mut mesh = Mesh::build(&Plan::new(Scenario::Traffic, pair.front, pair.bill).only(&["bill-v1"]));
    // There is one bill here: the other would have a limit of its own.
    mesh.control.edit(
        CLIENT,
        ENDPOINTS,
        CLUSTER,
        |endpoints: &mut ClusterLoadAssignment| {
            let hosts = endpoints.endpoints.iter_mut();
            hosts.for_each(|locality| {
                locality
                    .lb_endpoints
                    .retain(|host| !format!("{host:?}").contains("10.20.0.22"))
            });
        },
    );
    mesh.start_all();
    assert_nothing_refused(&mesh);
    // Longer than a second without a request: only one token waits.
    linger(Duration::from_millis(1200));
    let plan = load::Plan {
        address: BILL,
        request: Request::get(BILL_HOST, "/"),
        parallel: 8,
        keeps_alive: true,
        every: Duration::from_millis(3),
    };
    let load = Load::start(&mesh.pod(CLIENT).namespace, plan);
    let start = Instant::now();
    linger(LASTS);
    let report = load.stop();

    let mut passed: Vec<Instant> = report
        .samples
        .iter()
        .filter(|sample| matches!(sample.outcome, Ok((200, _))))
        .map(|sample| sample.begun)
        .collect();
    passed.sort();
    let times: Vec<Duration> = passed.iter().map(|begun| begun.duration_since(start)).collect();
    assert_eq!(
        times.len(),
        4,
        "of {} passed those after {times:?}",
        report.samples.len()
    );
    for pair in times.windows(2) {
        let apart = pair[1] - pair[0];
        assert!(
            (Duration::from_millis(900)..Duration::from_millis(1300)).contains(&apart),
            "{times:?}"
        );
    }
    let failures = report.failures();
    assert_eq!(
        failures.keys().collect::<Vec<_>>(),
        ["429 local_rate_limited"],
        "{failures:#?}"
    );
    assert!(
        report.samples.len() > 400,
        "only {} requests",
        report.samples.len()
    );

    let refused = mesh.get("/refused");
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.head.value("x-local-rate-limit"), Some("true"));
}
