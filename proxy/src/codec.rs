//! HTTP messages and bytes: the only place that names hyper and h2.
//!
//! The server side calls a [`StreamHandler`] once a request; the client side is [`h1::client`] and [`h2::client`], used by `upstream::pool`.
//! Heads are the same for both versions: [`RequestHead`] and [`ResponseHead`] never hold hop-by-hop framing.
mod activity;
pub(crate) mod body;
mod feedback;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod head;
mod names;
pub(crate) mod tunnel;
mod underscores;
mod upgrade;

use std::time::Duration;

use crate::time::Instant;

use outrigger_model::cluster::Keepalive;
pub(crate) use outrigger_model::cluster::NameCase;

pub(crate) use body::Body;
pub(crate) use feedback::{Feedback, Refusal};
pub(crate) use head::{RequestHead, ResponseHead};
pub(crate) use underscores::Underscores;

/// A request as the connection manager sees it.
#[derive(Debug)]
pub(crate) struct Request {
    /// Everything before the body.
    pub(crate) head: RequestHead,
    /// The body.
    pub(crate) body: Body,
    /// What goes between the connection and the stream besides.
    pub(crate) feedback: Feedback,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    /// Everything before the body.
    pub(crate) head: ResponseHead,
    /// The body.
    pub(crate) body: Body,
}

/// Answers requests; one per downstream connection.
pub(crate) trait StreamHandler: 'static {
    /// Answers one request. Dropping the future means that the client gave the stream up.
    fn handle(&self, request: Request) -> impl Future<Output = Response>;

    /// Answers what was no request. The connection closes after it.
    fn refuse(&self, refusal: &Refusal) -> Response;

    /// The client left inside of a request head.
    fn gave_up(&self) {}

    /// The connection is as old as it may be.
    fn is_old(&self) {}

    /// The connection has had as many requests as it may.
    fn is_spent(&self) {}

    /// The connection ends because the client does not answer PINGs.
    fn is_deaf(&self) {}

    /// An HTTP/2 stream is reset for what its head has; `details` are `%RESPONSE_CODE_DETAILS%`.
    fn reset(&self, _details: &'static str) {}
}

/// What a server codec needs to know.
#[derive(Debug, Clone)]
pub(crate) struct ServerOptions {
    /// Largest request head, bytes.
    pub(crate) max_head_bytes: usize,
    /// Largest number of header lines.
    pub(crate) max_headers: usize,
    /// HTTP/1.0 is answered.
    pub(crate) accept_http_10: bool,
    /// A request in chunks may tell a length too.
    pub(crate) takes_chunked_length: bool,
    /// Trailers of HTTP/1 go on, in both directions.
    pub(crate) passes_trailers: bool,
    /// How names of HTTP/1 headers are written.
    pub(crate) name_case: NameCase,
    /// Informational responses of upstreams are passed on.
    pub(crate) informs: bool,
    /// What becomes of `_` in names of HTTP/1 headers.
    pub(crate) http1_underscores: Underscores,
    /// The same for HTTP/2, counted by itself.
    pub(crate) http2_underscores: Underscores,
    /// The head must arrive within this, from its first byte.
    pub(crate) head_timeout: Option<Duration>,
    /// A connection without streams is closed after this.
    pub(crate) idle_timeout: Option<Duration>,
    /// After the drain began streams have this long before the connection is closed.
    pub(crate) drain_timeout: Duration,
    /// A drain closes HTTP/1 connections that wait for a request at once.
    pub(crate) drain_closes_idle: bool,
    /// How long one connection lasts.
    pub(crate) life: Life,
    /// HTTP/2.
    pub(crate) http2: Http2Settings,
}

/// What ends a connection besides its client, a drain and idleness. Of each connection a copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    /// From then on it drains.
    pub(crate) old_at: Option<Instant>,
    /// One of HTTP/1 waits for its next response then, and closes with it.
    pub(crate) http1_waits_for_response: bool,
    /// It drains with this request; 0: no limit.
    pub(crate) requests: u32,
    /// A client may still be sending when its connection closes, and a reset would take the response from it: it is read for so long.
    /// Source: Envoy `delayed_close_timeout`.
    pub(crate) linger: Option<Duration>,
}

impl Life {
    /// Nothing ends it.
    pub(crate) const ENDLESS: Self = Self {
        old_at: None,
        http1_waits_for_response: false,
        requests: 0,
        linger: Some(Duration::from_secs(1)),
    };

    /// It has had as many requests as it may.
    pub(crate) fn is_spent(&self, served: u32) -> bool {
        self.requests > 0 && served >= self.requests
    }

    /// It is as old as it may be.
    pub(crate) fn is_old(&self) -> bool {
        self.old_at.is_some_and(|at| Instant::now() >= at)
    }
}

/// HTTP/2 settings of either side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Http2Settings {
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    pub(crate) max_concurrent_streams: u32,
    /// Bytes.
    pub(crate) stream_window: u32,
    /// Bytes.
    pub(crate) connection_window: u32,
    /// Bytes of decoded header list.
    pub(crate) max_header_list_bytes: u32,
    /// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441); for servers.
    pub(crate) allows_connect: bool,
    /// SETTINGS_HEADER_TABLE_SIZE, bytes.
    pub(crate) header_table_bytes: Option<u32>,
    /// PINGs.
    pub(crate) keepalive: Option<Keepalive>,
}

/// How a downstream HTTP connection ended.
#[derive(Debug)]
pub(crate) enum ServeEnd {
    /// Closed in order.
    Closed,
    /// The peer broke the protocol or the connection failed.
    Failed(String),
}

/// Why a request got no response head.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SendError {
    /// No byte of the request was sent: the connection had ended before.
    #[error("the upstream connection was closed before the request: {0}")]
    NotSent(String),
    /// The upstream refused the stream without processing it (REFUSED_STREAM, or above GOAWAY's last id).
    #[error("the upstream refused the stream: {0}")]
    Refused(String),
    /// The upstream reset the stream.
    #[error("the upstream reset the stream: {0}")]
    Reset(String),
    /// The connection ended first.
    #[error("the upstream closed the connection: {0}")]
    Closed(String),
    /// What came back is no HTTP.
    #[error("the upstream broke the protocol: {0}")]
    Protocol(String),
}
