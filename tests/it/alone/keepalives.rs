//! PINGs that find out whether the other side of HTTP/2 is still there, and the size of the table of names that is told to it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::beside::{Case, FRONT, Manager, answers, check_with, configuration, counters, get};
use e2e::netns::Namespace;

/// Speaks, and answers neither PINGs nor requests.
const DEAF: u16 = 9011;
/// Answers PINGs alone.
const PATIENT: u16 = 9012;
/// Answers both.
const PROMPT: u16 = 9013;

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const HEADERS: u8 = 1;
const ACK: u8 = 1;
/// HPACK: `:status` 200.
const OK: &[u8] = &[0x88];
const END_STREAM_AND_HEADERS: u8 = 5;

/// What came on the connections of an upstream: its port and names of frames.
type Frames = Arc<Mutex<Vec<(u16, String)>>>;

struct Frame {
    kind: u8,
    flags: u8,
    stream: [u8; 4],
    payload: Vec<u8>,
}

impl Frame {
    fn read(stream: &mut impl Read) -> std::io::Result<Self> {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, w, x, y, z] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload)?;
        Ok(Self {
            kind,
            flags,
            stream: [w, x, y, z],
            payload,
        })
    }

    fn write(stream: &mut impl Write, kind: u8, flags: u8, id: [u8; 4], payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short one").to_be_bytes();
        let [w, x, y, z] = id;
        let mut frame = vec![length[1], length[2], length[3], kind, flags, w, x, y, z];
        frame.extend_from_slice(payload);
        // Whoever is gone is seen by reading.
        let _ = stream.write_all(&frame);
    }

    /// What a test looks at; other frames differ from proxy to proxy.
    fn name(&self) -> Option<String> {
        match (self.kind, self.flags & ACK) {
            (SETTINGS, 0) => {
                let settings = self.payload.chunks_exact(6);
                let table = settings
                    .filter(|setting| setting.starts_with(&[0, 1]))
                    .map(|setting| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]))
                    .next();
                Some(match table {
                    None | Some(4096) => "settings".to_owned(),
                    Some(size) => format!("settings with a table of {size}"),
                })
            }
            (PING, 0) => Some("ping".to_owned()),
            (HEADERS, _) => Some("request".to_owned()),
            _ => None,
        }
    }
}

fn serve(namespace: &Namespace, port: u16, seen: Frames) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let seen = seen.clone();
            std::thread::spawn(move || connection(stream, port, &seen));
        }
    });
}

fn connection(mut stream: TcpStream, port: u16, seen: &Frames) {
    let mut preface = [0; 24];
    if stream.read_exact(&mut preface).is_err() {
        return;
    }
    Frame::write(&mut stream, SETTINGS, 0, [0; 4], &[]);
    while let Ok(frame) = Frame::read(&mut stream) {
        if let Some(name) = frame.name() {
            seen.lock().expect("no panic holds it").push((port, name));
        }
        match (frame.kind, frame.flags & ACK) {
            (SETTINGS, 0) => Frame::write(&mut stream, SETTINGS, ACK, [0; 4], &[]),
            (PING, 0) if port != DEAF => Frame::write(&mut stream, PING, ACK, [0; 4], &frame.payload),
            (HEADERS, _) if port == PROMPT => {
                Frame::write(&mut stream, HEADERS, END_STREAM_AND_HEADERS, frame.stream, OK);
            }
            _ => {}
        }
    }
    seen.lock()
        .expect("no panic holds it")
        .push((port, "end".to_owned()));
}

/// What a client gets that answers so many PINGs, until the end or for 1.5 s.
fn client(alone: &Alone, answered: usize) -> String {
    let mut stream = alone.connect(FRONT + 1);
    let wait = Duration::from_millis(1500);
    stream.set_read_timeout(Some(wait)).expect("a socket");
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .expect("the proxy reads");
    Frame::write(&mut stream, SETTINGS, 0, [0; 4], &[]);
    let mut told = Vec::new();
    let mut pings = 0;
    let start = Instant::now();
    while start.elapsed() < wait {
        let frame = match Frame::read(&mut stream) {
            Ok(frame) => frame,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => {
                told.push("closed".to_owned());
                return format!("{told:?}");
            }
        };
        let is_ping = frame.kind == PING && frame.flags & ACK == 0;
        if is_ping {
            pings += 1;
            if pings <= answered {
                Frame::write(&mut stream, PING, ACK, [0; 4], &frame.payload);
            }
        }
        // How many there are by now is chance.
        if let Some(name) = frame.name().filter(|_| !is_ping || pings <= 2) {
            told.push(name);
        }
    }
    told.push("open".to_owned());
    format!("{told:?}")
}

