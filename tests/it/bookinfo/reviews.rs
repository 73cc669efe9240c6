//! reviews: jason's cookie, 90/10, retries and their time limits.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::mesh::Mesh;

use super::{CLIENT, get, mesh, service};
use crate::pair::{Pair, assert_no_failure, assert_share, for_every_pair, for_like_pairs, requests};

const REVIEWS: SocketAddr = service(12);
const PODS: &[&str] = &["reviews-v1", "reviews-v2", "reviews-v3"];

for_every_pair!(jason_gets_v2_and_of_the_others_one_in_ten_v3);
for_like_pairs!(a_flaky_backend_is_tried_again);

fn jason_gets_v2_and_of_the_others_one_in_ten_v3(pair: Pair) {
    let mesh = mesh(pair, PODS);
    let cookie = |value: &str| {
        let response = mesh.send(
            CLIENT,
            REVIEWS,
            &get("reviews:9080", "/reviews/0", &[("cookie", value)]),
        );
        assert_eq!(response.status(), 200, "{value}");
        response.seen()["version"].as_str().unwrap_or_default().to_owned()
    };
    for jason in [
        "user=jason",
        "a=b;user=jason",
        "user=jason;c=d",
        "a=b;user=jason;c=d",
        ";user=jason",
    ] {
        assert_eq!(cookie(jason), "v2", "cookie: {jason}");
    }
    // The whole value has to match, and a space after a semicolon is part of a name.
    for other in [
        "user=jasonx",
        "xuser=jason",
        "a=b; user=jason",
        "user=Jason",
        "user=jason ;c=d",
        "user=jane",
    ] {
        assert_ne!(cookie(other), "v2", "cookie: {other}");
    }
    let report = requests(
        &mesh,
        CLIENT,
        REVIEWS,
        get("reviews:9080", "/reviews/0", &[]),
        1000,
    );
    assert_no_failure(&report);
    assert_share(&report, "v1", 90.0, 4.0);
    assert_share(&report, "v3", 10.0, 4.0);
    let jason = get("reviews:9080", "/reviews/0", &[("cookie", "user=jason")]);
    let report = requests(&mesh, CLIENT, REVIEWS, jason, 200);
    assert_share(&report, "v2", 100.0, 0.0);
}

/// Three retries on any 5xx, 409 and resets, each within a second, all within three.
fn a_flaky_backend_is_tried_again(pair: Pair) {
    let mesh = mesh(pair, PODS);
    // Attempts, the target, and the status in the end.
    check(&mesh, "/flaky?key=a&fails=1", 200, 2, "-");
    check(&mesh, "/flaky?key=b&fails=3", 200, 4, "-");
    check(&mesh, "/flaky?key=c&fails=4", 503, 4, "URX");
    check(&mesh, "/status/409", 409, 4, "URX");
    check(&mesh, "/status/404", 404, 1, "-");
    check(&mesh, "/reset?", 503, 4, "URX");
    // A second is up before the answer, three times; the fourth attempt is never made.
    check(&mesh, "/slow?ms=1500", 504, 3, "UT");

    // The time of the service is that of all attempts.
    let late = get("reviews:9080", "/flaky?key=e&fails=1&ms=300", &[]);
    let late = mesh.send(CLIENT, REVIEWS, &late);
    let time = late
        .head
        .value("x-envoy-upstream-service-time")
        .unwrap_or_default();
    assert!(
        time.parse().is_ok_and(|time: u32| (300..1000).contains(&time)),
        "{time} ms"
    );

    // Jason's route has the retries of the mesh: not on a status.
    let jason = get(
        "reviews:9080",
        "/flaky?key=d&fails=1",
        &[("cookie", "user=jason")],
    );
    assert_eq!(mesh.send(CLIENT, REVIEWS, &jason).status(), 503);
}

#[track_caller]
fn check(mesh: &Mesh, target: &str, status: u16, attempts: u64, flags: &str) {
    let before = attempted(mesh);
    let response = mesh.send(CLIENT, REVIEWS, &get("reviews:9080", target, &[]));
    assert_eq!(response.status(), status, "{target}: {}", response.body);
    let line = mesh.logged(CLIENT, &format!(" {target} "));
    assert!(
        line.contains(&format!("HTTP/1.1\" {status} {flags} ")),
        "{target}: {line}"
    );
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(attempted(mesh) - before, attempts, "{target}: attempts");
}

/// Requests that productpage's proxy sent to any version.
fn attempted(mesh: &Mesh) -> u64 {
    mesh.counter(CLIENT, "reviews.bookinfo.svc.cluster.local;.upstream_rq_total")
        .max(mesh.counter(CLIENT, "reviews.bookinfo.svc.cluster.local.upstream_rq_total"))
}
