//! Before there is a server: `upstream_connect_mode`, `max_early_data_bytes`, `backoff_options`, `idle_timeout`; and `check_drain_close`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::beside::{check_with, counters};
use e2e::proxy::Kind;

use super::{FILE_LOG, PATIENCE, SERVERS, TCP_PROXY, servers};

const FIRST: u16 = 10_000;

/// What a client does.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Says so many letters; the server answers each with its port.
    Say(usize),
    /// A moment.
    Wait,
    /// So many bytes come.
    Hear(usize),
    /// Ends its side.
    End,
    /// Breaks the connection.
    Reset,
    /// How many connections there were to a server.
    Count,
}
use Step::{Count, End, Hear, Reset, Say, Wait};

/// Where to, fields of the filter, and what the client does, until the end of the connection.
const CASES: &[(&str, &str, &[Step])] = &[
    ("one", "", &[Wait, Count, Say(1), Hear(4), End]),
    (
        "one",
        "max_early_data_bytes: 100",
        &[Say(1), Wait, Say(2), Hear(12), End],
    ),
    (
        "one",
        "max_early_data_bytes: 0",
        &[Wait, Count, Say(1), Hear(4), End],
    ),
    (
        "one",
        "max_early_data_bytes: 100, upstream_connect_mode: ON_DOWNSTREAM_DATA",
        &[Wait, Count, Say(1), Hear(4), Count, End],
    ),
    (
        "one",
        "max_early_data_bytes: 0, upstream_connect_mode: ON_DOWNSTREAM_DATA",
        &[Say(1000), Say(1000), End],
    ),
    (
        "one",
        "max_early_data_bytes: 0, upstream_connect_mode: ON_DOWNSTREAM_TLS_HANDSHAKE",
        &[Wait, Count, Say(1), Hear(4), End],
    ),
    // It says nothing, and never will.
    (
        "one",
        "max_early_data_bytes: 5, upstream_connect_mode: ON_DOWNSTREAM_DATA, idle_timeout: 0.8s",
        &[End],
    ),
    (
        "one",
        "max_early_data_bytes: 5, upstream_connect_mode: ON_DOWNSTREAM_DATA, idle_timeout: 0.8s",
        &[Wait],
    ),
    (
        "one",
        "max_early_data_bytes: 5, upstream_connect_mode: ON_DOWNSTREAM_DATA",
        &[Wait, Reset],
    ),
    (
        "one",
        "max_early_data_bytes: 5, upstream_connect_mode: ON_DOWNSTREAM_DATA, max_downstream_connection_duration: 0.4s",
        &[Wait],
    ),
    // Nobody answers there.
    ("unanswered", "idle_timeout: 0.8s", &[Say(5)]),
    (
        "unanswered",
        "idle_timeout: 0.8s, max_early_data_bytes: 100",
        &[Say(5)],
    ),
    (
        "unanswered",
        "idle_timeout: 0.8s, max_early_data_bytes: 100",
        &[Say(5), End],
    ),
    (
        "unanswered",
        "idle_timeout: 30s, max_early_data_bytes: 100",
        &[Say(5), Wait, Reset],
    ),
    (
        "dead",
        "max_early_data_bytes: 100, upstream_connect_mode: ON_DOWNSTREAM_DATA",
        &[Say(5)],
    ),
    (
        "dead",
        "max_connect_attempts: 3, backoff_options: { base_interval: 0.2s }",
        &[],
    ),
    (
        "dead",
        "max_connect_attempts: 3, backoff_options: { base_interval: 0.1s, max_interval: 0.1s }",
        &[],
    ),
    (
        "none",
        "max_early_data_bytes: 100, upstream_connect_mode: ON_DOWNSTREAM_DATA",
        &[Say(5)],
    ),
];

