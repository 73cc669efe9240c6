//! `mongo_proxy`: what is counted and logged of MongoDB's messages, and that all bytes get through, understood or not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::beside::{check_with, cluster};
use e2e::netns::Namespace;

const SERVER: u16 = 9401;
const FIRST: u16 = 10_000;
const PATIENCE: Duration = Duration::from_secs(10);
const MONGO: &str = "type.googleapis.com/envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy";
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// Who writes what; the other one reads it before the next step.
#[derive(Clone)]
enum Step {
    Client(Vec<u8>),
    Server(Vec<u8>),
}
use Step::{Client, Server};

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    ClientFirst,
    ServerFirst,
    ClientResets,
    ServerResets,
}

struct Case {
    /// Of the filter, with a comma at its end.
    fields: &'static str,
    steps: Vec<Step>,
    end: End,
}

fn case(steps: Vec<Step>) -> Case {
    with("", steps, End::ClientFirst)
}

fn with(fields: &'static str, steps: Vec<Step>, end: End) -> Case {
    Case { fields, steps, end }
}

fn message(operation: i32, id: i32, response_to: i32, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let length = i32::try_from(16 + body.len()).expect("short");
    let head = [length, id, response_to, operation]
        .map(i32::to_le_bytes)
        .concat();
    [head, body].concat()
}

fn int(number: i32) -> [u8; 4] {
    number.to_le_bytes()
}

fn document(fields: &[(u8, &str, &[u8])]) -> Vec<u8> {
    let fields = fields
        .iter()
        .map(|(kind, name, value)| [&[*kind], name.as_bytes(), b"\0", value].concat());
    let fields = fields.collect::<Vec<_>>().concat();
    let length = i32::try_from(fields.len() + 5).expect("short");
    [&int(length)[..], &fields, b"\0"].concat()
}

fn text(text: &str) -> Vec<u8> {
    let length = i32::try_from(text.len() + 1).expect("short");
    [&int(length)[..], text.as_bytes(), b"\0"].concat()
}

fn query(id: i32, flags: i32, collection: &str, query: &[u8]) -> Step {
    let name = [collection.as_bytes(), b"\0"].concat();
    Client(message(
        2004,
        id,
        0,
        &[&int(flags), &name, &int(3), &int(-1), query],
    ))
}

fn reply(to: i32, flags: i32, cursor: i64, documents: &[Vec<u8>]) -> Step {
    let count = int(i32::try_from(documents.len()).expect("few"));
    let all = documents.concat();
    Server(message(
        1,
        900 + to,
        to,
        &[&int(flags), &cursor.to_le_bytes(), &int(7), &count, &all],
    ))
}

fn nested(depth: usize) -> Vec<u8> {
    (1..depth).fold(document(&[]), |inner, _| document(&[(3, "a", &inner)]))
}

