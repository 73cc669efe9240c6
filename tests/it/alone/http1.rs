//! HTTP/1 from clients good and bad: the same bytes to Envoy and to outrigger. Compared: every byte that comes back but the order of
//! headers and values that no two runs share, whether the connection stays, the access log, and what the upstream got.

mod cases;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::netns::Namespace;
use e2e::proxy::Kind;

const UPSTREAM: u16 = 9001;
/// As it comes, with `proxy_100_continue`, and with a `request_headers_timeout`.
const PLAIN: u16 = 10_000;
const PASS_100: u16 = 10_001;
const TIMEOUT: u16 = 10_002;

struct Case {
    listener: u16,
    name: &'static str,
    sent: &'static [Step],
    expected: &'static str,
}

enum Step {
    /// Bytes; `{n}` is the case's name.
    Send(&'static [u8]),
    /// The same bytes so many times.
    Repeat(&'static [u8], usize),
    /// Until what was sent is surely dealt with.
    Pause,
    /// The client's side is closed.
    End,
}

const fn case(listener: u16, name: &'static str, sent: &'static [Step], expected: &'static str) -> Case {
    Case {
        listener,
        name,
        sent,
        expected,
    }
}

/// A difference that stays.
struct Known {
    case: &'static str,
    aspect: &'static str,
    reason: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        case: "empty-host",
        aspect: "log",
        reason: "an empty Host is logged as none; what goes on and how it is routed is the same",
    },
    Known {
        case: "odd-path",
        aspect: "upstream",
        reason: "a few characters that no path may have (RFC 3986 3.3) go on escaped, as the client had to write them",
    },
    Known {
        case: "odd-path",
        aspect: "log",
        reason: "as above",
    },
];

/// Longer than Envoy's `delayed_close_timeout`, after which it closes what it refused.
const QUIET: Duration = Duration::from_millis(2500);
const PAUSE: Duration = Duration::from_millis(500);

/// What can be seen of one case, by aspect.
type Seen = BTreeMap<&'static str, String>;

#[test]
fn http1_is_answered_as_envoy_answers_it() {
    let (envoy, ours) = (observe(Kind::Envoy), observe(Kind::Outrigger));
    let mut faults = Vec::new();
    for (case, (envoy, ours)) in cases::all().zip(envoy.iter().zip(&ours)) {
        let name = case.name;
        if envoy["outcome"] != case.expected {
            faults.push(format!(
                "{name}: Envoy: expected {:?}, found {:?}",
                case.expected, envoy["outcome"]
            ));
        }
        for (aspect, expected) in envoy {
            let found = &ours[aspect];
            let known = KNOWN
                .iter()
                .find(|known| known.case == name && known.aspect == *aspect);
            match (found == expected, known) {
                (true, None) | (false, Some(_)) => {}
                (true, Some(known)) => {
                    faults.push(format!("{name}: {aspect}: no longer differs: {}", known.reason))
                }
                (false, None) => faults.push(format!(
                    "{name}: {aspect}\n  envoy     {expected}\n  outrigger {found}"
                )),
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} differences:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn cases_have_names_of_their_own() {
    let mut names: Vec<_> = cases::all().map(|case| case.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(
        KNOWN
            .iter()
            .all(|known| names.contains(&known.case) && !known.reason.is_empty())
    );
}

/// What the upstream got, in the order in which it came.
type Got = Arc<Mutex<Vec<String>>>;

fn observe(kind: Kind) -> Vec<Seen> {
    let got = Got::default();
    let alone = &Alone::start(kind, &configuration(), |namespace, _| upstream(namespace, &got));
    let seen: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = cases::all()
            .map(|case| scope.spawn(move || exchange(alone, case)))
            .collect();
        running
            .into_iter()
            .map(|case| case.join().expect("a case"))
            .collect()
    });
    let log = whole_log(alone);
    let got = got.lock().expect("no panic");
    let with_rest = |(case, (client, mut seen)): (&Case, (SocketAddr, Seen))| {
        let prefix = format!("{client}>127.0.0.1:{} ", case.listener);
        let lines: Vec<_> = log
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix))
            .collect();
        // Method, path and protocol before them, the rest of the line after.
        let outcome = |line: &&str| {
            let outcome = line
                .splitn(4, ' ')
                .nth(3)
                .and_then(|rest| rest.split(" ; ").next());
            outcome.unwrap_or_default().to_owned()
        };
        let outcomes: Vec<_> = lines.iter().map(outcome).collect();
        let outcome = format!("{}; {}", seen["statuses"], outcomes.join(" | "));
        seen.insert("outcome", outcome);
        seen.insert("log", lines.join(" | "));
        // The last part of a target is the case's name, or ends with it.
        let of_case = |request: &&String| {
            let target = request.split(' ').nth(1).unwrap_or_default();
            let last = target.rsplit(['/', '=']).next().unwrap_or_default();
            let last = last.trim_end_matches(|digit: char| digit.is_ascii_digit());
            last == case.name || last.starts_with("u-") && last.ends_with(&format!("-{}", case.name))
        };
        let upstream: Vec<_> = got.iter().filter(of_case).map(String::as_str).collect();
        seen.insert("upstream", upstream.join(" || "));
        seen
    };
    cases::all().zip(seen).map(with_rest).collect()
}

/// All lines, once no more come.
fn whole_log(alone: &Alone) -> String {
    let mut log = alone.access_log();
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(200));
        let now = alone.access_log();
        if now != log {
            (log, since) = (now, Instant::now());
        }
    }
    log
}

