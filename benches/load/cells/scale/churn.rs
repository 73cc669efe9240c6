//! One service of ten thousand endpoints, one of which is another at every push.
//!
//! Traffic goes to the few of the first priority, which all lead to the one backend; the others stand by, as those of
//! another region would. Every push is the whole service, as EDS has it.

use std::net::{Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, circuit_breakers::Thresholds};
use envoy_types::pb::envoy::config::core::v3::address::Address as Kind;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Locality, SocketAddress,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action, route_match,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_connection_manager, http_filter,
};
use envoy_types::pb::google::protobuf::{Any, Duration, UInt32Value};
use outrigger_demo::control_plane::{CLUSTER, ENDPOINTS, LISTENER, Named};
use prost::Message;

/// Endpoints of the service.
pub(super) const SIZE: u32 = 10_000;
/// Of these, in the first priority.
const FIRST_PRIORITY: u32 = 20;
const SERVICE: &str = "outbound|80||churn.ns0.svc.cluster.local";
const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";

/// The service as it is now.
pub(super) struct Service {
    backend_port: u16,
    /// Addresses as numbers; those of the first priority lead to the backend.
    addresses: Vec<u32>,
    changes: u32,
}

impl Service {
    /// As it is before the first change.
    pub(super) fn new(backend: SocketAddr) -> Self {
        let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
        Self {
            backend_port: backend.port(),
            addresses: (first..first + SIZE).collect(),
            changes: 0,
        }
    }

    /// One endpoint moves: of those that stand by, and every tenth time of those that have traffic.
    pub(super) fn change(&mut self) {
        self.changes += 1;
        let place = if self.changes.is_multiple_of(10) {
            self.changes / 10 % FIRST_PRIORITY
        } else {
            FIRST_PRIORITY + self.changes * 37 % (SIZE - FIRST_PRIORITY)
        };
        let address = u32::from(Ipv4Addr::new(127, 2, 0, 1)) + self.changes;
        if let Some(endpoint) = self.addresses.get_mut(place as usize) {
            *endpoint = address;
        }
    }

    /// The endpoints.
    pub(super) fn endpoints(&self) -> Named {
        let (first, rest) = self.addresses.split_at(FIRST_PRIORITY as usize);
        let assignment = ClusterLoadAssignment {
            cluster_name: SERVICE.to_owned(),
            endpoints: vec![self.group(0, "region1", first), self.group(1, "region2", rest)],
            ..Default::default()
        };
        Named::from_message(ENDPOINTS, &assignment)
    }

    fn group(&self, priority: u32, region: &str, addresses: &[u32]) -> LocalityLbEndpoints {
        let endpoint = |address: &u32| LbEndpoint {
            load_balancing_weight: Some(UInt32Value { value: 1 }),
            host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
                address: Some(socket(Ipv4Addr::from(*address), self.backend_port)),
                ..Default::default()
            })),
            ..Default::default()
        };
        LocalityLbEndpoints {
            locality: Some(Locality {
                region: region.to_owned(),
                ..Default::default()
            }),
            lb_endpoints: addresses.iter().map(endpoint).collect(),
            load_balancing_weight: Some(UInt32Value { value: 1 }),
            priority,
            ..Default::default()
        }
    }
}

/// The service's cluster.
pub(super) fn cluster() -> Named {
    let unlimited = Some(UInt32Value { value: u32::MAX });
    let cluster = Cluster {
        name: SERVICE.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ConfigSource {
                resource_api_version: ApiVersion::V3.into(),
                initial_fetch_timeout: Some(Duration::default()),
                config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
                ..Default::default()
            }),
            service_name: SERVICE.to_owned(),
        }),
        connect_timeout: Some(Duration {
            seconds: 10,
            nanos: 0,
        }),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![Thresholds {
                max_connections: unlimited,
                max_pending_requests: unlimited,
                max_requests: unlimited,
                max_retries: unlimited,
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    Named::from_message(CLUSTER, &cluster)
}

/// A listener that leads to the service.
pub(super) fn listener(listens: SocketAddr) -> Named {
    let SocketAddr::V4(address) = listens else {
        unreachable!("the bench listens on IPv4")
    };
    let listener = Listener {
        name: "churn".to_owned(),
        address: Some(socket(*address.ip(), address.port())),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "envoy.filters.network.http_connection_manager".to_owned(),
                config_type: Some(filter::ConfigType::TypedConfig(any(
                    "network.http_connection_manager.v3.HttpConnectionManager",
                    &manager(),
                ))),
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    Named::from_message(LISTENER, &listener)
}

fn manager() -> HttpConnectionManager {
    let forward = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(SERVICE.to_owned())),
        timeout: Some(Duration::default()),
        ..Default::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(route::Action::Route(forward)),
        ..Default::default()
    };
    let routes = RouteConfiguration {
        name: "churn".to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "all".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..Default::default()
        }],
        ..Default::default()
    };
    HttpConnectionManager {
        stat_prefix: "churn".to_owned(),
        route_specifier: Some(http_connection_manager::RouteSpecifier::RouteConfig(routes)),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(any(
                "http.router.v3.Router",
                &Router::default(),
            ))),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn any<M: Message>(name: &str, message: &M) -> Any {
    Any {
        type_url: format!("{TYPES}.{name}"),
        value: message.encode_to_vec(),
    }
}

fn socket(address: Ipv4Addr, port: u16) -> Address {
    Address {
        address: Some(Kind::SocketAddress(SocketAddress {
            address: address.to_string(),
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_moves_one_endpoint_and_keeps_their_number() {
        let mut service = Service::new(SocketAddr::from(([127, 0, 0, 1], 80)));
        for _ in 0..300 {
            let before = service.addresses.clone();
            service.change();
            let moved = before
                .iter()
                .zip(&service.addresses)
                .filter(|(old, new)| old != new);
            assert_eq!(moved.count(), 1);
        }
        let unique: std::collections::BTreeSet<_> = service.addresses.iter().collect();
        assert_eq!(unique.len(), SIZE as usize);
    }
}
