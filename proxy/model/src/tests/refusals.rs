//! What is refused says where, why and what would be right.
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::google::protobuf;
use prost::Message;

use super::captures;
use crate::any::types;
use crate::decode;

/// A captured listener with an HTTP connection manager, changed.
fn listener_with(change: impl Fn(&mut listener::Listener)) -> Vec<u8> {
    let captured = captures::all()
        .into_iter()
        .find(|c| c.origin == "bill/front/lds.pb")
        .unwrap();
    let mut proto = listener::Listener::decode(captured.bytes.as_slice()).unwrap();
    change(&mut proto);
    proto.encode_to_vec()
}

fn filter(type_url: &str) -> listener::Filter {
    let any = protobuf::Any {
        type_url: type_url.to_owned(),
        value: Vec::new(),
    };
    let config_type = Some(listener::filter::ConfigType::TypedConfig(any));
    listener::Filter {
        name: "mine".to_owned(),
        config_type,
    }
}

#[test]
fn an_unknown_filter_is_named_with_its_type_and_the_nearest_one() {
    let bytes = listener_with(|proto| {
        proto.filter_chains[0].filters.insert(
            0,
            filter("type.googleapis.com/envoy.extensions.filters.network.tcp_proxi.v3.TcpProxi"),
        );
    });
    let rejection = decode::listener(&bytes).unwrap_err();
    assert_eq!(
        rejection.to_string(),
        "listener \"0.0.0.0_9999\": filter_chains[0].filters[0].typed_config: network filter \"mine\" has the unknown type \
         \"envoy.extensions.filters.network.tcp_proxi.v3.TcpProxi\"; did you mean \
         \"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\"?"
    );
}

#[test]
fn an_unknown_key_in_a_typed_struct_is_named_with_the_nearest_one() {
    #[derive(Clone, PartialEq, Message)]
    struct TypedStruct {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(message, optional, tag = "2")]
        value: Option<protobuf::Struct>,
    }
    let text = protobuf::Value {
        kind: Some(protobuf::value::Kind::StringValue("x".to_owned())),
    };
    for name in ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"] {
        let bytes = listener_with(|proto| {
            let value = protobuf::Struct {
                fields: [("protocoll".to_owned(), text.clone())].into(),
            };
            let typed = TypedStruct {
                type_url: format!("x/{}", types::TCP_METADATA_EXCHANGE),
                value: Some(value),
            };
            let mut filter = filter(name);
            let any = protobuf::Any {
                type_url: name.to_owned(),
                value: typed.encode_to_vec(),
            };
            filter.config_type = Some(listener::filter::ConfigType::TypedConfig(any));
            proto.filter_chains[0].filters.insert(0, filter);
        });
        let rejection = decode::listener(&bytes).unwrap_err();
        assert_eq!(rejection.path, "filter_chains[0].filters[0].typed_config.value");
        assert_eq!(rejection.reason, "unknown field \"protocoll\"");
        assert_eq!(rejection.did_you_mean.as_deref(), Some("protocol"));
    }
}

#[test]
fn chains_that_match_the_same_connections_are_refused() {
    let bytes = listener_with(|proto| {
        let chain = proto.filter_chains[0].clone();
        proto.filter_chains.push(chain);
    });
    let rejection = decode::listener(&bytes).unwrap_err();
    assert_eq!(rejection.path, "filter_chains[1].filter_chain_match");
}

#[test]
fn a_filter_after_the_terminal_one_is_refused() {
    let bytes = listener_with(|proto| proto.filter_chains[0].filters.push(filter(types::ISTIO_STATS)));
    let rejection = decode::listener(&bytes).unwrap_err();
    assert!(rejection.reason.contains("ends the chain"), "{rejection}");
}

#[test]
fn istio_stats_before_a_connection_manager_is_listed() {
    let bytes = listener_with(|proto| {
        proto.filter_chains[0]
            .filters
            .insert(0, filter(types::ISTIO_STATS))
    });
    let problems = decode::listener(&bytes).unwrap().problems;
    let listed = |problem: &&crate::field::Problem| problem.reason.contains("istio.stats before it");
    assert_eq!(problems.iter().filter(listed).count(), 1, "{problems:?}");
}

fn table(hosts: Vec<route::VirtualHost>) -> Vec<u8> {
    route::RouteConfiguration {
        name: "r".to_owned(),
        virtual_hosts: hosts,
        ..Default::default()
    }
    .encode_to_vec()
}

fn host(name: &str, domains: &[&str], routes: Vec<route::Route>) -> route::VirtualHost {
    let domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
    route::VirtualHost {
        name: name.to_owned(),
        domains,
        routes,
        ..Default::default()
    }
}