fn exchange(alone: &Alone, case: &Case) -> (SocketAddr, Seen) {
    alone.namespace.run(|| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, case.listener)).expect("the proxy listens");
        let client = stream.local_addr().expect("a socket");
        let mut came = Vec::new();
        for step in case.sent {
            let sent = match step {
                Step::Send(bytes) => stream.write_all(&named(bytes, case.name)),
                Step::Repeat(bytes, count) => stream.write_all(&bytes.repeat(*count)),
                Step::Pause => {
                    let _ = read(&mut stream, &mut came, PAUSE);
                    Ok(())
                }
                Step::End => stream.shutdown(std::net::Shutdown::Write),
            };
            if sent.is_err() {
                break;
            }
        }
        let end = read(&mut stream, &mut came, QUIET);
        (client, seen(&came, end))
    })
}

fn named(bytes: &[u8], name: &str) -> Vec<u8> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(3).position(|three| three == b"{n}") {
        all.extend_from_slice(&rest[..at]);
        all.extend_from_slice(name.as_bytes());
        rest = &rest[at + 3..];
    }
    all.extend_from_slice(rest);
    all
}

/// Reads until nothing came for this long.
fn read(stream: &mut TcpStream, came: &mut Vec<u8>, quiet: Duration) -> &'static str {
    stream.set_read_timeout(Some(quiet)).expect("a socket");
    let mut piece = [0; 65_536];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return "closed",
            Ok(count) => came.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return "open",
            // Who sends on after he was told that it is over.
            Err(_) => return "closed",
        }
    }
}

fn seen(came: &[u8], end: &str) -> Seen {
    let text = String::from_utf8_lossy(came);
    let mut responses = Vec::new();
    let mut statuses = Vec::new();
    for response in text.split("HTTP/1.").skip(1) {
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, "(cut)"));
        statuses.push(head.split(' ').nth(1).unwrap_or_default());
        responses.push(format!("{} {body:?}", message(head)));
    }
    Seen::from([
        ("responses", responses.join(" || ")),
        ("statuses", statuses.join(",")),
        ("connection", end.to_owned()),
    ])
}

/// The first line, then headers in alphabetical order; values that no two runs share are masked.
fn message(head: &str) -> String {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut headers: Vec<_> = lines
        .map(|line| match line.split_once(": ") {
            Some((
                name @ ("date"
                | "x-request-id"
                | "x-envoy-upstream-service-time"
                | "x-envoy-expected-rq-timeout-ms"),
                _,
            )) => name,
            _ => line,
        })
        .collect();
    headers.sort_unstable();
    // Long ones are all alike.
    let headers: Vec<String> = headers
        .into_iter()
        .map(|header| header.chars().take(100).collect())
        .collect();
    format!("{first} [{}]", headers.join("; "))
}

fn upstream(namespace: &Namespace, got: &Got) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, UPSTREAM)).expect("a free port"));
    let got = got.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), got) = (stream, got.clone()) else {
                return;
            };
            std::thread::spawn(move || while serve(&stream, &got).is_some() {});
        }
    });
}

/// One request; `None`: the connection is over.
fn serve(mut stream: &TcpStream, got: &Got) -> Option<()> {
    let head = until(stream, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&head).trim_end().to_owned();
    let target = head.split(' ').nth(1)?.to_owned();
    if target.contains("u-hundred") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let early = target.contains("u-early");
    let body = if early {
        String::new()
    } else {
        body(stream, &head)?
    };
    got.lock().ok()?.push(format!("{} {body:?}", message(&head)));
    if target.contains("u-silent") {
        stream.read_to_end(&mut Vec::new()).ok()?;
        return None;
    }
    let mut answer = answer(&target);
    if head.starts_with("HEAD") {
        answer = &answer[..answer.find("\r\n\r\n")? + 4];
    }
    stream.write_all(answer.as_bytes()).ok()?;
    if early {
        stream.read_to_end(&mut Vec::new()).ok()?;
    }
    (!early && !target.contains("close")).then_some(())
}

