//! Who the client is when others stand before this proxy: what is logged, who is internal, and what the upstream hears.

use e2e::alone::Alone;
use e2e::beside::{Case, Manager, answers, check_with, configuration, counters, get};

const XFF: &str = "type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig";
const HEADER: &str =
    "type.googleapis.com/envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig";

/// Each has a listener. `XFF(…)` and `HEADER(…)` stand for the extensions.
const MANAGERS: &[&str] = &[
    "",
    "xff_num_trusted_hops: 1,",
    "xff_num_trusted_hops: 2, append_x_forwarded_port: true,",
    "use_remote_address: true,",
    "use_remote_address: true, xff_num_trusted_hops: 1, append_x_forwarded_port: true,",
    "use_remote_address: true, xff_num_trusted_hops: 2,",
    "use_remote_address: true, xff_num_trusted_hops: 1, skip_xff_append: true,",
    "original_ip_detection_extensions: [XFF(skip_xff_append: false)],",
    "original_ip_detection_extensions: [XFF(xff_num_trusted_hops: 1)],",
    "original_ip_detection_extensions: [XFF(xff_num_trusted_hops: 1, skip_xff_append: false)], skip_xff_append: true,",
    "original_ip_detection_extensions: [XFF(skip_xff_append: false, xff_trusted_cidrs: { cidrs: \
       [{ address_prefix: 127.0.0.0, prefix_len: 8 }, { address_prefix: 10.0.0.0, prefix_len: 8 }] })],",
    "original_ip_detection_extensions: [XFF(xff_trusted_cidrs: { cidrs: [{ address_prefix: 10.0.0.0, prefix_len: 8 }] })],",
    "original_ip_detection_extensions: [XFF(xff_trusted_cidrs: {})],",
    "original_ip_detection_extensions: [XFF(skip_xff_append: false, xff_trusted_cidrs: { cidrs: [{ address_prefix: 127.0.0.0, prefix_len: 8 }] })],",
    "original_ip_detection_extensions: [XFF(skip_xff_append: false, xff_num_trusted_hops: 2), XFF(skip_xff_append: false)],",
    "original_ip_detection_extensions: [XFF(skip_xff_append: false, xff_num_trusted_hops: 2), HEADER(header_name: x-ip)],",
    "original_ip_detection_extensions: [HEADER(header_name: X-Ip, allow_extension_to_set_address_as_trusted: true)],",
    "original_ip_detection_extensions: [HEADER(header_name: x-ip, reject_with_status: { code: TooManyRequests })], skip_xff_append: true,",
    "original_ip_detection_extensions: [HEADER(header_name: x-ip, reject_with_status: { code: OK })],",
    "original_ip_detection_extensions: [HEADER(header_name: x-ip), XFF(skip_xff_append: true)],",
];

const SAID: &[&[(&str, &str)]] = &[
    &[],
    &[("x-forwarded-for", "10.0.0.1")],
    &[("x-forwarded-for", "1.2.3.4")],
    &[("x-forwarded-for", "1.2.3.4, 10.0.0.2")],
    &[("x-forwarded-for", "10.0.0.3,10.0.0.2")],
    &[("x-forwarded-for", "10.0.0.4"), ("x-forwarded-for", "10.0.0.2")],
    &[("x-forwarded-for", "5.6.7.8, 1.2.3.4,10.0.0.2")],
    &[("x-forwarded-for", "no address, 10.0.0.2")],
    &[("x-forwarded-for", "10.0.0.2, no address")],
    &[("x-forwarded-for", "10.0.0.2,")],
    &[("x-forwarded-for", "2001:db8::1, ::1")],
    &[("x-forwarded-for", "")],
    &[
        ("x-forwarded-for", "1.2.3.4, 5.6.7.8"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "99"),
        ("x-envoy-external-address", "7.7.7.7"),
        ("x-envoy-internal", "true"),
        ("x-envoy-max-retries", "3"),
    ],
    &[("x-ip", "10.0.0.5"), ("x-forwarded-for", "1.2.3.4")],
    &[("x-ip", "9.9.9.9")],
    &[("x-ip", "9.9.9.9"), ("x-ip", "10.0.0.5")],
    &[("x-ip", "no address")],
    &[("x-ip", " ")],
];

#[test]
fn a_client_is_whom_trusted_proxies_name() {
    let managers: Vec<_> = MANAGERS
        .iter()
        .map(|settings| {
            let settings = extensions(&extensions(settings, "XFF", XFF), "HEADER", HEADER);
            let routes = "{ match: { prefix: / }, route: { cluster: echo }, response_headers_to_add: \
                [{ header: { key: x-client, value: \"%DOWNSTREAM_REMOTE_ADDRESS%\" } }] }";
            Manager {
                settings: format!(
                    "{settings} internal_address_config: {{ cidr_ranges: [{{ address_prefix: 10.0.0.0, prefix_len: 8 }}] }},"
                ),
                ..Manager::with_routes(routes)
            }
        })
        .collect();
    check_with(&configuration(&managers, &[]), |_, _| {}, ask);
}

fn ask(alone: &Alone) -> Vec<String> {
    let listeners = (0..).zip(MANAGERS);
    let cases = listeners.flat_map(|(listener, settings)| {
        // To what it refuses so early Envoy adds the headers of the route only if the request tells its scheme.
        let refuses = settings.contains("reject_with_status");
        let said = SAID
            .iter()
            .filter(move |headers| !refuses || headers.iter().all(|(name, _)| *name != "x-forwarded-proto"));
        said.map(move |headers| get("/x", headers).listener(listener))
    });
    let seen = answers(alone, &cases.collect::<Vec<Case>>());
    let mut seen: Vec<_> = seen.iter().map(|line| without_port(line)).collect();
    seen.extend(counters(
        alone,
        &[
            "http.s10017.downstream_rq_rejected_via_ip_detection",
            "http.s10000.downstream_rq_rejected_via_ip_detection",
        ],
    ));
    seen
}

/// The port of who connected is any.
fn without_port(line: &str) -> String {
    let Some((before, rest)) = line.split_once("x-client: 127.0.0.1:") else {
        return line.to_owned();
    };
    let rest = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
    format!("{before}x-client: 127.0.0.1{rest}")
}

/// `NAME(fields)` as an extension of this type.
fn extensions(settings: &str, name: &str, type_url: &str) -> String {
    let start = format!("{name}(");
    let mut parts = settings.split(start.as_str());
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (fields, rest) = part.split_once(')').expect("an end");
        whole.push_str(&format!(
            "{{ name: {name}, typed_config: {{ \"@type\": {type_url}, {fields} }} }}{rest}"
        ));
    }
    whole
}
