//! ratings: jason waits seven seconds, and one in ten of his requests is aborted.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::load::{self, Load};

use super::{CLIENT, get, mesh, service};
use crate::pair::{Pair, assert_no_failure, assert_share, for_like_pairs, requests};

const RATINGS: SocketAddr = service(13);

for_like_pairs!(jason_waits_and_one_in_ten_of_his_requests_fails);

fn jason_waits_and_one_in_ten_of_his_requests_fails(pair: Pair) {
    let mesh = mesh(pair, &["ratings-v1", "ratings-v2-mysql-vm"]);
    // Others before jason and beside him.
    let other = || get("ratings:9080", "/ratings/0", &[("end-user", "jane")]);
    assert_eq!(
        mesh.send(CLIENT, RATINGS, &other()).seen()["version"],
        "v2-mysql-vm"
    );
    let plan = load::Plan {
        address: RATINGS,
        request: get("ratings:9080", "/ratings/0", &[("end-user", "jason")]),
        parallel: 1000,
        keeps_alive: false,
        every: Duration::from_millis(2),
    };
    let jason = Load::start(&mesh.pod(CLIENT).namespace, plan);
    let begun = Instant::now();
    let report = requests(&mesh, CLIENT, RATINGS, other(), 200);
    assert_no_failure(&report);
    assert_share(&report, "v2-mysql-vm", 100.0, 0.0);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "jane waits as jason does"
    );
    while jason.begun() < 400 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let jason = jason.stop();

    assert_share(&jason, "v1", 90.0, 6.0);
    let failures = jason.failures();
    assert_eq!(
        failures.keys().collect::<Vec<_>>(),
        ["500 fault filter abort"],
        "{failures:#?}"
    );
    let quickest = jason
        .samples
        .iter()
        .map(|sample| sample.took)
        .min()
        .unwrap_or_default();
    assert!(
        quickest >= Duration::from_millis(6990),
        "a request took only {quickest:?}"
    );
    assert!(
        jason.slowest() < Duration::from_secs(10),
        "a request took {:?}",
        jason.slowest()
    );
    let line = mesh.logged(CLIENT, " 500 ");
    assert!(
        line.contains("HTTP/1.1\" 500 DI,FI fault_filter_abort "),
        "{line}"
    );
}
