//! The same requests to Envoy and to outrigger on one static configuration, and what came of each in one line of text.
//!
//! For tables of small cases: a case is a request; its line has status, headers, body (what the upstream saw, when it came so far)
//! and what the access log says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::alone::Alone;
use crate::http::Request;
use crate::netns::Namespace;
use crate::proxy::Kind;

/// The port of the first listener.
pub const FRONT: u16 = 10_000;
/// The port of the upstream that answers with what it got.
pub const ECHO: u16 = 9001;

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// A connection manager: HTTP filters before the router, route configuration, further settings; each as YAML in flow style.
#[derive(Clone, Debug, Default)]
pub struct Manager {
    /// Each `{ name: …, typed_config: { … } }`.
    pub filters: Vec<String>,
    /// What is in `route_config: { … }`.
    pub routes: String,
    /// `key: value, …`, with a comma at its end.
    pub settings: String,
}

impl Manager {
    /// One virtual host for all with these routes.
    pub fn with_routes(routes: &str) -> Self {
        Self {
            routes: format!("virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{routes}] }}]"),
            ..Self::default()
        }
    }

    /// With one more filter.
    #[must_use]
    pub fn filter(mut self, name: &str, message: &str, fields: &str) -> Self {
        self.filters.push(format!(
            "{{ name: {name}, typed_config: {{ \"@type\": type.googleapis.com/{message}, {fields} }} }}"
        ));
        self
    }
}

/// `typed_per_filter_config` with one entry, and a comma at its end.
pub fn for_route(name: &str, message: &str, fields: &str) -> String {
    format!(
        "typed_per_filter_config: {{ {name}: {{ \"@type\": type.googleapis.com/{message}, {fields} }} }}, "
    )
}

