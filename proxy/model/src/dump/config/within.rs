//! Resources that come inside others, each shown in its own section as well: those of the bootstrap, route tables and scopes of listeners,
//! endpoints of clusters that do not get them over EDS.
//!
//! Sources: Envoy `RouteConfigProviderManagerImpl::dumpRouteConfigs`, `ConfigDumpHandler::dumpEndpointConfigs`.
use std::time::SystemTime;

use envoy_types::pb::envoy::config::bootstrap::v3::{Bootstrap, bootstrap::StaticResources};
use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::envoy::config::core::v3::{HealthStatus, address};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, endpoint, lb_endpoint,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, ScopedRouteConfigurationsList, http_connection_manager::RouteSpecifier,
    scoped_routes::ConfigSpecifier,
};
use envoy_types::pb::google::protobuf::UInt32Value;
use prost::Message;

use super::{ConfigDump, DumpResource, DumpScopes, DumpState};
use crate::any::{type_name, types};

/// Envoy's default. Source: endpoint.proto `overprovisioning_factor`.
const OVERPROVISIONING: u32 = 140;

impl ConfigDump {
    /// With everything that comes inside something else.
    pub(super) fn completed(&self, include_eds: bool) -> Self {
        let mut dump = self.clone();
        // Encoded by this process.
        let bootstrap = Bootstrap::decode(self.bootstrap.as_ref()).unwrap_or_default();
        let StaticResources {
            listeners,
            clusters,
            secrets,
        } = bootstrap.static_resources.unwrap_or_default();
        let at = self.bootstrap_updated;
        before(
            &mut dump.clusters.resources,
            clusters.iter().map(|item| inside(&item.name, item, at)),
        );
        before(
            &mut dump.listeners.resources,
            listeners.iter().map(|item| inside(&item.name, item, at)),
        );
        before(
            &mut dump.secrets.resources,
            secrets.iter().map(|item| inside(&item.name, item, at)),
        );
        let in_force = |resource: &&DumpResource| !matches!(resource.state, DumpState::Rejected { .. });
        let routes: Vec<_> = dump
            .listeners
            .resources
            .iter()
            .filter(in_force)
            .flat_map(inline_routes)
            .collect();
        before(&mut dump.routes.resources, routes.into_iter());
        let listeners = dump.listeners.resources.iter().filter(in_force);
        let scopes: Vec<_> = listeners.flat_map(inline_scopes).collect();
        dump.scopes.extend(scopes);
        if include_eds {
            let active =
                |resource: &&DumpResource| matches!(resource.state, DumpState::Static | DumpState::Active);
            let endpoints = dump
                .clusters
                .resources
                .iter()
                .filter(active)
                .filter_map(endpoints);
            let endpoints: Vec<_> = endpoints.collect();
            before(&mut dump.endpoints.resources, endpoints.into_iter());
        }
        dump
    }
}

fn before(resources: &mut Vec<DumpResource>, more: impl Iterator<Item = DumpResource>) {
    let received = std::mem::take(resources);
    resources.extend(more.chain(received));
}

fn inside(name: &str, message: &impl Message, last_updated: SystemTime) -> DumpResource {
    DumpResource {
        version: String::new(),
        name: name.to_owned(),
        bytes: message.encode_to_vec().into(),
        last_updated,
        state: DumpState::Static,
    }
}

fn managers(listener: &DumpResource) -> Vec<HttpConnectionManager> {
    let proto = Listener::decode(listener.bytes.as_ref()).unwrap_or_default();
    let chains = proto.filter_chains.iter().chain(&proto.default_filter_chain);
    let filters = chains.flat_map(|chain| &chain.filters);
    filters.filter_map(manager).collect()
}

