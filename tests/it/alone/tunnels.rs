//! `tunneling_config` of `tcp_proxy`: what the upstream is asked, what it may answer, and how each side's end gets through.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::beside::{check_with, cluster, counters};

use super::connect::upstream::{self, Got};
use super::connect::{HTTP2, RAW};

const FIRST: u16 = 10_000;
const PATIENCE: Duration = Duration::from_secs(8);
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const UUID: &str = "{ typed_config: { \"@type\": type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig } }";

/// A connection through a tunnel.
struct Case {
    name: &'static str,
    cluster: &'static str,
    /// Of `tunneling_config`, with a comma at its end.
    fields: String,
    /// Of `tcp_proxy`, the same.
    more: &'static str,
    /// What the upstream answers; empty: yes.
    say: &'static str,
    /// What the client says, each when the one before is echoed.
    words: &'static [&'static str],
    /// The client ends its side after its words.
    ends: bool,
}

fn case(name: &'static str, cluster: &'static str, words: &'static [&'static str]) -> Case {
    Case {
        name,
        cluster,
        fields: "hostname: \"there:80\", ".to_owned(),
        more: "",
        say: "",
        words,
        ends: true,
    }
}

fn asks(fields: &str, case: Case) -> Case {
    Case {
        fields: fields.to_owned(),
        ..case
    }
}

fn says(say: &'static str, case: Case) -> Case {
    Case { say, ..case }
}

fn waits(case: Case) -> Case {
    Case { ends: false, ..case }
}

fn with(more: &'static str, case: Case) -> Case {
    Case { more, ..case }
}

fn cases() -> Vec<Case> {
    let id = format!("hostname: h, request_id_extension: {UUID}, ");
    let named_id = format!("hostname: h, request_id_extension: {UUID}, request_id_header: X-Tunnel, ");
    let post = "hostname: there, use_post: true, ";
    let path = "hostname: there, use_post: true, post_path: \"/a?b=c\", ";
    let commands = "hostname: \"%DOWNSTREAM_LOCAL_ADDRESS%.%REQUESTED_SERVER_NAME%:%%1\", ";
    vec![
        case("one", "raw", &["hello", "again"]),
        case("two", "http2", &["hello", "again"]),
        asks(post, case("post-one", "raw", &["hello", "again"])),
        asks(post, case("post-two", "http2", &["hello", "again"])),
        asks(path, case("path-one", "raw", &["hello"])),
        asks(path, case("path-two", "http2", &["hello"])),
        asks(commands, case("commands-one", "raw", &["hello"])),
        asks(
            "hostname: \"%DOWNSTREAM_LOCAL_ADDRESS%\", ",
            case("commands-two", "http2", &["hello"]),
        ),
        asks(&id, case("id-one", "raw", &["hello"])),
        asks(&named_id, case("id-two", "http2", &["hello"])),
        says("201 Created^^", case("created-one", "raw", &["hello"])),
        says("201", case("created-two", "http2", &["hello"])),
        says("403 No^content-length: 0^^", case("refused-one", "raw", &[])),
        says("403", case("refused-two", "http2", &[])),
        says(
            "503 No^^",
            with("max_connect_attempts: 3, ", case("thrice-one", "raw", &[])),
        ),
        says(
            "503",
            with("max_connect_attempts: 3, ", case("thrice-two", "http2", &[])),
        ),
        says("close", case("closed", "raw", &[])),
        says("200 OK^^and more", waits(case("early", "raw", &["", " bye"]))),
        says("200 OK^content-length: 3^^", case("length", "raw", &["hello"])),
        says("nothing HTTP^^", case("garbage", "raw", &[])),
        case("last-one", "raw", &["say last"]),
        waits(case("bye-one", "raw", &["hello", " bye"])),
        waits(case("bye-two", "http2", &["hello", " bye"])),
        waits(case("reset-one", "raw", &["hello", " reset"])),
        // Whether Envoy hears of the reset of a stream before it hears of its end is chance, and so is what it brings after the client's end.
        case("dead", "dead", &[]),
        case("none", "nothing", &[]),
        with("idle_timeout: 0.4s, ", waits(case("idle-one", "raw", &["hello"]))),
        // Nobody answers.
        with(
            "idle_timeout: 0.4s, max_connect_attempts: 2, ",
            says("nothing", waits(case("mute-one", "raw", &[]))),
        ),
        with(
            "max_downstream_connection_duration: 0.4s, ",
            says("nothing", waits(case("mute-old", "raw", &[]))),
        ),
        with(
            "idle_timeout: 0.4s, ",
            waits(case("idle-two", "http2", &["hello"])),
        ),
    ]
}

