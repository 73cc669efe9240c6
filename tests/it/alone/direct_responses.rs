//! Answers of routes: status, body, and bodies that are made of a format.

use e2e::beside::{Case, Manager, check, configuration, get};

/// Path, status, and further fields.
const ROUTES: &[(&str, u16, &str)] = &[
    ("/empty", 200, ""),
    ("/plain", 201, "body: { inline_string: plain }"),
    (
        "/made",
        403,
        "body: { inline_string: \"100%\" }, body_format: { text_format_source: { inline_string:
           \"%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %REQ(x-a?x-b):3% %REQ(x-none)% %LOCAL_REPLY_BODY% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %ROUTE_NAME% %PROTOCOL% %RESP(x-r)% %%\" } }",
    ),
    (
        "/omits",
        404,
        "body_format: { text_format: \"<%REQ(x-none)%%ROUTE_NAME%%RESPONSE_CODE_DETAILS%%LOCAL_REPLY_BODY%%REQ(x-a)%>\", omit_empty_values: true }",
    ),
    (
        "/typed",
        200,
        "body_format: { text_format_source: { inline_string: \"<b>%REQ(x-a)%</b>\" }, content_type: \"text/html; charset=UTF-8\" }",
    ),
    (
        "/nothing",
        200,
        "body: { inline_string: gone }, body_format: { text_format: \"%REQ(x-a)%\", omit_empty_values: true, content_type: text/html }",
    ),
    ("/moved", 301, "body_format: { text_format: \"%REQ(x-a)%\" }"),
];

const CALLS: &[(&str, &[(&str, &str)])] = &[
    ("GET", &[]),
    ("GET", &[("x-a", "four"), ("x-b", "b")]),
    ("POST", &[("x-b", "bbbb")]),
    ("HEAD", &[("x-a", "a")]),
    ("POST", &[("x-a", "a"), ("content-type", "application/grpc")]),
];

#[test]
fn routes_answer_as_in_envoy() {
    let routes = ROUTES.iter().map(|(path, status, more)| {
        format!(
            "{{ name: {}, match: {{ path: {path} }}, direct_response: {{ status: {status}, {more} }}, response_headers_to_add: [{{ header: {{ key: x-r, value: r }} }}] }}, ",
            &path[1..]
        )
    });
    let mut cases: Vec<Case> = Vec::new();
    for (path, _, _) in ROUTES {
        cases.extend(
            CALLS
                .iter()
                .map(|(method, headers)| get(path, headers).method(method)),
        );
    }
    let manager = Manager::with_routes(&routes.collect::<String>());
    check(&configuration(&[manager], &[]), &cases);
}