fn listener(port: u16, cluster: &str, fields: &str) -> String {
    format!(
        "  - {{ name: l{port}, traffic_direction: INBOUND, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }},
      filter_chains: [{{ filters: [{{ name: t, typed_config: {{ \"@type\": {TCP_PROXY}, stat_prefix: s{port}, cluster: {cluster}, {fields},
        access_log: [{{ name: l, typed_config: {{ \"@type\": {FILE_LOG}, path: /dev/stdout, log_format: {{ text_format_source: {{
          inline_string: \"{port} %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\\n\" }} }} }} }}] }} }}] }}] }}\n"
    )
}

fn resources() -> String {
    let listeners = (FIRST..).zip(CASES).map(|(port, (kind, fields, _))| {
        let fields = if fields.is_empty() {
            "idle_timeout: 20s"
        } else {
            fields
        };
        listener(port, &format!("{kind}{port}"), fields)
    });
    let clusters = (FIRST..).zip(CASES).map(|(port, (kind, ..))| {
        let name = format!("{kind}{port}");
        let cluster = match *kind {
            "dead" => e2e::beside::cluster(&name, &[1]),
            "none" => e2e::beside::cluster("another", &[1]),
            _ => e2e::beside::cluster(&name, &SERVERS[..1]),
        };
        // Its packets are dropped.
        let cluster = match *kind {
            "unanswered" => cluster
                .replace("127.0.0.1", "192.0.2.1")
                .replace("connect_timeout: 1s", "connect_timeout: 60s"),
            _ => cluster,
        };
        format!("  - {cluster}\n")
    });
    format!(
        "  listeners:\n{}  clusters:\n{}",
        listeners.collect::<String>(),
        clusters.collect::<String>(),
    )
}

fn moment() {
    thread::sleep(Duration::from_millis(300));
}

/// What came of it.
fn play(alone: &Alone, port: u16, kind: &str, steps: &[Step]) -> String {
    let mut stream = alone.connect(port);
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let began = Instant::now();
    let mut told = Vec::new();
    for step in steps {
        match *step {
            Say(count) => told.push(format!("{:?}", stream.write_all(&vec![b'?'; count]).is_ok())),
            Wait => moment(),
            Hear(count) => {
                let mut heard = vec![0; count];
                told.push(format!(
                    "{:?} {}",
                    stream.read_exact(&mut heard),
                    heard.escape_ascii()
                ));
            }
            End => stream.shutdown(Shutdown::Write).expect("open"),
            Reset => {
                reset(stream);
                return told.join(", ");
            }
            Count => told.extend(counters(
                alone,
                &[&format!("cluster.{kind}{port}.upstream_cx_total")],
            )),
        }
    }
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest).map_err(|error| error.kind());
    let is_late = began.elapsed() > Duration::from_millis(600);
    // Waits are random.
    let is_late = if kind == "dead" {
        "by chance".to_owned()
    } else {
        is_late.to_string()
    };
    format!("{} then {end:?}, late {is_late}", told.join(", "))
}

fn reset(stream: TcpStream) {
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).expect("a socket");
}

#[test]
fn what_comes_before_a_server_is_that_of_envoy() {
    check_with(
        &resources(),
        |namespace, _| servers(namespace),
        |alone| {
            let cases = || (FIRST..).zip(CASES);
            let answers: Vec<_> = thread::scope(|scope| {
                let running: Vec<_> = cases()
                    .map(|(port, (kind, _, steps))| scope.spawn(move || play(alone, port, kind, steps)))
                    .collect();
                running
                    .into_iter()
                    .map(|each| each.join().expect("a case"))
                    .collect()
            });
            moment();
            let told = cases().zip(answers).map(|((port, (kind, fields, _)), answer)| {
                let log = alone.logged(&format!("{port} "));
                let cluster = format!("{kind}{port}");
                let names = [
                    format!("tcp.s{port}.idle_timeout"),
                    format!("tcp.s{port}.downstream_cx_no_route"),
                    format!("tcp.s{port}.max_downstream_connection_duration"),
                    format!("cluster.{cluster}.upstream_cx_total"),
                    format!("cluster.{cluster}.upstream_cx_active"),
                    format!("cluster.{cluster}.upstream_cx_connect_fail"),
                ];
                let counts = counters(alone, &names.each_ref().map(String::as_str));
                format!(
                    "{cluster} {fields}: {answer}\n  log {log}\n  {}",
                    counts.join(", ")
                )
            });
            told.collect()
        },
    );
}

/// The second listener does not look.
fn drained() -> String {
    format!(
        "  listeners:\n{}{}  clusters:\n  - {}\n",
        listener(FIRST, "one", "check_drain_close: true"),
        listener(FIRST + 1, "one", "check_drain_close: false"),
        e2e::beside::cluster("one", &SERVERS[..1])
    )
}

#[test]
fn who_speaks_while_the_listener_drains_is_closed() {
    check_with(
        &drained(),
        |namespace, _| servers(namespace),
        |alone| {
            let mut streams = [FIRST, FIRST, FIRST + 1].map(|port| alone.connect(port));
            let mut told = Vec::new();
            let say = |told: &mut Vec<String>, name: &str, stream: &mut TcpStream| {
                stream
                    .set_read_timeout(Some(Duration::from_millis(700)))
                    .expect("not zero");
                let said = stream.write_all(b"?");
                let mut heard = [0; 4];
                let first = stream.read(&mut heard).map_err(|error| error.kind());
                let then = stream.read(&mut [0]).map_err(|error| error.kind());
                // Envoy closes when it has passed the question on, and so the answer may be lost.
                told.push(format!("{name}: {} {first:?} {then:?}", said.is_ok()));
            };
            for (name, stream) in ["one", "other"].into_iter().zip([0, 2]) {
                say(&mut told, name, &mut streams[stream]);
            }
            // Envoy's listeners drain over minutes, if not told otherwise; a failed health check is at once.
            let path = match alone.kind {
                Kind::Envoy => "/healthcheck/fail",
                Kind::Outrigger => "/drain_listeners?graceful&skip_exit",
            };
            let answer = e2e::http::send(
                &alone.namespace,
                e2e::proxy::ADMIN,
                &e2e::http::Request {
                    method: "POST",
                    ..e2e::http::Request::get("localhost", path)
                },
            );
            told.push(format!("{}", answer.expect("the admin interface").status()));
            moment();
            for (name, stream) in ["silent", "one", "other"].into_iter().zip([1, 0, 2]) {
                if name == "silent" {
                    let stream = &mut streams[stream];
                    stream
                        .set_read_timeout(Some(Duration::from_millis(300)))
                        .expect("not zero");
                    told.push(format!(
                        "{name}: {:?}",
                        stream.read(&mut [0]).map_err(|error| error.kind())
                    ));
                } else {
                    say(&mut told, name, &mut streams[stream]);
                }
            }
            moment();
            told.extend(counters(
                alone,
                &[
                    "tcp.s10000.downstream_cx_drain_close",
                    "tcp.s10001.downstream_cx_drain_close",
                ],
            ));
            told
        },
    );
}
