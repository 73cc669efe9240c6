//! What is left of a cluster when another of its name takes its place, or its hosts go.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{FRONT, Manager, cluster, configuration, counters};
use e2e::http::Request;
use e2e::netns::Namespace;
use e2e::process::until;
use e2e::proxy::Kind;

const PORTS: [u16; 2] = [9011, 9012];
const SOON: Duration = Duration::from_secs(5);

/// Replaces a file at once.
fn put(folder: &Path, name: &str, text: &str) {
    let new = folder.join("new");
    fs::write(&new, text).expect("our folder");
    fs::rename(&new, folder.join(name)).expect("our folder");
}

fn source(folder: &Path, name: &str) -> String {
    format!(
        "{{ resource_api_version: V3, path_config_source: {{ path: {:?}, watched_directory: {{ path: {:?} }} }} }}",
        folder.join(name).to_str().expect("a path"),
        folder.to_str().expect("a path"),
    )
}

/// Answers 200, or 503 while it is ill.
fn serve(namespace: &Namespace, port: u16, is_ill: &Arc<AtomicBool>) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    let is_ill = is_ill.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let is_ill = is_ill.clone();
            std::thread::spawn(move || answer(stream, &is_ill));
        }
    });
}

fn answer(mut stream: TcpStream, is_ill: &AtomicBool) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let status = if is_ill.load(Ordering::Relaxed) {
        "503 Ill"
    } else {
        "200 OK"
    };
    let text = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let _ = stream.write_all(text.as_bytes());
}

fn becomes(alone: &Alone, expected: &str) {
    let (name, _) = expected.split_once(": ").expect("a name");
    until(&format!("{:?}: {expected}", alone.kind), SOON, || {
        (counters(alone, &[name]) == [expected]).then_some(())
    });
}

#[test]
fn what_a_cluster_showed_goes_with_it() {
    let more = "lb_policy: RING_HASH, outlier_detection: { consecutive_5xx: 1, max_ejection_percent: 100 },
        lb_subset_config: { fallback_policy: ANY_ENDPOINT, subset_selectors: [{ keys: [v] }] }, ";
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let folder = e2e::tools::open_folder("outrigger-e2e-replaced-");
        let clusters = |more: &str| {
            let cluster = cluster("changing", &PORTS[..1]).replacen(
                "{ ",
                &format!("{{ \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, {more}"),
                1,
            );
            let cluster = cluster.replace(
                "{ endpoint:",
                "{ metadata: { filter_metadata: { envoy.lb: { v: one } } }, endpoint:",
            );
            put(
                folder.path(),
                "clusters.yaml",
                &format!("resources: [{cluster}]\n"),
            );
        };
        clusters(more);
        let routes = "{ match: { prefix: / }, route: { cluster: changing } }";
        let manager = Manager {
            routes: format!(
                "validate_clusters: false, virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{routes}] }}]"
            ),
            ..Manager::default()
        };
        let resources = format!(
            "{}dynamic_resources:\n  cds_config: {}\n",
            configuration(&[manager], &[]),
            source(folder.path(), "clusters.yaml")
        );
        let is_ill = Arc::new(AtomicBool::new(true));
        let alone = Alone::start(kind, &resources, |namespace, _| {
            serve(namespace, PORTS[0], &is_ill)
        });
        let address = (Ipv4Addr::LOCALHOST, FRONT).into();
        let answer = alone.send(address, &Request::get("a", "/")).expect("an answer");
        assert_eq!(answer.status(), 503, "{kind:?}");
        becomes(&alone, "cluster.changing.outlier_detection.ejections_active: 1");
        becomes(&alone, "cluster.changing.ring_hash_lb.size: 1024");
        clusters("");
        becomes(&alone, "cluster.changing.outlier_detection.ejections_active: -");
        becomes(&alone, "cluster.changing.ring_hash_lb.size: -");
        becomes(&alone, "cluster.changing.lb_subsets_active: 0");
        becomes(
            &alone,
            "cluster.changing.lb_subsets_single_host_per_subset_duplicate: -",
        );
        // One a worker in Envoy, one here.
        let counts = ["created", "removed"].map(|what| {
            let name = format!("cluster.changing.lb_subsets_{what}");
            counters(&alone, &[&name]).concat().replace(&name, "")
        });
        assert_eq!(counts[0], counts[1], "{kind:?}");
    }
}

