//! What few connection managers do to heads besides: `via`, ports, names of their own, schemes, internal clients, `proxy-status`.

use e2e::beside::{Case, Manager, check, configuration, get};

const ROUTES: &str = "{ match: { prefix: /direct }, direct_response: { status: 200, body: { inline_string: ok } } },
    { match: { prefix: /dead }, route: { cluster: dead } },
    { match: { prefix: /empty }, route: { cluster: empty } },
    { match: { prefix: /nowhere }, route: { cluster: nowhere } },
    { match: { prefix: /retried }, route: { cluster: dead, retry_policy: { retry_on: connect-failure, num_retries: 1 } } },
    { match: { prefix: /echo }, route: { cluster: echo }, response_headers_to_add: [{ header: { key: x-scheme, value: \"%REQ(:scheme)%\" } }] }";

/// What its listener has; requests keep the ids that they bring.
const MANAGERS: &[&str] = &[
    "via: \"1.1 here\",",
    "use_remote_address: true, append_x_forwarded_port: true, always_set_request_id_in_response: true, preserve_external_request_id: true,",
    "append_x_forwarded_port: true, always_set_request_id_in_response: true, preserve_external_request_id: true,",
    "use_remote_address: true, skip_xff_append: true, add_user_agent: true,",
    "use_remote_address: true, internal_address_config: { cidr_ranges: [{ address_prefix: 127.0.0.0, prefix_len: 8 }] }, add_user_agent: true,",
    "internal_address_config: { cidr_ranges: [{ address_prefix: 10.0.0.0, prefix_len: 8 }] },",
    "scheme_header_transformation: { scheme_to_overwrite: https },",
    "scheme_header_transformation: { match_upstream: true },",
    "proxy_status_config: {},",
    "proxy_status_config: { literal_proxy_name: here, remove_response_flags: true, set_recommended_response_code: true },",
    "proxy_status_config: { use_node_id: true, remove_details: true }, server_name: other,",
    "stream_error_on_invalid_http_message: true, normalize_path: true,",
    "stream_error_on_invalid_http_message: true, http_protocol_options: { override_stream_error_on_invalid_http_message: false },",
    "http_protocol_options: { override_stream_error_on_invalid_http_message: true },",
    "path_normalization_options: {}, early_header_mutation_extensions: [{ name: one, typed_config: { \"@type\": \
       type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation, mutations: [\
       { remove: x-gone }, { remove: x-forwarded-for }, { append: { header: { key: x-path, value: \"%REQ(:PATH)% %REQ(X-FORWARDED-PROTO)%\" } } }] } }, \
       { name: two, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation, mutations: [\
       { append: { header: { key: x-forwarded-proto, value: https }, append_action: OVERWRITE_IF_EXISTS_OR_ADD } }, \
       { append: { header: { key: x-route, value: \"%REQ(X-PATH)%\" } } }] } }],",
];

const ID: (&str, &str) = ("x-request-id", "12345678-1234-4234-8234-123456789012");

const CASES: &[Case] = &[
    get("/echo", &[]),
    get("/echo", &[("via", "1.0 there"), ("x-say", "via=1.1 upstream")]),
    get("/echo", &[("via", "1.0 one"), ("via", "1.0 two")]),
    get("/direct", &[]),
    get("/echo", &[ID]).listener(1),
    get("/echo", &[ID, ("x-forwarded-port", "99")]).listener(1),
    get("/direct", &[ID]).listener(1),
    get("/none", &[ID]).listener(1),
    get(
        "/echo",
        &[ID, ("x-forwarded-port", "99"), ("x-forwarded-proto", "https")],
    )
    .listener(2),
    get("/echo", &[ID, ("x-say", "x-request-id=other")]).listener(2),
    get("/echo", &[]).listener(3),
    get("/echo", &[("user-agent", "me"), ("x-forwarded-for", "1.2.3.4")]).listener(3),
    get(
        "/echo",
        &[
            ("x-envoy-max-retries", "3"),
            ("x-envoy-internal", "true"),
            ("x-request-id", "a"),
        ],
    )
    .listener(4),
    get(
        "/echo",
        &[("x-envoy-max-retries", "3"), ("x-forwarded-for", "127.0.0.1")],
    )
    .listener(4),
    get(
        "/echo",
        &[
            ("x-envoy-max-retries", "3"),
            ("x-envoy-downstream-service-cluster", "c"),
        ],
    )
    .listener(5),
    get(
        "/echo",
        &[("x-envoy-max-retries", "3"), ("x-forwarded-for", "10.1.2.3")],
    )
    .listener(5),
    get(
        "/echo",
        &[
            ("x-envoy-max-retries", "3"),
            ("x-forwarded-for", "10.1.2.3, 10.1.2.4"),
        ],
    )
    .listener(5),
    get(
        "/echo",
        &[("x-envoy-max-retries", "3"), ("x-forwarded-for", "11.1.2.3")],
    )
    .listener(5),
    get("/echo", &[]).listener(6),
    get("/echo", &[("x-forwarded-proto", "http")]).listener(6),
    get("/echo", &[]).listener(7),
    get("/echo", &[]).listener(8),
    get("/echo", &[("x-status", "503")]).listener(8),
    get("/dead", &[]).listener(8),
    get("/empty", &[]).listener(8),
    get("/nowhere", &[]).listener(8),
    get("/none", &[]).listener(8),
    get("/retried", &[]).listener(8),
    get("/direct", &[]).listener(8),
    get("/dead", &[]).listener(9),
    get("/empty", &[]).listener(9),
    get("/none", &[]).listener(9),
    get("/dead", &[]).listener(10),
    get("/none", &[]).listener(10),
    get("/direct%00", &[]).listener(11),
    get("/direct", &[]).method("QUERY").listener(11),
    get("/direct", &[]).method("QUERY").listener(12),
    get("/direct", &[]).method("QUERY").listener(13),
    get("/direct", &[]).method("QUERY").listener(0),
    get("/echo", &[]).listener(14),
    get(
        "/echo//x",
        &[
            ("x-gone", "1"),
            ("x-path", "mine"),
            ("x-forwarded-for", "1.2.3.4"),
        ],
    )
    .listener(14),
    get("/echo", &[("x-forwarded-proto", "http")]).listener(14),
];

#[test]
fn heads_have_what_their_connection_manager_says_of_itself() {
    let managers: Vec<_> = MANAGERS
        .iter()
        .map(|settings| {
            let plain = Manager::with_routes(ROUTES);
            Manager {
                settings: (*settings).to_owned(),
                routes: format!("validate_clusters: false, {}", plain.routes),
                ..plain
            }
        })
        .collect();
    check(&configuration(&managers, &[]), CASES);
}
