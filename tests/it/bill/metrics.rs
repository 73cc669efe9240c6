//! Istio's standard metrics: both sides of the mesh count what the client sent and what the access logs say, no more and no less.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use e2e::http::Request;
use e2e::load;
use e2e::mesh::{BILL, BILL_HOST, Mesh, PATIENCE, Plan, Scenario};
use e2e::process::{Process, until};
use e2e::prometheus::{Scrape, Series};
use e2e::proxy::Kind;

use super::{assert_no_failure, linger};

const REQUESTS: &str = "istio_requests_total";
const DURATIONS: &str = "istio_request_duration_milliseconds_count";
const FRONT: &str = "spiffe://cluster.local/ns/default/sa/front-tomcat";
const BILL_SERVICE: &str = "spiffe://cluster.local/ns/default/sa/bill-service";
const BILL_FQDN: &str = "bill-service.default.svc.cluster.local";

fn scrape(mesh: &Mesh, pod: &str) -> Scrape {
    Scrape::parse(&mesh.admin(pod, "/stats/prometheus").body)
}

fn mesh(scenario: Scenario) -> Mesh {
    Mesh::start(&Plan::new(scenario, Kind::Outrigger, Kind::Outrigger))
}

/// Waits until the pods have counted that many requests: a stream ends a moment after its last byte is read.
fn counted(mesh: &Mesh, pods: &[&str], requests: u64) -> Vec<Scrape> {
    let pods = pods.iter();
    let scrapes = || pods.clone().map(|pod| scrape(mesh, pod)).collect::<Vec<_>>();
    let sum = |scrapes: &[Scrape]| scrapes.iter().map(|one| one.sum(REQUESTS)).sum::<u64>();
    until(&format!("{requests} requests counted"), PATIENCE, || {
        Some(scrapes()).filter(|scrapes| sum(scrapes) >= requests)
    });
    // Whatever were counted twice would be there by now.
    linger(Duration::from_millis(300));
    scrapes()
}

/// Code and flags of every line of an access log, with how often; waits for that many lines.
fn logged(mesh: &Mesh, pod: &str, lines: u64) -> BTreeMap<String, u64> {
    let wanted = usize::try_from(lines).expect("a small number");
    let log = until(&format!("{lines} lines in the log of {pod}"), PATIENCE, || {
        Some(mesh.access_log(pod)).filter(|log| log.lines().count() >= wanted)
    });
    let mut ends = BTreeMap::new();
    for line in log.lines() {
        let after = line.splitn(3, '"').nth(2).unwrap_or_default();
        let mut words = after.split_whitespace();
        let (code, flags) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        *ends.entry(format!("{code} {flags}")).or_default() += 1;
    }
    ends
}

