//! What is accepted although it has no behaviour yet: it is checked as Envoy checks it, kept, and listed with the issue that builds it.
use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};

use super::{Model, convert};
use crate::cluster::LbPolicy;
use crate::decode;
use crate::dump::Descriptors;
use crate::field::{Problem, Rejection};
use crate::http_filter::HttpFilter;
use crate::{filter_chain, listener};

/// Converts a resource that is written as JSON.
fn read(type_url: &str, document: Value) -> Result<(Model, Vec<Problem>), Rejection> {
    let descriptors = Descriptors::full().unwrap();
    let message = DynamicMessage::deserialize(descriptors.by_url(type_url).unwrap(), document).unwrap();
    convert(type_url, &message.encode_to_vec())
}

fn cluster(settings: Value) -> Result<(Model, Vec<Problem>), Rejection> {
    let mut document = json!({"name": "c"});
    let settings = settings.as_object().unwrap().clone();
    document.as_object_mut().unwrap().extend(settings);
    read(decode::CLUSTER_TYPE, document)
}

/// Where and why a cluster with these settings is refused.
#[track_caller]
fn refused(settings: Value, path: &str, reason: &str) {
    let rejection = cluster(settings).unwrap_err();
    assert_eq!(rejection.path, path, "{rejection}");
    assert!(rejection.reason.contains(reason), "{rejection}");
}

#[test]
fn consistent_hashing_has_envoys_defaults() {
    let (model, problems) = cluster(json!({"lb_policy": "RING_HASH"})).unwrap();
    let Model::Cluster(cluster) = model else {
        panic!("{model:?}")
    };
    assert!(matches!(
        cluster.lb_policy,
        LbPolicy::RingHash {
            minimum_size: 1024,
            ..
        }
    ));
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn settings_of_policies_are_checked_as_envoy_checks_them() {
    let ring = json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 9, "maximum_ring_size": 8}});
    refused(
        ring,
        "ring_hash_lb_config.maximum_ring_size",
        "below minimum_ring_size",
    );
    let ring = json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 8388609}});
    refused(ring, "ring_hash_lb_config.minimum_ring_size", "is not between");
    let maglev = json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 65536}});
    refused(maglev, "maglev_lb_config.table_size", "no prime number");
    let outlier = json!({"outlier_detection": {"max_ejection_percent": 101}});
    refused(
        outlier,
        "outlier_detection.max_ejection_percent",
        "is not between 0 and 100",
    );
    let outlier = json!({"outlier_detection": {"interval": "0s"}});
    refused(outlier, "outlier_detection.interval", "longer than 0s");
    let slow = json!({"least_request_lb_config": {"slow_start_config": {"slow_start_window": "3s", "aggression": {"default_value": 0}}},
                      "lb_policy": "LEAST_REQUEST"});
    refused(
        slow,
        "least_request_lb_config.slow_start_config.aggression",
        "not above 0",
    );
    let dns = json!({"dns_refresh_rate": "0.001s"});
    refused(dns, "dns_refresh_rate", "longer than 1ms");
}

/// A listener with an HTTP connection manager whose first filter is this one.
fn with_filter(config: Value) -> Value {
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({
        "name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
        "filter_chains": [{"filters": [{"name": "h", "typed_config": {
            "@type": manager, "stat_prefix": "s", "route_config": {"name": "r"},
            "http_filters": [{"name": "f", "typed_config": config}, {"name": "r", "typed_config": {"@type": router}}],
        }}]}],
    })
}

fn first_filter(listener: &listener::Listener) -> &HttpFilter {
    match &listener.filter_chains[0].terminal {
        filter_chain::TerminalFilter::Http(manager) => &manager.filters[0].filter,
        other => panic!("{other:?}"),
    }
}

/// What users of EnvoyFilter write, in either package.
fn typed_struct(package: &str, value: Value) -> Value {
    json!({"@type": format!("type.googleapis.com/{package}.TypedStruct"),
           "type_url": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "value": value})
}

#[test]
fn a_filter_of_envoy_may_come_as_a_typed_struct() {
    let value = json!({"stat_prefix": "s", "token_bucket": {"max_tokens": 4, "fill_interval": "60s"},
                       "filter_enabled": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}});
    let mut direct = value.clone();
    direct["@type"] =
        json!("type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit");
    let (expected, _) = read(decode::LISTENER_TYPE, with_filter(direct)).unwrap();
    for package in ["udpa.type.v1", "xds.type.v3"] {
        let document = with_filter(typed_struct(package, value.clone()));
        let (model, problems) = read(decode::LISTENER_TYPE, document).unwrap();
        assert_eq!(model, expected, "{package}");
        let Model::Listener(listener) = model else {
            panic!("{model:?}")
        };
        let HttpFilter::LocalRateLimit(limit) = first_filter(&listener) else {
            panic!("{listener:?}")
        };
        assert_eq!(limit.bucket.as_ref().unwrap().max_tokens, 4);
        assert!(problems.is_empty(), "{problems:?}");
    }
}

