//! Interception with TPROXY: transparent listeners, and servers that see the address of the client.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::check_with;
use e2e::netns::Namespace;
use e2e::process::until;

/// Says who its clients are.
const SERVER: u16 = 8080;
const INTERCEPTED: u16 = 15_006;
const HTTP: u16 = 10_001;
const PROXIED: u16 = 10_002;
const FOREIGN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 10_003);
const PATIENCE: Duration = Duration::from_secs(20);

const LISTENER_FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.listener";
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

fn resources() -> String {
    let log = format!(
        "access_log: [{{ name: l, typed_config: {{ \"@type\": {FILE_LOG}, path: /dev/stdout, log_format: {{ text_format_source: {{ inline_string: \
         \"%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %RESPONSE_FLAGS%\\n\" }} }} }} }}]"
    );
    let filter = |kind: &str, message: &str, fields: &str| {
        format!(
            "{{ name: {kind}, typed_config: {{ \"@type\": {LISTENER_FILTERS}.{kind}.v3.{message}, {fields} }} }}"
        )
    };
    let tcp = |cluster: &str| format!("\"@type\": {TCP_PROXY}, stat_prefix: t, cluster: {cluster}, {log}");
    let http = format!(
        "\"@type\": {MANAGER}, stat_prefix: h, {log}, \
         route_config: {{ virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: server }} }}] }}] }}, \
         http_filters: [{{ name: r, typed_config: {{ \"@type\": {ROUTER} }} }}]"
    );
    let listener = |address: SocketAddrV4, more: &str, filters: &[String], chain: &str| {
        format!(
            "  - {{ name: \"{address}\", address: {{ socket_address: {{ address: {}, port_value: {} }} }}, {more}
      listener_filters: [{}], filter_chains: [{{ filters: [{{ name: f, typed_config: {{ {chain} }} }}] }}] }}\n",
            address.ip(),
            address.port(),
            filters.join(", "),
        )
    };
    let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let original_dst = filter("original_dst", "OriginalDst", "");
    let original_src = |mark: &str| filter("original_src", "OriginalSrc", mark);
    let listeners = [
        listener(
            SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, INTERCEPTED),
            "transparent: true,",
            &[original_dst, original_src("mark: 1337")],
            &tcp("dialled"),
        ),
        listener(local(HTTP), "", &[original_src("")], &http),
        listener(
            local(PROXIED),
            "",
            &[filter("proxy_protocol", "ProxyProtocol", ""), original_src("")],
            &tcp("server"),
        ),
        listener(FOREIGN, "transparent: true,", &[], &tcp("server")),
    ];
    format!(
        "  listeners:\n{}  clusters:\n  - {}\n  - {{ name: dialled, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, connect_timeout: 1s }}\n",
        listeners.concat(),
        e2e::beside::cluster("server", &[SERVER]),
    )
}

/// Brings connections to the server's port to the proxy, but for the proxy's own, as `iptables-init` does in mode TPROXY.
fn intercept(namespace: &Namespace) {
    namespace.keep_net_admin();
    let mangle = [
        "-w",
        "-t",
        "mangle",
        "-A",
        "PREROUTING",
        "-p",
        "tcp",
        "--dport",
        "8080",
    ];
    let others = ["-m", "mark", "!", "--mark", "1337", "-j", "TPROXY"];
    let target = ["--on-port", "15006", "--tproxy-mark", "1337/0xffffffff"];
    // Within the machine only: the other listeners' clients speak to 127.0.0.1.
    let to = ["-d", "127.0.0.9"];
    let rule = [&mangle[..], &to, &others, &target].concat();
    run(namespace, "iptables", &rule);
    run(
        namespace,
        "ip",
        &["route", "add", "local", "192.0.2.0/24", "dev", "lo"],
    );
}

fn run(namespace: &Namespace, program: &str, arguments: &[&str]) {
    let output = Command::new("ip")
        .args(["netns", "exec", namespace.name(), program])
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("run ip: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {error}",
        arguments.join(" ")
    );
}

/// To each line, or request of HTTP, it says who asks and where.
fn server(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, SERVER)).expect("a free port"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            thread::spawn(move || serve(stream));
        }
    });
}

fn serve(mut stream: TcpStream) -> Option<()> {
    let peer = stream.peer_addr().ok()?.ip();
    let text = format!("{peer} asks {}", stream.local_addr().ok()?);
    let (mut said, mut byte) = (Vec::new(), [0]);
    loop {
        stream.read_exact(&mut byte).ok()?;
        said.push(byte[0]);
        let is_http = said.starts_with(b"GET");
        if is_http && said.ends_with(b"\r\n\r\n") {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
            stream.write_all(answer.as_bytes()).ok()?;
            said.clear();
        } else if !is_http && said.ends_with(b"\n") && !said.starts_with(b"G") {
            return stream.write_all(text.as_bytes()).ok();
        }
    }
}

/// A connection from this address of the machine.
fn connect(alone: &Alone, from: [u8; 4], to: SocketAddrV4) -> TcpStream {
    let stream = alone.namespace.run(|| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket
            .bind(&SocketAddr::from((from, 0)).into())
            .expect("an address of loopback");
        let target = SocketAddr::V4(to);
        socket
            .connect(&target.into())
            .unwrap_or_else(|error| panic!("{:?}: {to}: {error}", alone.kind));
        TcpStream::from(socket)
    });
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream
}

/// Says something on a connection of its own; the answer, and line `number` of the log, without ports that the system chose.
fn say(alone: &Alone, number: usize, (from, to, what): ([u8; 4], SocketAddrV4, &str)) -> String {
    let mut stream = connect(alone, from, to);
    stream.write_all(what.as_bytes()).expect("open");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    drop(stream);
    let line = until("a line in the access log", PATIENCE, || {
        alone.access_log().lines().nth(number).map(str::to_owned)
    });
    let words = line.split(' ').map(|word| match word.rsplit_once(':') {
        Some((ip, port)) if port.parse::<u16>().is_ok_and(|port| port > 20_000) => format!("{ip}:any"),
        _ => word.to_owned(),
    });
    format!("{answer} log {}", words.collect::<Vec<_>>().join(" "))
}

#[test]
fn servers_see_the_client_of_an_intercepted_connection() {
    check_with(
        &resources(),
        |namespace, _| {
            server(namespace);
            intercept(namespace);
        },
        |alone| {
            let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            let dialled = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 9), SERVER);
            let client = [127, 0, 0, 5];
            let said = [
                (client, dialled, "hello\n"),
                ([127, 0, 0, 6], dialled, "hello\n"),
                (
                    client,
                    local(PROXIED),
                    "PROXY TCP4 127.0.0.77 127.0.0.9 10 8080\r\nhello\n",
                ),
                (client, FOREIGN, "hello\n"),
            ];
            let said = said.into_iter().enumerate();
            let mut told: Vec<_> = said.map(|(number, said)| say(alone, number, said)).collect();
            let mut streams = [[127, 0, 0, 5], [127, 0, 0, 6], [127, 0, 0, 7]]
                .map(|from| connect(alone, from, local(HTTP)));
            for round in 0..3 {
                for stream in &mut streams {
                    told.push(format!("{round} {}", ask(stream)));
                }
            }
            told
        },
    );
}

/// One request on a connection that stays open; the body of its answer.
fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .expect("open");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.and_then(|length| length.parse().ok()).expect("a length")];
    stream.read_exact(&mut body).expect("a body");
    String::from_utf8_lossy(&body).into_owned()
}
