//! Lines in quotes are what Envoy 1.40 printed for the same facts.
use super::super::response_flag::ResponseFlag;
use super::super::stream_info::ConnectionInfo;
use super::*;
use http::{HeaderValue, StatusCode};
use std::time::Instant;

fn request_header(name: &str, alternative: Option<&str>, max_bytes: Option<usize>) -> Command {
    let alternative = alternative.map(str::to_owned);
    Command::RequestHeader {
        name: name.to_owned(),
        alternative,
        max_bytes,
    }
}

fn request(name: &str) -> Command {
    request_header(name, None, None)
}

/// Literals and commands in turn.
fn parts(text: &[&str], commands: Vec<Command>) -> Vec<FormatPart> {
    let mut commands = commands.into_iter();
    let parts = text.iter().flat_map(|text| {
        let literal = Some(FormatPart::Literal((*text).to_owned())).filter(|_| !text.is_empty());
        [literal, commands.next().map(FormatPart::Command)]
            .into_iter()
            .flatten()
    });
    parts.collect()
}

/// Istio's default: pilot/pkg/model/telemetry_logging.go, `EnvoyTextLogFormat`.
fn istio() -> Vec<FormatPart> {
    let text = [
        "[", "] \"", " ", " ", "\" ", " ", " ", " ", " \"", "\" ", " ", " ", " ", " \"", "\" \"", "\" \"",
        "\" \"", "\" \"", "\" ", " ", " ", " ", " ", " ", "\n",
    ];
    let service_time = "x-envoy-upstream-service-time".to_owned();
    let commands = vec![
        Command::StartTime,
        request(":method"),
        request_header("x-envoy-original-path", Some(":path"), None),
        Command::Protocol,
        Command::ResponseCode,
        Command::ResponseFlags,
        Command::ResponseCodeDetails,
        Command::ConnectionTerminationDetails,
        Command::UpstreamTransportFailureReason,
        Command::BytesReceived,
        Command::BytesSent,
        Command::Duration,
        Command::ResponseHeader {
            name: service_time,
            alternative: None,
            max_bytes: None,
        },
        request("x-forwarded-for"),
        request("user-agent"),
        request("x-request-id"),
        request(":authority"),
        Command::UpstreamHost,
        Command::UpstreamClusterRaw,
        Command::UpstreamLocalAddress,
        Command::DownstreamLocalAddress,
        Command::DownstreamRemoteAddress,
        Command::RequestedServerName,
        Command::RouteName,
    ];
    parts(&text, commands)
}