/// A host that is gone from the assignment stays while it passes its checks, unless that is not wanted.
#[test]
fn hosts_that_are_well_go_when_they_fail() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        for ignores_health in [false, true] {
            let folder = e2e::tools::open_folder("outrigger-e2e-removals-");
            let endpoints = |ports: &[u16]| put(folder.path(), "endpoints.yaml", &assignment(ports));
            endpoints(&PORTS);
            let check =
                "{ timeout: 1s, interval: 0.1s, no_traffic_interval: 0.1s, no_traffic_healthy_interval: 0.1s,
                unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: { path: / } }";
            let changing = format!(
                "{{ name: changing, type: EDS, connect_timeout: 1s, ignore_health_on_host_removal: {ignores_health},
                   health_checks: [{check}], eds_cluster_config: {{ eds_config: {} }} }}",
                source(folder.path(), "endpoints.yaml")
            );
            let routes = "{ match: { prefix: / }, route: { cluster: changing } }";
            let resources = configuration(&[Manager::with_routes(routes)], &[changing]);
            let is_ill = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
            let alone = Alone::start(kind, &resources, |namespace, _| {
                for (port, is_ill) in PORTS.into_iter().zip(&is_ill) {
                    serve(namespace, port, is_ill);
                }
            });
            becomes(&alone, "cluster.changing.membership_healthy: 2");
            endpoints(&PORTS[..1]);
            if !ignores_health {
                until(&format!("{kind:?}: the host is to go"), SOON, || {
                    let text = alone.admin("/clusters").expect("the admin interface").body;
                    let flag = "changing::127.0.0.1:9012::health_flags::/pending_dynamic_removal";
                    text.contains(flag).then_some(())
                });
                // It goes on to be checked.
                std::thread::sleep(Duration::from_millis(300));
                becomes(&alone, "cluster.changing.membership_healthy: 2");
                is_ill[1].store(true, Ordering::Relaxed);
            }
            becomes(&alone, "cluster.changing.membership_total: 1");
            becomes(&alone, "cluster.changing.membership_healthy: 1");
        }
    }
}

/// Endpoints that do not come again are of no use after a time.
#[test]
fn endpoints_become_stale() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let folder = e2e::tools::open_folder("outrigger-e2e-stale-");
        let fresh = assignment(&PORTS);
        let fading = fresh.replacen(
            "endpoints: [",
            "policy: { endpoint_stale_after: 2s }, endpoints: [",
            1,
        );
        put(folder.path(), "endpoints.yaml", &fresh);
        let changing = format!(
            "{{ name: changing, type: EDS, connect_timeout: 1s, eds_cluster_config: {{ eds_config: {} }} }}",
            source(folder.path(), "endpoints.yaml")
        );
        let routes = "{ match: { prefix: / }, route: { cluster: changing } }";
        let resources = configuration(&[Manager::with_routes(routes)], &[changing]);
        let alone = Alone::start(kind, &resources, |_, _| {});
        becomes(&alone, "cluster.changing.membership_total: 2");
        put(folder.path(), "endpoints.yaml", &fading);
        becomes(&alone, "cluster.changing.membership_total: 0");
        // What comes later counts.
        put(folder.path(), "endpoints.yaml", &assignment(&PORTS[..1]));
        becomes(&alone, "cluster.changing.membership_total: 1");
        std::thread::sleep(Duration::from_millis(2500));
        becomes(&alone, "cluster.changing.membership_total: 1");
    }
}

fn assignment(ports: &[u16]) -> String {
    let hosts = ports.iter().map(|port| {
        format!("{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}, ")
    });
    format!(
        "resources: [{{ \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: changing,
           endpoints: [{{ lb_endpoints: [{}] }}] }}]\n",
        hosts.collect::<String>()
    )
}
