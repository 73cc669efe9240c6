//! The only changes to what istiod wrote: what a shared loopback without REDIRECT needs. docs/demo.md lists them, and
//! the tests hold this file to that list.
//!
//! In a pod, iptables turns a connection to any address and port into one to 15001 or 15006, and `0.0.0.0` is the pod's
//! own. Here three sidecars share one machine and nobody redirects, so a listener is bound where its traffic goes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use envoy_types::pb::envoy::config::listener::v3::{Listener, ListenerFilterChainMatchPredicate};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use serde_json::Value;

use super::places::{Places, Pod, on_loopback};
use crate::control_plane::{CLUSTER, ENDPOINTS, LISTENER, Named, ROUTES};

/// Name of the listener that takes what other pods send.
const INBOUND: &str = "virtualInbound";
/// Name of the listener that takes what the application sends, when it is redirected.
const OUTBOUND: &str = "virtualOutbound";
/// Name of the listener that a connection to bill-service is handed over to.
const BILL: &str = "0.0.0.0_9999";

/// The changes for one workload.
#[derive(Clone, Debug)]
pub(super) struct Edits {
    pod: Pod,
    /// Captured address and port of a workload's service, and where it is.
    moved: BTreeMap<SocketAddr, SocketAddr>,
    /// Where front finds bill-service.
    bill_service: IpAddr,
}

/// The cluster IP of bill-service in the captures.
const BILL_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

impl Edits {
    /// For what is served to `pod`.
    pub(super) fn new(places: &Places, pod: &Pod) -> Self {
        let moved = places.pods.iter().map(|pod| {
            let captured = SocketAddr::new(pod.captured.into(), pod.service_port);
            (captured, pod.inbound)
        });
        Self {
            pod: pod.clone(),
            moved: moved.collect(),
            bill_service: places.bill_service().ip(),
        }
    }

    /// A resource with its changes; one that needs none stays byte for byte.
    pub(super) fn apply(&self, resource: &Named) -> Named {
        let any = resource.any.clone();
        let any = match any.type_url.as_str() {
            ENDPOINTS => change(any, |it: &mut ClusterLoadAssignment| self.endpoints(it)),
            ROUTES => change(any, |it: &mut RouteConfiguration| self.routes(it)),
            CLUSTER => change(any, |it: &mut Cluster| self.cluster(it)),
            LISTENER => change(any, |it: &mut Listener| self.listener(it)),
            _ => any,
        };
        Named {
            name: resource.name.clone(),
            any,
        }
    }

    /// The node with the pod's address on loopback.
    pub(super) fn node(&self, node: &mut Value) {
        let (captured, here) = (self.pod.captured.to_string(), self.pod.inbound.ip().to_string());
        for place in ["/id", "/metadata/INSTANCE_IPS"] {
            if let Some(Value::String(text)) = node.pointer_mut(place) {
                *text = text.replace(&captured, &here);
            }
        }
    }

    fn endpoints(&self, assignment: &mut ClusterLoadAssignment) {
        let hosts = assignment
            .endpoints
            .iter_mut()
            .flat_map(|locality| &mut locality.lb_endpoints);
        for host in hosts {
            let Some(HostIdentifier::Endpoint(endpoint)) = &mut host.host_identifier else {
                continue;
            };
            if let Some(socket) = endpoint.address.as_mut().and_then(socket_of)
                && let Some(captured) = read(socket)
            {
                let here = || SocketAddr::new(loopback(captured.ip()), captured.port());
                set(socket, self.moved.get(&captured).copied().unwrap_or_else(here));
            }
        }
    }

