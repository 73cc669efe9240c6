//! Certificates and roots that change under load, as an authority with short-lived certificates and a new root would have it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::load::Load;
use e2e::mesh::{Mesh, Plan, Scenario};
use e2e::process::until;
use e2e::tls::{self, Answer};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::google::protobuf::UInt32Value;
use outrigger_demo::ca::{Authority, KeyCert};
use outrigger_demo::control_plane::CLUSTER;
use outrigger_demo::sds::Secrets;

use super::{Pair, assert_no_failure, for_every_pair};

for_every_pair!(twenty_rotations_fail_no_request);

const ROTATIONS: usize = 20;
/// From one to the next. Three seconds is what is asked for; the sooner the next comes, the less an old certificate may linger.
const EVERY: Duration = Duration::from_secs(1);
/// New handshakes use what was pushed this long ago; Envoy on a busy machine needs some of it.
const SOON: Duration = Duration::from_secs(2);
/// From here on both roots are trusted, then the new one signs, then it alone is trusted.
const BOTH_TRUSTED: usize = 7;
const NEW_SIGNS: usize = 9;
const NEW_ALONE: usize = 15;

const BILLS: [&str; 2] = ["bill-v1", "bill-v2"];
/// Its connections carry one request each, so that a tenth of the load shakes hands.
const ONE_REQUEST_EACH: &str = "outbound|9999|v2|bill-service.default.svc.cluster.local";

fn twenty_rotations_fail_no_request(pair: Pair) {
    let mut mesh = Mesh::build(&Plan::new(Scenario::Bill, pair.front, pair.bill));
    // Nobody is connected yet whose answer could be awaited.
    mesh.control
        .edit("front", CLUSTER, ONE_REQUEST_EACH, one_request_each);
    mesh.start_all();
    let new = Authority::new("outrigger tests, next").expect("a root");
    let loads = [mesh.load(), short_connections(&mesh)];
    let mut last_client = String::new();
    for rotation in 0..ROTATIONS {
        let start = Instant::now();
        let signs = if rotation < NEW_SIGNS {
            &mesh.authority
        } else {
            &new
        };
        let roots = match rotation {
            ..BOTH_TRUSTED => mesh.authority.root(),
            BOTH_TRUSTED..NEW_ALONE => mesh.authority.root() + &new.root(),
            _ => new.root(),
        };
        let issued = BILLS.map(|bill| rotate(&mesh, bill, signs, &roots));
        let front = rotate(&mesh, "front", signs, &roots);
        for (bill, issued) in BILLS.iter().zip(issued) {
            let expected = Answer {
                certificate: tls::leaf(&issued.chain),
                status: 200,
            };
            until(
                &format!("{rotation}: {bill} shows its new certificate"),
                SOON,
                || {
                    // Before the new root has come it refuses the new front.
                    let answer = knock(&mesh, bill, &front).ok()?;
                    (answer == expected).then_some(())
                },
            );
        }
        until(
            &format!("{rotation}: front shows its new certificate"),
            SOON,
            || {
                let client = client_hash(&mesh);
                (client != last_client).then(|| last_client = client)
            },
        );
        std::thread::sleep(EVERY.saturating_sub(start.elapsed()));
    }
    for report in loads.map(Load::stop) {
        assert!(report.samples.len() > 100, "{}", report.samples.len());
        assert_no_failure(&report);
    }
    let old = mesh
        .authority
        .issue(&mesh.pod("front").identity)
        .expect("a certificate");
    for bill in BILLS {
        knock(&mesh, bill, &old).expect_err("the old root is no longer trusted");
        assert!(mesh.pod(bill).secrets.refusals().is_empty());
    }
}

/// Gives a pod a new certificate, and these roots.
fn rotate(mesh: &Mesh, name: &str, signs: &Authority, roots: &str) -> KeyCert {
    let pod = mesh.pod(name);
    let issued = signs.issue(&pod.identity).expect("a certificate");
    pod.secrets.set(Secrets {
        workload: Some(issued.clone()),
        roots: roots.to_owned(),
    });
    issued
}

/// A request to a bill pod over a TLS connection of the test's own.
fn knock(mesh: &Mesh, bill: &str, client: &KeyCert) -> std::io::Result<Answer> {
    let address = SocketAddr::new(mesh.pod(bill).address.into(), 9999);
    tls::get(mesh.network().bridge(), address, Some(client), "istio")
}

/// The hash of the certificate that front showed on a new connection.
fn client_hash(mesh: &Mesh) -> String {
    // One of ten goes there.
    let response = (0..300)
        .map(|_| mesh.get("/"))
        .find(|response| response.seen()["version"] == "v2");
    let values = response
        .expect("a tenth goes to v2")
        .seen_values("x-forwarded-client-cert");
    let hash = values
        .iter()
        .flat_map(|value| value.split([';', ',']))
        .find_map(|part| part.strip_prefix("Hash="));
    hash.unwrap_or_else(|| panic!("no hash in {values:?}")).to_owned()
}

/// Load whose every request comes on a connection of its own.
fn short_connections(mesh: &Mesh) -> Load {
    Load::start(
        &mesh.pod("front").namespace,
        Mesh::load_plan(Duration::from_millis(20), false),
    )
}

fn one_request_each(cluster: &mut Cluster) {
    // Its successor is part of HttpProtocolOptions, and istiod writes none here.
    #[allow(deprecated)]
    {
        cluster.max_requests_per_connection = Some(UInt32Value { value: 1 });
    }
}