fn resources(cases: &[Case]) -> String {
    let listeners = (FIRST..).zip(cases).map(|(port, case)| {
        let Case { name, cluster, fields, more, say, .. } = case;
        let header = |name: &str, value: &str| format!("{{ header: {{ key: {name}, value: \"{value}\" }} }}");
        let mut headers = vec![header("x-case", &format!("case-{name}")), header("x-from", "%DOWNSTREAM_LOCAL_ADDRESS%")];
        if !say.is_empty() {
            headers.push(header("x-say", say));
        }
        format!(
            "  - {{ name: l{port}, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}, filter_chains: [{{ filters: [
      {{ name: t, typed_config: {{ \"@type\": {TCP_PROXY}, stat_prefix: s{port}, cluster: {cluster}, {more}
        tunneling_config: {{ {fields} headers_to_add: [{}] }},
        access_log: [{{ name: l, typed_config: {{ \"@type\": {FILE_LOG}, path: /dev/stdout, log_format: {{ text_format_source: {{
          inline_string: \"{port} %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\\n\" }} }} }} }}] }} }}] }}] }}\n",
            headers.join(", ")
        )
    });
    let http2 = cluster("http2", &[HTTP2]).replacen(
        "type: STATIC",
        "type: STATIC, typed_extension_protocol_options: { envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { \
         \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
         explicit_http_config: { http2_protocol_options: {} } } }",
        1,
    );
    format!(
        "  listeners:\n{}  clusters:\n  - {}\n  - {http2}\n  - {}\n",
        listeners.collect::<String>(),
        cluster("raw", &[RAW]),
        cluster("dead", &[1]),
    )
}

/// What the client hears, and how it ends.
fn talk(alone: &Alone, port: u16, case: &Case) -> String {
    let mut stream = alone.connect(port);
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let began = Instant::now();
    let mut heard = Vec::new();
    let mut piece = [0; 1000];
    for word in case.words {
        let _ = stream.write_all(word.as_bytes());
        // All but those that end it are echoed.
        if ["bye", "reset"].iter().any(|end| word.ends_with(end)) {
            continue;
        }
        match stream.read(&mut piece) {
            Ok(count) => heard.extend_from_slice(&piece[..count]),
            Err(error) => return format!("{:?} {:?}", String::from_utf8_lossy(&heard), error.kind()),
        }
    }
    if case.ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let end = stream
        .read_to_end(&mut heard)
        .map(drop)
        .map_err(|error| error.kind());
    let is_late = began.elapsed() > Duration::from_millis(1200);
    format!("{:?} {end:?} late: {is_late}", String::from_utf8_lossy(&heard))
}

/// When the client has ended, Envoy ends the way up, and at once all of it: which of the two the upstream hears of is chance.
fn ended(case: &Case, got: String) -> String {
    match case.ends {
        true => got.replace(" reset", " ended"),
        false => got,
    }
}

#[test]
fn bytes_go_through_a_tunnel_as_in_envoy() {
    let cases = cases();
    let got = Arc::new(Got::default());
    check_with(
        &resources(&cases),
        |namespace, _| {
            got.clear();
            upstream::start(namespace, &got);
        },
        |alone| {
            let answers: Vec<_> = std::thread::scope(|scope| {
                let running: Vec<_> = (FIRST..)
                    .zip(&cases)
                    .map(|(port, case)| scope.spawn(move || talk(alone, port, case)))
                    .collect();
                running
                    .into_iter()
                    .map(|each| each.join().expect("a case"))
                    .collect()
            });
            // The last connections are being closed.
            std::thread::sleep(Duration::from_millis(700));
            let lines = (FIRST..).zip(&cases).zip(answers);
            let mut told: Vec<_> = lines
                .map(|((port, case), answer)| {
                    let log = alone.logged(&format!("{port} "));
                    format!(
                        "{}: {answer}\n  upstream {}\n  log {log}",
                        case.name,
                        ended(case, got.of(case.name))
                    )
                })
                .collect();
            told.extend(counters(
                alone,
                &[
                    "cluster.raw.upstream_cx_http1_total",
                    "cluster.raw.upstream_rq_total",
                    "cluster.http2.upstream_rq_total",
                ],
            ));
            told
        },
    );
}
