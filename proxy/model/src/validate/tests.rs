//! What is found in whole files, by kind of finding; that places are right is in [`mutation`].
#![allow(clippy::unwrap_used)]

mod mutation;

use std::path::PathBuf;
use std::sync::LazyLock;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;

use super::*;

/// Building them takes longer than any of these checks.
static DESCRIPTORS: LazyLock<Descriptors> = LazyLock::new(|| Descriptors::full().unwrap());

fn findings_of(inputs: &[Input]) -> Vec<Finding> {
    validate(&DESCRIPTORS, inputs).findings
}

fn input(name: &str, bytes: impl Into<Vec<u8>>) -> Input {
    Input {
        name: name.to_owned(),
        bytes: bytes.into(),
    }
}

fn told(findings: &[Finding]) -> Vec<String> {
    let told = |finding: &Finding| {
        let Finding {
            rule, resource, path, ..
        } = finding;
        format!("{} {} {resource} {path}", finding.severity.name(), rule.name())
    };
    findings.iter().map(told).collect()
}

/// `severity rule resource path` of each finding in one YAML text. Which fields have an effect is tested where their verdicts are.
fn check(text: &str, expected: &[&str]) {
    let mut findings = findings_of(&[input("a.yaml", text)]);
    findings.retain(|finding| finding.rule != Rule::Unsupported);
    assert_eq!(told(&findings), expected, "{text}");
}

fn data(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data")
        .join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

fn cluster(name: &str) -> String {
    format!("- {{ \"@type\": {CLUSTER}, name: {name}, load_assignment: {{ cluster_name: {name} }} }}\n")
}

/// A route table over clusters that may be named: `a`, unless `route` names others.
fn routes(routes: &str) -> String {
    format!(
        "{}- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  name: r\n  virtual_hosts:\n  \
         - name: v\n    domains: [\"*\"]\n    routes: [{routes}]\n",
        cluster("a")
    )
}

#[test]
fn what_istiod_sent_is_valid() {
    for capture in ["bill/front", "bill/bill-v1", "bill-two/bill-v2"] {
        let files = ["cds.pb", "lds.pb", "eds.pb", "rds.pb", "nds.pb"];
        let inputs = files.map(|file| input(file, data(&format!("{capture}/{file}"))));
        let report = validate(&DESCRIPTORS, &inputs);
        assert_eq!(
            report.count(Severity::Error),
            0,
            "{capture}: {:?}",
            told(&report.findings)
        );
        let kinds: Vec<_> = report.resources.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(
            kinds,
            [
                Kind::Listener,
                Kind::RouteTable,
                Kind::Cluster,
                Kind::Endpoints,
                Kind::NameTable
            ]
        );
    }
}

#[test]
fn a_dump_says_what_the_responses_say() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/front");
    let read = |name: &str| input(name, std::fs::read(golden.join(name)).unwrap());
    let warnings = |inputs: &[Input]| {
        let mut findings = findings_of(inputs);
        findings.retain(|finding| finding.severity != Severity::Note);
        let mut told = told(&findings);
        told.sort();
        told
    };
    let of_dump = warnings(&[read("config_dump.json")]);
    assert_eq!(
        of_dump,
        warnings(&[read("cds.pb"), read("lds.pb"), read("rds.pb")])
    );
    assert!(!of_dump.is_empty());
}

#[test]
fn of_a_recorded_stream_the_last_state_counts() {
    let report = validate(&DESCRIPTORS, &[input("s.bin", data("bill/front-cutover.bin"))]);
    assert_eq!(report.count(Severity::Error), 0, "{:?}", told(&report.findings));
    // The stream ends with a subset that is deleted while its endpoints still come.
    let clusters = report.resources.iter().find(|(kind, _)| *kind == Kind::Cluster);
    assert_eq!(clusters, Some(&(Kind::Cluster, 7)));
    let missing = |finding: &&Finding| finding.rule == Rule::MissingEndpoints;
    assert_eq!(report.findings.iter().filter(missing).count(), 1);
}

#[test]
fn a_message_is_recognised_whatever_it_is_wrapped_in() {
    let proto = envoy_types::pb::envoy::config::cluster::v3::Cluster {
        name: "c".to_owned(),
        ..Default::default()
    };
    let any = Any {
        type_url: CLUSTER.to_owned(),
        value: proto.encode_to_vec(),
    };
    let response = DiscoveryResponse {
        type_url: CLUSTER.to_owned(),
        resources: vec![any.clone()],
        ..Default::default()
    };
    let resource = Resource {
        name: "c".to_owned(),
        resource: Some(any.clone()),
        ..Default::default()
    };
    let delta = DeltaDiscoveryResponse {
        type_url: CLUSTER.to_owned(),
        resources: vec![resource],
        ..Default::default()
    };
    let wrapped = Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.DiscoveryResponse".to_owned(),
        value: response.encode_to_vec(),
    };
    let (response, delta) = (response.encode_to_vec(), delta.encode_to_vec());
    let framed = |prefix: &[u8]| [prefix, &delta, prefix, &delta].concat();
    let length = u32::try_from(delta.len()).unwrap();
    let cases = [
        any.encode_to_vec(),
        response,
        wrapped.encode_to_vec(),
        delta.clone(),
        framed(&length.to_be_bytes()),
        framed(&[&[0], &length.to_be_bytes()[..]].concat()),
        framed(&delta.encode_length_prefix()),
    ];
    for (index, bytes) in cases.into_iter().enumerate() {
        let report = validate(&DESCRIPTORS, &[input("x.pb", bytes)]);
        assert_eq!(
            report.resources,
            [(Kind::Cluster, 1)],
            "case {index}: {:?}",
            report.findings
        );
    }
}