/// What the labels of a request between front and a version of bill are.
fn labels(reporter: &'static str, version: &'static str) -> Vec<(&'static str, String)> {
    let workload = format!("bill-{version}");
    let policy = if reporter == "source" {
        "unknown"
    } else {
        "mutual_tls"
    };
    [
        ("reporter", reporter),
        ("source_workload", "front"),
        ("source_canonical_service", "front-tomcat"),
        ("source_canonical_revision", "v1"),
        ("source_workload_namespace", "default"),
        ("source_principal", FRONT),
        ("source_app", "front-tomcat"),
        ("source_version", "v1"),
        ("source_cluster", "Kubernetes"),
        ("destination_workload", &workload),
        ("destination_workload_namespace", "default"),
        ("destination_principal", BILL_SERVICE),
        ("destination_app", "bill-service"),
        ("destination_version", version),
        ("destination_service", BILL_FQDN),
        ("destination_canonical_service", "bill-service"),
        ("destination_canonical_revision", version),
        ("destination_service_name", BILL_FQDN),
        ("destination_service_namespace", "default"),
        ("destination_cluster", "Kubernetes"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("grpc_response_status", ""),
        ("response_flags", "-"),
        ("connection_security_policy", policy),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

#[track_caller]
fn assert_labels(series: &Series, expected: &[(&str, String)]) {
    let labels: Vec<_> = series
        .labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    assert_eq!(labels, expected, "{}", series.metric);
}

#[test]
fn a_thousand_requests_are_a_thousand_on_both_sides_with_every_label() {
    let mesh = mesh(Scenario::Bill);
    for keeps_alive in [true, false] {
        let report = mesh.requests(500, keeps_alive);
        assert_no_failure(&report);
        assert_eq!(report.samples.len(), 500);
    }

    let front = &counted(&mesh, &["front"], 1000)[0];
    let bills = counted(&mesh, &["bill-v1", "bill-v2"], 1000);
    for metric in [
        REQUESTS,
        DURATIONS,
        "istio_request_bytes_count",
        "istio_response_bytes_count",
    ] {
        assert_eq!(front.sum(metric), 1000, "front, {metric}");
        let bills: u64 = bills.iter().map(|bill| bill.sum(metric)).sum();
        assert_eq!(bills, 1000, "bill, {metric}");
    }
    for (version, bill) in ["v1", "v2"].into_iter().zip(&bills) {
        let workload = format!("bill-{version}");
        let series: Vec<_> = bill.of(REQUESTS).collect();
        assert_eq!(series.len(), 1, "{series:#?}");
        assert_labels(series[0], &labels("destination", version));
        let sent: Vec<_> = front
            .of(REQUESTS)
            .filter(|series| series.label("destination_workload") == workload)
            .collect();
        assert_eq!(sent.len(), 1, "{sent:#?}");
        assert_labels(sent[0], &labels("source", version));
        assert_eq!(sent[0].value, series[0].value, "{version}");
        let name = format!("bill-{version}");
        let lines: u64 = logged(&mesh, &name, bill.sum(REQUESTS)).values().sum();
        assert_eq!(lines, bill.sum(REQUESTS), "access log of {name}");
    }
    assert_eq!(
        logged(&mesh, "front", 1000),
        BTreeMap::from([("200 -".to_owned(), 1000)])
    );
    let build: Vec<_> = front.of("istio_build").collect();
    assert_eq!(build.len(), 1);
    assert_eq!(
        (build[0].label("component"), build[0].label("tag"), build[0].value),
        ("proxy", "1.31.0", 1.0)
    );
}

fn send(mesh: &Mesh, request: Request, requests: u64) -> u64 {
    let plan = load::Plan {
        address: BILL,
        request,
        parallel: 8,
        keeps_alive: true,
        every: Duration::ZERO,
    };
    let report = load::send(&mesh.pod("front").namespace, plan, requests);
    report.samples.len() as u64
}

/// Clients that ask and leave before there is an answer.
fn reset(mesh: &Mesh, requests: u64) -> u64 {
    let wire = Request::get(BILL_HOST, "/slow?ms=3000").wire();
    mesh.pod("front").namespace.run(|| {
        for _ in 0..requests {
            let mut stream = TcpStream::connect(BILL).expect("the proxy accepts");
            stream.write_all(&wire).expect("sent");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    requests
}

#[test]
fn retries_errors_and_resets_are_counted_as_the_access_logs_tell_them() {
    let mut mesh = mesh(Scenario::BillTwo);
    assert_eq!(send(&mesh, Request::get(BILL_HOST, "/"), 50), 50);
    // From here on every other request to v1 is tried there first and goes to bill-v1 in the end.
    mesh.pod_mut("bill-v1b").proxy.iter_mut().for_each(Process::kill);
    let get = |target: &str| Request::get(BILL_HOST, target);
    let grpc = get("/big?bytes=100").header("content-type", "application/grpc");
    let sent = 50
        + send(&mesh, get("/"), 300)
        + send(&mesh, get("/status/404"), 100)
        + send(&mesh, get("/status/503"), 40)
        + send(&mesh, get("/reset"), 30)
        + send(&mesh, get("/half"), 30)
        + send(&mesh, grpc, 20)
        + reset(&mesh, 25);

    let front = &counted(&mesh, &["front"], sent)[0];
    assert_eq!(front.sum(REQUESTS), sent, "front counts what the client sent");
    let retried = mesh.counter("front", ".upstream_rq_retry");
    assert!(retried > 0, "a host is gone, and nothing was tried again");
    for pod in ["front", "bill-v1", "bill-v2"] {
        let scrape = scrape(&mesh, pod);
        let counted = scrape.sums_by(REQUESTS, &["response_code", "response_flags"]);
        let lines = logged(&mesh, pod, scrape.sum(REQUESTS));
        assert_eq!(counted, lines, "{pod}: metrics and access log");
        let timed = scrape.sums_by(DURATIONS, &["response_code", "response_flags"]);
        assert_eq!(counted, timed, "{pod}: durations");
    }
    let ends = front.sums_by(REQUESTS, &["response_code", "response_flags"]);
    assert_eq!(ends.get("404 -"), Some(&100), "{ends:?}");
    assert_eq!(ends.get("0 DC"), Some(&25), "{ends:?}");
    let grpc = front.sums_by(REQUESTS, &["request_protocol", "grpc_response_status"]);
    assert_eq!(
        (grpc.get("grpc 2"), grpc.get("http ")),
        (Some(&20), Some(&(sent - 20))),
        "{grpc:?}"
    );
    // As in Envoy: what is answered to a gRPC request without being gRPC has no messages.
    assert_eq!(front.sum("istio_response_messages_total"), 0);
}

#[test]
fn a_tcp_connection_is_told_while_it_lasts_and_when_it_is_over() {
    /// No service has it: both proxies pass on what is sent there, which is no HTTP.
    const PORT: u16 = 7777;
    let mesh = mesh(Scenario::Bill);
    let (listening, listens) = std::sync::mpsc::channel();
    let server = mesh.pod("bill-v1").namespace.spawn(move || {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("a free port");
        listening.send(()).expect("the test waits");
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        let mut seen = [0; 5];
        stream.read_exact(&mut seen).expect("five bytes");
        stream.write_all(b"and an answer").expect("open");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("until the client is done");
    });
    listens.recv().expect("the server listens");
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 20, 0, 21)), PORT);
    let mut client = mesh.pod("front").namespace.run(|| {
        let mut client = TcpStream::connect(address).expect("the proxy accepts");
        client.set_read_timeout(Some(PATIENCE)).expect("a time");
        client.write_all(b"\0\x01\x02\x03\x04").expect("open");
        let mut seen = [0; 13];
        client.read_exact(&mut seen).expect("an answer");
        client
    });
    let tcp = |name: &str| format!("istio_tcp_{name}_total");
    let sums = |pod: &str| {
        let scrape = scrape(&mesh, pod);
        [
            "connections_opened",
            "received_bytes",
            "sent_bytes",
            "connections_closed",
        ]
        .map(|name| scrape.sum(&tcp(name)))
    };
    for pod in ["front", "bill-v1"] {
        until(&format!("{pod} tells of the open connection"), PATIENCE, || {
            (sums(pod) == [1, 5, 13, 0]).then_some(())
        });
    }
    client.write_all(b"bye").expect("open");
    drop(client);
    server.join().expect("served");
    for pod in ["front", "bill-v1"] {
        until(&format!("{pod} tells of the closed connection"), PATIENCE, || {
            (sums(pod) == [1, 8, 13, 1]).then_some(())
        });
    }
    let ends = |pod: &str, label: &str| {
        let scrape = scrape(&mesh, pod);
        let opened = tcp("connections_opened");
        let series = scrape.of(&opened).next().expect("a series").clone();
        series.label(label).to_owned()
    };
    for (pod, reporter, service) in [
        ("front", "source", "PassthroughCluster"),
        ("bill-v1", "destination", "InboundPassthroughCluster"),
    ] {
        assert_eq!(ends(pod, "reporter"), reporter);
        assert_eq!(ends(pod, "destination_service_name"), service, "{pod}");
        assert_eq!(ends(pod, "request_protocol"), "tcp", "{pod}");
        assert_eq!(ends(pod, "response_flags"), "-", "{pod}");
    }
}
