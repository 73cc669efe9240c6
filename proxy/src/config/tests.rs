//! A control thread without workers, a control plane that is a table, and requests that are looked up instead of sent.
#![allow(clippy::unwrap_used)]

mod addresses;
mod extensions;
mod first;
mod order;
mod owners;
mod proxy_config;
mod snapshot;
mod waiting;
mod warming;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Version};
use outrigger_model::bootstrap::{Bootstrap, ConfigServer};
use outrigger_model::document::{UnknownFields, parse_bootstrap, response_from_json};
use outrigger_model::route::ClusterSpec;
use serde_json::{Value, json};
use xds_client::{Any, Rejection, Resource, Update};

use super::build::Shared;
use super::control::Control;
use crate::codec::RequestHead;
use crate::http::route_table::{Action, Asked};
use crate::listener::runtime::Terminal;
use crate::stats::{Registry, TagRules};
use crate::telemetry::access_log::LogSinks;
use crate::telemetry::istio_stats::IstioMetrics;
use crate::telemetry::peer::LocalPeers;
use crate::upstream::cluster::{Cluster, TransportSocket};
use crate::upstream::lb::Wish;

const DYNAMIC: &str = "node: { id: one, cluster: c }
dynamic_resources:
  ads_config: { api_type: GRPC, transport_api_version: V3, grpc_services: [ envoy_grpc: { cluster_name: xds } ] }
  cds_config: { ads: {}, resource_api_version: V3 }
  lds_config: { ads: {}, resource_api_version: V3 }
static_resources: { clusters: [ { name: xds, connect_timeout: 1s } ] }
";

/// Read once: there are many worlds.
static BOOTSTRAP: LazyLock<(Bootstrap, Vec<u8>)> = LazyLock::new(|| {
    let parsed = parse_bootstrap("b.yaml", DYNAMIC.as_bytes(), None, UnknownFields::Refuse);
    let (message, encoded) = parsed.unwrap();
    (
        outrigger_model::decode::bootstrap(message).unwrap().value,
        encoded,
    )
});

/// One that takes clusters and listeners from ADS.
fn control() -> Control {
    let (bootstrap, encoded) = BOOTSTRAP.clone();
    control_of(bootstrap, encoded)
}

fn control_of(bootstrap: Bootstrap, encoded: Vec<u8>) -> Control {
    control_with(bootstrap, encoded, false)
}

/// `resolves_names`: hosts are looked after, which takes a `LocalSet`.
fn control_with(bootstrap: Bootstrap, encoded: Vec<u8>, resolves_names: bool) -> Control {
    let registry = Registry::new(TagRules::new(&[], true).unwrap());
    let shared = Arc::new(Shared {
        sinks: LogSinks::new(&registry).unwrap(),
        clusters: Arc::default(),
        local_peers: Arc::new(LocalPeers::new(bootstrap.node.clone())),
        drain_time: Duration::from_secs(1),
        resolves_names,
        zone: Default::default(),
        limits: Default::default(),
        istio: IstioMetrics::new(&registry, &bootstrap.node),
        registry,
    });
    Control::new(bootstrap, encoded.into(), shared, Vec::new()).unwrap()
}

/// Resources that are written as JSON, by name.
fn resources(documents: &[Value]) -> BTreeMap<String, Resource> {
    let response = json!({ "resources": documents }).to_string();
    let messages = response_from_json(response.as_bytes()).unwrap().resources;
    let named = messages.into_iter().zip(documents).map(|(any, document)| {
        let name = document.get("name").or_else(|| document.get("clusterName"));
        let name = name.and_then(Value::as_str).unwrap().to_owned();
        let resource = Resource {
            name: name.clone(),
            version: String::new(),
            any: Any {
                type_url: any.type_url.into(),
                value: any.value.into(),
            },
        };
        (name, resource)
    });
    named.collect()
}

/// Gives the control a response.
fn apply(
    control: &mut Control,
    type_url: &str,
    added: Vec<Resource>,
    removed: &[&str],
) -> Result<(), Vec<Rejection>> {
    let update = Update {
        type_url: type_url.into(),
        version: "v".to_owned(),
        added,
        removed: removed.iter().map(|name| (*name).to_owned()).collect(),
        full_state: false,
    };
    control.apply(&ConfigServer::Ads, &update)
}

/// The names of this type that are asked for.
fn wanted(control: &Control, type_url: &str) -> BTreeSet<String> {
    let wishes = control.wishes().iter();
    let of_type = wishes.filter(|(server, asked, _)| **server == ConfigServer::Ads && *asked == type_url);
    of_type.flat_map(|(_, _, names)| names.clone()).collect()
}

/// How a request would be served.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Served {
    /// The client speaks TLS.
    tls: bool,
    /// Name of the route.
    route: String,
    cluster: String,
    host: SocketAddr,
    /// The server speaks TLS.
    upstream_tls: bool,
}

/// Why a request would not be served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "each says what is missing")]
enum Unserved {
    /// Nobody listens.
    NoListener,
    /// The connection is closed: no certificate has come.
    NoCertificate,
    /// 404.
    NoRoute,
    /// 503 `NC`.
    NoCluster { route: String, cluster: String },
    /// 503 `UH`.
    NoHost(String),
    /// 503 `UF`: TLS that lacks a secret.
    NoClientTls(String),
}

