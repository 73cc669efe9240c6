//! Ways to ask a control plane: which call carries requests and responses.
//!
//! The crate itself names the aggregated service only, which is the protocol's own; a service for one resource type
//! is named by the owner, who knows that type.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tonic::codegen::http::uri::PathAndQuery;

/// How to speak with a control plane.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// A stream of the incremental protocol.
    Delta(Method),
    /// A stream of the state-of-the-world protocol.
    Sotw(Method),
    /// State of the world, asked for again and again over HTTP/1.1.
    Rest(Rest),
}

impl Protocol {
    /// `AggregatedDiscoveryService.DeltaAggregatedResources`: all types on one stream, increments.
    pub fn delta_ads() -> Self {
        Protocol::Delta(Method::from_static(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
        ))
    }

    /// `AggregatedDiscoveryService.StreamAggregatedResources`: all types on one stream, state of the world.
    pub fn sotw_ads() -> Self {
        Protocol::Sotw(Method::from_static(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        ))
    }
}

/// A streaming gRPC method, such as `/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(pub(crate) PathAndQuery);

impl Method {
    /// `path` is `/package.Service/Method`.
    ///
    /// # Panics
    /// It is not the path of a URI.
    pub fn from_static(path: &'static str) -> Self {
        Method(PathAndQuery::from_static(path))
    }
}

/// Polling of one resource type. Source: Envoy's `HttpSubscriptionImpl` and `RestApiFetcher`.
#[derive(Clone)]
pub struct Rest {
    /// Where requests are posted, such as `/v3/discovery:clusters`.
    pub path: String,
    /// Value of the `host` header; Envoy sends the name of the cluster.
    pub host: String,
    /// The server speaks HTTP/2 from the first byte; else HTTP/1.1.
    pub is_http2: bool,
    /// Between the end of a poll and the next; up to as much again is added at random, as Envoy does.
    pub refresh_delay: Duration,
    /// Limit of one poll, without connecting. Envoy's default is 1 s.
    pub request_timeout: Duration,
    /// Turns messages into bodies and back.
    pub codec: Arc<dyn RestCodec>,
}

/// Bodies of REST requests and responses. Envoy sends and expects the JSON form of the messages, which nobody can
/// read or write who does not know the resources in them.
pub trait RestCodec: Send + Sync {
    /// Value of the `content-type` header.
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    /// The body of a request.
    ///
    /// # Errors
    /// Why it cannot be written.
    fn encode(&self, request: &DiscoveryRequest) -> Result<String, String>;

    /// Reads the body of a response.
    ///
    /// # Errors
    /// What is wrong with it.
    fn decode(&self, body: &[u8]) -> Result<DiscoveryResponse, String>;
}

/// A file that holds a response. Source: Envoy's `FilesystemSubscriptionImpl`.
///
/// Every way in which the path can lead to another content is seen: a write, a rename over the file, another file behind a
/// symbolic link anywhere on the path (the kubelet's `..data`). A file that is missing or cannot be read is tried again at
/// each look, and what was accepted last stays.
pub struct FileSource {
    /// Looked at through symbolic links.
    pub path: PathBuf,
    /// Between looks.
    pub interval: Duration,
    /// Reads the file; an error says what is wrong with it, for the log.
    pub read: ReadFile,
}

/// Turns a file into a response.
pub type ReadFile = Box<dyn FnMut(&Path) -> Result<DiscoveryResponse, String> + Send>;

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource")
            .field("path", &self.path)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest")
            .field("path", &self.path)
            .field("refresh_delay", &self.refresh_delay)
            .finish_non_exhaustive()
    }
}
