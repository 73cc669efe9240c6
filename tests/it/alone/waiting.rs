//! What becomes of listeners and clusters whose endpoints, routes and secrets do not come before `initial_fetch_timeout`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::http::{Request, Response};
use e2e::netns::Namespace;
use e2e::proxy::Kind;

/// Routes to a cluster whose endpoints do not come.
const NO_ENDPOINTS: u16 = 10_000;
/// Its routes do not come.
const NO_ROUTES: u16 = 10_001;
/// Its certificate does not come.
const NO_CERTIFICATE: u16 = 10_002;
/// Routes to a cluster whose certificate does not come.
const NO_CLIENT_CERTIFICATE: u16 = 10_003;
/// Its routes are waited for without end.
const FOR_EVER: u16 = 10_004;

/// Where the cluster `tls` leads.
const SERVER: u16 = 9_000;

const TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn what_does_not_come_is_done_without_after_the_timeout() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let started = Instant::now();
        // Ready means that the timeouts are over.
        let alone = Alone::start(kind, &configuration(""), |namespace, _| server(namespace));
        assert!(started.elapsed() >= TIMEOUT, "{kind:?}: {:?}", started.elapsed());
        let ask = |port: u16| alone.send(at(port), &Request::get("a", "/"));
        let answer = |port: u16| {
            let response: Response = ask(port).expect("an answer");
            (response.status(), response.body)
        };
        let unhealthy = (503, "no healthy upstream".to_owned());
        assert_eq!(answer(NO_ENDPOINTS), unhealthy, "{kind:?}");
        assert_eq!(answer(NO_ROUTES), (404, String::new()), "{kind:?}");
        let closed = ask(NO_CERTIFICATE).expect_err("closed");
        assert_ne!(
            closed.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{kind:?}: {closed}"
        );
        let failed = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
        assert_eq!(
            answer(NO_CLIENT_CERTIFICATE),
            (503, failed.to_owned()),
            "{kind:?}"
        );
        alone.logged("flags=UF TLS_error:_Secret_is_not_supplied_by_SDS");
        for flag in ["UH", "NR"] {
            alone.logged(&format!("flags={flag} "));
        }
    }
}

#[test]
fn a_timeout_of_0_is_none_and_nobody_is_taken_in_meanwhile() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let alone = Alone::unready(kind, &configuration(&for_ever()), |_, _| {});
        std::thread::sleep(TIMEOUT + Duration::from_secs(1));
        let ready = alone.admin("/ready").expect("an answer");
        assert_eq!(ready.status(), 503, "{kind:?}");
        let is_refused = |port: u16| {
            let connect = alone.namespace.run(|| TcpStream::connect(at(port)));
            connect.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        assert!(is_refused(FOR_EVER), "{kind:?}");
        // Envoy starts no worker before every listener has what it waits for; one that never gets it need not hold the others up.
        assert_eq!(is_refused(NO_ROUTES), kind == Kind::Envoy, "{kind:?}");
    }
}

/// Takes connections and says nothing.
fn server(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind(at(SERVER)).expect("a free port"));
    std::thread::spawn(move || {
        let taken: Vec<_> = listener.incoming().collect();
        drop(taken);
    });
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A control plane that nobody is: the connection is refused.
fn source(timeout: &str) -> String {
    format!(
        "{{ resource_api_version: V3, initial_fetch_timeout: {timeout}, api_config_source: {{ api_type: GRPC, \
         transport_api_version: V3, grpc_services: [ {{ envoy_grpc: {{ cluster_name: nobody }} }} ] }} }}"
    )
}

fn secret() -> String {
    let source = source("2s");
    format!("{{ tls_certificate_sds_secret_configs: [ {{ name: s, sds_config: {source} }} ] }}")
}

fn configuration(more_listeners: &str) -> String {
    let server = "load_assignment: { cluster_name: x, endpoints: [ { lb_endpoints: [ { endpoint: { address: \
                  { socket_address: { address: 127.0.0.1, port_value: 9000 } } } } ] } ] }";
    let (routes, secret, source) = (source("2s"), secret(), source("2s"));
    let listeners = [
        listener(NO_ENDPOINTS, &route("empty"), ""),
        listener(
            NO_ROUTES,
            &format!("rds: {{ route_config_name: r, config_source: {routes} }}"),
            "",
        ),
        listener(
            NO_CERTIFICATE,
            &route("tls"),
            &socket("DownstreamTlsContext", &secret),
        ),
        listener(NO_CLIENT_CERTIFICATE, &route("tls"), ""),
    ]
    .concat();
    let upstream = socket("UpstreamTlsContext", &secret);
    format!(
        r#"  clusters:
  - name: nobody
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    {server}
  - name: empty
    connect_timeout: 1s
    type: EDS
    eds_cluster_config: {{ eds_config: {source} }}
  - name: tls
    connect_timeout: 1s
    {server}
{upstream}  listeners:
{listeners}{more_listeners}"#
    )
}

fn for_ever() -> String {
    let source = source("0s");
    listener(
        FOR_EVER,
        &format!("rds: {{ route_config_name: r, config_source: {source} }}"),
        "",
    )
}

fn route(cluster: &str) -> String {
    format!(
        "route_config: {{ name: r, virtual_hosts: [ {{ name: v, domains: [\"*\"], \
         routes: [ {{ match: {{ prefix: / }}, route: {{ cluster: {cluster} }} }} ] }} ] }}"
    )
}

fn socket(context: &str, common: &str) -> String {
    format!(
        "    transport_socket: {{ name: tls, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{context}, common_tls_context: {common} }} }}\n"
    )
}

fn listener(port: u16, routes: &str, socket: &str) -> String {
    format!(
        r#"  - name: l{port}
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          access_log:
          - name: log
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /dev/stdout
              log_format: {{ text_format_source: {{ inline_string: "flags=%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n" }} }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          {routes}
  {socket}"#
    )
    .trim_end_matches(' ')
    .to_owned()
}