/// One field of each type that Envoy knows.
fn everything() -> Vec<u8> {
    document(&[
        (1, "double", &1.5_f64.to_le_bytes()),
        (2, "string", &text("it's \"a\"\ttab\r\n\u{b}\\ \u{e9}")),
        (
            3,
            "document",
            &document(&[(16, "one", &int(1)), (10, "none", b"")]),
        ),
        (4, "array", &document(&[(8, "0", b"\x01"), (8, "1", b"\x00")])),
        (5, "binary", b"\x03\0\0\0\x80xyz"),
        (7, "id", b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\xfe\xff"),
        (9, "date", &1_600_000_000_123_i64.to_le_bytes()),
        (11, "regex", b"^a.*\0im\0"),
        (14, "symbol", &text("symbol")),
        (17, "timestamp", &77_i64.to_le_bytes()),
        (18, "long", &(-5_i64).to_le_bytes()),
    ])
}

fn cases() -> Vec<Case> {
    let by_id = document(&[(16, "_id", &int(5))]);
    let several = document(&[(3, "_id", &document(&[(4, "$in", &document(&[]))]))]);
    let comment = |json: &str| document(&[(16, "_id", &int(1)), (2, "$comment", &text(json))]);
    let command = |name: &str| document(&[(16, name, &int(1))]);
    let insert = |documents: &[Vec<u8>]| message(2002, 8, 0, &[&int(1), b"db.c\0", &documents.concat()]);
    let operations = vec![
        Client(insert(&[by_id.clone(), several.clone()])),
        Client(message(
            2005,
            9,
            0,
            &[&int(0), b"db.c\0", &int(4), &77_i64.to_le_bytes()],
        )),
        Client(message(
            2007,
            10,
            -2,
            &[&int(0), &int(2), &1_i64.to_le_bytes(), &(-2_i64).to_le_bytes()],
        )),
        Client(message(
            2010,
            11,
            0,
            &[b"db\0", b"ping\0", &by_id, &several, &by_id],
        )),
        Client(message(2010, 12, 0, &[b"db\0", b"ping\0", &by_id, &several])),
        Server(message(2011, 13, 12, &[&by_id, &several])),
        Server(message(2011, 14, 12, &[&by_id, &several, &by_id])),
    ];
    let find = |fields: &[(u8, &str, &[u8])]| query(20, 0, "db.$cmd", &document(fields));
    let name = text("things");
    vec![
        case(vec![
            query(1, 0, "db.things", &by_id),
            query(2, 0b111_0010, "db.things.deep", &several),
            query(3, -1, "db.things", &document(&[])),
            reply(2, 0, 5, &[by_id.clone(), several.clone()]),
            reply(1, 3, 0, &[]),
            reply(99, 2, -1, std::slice::from_ref(&by_id)),
            reply(3, 1, 0, &[everything()]),
        ]),
        case(vec![
            query(4, 0, "db.c", &comment(r#"{"callingFunction": "f"}"#)),
            query(5, 0, "db.c", &comment(r#"{"callingFunction": 5}"#)),
            query(6, 0, "db.c", &comment("no json")),
            reply(4, 0, 0, std::slice::from_ref(&by_id)),
            query(
                7,
                0,
                "db.c",
                &document(&[(3, "$query", &several), (16, "$maxTimeMS", &int(10))]),
            ),
            query(
                8,
                0,
                "db.c",
                &document(&[(3, "$query", &by_id), (18, "maxTimeMS", &9_i64.to_le_bytes())]),
            ),
        ]),
        case(vec![
            query(30, 0, "db.$cmd", &command("insert")),
            query(31, 0, "db.$cmd", &command("isMaster")),
            query(
                32,
                0,
                "db.$cmd.x",
                &document(&[(3, "$query", &command("delete"))]),
            ),
            reply(30, 0, 0, std::slice::from_ref(&by_id)),
            reply(31, 0, 0, std::slice::from_ref(&by_id)),
        ]),
        with(
            "commands: [isMaster, collStats, dbStats, findAndModify, getLastError], ",
            [
                "ismaster",
                "collstats",
                "dbstats",
                "findandmodify",
                "getlasterror",
                "insert",
            ]
            .iter()
            .zip(40..)
            .flat_map(|(name, id)| {
                [
                    query(id, 0, "db.$cmd", &command(name)),
                    reply(id, 0, 0, &[by_id.clone(), by_id.clone()]),
                ]
            })
            .collect(),
            End::ServerFirst,
        ),
        case(vec![
            find(&[
                (2, "find", &name),
                (3, "filter", &by_id),
                (16, "maxTimeMS", &int(5)),
            ]),
            find(&[
                (2, "find", &name),
                (3, "filter", &document(&[])),
                (2, "comment", &text(r#"{"callingFunction":"g"}"#)),
            ]),
            find(&[(2, "find", &name), (3, "filter", &several)]),
            find(&[(2, "find", &name)]),
            reply(20, 0, 0, &[]),
        ]),
        case(operations),
        case(vec![query(1, 0, "db.c", &everything())]),
        // Not understood.
        case(vec![
            query(1, 0, "db.$cmd", &document(&[])),
            query(2, 0, "db.c", &by_id),
        ]),
        case(vec![query(1, 0, "nodot", &by_id)]),
        case(vec![find(&[(16, "find", &int(1))])]),
        case(vec![query(1, 0, "db.c", &document(&[(6, "undefined", b"")]))]),
        case(vec![Client(message(2013, 1, 0, &[&int(0), b"\0", &by_id]))]),
        case(vec![Client(message(2001, 1, 0, &[&int(0)]))]),
        case(vec![Client(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec())]),
        case(vec![Client(vec![8, 0, 0, 0, 1, 1, 1, 1])]),
        case(vec![Client(vec![0, 0, 0, 0])]),
        case(vec![
            Client(b"\x14\0\0\0".to_vec()),
            Client([1, 0, 2004, 0].map(int).concat()),
        ]),
        // In pieces, and two at once.
        case({
            let Client(one) = query(1, 0, "db.c", &by_id) else {
                unreachable!()
            };
            let (start, end) = one.split_at(30);
            vec![
                Client(start[..2].to_vec()),
                Client(start[2..].to_vec()),
                Client([end, &one, &one].concat()),
            ]
        }),
        // A message with more behind its body, and one whose length is too small.
        case(vec![
            Client(message(
                2005,
                9,
                0,
                &[&int(0), b"db.c\0", &int(4), &[1; 8], b"more"],
            )),
            query(2, 0, "db.c", &by_id),
        ]),
        case(vec![Client({
            let mut short = insert(std::slice::from_ref(&by_id));
            short[0] -= 3;
            short
        })]),
        case(vec![
            reply(1, 0, 0, &[nested(101)]),
            reply(1, 0, 0, &[nested(102)]),
        ]),
        with(
            "max_bson_depth: 3, ",
            vec![
                query(1, 0, "db.c", &nested(4)),
                query(2, 0, "db.c", &nested(5)),
                query(3, 0, "db.c", &nested(1)),
            ],
            End::ClientFirst,
        ),
        with("", vec![query(1, 0, "db.c", &by_id)], End::ServerFirst),
        with("", vec![query(1, 0, "db.c", &by_id)], End::ClientResets),
        with("", vec![query(1, 0, "db.c", &by_id)], End::ServerResets),
        with(
            "delay: { fixed_delay: 0.3s, percentage: { numerator: 100 } }, ",
            vec![query(1, 0, "db.c", &by_id), reply(1, 0, 0, &[])],
            End::ClientFirst,
        ),
        with(
            "delay: { fixed_delay: 0.3s, percentage: { numerator: 0 } }, ",
            vec![query(1, 0, "db.c", &by_id)],
            End::ClientFirst,
        ),
        // header_delay ends Envoy: there are no headers to ask. Here nobody waits.
    ]
}

fn resources(cases: &[Case]) -> String {
    let listeners = (FIRST..).zip(cases).map(|(port, case)| {
        format!(
            "  - {{ name: l{port}, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}, filter_chains: [{{ filters: [
      {{ name: m, typed_config: {{ \"@type\": {MONGO}, stat_prefix: s{port}, {} access_log: /dev/stdout }} }},
      {{ name: t, typed_config: {{ \"@type\": {TCP_PROXY}, stat_prefix: s{port}, cluster: server }} }}] }}] }}\n",
            case.fields
        )
    });
    format!(
        "  listeners:\n{}  clusters:\n  - {}\nstats_flush_interval: 0.2s\n",
        listeners.collect::<String>(),
        cluster("server", &[SERVER])
    )
}

/// Connections as the server has them.
fn server(namespace: &Namespace) -> Receiver<TcpStream> {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, SERVER)).expect("a free port"));
    let (accepted, connections) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            if accepted.send(stream).is_err() {
                return;
            }
        }
    });
    connections
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) -> Duration {
    from.write_all(bytes).expect("open");
    let began = Instant::now();
    let mut got = vec![0; bytes.len()];
    to.read_exact(&mut got).expect("all bytes get through");
    assert_eq!(got, bytes);
    began.elapsed()
}

/// The connection's story, and how long the client's bytes took.
fn play(alone: &Alone, port: u16, case: &Case, connections: &Receiver<TcpStream>) -> bool {
    let mut client = alone.connect(port);
    let mut server = connections.recv_timeout(PATIENCE).expect("connects");
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    }
    let mut is_late = false;
    for step in &case.steps {
        match step {
            Client(bytes) => is_late |= pass(&mut client, &mut server, bytes) > Duration::from_millis(250),
            Server(bytes) => drop(pass(&mut server, &mut client, bytes)),
        }
    }
    let (mut first, mut last) = match case.end {
        End::ClientFirst | End::ClientResets => (client, server),
        End::ServerFirst | End::ServerResets => (server, client),
    };
    if matches!(case.end, End::ClientResets | End::ServerResets) {
        let linger = socket2::SockRef::from(&first).set_linger(Some(Duration::ZERO));
        linger.expect("a socket");
        drop(first);
        let _ = last.read(&mut [0]);
        return is_late;
    }
    first.shutdown(std::net::Shutdown::Write).expect("open");
    assert_eq!(last.read(&mut [0]).expect("the end"), 0);
    drop(last);
    let _ = first.read(&mut [0]);
    is_late
}

/// All of the filter's stats but those that tell times.
fn stats(alone: &Alone) -> Vec<String> {
    let text = alone
        .admin("/stats?filter=^mongo")
        .expect("the admin interface")
        .body;
    let labelled = alone
        .admin("/stats/prometheus?filter=^mongo")
        .expect("the admin interface")
        .body;
    let labelled = labelled.lines().filter(|line| {
        let name = line.split('{').next().unwrap_or_default();
        name.ends_with("_sum") || name.ends_with("_count") || name.contains("_query_")
    });
    let mut all: Vec<_> = text
        .lines()
        .map(str::to_owned)
        .chain(labelled.filter(|line| !line.contains("_bucket{")).map(rounded))
        .filter(|line| !line.contains("reply_time_ms"))
        .collect();
    all.sort();
    all
}

/// Envoy writes more digits than its numbers have.
fn rounded(line: &str) -> String {
    let (name, value) = line.rsplit_once(' ').unwrap_or((line, ""));
    match value.parse::<f64>() {
        Ok(value) => format!("{name} {value:.9}"),
        Err(_) => line.to_owned(),
    }
}

/// The text between `"time": "` and its end may be any.
fn without_time(line: &str) -> String {
    let rest = line
        .strip_prefix("{\"time\": \"")
        .and_then(|rest| rest.split_at_checked(24));
    let (time, rest) = rest.unwrap_or_else(|| panic!("no time: {line:?}"));
    assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    rest.to_owned()
}

#[test]
fn messages_are_counted_and_logged_and_all_bytes_get_through() {
    let cases = cases();
    let connections: Mutex<Option<Receiver<TcpStream>>> = Mutex::new(None);
    check_with(
        &resources(&cases),
        |namespace, _| *connections.lock().expect("no panic") = Some(server(namespace)),
        |alone| {
            let connections = connections.lock().expect("no panic");
            let connections = connections.as_ref().expect("the server runs");
            let ports = (FIRST..).zip(&cases);
            let mut told: Vec<_> = ports
                .map(|(port, case)| format!("{port} late: {}", play(alone, port, case, connections)))
                .collect();
            // Ends are noticed, and intervals closed; then nothing changes any more.
            let mut before = Vec::new();
            let deadline = Instant::now() + PATIENCE;
            loop {
                thread::sleep(Duration::from_millis(500));
                let now = stats(alone);
                if now == before || Instant::now() > deadline {
                    break;
                }
                before = now;
            }
            for port in (FIRST..).take(cases.len()) {
                let of_port = before.iter().filter(|line| line.contains(&format!("s{port}")));
                told.push(of_port.map(|line| format!("{line}\n")).collect());
            }
            // Lines of several workers come in any order.
            let mut lines: Vec<_> = alone.access_log().lines().map(without_time).collect();
            lines.sort();
            told.push(lines.join("\n"));
            told
        },
    );
}