    /// ORIGINAL_DST would be the sidecar itself.
    fn cluster(&self, cluster: &mut Cluster) {
        if cluster.name != format!("inbound|{}||", self.pod.service_port) {
            return;
        }
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
        cluster.lb_policy = LbPolicy::RoundRobin.into();
        cluster.cleanup_interval = None;
        let mut socket = SocketAddress::default();
        set(&mut socket, self.pod.app);
        let address = Address {
            address: Some(address::Address::SocketAddress(socket)),
        };
        let endpoint = Endpoint {
            address: Some(address),
            ..Default::default()
        };
        let host = LbEndpoint {
            host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
            ..Default::default()
        };
        cluster.load_assignment = Some(ClusterLoadAssignment {
            cluster_name: cluster.name.clone(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: vec![host],
                ..Default::default()
            }],
            ..Default::default()
        });
    }

    /// Hosts are asked for by address, too.
    fn routes(&self, table: &mut RouteConfiguration) {
        for domain in table.virtual_hosts.iter_mut().flat_map(|host| &mut host.domains) {
            match domain.parse::<Ipv4Addr>() {
                Ok(BILL_SERVICE) => *domain = self.bill_service.to_string(),
                Ok(address) => *domain = on_loopback(address).to_string(),
                Err(_) => {}
            }
        }
    }

    fn listener(&self, listener: &mut Listener) {
        let place = match (listener.name.as_str(), self.pod.egress) {
            (INBOUND, _) => self.pod.inbound,
            (OUTBOUND, _) => self.pod.outbound,
            (BILL, Some(egress)) => {
                listener.bind_to_port = None;
                egress
            }
            _ => return,
        };
        let captured = match listener.address.as_mut().and_then(socket_of) {
            Some(socket) => {
                let captured = read(socket).map_or(0, |address| address.port());
                set(socket, place);
                captured
            }
            None => return,
        };
        // What named the port that connections came to names the one that they come to here.
        let meant = if listener.name == INBOUND {
            self.pod.service_port
        } else {
            captured
        };
        if meant != place.port() {
            renumber(listener, meant, place.port());
        }
    }
}

/// Replaces a destination port in the matches of filter chains and listener filters.
fn renumber(listener: &mut Listener, from: u16, to: u16) {
    for chain in &mut listener.filter_chains {
        let port = chain
            .filter_chain_match
            .as_mut()
            .and_then(|criteria| criteria.destination_port.as_mut());
        if let Some(port) = port
            && port.value == u32::from(from)
        {
            port.value = to.into();
        }
    }
    for filter in &mut listener.listener_filters {
        if let Some(predicate) = &mut filter.filter_disabled {
            renumber_predicate(predicate, from.into(), to.into());
        }
    }
}

fn renumber_predicate(predicate: &mut ListenerFilterChainMatchPredicate, from: i32, to: i32) {
    match &mut predicate.rule {
        Some(Rule::DestinationPortRange(range)) if range.start == from && range.end == from + 1 => {
            (range.start, range.end) = (to, to + 1);
        }
        Some(Rule::OrMatch(MatchSet { rules }) | Rule::AndMatch(MatchSet { rules })) => {
            rules
                .iter_mut()
                .for_each(|rule| renumber_predicate(rule, from, to));
        }
        Some(Rule::NotMatch(inner)) => renumber_predicate(inner, from, to),
        _ => {}
    }
}

/// Decodes, changes and encodes again. Bytes stay when nothing changed, or when they are no `M`.
fn change<M: Message + Default + Clone + PartialEq>(any: Any, edit: impl FnOnce(&mut M)) -> Any {
    let Ok(before) = M::decode(any.value.as_slice()) else {
        return any;
    };
    let mut after = before.clone();
    edit(&mut after);
    if before == after {
        return any;
    }
    Any {
        value: after.encode_to_vec(),
        ..any
    }
}

fn socket_of(address: &mut Address) -> Option<&mut SocketAddress> {
    match &mut address.address {
        Some(address::Address::SocketAddress(socket)) => Some(socket),
        _ => None,
    }
}

fn read(socket: &SocketAddress) -> Option<SocketAddr> {
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else {
        return None;
    };
    Some(SocketAddr::new(
        socket.address.parse().ok()?,
        port.try_into().ok()?,
    ))
}

fn set(socket: &mut SocketAddress, place: SocketAddr) {
    socket.address = place.ip().to_string();
    socket.port_specifier = Some(PortSpecifier::PortValue(place.port().into()));
}

fn loopback(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => on_loopback(address).into(),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests;