fn line(format: &[FormatPart], entry: &Entry<'_>) -> String {
    let mut out = Vec::new();
    LineFormat::new(format).write(entry, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(
            HeaderName::from_static(name),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    map
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

fn connection(local: &str, remote: &str) -> ConnectionInfo {
    ConnectionInfo::new(0, address(local), address(remote))
}

fn started(connection: ConnectionInfo, protocol: Option<Version>, millis: u64) -> StreamInfo {
    StreamInfo::started_at(Arc::new(connection), protocol, at(millis), Instant::now())
}

fn finish(info: &mut StreamInfo, millis: u64) {
    info.finish_at(info.start + Duration::from_micros(millis * 1000 + 999));
}

#[test]
fn istio_default_line_of_a_good_request_is_envoys() {
    let mut info = started(
        connection("127.0.0.1:19710", "127.0.0.1:35416"),
        Some(Version::HTTP_11),
        1_795_233_447_841,
    );
    info.remote_address = Some(address("1.2.3.4:0"));
    info.response_code = Some(StatusCode::OK);
    info.response_code_details = Some("via_upstream".into());
    info.bytes_sent = 5;
    info.upstream_cluster_raw = Some("outbound|9999|v1|bill-service.default.svc.cluster.local".into());
    info.route_name = Some("r-good".into());
    let upstream = info.begin_attempt();
    upstream.host = Some(address("127.0.0.1:19719"));
    upstream.local_address = Some(address("127.0.0.1:38638"));
    finish(&mut info, 2);
    let sent = headers(&[
        ("x-forwarded-for", b"1.2.3.4"),
        ("user-agent", b"curl/7.88.1"),
        ("x-request-id", b"rid-1"),
    ]);
    let received = headers(&[("x-envoy-upstream-service-time", b"0")]);
    let entry = Entry {
        request: Some(RequestView {
            method: &Method::GET,
            path: "/good",
            authority: b"127.0.0.1:19710",
            scheme: "http",
            headers: &sent,
        }),
        response_headers: Some(&received),
        ..Entry::of(&info)
    };
    let envoy = "[2026-11-21T03:57:27.841Z] \"GET /good HTTP/1.1\" 200 - via_upstream - \"-\" 0 5 2 0 \"1.2.3.4\" \
                 \"curl/7.88.1\" \"rid-1\" \"127.0.0.1:19710\" \"127.0.0.1:19719\" \
                 outbound|9999|v1|bill-service.default.svc.cluster.local 127.0.0.1:38638 127.0.0.1:19710 1.2.3.4:0 - r-good\n";
    assert_eq!(line(&istio(), &entry), envoy);
}

#[test]
fn istio_default_line_of_a_refused_tcp_connection_is_envoys() {
    let mut info = started(
        connection("127.0.0.1:19713", "127.0.0.1:46932"),
        None,
        1_795_233_457_603,
    );
    info.set_flag(ResponseFlag::UpstreamConnectionFailure);
    info.set_flag(ResponseFlag::UpstreamRetryLimitExceeded);
    info.upstream_cluster_raw = Some("dead".into());
    let upstream = info.begin_attempt();
    upstream.host = Some(address("127.0.0.1:19718"));
    upstream.transport_failure_reason = Some("delayed_connect_error: Connection refused".into());
    finish(&mut info, 0);
    let entry = Entry::of(&info);
    let envoy = "[2026-11-21T03:57:37.603Z] \"- - -\" 0 UF,URX - - \"delayed_connect_error:_Connection_refused\" 0 0 0 - \
                 \"-\" \"-\" \"-\" \"-\" \"127.0.0.1:19718\" dead - 127.0.0.1:19713 127.0.0.1:46932 - -\n";
    assert_eq!(line(&istio(), &entry), envoy);
}

#[test]
fn header_commands_follow_envoy() {
    let info = started(connection("127.0.0.1:1", "127.0.0.1:2"), Some(Version::HTTP_2), 0);
    let sent = headers(&[
        ("x-a", b"abcdefgh"),
        ("x-multi", b"one"),
        ("x-multi", b"two"),
        ("x-empty", b""),
    ]);
    let entry = Entry {
        request: Some(RequestView {
            method: &Method::CONNECT,
            path: "",
            authority: b"h",
            scheme: "",
            headers: &sent,
        }),
        ..Entry::of(&info)
    };
    let check = |command: Command, expected: &str| {
        assert_eq!(
            line(&parts(&["<", ">"], vec![command]), &entry),
            format!("<{expected}>")
        );
    };
    check(request_header("x-a", None, Some(4)), "abcd");
    check(request_header("x-a", None, Some(0)), "");
    check(request_header("x-none", None, Some(0)), "-");
    check(request_header("x-none", Some("x-a"), None), "abcdefgh");
    check(request_header("x-empty", Some("x-a"), None), "");
    check(request("x-multi"), "one");
    check(request("host"), "h");
    check(request(":path"), "-");
    check(request("no such name"), "-");
    check(
        Command::ResponseHeader {
            name: ":status".to_owned(),
            alternative: None,
            max_bytes: None,
        },
        "-",
    );
    check(
        Command::ResponseTrailer {
            name: "x-a".to_owned(),
            alternative: None,
            max_bytes: None,
        },
        "-",
    );
    check(Command::Protocol, "HTTP/2");
    check(Command::Duration, "-");
    check(Command::UpstreamRequestAttemptCount, "0");
    check(Command::DownstreamPeerUriSan, "-");
}

#[test]
fn nothing_is_escaped_in_header_values() {
    let info = started(
        connection("127.0.0.1:1", "127.0.0.1:2"),
        Some(Version::HTTP_11),
        0,
    );
    let sent = headers(&[("user-agent", b"a\"b\tc\\d \xc3\xa9")]);
    let view = RequestView {
        method: &Method::GET,
        path: "/inj\"x\\y",
        authority: b"",
        scheme: "",
        headers: &sent,
    };
    let entry = Entry {
        request: Some(view),
        ..Entry::of(&info)
    };
    let format = parts(
        &["\"", "\" \"", "\"\n"],
        vec![request(":path"), request("user-agent")],
    );
    assert_eq!(line(&format, &entry), "\"/inj\"x\\y\" \"a\"b\tc\\d é\"\n");
}

#[test]
fn a_line_break_in_a_peers_bytes_never_reaches_the_log() {
    assert!(HeaderValue::from_bytes(b"a\nb").is_err());
    let mut out = Vec::new();
    reason(Some("a b\nc\td"), &mut out);
    out.push(b' ');
    server_name(Some("a\"b\nc.d"), &mut out);
    out.push(b' ');
    server_name(Some("outbound_.9999_.v1_.bill.svc"), &mut out);
    assert_eq!(out, b"a_b_c_d invalid:a_b_c.d outbound_.9999_.v1_.bill.svc");
}

#[test]
fn tls_facts_are_shown() {
    let mut connection = connection("[::1]:443", "[2001:db8::1]:5");
    connection.tls = Some(TlsInfo {
        version: "TLSv1.3",
        cipher: "TLS_AES_256_GCM_SHA384",
        peer_uri_sans: vec!["spiffe://a".into(), "spiffe://b".into()],
        ..TlsInfo::default()
    });
    let info = started(connection, None, 0);
    let entry = Entry::of(&info);
    let commands = vec![
        Command::DownstreamPeerUriSan,
        Command::DownstreamTlsVersion,
        Command::DownstreamTlsCipher,
        Command::DownstreamPeerSubject,
        Command::DownstreamRemoteAddress,
    ];
    let expected = "spiffe://a,spiffe://b TLSv1.3 TLS_AES_256_GCM_SHA384 - [2001:db8::1]:5";
    assert_eq!(
        line(&parts(&["", " ", " ", " ", " "], commands), &entry),
        expected
    );
}

#[test]
fn dates_are_gregorian() {
    let check = |seconds: u64, expected: &str| {
        let mut out = Vec::new();
        write_time(at(seconds * 1000 + 7), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}.007Z"));
    };
    check(0, "1970-01-01T00:00:00");
    check(951_782_399, "2000-02-28T23:59:59");
    check(951_782_400, "2000-02-29T00:00:00");
    check(1_709_164_800, "2024-02-29T00:00:00");
    check(1_735_689_599, "2024-12-31T23:59:59");
    check(4_107_542_400, "2100-03-01T00:00:00");
}

#[test]
fn a_line_needs_no_memory_beyond_the_buffer() {
    let info = started(connection("127.0.0.1:1", "127.0.0.1:2"), None, 0);
    let format = LineFormat::new(&istio());
    let entry = Entry::of(&info);
    let mut out = Vec::with_capacity(1024);
    let memory = out.as_ptr();
    format.write(&entry, &mut out);
    assert!(!out.is_empty() && out.as_ptr() == memory);
}