/// Sends a request to a listener, as a worker would.
fn ask(control: &Control, listener: &str) -> Result<Served, Unserved> {
    let active = control
        .listeners
        .active
        .get(listener)
        .ok_or(Unserved::NoListener)?;
    let listener = active.cell.load();
    let chain = &listener.chains[0];
    if chain.tls.as_ref().is_some_and(|cell| cell.load().is_none()) {
        return Err(Unserved::NoCertificate);
    }
    let Terminal::Http(manager) = &chain.terminal else {
        panic!("no connection manager")
    };
    let head = RequestHead {
        method: Method::GET,
        path: "/".parse().unwrap(),
        authority: HeaderValue::from_static("a"),
        scheme: "http",
        version: Version::HTTP_11,
        headers: HeaderMap::new(),
        is_upgrade: false,
    };
    let table = manager.routes.load(&head).ok_or(Unserved::NoRoute)?;
    let mut random = fastrand::Rng::with_seed(1);
    let asked = Asked::new(&head, false, &mut random);
    let route = table.route(&asked).ok_or(Unserved::NoRoute)?;
    let Action::Forward(forward) = &route.action else {
        panic!("no forward")
    };
    let target = forward.targets.get(0).unwrap();
    let ClusterSpec::Single(name) = &forward.config.cluster else {
        panic!("several clusters")
    };
    let name = name.clone();
    let (_, found) = target.cluster.find(&head).unwrap();
    let cluster = found.ok_or_else(|| Unserved::NoCluster {
        route: route.name.to_string(),
        cluster: name.clone(),
    })?;
    let host = cluster.choose(&Wish::default(), &mut random);
    Ok(Served {
        tls: chain.tls.is_some(),
        route: route.name.to_string(),
        host: host.ok_or(Unserved::NoHost(name.clone()))?.address,
        upstream_tls: speaks_tls(&cluster)?,
        cluster: name,
    })
}

fn speaks_tls(cluster: &Cluster) -> Result<bool, Unserved> {
    match &cluster.transports[0].socket {
        TransportSocket::RawBuffer => Ok(false),
        TransportSocket::Tls(tls) if tls.context().is_some() => Ok(true),
        TransportSocket::Tls(_) => Err(Unserved::NoClientTls(cluster.name.to_string())),
    }
}

/// ADS with this `initial_fetch_timeout`; `None`: the default.
fn ads(timeout: Option<&str>) -> Value {
    let mut source = json!({ "ads": {}, "resourceApiVersion": "V3" });
    if let Some(timeout) = timeout {
        source["initialFetchTimeout"] = json!(timeout);
    }
    source
}

fn typed(name: &str, mut message: Value) -> Value {
    message["@type"] = json!(format!("type.googleapis.com/{name}"));
    message
}

/// A listener whose only chain has an HTTP connection manager.
fn listener(name: &str, port: u16, rds: &Value, certificate: Option<Value>) -> Value {
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let manager = json!({ "statPrefix": "h", "rds": rds, "httpFilters": [{ "name": "router", "typedConfig": router }] });
    let manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        manager,
    );
    let mut chain = json!({ "filters": [{ "name": "h", "typedConfig": manager }] });
    if let Some(certificate) = certificate {
        chain["transportSocket"] = tls_socket("DownstreamTlsContext", &certificate);
    }
    typed(
        "envoy.config.listener.v3.Listener",
        json!({ "name": name, "address": address(port), "bindToPort": false, "filterChains": [chain] }),
    )
}

fn rds(name: &str, timeout: Option<&str>) -> Value {
    json!({ "routeConfigName": name, "configSource": ads(timeout) })
}

/// A transport socket whose certificate is a secret: name and source.
fn tls_socket(context: &str, certificate: &Value) -> Value {
    let message = json!({ "commonTlsContext": { "tlsCertificateSdsSecretConfigs": [certificate] } });
    let name = format!("envoy.extensions.transport_sockets.tls.v3.{context}");
    json!({ "name": "tls", "typedConfig": typed(&name, message) })
}

fn secret_ref(name: &str, timeout: Option<&str>) -> Value {
    json!({ "name": name, "sdsConfig": ads(timeout) })
}

fn routes(name: &str, cluster: &str) -> Value {
    let route = json!({ "name": name, "match": { "prefix": "/" }, "route": { "cluster": cluster } });
    let hosts = json!([{ "name": "h", "domains": ["*"], "routes": [route] }]);
    typed(
        "envoy.config.route.v3.RouteConfiguration",
        json!({ "name": name, "virtualHosts": hosts }),
    )
}

fn cluster(name: &str, service: &str, timeout: Option<&str>, certificate: Option<Value>) -> Value {
    let eds = json!({ "serviceName": service, "edsConfig": ads(timeout) });
    let mut cluster = json!({ "name": name, "type": "EDS", "edsClusterConfig": eds });
    if let Some(certificate) = certificate {
        cluster["transportSocket"] = tls_socket("UpstreamTlsContext", &certificate);
    }
    typed("envoy.config.cluster.v3.Cluster", cluster)
}

fn endpoints(service: &str, host: &str) -> Value {
    let address = json!({ "socketAddress": { "address": host, "portValue": 80 } });
    let endpoint = json!({ "endpoint": { "address": address } });
    typed(
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        json!({ "clusterName": service, "endpoints": [{ "lbEndpoints": [endpoint] }] }),
    )
}

fn certificate(name: &str) -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    let pair = json!({
        "certificateChain": { "inlineString": chain }, "privateKey": { "inlineString": key.serialize_pem() },
    });
    typed(
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        json!({ "name": name, "tlsCertificate": pair }),
    )
}

fn address(port: u16) -> Value {
    json!({ "socketAddress": { "address": "127.0.0.1", "portValue": port } })
}