#[test]
fn a_typed_struct_with_a_misspelt_field_is_refused_by_its_name() {
    let document = with_filter(typed_struct("xds.type.v3", json!({"stat_prefixx": "s"})));
    let rejection = read(decode::LISTENER_TYPE, document).unwrap_err();
    assert!(
        rejection.path.ends_with("http_filters[0].typed_config.value"),
        "{rejection}"
    );
    assert!(rejection.reason.contains("stat_prefixx"), "{rejection}");
}

/// A table whose only route has these settings for a filter.
fn with_settings(settings: Value) -> Result<(Model, Vec<Problem>), Rejection> {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "c"}, "typed_per_filter_config": {"f": settings}});
    read(
        decode::ROUTE_TABLE_TYPE,
        json!({"name": "r", "virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [route]}]}),
    )
}

const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute";

#[test]
fn optional_settings_that_are_unknown_are_left_out_and_listed() {
    let config = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let settings = json!({"@type": config, "is_optional": true, "config": {"@type": LUA}});
    let (_, problems) = with_settings(settings).unwrap();
    let listed = problems
        .iter()
        .any(|problem| problem.reason.contains("LuaPerRoute"));
    assert!(listed, "{problems:?}");
}

#[test]
fn settings_that_are_unknown_or_keep_requests_out_are_refused() {
    let rbac = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
    for kind in [LUA, rbac] {
        let rejection = with_settings(json!({"@type": kind})).unwrap_err();
        let path = "virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"]";
        assert_eq!(rejection.path, path, "{rejection}");
    }
}

#[test]
fn a_substitution_may_only_name_groups_that_are_there() {
    let route = |substitution: &str| {
        let rewrite = json!({"pattern": {"regex": "/(a)"}, "substitution": substitution});
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "c", "regex_rewrite": rewrite}});
        read(
            decode::ROUTE_TABLE_TYPE,
            json!({"name": "r", "virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [route]}]}),
        )
    };
    for good in ["/\\1", "/\\0", "\\\\", "$1", ""] {
        route(good).unwrap_or_else(|rejection| panic!("{good}: {rejection}"));
    }
    for bad in ["\\2", "\\x", "\\", "a\nb"] {
        let rejection = route(bad).unwrap_err();
        assert!(
            rejection.path.ends_with("regex_rewrite.substitution"),
            "{bad}: {rejection}"
        );
    }
}

#[test]
fn connect_config_is_of_connect_and_each_protocol_comes_once() {
    let table = |upgrades: Value| {
        let route = json!({"match": {"connect_matcher": {}}, "route": {"cluster": "c", "prefix_rewrite": "/x", "upgrade_configs": upgrades}});
        let host = json!({"name": "h", "domains": ["*"], "routes": [route]});
        read(
            decode::ROUTE_TABLE_TYPE,
            json!({"name": "t", "virtual_hosts": [host]}),
        )
    };
    let (_, problems) = table(json!([{"upgrade_type": "CONNECT", "connect_config": {}}])).unwrap();
    let problem =
        "virtual_hosts[0].routes[0].route.prefix_rewrite: has no effect here: a CONNECT has no path";
    assert_eq!(
        problems.iter().map(Problem::to_string).collect::<Vec<_>>(),
        [problem]
    );
    let refused = |upgrades: Value, path: &str, reason: &str| {
        let rejection = table(upgrades).unwrap_err();
        assert!(rejection.path.ends_with(path), "{rejection}");
        assert!(rejection.reason.contains(reason), "{rejection}");
    };
    refused(
        json!([{"upgrade_type": "websocket", "connect_config": {}}]),
        "upgrade_configs[0].connect_config",
        "is of CONNECT",
    );
    refused(
        json!([{"upgrade_type": "connect"}, {"upgrade_type": "CONNECT"}]),
        "upgrade_configs[1].upgrade_type",
        "comes twice",
    );
    refused(
        json!([{"upgrade_type": "CONNECT", "connect_config": {"proxy_protocol_config": {}}}]),
        "connect_config.proxy_protocol_config",
        "hide the client",
    );
}
