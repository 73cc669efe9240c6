//! Filters that keep requests out: what they say is checked, and then their listener is refused, for they have no behaviour yet.
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};

use super::convert;
use crate::any::TypedConfig;
use crate::decode;
use crate::dump::Descriptors;
use crate::field::{Context, Converted, Rejection};
use crate::http_filter::policy::{self, PolicyFilter, PolicySettings};
use crate::http_filter::{ext_authz, jwt_authn};
use crate::matcher::metadata::{FilterStateMatcher, FilterStateValue};
use crate::matcher::{Pattern, StringMatcher};
use crate::network_filter;
use crate::rbac::{Action, ClientAddress, Permission, Principal};

/// What is checked and then refused.
#[derive(Debug, PartialEq)]
pub(super) enum Awaited {
    Filter(PolicyFilter),
    Settings(PolicySettings),
    NetworkRbac(Box<network_filter::rbac::Rbac>),
    NetworkExtAuthz(Box<network_filter::ext_authz::ExtAuthz>),
}

/// Converts one by itself: the resource that has it would not convert.
pub(super) fn convert_awaited(bytes: &[u8]) -> Result<Converted<Awaited>, Rejection> {
    let TypedExtensionConfig { name, typed_config } = TypedExtensionConfig::decode(bytes).unwrap();
    let context = Context::new("filter", &name);
    let root = context.root();
    let at = root.field("typed_config");
    let config = TypedConfig::open(&at, typed_config)?;
    let value = match config.type_name.as_str() {
        filter if policy::is_policy(filter) => Awaited::Filter(PolicyFilter::from_config(&at, config)?),
        settings if policy::is_settings(settings) => {
            Awaited::Settings(PolicySettings::from_config(&at, config)?)
        }
        NETWORK_RBAC => {
            let rbac = network_filter::rbac::Rbac::from_proto(&at, config.message(&at)?)?;
            Awaited::NetworkRbac(Box::new(rbac))
        }
        NETWORK_EXT_AUTHZ => {
            let ext_authz = network_filter::ext_authz::ExtAuthz::from_proto(&at, config.message(&at)?)?;
            Awaited::NetworkExtAuthz(Box::new(ext_authz))
        }
        other => panic!("{other} awaits nothing"),
    };
    Ok(context.finish(value))
}

const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const JWT: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
const EXT_AUTHZ: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
const NETWORK_RBAC: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";
const NETWORK_EXT_AUTHZ: &str = "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz";
const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const TCP: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

fn typed(name: &str, mut message: Value) -> Value {
    message["@type"] = json!(format!("type.googleapis.com/{name}"));
    message
}

pub(super) fn encode(type_url: &str, document: Value) -> Vec<u8> {
    let descriptors = Descriptors::full().unwrap();
    let descriptor = descriptors.by_url(type_url).unwrap();
    DynamicMessage::deserialize(descriptor, document)
        .unwrap()
        .encode_to_vec()
}

/// A message of this type that is written as JSON.
fn message<M: prost::Message + Default>(name: &str, document: Value) -> M {
    M::decode(encode(&format!("type.googleapis.com/{name}"), document).as_slice()).unwrap()
}

/// Why a listener with this filter is refused.
fn refusal(name: &str, filter: Value) -> Rejection {
    let filter = json!({"name": "f", "typed_config": typed(name, filter)});
    let filters = if name.contains(".http.") {
        let router = json!({"name": "r", "typed_config": typed(ROUTER, json!({}))});
        let manager =
            json!({"stat_prefix": "s", "route_config": {"name": "r"}, "http_filters": [filter, router]});
        vec![json!({"name": "h", "typed_config": typed(MANAGER, manager)})]
    } else {
        let tcp = typed(TCP, json!({"stat_prefix": "s", "cluster": "c"}));
        vec![filter, json!({"name": "t", "typed_config": tcp})]
    };
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 80}});
    let listener = json!({"name": "l", "address": address, "filter_chains": [{"filters": filters}]});
    convert(decode::LISTENER_TYPE, &encode(decode::LISTENER_TYPE, listener)).unwrap_err()
}

