//! What ends a downstream connection, a stream and an exchange besides the two ends: age, number of requests, duration; and what the head of
//! a response may have.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::beside::{Case, FRONT, Manager, check, check_with, configuration, counters, get};
use e2e::netns::Namespace;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(4);
const DIRECT: &str =
    "{ match: { prefix: / }, direct_response: { status: 200, body: { inline_string: ok } } }";

/// What a client does with one connection.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Sends these bytes.
    Send(&'static str),
    /// Does nothing for so many seconds, but read.
    Wait(u64),
    /// Has what it wanted: how long the connection lasts after a response that is the last one is not compared.
    Leave,
}

use Step::{Leave, Send, Wait};

const GET: Step = Send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
const HALF: Step = Send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01234");

/// The listener's settings, and what clients of it do. All times are whole seconds, so that half a second of lateness changes nothing.
const LISTENERS: &[(&str, &[&[Step]])] = &[
    (
        "common_http_protocol_options: { max_requests_per_connection: 2 },",
        &[
            &[GET, Wait(0), GET, Wait(0), GET],
            &[GET, GET, GET],
            &[GET, Wait(1), GET],
        ],
    ),
    (
        "common_http_protocol_options: { max_requests_per_connection: 1 },",
        &[&[GET], &[HALF]],
    ),
    (
        "common_http_protocol_options: { max_connection_duration: 1s }, drain_timeout: 1s,",
        &[
            &[],
            &[GET],
            &[GET, Wait(1), Wait(1), GET],
            &[Wait(1), GET],
            &[GET, Wait(1), GET, Wait(0), Leave],
        ],
    ),
    (
        "common_http_protocol_options: { max_connection_duration: 1s }, drain_timeout: 1s, http1_safe_max_connection_duration: true,",
        &[&[], &[GET], &[GET, Wait(1), Wait(1), GET], &[GET, Wait(2), GET]],
    ),
    (
        "common_http_protocol_options: { max_connection_duration: 1s }, drain_timeout: 1s, codec_type: HTTP1,",
        &[&[], &[GET]],
    ),
    (
        "common_http_protocol_options: { idle_timeout: 1s }, drain_timeout: 1s,",
        &[&[GET]],
    ),
];

#[test]
fn a_connection_ends_when_it_is_old_or_has_had_its_requests() {
    let managers: Vec<_> = LISTENERS
        .iter()
        .map(|(settings, _)| Manager {
            // Envoy lets its client end the connection first.
            settings: format!("{settings} delayed_close_timeout: 0s,"),
            ..Manager::with_routes(DIRECT)
        })
        .collect();
    check_with(
        &configuration(&managers, &[]),
        |_, _| (),
        |alone| {
            let mut told = clients(alone);
            for port in (FRONT..).take(LISTENERS.len()) {
                let names = [
                    "downstream_cx_max_duration_reached",
                    "downstream_cx_max_requests_reached",
                ]
                .map(|name| format!("http.s{port}.{name}"));
                told.extend(counters(alone, &names.each_ref().map(String::as_str)));
            }
            told
        },
    );
}

/// What each client got, all at once.
fn clients(alone: &Alone) -> Vec<String> {
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (port, (settings, scripts)) in (FRONT..).zip(LISTENERS) {
            for script in *scripts {
                let stream = connect(&alone.namespace, port);
                running.push(scope.spawn(move || format!("{settings} {script:?}: {}", play(stream, script))));
            }
        }
        running
            .into_iter()
            .map(|client| client.join().expect("no client panics"))
            .collect()
    })
}

fn connect(namespace: &Namespace, port: u16) -> TcpStream {
    namespace.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the proxy listens"))
}

/// What came, and after how many seconds the end.
fn play(mut stream: TcpStream, script: &[Step]) -> String {
    let begin = Instant::now();
    let mut came = Vec::new();
    for step in script {
        match step {
            Send(text) => {
                // It may be closed.
                let _ = stream.write_all(text.as_bytes());
            }
            Leave => return lines(&came),
            Wait(seconds) => read(
                &mut stream,
                &mut came,
                // What is asked is answered by then; else the time between two events.
                match seconds {
                    0 => SECOND / 4,
                    seconds => SECOND * u32::try_from(*seconds).expect("few") + SECOND / 4,
                },
            ),
        }
    }
    read(&mut stream, &mut came, PATIENCE.saturating_sub(begin.elapsed()));
    let end = match begin.elapsed() {
        open if open >= PATIENCE => "open".to_owned(),
        closed => format!("closed after {:.0} s", closed.as_secs_f64()),
    };
    format!("{} {end}", lines(&came))
}

fn lines(came: &[u8]) -> String {
    let text = String::from_utf8_lossy(came);
    let lines = text.lines().filter(|line| !line.starts_with("date:"));
    format!("{:?}", lines.collect::<Vec<_>>())
}

fn read(stream: &mut TcpStream, came: &mut Vec<u8>, limit: Duration) {
    let end = Instant::now() + limit;
    let mut bytes = [0; 4096];
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        stream.set_read_timeout(Some(left)).expect("a limit");
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => came.extend_from_slice(&bytes[..count]),
            Err(_) => return,
        }
    }
}

