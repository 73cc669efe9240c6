//! The HTTP connection manager. Source: envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto; contract §1.5.
pub mod client;
pub mod extras;
mod from_proto;
pub mod local_reply;

pub(crate) use from_proto::request_id;
use std::time::Duration;

use crate::access_log::AccessLog;
use crate::bootstrap::ConfigSource;
use crate::cluster::{Http1Options, Http2Options, Jittered};
use crate::http_filter::PlacedFilter;
use crate::http_filter::router::Router;
use crate::route::RouteTableConfig;
use crate::scoped_routes::ScopedRoutes;
use crate::tracing::Tracing;

/// HTTP on a downstream connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConnectionManager {
    /// Stats are `http.<stat_prefix>.`.
    pub stat_prefix: String,
    /// Which protocol is expected.
    pub codec: CodecType,
    /// Where routes come from.
    pub routes: RouteSource,
    /// Filters before the router, in order.
    pub filters: Vec<PlacedFilter>,
    /// The router.
    pub router: Router,
    /// What becomes of answers that are made here; `None`: nothing.
    pub local_replies: Option<Box<local_reply::LocalReplies>>,
    /// Logged once per stream.
    pub access_log: Vec<AccessLog>,
    /// Protocols that a client may change to. Awaits the traffic issue.
    pub upgrades: Vec<Upgrade>,
    /// `Expect: 100-continue` goes upstream instead of being answered here, and informational responses are passed on.
    pub passes_100_continue: bool,
    /// What else heads get and lose; `None`: nothing.
    pub head_extras: Option<Box<extras::HeadExtras>>,
    /// Span settings; `None`: no tracing.
    pub tracing: Option<Tracing>,
    /// Value of the `server` header; Envoy's default `envoy`.
    pub server_name: String,
    /// What happens to the upstream's `server` header.
    pub server_header: ServerHeader,
    /// XFCC handling.
    pub forward_client_cert: ForwardClientCert,
    /// Which parts of the client certificate go into XFCC.
    pub client_cert_details: ClientCertDetails,
    /// `.`/`..` in the path are resolved (RFC 3986 §6.2.2).
    pub normalize_path: bool,
    /// `//` becomes `/`.
    pub merge_slashes: bool,
    /// What is done about `%2F` and `%5C` in the path.
    pub escaped_slashes: EscapedSlashes,
    /// The client is who connected, not whom x-forwarded-for names: this proxy is the edge of what is trusted.
    pub use_remote_address: bool,
    /// Servers that want a PROXY header are told the client's address also if it did not come with one itself.
    pub adds_proxy_state: bool,
    /// At the edge a client's `x-request-id` stays.
    pub preserve_external_request_id: bool,
    /// A missing `x-request-id` is created; Envoy's default true.
    pub generate_request_id: bool,
    /// No byte of a response body for this long ends the stream; Envoy's default 5 min, `None`: no limit.
    pub stream_idle_timeout: Option<Duration>,
    /// A connection without streams closes after this; Envoy's default 1 h, `None`: never.
    pub idle_timeout: Option<Duration>,
    /// The request head must arrive within this; `None`: no limit.
    pub request_headers_timeout: Option<Duration>,
    /// Time between GOAWAY/`connection: close` and close; Envoy's default 5 s.
    pub drain_timeout: Jittered,
    /// A connection of this age drains; `None`: it may get as old as it likes.
    pub connection_age: Option<Jittered>,
    /// HTTP/1 connections of that age wait for their next response, and close with it.
    pub http1_waits_for_response: bool,
    /// A connection drains with this request; 0: no limit.
    pub requests_per_connection: u32,
    /// A stream ends after this, where its route does not say otherwise; `None`: no limit.
    pub stream_duration: Option<Duration>,
    /// From the begin of a stream to the end of its request, unless the response begins before.
    pub request_timeout: Option<Duration>,
    /// A client that was told of the end has so long to close its side; Envoy's default 1 s, `None`: it is not waited for.
    pub close_delay: Option<Duration>,
    /// Largest request head, KiB; Envoy's default 60.
    pub max_request_headers_kb: u32,
    /// Largest number of request headers; Envoy's default 100.
    pub max_request_headers_count: u32,
    /// What becomes of a request with `_` in the name of a header.
    pub underscores: HeadersWithUnderscores,
    /// HTTP/1.0 is answered instead of refused with 426.
    pub accept_http_10: bool,
    /// The host of HTTP/1.0 requests that name none; `None`: they are refused.
    pub default_host_for_http_10: Option<String>,
    /// A request in chunks may tell a length too, which then means nothing and goes no further.
    pub takes_chunked_length: bool,
    /// HTTP/1 settings.
    pub http1: Http1Options,
    /// HTTP/2 settings.
    pub http2: Http2Options,
}

/// A protocol that a client may change to, or may not. Source: `UpgradeConfig` of http_connection_manager.proto and of `RouteAction`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// `websocket`; lower case.
    pub protocol: String,
    /// Where no route says otherwise; Envoy's default true.
    pub is_enabled: bool,
}

/// Source: `CodecType`; HTTP3 is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum CodecType {
    #[default]
    Auto,
    Http1,
    Http2,
}

/// Where the route table comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteSource {
    /// Route discovery.
    Rds {
        /// Name to subscribe.
        name: String,
        /// Who serves it.
        source: ConfigSource,
    },
    /// Written in the listener.
    Inline(Box<RouteTableConfig>),
    /// A table for each scope.
    Scoped(Box<ScopedRoutes>),
}

/// Source: `ServerHeaderTransformation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum ServerHeader {
    #[default]
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

/// Source: `ForwardClientCertDetails`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum ForwardClientCert {
    #[default]
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// Source: `SetCurrentClientCertDetails`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub dns: bool,
    pub uri: bool,
}

/// Source: http_connection_manager.proto `PathWithEscapedSlashesAction`; the default, which an installation may choose, is to keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    /// The path stays as it is.
    #[default]
    Keep,
    /// The request is answered 400.
    Reject,
    /// The client is sent to the unescaped path (307); a gRPC request is answered as by `Reject`.
    Redirect,
    /// The request goes on with the unescaped path.
    Forward,
}

/// Source: protocol.proto `HeadersWithUnderscoresAction`. Some applications take `_` for `-`, so that a client could smuggle a header
/// past whoever looks at names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeadersWithUnderscores {
    /// It passes.
    #[default]
    Allow,
    /// It is refused: HTTP/1 with 400, HTTP/2 with a reset.
    Reject,
    /// It goes on without the header.
    Drop,
}
