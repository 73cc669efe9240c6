//! Istio's own messages, by hand: they are in no published crate. Field numbers: envoy contrib/istio/**/config.proto and
//! istio pkg/dns/proto/nds.proto; checked against the captures in tests/data.
//!
//! Knows only the shapes; what they mean is beside the model types.
use std::collections::HashMap;

use envoy_types::pb::google::protobuf;
use prost::{Message, Oneof};

use crate::any::FromJson;
use crate::field::{FieldPath, Rejection};

mod json;

use json::Object;

/// `envoy.tcp.metadataexchange.config.MetadataExchange`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetadataExchange {
    #[prost(string, tag = "1")]
    pub(crate) protocol: String,
    #[prost(bool, tag = "2")]
    pub(crate) enable_discovery: bool,
    #[prost(string, repeated, tag = "3")]
    pub(crate) additional_labels: Vec<String>,
}

impl FromJson for MetadataExchange {
    fn from_json(at: &FieldPath<'_>, json: protobuf::Struct) -> Result<Self, Rejection> {
        let mut object = Object::new(at, json);
        let protocol = object.string("protocol")?;
        let enable_discovery = object.boolean("enable_discovery")?;
        let additional_labels = object.strings("additional_labels")?;
        object.end(&["protocol", "enable_discovery", "additional_labels"])?;
        Ok(Self {
            protocol,
            enable_discovery,
            additional_labels,
        })
    }
}

/// `io.istio.http.peer_metadata.Config`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PeerMetadata {
    #[prost(message, repeated, tag = "1")]
    pub(crate) downstream_discovery: Vec<DiscoveryMethod>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) upstream_discovery: Vec<DiscoveryMethod>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) downstream_propagation: Vec<PropagationMethod>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) upstream_propagation: Vec<PropagationMethod>,
    #[prost(bool, tag = "5")]
    pub(crate) shared_with_upstream: bool,
    #[prost(string, repeated, tag = "6")]
    pub(crate) additional_labels: Vec<String>,
}

impl FromJson for PeerMetadata {
    fn from_json(at: &FieldPath<'_>, json: protobuf::Struct) -> Result<Self, Rejection> {
        let mut object = Object::new(at, json);
        let proto = Self {
            downstream_discovery: object.messages("downstream_discovery")?,
            upstream_discovery: object.messages("upstream_discovery")?,
            downstream_propagation: object.messages("downstream_propagation")?,
            upstream_propagation: object.messages("upstream_propagation")?,
            shared_with_upstream: object.boolean("shared_with_upstream")?,
            additional_labels: object.strings("additional_labels")?,
        };
        object.end(&[
            "downstream_discovery",
            "upstream_discovery",
            "downstream_propagation",
            "upstream_propagation",
            "shared_with_upstream",
            "additional_labels",
        ])?;
        Ok(proto)
    }
}

/// `io.istio.http.peer_metadata.Config.DiscoveryMethod`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DiscoveryMethod {
    #[prost(oneof = "Discovery", tags = "1, 2, 3")]
    pub(crate) method_specifier: Option<Discovery>,
}

/// How a peer is found out about.
#[allow(clippy::enum_variant_names, reason = "the names are the proto's")]
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Discovery {
    #[prost(message, tag = "1")]
    Baggage(Empty),
    #[prost(message, tag = "2")]
    WorkloadDiscovery(Empty),
    #[prost(message, tag = "3")]
    IstioHeaders(IstioHeaders),
}

impl FromJson for DiscoveryMethod {
    fn from_json(at: &FieldPath<'_>, json: protobuf::Struct) -> Result<Self, Rejection> {
        let mut object = Object::new(at, json);
        let choices = [
            object.message("baggage")?.map(Discovery::Baggage),
            object
                .message("workload_discovery")?
                .map(Discovery::WorkloadDiscovery),
            object.message("istio_headers")?.map(Discovery::IstioHeaders),
        ];
        object.end(&["baggage", "workload_discovery", "istio_headers"])?;
        Ok(Self {
            method_specifier: one_of(at, choices)?,
        })
    }
}

/// `io.istio.http.peer_metadata.Config.PropagationMethod`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PropagationMethod {
    #[prost(oneof = "Propagation", tags = "1, 2")]
    pub(crate) method_specifier: Option<Propagation>,
}