/// Listeners on [`FRONT`] and the ports after it, a cluster `echo` for the upstream, one `empty` without endpoints, one `dead` whose
/// endpoint refuses connections, and `more` clusters, each in flow style.
pub fn configuration(managers: &[Manager], more: &[String]) -> String {
    let listeners = managers.iter().zip(FRONT..).map(|(manager, port)| {
        let Manager {
            filters,
            routes,
            settings,
        } = manager;
        let filters = filters.iter().map(|filter| format!("{filter}, ")).collect::<String>();
        let format = "%REQ(X-CASE)% %REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %RESPONSE_CODE% %RESPONSE_FLAGS% \
                      %RESPONSE_CODE_DETAILS% %UPSTREAM_CLUSTER% %ROUTE_NAME% %BYTES_SENT% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\\n";
        format!(
            "  - {{ name: \"{port}\", address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}, filter_chains: [{{ filters: [{{
      name: envoy.filters.network.http_connection_manager, typed_config: {{ \"@type\": {MANAGER}, stat_prefix: s{port}, {settings}
        access_log: [{{ name: envoy.access_loggers.file, typed_config: {{ \"@type\": {FILE_LOG}, path: /dev/stdout,
          log_format: {{ text_format_source: {{ inline_string: \"{format}\" }} }} }} }}],
        route_config: {{ {routes} }},
        http_filters: [{filters}{{ name: envoy.filters.http.router, typed_config: {{ \"@type\": {ROUTER} }} }}] }} }}] }}] }}\n"
        )
    });
    let clusters = [
        cluster("echo", &[ECHO]),
        cluster("empty", &[]),
        cluster("dead", &[1]),
    ];
    let clusters = clusters
        .iter()
        .chain(more)
        .map(|cluster| format!("  - {cluster}\n"));
    format!(
        "  listeners:\n{}  clusters:\n{}",
        listeners.collect::<String>(),
        clusters.collect::<String>()
    )
}

/// A static cluster with endpoints on these ports of loopback.
pub fn cluster(name: &str, ports: &[u16]) -> String {
    let endpoints = ports.iter().map(|port| {
        format!("{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}, ")
    });
    format!(
        "{{ name: {name}, type: STATIC, connect_timeout: 1s, load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [{}] }}] }} }}",
        endpoints.collect::<String>()
    )
}

/// One request.
#[derive(Clone, Debug)]
pub struct Case {
    /// Such as `GET`.
    pub method: &'static str,
    /// Of the `host` header.
    pub host: &'static str,
    /// With query.
    pub path: &'static str,
    /// Further headers. For the upstream: `x-status` is the status of its response, `x-say` a header of it, `name=value`.
    pub headers: &'static [(&'static str, &'static str)],
    /// Empty: none.
    pub body: &'static str,
    /// The listener, counted from 0.
    pub listener: u16,
}

/// `GET` with these headers.
pub const fn get(path: &'static str, headers: &'static [(&'static str, &'static str)]) -> Case {
    from("a", path, headers)
}

/// `GET` from this host.
pub const fn from(
    host: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
) -> Case {
    Case {
        method: "GET",
        host,
        path,
        headers,
        body: "",
        listener: 0,
    }
}

impl Case {
    /// With another method.
    #[must_use]
    pub const fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// With a body.
    #[must_use]
    pub const fn body(mut self, body: &'static str) -> Self {
        self.body = body;
        self
    }

    /// To another listener.
    #[must_use]
    pub const fn listener(mut self, listener: u16) -> Self {
        self.listener = listener;
        self
    }

    /// Sends it, and says what came of it, without the log.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn answer(&self, alone: &Alone, number: usize) -> String {
        let mut request = Request::get(self.host, self.path).header("x-case", &format!("case{number}"));
        request.method = self.method;
        request.body = self.body.to_owned();
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FRONT + self.listener));
        let response = alone
            .send(address, &request)
            .unwrap_or_else(|error| panic!("{:?}: {self:?}: {error}", alone.kind));
        let mut headers: Vec<_> = response
            .head
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
            .filter(|(name, _)| name != "date" && name != "x-envoy-upstream-service-time")
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        headers.sort();
        format!("{} {headers:?} {:?}", response.status(), response.body)
    }
}

/// What came of each case.
pub fn answers(alone: &Alone, cases: &[Case]) -> Vec<String> {
    let answers: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(number, case)| case.answer(alone, number))
        .collect();
    let with_log = answers.into_iter().zip(cases).enumerate();
    with_log
        .map(|(number, (answer, case))| {
            let line = alone.logged(&format!("case{number} "));
            format!(
                "{} {}{} {:?}: {answer} log {line}",
                case.method, case.host, case.path, case.headers
            )
        })
        .collect()
}

/// Starts both proxies, one after the other, with an upstream, and compares what comes of the cases.
///
/// # Panics
/// When something differs: all differences are told.
pub fn check(resources: &str, cases: &[Case]) {
    check_with(resources, |_, _| {}, |alone| answers(alone, cases));
}

/// As [`check`]; `prepare` runs before the proxy starts, `steps` asks it.
///
/// Some answers of Envoy are chance, one in hundreds. When something differs Envoy is asked once more, and a case differs if neither of
/// its answers is ours.
///
/// # Panics
/// When something differs: all differences are told.
pub fn check_with(
    resources: &str,
    prepare: impl Fn(&Namespace, Kind),
    steps: impl Fn(&Alone) -> Vec<String>,
) {
    let run = |kind| {
        let alone = Alone::start(kind, resources, |namespace, _| {
            echo(namespace, ECHO);
            prepare(namespace, kind);
        });
        steps(&alone)
    };
    let [envoy, outrigger] = [Kind::Envoy, Kind::Outrigger].map(run);
    if envoy == outrigger {
        return;
    }
    let again = run(Kind::Envoy);
    assert_eq!((envoy.len(), again.len()), (outrigger.len(), outrigger.len()));
    let differences: Vec<_> = envoy
        .iter()
        .zip(&again)
        .zip(&outrigger)
        .filter(|((envoy, again), outrigger)| envoy != outrigger && again != outrigger)
        .map(|((envoy, again), outrigger)| {
            let other = match envoy == again {
                true => String::new(),
                false => format!("and again {again}\n"),
            };
            format!("envoy     {envoy}\n{other}outrigger {outrigger}\n")
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        envoy.len(),
        differences.join("\n")
    );
}

/// The values of counters and gauges, `name: value`, as the admin interface shows them.
pub fn counters(alone: &Alone, names: &[&str]) -> Vec<String> {
    let text = alone.admin("/stats").expect("the admin interface").body;
    let value = |name: &str| {
        let line = text.lines().find(|line| line.split(": ").next() == Some(name));
        line.map_or_else(|| format!("{name}: -"), str::to_owned)
    };
    names.iter().map(|name| value(name)).collect()
}

/// Requests that an upstream got, as text.
pub type Seen = Arc<Mutex<Vec<String>>>;

/// Answers each request with what it got, until the test ends.
///
/// # Panics
/// When the port is taken.
pub fn echo(namespace: &Namespace, port: u16) -> Seen {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    let seen = Seen::default();
    let kept = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let kept = kept.clone();
            std::thread::spawn(move || serve(stream, port, &kept));
        }
    });
    seen
}

fn serve(mut stream: TcpStream, port: u16, seen: &Seen) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines().filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let mut headers: Vec<String> = lines.map(without_chance).collect();
    let value = |name: &str| {
        headers
            .iter()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")))
    };
    let body = match value("content-length").and_then(|length| length.parse().ok()) {
        Some(length) => {
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            String::from_utf8_lossy(&body).into_owned()
        }
        None => String::new(),
    };
    let status = value("x-status").unwrap_or("200").to_owned();
    let said: Vec<String> = headers
        .iter()
        .filter_map(|line| line.strip_prefix("x-say: ")?.split_once('='))
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    headers.sort();
    let told = format!("{port} {first} {headers:?} {body:?}");
    let length = told.len();
    let answer = format!(
        "HTTP/1.1 {status} Status\r\nconnection: close\r\n{}content-length: {length}\r\n\r\n{told}",
        said.concat()
    );
    seen.lock().expect("no panic holds it").push(told);
    let _ = stream.write_all(answer.as_bytes());
}

/// A header line; what is made at random is any.
fn without_chance(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, value)) if name.eq_ignore_ascii_case("x-request-id") && value.len() == 36 => {
            "x-request-id: made".to_owned()
        }
        // All of 15 s, or what is left of them for a retry, which may be all when it was quick.
        Some((name, value))
            if name == "x-envoy-expected-rq-timeout-ms"
                && value
                    .parse()
                    .is_ok_and(|millis| (14_000..=15_000).contains(&millis)) =>
        {
            format!("{name}: about 15000")
        }
        Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
        None => line.to_owned(),
    }
}
