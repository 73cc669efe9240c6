//! What a changed listener does to connections that are there: those on a filter chain that changed go, others stay.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use e2e::mesh::{BILL, BILL_HOST, Mesh, PATIENCE, Plan, Scenario};
use e2e::proxy::Kind;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use outrigger_demo::control_plane::{LISTENER, Verdict};

use super::rename_server;

/// Where front's users are served.
const OUTBOUND: &str = "0.0.0.0_9999";

#[test]
fn a_connection_on_a_changed_filter_chain_is_told_to_go() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let mesh = Mesh::start(&Plan::new(Scenario::Bill, kind, Kind::Outrigger));
        let mut connection = connect(&mesh);
        assert!(!is_last(&mut connection), "{kind:?}: nothing has changed yet");
        edit(&mesh, |listener| rename_server(listener, "renamed"));
        // Within the drain time Envoy tells some, then all; outrigger all.
        let start = Instant::now();
        while !is_last(&mut connection) {
            assert!(
                start.elapsed() < PATIENCE,
                "{kind:?}: the connection was not told to go"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(mesh.get("/").head.value("server"), Some("renamed"), "{kind:?}");
    }
}

/// Envoy drains all connections of a listener unless nothing but filter chains changed; it need not be so.
#[test]
fn a_connection_on_an_unchanged_filter_chain_stays() {
    let mesh = Mesh::start(&Plan::new(Scenario::Bill, Kind::Outrigger, Kind::Outrigger));
    let mut connection = connect(&mesh);
    edit(&mesh, |listener| {
        let chains = &mut listener.filter_chains;
        let mut another = chains[0].clone();
        another.name = "another".to_owned();
        another.filter_chain_match.get_or_insert_default().server_names = vec!["elsewhere".to_owned()];
        chains.push(another);
        listener.continue_on_listener_filters_timeout = !listener.continue_on_listener_filters_timeout;
    });
    for _ in 0..20 {
        assert!(!is_last(&mut connection), "the connection was told to go");
    }
}

fn edit(mesh: &Mesh, change: impl FnOnce(&mut Listener)) {
    let nonce = mesh
        .control
        .edit("front", LISTENER, OUTBOUND, change)
        .expect("front has it");
    let verdict = mesh
        .block_on(mesh.control.verdict(&nonce, PATIENCE))
        .expect("an answer");
    assert_eq!(verdict, Verdict::Ack);
    std::thread::sleep(Duration::from_millis(300));
}

fn connect(mesh: &Mesh) -> TcpStream {
    let stream = mesh
        .pod("front")
        .namespace
        .run(|| TcpStream::connect(BILL))
        .expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Sends a request; the response says that the connection ends.
fn is_last(stream: &mut TcpStream) -> bool {
    let request = format!("GET / HTTP/1.1\r\nHost: {BILL_HOST}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("the connection lives");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a response head");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length
        .and_then(|value| value.parse().ok())
        .expect("the application says how long");
    stream.read_exact(&mut vec![0; length]).expect("a response body");
    head.contains("\r\nconnection: close")
}
