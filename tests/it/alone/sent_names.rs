//! Which server name a cluster's TLS sends, and whether the certificate has to be for it.

use std::net::{Ipv4Addr, SocketAddr};

use e2e::alone::Alone;
use e2e::beside::{FRONT, check_with};
use e2e::http::Request;
use outrigger_demo::ca::Authority;

/// Tells the name that it was asked for.
const SERVER: u16 = 9300;

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const OPTIONS: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster: the name of its host, if it has one; fields of its TLS, with a comma at their end; what validation has besides roots,
/// `-`: there is none; whether it sends the request's host.
const CLUSTERS: &[(&str, &str, &str, bool)] = &[
    ("a.example", "", "-", false),
    ("a.example", "auto_host_sni: true,", "-", false),
    ("", "auto_host_sni: true,", "-", false),
    ("", "auto_host_sni: true, sni: s.example,", "-", false),
    ("a.example", "auto_host_sni: true, sni: s.example,", "-", false),
    ("b.w.example", "auto_host_sni: true, sni: s.example,", "-", true),
    ("A.Example", "auto_host_sni: true,", "-", false),
    (
        "a.example",
        "auto_host_sni: true, auto_sni_san_validation: true,",
        "",
        false,
    ),
    (
        "x.w.example",
        "auto_host_sni: true, auto_sni_san_validation: true,",
        "",
        false,
    ),
    (
        "x.y.w.example",
        "auto_host_sni: true, auto_sni_san_validation: true,",
        "",
        false,
    ),
    (
        "other.example",
        "auto_host_sni: true, auto_sni_san_validation: true,",
        "",
        false,
    ),
    ("other.example", "auto_host_sni: true,", "", false),
    (
        "127.0.0.7",
        "auto_host_sni: true, auto_sni_san_validation: true,",
        "",
        false,
    ),
    ("", "sni: a.example, auto_sni_san_validation: true,", "", false),
    (
        "",
        "sni: other.example, auto_sni_san_validation: true,",
        "",
        false,
    ),
    (
        "",
        "sni: a.example, auto_sni_san_validation: true,",
        NOBODY,
        false,
    ),
    (
        "",
        "sni: other.example, auto_sni_san_validation: true,",
        LISTED,
        false,
    ),
    (
        "other.example",
        "sni: other.example, auto_host_sni: true,",
        LISTED,
        false,
    ),
    (
        "",
        "sni: other.example, auto_sni_san_validation: true,",
        LISTED,
        true,
    ),
    ("", "auto_sni_san_validation: true,", "", false),
    ("", "auto_sni_san_validation: true,", NOBODY, false),
];

const NOBODY: &str =
    "match_typed_subject_alt_names: [{ san_type: DNS, matcher: { exact: nobody.example } }],";
const LISTED: &str = "match_typed_subject_alt_names: [{ san_type: DNS, matcher: { exact: a.example } }],";

#[test]
fn servers_are_asked_for_and_checked_by_the_name_of_the_host() {
    check_with(
        &configuration(),
        |_, _| {},
        |alone| {
            (0..)
                .zip(CLUSTERS)
                .map(|(index, cluster)| format!("{cluster:?}: {}", ask(alone, index)))
                .collect()
        },
    );
}

/// Twice: the second time a session could be resumed.
fn ask(alone: &Alone, index: u16) -> String {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FRONT));
    let answers = [(); 2].map(|()| {
        let request = Request::get("a.example", &format!("/{index}/"));
        let response = alone.send(address, &request).expect("an answer");
        let name = response.head.value("x-asked-for").unwrap_or("nothing").to_owned();
        format!("{} {name}", response.status())
    });
    answers.join(", ")
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string")
}

fn configuration() -> String {
    let authority = Authority::new("names").expect("an authority");
    let pair = authority
        .issue_for_names(&["a.example", "*.w.example"])
        .expect("a certificate");
    let root = quoted(&authority.root());
    let manager = |routes: &str| {
        format!(
            "{{ name: h, typed_config: {{ \"@type\": {MANAGER}, stat_prefix: h, route_config: {{ virtual_hosts: [{{ name: all, domains: [\"*\"], \
               routes: [{routes}] }}] }}, http_filters: [{{ name: r, typed_config: {{ \"@type\": {ROUTER} }} }}] }} }}"
        )
    };
    let routes = (0..CLUSTERS.len())
        .map(|index| format!("{{ match: {{ prefix: \"/{index}/\" }}, route: {{ cluster: c{index} }} }}, "));
    let front = manager(&routes.collect::<String>());
    let server = manager(
        "{ match: { prefix: / }, direct_response: { status: 200 }, response_headers_to_add: \
         [{ header: { key: x-asked-for, value: \"%REQUESTED_SERVER_NAME%\" } }, { header: { key: connection, value: close } }] }",
    );
    let clusters = CLUSTERS.iter().enumerate().map(|(index, (host, fields, validation, sends_asked))| {
        let hostname = match *host {
            "" => String::new(),
            name => format!(", hostname: {name}"),
        };
        let context = match *validation {
            "-" => String::new(),
            more => format!("validation_context: {{ trusted_ca: {{ inline_string: {root} }}, {more} }}"),
        };
        let options = match sends_asked {
            true => format!(
                "typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \"@type\": {OPTIONS}, \
                   explicit_http_config: {{ http_protocol_options: {{}} }}, upstream_http_protocol_options: {{ auto_sni: true }} }} }},"
            ),
            false => String::new(),
        };
        format!(
            "  - {{ name: c{index}, type: STATIC, connect_timeout: 5s, {options}
      transport_socket: {{ name: t, typed_config: {{ \"@type\": {TLS}.UpstreamTlsContext, {fields} common_tls_context: {{ {context} }} }} }},
      load_assignment: {{ cluster_name: c{index}, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ \
        address: 127.0.0.1, port_value: {SERVER} }} }}{hostname} }} }}] }}] }} }}\n"
        )
    });
    format!(
        "  listeners:
  - {{ name: front, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {FRONT} }} }}, filter_chains: [{{ filters: [{front}] }}] }}
  - {{ name: server, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {SERVER} }} }},
      listener_filters: [{{ name: i, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector }} }}],
      filter_chains: [{{ filters: [{server}], transport_socket: {{ name: t, typed_config: {{ \"@type\": {TLS}.DownstreamTlsContext, \
        common_tls_context: {{ tls_certificates: [{{ certificate_chain: {{ inline_string: {} }}, private_key: {{ inline_string: {} }} }}] }} }} }} }}] }}
  clusters:\n{}",
        quoted(&pair.chain),
        quoted(&pair.key),
        clusters.collect::<String>()
    )
}