#[test]
fn a_domain_belongs_to_one_virtual_host() {
    let bytes = table(vec![host("a", &["x", "Y"], vec![]), host("b", &["y"], vec![])]);
    let rejection = decode::route_table(&bytes).unwrap_err();
    assert_eq!(rejection.path, "virtual_hosts[1].domains[0]");
}

fn weights(weights: &[u32]) -> Vec<u8> {
    let clusters = weights
        .iter()
        .map(|weight| route::weighted_cluster::ClusterWeight {
            name: "c".to_owned(),
            weight: Some(protobuf::UInt32Value { value: *weight }),
            ..Default::default()
        });
    let weighted = route::WeightedCluster {
        clusters: clusters.collect(),
        ..Default::default()
    };
    let action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::WeightedClusters(weighted)),
        ..Default::default()
    };
    let prefix = route::route_match::PathSpecifier::Prefix("/".to_owned());
    let matcher = route::RouteMatch {
        path_specifier: Some(prefix),
        ..Default::default()
    };
    let action = Some(route::route::Action::Route(action));
    table(vec![host(
        "a",
        &["*"],
        vec![route::Route {
            r#match: Some(matcher),
            action,
            ..Default::default()
        }],
    )])
}

#[test]
fn weights_sum_to_something_that_fits() {
    assert!(decode::route_table(&weights(&[0, 1])).is_ok());
    for sum in [&[][..], &[0, 0], &[u32::MAX, 1]] {
        let rejection = decode::route_table(&weights(sum)).unwrap_err();
        assert_eq!(
            rejection.path,
            "virtual_hosts[0].routes[0].route.weighted_clusters.clusters"
        );
    }
}

fn cluster_with(change: impl Fn(&mut cluster::Cluster)) -> Vec<u8> {
    let mut proto = cluster::Cluster {
        name: "c".to_owned(),
        ..Default::default()
    };
    change(&mut proto);
    proto.encode_to_vec()
}

#[test]
fn a_cluster_speaks_http_1_unless_it_says_otherwise() {
    use crate::cluster::UpstreamHttpVersion;
    let version = |bytes: Vec<u8>| decode::cluster(&bytes).unwrap().value.http.version;
    assert_eq!(version(cluster_with(|_| ())), UpstreamHttpVersion::Http1);
    let http2 = cluster_with(|proto| proto.http2_protocol_options = Some(Default::default()));
    assert_eq!(version(http2), UpstreamHttpVersion::Http2);
    let downstream = cluster_with(|proto| proto.protocol_selection = 1);
    assert_eq!(version(downstream), UpstreamHttpVersion::Downstream);
}

#[test]
fn an_empty_panic_threshold_is_zero_and_a_missing_one_fifty() {
    let threshold = |bytes: Vec<u8>| {
        decode::cluster(&bytes)
            .unwrap()
            .value
            .healthy_panic_threshold_percent
            .0
    };
    assert_eq!(threshold(cluster_with(|_| ())), 5000);
    let empty = |proto: &mut cluster::Cluster| {
        let common = cluster::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(Default::default()),
            ..Default::default()
        };
        proto.common_lb_config = Some(common);
    };
    assert_eq!(threshold(cluster_with(empty)), 0);
}

#[test]
fn a_policy_that_is_none_is_refused() {
    let bytes = cluster_with(|proto| proto.lb_policy = 77);
    assert!(decode::cluster(&bytes).unwrap_err().reason.contains("77"));
    let bytes = cluster_with(|proto| {
        proto.set_lb_policy(cluster::cluster::LbPolicy::LoadBalancingPolicyConfig);
    });
    let rejection = decode::cluster(&bytes).unwrap_err();
    assert_eq!(rejection.path, "lb_policy");
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let rejection = decode::listener(b"\xff\xff").unwrap_err();
    assert!(rejection.reason.starts_with("malformed listener"), "{rejection}");
}

#[test]
fn ciphers_that_do_not_exist_here_are_listed_unless_none_is_left() {
    use envoy_types::pb::envoy::config::core::v3 as core;
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
    let with = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let tls_params = Some(tls::TlsParameters {
            cipher_suites: names,
            ..Default::default()
        });
        let common_tls_context = Some(tls::CommonTlsContext {
            tls_params,
            ..Default::default()
        });
        let context = tls::UpstreamTlsContext {
            common_tls_context,
            ..Default::default()
        };
        let any = protobuf::Any {
            type_url: types::UPSTREAM_TLS.to_owned(),
            value: context.encode_to_vec(),
        };
        let config_type = Some(core::transport_socket::ConfigType::TypedConfig(any));
        cluster_with(|proto| {
            let config_type = config_type.clone();
            proto.transport_socket = Some(core::TransportSocket {
                name: "tls".to_owned(),
                config_type,
            });
        })
    };
    let converted = decode::cluster(&with(&["AES128-SHA", "ECDHE-RSA-AES128-GCM-SHA256"])).unwrap();
    assert!(
        converted.problems[0].reason.contains("AES128-SHA"),
        "{:?}",
        converted.problems
    );
    let rejection = decode::cluster(&with(&["AES128-SHA"])).unwrap_err();
    assert_eq!(
        rejection.path,
        "transport_socket.typed_config.common_tls_context.tls_params.cipher_suites"
    );
}

