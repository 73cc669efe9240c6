//! Which subset answers: by path and headers, by weight, over TCP.

use std::collections::BTreeSet;

use e2e::http::Request;
use e2e::load::{self, Report};
use e2e::mesh::{Mesh, Plan, Scenario};

use super::{CLIENT, SHOPS, shop};
use crate::pair::{Pair, assert_no_failure, assert_nothing_refused, assert_share, for_every_pair, requests};

for_every_pair!(the_shop_is_reached_as_its_routes_say);

fn the_shop_is_reached_as_its_routes_say(pair: Pair) {
    let mesh = Mesh::start(&Plan::new(Scenario::Traffic, pair.front, pair.bill).only(SHOPS));
    assert_nothing_refused(&mesh);
    items_are_rewritten_and_stay_with_a_host(&mesh);
    subsets_share_by_weight(&mesh);
    slow_answers_are_cut_off(&mesh);
    an_unknown_host_is_no_way_out(&mesh);
    connections_share_by_weight(&mesh);
}

/// The nearest hosts of the subsets: v1 is `shop-0`, v2 `shop-2`.
fn items_are_rewritten_and_stay_with_a_host(mesh: &Mesh) {
    let ask = |target: &str, headers: &[(&str, &str)]| {
        let request = Request::get("shop", target);
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value));
        mesh.send(CLIENT, shop(80), &request)
    };
    let item = ask("/items/42", &[("x-v", "v7")]);
    assert_eq!(item.seen()["version"], "shop-0");
    assert_eq!(item.seen()["path"], "/i/42");
    assert_eq!(item.seen_values("host"), ["shop.internal"]);
    assert_eq!(item.seen_values("x-envoy-original-path"), ["/items/42"]);
    let cookie = item.head.value("set-cookie").unwrap_or_default();
    assert!(
        cookie.starts_with("user=\"") && cookie.contains("Max-Age=60"),
        "{cookie}"
    );
    let again = ask(
        "/items/42",
        &[
            ("x-v", "v7"),
            ("cookie", cookie.split(';').next().unwrap_or_default()),
        ],
    );
    assert_eq!(
        again.head.value("set-cookie"),
        None,
        "a client that has a cookie gets none"
    );

    for (target, headers) in [
        ("/items/42", &[][..]),
        ("/items/x", &[("x-v", "v7")]),
        ("/items/42/x", &[("x-v", "v7")]),
        ("/items/42", &[("x-v", "v7"), ("x-no", "")]),
        ("/items/42", &[("x-v", "w7")]),
    ] {
        let other = ask(target, headers);
        assert_eq!(other.seen()["version"], "shop-2", "{target} {headers:?}");
        assert_eq!(other.seen()["path"], target);
    }
    // Not a name that begins with `shop`: whichever is near.
    let near: BTreeSet<_> = (0..30)
        .map(|_| mesh.send(CLIENT, shop(80), &Request::get("10.96.0.40", "/")))
        .map(|response| response.seen()["version"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(near.into_iter().collect::<Vec<_>>(), ["shop-0", "shop-2"]);
}

fn subsets_share_by_weight(mesh: &Mesh) {
    let mut marked = 0;
    for _ in 0..200 {
        let response = mesh.send(CLIENT, shop(80), &Request::get("shop", "/"));
        assert_eq!(response.seen()["version"], "shop-2");
        marked += response
            .seen_values("x-subset")
            .iter()
            .filter(|value| *value == "v2")
            .count();
    }
    assert!(
        (65..=135).contains(&marked),
        "{marked} of 200 went to the first subset"
    );
    let report = requests(mesh, CLIENT, shop(80), Request::get("shop", "/"), 300);
    assert_no_failure(&report);
    assert_share(&report, "shop-2", 100.0, 0.0);
}

fn slow_answers_are_cut_off(mesh: &Mesh) {
    for target in ["/slow?ms=3000", "/SLOW?ms=0", "/slow?ms=10"] {
        let response = mesh.send(CLIENT, shop(80), &Request::get("shop", target));
        let expected = if target.ends_with("3000") { 504 } else { 200 };
        assert_eq!(response.status(), expected, "{target}");
    }
    assert_eq!(
        mesh.counter(CLIENT, "shop.default.svc.cluster.local;.upstream_rq_timeout")
            + mesh.counter(CLIENT, "shop.default.svc.cluster.local.upstream_rq_timeout"),
        1
    );
}

fn an_unknown_host_is_no_way_out(mesh: &Mesh) {
    let response = mesh.send(CLIENT, shop(80), &Request::get("elsewhere.example", "/"));
    assert_eq!((response.status(), response.body.as_str()), (502, ""));
}

fn connections_share_by_weight(mesh: &Mesh) {
    let plan = load::Plan {
        address: shop(9000),
        request: Request::get("any", "/over-tcp"),
        parallel: 8,
        keeps_alive: false,
        every: std::time::Duration::ZERO,
    };
    let report: Report = load::send(&mesh.pod(CLIENT).namespace, plan, 600);
    assert_no_failure(&report);
    assert_share(&report, "shop-0", 70.0, 8.0);
    assert_share(&report, "shop-2", 30.0, 8.0);
}