fn inline_scopes(listener: &DumpResource) -> Vec<DumpScopes> {
    let managers = managers(listener).into_iter();
    let sets = managers.filter_map(|manager| match manager.route_specifier? {
        RouteSpecifier::ScopedRoutes(scoped) => match scoped.config_specifier? {
            ConfigSpecifier::ScopedRouteConfigurationsList(list) => Some((scoped.name, list)),
            ConfigSpecifier::ScopedRds(_) => None,
        },
        _ => None,
    });
    let at = listener.last_updated;
    let set = |(name, list): (String, ScopedRouteConfigurationsList)| {
        let scopes = list.scoped_route_configurations.iter();
        DumpScopes {
            name,
            version: String::new(),
            last_updated: at,
            is_inline: true,
            scopes: scopes.map(|scope| inside(&scope.name, scope, at)).collect(),
        }
    };
    sets.map(set).collect()
}

fn inline_routes(listener: &DumpResource) -> Vec<DumpResource> {
    let managers = managers(listener).into_iter();
    let tables = managers.filter_map(|manager| match manager.route_specifier {
        Some(RouteSpecifier::RouteConfig(table)) => Some((table.name.clone(), table.encode_to_vec().into())),
        _ => None,
    });
    tables
        .map(|(name, bytes)| DumpResource {
            version: String::new(),
            name,
            bytes,
            last_updated: listener.last_updated,
            state: DumpState::Static,
        })
        .collect()
}

fn manager(filter: &Filter) -> Option<HttpConnectionManager> {
    let Some(filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        return None;
    };
    if type_name(&any.type_url) != types::HTTP_CONNECTION_MANAGER {
        return None;
    }
    HttpConnectionManager::decode(any.value.as_slice()).ok()
}

/// The endpoints of a cluster that brings its own, as Envoy shows its hosts: everything filled in. Names to resolve are left out.
fn endpoints(resource: &DumpResource) -> Option<DumpResource> {
    let proto = Cluster::decode(resource.bytes.as_ref()).ok()?;
    let is_eds = |kind: &cluster::ClusterDiscoveryType| matches!(kind, cluster::ClusterDiscoveryType::Type(kind) if *kind == cluster::DiscoveryType::Eds as i32);
    if proto.cluster_discovery_type.as_ref().is_some_and(is_eds) {
        return None;
    }
    let mut shown = ClusterLoadAssignment {
        cluster_name: proto.name.clone(),
        ..Default::default()
    };
    let given = proto.load_assignment.unwrap_or_default();
    let mut policy = given.policy.unwrap_or_default();
    policy.overprovisioning_factor.get_or_insert(UInt32Value {
        value: OVERPROVISIONING,
    });
    shown.policy = Some(policy);
    shown.endpoints = given.endpoints.into_iter().filter_map(locality).collect();
    shown.endpoints.sort_by_key(|locality| locality.priority);
    Some(DumpResource {
        bytes: shown.encode_to_vec().into(),
        version: String::new(),
        ..resource.clone()
    })
}

fn locality(mut locality: LocalityLbEndpoints) -> Option<LocalityLbEndpoints> {
    locality.lb_endpoints = locality.lb_endpoints.into_iter().filter_map(host).collect();
    locality.locality.get_or_insert_default();
    locality
        .load_balancing_weight
        .get_or_insert(UInt32Value { value: 0 });
    (!locality.lb_endpoints.is_empty()).then_some(locality)
}

fn host(mut host: LbEndpoint) -> Option<LbEndpoint> {
    let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &mut host.host_identifier else {
        return None;
    };
    if !has_address(endpoint) {
        return None;
    }
    endpoint
        .health_check_config
        .get_or_insert(endpoint::HealthCheckConfig::default());
    host.load_balancing_weight.get_or_insert(UInt32Value { value: 1 });
    // What a load balancer makes of it. Source: Envoy `HostImpl::coarseHealth`.
    host.health_status = match host.health_status() {
        HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => HealthStatus::Unhealthy,
        HealthStatus::Degraded => HealthStatus::Degraded,
        HealthStatus::Healthy | HealthStatus::Unknown => HealthStatus::Healthy,
    } as i32;
    Some(host)
}

fn has_address(endpoint: &Endpoint) -> bool {
    match endpoint
        .address
        .as_ref()
        .and_then(|address| address.address.as_ref())
    {
        Some(address::Address::SocketAddress(socket)) => socket.address.parse::<std::net::IpAddr>().is_ok(),
        Some(_) => true,
        None => false,
    }
}
