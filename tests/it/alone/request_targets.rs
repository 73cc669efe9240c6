//! What stands in the first line of a request to a server of HTTP/1.

use e2e::beside::{Case, ECHO, Manager, check, configuration, get};

const CASES: &[Case] = &[
    get("/", &[]),
    get("/a%20b?c=d", &[]),
    get("/b", &[("x-forwarded-proto", "https")]),
    get("/c", &[]).method("POST").body("text"),
    get("/d", &[]).method("OPTIONS"),
    get("/changed", &[]),
];

#[test]
fn whole_urls_are_sent_where_the_cluster_asks_for_them() {
    let cluster = format!(
        "{{ name: whole, type: STATIC, connect_timeout: 1s,
          typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{
            \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
            explicit_http_config: {{ http_protocol_options: {{ send_fully_qualified_url: true }} }} }} }},
          load_assignment: {{ cluster_name: whole, endpoints: [{{ lb_endpoints: [
            {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {ECHO} }} }} }} }}] }}] }} }}"
    );
    let routes = "{ match: { prefix: /changed }, route: { cluster: whole, host_rewrite_literal: \"b:80\", prefix_rewrite: /other } },
        { match: { prefix: / }, route: { cluster: whole } }";
    check(&configuration(&[Manager::with_routes(routes)], &[cluster]), CASES);
}