/// How a peer is told.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Propagation {
    #[prost(message, tag = "1")]
    IstioHeaders(IstioHeaders),
    #[prost(message, tag = "2")]
    Baggage(Empty),
}

impl FromJson for PropagationMethod {
    fn from_json(at: &FieldPath<'_>, json: protobuf::Struct) -> Result<Self, Rejection> {
        let mut object = Object::new(at, json);
        let choices = [
            object.message("istio_headers")?.map(Propagation::IstioHeaders),
            object.message("baggage")?.map(Propagation::Baggage),
        ];
        object.end(&["istio_headers", "baggage"])?;
        Ok(Self {
            method_specifier: one_of(at, choices)?,
        })
    }
}

/// `io.istio.http.peer_metadata.Config.IstioHeaders`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct IstioHeaders {
    #[prost(bool, tag = "1")]
    pub(crate) skip_external_clusters: bool,
}

impl FromJson for IstioHeaders {
    fn from_json(at: &FieldPath<'_>, json: protobuf::Struct) -> Result<Self, Rejection> {
        let mut object = Object::new(at, json);
        let skip_external_clusters = object.boolean("skip_external_clusters")?;
        object.end(&["skip_external_clusters"])?;
        Ok(Self {
            skip_external_clusters,
        })
    }
}

/// A message without fields.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

impl FromJson for Empty {
    fn from_json(at: &FieldPath<'_>, json: protobuf::Struct) -> Result<Self, Rejection> {
        Object::new(at, json).end(&[])?;
        Ok(Self {})
    }
}

fn one_of<T, const N: usize>(at: &FieldPath<'_>, choices: [Option<T>; N]) -> Result<Option<T>, Rejection> {
    let mut chosen = choices.into_iter().flatten();
    match (chosen.next(), chosen.next()) {
        (first, None) => Ok(first),
        _ => Err(at.reject("sets more than one of a oneof")),
    }
}

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AlpnConfig {
    #[prost(message, repeated, tag = "1")]
    pub(crate) alpn_override: Vec<AlpnOverride>,
}

/// `…alpn.v2alpha1.FilterConfig.AlpnOverride`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AlpnOverride {
    /// 0: HTTP/1.0, 1: HTTP/1.1, 2: HTTP/2.
    #[prost(int32, tag = "1")]
    pub(crate) upstream_protocol: i32,
    #[prost(string, repeated, tag = "2")]
    pub(crate) alpn_override: Vec<String>,
}

/// `stats.PluginConfig`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatsConfig {
    #[prost(bool, tag = "6")]
    pub(crate) disable_host_header_fallback: bool,
    #[prost(message, optional, tag = "7")]
    pub(crate) tcp_reporting_duration: Option<protobuf::Duration>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) metrics: Vec<MetricConfig>,
    /// `MetricDefinition`s, whose content nothing reads yet.
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub(crate) definitions: Vec<Vec<u8>>,
    #[prost(int32, tag = "10")]
    pub(crate) reporter: i32,
    #[prost(message, optional, tag = "11")]
    pub(crate) rotation_interval: Option<protobuf::Duration>,
    #[prost(message, optional, tag = "12")]
    pub(crate) graceful_deletion_interval: Option<protobuf::Duration>,
}

/// `stats.MetricConfig`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricConfig {
    #[prost(map = "string, string", tag = "1")]
    pub(crate) dimensions: HashMap<String, String>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) tags_to_remove: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) r#match: String,
    #[prost(bool, tag = "5")]
    pub(crate) drop: bool,
}

/// `istio.mesh.v1alpha1.ProxyConfig`, as far as istiod sends it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProxyConfig {
    #[prost(string, repeated, tag = "34")]
    pub(crate) ca_certificates_pem: Vec<String>,
}

/// `istio.networking.nds.v1.NameTable`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NameTable {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) table: HashMap<String, NameInfo>,
}

/// `istio.networking.nds.v1.NameTable.NameInfo`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NameInfo {
    #[prost(string, repeated, tag = "1")]
    pub(crate) ips: Vec<String>,
    #[prost(string, tag = "2")]
    pub(crate) registry: String,
    #[prost(string, tag = "3")]
    pub(crate) shortname: String,
    #[prost(string, tag = "4")]
    pub(crate) namespace: String,
    #[prost(string, repeated, tag = "5")]
    pub(crate) alt_hosts: Vec<String>,
}