/// The first filter of the first chain that is an HTTP connection manager, changed.
fn manager_with(change: impl Fn(&mut hcm::HttpConnectionManager)) -> Vec<u8> {
    listener_with(|proto| {
        let filters = proto
            .filter_chains
            .iter_mut()
            .flat_map(|chain| &mut chain.filters);
        let any = filters.filter_map(|filter| match &mut filter.config_type {
            Some(listener::filter::ConfigType::TypedConfig(any))
                if any.type_url.ends_with(types::HTTP_CONNECTION_MANAGER) =>
            {
                Some(any)
            }
            _ => None,
        });
        let any = any.into_iter().next().unwrap();
        let mut manager = hcm::HttpConnectionManager::decode(any.value.as_slice()).unwrap();
        change(&mut manager);
        any.value = manager.encode_to_vec();
    })
}

#[test]
fn pings_need_a_time_to_wait_and_no_time_is_shorter_than_a_millisecond() {
    use envoy_types::pb::envoy::config::core::v3 as core;
    let duration = |nanos| Some(protobuf::Duration { seconds: 0, nanos });
    let rejected = |timeout, interval| {
        let bytes = manager_with(|manager| {
            manager.http2_protocol_options = Some(core::Http2ProtocolOptions {
                connection_keepalive: Some(core::KeepaliveSettings {
                    timeout,
                    interval,
                    ..Default::default()
                }),
                ..Default::default()
            });
        });
        decode::listener(&bytes).err().map(|rejection| rejection.path)
    };
    let ends_with = |path: Option<String>, name: &str| path.is_some_and(|path| path.ends_with(name));
    assert_eq!(rejected(duration(1_000_000), duration(1_000_000)), None);
    assert!(ends_with(rejected(None, None), "connection_keepalive.timeout"));
    assert!(ends_with(
        rejected(duration(1), None),
        "connection_keepalive.timeout"
    ));
    assert!(ends_with(
        rejected(duration(1_000_000), duration(1)),
        "connection_keepalive.interval"
    ));
}

#[test]
fn a_listener_on_a_pipe_is_refused() {
    use envoy_types::pb::envoy::config::core::v3 as core;
    let bytes = listener_with(|proto| {
        let pipe = core::Pipe {
            path: "/run/x".to_owned(),
            mode: 0,
        };
        let address = Some(core::address::Address::Pipe(pipe));
        proto.address = Some(core::Address { address });
    });
    assert_eq!(decode::listener(&bytes).unwrap_err().path, "address.pipe");
}

#[test]
fn a_listener_without_a_name_has_that_of_its_address() {
    let bytes = listener_with(|proto| proto.name.clear());
    assert_eq!(decode::listener(&bytes).unwrap().value.name, "0.0.0.0:9999");
}

#[test]
fn an_option_that_replaces_firewall_tables_is_none_of_a_socket() {
    use envoy_types::pb::envoy::config::core::v3::{SocketOption, socket_option};
    let bytes = listener_with(|proto| {
        proto.socket_options = vec![SocketOption {
            level: 41,
            name: 64,
            value: Some(socket_option::Value::BufValue(vec![0; 8])),
            ..SocketOption::default()
        }];
    });
    assert_eq!(
        decode::listener(&bytes).unwrap_err().to_string(),
        "listener \"0.0.0.0_9999\": socket_options[0].name: 64 of level 41 replaces firewall tables of the machine; it is no option of \
         a socket"
    );
}

#[test]
fn a_share_of_overload_is_at_most_the_whole() {
    use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::{
        Policy, policy::DropOverload,
    };
    use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
    let with = |numerator| {
        let assignment = ClusterLoadAssignment {
            cluster_name: "c".to_owned(),
            policy: Some(Policy {
                drop_overloads: vec![DropOverload {
                    category: "all".to_owned(),
                    drop_percentage: Some(FractionalPercent {
                        numerator,
                        denominator: 0,
                    }),
                }],
                ..Policy::default()
            }),
            ..ClusterLoadAssignment::default()
        };
        decode::load_assignment(&assignment.encode_to_vec())
    };
    assert!(with(100).is_ok());
    assert_eq!(
        with(101).unwrap_err().to_string(),
        "load assignment \"c\": policy.drop_overloads[0].drop_percentage: is 101 of 100; write a share of one"
    );
}
