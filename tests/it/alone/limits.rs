//! Time limits of a stream: which one ends it, when, with which status, flags and details; for requests that are whole, half, or get half
//! an answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::netns::Namespace;
use e2e::proxy::Kind;

/// Answers nothing.
const SILENT: u16 = 9001;
/// Sends a head and half a body, then nothing.
const HALF: u16 = 9002;
/// Accepts no connection: its queue is full.
const DEAF: u16 = 9003;
/// Answers each request at once.
const PROMPT: u16 = 9004;
/// Answers with more than any buffer holds.
const FLOOD: u16 = 9005;
const UPSTREAMS: [u16; 5] = [SILENT, HALF, DEAF, PROMPT, FLOOD];
/// The listener with no stream limit of its own, and the one with a `stream_idle_timeout`.
const PLAIN: u16 = 10_000;
const IDLE: u16 = 10_001;

/// One route's limits, YAML of its `RouteAction` beside the cluster.
const ROUTES: &[(&str, &str)] = &[
    ("none", "timeout: 0s"),
    ("timeout", "timeout: 0.5s"),
    (
        "duration",
        "timeout: 0s, max_stream_duration: { max_stream_duration: 0.5s }",
    ),
    (
        "replaced-timeout",
        "timeout: 0.5s, max_stream_duration: { max_stream_duration: 1s }",
    ),
    ("idle", "timeout: 0s, idle_timeout: 0.5s"),
    ("never-idle", "timeout: 1s, idle_timeout: 0s"),
    (
        "per-try",
        "timeout: 0s, retry_policy: { retry_on: 5xx, num_retries: 1, per_try_timeout: 0.4s }",
    ),
    ("grpc-header", "timeout: 5s, max_grpc_timeout: 0s"),
    ("grpc-bound", "timeout: 5s, max_grpc_timeout: 0.4s"),
    (
        "grpc-duration",
        "timeout: 0s, max_stream_duration: { grpc_timeout_header_max: 0.5s }",
    ),
];

/// Route, upstream, listener, what of the request is sent, extra headers.
struct Case {
    route: &'static str,
    upstream: u16,
    listener: u16,
    request: Sent,
    headers: &'static str,
    /// After how many seconds what comes: status and body, then code, flags and details of the access log.
    expected: (f64, &'static str),
}

/// How much of a request goes out.
#[derive(Clone, Copy, Debug)]
enum Sent {
    /// No body.
    Get,
    /// All of its body.
    Whole,
    /// Half of its body.
    Half,
}

const GRPC: &str = "content-type: application/grpc\r\ngrpc-timeout: 700m\r\n";
const GRPC_LONG: &str = "content-type: application/grpc\r\ngrpc-timeout: 10S\r\n";
const GRPC_NONE: &str = "content-type: application/grpc\r\n";

const fn case(route: &'static str, upstream: u16, request: Sent, expected: (f64, &'static str)) -> Case {
    Case {
        route,
        upstream,
        listener: PLAIN,
        request,
        headers: "",
        expected,
    }
}

const fn grpc(route: &'static str, headers: &'static str, expected: (f64, &'static str)) -> Case {
    Case {
        route,
        upstream: SILENT,
        listener: PLAIN,
        request: Sent::Whole,
        headers,
        expected,
    }
}

const fn idle(route: &'static str, upstream: u16, request: Sent, expected: (f64, &'static str)) -> Case {
    Case {
        route,
        upstream,
        listener: IDLE,
        request,
        headers: "",
        expected,
    }
}

const UT: &str = "504 \"upstream request timeout\"; 504 UT response_timeout";
const DT: &str = "504 \"downstream duration timeout\"; 504 - max_duration_timeout";
const DT_HALF: &str = "408 \"downstream duration timeout\"; 408 - max_duration_timeout";
const SI: &str = "504 \"stream timeout\"; 504 SI stream_idle_timeout";
const SI_HALF: &str = "408 \"stream timeout\"; 408 SI stream_idle_timeout";
const PER_TRY: &str = "504 \"upstream request timeout\"; 504 URX,UT upstream_per_try_timeout";
const GRPC_UT: &str =
    "200 grpc-status: 14 grpc-message: upstream request timeout\"\"; 200 UT response_timeout";
const GRPC_DT: &str =
    "200 grpc-status: 4 grpc-message: downstream duration timeout\"\"; 200 - max_duration_timeout";
/// Neither an answer nor an end before [`LONGEST`].
const NOTHING: (f64, &str) = (0.0, "nothing");

