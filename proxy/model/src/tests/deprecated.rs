//! Fields that Envoy has deprecated and 1.40 still takes (`--mode validate`): users of EnvoyFilter write them.
use serde_json::{Value, json};

use super::convert;
use super::policy::encode;
use crate::decode;

/// The document with these fields converts.
#[track_caller]
fn accepted(type_url: &str, mut document: Value, more: Value) {
    let fields = more.as_object().unwrap().clone();
    document.as_object_mut().unwrap().extend(fields);
    if let Err(rejection) = convert(type_url, &encode(type_url, document)) {
        panic!("{more}: {rejection}");
    }
}

#[test]
fn deprecated_fields_of_clusters_are_accepted() {
    for more in [
        json!({"common_http_protocol_options": {"idle_timeout": "5s"}}),
        json!({"http_protocol_options": {"accept_http_10": true}}),
        json!({"http2_protocol_options": {}}),
        json!({"protocol_selection": "USE_DOWNSTREAM_PROTOCOL"}),
        json!({"dns_resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": 53}}]}),
        json!({"use_tcp_for_dns_lookups": true}),
        json!({"track_timeout_budgets": true}),
    ] {
        accepted(decode::CLUSTER_TYPE, json!({"name": "c"}), more);
    }
}

#[test]
fn deprecated_fields_of_listeners_are_accepted() {
    let tcp = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    for more in [
        json!({"use_original_dst": true}),
        json!({"reuse_port": true}),
        json!({"deprecated_v1": {"bind_to_port": false}}),
    ] {
        let filter = json!({"name": "t", "typed_config": {"@type": tcp, "stat_prefix": "s", "cluster": "c", "access_log_flush_interval": "1s"}});
        let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 80}});
        let listener = json!({"name": "l", "address": address, "filter_chains": [{"use_proxy_proto": false, "filters": [filter]}]});
        accepted(decode::LISTENER_TYPE, listener, more);
    }
}

#[test]
fn deprecated_fields_of_routes_are_accepted() {
    let regex = json!({"google_re2": {}, "regex": "a"});
    for (matcher, action) in [
        (
            json!({"prefix": "/"}),
            json!({"cluster": "c", "max_grpc_timeout": "0s"}),
        ),
        (
            json!({"prefix": "/", "headers": [{"name": "a", "exact_match": "b"}]}),
            json!({"cluster": "c"}),
        ),
        (
            json!({"prefix": "/", "headers": [{"name": "a", "safe_regex_match": regex}]}),
            json!({"cluster": "c"}),
        ),
    ] {
        let hosts = json!([{"name": "v", "domains": ["*"], "routes": [{"match": matcher, "route": action}]}]);
        accepted(
            decode::ROUTE_TABLE_TYPE,
            json!({"name": "r"}),
            json!({"virtual_hosts": hosts}),
        );
    }
}