trait LengthPrefix {
    fn encode_length_prefix(&self) -> Vec<u8>;
}

impl LengthPrefix for Vec<u8> {
    fn encode_length_prefix(&self) -> Vec<u8> {
        let mut prefix = Vec::new();
        prost::encoding::encode_varint(self.len() as u64, &mut prefix);
        prefix
    }
}

#[test]
fn every_refusal_of_a_resource_is_told_where_it_stands() {
    let endpoint = |port: u32| {
        format!(
            "{{ endpoint: {{ address: {{ socket_address: {{ address: 1.1.1.1, port_value: {port} }} }} }} }}"
        )
    };
    let text = format!(
        "\"@type\": {CLUSTER}\nname: c\nload_assignment:\n  cluster_name: c\n  endpoints:\n  - lb_endpoints: [{}, {}, {}, {}]\n",
        endpoint(70_000),
        endpoint(80),
        endpoint(70_001),
        endpoint(70_002)
    );
    let port = |index| {
        format!(
            "error rejected cluster \"c\" load_assignment.endpoints[0].lb_endpoints[{index}].endpoint.address.socket_address.port_value"
        )
    };
    check(&text, &[&port(0), &port(2), &port(3)]);
}

#[test]
fn what_was_read_wrongly_is_not_judged_as_well() {
    let text =
        format!("\"@type\": {CLUSTER}\nname: c\ntype: STATIC\nload_assigment: {{ cluster_name: c }}\n");
    check(&text, &["error field cluster \"c\" load_assigment"]);
}

#[test]
fn names_that_lead_nowhere_are_found_where_everything_is_known() {
    let route = |cluster: &str| {
        routes(&format!(
            "{{ match: {{ prefix: / }}, route: {{ cluster: {cluster} }} }}"
        ))
    };
    let path = "virtual_hosts[0].routes[0].route";
    check(&route("a"), &[]);
    check(
        &route("b"),
        &[&format!(
            "error missing-cluster route configuration \"r\" {path}.cluster"
        )],
    );
    // Without a cluster in any file, nobody can know.
    let alone: String = route("b").split_inclusive('\n').skip(1).collect();
    check(&alone, &["note not-checked  "]);
    let mirrored =
        "{ match: { prefix: / }, route: { cluster: a, request_mirror_policies: [{ cluster: m }] } }";
    check(
        &routes(mirrored),
        &[&format!(
            "error missing-cluster route configuration \"r\" {path}.request_mirror_policies[0].cluster"
        )],
    );
    // What one file names, another may hold.
    let both = [input("a.yaml", route("b")), input("b.yaml", cluster("b"))];
    assert_eq!(told(&findings_of(&both)), Vec::<String>::new());
}

#[test]
fn a_name_in_another_file_may_not_mean_something_else() {
    let changed = cluster("c").replace("name: c,", "name: c, connect_timeout: 3s,");
    let told = |second: &str| {
        told(&findings_of(&[
            input("a.yaml", cluster("c")),
            input("b.yaml", second),
        ]))
    };
    assert_eq!(told(&cluster("c")), Vec::<String>::new());
    assert_eq!(told(&changed), ["error duplicate-name cluster \"c\" name"]);
}

#[test]
fn a_route_is_shadowed_only_if_nothing_can_reach_it() {
    for (earlier, later, shadowed) in [
        ("prefix: /", "prefix: /a", true),
        ("prefix: /a", "prefix: /", false),
        ("prefix: /a", "path: /a", true),
        ("prefix: /a", "path_separated_prefix: /ab", true),
        ("path_separated_prefix: /a", "path: /ab", false),
        ("path_separated_prefix: /a", "path: /a/b", true),
        ("path: /a", "path: /A", false),
        ("path: /a, case_sensitive: false", "path: /A", true),
        ("path: /a", "path: /a, case_sensitive: false", false),
        ("path: /a", "prefix: /a", false),
        ("safe_regex: { regex: '/a.*' }", "prefix: /a", false),
        (
            "safe_regex: { regex: '/a.*' }",
            "safe_regex: { regex: '/a.*' }",
            true,
        ),
        ("safe_regex: { regex: '.*' }", "prefix: /a", true),
        (
            "prefix: /, headers: [{ name: x, present_match: true }]",
            "prefix: /",
            false,
        ),
        (
            "prefix: /, headers: [{ name: x, present_match: true }]",
            "prefix: /a, headers: [{ name: y, present_match: true }, { name: x, present_match: true }]",
            true,
        ),
        (
            "prefix: /, runtime_fraction: { default_value: { numerator: 50 } }",
            "prefix: /",
            false,
        ),
        (
            "prefix: /, query_parameters: [{ name: q, present_match: true }]",
            "prefix: /",
            false,
        ),
        ("prefix: /", "connect_matcher: {}", false),
        ("connect_matcher: {}", "prefix: /", false),
    ] {
        let route = |text: &str| format!("{{ match: {{ {text} }}, route: {{ cluster: a }} }}");
        let text = routes(&format!("{}, {}", route(earlier), route(later)));
        let findings = findings_of(&[input("a.yaml", text)]);
        let found = findings
            .iter()
            .find(|finding| finding.rule == Rule::ShadowedRoute);
        assert_eq!(
            found.is_some(),
            shadowed,
            "{earlier} before {later}: {findings:?}"
        );
        if let Some(found) = found {
            assert_eq!(found.path, "virtual_hosts[0].routes[1]");
        }
    }
}