const CASES: &[Case] = &[
    case("timeout", SILENT, Sent::Get, (0.5, UT)),
    case("timeout", SILENT, Sent::Whole, (0.5, UT)),
    case("timeout", SILENT, Sent::Half, NOTHING),
    case(
        "timeout",
        HALF,
        Sent::Get,
        (0.5, "200 \"01234\"; 200 UT response_timeout"),
    ),
    case("timeout", HALF, Sent::Half, NOTHING),
    case("timeout", DEAF, Sent::Get, (0.5, UT)),
    case("timeout", DEAF, Sent::Whole, (0.5, UT)),
    case(
        "timeout",
        PROMPT,
        Sent::Whole,
        (0.0, "200 \"ok\"; 200 - via_upstream"),
    ),
    case("duration", SILENT, Sent::Get, (0.5, DT)),
    case("duration", SILENT, Sent::Whole, (0.5, DT)),
    case("duration", SILENT, Sent::Half, (0.5, DT_HALF)),
    case(
        "duration",
        HALF,
        Sent::Get,
        (0.5, "200 \"01234\"; 200 - max_duration_timeout"),
    ),
    case("replaced-timeout", SILENT, Sent::Get, (1.0, DT)),
    case("replaced-timeout", SILENT, Sent::Half, (1.0, DT_HALF)),
    case("idle", SILENT, Sent::Get, (0.5, SI)),
    case("idle", SILENT, Sent::Half, (0.5, SI_HALF)),
    case(
        "idle",
        HALF,
        Sent::Get,
        (0.5, "200 \"01234\"; 200 SI stream_idle_timeout"),
    ),
    case("per-try", SILENT, Sent::Get, (0.8, PER_TRY)),
    case("per-try", SILENT, Sent::Whole, (0.8, PER_TRY)),
    case("per-try", SILENT, Sent::Half, NOTHING),
    case("per-try", HALF, Sent::Get, NOTHING),
    idle("none", SILENT, Sent::Get, (0.5, SI)),
    idle("none", SILENT, Sent::Half, (0.5, SI_HALF)),
    idle(
        "none",
        HALF,
        Sent::Get,
        (0.5, "200 \"01234\"; 200 SI stream_idle_timeout"),
    ),
    idle("none", DEAF, Sent::Whole, (0.5, SI)),
    idle("never-idle", SILENT, Sent::Get, (1.0, UT)),
    grpc("grpc-header", GRPC, (0.7, GRPC_UT)),
    grpc("grpc-header", GRPC_LONG, NOTHING),
    grpc("grpc-bound", GRPC, (0.4, GRPC_UT)),
    grpc("grpc-bound", GRPC_NONE, (0.4, GRPC_UT)),
    grpc("timeout", GRPC_LONG, (0.5, GRPC_UT)),
    grpc("grpc-duration", GRPC, (0.5, GRPC_DT)),
    grpc("grpc-duration", GRPC_NONE, NOTHING),
];

/// Longer than any limit above, with room for a slow machine.
const LONGEST: Duration = Duration::from_secs(2);

#[test]
fn limits_of_a_stream_are_envoys() {
    let mut faults = Vec::new();
    for kind in [Kind::Envoy, Kind::Outrigger] {
        for (case, (after, outcome)) in CASES.iter().zip(outcomes(kind)) {
            let Case {
                route,
                upstream,
                listener,
                request,
                headers,
                expected,
            } = case;
            // A busy machine is late, never early.
            let in_time = outcome == NOTHING.1 || (expected.0 - 0.02..expected.0 + 0.4).contains(&after);
            if outcome != expected.1 || !in_time {
                faults.push(format!(
                    "{kind:?}: {listener} {route} {upstream} {request:?} {headers:?}: expected {expected:?}, found {after} {outcome}"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_client_that_reads_nothing_meets_the_idle_limit() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let (_keep, finished) = mpsc::channel();
        let alone = Alone::start(kind, &configuration(), |namespace, _| {
            upstreams(namespace, finished)
        });
        let path = format!("/none/{FLOOD}/0");
        let stream = alone.namespace.run(|| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, IDLE)).expect("the proxy listens");
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("a connection");
            stream
        });
        let line = alone.logged(&format!(" {path} "));
        assert!(line.ends_with("200 SI stream_idle_timeout"), "{kind:?}: {line}");
        drop(stream);
    }
}

/// After how many seconds what came, of every case.
fn outcomes(kind: Kind) -> Vec<(f64, String)> {
    let (_keep, finished) = mpsc::channel();
    let alone = &Alone::start(kind, &configuration(), |namespace, _| {
        upstreams(namespace, finished)
    });
    std::thread::scope(|scope| {
        let start = |(number, case)| scope.spawn(move || outcome(alone, number, case));
        let running: Vec<_> = CASES.iter().enumerate().map(start).collect();
        running
            .into_iter()
            .map(|case| case.join().expect("a case"))
            .collect()
    })
}

fn outcome(alone: &Alone, number: usize, case: &Case) -> (f64, String) {
    let path = format!("/{}/{}/{number}", case.route, case.upstream);
    let (elapsed, answer) = alone.namespace.run(|| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, case.listener));
        let mut stream = TcpStream::connect(address).expect("the proxy listens");
        stream.set_read_timeout(Some(LONGEST)).expect("a socket");
        stream.write_all(&request(&path, case)).expect("a connection");
        let start = Instant::now();
        let first = stream.peek(&mut [0]).map(|_| start.elapsed()).unwrap_or_default();
        let answer = read(&mut stream);
        // An answer to half a request is followed by a delay before the connection is closed; half an answer by what ends it.
        let half = matches!(case.request, Sent::Half);
        let elapsed = if half { first } else { start.elapsed() };
        (elapsed.as_secs_f64(), answer)
    });
    if answer == NOTHING.1 {
        return (elapsed, answer);
    }
    let line = alone.logged(&format!(" {path} "));
    let log = line.split_once(&path).map_or("", |(_, rest)| rest).trim();
    (elapsed, format!("{answer}; {log}"))
}

