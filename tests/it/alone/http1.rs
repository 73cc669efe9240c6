//! HTTP/1 from clients good and bad: the same bytes to Envoy and to outrigger. Compared: every byte that comes back but the order of
//! headers and values that no two runs share, whether the connection stays, the access log, and what the upstream got.

mod cases;
mod upgrades;
mod upstream;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use e2e::alone::{Alone, read_until_quiet};
use e2e::proxy::Kind;

use self::upstream::Got;

const UPSTREAM: u16 = 9001;
/// As it comes, with `proxy_100_continue`, and with a `request_headers_timeout`.
const PLAIN: u16 = 10_000;
const PASS_100: u16 = 10_001;
const TIMEOUT: u16 = 10_002;
/// `websocket` may be changed to, `foo` not; a route turns that round.
const UPGRADE: u16 = 10_003;

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
        case: "ws-not-asked",
        aspect: "upstream",
        reason: "Envoy keeps a connection on which a 101 came unasked; here it is closed, and the upstream sees that",
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

fn observe(kind: Kind) -> Vec<Seen> {
    let got = Got::default();
    let alone = &Alone::start(kind, &configuration(), |namespace, _| {
        upstream::start(namespace, &got)
    });
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
                    let _ = read_until_quiet(&mut stream, &mut came, PAUSE);
                    Ok(())
                }
                Step::End => stream.shutdown(std::net::Shutdown::Write),
            };
            if sent.is_err() {
                break;
            }
        }
        let end = read_until_quiet(&mut stream, &mut came, QUIET);
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

fn configuration() -> String {
    let listeners = [
        (PLAIN, "{}"),
        (PASS_100, "{ proxy_100_continue: true }"),
        (TIMEOUT, "{ request_headers_timeout: 0.5s }"),
        (
            UPGRADE,
            "{ upgrade_configs: [{ upgrade_type: websocket }, { upgrade_type: foo, enabled: false }] }",
        ),
    ];
    let listeners = listeners.map(|(port, more)| {
        let more = more.strip_prefix("{").and_then(|more| more.strip_suffix("}")).unwrap_or(more);
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
              - match: {{ prefix: /other }}
                route: {{ cluster: up, timeout: 1s, upgrade_configs: [{{ upgrade_type: websocket, enabled: false }}, {{ upgrade_type: FOO }}] }}
              - match: {{ prefix: /u-switch-ws-not-asked }}
                route: {{ cluster: spoiled, timeout: 1s }}
              - match: {{ prefix: /moved }}
                redirect: {{ path_redirect: / }}
              - match: {{ prefix: / }}
                route: {{ cluster: up, timeout: 1s }}
"#
        )
    });
    // Envoy keeps the connection on which a switch came unasked, and whoever gets it next reads garbage:
    // a cluster for that case alone.
    let clusters = ["up", "spoiled"].map(|name| {
        format!(
            "  - name: {name}\n    type: STATIC\n    load_assignment:\n      cluster_name: {name}\n      endpoints:\n      \
             - lb_endpoints:\n        - endpoint:\n            address:\n              \
             socket_address: {{ address: 127.0.0.1, port_value: {UPSTREAM} }}\n"
        )
    });
    format!(
        "  clusters:\n{}  listeners:\n{}\
         layered_runtime:\n  layers:\n  - name: istio\n    static_layer:\n      \
         envoy.reloadable_features.http_reject_path_with_fragment: false\n",
        clusters.concat(),
        listeners.concat()
    )
}
