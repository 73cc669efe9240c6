//! HTTP/1.0, and what else of HTTP/1 has to be allowed: default host, a length beside chunks.

use std::io::{Read, Write};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{FRONT, Manager, check_with, configuration};

/// Settings of the listeners.
const MANAGERS: &[&str] = &[
    "",
    "http_protocol_options: { accept_http_10: true },",
    "http_protocol_options: { accept_http_10: true, default_host_for_http_10: \"known.example:81\", allow_chunked_length: true, \
     allow_absolute_url: true },",
];

/// What is sent on one connection; `{c}` is a header that names the case.
const REQUESTS: &[&str] = &[
    "GET /no-host HTTP/1.0\r\n{c}\r\n",
    "GET /host HTTP/1.0\r\nhost: a\r\n{c}\r\n",
    "GET /kept HTTP/1.0\r\nconnection: keep-alive\r\n{c}\r\nGET /second HTTP/1.0\r\n\r\n",
    "GET /closed HTTP/1.0\r\n{c}\r\nGET /never HTTP/1.0\r\n\r\n",
    "HEAD /head HTTP/1.0\r\n{c}\r\n",
    "POST /body HTTP/1.0\r\ncontent-length: 4\r\n{c}\r\nbody",
    "POST /no-length HTTP/1.0\r\n{c}\r\n",
    "POST /chunks HTTP/1.0\r\ntransfer-encoding: chunked\r\n{c}\r\n4\r\nbody\r\n0\r\n\r\n",
    "GET http://other/absolute HTTP/1.0\r\n{c}\r\n",
    "GET /no-host-11 HTTP/1.1\r\n{c}\r\n",
    "GET http://other/absolute-11 HTTP/1.1\r\nhost: a\r\n{c}\r\n",
    "POST /both HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n{c}\r\n4\r\nbody\r\n0\r\n\r\n",
    "POST /both-wrong HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 99\r\n{c}\r\n4\r\nbody\r\n0\r\n\r\n",
    "POST /gzip HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: gzip\r\n{c}\r\nbody",
    "POST /twice HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n{c}\r\n4\r\nbody\r\n0\r\n\r\n",
];

#[test]
fn what_is_allowed_is_answered_as_envoy_answers_it() {
    // The host that is put in has a route; others have another.
    let routes = "virtual_hosts: [{ name: known, domains: [\"known.example:81\"], routes: [{ match: { prefix: / }, name: known, route: { cluster: echo } }] }, \
                  { name: all, domains: [\"*\"], routes: [{ match: { prefix: / }, name: all, route: { cluster: echo } }] }]";
    let managers: Vec<_> = MANAGERS
        .iter()
        .map(|settings| Manager {
            routes: routes.to_owned(),
            settings: (*settings).to_owned(),
            ..Manager::default()
        })
        .collect();
    check_with(
        &configuration(&managers, &[]),
        |_, _| {},
        |alone| {
            let cases = (FRONT..)
                .take(MANAGERS.len())
                .flat_map(|port| REQUESTS.iter().map(move |request| (port, *request)));
            let cases: Vec<_> = cases.enumerate().collect();
            std::thread::scope(|scope| {
                let running: Vec<_> = cases
                    .iter()
                    .map(|(number, (port, request))| scope.spawn(move || ask(alone, *port, request, *number)))
                    .collect();
                running
                    .into_iter()
                    .map(|case| case.join().expect("a case"))
                    .collect()
            })
        },
    );
}

fn ask(alone: &Alone, port: u16, request: &str, number: usize) -> String {
    let mut stream = alone.connect(port);
    let text = request.replace("{c}", &format!("x-case: case{number}\r\n"));
    stream.write_all(text.as_bytes()).expect("the proxy reads");
    // Longer than Envoy's `delayed_close_timeout`.
    stream
        .set_read_timeout(Some(Duration::from_millis(2500)))
        .expect("a socket");
    let mut came = Vec::new();
    let end = match stream.read_to_end(&mut came) {
        Ok(_) => "closed",
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => "open",
        Err(_) => "reset",
    };
    let came = String::from_utf8_lossy(&came).into_owned();
    let (head, body) = came.split_once("\r\n\r\n").unwrap_or((&came, "(cut)"));
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let mut headers: Vec<_> = headers
        .lines()
        .filter(|line| !line.starts_with("date") && !line.starts_with("x-envoy-upstream-service-time"))
        .collect();
    headers.sort_unstable();
    // Of a second answer the first line is enough.
    let body = body.split("\r\ncontent-length").next().unwrap_or_default();
    // What was refused before it was a request is logged without its case.
    let refused = came.starts_with("HTTP/1.1 4") || came.starts_with("HTTP/1.1 5");
    let log = match refused {
        true => String::new(),
        false => alone.logged(&format!("case{number} ")),
    };
    format!("{port} {request:?}: {first} {headers:?} {body:?} {end}; log {log}")
}