/// A good one is refused because it has no behaviour.
#[track_caller]
fn good(name: &str, filter: Value) {
    let rejection = refusal(name, filter);
    assert!(rejection.path.ends_with("typed_config"), "{rejection}");
    assert!(
        rejection.reason.ends_with("the security issue builds it"),
        "{rejection}"
    );
}

/// One that is none is refused where it is wrong.
#[track_caller]
fn bad(name: &str, filter: Value, path: &str, reason: &str) {
    let rejection = refusal(name, filter);
    let path = format!("typed_config.{path}");
    assert!(
        rejection.path.ends_with(path.trim_end_matches('.')),
        "{rejection}"
    );
    assert!(rejection.reason.contains(reason), "{rejection}");
}

fn policy(permission: Value, principal: Value) -> Value {
    json!({"rules": {"policies": {"p": {"permissions": [permission], "principals": [principal]}}}})
}

#[test]
fn rules_are_checked_to_the_last_permission() {
    let any = json!({"any": true});
    let at = "rules.policies[\"p\"]";
    good(RBAC, json!({}));
    good(
        RBAC,
        json!({"rules": {}, "shadow_rules": {"action": "LOG"}, "shadow_rules_stat_prefix": "istio_dry_run_allow_"}),
    );
    bad(
        RBAC,
        policy(json!({}), any.clone()),
        &format!("{at}.permissions[0]"),
        "is missing",
    );
    bad(
        RBAC,
        policy(json!({"any": false}), any.clone()),
        &format!("{at}.permissions[0].any"),
        "must be true",
    );
    let nested = json!({"and_rules": {"rules": [any, {"or_rules": {"rules": []}}]}});
    let path = format!("{at}.permissions[0].and_rules.rules[1].or_rules.rules");
    bad(RBAC, policy(nested, any.clone()), &path, "at least one");
    let port = json!({"destination_port_range": {"start": 9, "end": 9}});
    bad(
        RBAC,
        policy(port, any.clone()),
        &format!("{at}.permissions[0].destination_port_range"),
        "no range of ports",
    );
    let regex = json!({"header": {"name": "a", "string_match": {"safe_regex": {"regex": "("}}}});
    let path = format!("{at}.permissions[0].header.string_match.safe_regex.regex");
    bad(RBAC, policy(regex, any.clone()), &path, "no regular expression");
    let ip = json!({"remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 33}});
    bad(
        RBAC,
        policy(any.clone(), ip),
        &format!("{at}.principals[0].remote_ip.prefix_len"),
        "more than",
    );
    let metadata = json!({"metadata": {"filter": "f", "path": [], "value": {"present_match": true}}});
    bad(
        RBAC,
        policy(any.clone(), metadata),
        &format!("{at}.principals[0].metadata.path"),
        "at least one",
    );
    let custom = json!({"custom": {"name": "x"}});
    bad(
        RBAC,
        policy(any.clone(), custom),
        &format!("{at}.principals[0].custom"),
        "not supported",
    );
    bad(RBAC, json!({"matcher": {}}), "matcher", "let everybody through");
    good(NETWORK_RBAC, json!({"stat_prefix": "tcp.", "rules": {}}));
    bad(
        NETWORK_RBAC,
        json!({"rules": {}}),
        "stat_prefix",
        "must not be empty",
    );
}

#[test]
fn rules_mean_what_they_say() {
    let rules = json!({"action": "DENY", "policies": {"b": {
        "permissions": [{"not_rule": {"destination_port": 80}}, {"uri_template": {
            "name": "t", "typed_config": typed("envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", json!({"path_template": "/a/{*}"})),
        }}],
        "principals": [{"filter_state": {"key": "io.istio.peer_principal", "string_match": {"exact": "x"}}},
                       {"direct_remote_ip": {"address_prefix": "10.1.2.3", "prefix_len": 8}},
                       {"authenticated": {}}],
    }, "a": {"permissions": [{"any": true}], "principals": [{"any": true}]}}});
    let proto = message("envoy.config.rbac.v3.RBAC", rules);
    let context = Context::new("test", "t");
    let rules = crate::rbac::Rules::from_proto(&context.root(), proto).unwrap();
    assert_eq!(rules.action, Action::Deny);
    let names: Vec<_> = rules.policies.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b"], "in the order of names");
    let policy = &rules.policies[1].1;
    let port = Permission::DestinationPort { start: 80, end: 81 };
    let template = Permission::UriTemplate("/a/{*}".to_owned());
    assert_eq!(policy.permissions, [Permission::Not(Box::new(port)), template]);
    let identity = FilterStateMatcher {
        key: "io.istio.peer_principal".to_owned(),
        value: FilterStateValue::String(StringMatcher {
            pattern: Pattern::Exact("x".to_owned()),
            ignore_case: false,
        }),
    };
    let range = "10.0.0.0/8".parse().unwrap();
    let ip = Principal::Ip {
        of: ClientAddress::Direct,
        range,
    };
    assert_eq!(
        policy.principals,
        [
            Principal::FilterState(identity),
            ip,
            Principal::Authenticated(None)
        ]
    );
}

#[test]
fn tokens_are_checked_against_their_providers() {
    let provider = json!({"issuer": "i", "local_jwks": {"inline_string": "{}"}, "forward": true});
    let with = |rules: Value| json!({"providers": {"origins-0": provider}, "rules": rules});
    let matched = json!({"prefix": "/"});
    let missing =
        json!({"requires_any": {"requirements": [{"provider_name": "origins-0"}, {"allow_missing": {}}]}});
    good(JWT, with(json!([{"match": matched, "requires": missing}])));
    let wrong = json!([{"match": matched, "requires": {"provider_name": "origins-1"}}]);
    let rejection = refusal(JWT, with(wrong));
    assert!(
        rejection.path.ends_with("rules[0].requires.provider_name"),
        "{rejection}"
    );
    assert_eq!(rejection.did_you_mean.as_deref(), Some("origins-0"));
    let named = json!([{"match": matched, "requirement_name": "r"}]);
    bad(
        JWT,
        with(named),
        "rules[0].requirement_name",
        "not in requirement_map",
    );
    let one =
        json!([{"match": matched, "requires": {"requires_all": {"requirements": [{"allow_missing": {}}]}}}]);
    bad(
        JWT,
        with(one),
        "rules[0].requires.requires_all.requirements",
        "at least two",
    );
    bad(JWT, with(json!([{}])), "rules[0].match", "is missing");
    let at = "providers[\"p\"]";
    let keys = |provider: Value| json!({"providers": {"p": provider}});
    bad(
        JWT,
        keys(json!({"issuer": "i"})),
        at,
        "neither local_jwks nor remote_jwks",
    );
    let uri = json!({"remote_jwks": {"http_uri": {"uri": "https://a/keys", "cluster": "c"}}});
    bad(
        JWT,
        keys(uri),
        &format!("{at}.remote_jwks.http_uri.timeout"),
        "is missing",
    );
    bad(
        JWT,
        json!({"filter_state_rules": {"name": "n"}}),
        "filter_state_rules",
        "without a token",
    );
}

#[test]
fn tokens_mean_what_they_say() {
    let remote = json!({"http_uri": {"uri": "https://a/keys", "cluster": "c", "timeout": "5s"}});
    let claims = json!([{"header_name": "X-Sub", "claim_name": "a.b"}]);
    let provider = json!({"remote_jwks": remote, "claim_to_headers": claims, "from_headers": [{"name": "A", "value_prefix": "Bearer "}]});
    let proto = message(
        JWT,
        json!({"providers": {"p": provider}, "bypass_cors_preflight": true}),
    );
    let context = Context::new("test", "t");
    let jwt = jwt_authn::JwtAuthn::from_proto(&context.root(), proto).unwrap();
    let provider = &jwt.providers[0].1;
    assert!(jwt.bypass_cors_preflight && provider.clock_skew_seconds == 60);
    assert_eq!(provider.claims[0].header, "x-sub");
    assert_eq!(provider.claims[0].claim, ["a", "b"]);
    assert_eq!(provider.from_headers[0].name, "a");
    let jwt_authn::Jwks::Remote { cache_duration, uri } = &provider.jwks else {
        panic!("{provider:?}")
    };
    assert_eq!((cache_duration.as_secs(), uri.timeout.as_secs()), (300, 5));
}

#[test]
fn an_authorizer_needs_a_service() {
    let grpc = json!({"envoy_grpc": {"cluster_name": "c"}, "timeout": "600s"});
    let http =
        json!({"server_uri": {"uri": "http://a", "cluster": "c", "timeout": "1s"}, "path_prefix": "/check"});
    let v3 = |mut filter: Value| {
        filter["transport_api_version"] = json!("V3");
        filter
    };
    good(
        EXT_AUTHZ,
        v3(json!({"grpc_service": grpc, "with_request_body": {"max_request_bytes": 8192}})),
    );
    good(
        EXT_AUTHZ,
        v3(json!({"http_service": http, "status_on_error": {"code": "ServiceUnavailable"}})),
    );
    bad(
        EXT_AUTHZ,
        v3(json!({})),
        "",
        "neither grpc_service nor http_service",
    );
    bad(
        EXT_AUTHZ,
        json!({"grpc_service": grpc}),
        "transport_api_version",
        "only V3",
    );
    let body = v3(json!({"grpc_service": grpc, "with_request_body": {}}));
    bad(
        EXT_AUTHZ,
        body,
        "with_request_body.max_request_bytes",
        "not between",
    );
    let relative = v3(json!({"http_service": {"server_uri": http["server_uri"], "path_prefix": "check"}}));
    bad(EXT_AUTHZ, relative, "http_service.path_prefix", "does not begin");
    let metadata = v3(json!({"grpc_service": grpc, "filter_enabled_metadata": {"filter": "f"}}));
    bad(
        EXT_AUTHZ,
        metadata,
        "filter_enabled_metadata.path",
        "at least one",
    );
    good(
        NETWORK_EXT_AUTHZ,
        v3(json!({"grpc_service": grpc, "stat_prefix": "tcp."})),
    );
    bad(
        NETWORK_EXT_AUTHZ,
        v3(json!({"stat_prefix": "tcp."})),
        "grpc_service",
        "is missing",
    );
}

#[test]
fn an_authorizer_that_does_not_answer_is_a_403() {
    let grpc = json!({"envoy_grpc": {"cluster_name": "c"}});
    let proto = message(
        EXT_AUTHZ,
        json!({"grpc_service": grpc, "transport_api_version": "V3"}),
    );
    let context = Context::new("test", "t");
    let filter = ext_authz::ExtAuthz::from_proto(&context.root(), proto).unwrap();
    assert_eq!((filter.status_on_error, filter.failure_mode_allow), (403, false));
}

#[test]
fn settings_of_routes_are_checked_too() {
    let table = |settings: Value| {
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "c"}, "typed_per_filter_config": {"f": settings}});
        let table =
            json!({"name": "r", "virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [route]}]});
        convert(decode::ROUTE_TABLE_TYPE, &encode(decode::ROUTE_TABLE_TYPE, table)).unwrap_err()
    };
    let rbac = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
    let jwt = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig";
    let ext_authz = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";
    for (name, settings) in [
        (rbac, json!({})),
        (jwt, json!({"requirement_name": "r"})),
        (ext_authz, json!({"disabled": true})),
    ] {
        let rejection = table(typed(name, settings));
        assert!(
            rejection.reason.ends_with("the security issue builds it"),
            "{rejection}"
        );
    }
    let both = json!({"check_settings": {"disable_request_body_buffering": true, "with_request_body": {"max_request_bytes": 1}}});
    let rejection = table(typed(ext_authz, both));
    assert!(rejection.path.ends_with("check_settings"), "{rejection}");
    let rejection = table(typed(jwt, json!({"disabled": false})));
    assert!(rejection.path.ends_with("disabled"), "{rejection}");
}

/// Why a listener with this listener filter is refused.
fn listener_refusal(name: &str, filter: Value) -> Rejection {
    let tcp = json!({"name": "t", "typed_config": typed(TCP, json!({"stat_prefix": "s", "cluster": "c"}))});
    let listener = json!({
        "name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
        "listener_filters": [{"name": "f", "typed_config": typed(name, filter)}], "filter_chains": [{"filters": [tcp]}],
    });
    convert(decode::LISTENER_TYPE, &encode(decode::LISTENER_TYPE, listener)).unwrap_err()
}

#[test]
fn listener_filters_that_keep_clients_out_are_checked() {
    let filter = |kind: &str| format!("envoy.extensions.filters.listener.{kind}");
    let check = |kind: &str, config: Value, path: &str, reason: &str| {
        let rejection = listener_refusal(&filter(kind), config);
        let path = format!("listener_filters[0].typed_config{path}");
        assert_eq!(rejection.path, path, "{rejection}");
        assert!(rejection.reason.contains(reason), "{rejection}");
    };
    let rule = json!({"rules": [{"tlv_type": 256}]});
    check(
        "proxy_protocol.v3.ProxyProtocol",
        rule,
        ".rules[0].tlv_type",
        "no type of a TLV",
    );
    let limit = "local_ratelimit.v3.LocalRateLimit";
    check(limit, json!({"stat_prefix": "s"}), ".token_bucket", "is missing");
}

#[test]
fn a_tunnel_is_checked() {
    let refuse = |tunnel: Value| {
        let tcp = typed(
            TCP,
            json!({"stat_prefix": "s", "cluster": "c", "tunneling_config": tunnel}),
        );
        let chains = json!([{"filters": [{"name": "t", "typed_config": tcp}]}]);
        let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 80}});
        let listener = json!({"name": "l", "address": address, "filter_chains": chains});
        convert(decode::LISTENER_TYPE, &encode(decode::LISTENER_TYPE, listener)).err()
    };
    let check = |tunnel: Value, field: &str| {
        let rejection = refuse(tunnel).expect("a rejection");
        assert!(
            rejection.path.ends_with(&format!("tunneling_config.{field}")),
            "{rejection}"
        );
    };
    assert_eq!(refuse(json!({"hostname": "%REQUESTED_SERVER_NAME%:80"})), None);
    check(json!({}), "hostname");
    check(json!({"hostname": "%NOTHING%"}), "hostname");
    check(json!({"hostname": "a:80", "post_path": "/a"}), "post_path");
    check(
        json!({"hostname": "a:80", "use_post": true, "post_path": "a"}),
        "post_path",
    );
}

#[test]
fn an_extension_that_is_known_is_refused_with_what_builds_it() {
    let lua = refusal("envoy.extensions.filters.http.lua.v3.Lua", json!({}));
    assert!(lua.reason.ends_with("the extensions issue builds it"), "{lua}");
    let cluster = refusal(
        "envoy.extensions.filters.network.sni_cluster.v3.SniCluster",
        json!({}),
    );
    assert!(
        cluster
            .reason
            .contains("none is planned: Istio sets it at gateways only"),
        "{cluster}"
    );
}