/// A cluster with options of [`HttpProtocolOptions`](https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/core/v3/protocol.proto).
fn with_common(name: &str, port: u16, common: &str) -> String {
    let plain = e2e::beside::cluster(name, &[port]);
    let options = format!(
        "typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{
           \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
           common_http_protocol_options: {{ {common} }}, explicit_http_config: {{ http_protocol_options: {{}} }} }} }} }}"
    );
    let open = plain.trim_end().strip_suffix('}').expect("a mapping");
    format!("{open}, {options}")
}

/// Accepts, and answers nothing.
const SILENT: u16 = 9002;
/// Sends a head and half a body, then nothing.
const HALF_ANSWER: u16 = 9003;

const UPSTREAMS: &[Case] = &[
    get("/silent", &[]),
    get("/retried", &[]),
    get("/listener", &[]),
    get("/longer", &[]),
    get("/listener", &[]).listener(1),
    get("/few", &[]),
    get("/few", &[("x-say", "a=1")]),
    get("/few", &[("x-say", "a=1"), ("x-say", "b=1")]),
    get("/short", &[]),
    get("/short", &[("x-say", LONG)]),
    get("/short", &[("x-say", LONG), ("x-say", LONG)]),
    get("/many", &[("x-say", "a=1")]),
];

/// 600 bytes.
const LONG: &str = concat!(
    "x-long=",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
);

#[test]
fn an_exchange_and_the_head_of_its_response_have_the_limits_of_their_cluster() {
    let routes = "{ match: { prefix: /silent }, route: { cluster: silent, timeout: 0s } },
        { match: { prefix: /half }, route: { cluster: half, timeout: 0s } },
        { match: { prefix: /retried }, route: { cluster: silent, timeout: 0s, retry_policy: { retry_on: reset, num_retries: 1 } } },
        { match: { prefix: /listener }, route: { cluster: deaf, timeout: 0s } },
        { match: { prefix: /longer }, route: { cluster: deaf, timeout: 0s, max_stream_duration: { max_stream_duration: 0.5s } } },
        { match: { prefix: /slow-listener/half }, route: { cluster: slow-half, timeout: 0s } },
        { match: { prefix: /few }, route: { cluster: few } },
        { match: { prefix: /short }, route: { cluster: short } },
        { match: { prefix: /many }, route: { cluster: many } }";
    let manager = |duration: &str| Manager {
        settings: format!(
            "delayed_close_timeout: 0s, common_http_protocol_options: {{ max_stream_duration: {duration} }},"
        ),
        ..Manager::with_routes(routes)
    };
    let clusters = [
        with_common("silent", SILENT, "max_stream_duration: 1s"),
        with_common("half", HALF_ANSWER, "max_stream_duration: 1s"),
        with_common("slow-half", HALF_ANSWER, ""),
        with_common("deaf", SILENT, ""),
        with_common("few", e2e::beside::ECHO, "max_headers_count: 3"),
        with_common("short", e2e::beside::ECHO, "max_response_headers_kb: 1"),
        with_common(
            "many",
            e2e::beside::ECHO,
            "max_headers_count: 300, max_response_headers_kb: 500",
        ),
    ];
    let configuration = configuration(&[manager("3s"), manager("1s")], &clusters);
    let prepare = |namespace: &Namespace| {
        for (port, answer) in [
            (SILENT, ""),
            (HALF_ANSWER, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234"),
        ] {
            upstream(namespace, port, answer);
        }
    };
    check_with(
        &configuration,
        |namespace, _| prepare(namespace),
        |alone| {
            let mut told = e2e::beside::answers(alone, UPSTREAMS);
            for (path, port) in [("/half", FRONT), ("/slow-listener/half", FRONT + 1)] {
                let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-case: {path}\r\n\r\n");
                let mut stream = connect(&alone.namespace, port);
                stream.write_all(request.as_bytes()).expect("it goes");
                let came = play(stream, &[]);
                told.push(format!(
                    "{path}: {came} log {}",
                    alone.logged(&format!("{path} "))
                ));
            }
            told.extend(counters(
                alone,
                &[
                    "cluster.silent.upstream_rq_max_duration_reached",
                    "cluster.half.upstream_rq_max_duration_reached",
                    "http.s10000.downstream_rq_max_duration_reached",
                ],
            ));
            told
        },
    );
}

/// Reads a little of a request, answers this and keeps the connection.
fn upstream(namespace: &Namespace, port: u16, answer: &'static str) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(answer.as_bytes());
            kept.push(stream);
        }
    });
}

#[test]
fn times_with_jitter_are_accepted() {
    let manager = Manager {
        settings: "drain_timeout: 1s, drain_timeout_jitter: { value: 50 }, delayed_close_timeout: 0.5s,
            common_http_protocol_options: { max_connection_duration: 3600s, max_connection_duration_jitter: { value: 20 } },"
            .to_owned(),
        ..Manager::with_routes(DIRECT)
    };
    check(&configuration(&[manager], &[]), &[get("/", &[])]);
}