fn answer(target: &str) -> &'static str {
    const ANSWERS: &[(&str, &str)] = &[
        (
            "u-chunked",
            "200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        ("u-hchunk", "200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        (
            "u-trailers",
            "200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
        ),
        ("u-close", "200 OK\r\n\r\nabc"),
        (
            "u-connclose",
            "200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        ),
        (
            "u-100",
            "100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ),
        (
            "u-102",
            "102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ),
        (
            "u-103",
            "103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ),
        ("u-204cl", "204 No Content\r\ncontent-length: 0\r\n\r\n"),
        ("u-204", "204 No Content\r\n\r\n"),
        ("u-304", "304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
        (
            "u-hop",
            "200 OK\r\ncontent-length: 2\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\nX-Case: A\r\nx-empty:\r\n\r\nok",
        ),
        ("u-reason", "299 My Own\r\ncontent-length: 2\r\n\r\nok"),
        ("u-599", "599 X\r\ncontent-length: 2\r\n\r\nok"),
        ("u-hnolen", "200 OK\r\n\r\n"),
        ("u-nocl", "200 OK\r\ncontent-length: 0\r\n\r\n"),
    ];
    let found = ANSWERS.iter().find(|(name, _)| target.contains(name));
    // Leaked once a request: a test has few.
    found.map_or("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", |(_, answer)| {
        format!("HTTP/1.1 {answer}").leak()
    })
}

/// The body of a request, without its chunks.
fn body(stream: &TcpStream, head: &str) -> Option<String> {
    let head = head.to_ascii_lowercase();
    let length = head
        .split("content-length: ")
        .nth(1)
        .map(|rest| rest.split('\r').next().unwrap_or_default().to_owned());
    let mut body = Vec::new();
    let mut take = |mut stream: &TcpStream, length: usize| {
        let mut piece = vec![0; length];
        let whole = stream.read_exact(&mut piece).is_ok();
        body.extend_from_slice(&piece);
        whole.then_some(())
    };
    if let Some(length) = length {
        let Some(length) = length.parse().ok().filter(|length| *length < 1_000_000) else {
            let _ = (&*stream).read_to_end(&mut Vec::new());
            return None;
        };
        take(stream, length)?;
    } else if head.contains("transfer-encoding: chunked") {
        loop {
            let line = until(stream, b"\r\n")?;
            let length = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
            if length == 0 {
                break;
            }
            take(stream, length)?;
            until(stream, b"\r\n")?;
        }
        until(stream, b"\r\n")?;
    }
    String::from_utf8(body).ok()
}

fn until(mut stream: &TcpStream, end: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end) {
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    Some(bytes)
}

fn configuration() -> String {
    let listeners = [
        (PLAIN, "{}"),
        (PASS_100, "{ proxy_100_continue: true }"),
        (TIMEOUT, "{ request_headers_timeout: 0.5s }"),
    ];
    let listeners = listeners.map(|(port, more)| {
        let more = more.trim_matches(['{', '}', ' ']);
        format!(
            r#"  - name: l{port}
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l{port}
          {more}
          access_log:
          - name: file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /dev/stdout
              log_format: {{ text_format_source: {{ inline_string: "%DOWNSTREAM_REMOTE_ADDRESS%>%DOWNSTREAM_LOCAL_ADDRESS% %REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% ; %CONNECTION_TERMINATION_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %REQ(:AUTHORITY)%\n" }} }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            name: r
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
              - match: {{ prefix: /direct }}
                direct_response: {{ status: 200, body: {{ inline_string: direct }} }}
              - match: {{ prefix: / }}
                route: {{ cluster: up }}
"#
        )
    });
    format!(
        "  clusters:\n  - name: up\n    type: STATIC\n    load_assignment:\n      cluster_name: up\n      endpoints:\n      \
         - lb_endpoints:\n        - endpoint:\n            address:\n              \
         socket_address: {{ address: 127.0.0.1, port_value: {UPSTREAM} }}\n  listeners:\n{}\
         layered_runtime:\n  layers:\n  - name: istio\n    static_layer:\n      \
         envoy.reloadable_features.http_reject_path_with_fragment: false\n",
        listeners.concat()
    )
}
