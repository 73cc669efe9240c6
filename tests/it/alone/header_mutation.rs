//! Headers and query parameters that a filter changes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{Case, FRONT, Manager, check, check_with, cluster, configuration, for_route, get};
use e2e::netns::Namespace;

const NAME: &str = "envoy.filters.http.header_mutation";
const FILTER: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";

fn add(name: &str, value: &str, action: &str) -> String {
    format!("{{ append: {{ header: {{ key: {name}, value: \"{value}\" }}, append_action: {action} }} }}")
}

fn query(key: &str, value: &str, action: &str) -> String {
    format!("{{ append: {{ record: {{ key: {key}, value: \"{value}\" }}, action: {action} }} }}")
}

fn mutations(level: &str) -> String {
    let all = [
        add("x-level", level, "APPEND_IF_EXISTS_OR_ADD"),
        add("x-last", level, "OVERWRITE_IF_EXISTS_OR_ADD"),
        add("x-first", level, "ADD_IF_ABSENT"),
    ];
    let steps = all.join(", ");
    format!("mutations: {{ request_mutations: [{steps}], response_mutations: [{steps}] }}")
}

const CASES: &[Case] = &[
    get("/own", &[]),
    get(
        "/own?b=2&a=1&b=3",
        &[
            ("x-gone", "1"),
            ("x-old-1", "a"),
            ("x-old-2", "b"),
            ("x-there", "1"),
            ("x-from", "me"),
        ],
    ),
    get(
        "/own?gone=1&first=2&there=3",
        &[
            ("x-first", "mine"),
            ("x-say", "x-gone=1"),
            ("x-say", "x-there=1"),
            ("user-agent", "a"),
        ],
    ),
    get("/own?q=b+c&gone&=x", &[("x-from", "a/b c")]),
    get("/own", &[("x-status", "503")]),
    get("/levels", &[]),
    get("/levels", &[("x-level", "mine"), ("x-first", "mine")]),
    get("/levels", &[]).listener(1),
    get("/share", &[]),
    get("/direct", &[]),
    get("/nowhere", &[]),
    get("/off", &[]),
];

#[test]
fn headers_and_queries_change_as_in_envoy() {
    let own = format!(
        "mutations: {{ request_mutations: [{{ remove: x-gone }}, {{ remove_on_match: {{ key_matcher: {{ prefix: x-old }} }} }}, {}, {}, {}, {}, {}, {}],
           query_parameter_mutations: [{{ remove: gone }}, {}, {}, {}, {}],
           response_mutations: [{{ remove: x-gone }}, {}, {}, {}] }}",
        add("x-first", "%REQ(x-from)%", "ADD_IF_ABSENT"),
        add("x-first", "second", "APPEND_IF_EXISTS_OR_ADD"),
        add("x-there", "new", "OVERWRITE_IF_EXISTS"),
        add("x-seen", "%REQ(x-first)%", "OVERWRITE_IF_EXISTS_OR_ADD"),
        add("x-empty", "%REQ(x-nobody)%", "APPEND_IF_EXISTS_OR_ADD"),
        add("user-agent", "more", "APPEND_IF_EXISTS_OR_ADD"),
        query("first", "%REQ(x-from)%", "APPEND_IF_EXISTS_OR_ADD"),
        query("there", "new", "OVERWRITE_IF_EXISTS"),
        query("other", "o&p", "ADD_IF_ABSENT"),
        query("b", "all", "OVERWRITE_IF_EXISTS_OR_ADD"),
        add("x-code", "%RESPONSE_CODE%", "OVERWRITE_IF_EXISTS_OR_ADD"),
        add("x-there", "%REQ(x-from)%-%RESP(x-code)%", "OVERWRITE_IF_EXISTS"),
        add("x-server", "%RESP(server)%", "APPEND_IF_EXISTS_OR_ADD"),
    );
    let per_route = |level: &str| for_route(NAME, &format!("{FILTER}PerRoute"), &mutations(level));
    let manager = |last: bool| {
        let routes = format!(
            "{} virtual_hosts: [{{ name: all, domains: [\"*\"], {} routes: [
               {{ match: {{ prefix: /own }}, {} route: {{ cluster: echo }} }},
               {{ match: {{ prefix: /levels }}, {} route: {{ cluster: echo }} }},
               {{ match: {{ prefix: /share }}, {} route: {{ weighted_clusters: {{ clusters: [{{ name: echo, weight: 1, {} }}] }} }} }},
               {{ match: {{ prefix: /direct }}, direct_response: {{ status: 200 }} }},
               {{ match: {{ prefix: /off }}, {} route: {{ cluster: echo }} }}] }}]",
            per_route("table"),
            per_route("host"),
            per_route("own"),
            per_route("route"),
            per_route("route"),
            per_route("share"),
            for_route(NAME, "envoy.config.route.v3.FilterConfig", "disabled: true"),
        );
        let manager = Manager {
            routes,
            ..Manager::default()
        };
        manager.filter(
            NAME,
            FILTER,
            &format!("{own}, most_specific_header_mutations_wins: {last}"),
        )
    };
    check(&configuration(&[manager(false), manager(true)], &[]), CASES);
}