#[test]
fn what_a_newer_control_plane_writes_is_told_of() {
    let mut bytes = envoy_types::pb::envoy::config::cluster::v3::Cluster {
        name: "c".to_owned(),
        ..Default::default()
    }
    .encode_to_vec();
    // Field 4000, a varint.
    bytes.extend([0x80, 0xfa, 0x01, 0x01]);
    let response = |type_url: &str| DiscoveryResponse {
        resources: vec![Any {
            type_url: type_url.to_owned(),
            value: bytes.clone(),
        }],
        ..Default::default()
    };
    let told = |type_url| told(&findings_of(&[input("x.pb", response(type_url).encode_to_vec())]));
    assert!(told(CLUSTER).contains(&"warning unknown cluster \"c\" ".to_owned()));
    assert_eq!(
        told("type.googleapis.com/envoy.config.newer.v9.Thing"),
        ["warning unknown  resources[0]"]
    );
}

#[test]
fn messages_in_messages_without_end_are_not_followed() {
    let mut bytes = Vec::new();
    for _ in 0..3000 {
        bytes = Any {
            type_url: "type.googleapis.com/google.protobuf.Any".to_owned(),
            value: bytes,
        }
        .encode_to_vec();
    }
    assert_eq!(
        told(&findings_of(&[input("x.pb", bytes)])),
        ["note not-checked  "]
    );
}

#[test]
fn parts_that_come_by_themselves_are_checked_too() {
    let check = |resource: &str, expected: &[&str]| {
        let text = format!("resources:\n- {resource}\n");
        let findings = findings_of(&[input("a.yaml", text.into_bytes())]);
        let told = told(&findings);
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains(expected), "{told}");
        }
    };
    let fault = |status: u16| {
        format!(
            "{{ \"@type\": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig, name: f, typed_config: {{ \"@type\": \
             type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {{ http_status: {status}, \
             percentage: {{ numerator: 100 }} }} }} }}"
        )
    };
    check(&fault(418), &[]);
    check(
        &fault(1),
        &["error rejected http filter \"f\" typed_config.abort.http_status"],
    );
    let scope = |key: &str| {
        format!(
            "{{ \"@type\": type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration, name: s, route_configuration_name: r{key} }}"
        )
    };
    let unknown = "not-checked";
    check(&scope(", key: { fragments: [ { string_key: a } ] }"), &[unknown]);
    check(&scope(""), &["key", unknown]);
    let host = |timeout: &str| {
        format!(
            "{{ \"@type\": type.googleapis.com/envoy.config.route.v3.VirtualHost, name: t/a, domains: [a], routes: [ \
             {{ match: {{ prefix: / }}, route: {{ cluster: c, timeout: {timeout} }} }} ] }}"
        )
    };
    check(&host("1s"), &[unknown]);
    check(&host("-1s"), &["timeout", unknown]);
    check(
        "{ \"@type\": type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig, ca_certificates_pem: [x] }",
        &[],
    );
}

#[test]
fn a_scope_names_a_route_table() {
    let scope = |table: &str| {
        format!(
            "{}- \"@type\": type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration\n  name: s\n  \
             route_configuration_name: {table}\n  key: {{ fragments: [ {{ string_key: a }} ] }}\n",
            routes("{ match: { prefix: / }, route: { cluster: a } }")
        )
    };
    let told = |table: &str| {
        told(&findings_of(&[input(
            "a.yaml",
            format!("resources:\n{}", scope(table)).into_bytes(),
        )]))
    };
    let missing = told("rr");
    assert!(missing.iter().any(|line| line.contains("rr")), "{missing:?}");
    assert!(
        !told("r").iter().any(|line| line.contains("route table")),
        "{:?}",
        told("r")
    );
}

#[test]
fn what_a_bootstrap_is_made_of_is_no_filter() {
    let text = "static_resources: {}\ntyped_dns_resolver_config: { name: envoy.network.dns_resolver.cares, typed_config: { \"@type\": \
                type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig } }\n";
    let report = validate(&DESCRIPTORS, &[input("b.yaml", text.as_bytes().to_vec())]);
    let kinds: Vec<_> = report.resources.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::Bootstrap]);
}
