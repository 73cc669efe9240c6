//! Tracing settings of a connection manager. Source: http_connection_manager.proto `Tracing`; contract §1.10.
mod from_proto;
mod provider;

use crate::cluster::ClusterName;
use crate::service::{GrpcTarget, HttpTarget};

/// Sampling and spans; no span is made before the telemetry issue, but the decision marks `x-request-id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// Share of requests with `x-client-trace-id` that are traced, hundredths of a percent.
    pub client_sampling: u32,
    /// Share of others, hundredths of a percent.
    pub random_sampling: u32,
    /// Cap over all, hundredths of a percent.
    pub overall_sampling: u32,
    /// What spans are like and where they go. Awaits the telemetry issue.
    pub spans: Box<Spans>,
}

/// What spans are like and where they go. Awaits the telemetry issue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spans {
    /// Where to; `None`: the bootstrap's.
    pub provider: Option<Provider>,
    /// Added to each.
    pub tags: Vec<CustomTag>,
    /// Events within a span as well.
    pub is_verbose: bool,
    /// Longer paths are cut; Envoy's default 256.
    pub max_path_bytes: u32,
    /// Each attempt has a span of its own; `None`: the router's `start_child_span` says.
    pub per_attempt: Option<bool>,
    /// Names of spans, format strings; empty: the decorator's, else the usual ones.
    pub operation: String,
    /// Names of the spans of attempts, format strings.
    pub upstream_operation: String,
    /// No trace context goes upstream.
    pub no_context_propagation: bool,
}

/// A tag of spans. Awaits the telemetry issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomTag {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: TagValue,
}

/// Where a tag's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagValue {
    /// As written.
    Literal(String),
    /// A format string.
    Format(String),
    /// An environment variable of this process.
    Environment {
        /// Its name.
        name: String,
        /// When it is not set.
        default: String,
    },
    /// A request header.
    RequestHeader {
        /// Its name.
        name: String,
        /// When it is not there.
        default: String,
    },
    /// Metadata.
    Metadata {
        /// Of what.
        of: MetadataOwner,
        /// Its namespace.
        namespace: String,
        /// Keys from the outside in.
        path: Vec<String>,
        /// When it is not there.
        default: String,
    },
}

/// Source: envoy/type/metadata/v3/metadata.proto `MetadataKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum MetadataOwner {
    #[default]
    Request,
    Route,
    Cluster,
    Host,
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// Zipkin's API.
    Zipkin(Zipkin),
    /// OpenTelemetry's.
    OpenTelemetry(OpenTelemetry),
    /// A type that Envoy has and Istio may name, of which nothing more is read.
    Other(String),
}

/// Zipkin. Awaits the telemetry issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zipkin {
    /// Where to.
    pub collector: ZipkinCollector,
    /// Protobuf; JSON if false.
    pub is_proto: bool,
    /// Trace ids of 128 bits.
    pub long_trace_ids: bool,
    /// Client and server share a span; Envoy's default true.
    pub shares_spans: bool,
    /// A request has a span for each side.
    pub splits_spans: bool,
    /// `traceparent` beside the B3 headers.
    pub also_w3c: bool,
    /// Trace ids begin with the time.
    pub timestamp_trace_ids: bool,
}

/// Where Zipkin is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZipkinCollector {
    /// What istiod has written since 1.29.
    Service(HttpTarget),
    /// What it wrote before.
    Cluster {
        /// Where.
        cluster: ClusterName,
        /// What is asked for.
        endpoint: String,
        /// `:authority`; empty: the cluster's name.
        hostname: String,
    },
}

/// OpenTelemetry. Awaits the telemetry issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTelemetry {
    /// Where to, over gRPC; `None`: over HTTP, or nowhere.
    pub grpc: Option<GrpcTarget>,
    /// Where to, over HTTP.
    pub http: Option<HttpTarget>,
    /// `service.name`.
    pub service_name: String,
    /// Spans that wait to leave; Envoy's default 1024.
    pub max_cache_size: u32,
}