fn cluster(name: &str, port: u16, options: &str) -> String {
    format!(
        "{{ name: {name}, type: STATIC, connect_timeout: 1s,
          typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{
            \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
            explicit_http_config: {{ http2_protocol_options: {{ {options} }} }} }} }},
          load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [
            {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}] }} }}"
    )
}

/// Two requests on one connection, so that one worker has both, with more than `connection_idle_interval` between them.
fn prompt_twice(alone: &Alone) -> [String; 2] {
    let mut stream = alone.connect(FRONT);
    let wait = Duration::from_secs(5);
    stream.set_read_timeout(Some(wait)).expect("a socket");
    [0, 700].map(|millis| {
        std::thread::sleep(Duration::from_millis(millis));
        stream
            .write_all(b"GET /prompt HTTP/1.1\r\nhost: a\r\n\r\n")
            .expect("the proxy reads");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            head.extend(byte);
        }
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        line.escape_ascii().to_string()
    })
}

const CASES: &[Case] = &[get("/deaf", &[]), get("/patient", &[])];

fn steps(alone: &Alone, seen: &Frames) -> Vec<String> {
    let mut lines = answers(alone, CASES);
    lines.extend(prompt_twice(alone));
    lines.push(client(alone, 0));
    lines.push(client(alone, 1));
    lines.push(client(alone, 100));
    let seen = seen.lock().expect("no panic holds it");
    for port in [DEAF, PATIENT, PROMPT] {
        let mut names: Vec<_> = seen
            .iter()
            .filter(|(at, _)| *at == port)
            .map(|(_, name)| name.as_str())
            .collect();
        if port == PATIENT {
            // How many there are is chance.
            names.truncate(4);
        }
        if port == PROMPT {
            // Whether the question or the request goes first is nothing that a server could mind.
            names.sort_unstable();
        }
        lines.push(format!("{port} {names:?}"));
    }
    let names = [
        "cluster.deaf.http2.keepalive_timeout",
        "cluster.patient.http2.keepalive_timeout",
        "cluster.prompt.http2.keepalive_timeout",
        "http2.keepalive_timeout",
    ];
    lines.extend(counters(alone, &names));
    lines
}

#[test]
fn who_does_not_answer_pings_is_let_go() {
    const ASKED: &str =
        "connection_keepalive: { interval: 0.3s, timeout: 0.4s, interval_jitter: { value: 0 } }";
    let routes = "{ match: { prefix: /deaf }, route: { cluster: deaf } },
        { match: { prefix: /patient }, route: { cluster: patient, timeout: 1.2s } },
        { match: { prefix: /prompt }, route: { cluster: prompt } }";
    let settings =
        format!("codec_type: HTTP2, http2_protocol_options: {{ hpack_table_size: 1000, {ASKED} }},");
    let managers = [
        Manager::with_routes(routes),
        Manager {
            settings,
            ..Manager::with_routes(routes)
        },
    ];
    let clusters = [
        cluster("deaf", DEAF, ASKED),
        cluster("patient", PATIENT, &format!("hpack_table_size: 0, {ASKED}")),
        cluster(
            "prompt",
            PROMPT,
            "connection_keepalive: { timeout: 1s, connection_idle_interval: 0.3s }",
        ),
    ];
    let seen = Frames::default();
    check_with(
        &configuration(&managers, &clusters),
        |namespace, _| {
            seen.lock().expect("no panic holds it").clear();
            for port in [DEAF, PATIENT, PROMPT] {
                serve(namespace, port, seen.clone());
            }
        },
        |alone| steps(alone, &seen),
    );
}
