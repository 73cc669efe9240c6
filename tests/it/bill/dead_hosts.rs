//! Hosts that do not answer, hosts that are unhealthy, and a control plane that is gone.

use std::time::{Duration, Instant};

use e2e::load::Report;
use e2e::mesh::{Mesh, PATIENCE, Plan, Scenario};
use e2e::proxy::Kind;
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use outrigger_demo::control_plane::{ENDPOINTS, ROUTES, Verdict};

use super::{Pair, assert_no_failure, assert_share, for_every_pair, linger};

for_every_pair!(one_of_two_hosts_stops_and_no_later_request_fails);
for_every_pair!(requests_to_dead_and_unhealthy_hosts_get_envoys_answer);
for_every_pair!(traffic_goes_on_without_a_control_plane);

/// The cluster of subset v1.
const V1: &str = "outbound|9999|v1|bill-service.default.svc.cluster.local";

fn one_of_two_hosts_stops_and_no_later_request_fails(pair: Pair) {
    let mut mesh = Mesh::start(&Plan::new(Scenario::BillTwo, pair.front, pair.bill));
    let load = mesh.load();
    linger(Duration::from_millis(500));
    kill(&mut mesh, "bill-v1");
    let killed = Instant::now();
    linger(Duration::from_millis(1500));
    let after = load.stop().between(killed, Instant::now());
    assert!(after.samples.len() > 100, "only {} requests", after.samples.len());
    match pair.front {
        Kind::Outrigger => assert_no_failure(&after),
        // Envoy draws a host for a retry, looks whether it was tried, and after five draws takes what it drew: with two
        // hosts a few requests in a thousand meet the dead one three times.
        Kind::Envoy => assert!(after.status_share(503) < 3.0, "{:#?}", after.failures()),
    }
    assert_share(&after, "v1", 90.0, 6.0);
}

fn requests_to_dead_and_unhealthy_hosts_get_envoys_answer(pair: Pair) {
    let mut mesh = Mesh::start(&Plan::new(Scenario::Bill, pair.front, pair.bill));
    kill(&mut mesh, "bill-v1");
    let report = mesh.requests(300, true);
    let refused = "503 upstream connect error or disconnect/reset before headers. retried and the latest reset reason: \
                   remote connection failure";
    assert_only_failure(&report, refused);
    assert_share(&report, "v2", 10.0, 6.0);
    let line = mesh.logged("front", " 503 ");
    let details = "URX,UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:\
                   _Connection_refused} - \"delayed_connect_error:_Connection_refused\"";
    assert!(
        line.contains(&format!("\"GET / HTTP/1.1\" 503 {details} 0 121 ")),
        "{line}"
    );
    assert!(
        line.contains(&format!("\"10.20.0.21:9999\" {V1} - 10.96.0.10:9999 10.20.0.11:")),
        "{line}"
    );

    let unhealthy = mesh
        .control
        .edit("front", ENDPOINTS, V1, |endpoints: &mut ClusterLoadAssignment| {
            for host in endpoints
                .endpoints
                .iter_mut()
                .flat_map(|locality| &mut locality.lb_endpoints)
            {
                host.health_status = HealthStatus::Unhealthy.into();
            }
        });
    gets_no_healthy_upstream(&mesh, unhealthy);
    let nobody = mesh
        .control
        .edit("front", ENDPOINTS, V1, |endpoints: &mut ClusterLoadAssignment| {
            endpoints.endpoints.clear();
        });
    gets_no_healthy_upstream(&mesh, nobody);
    let line = mesh.logged("front", " UH ");
    assert!(
        line.contains("\"GET / HTTP/1.1\" 503 UH no_healthy_upstream - \"-\" 0 19 "),
        "{line}"
    );
}

fn gets_no_healthy_upstream(mesh: &Mesh, nonce: Option<String>) {
    let nonce = nonce.expect("front is connected");
    assert_eq!(
        mesh.block_on(mesh.control.verdict(&nonce, PATIENCE)).unwrap(),
        Verdict::Ack
    );
    linger(Duration::from_millis(300));
    let report = mesh.requests(200, true);
    assert_only_failure(&report, "503 no healthy upstream");
    assert_share(&report, "v2", 10.0, 7.0);
}

fn traffic_goes_on_without_a_control_plane(pair: Pair) {
    let mesh = Mesh::start(&Plan::new(Scenario::Bill, pair.front, pair.bill));
    let load = mesh.load();
    mesh.control.stop();
    let gone = Instant::now();
    linger(Duration::from_secs(3));
    let is_pushed = mesh
        .control
        .edit("front", ROUTES, "9999", |routes: &mut RouteConfiguration| {
            set_weights(routes, 0, 100)
        });
    assert_eq!(
        is_pushed, None,
        "front is connected to a control plane that is gone"
    );
    mesh.listen();
    let back = Instant::now();
    // Envoy's own pause before it tries again grows to 30 s.
    let patience = if pair.front == Kind::Envoy {
        Duration::from_secs(30)
    } else {
        Duration::from_secs(2)
    };
    let applied = mesh.control.wait("front takes the change", patience, |journal| {
        let sent = journal
            .sent
            .iter()
            .filter(|sent| sent.node == "front" && sent.type_url == ROUTES && sent.at > back);
        sent.filter_map(|sent| sent.verdict.clone())
            .map(|(verdict, _)| verdict)
            .next()
    });
    assert_eq!(mesh.block_on(applied).unwrap(), Verdict::Ack);
    let remains = patience.saturating_sub(back.elapsed());
    linger(Duration::from_millis(300).min(remains));
    let changed = Instant::now();
    linger(Duration::from_millis(500));
    let report = load.stop();
    assert_no_failure(&report);
    assert_share(&report.between(gone, back), "v1", 90.0, 5.0);
    assert_share(&report.between(changed, Instant::now()), "v2", 100.0, 0.0);
}

fn set_weights(routes: &mut RouteConfiguration, v1: u32, v2: u32) {
    let actions = routes
        .virtual_hosts
        .iter_mut()
        .flat_map(|host| &mut host.routes)
        .map(|route| &mut route.action);
    for action in actions {
        let Some(Action::Route(action)) = action else {
            continue;
        };
        let Some(ClusterSpecifier::WeightedClusters(clusters)) = &mut action.cluster_specifier else {
            continue;
        };
        for (cluster, weight) in clusters.clusters.iter_mut().zip([v1, v2]) {
            cluster.weight = Some(envoy_types::pb::google::protobuf::UInt32Value { value: weight });
        }
    }
}

fn kill(mesh: &mut Mesh, name: &str) {
    let pod = mesh.pod_mut(name);
    pod.proxy = None;
    pod.app = None;
}

#[track_caller]
fn assert_only_failure(report: &Report, expected: &str) {
    let failures = report.failures();
    assert_eq!(failures.keys().collect::<Vec<_>>(), [expected], "{failures:#?}");
}