/// Answers with the trailers that it gets, in its body and as its trailers, or without any for requests without.
const TRAILERS: u16 = 9002;

#[test]
fn trailers_change_as_in_envoy() {
    let steps = |of: &str| {
        let steps = [
            "{ remove: x-gone }".to_owned(),
            "{ remove_on_match: { key_matcher: { prefix: x-old } } }".to_owned(),
            add("x-new", of, "APPEND_IF_EXISTS_OR_ADD"),
            add("x-new", "%REQ(x-case)%", "APPEND_IF_EXISTS_OR_ADD"),
            add("x-there", of, "OVERWRITE_IF_EXISTS"),
            add("x-first", of, "ADD_IF_ABSENT"),
            add("x-seen", "%TRAILER(x-there)%", "OVERWRITE_IF_EXISTS_OR_ADD"),
        ];
        steps.join(", ")
    };
    let both = |of: &str| {
        format!(
            "mutations: {{ request_trailers_mutations: [{0}], response_trailers_mutations: [{0}] }}",
            steps(of)
        )
    };
    let per_route = for_route(NAME, &format!("{FILTER}PerRoute"), &both("route"));
    let routes = format!(
        "{{ match: {{ prefix: /route }}, {per_route} route: {{ cluster: trailers }} }}, {{ match: {{ prefix: / }}, route: {{ cluster: trailers }} }}"
    );
    let manager = Manager {
        settings: "http_protocol_options: { enable_trailers: true }, ".into(),
        ..Manager::with_routes(&routes)
    };
    let options =
        "typed_extension_protocol_options: { envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
       \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
       explicit_http_config: { http_protocol_options: { enable_trailers: true } } } }, ";
    let upstream = cluster("trailers", &[TRAILERS]).replacen("{ ", &format!("{{ {options}"), 1);
    check_with(
        &configuration(&[manager.filter(NAME, FILTER, &both("own"))], &[upstream]),
        |namespace, _| with_trailers(namespace),
        |alone| {
            let sent = [
                "",
                "x-gone: 1\r\nx-old-1: a\r\nx-there: t\r\n",
                "x-first: mine\r\n",
                "x-new: n\r\n",
            ];
            let paths = ["/", "/route"].into_iter();
            let asked = paths.flat_map(|path| sent.map(|trailers| ask_with_trailers(alone, path, trailers)));
            asked.collect()
        },
    );
}

fn with_trailers(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, TRAILERS)).expect("a free port"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let got = until_end(&mut stream);
            let mut trailers: Vec<&str> = match got.split_once("\r\n0\r\n") {
                Some((_, trailers)) => trailers.lines().filter(|line| !line.is_empty()).collect(),
                None => Vec::new(),
            };
            trailers.sort_unstable();
            let told = format!("{trailers:?}");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{told}\r\n0\r\n{}\r\n",
                told.len(),
                match trailers.is_empty() {
                    true => String::new(),
                    false => "x-gone: 1\r\nx-old-1: a\r\nx-there: u\r\nx-kept: 1\r\n".to_owned(),
                }
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

/// A request or response in chunks.
fn until_end(stream: &mut TcpStream) -> String {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut got = String::new();
    let mut byte = [0];
    let is_whole = |got: &str| match got.split_once("\r\n0\r\n") {
        Some((_, rest)) => rest == "\r\n" || rest.ends_with("\r\n\r\n"),
        None => false,
    };
    while !is_whole(&got) && matches!(stream.read(&mut byte), Ok(1)) {
        got.push(char::from(byte[0]));
    }
    got
}

/// The body and the trailers of the answer.
fn ask_with_trailers(alone: &Alone, path: &str, trailers: &str) -> String {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FRONT));
    let mut stream = alone
        .namespace
        .run(|| TcpStream::connect(address).expect("the proxy listens"));
    let wire = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nx-case: c\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n{trailers}\r\n"
    );
    stream.write_all(wire.as_bytes()).expect("the proxy reads");
    let got = until_end(&mut stream);
    let body = got.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let (body, trailers) = body.split_once("\r\n0\r\n").unwrap_or((body, ""));
    let mut trailers: Vec<&str> = trailers.lines().collect();
    trailers.sort_unstable();
    format!("{path} {body:?} {trailers:?}")
}
