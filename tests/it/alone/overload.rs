//! Limits of downstream connections: of the overload manager, and of runtime keys. Who is let in, and what is counted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{check_with, counters};
use e2e::process::until;

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const PATIENCE: Duration = Duration::from_secs(10);

/// Limited by everything.
const PLAIN: u16 = 10_000;
/// `ignore_global_conn_limit`.
const IGNORING: u16 = 10_001;
/// `bypass_overload_manager`.
const BYPASSING: u16 = 10_002;
/// One connection at once, by a runtime key.
const NARROW: u16 = 10_003;

/// Listeners that answer every request, and `more` of the bootstrap.
fn resources(more: &str) -> String {
    let kinds = [
        (PLAIN, ""),
        (IGNORING, "ignore_global_conn_limit: true,"),
        (BYPASSING, "bypass_overload_manager: true,"),
        (NARROW, ""),
    ];
    let listeners = kinds.map(|(port, fields)| {
        format!(
            "  - {{ name: l{port}, {fields} address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }},
      filter_chains: [{{ filters: [{{ name: h, typed_config: {{ \"@type\": {MANAGER}, stat_prefix: h,
        route_config: {{ virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, direct_response: {{ status: 200 }} }}] }}] }},
        http_filters: [{{ name: r, typed_config: {{ \"@type\": {ROUTER} }} }}] }} }}] }}] }}\n"
        )
    });
    format!("  listeners:\n{}{more}", listeners.concat())
}

/// A connection to each of these ports, those that are let in kept open: what became of each.
fn connect(alone: &Alone, ports: &[u16], open: &mut Vec<TcpStream>) -> Vec<String> {
    let connect = |port: &u16| {
        let mut stream = alone.connect(*port);
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut answer = [0; 15];
        let is_served = asked.and_then(|()| stream.read_exact(&mut answer)).is_ok();
        if is_served {
            open.push(stream);
        }
        format!("{port} {is_served}")
    };
    ports.iter().map(connect).collect()
}

/// Waits until a listener has so many connections.
fn settle(alone: &Alone, port: u16, count: usize) {
    let gauge = format!("listener.127.0.0.1_{port}.downstream_cx_active");
    until("connections to end", PATIENCE, || {
        (counters(alone, &[&gauge]) == [format!("{gauge}: {count}")]).then_some(())
    });
}

fn counted(alone: &Alone) -> Vec<String> {
    let of = |port: u16| {
        let stats = [
            "downstream_cx_total",
            "downstream_cx_overflow",
            "downstream_global_cx_overflow",
        ];
        stats.map(|stat| format!("listener.127.0.0.1_{port}.{stat}"))
    };
    let mut names: Vec<_> = [PLAIN, IGNORING, BYPASSING, NARROW]
        .into_iter()
        .flat_map(of)
        .collect();
    names
        .push("overload.envoy.resource_monitors.global_downstream_max_connections.failed_updates".to_owned());
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    counters(alone, &names)
}

/// More connections than there may be; then some end, and others come in. None that a limit ignores ends before the counters are
/// read: in Envoy its end lets one more in, and counts as a failed update.
fn crowd(alone: &Alone) -> Vec<String> {
    let mut open = Vec::new();
    let ports = [
        PLAIN, NARROW, NARROW, PLAIN, PLAIN, IGNORING, IGNORING, BYPASSING, NARROW,
    ];
    let mut told = connect(alone, &ports, &mut open);
    // The first two.
    open.drain(..2);
    settle(alone, PLAIN, 1);
    settle(alone, NARROW, 0);
    told.extend(connect(alone, &[NARROW, NARROW, PLAIN, PLAIN], &mut open));
    told.extend(counted(alone));
    told
}

#[test]
fn the_overload_manager_limits_connections() {
    let resources = resources(
        "overload_manager: { resource_monitors: [{ name: envoy.resource_monitors.global_downstream_max_connections, typed_config: {
  \"@type\": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig,
  max_active_downstream_connections: 3 } }] }
layered_runtime: { layers: [
  { name: one, static_layer: { envoy.resource_limits.listener.l10003.connection_limit: 3 } },
  { name: two, static_layer: { envoy: { resource_limits: { listener: { l10003: { connection_limit: \"1\" } } } } } }] }\n",
    );
    check_with(&resources, |_, _| {}, crowd);
}

#[test]
fn a_runtime_key_limits_connections() {
    let resources = resources(
        "layered_runtime: { layers: [{ name: one, static_layer: { overload.global_downstream_max_connections: 3 } }] }\n",
    );
    check_with(
        &resources,
        |_, _| {},
        |alone| {
            // Envoy counts the connection that asked whether it is ready, too.
            std::thread::sleep(Duration::from_millis(300));
            let mut open = Vec::new();
            let ports = [PLAIN, IGNORING, PLAIN, PLAIN, BYPASSING, IGNORING];
            let mut told = connect(alone, &ports, &mut open);
            // The admin interface is one of many in Envoy, and none here.
            drop(open);
            told.extend(settled(alone));
            told
        },
    );
}

/// Counters, when all connections have ended.
fn settled(alone: &Alone) -> Vec<String> {
    for port in [PLAIN, IGNORING, BYPASSING, NARROW] {
        settle(alone, port, 0);
    }
    counted(alone)
}