fn request(path: &str, case: &Case) -> Vec<u8> {
    let Case { request, headers, .. } = case;
    let method = if matches!(request, Sent::Get) {
        "GET"
    } else {
        "POST"
    };
    let rest = match request {
        Sent::Get => "\r\n",
        Sent::Whole => "content-length: 10\r\n\r\n0123456789",
        Sent::Half => "content-length: 10\r\n\r\n01234",
    };
    format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}{rest}").into_bytes()
}

/// Status, gRPC status and body, or how it broke off.
fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let end = match stream.read_to_end(&mut bytes) {
        Ok(_) => "",
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => " (reset)",
        Err(_) => return NOTHING.1.to_owned(),
    };
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    let grpc = head
        .lines()
        .filter(|line| line.starts_with("grpc-"))
        .collect::<Vec<_>>()
        .join(" ");
    format!("{status} {grpc}{body:?}{end}")
}

fn configuration() -> String {
    let clusters = UPSTREAMS.map(|port| {
        format!(
            "  - name: u{port}\n    type: STATIC\n    connect_timeout: 5s\n    load_assignment:\n      cluster_name: u{port}\n      endpoints:\n      \
             - lb_endpoints:\n        - endpoint:\n            address:\n              \
             socket_address: {{ address: 127.0.0.1, port_value: {port} }}\n"
        )
    });
    let routes: String = (ROUTES.iter())
        .flat_map(|(name, limits)| {
            UPSTREAMS.map(|port| {
                format!(
                    "              - match: {{ prefix: /{name}/{port}/ }}\n                route: {{ cluster: u{port}, {limits} }}\n"
                )
            })
        })
        .collect();
    let listeners = [(PLAIN, "0s"), (IDLE, "0.5s")].map(|(port, idle)| listener(port, idle, &routes));
    format!(
        "  clusters:\n{}  listeners:\n{}",
        clusters.concat(),
        listeners.concat()
    )
}

fn listener(port: u16, idle: &str, routes: &str) -> String {
    format!(
        r#"  - name: l{port}
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l{port}
          stream_idle_timeout: {idle}
          access_log:
          - name: file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /dev/stdout
              log_format: {{ text_format_source: {{ inline_string: "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n" }} }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            name: r
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
{routes}"#
    )
}

/// The upstreams live until the other end of `finished` is dropped.
fn upstreams(namespace: &Namespace, finished: mpsc::Receiver<()>) {
    let listen =
        |port| namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    serve(listen(SILENT), |_| {});
    serve(listen(HALF), |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234");
    });
    serve(listen(PROMPT), |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    serve(listen(FLOOD), |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
    });
    // Two connections fill a queue of one; what comes after waits for an answer to its SYN.
    let deaf = namespace.run(|| {
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        )
        .expect("a socket");
        let address = nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, DEAF);
        nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address).expect("a free port");
        nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(0).expect("none"))
            .expect("a bound socket");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, DEAF));
        let fill = (0..2).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(300)));
        (fill.collect::<Vec<_>>(), socket)
    });
    std::thread::spawn(move || {
        // Nothing is sent: the end of the sender ends the wait.
        let _ = finished.recv();
        drop(deaf);
    });
}

/// Calls `answer` when a request head has come, then keeps the connection.
fn serve(listener: TcpListener, answer: fn(&mut TcpStream)) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_exact(&mut byte).is_err() {
                        return;
                    }
                    head.push(byte[0]);
                }
                answer(&mut stream);
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
}
