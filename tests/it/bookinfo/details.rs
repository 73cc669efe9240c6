//! details: a rewrite with header changes, a redirect, a direct response, a mirror at 50 %, CORS.

use std::net::SocketAddr;

use e2e::http::Response;
use e2e::mesh::{Mesh, PATIENCE};
use e2e::process::until;

use super::{CLIENT, get, mesh, service};
use crate::pair::{Pair, assert_no_failure, for_every_pair, requests};

const DETAILS: SocketAddr = service(11);
const HOST: &str = "details:9080";

for_every_pair!(details_are_answered_as_its_routes_say);

fn details_are_answered_as_its_routes_say(pair: Pair) {
    let mesh = mesh(pair, &["details-v1", "reviews-v1"]);
    old_paths_are_rewritten(&mesh);
    some_paths_never_reach_an_application(&mesh);
    origins_are_told_what_they_may(&mesh);
    half_of_the_requests_are_mirrored(&mesh);
}

fn old_paths_are_rewritten(mesh: &Mesh) {
    let headers = [("x-secret", "1"), ("x-n", "0"), ("x-rewritten", "no")];
    let response = mesh.send(CLIENT, DETAILS, &get(HOST, "/old/7?a=b&v=1", &headers));
    assert_eq!(response.status(), 200);
    assert_eq!(response.seen()["path"], "/details/7?a=b&v=1");
    assert_eq!(response.seen_values("x-rewritten"), ["true"]);
    assert_eq!(response.seen_values("x-n").join(","), "0,1");
    assert_eq!(response.seen_values("x-secret"), [""; 0]);
    assert_eq!(response.seen_values("x-envoy-original-path"), ["/old/7?a=b&v=1"]);
    assert_eq!(response.head.value("x-via"), Some("mesh"));

    // Not `v=1`, and not GET: the last route.
    let mut post = get(HOST, "/old/7?v=1", &headers);
    post.method = "POST";
    post.body = "x".to_owned();
    for request in [
        get(HOST, "/old/7?v=2", &headers),
        get(HOST, "/old/7", &headers),
        post,
    ] {
        let response = mesh.send(CLIENT, DETAILS, &request);
        assert_eq!(response.seen()["path"], request.target.as_str());
        assert_eq!(response.seen_values("x-secret"), ["1"]);
        assert_eq!(response.head.value("x-via"), None);
    }
}

fn some_paths_never_reach_an_application(mesh: &Mesh) {
    let moved = mesh.send(CLIENT, DETAILS, &get(HOST, "/moved?x=1", &[]));
    assert_eq!(moved.status(), 301);
    assert_eq!(
        moved.head.value("location"),
        Some("http://details:9080/details/0?x=1")
    );
    let teapot = mesh.send(CLIENT, DETAILS, &get(HOST, "/teapot/1", &[]));
    assert_eq!((teapot.status(), teapot.body.as_str()), (418, "short and stout"));
    assert_eq!(
        mesh.send(CLIENT, DETAILS, &get(HOST, "/moved/on", &[])).status(),
        200
    );
}

fn origins_are_told_what_they_may(mesh: &Mesh) {
    let ask = |method: &'static str, headers: &[(&str, &str)]| {
        let mut request = get(HOST, "/details/0", headers);
        request.method = method;
        mesh.send(CLIENT, DETAILS, &request)
    };
    let value = |response: &Response, name: &str| {
        let name = format!("access-control-{name}");
        response.head.value(&name).map(str::to_owned)
    };
    let preflight = ("access-control-request-method", "GET");
    let friend = ("origin", "https://example.com");

    let allowed = ask("OPTIONS", &[friend, preflight]);
    assert_eq!((allowed.status(), allowed.body.as_str()), (200, ""));
    for (name, expected) in [
        ("allow-origin", "https://example.com"),
        ("allow-methods", "GET,POST"),
        ("allow-headers", "x-a"),
        ("max-age", "86400"),
        ("allow-credentials", "true"),
    ] {
        assert_eq!(
            value(&allowed, name).as_deref(),
            Some(expected),
            "access-control-{name}"
        );
    }

    let simple = ask("GET", &[friend]);
    assert_eq!(simple.seen()["version"], "details");
    assert_eq!(
        value(&simple, "allow-origin").as_deref(),
        Some("https://example.com")
    );
    assert_eq!(value(&simple, "allow-credentials").as_deref(), Some("true"));
    // Of another origin, and no preflight: the application decides.
    for (method, headers) in [
        ("OPTIONS", &[("origin", "https://example.org"), preflight][..]),
        ("OPTIONS", &[friend]),
        ("GET", &[("origin", "https://example.com.evil.org")]),
    ] {
        let response = ask(method, headers);
        assert_eq!(response.seen()["version"], "details", "{method} {headers:?}");
        let origin = value(&response, "allow-origin");
        assert_eq!(
            origin.is_some(),
            headers[0] == friend,
            "{method} {headers:?}: {origin:?}"
        );
    }
}

fn half_of_the_requests_are_mirrored(mesh: &Mesh) {
    let report = requests(mesh, CLIENT, DETAILS, get(HOST, "/details/mirrored", &[]), 400);
    assert_no_failure(&report);
    let copies = || {
        let log = mesh.access_log("reviews-v1");
        log.lines()
            .filter(|line| line.contains(" /details/mirrored "))
            .count()
    };
    // Five deviations.
    let expected = 150..=250;
    until("copies of requests", PATIENCE, || (copies() >= 150).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(expected.contains(&copies()), "{} of 400 were mirrored", copies());
    // Whose name the copies carry: the captured policy forbids a suffix.
    let line = mesh.logged("reviews-v1", " /details/mirrored ");
    assert!(line.contains("\"details:9080\""), "{line}");
}
