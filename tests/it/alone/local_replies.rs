//! What becomes of answers that the proxy makes itself: `local_reply_config`.

use e2e::beside::{Case, Manager, check, configuration, from, get};

const ROUTES: &str = "{ match: { prefix: /direct }, direct_response: { status: 418, body: { inline_string: tea } } },
    { match: { prefix: /redirect }, redirect: { host_redirect: b.example } },
    { match: { prefix: /dead }, route: { cluster: dead } },
    { match: { prefix: /empty }, route: { cluster: empty } },
    { match: { prefix: /nowhere }, route: { cluster: nowhere } },
    { match: { prefix: /added }, route: { cluster: empty }, response_headers_to_add: [{ header: { key: x-route, value: a } }] },
    { match: { prefix: /echo }, route: { cluster: echo } }";

const MAPPERS: &str = "mappers: [
    { filter: { header_filter: { header: { name: x-want, string_match: { exact: text } } } }, body: { inline_string: \"changed\" } },
    { filter: { header_filter: { header: { name: x-want, string_match: { exact: status } } } }, status_code: 299,
      headers_to_add: [{ header: { key: x-added, value: \"%RESPONSE_CODE% %RESP(:status)% %REQ(:path)%\" } }, { header: { key: content-type, value: a/b }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }] },
    { filter: { header_filter: { header: { name: x-want, string_match: { exact: json } } } }, status_code: 500,
      body_format_override: { json_format: { text: \"%LOCAL_REPLY_BODY%\", status: \"%RESPONSE_CODE%\", mixed: \"<%RESPONSE_CODE%>\", none: \"%REQ(x-nowhere)%\",
        some-none: \"a%REQ(x-nowhere)%\", deep: { list: [1, true, null, \"%REQ(:method)%\"], flags: \"%RESPONSE_FLAGS%\" }, details: \"%RESPONSE_CODE_DETAILS%\", number: 2.5, quoted: 'a\"b' } } },
    { filter: { header_filter: { header: { name: x-want, string_match: { exact: short-json } } } },
      body_format_override: { omit_empty_values: true, content_type: \"application/problem+json\", json_format: { none: \"%REQ(x-nowhere)%\", path: \"%REQ(:path)%\", some: \"a%REQ(x-nowhere)%b\" } } },
    { filter: { header_filter: { header: { name: x-want, string_match: { exact: html } } } }, body: { inline_string: \"<b>\" },
      body_format_override: { text_format_source: { inline_string: \"<p>%LOCAL_REPLY_BODY% %REQ(x-nowhere)%</p>\" }, content_type: \"text/html; charset=UTF-8\" } },
    { filter: { header_filter: { header: { name: x-want, string_match: { exact: nothing } } } }, body_format_override: { text_format: \"%REQ(x-nowhere)%\", omit_empty_values: true } },
    { filter: { and_filter: { filters: [{ status_code_filter: { comparison: { op: GE, value: { default_value: 500, runtime_key: k } } } },
        { response_flag_filter: { flags: [UH] } }, { not_health_check_filter: {} }] } }, body: { inline_string: \"no host\" } },
    { filter: { runtime_filter: { runtime_key: k, percent_sampled: { numerator: 0 } } }, body: { inline_string: \"never\" } },
    { filter: { or_filter: { filters: [{ header_filter: { header: { name: x-want, string_match: { exact: some } } } },
        { header_filter: { header: { name: x-want, string_match: { exact: more } } } }] } }, headers_to_add: [{ header: { key: x-some, value: a } }] },
    { filter: { status_code_filter: { comparison: { op: EQ, value: { default_value: 418, runtime_key: k } } } }, status_code: 404 }]";

const GRPC: (&str, &str) = ("content-type", "application/grpc");

const CASES: &[Case] = &[
    get("/direct", &[]),
    get("/direct", &[("x-want", "text")]),
    get("/direct", &[("x-want", "status")]),
    get("/direct", &[("x-want", "json")]),
    get("/direct", &[("x-want", "html")]),
    get("/direct", &[("x-want", "nothing")]),
    get("/redirect", &[]),
    get("/redirect", &[("x-want", "text")]),
    get("/redirect", &[("x-want", "status")]),
    get("/redirect", &[("x-want", "json")]),
    get("/dead", &[]),
    get("/dead", &[("x-want", "short-json")]),
    get("/dead", &[("x-want", "some")]),
    get("/empty", &[]),
    get("/empty", &[("x-want", "more")]),
    get("/empty", &[("x-want", "json")]),
    get("/empty", &[GRPC]),
    get("/empty", &[GRPC, ("x-want", "json")]),
    get("/empty", &[GRPC, ("x-want", "status")]),
    get("/nowhere", &[]),
    get("/nowhere", &[("x-want", "text")]),
    get("/none", &[]),
    get("/none", &[("x-want", "text")]),
    get("/none", &[("x-want", "status")]),
    get("/added", &[]),
    get("/added", &[("x-want", "status")]),
    get("/echo", &[("x-status", "503"), ("x-want", "text")]),
    from("a", "/direct", &[("x-want", "json")]).method("HEAD"),
    get("/direct", &[]).listener(1),
    get("/direct", &[("x-want", "text")]).listener(1),
    get("/direct", &[("x-want", "html")]).listener(1),
    get("/none", &[]).listener(1),
    get("/none", &[GRPC]).listener(1),
    get("/empty", &[]).listener(2),
    get("/none", &[]).listener(2),
    get("/direct", &[]).listener(3),
    get("/none", &[]).listener(3),
];

#[test]
fn answers_made_here_change_as_envoy_changes_them() {
    let manager = |local: &str| {
        let plain = Manager::with_routes(ROUTES);
        Manager {
            settings: format!("local_reply_config: {{ {local} }},"),
            routes: format!("validate_clusters: false, {}", plain.routes),
            ..plain
        }
    };
    let managers = [
        manager(MAPPERS),
        manager(&format!(
            "{MAPPERS}, body_format: {{ text_format: \"%RESPONSE_CODE% %LOCAL_REPLY_BODY% %REQ(x-want)%\\n\" }}"
        )),
        manager(
            "body_format: { json_format: { code: \"%RESPONSE_CODE%\", message: \"%LOCAL_REPLY_BODY%\" } }",
        ),
        manager(""),
    ];
    check(&configuration(&managers, &[]), CASES);
}
