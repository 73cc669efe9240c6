//! Where the proxy's configuration layer comes in: bytes of a resource to its model value.
//!
//! Each function takes the value of the `google.protobuf.Any` (without its type URL) and answers with the value and the problems to list,
//! or with the rejection to NACK. Nothing here panics, whatever the bytes.
use envoy_types::pb::envoy::config::{
    bootstrap, cluster as pb_cluster, core, endpoint, listener as pb_listener, route,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb_tls;
use prost::Message;

use crate::any;
use crate::bootstrap::Bootstrap;
use crate::cluster::Cluster;
use crate::endpoint::LoadAssignment;
use crate::field::{Context, Converted, FieldPath, Problem, Rejection};
use crate::http_filter::discovered::FilterResource;
use crate::istio;
use crate::listener::Listener;
use crate::nds::NameTable;
use crate::proxy_config::ProxyConfig;
use crate::route::{RouteTableConfig, VirtualHost};
use crate::scoped_routes::Scope;
use crate::secret::Secret;

/// LDS.
pub const LISTENER_TYPE: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// CDS.
pub const CLUSTER_TYPE: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// RDS.
pub const ROUTE_TABLE_TYPE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// SRDS.
pub const SCOPE_TYPE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
/// VHDS.
pub const VIRTUAL_HOST_TYPE: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
/// EDS.
pub const LOAD_ASSIGNMENT_TYPE: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// SDS.
pub const SECRET_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// ECDS.
pub const EXTENSION_TYPE: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// Istio's names for the DNS proxy.
pub const NAME_TABLE_TYPE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";

/// What istiod changes of the proxy's own configuration (PCDS).
pub const PROXY_CONFIG_TYPE: &str = "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig";

/// What every conversion looks like: a path to blame, a protobuf message, the model value.
type Convert<M, T> = fn(&FieldPath<'_>, M) -> Result<T, Rejection>;

/// A listener.
///
/// # Errors
/// The bytes do not decode, a value is invalid, or a field is set whose absence would admit more than was asked for.
pub fn listener(bytes: &[u8]) -> Result<Converted<Listener>, Rejection> {
    resource(
        "listener",
        bytes,
        |proto: &pb_listener::v3::Listener| proto.name.clone(),
        Listener::from_proto,
    )
}

/// A cluster.
///
/// # Errors
/// As [`listener`].
pub fn cluster(bytes: &[u8]) -> Result<Converted<Cluster>, Rejection> {
    resource(
        "cluster",
        bytes,
        |proto: &pb_cluster::v3::Cluster| proto.name.clone(),
        Cluster::from_proto,
    )
}

/// A route table.
///
/// # Errors
/// As [`listener`].
pub fn route_table(bytes: &[u8]) -> Result<Converted<RouteTableConfig>, Rejection> {
    let name = |proto: &route::v3::RouteConfiguration| proto.name.clone();
    resource("route configuration", bytes, name, RouteTableConfig::from_proto)
}

/// A scope of requests and its route table.
///
/// # Errors
/// As [`listener`].
pub fn scope(bytes: &[u8]) -> Result<Converted<Scope>, Rejection> {
    let name = |proto: &route::v3::ScopedRouteConfiguration| proto.name.clone();
    resource("scoped route configuration", bytes, name, Scope::from_proto)
}

/// A virtual host that comes by itself.
///
/// # Errors
/// As [`listener`].
pub fn virtual_host(bytes: &[u8]) -> Result<Converted<VirtualHost>, Rejection> {
    let name = |proto: &route::v3::VirtualHost| proto.name.clone();
    resource("virtual host", bytes, name, VirtualHost::from_vhds)
}

/// The endpoints of a cluster.
///
/// # Errors
/// As [`listener`].
pub fn load_assignment(bytes: &[u8]) -> Result<Converted<LoadAssignment>, Rejection> {
    let name = |proto: &endpoint::v3::ClusterLoadAssignment| proto.cluster_name.clone();
    resource("load assignment", bytes, name, LoadAssignment::from_eds)
}

/// A secret.
///
/// # Errors
/// As [`listener`].
pub fn secret(bytes: &[u8]) -> Result<Converted<Secret>, Rejection> {
    resource(
        "secret",
        bytes,
        |proto: &pb_tls::Secret| proto.name.clone(),
        Secret::from_proto,
    )
}

/// The configuration of an HTTP filter.
///
/// # Errors
/// As [`listener`].
pub fn http_filter(bytes: &[u8]) -> Result<Converted<FilterResource>, Rejection> {
    let name = |proto: &core::v3::TypedExtensionConfig| proto.name.clone();
    resource("extension", bytes, name, FilterResource::from_proto)
}

/// Istio's name table.
///
/// # Errors
/// As [`listener`].
pub fn name_table(bytes: &[u8]) -> Result<Converted<NameTable>, Rejection> {
    resource(
        "name table",
        bytes,
        |_: &istio::NameTable| String::new(),
        NameTable::from_proto,
    )
}

/// Changes of the proxy's own configuration.
///
/// # Errors
/// As [`listener`].
pub fn proxy_config(bytes: &[u8]) -> Result<Converted<ProxyConfig>, Rejection> {
    let context = Context::new("proxy config", "");
    let proto: istio::ProxyConfig = any::decode(&context.root(), "proxy config", bytes)?;
    // What is not known here is not encoded again.
    let has_more = proto.encoded_len() != bytes.len();
    let value = ProxyConfig::from_proto(&context.root(), proto, has_more)?;
    Ok(context.finish(value))
}

/// The bootstrap.
///
/// # Errors
/// As [`listener`]; the paths begin at the root of the file.
pub fn bootstrap(proto: bootstrap::v3::Bootstrap) -> Result<Converted<Bootstrap>, Rejection> {
    let node = proto
        .node
        .as_ref()
        .map(|node| node.id.clone())
        .unwrap_or_default();
    let context = Context::new("bootstrap", &node);
    let value = Bootstrap::from_proto(&context.root(), proto)?;
    Ok(context.finish(value))
}

/// Judges a resource of any type: the problems to list, or the rejection. `None`: no resource has this type.
pub fn judge(type_url: &str, bytes: &[u8]) -> Option<Result<Vec<Problem>, Rejection>> {
    fn problems<T>(converted: Converted<T>) -> Vec<Problem> {
        converted.problems
    }
    Some(match type_url {
        LISTENER_TYPE => listener(bytes).map(problems),
        CLUSTER_TYPE => cluster(bytes).map(problems),
        ROUTE_TABLE_TYPE => route_table(bytes).map(problems),
        SCOPE_TYPE => scope(bytes).map(problems),
        VIRTUAL_HOST_TYPE => virtual_host(bytes).map(problems),
        LOAD_ASSIGNMENT_TYPE => load_assignment(bytes).map(problems),
        SECRET_TYPE => secret(bytes).map(problems),
        EXTENSION_TYPE => http_filter(bytes).map(problems),
        NAME_TABLE_TYPE => name_table(bytes).map(problems),
        PROXY_CONFIG_TYPE => proxy_config(bytes).map(problems),
        _ => return None,
    })
}

fn resource<M: Message + Default, T>(
    kind: &str,
    bytes: &[u8],
    name: fn(&M) -> String,
    convert: Convert<M, T>,
) -> Result<Converted<T>, Rejection> {
    let proto: M = any::decode(&Context::new(kind, "").root(), kind, bytes)?;
    let context = Context::new(kind, &name(&proto));
    let value = convert(&context.root(), proto)?;
    Ok(context.finish(value))
}
