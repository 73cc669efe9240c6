//! TCP through the CONNECT, or POST, of an HTTP upstream.
//!
//! With CONNECT in HTTP/1 the connection is the tunnel's own, so its head is written here and what follows is bytes. A POST, and all of
//! HTTP/2, are streams of pooled connections, in chunks or frames. Source: tcp_proxy.proto `TunnelingConfig`; Envoy `HttpUpstream`; beside Envoy 1.40 in tests/it/alone/tunnels.rs.
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version as HttpVersion};
use outrigger_model::cluster::{RoutingPriority, UpstreamHttpVersion};
use outrigger_model::network_filter::tunnel::Tunnel as Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::codec::tunnel::{self, Carried, NoHttp};
use crate::codec::{RequestHead, SendError};
use crate::http::header_changes::Changes;
use crate::http::request_id;
use crate::telemetry::format::{Entry, LineFormat};
use crate::telemetry::stream_info::StreamInfo;
use crate::telemetry::workload::Principals;
use crate::tls::transport::Transport;
use crate::upstream::circuit_breaker::{Permit, Resource};
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::{self, ConnectError, Connected, TlsWish};
use crate::upstream::endpoint::Host;
use crate::upstream::pool::{self, Version};

/// Largest head of an answer; Envoy's 60 KiB.
const MAX_HEAD_BYTES: usize = 60 * 1024;

/// Runtime of `TunnelingConfig`.
#[derive(Debug)]
pub(super) struct Tunnel {
    hostname: LineFormat,
    method: Method,
    path: PathAndQuery,
    changes: Changes,
    request_id: Option<HeaderName>,
    /// How long what a client said before its end may wait for a server that takes nothing.
    linger: Option<Duration>,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The request did not come back.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The connection ended before the answer, or inside it.
    #[error("no answer to the request for a tunnel: {0}")]
    Io(#[from] std::io::Error),
    /// The answer is no HTTP.
    #[error(transparent)]
    NoHttp(#[from] NoHttp),
    /// The upstream says no.
    #[error("the upstream refused the tunnel with {0}")]
    Refused(StatusCode),
    /// The host name or a header cannot stand in a request.
    #[error("the tunnel's hostname {0:?} cannot be sent")]
    Name(String),
}

/// A way to a server.
#[derive(Debug)]
pub(super) enum Way {
    /// A connection.
    Direct(Box<Connected>, Option<Permit>),
    /// A stream of a connection.
    Stream {
        stream: Box<Carried>,
        version: Version,
        /// Who has the connection.
        principals: Option<Arc<Principals>>,
    },
}

impl Way {
    /// What is known of its connection.
    pub(super) fn tell(&self, info: &mut StreamInfo) {
        info.upstream.principals = match self {
            Self::Direct(connected, _) => {
                info.upstream.local_address = connected.local_address;
                connected.tls.as_ref().map(|tls| tls.principals())
            }
            Self::Stream { principals, .. } => principals.clone(),
        };
    }
}

impl Tunnel {
    /// Builds the runtime object; `idle_timeout` as of its connections.
    pub(super) fn new(config: &Config, idle_timeout: Option<Duration>) -> Self {
        let path = config.post_path.as_deref().unwrap_or("/");
        Self {
            hostname: LineFormat::new(&config.tunnel_host),
            method: match config.post_path {
                Some(_) => Method::POST,
                None => Method::CONNECT,
            },
            // The model has judged it.
            path: PathAndQuery::try_from(path).unwrap_or_else(|_| PathAndQuery::from_static("/")),
            changes: Changes::new(&config.tunnel_headers, &[]),
            request_id: config
                .request_id_header
                .as_deref()
                .and_then(|name| HeaderName::try_from(name).ok()),
            linger: idle_timeout,
        }
    }

    /// Asks `host` for a tunnel, and waits for its yes.
    pub(super) async fn open(
        &self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        wish: &TlsWish,
        info: &mut StreamInfo,
    ) -> Result<Way, TunnelError> {
        match cluster.config.http.version {
            UpstreamHttpVersion::Http2 => self.open_stream(Version::Http2, cluster, host, wish, info).await,
            UpstreamHttpVersion::Http1 | UpstreamHttpVersion::Downstream => match self.method {
                Method::CONNECT => self.connect(cluster, host, wish, info).await,
                _ => self.open_stream(Version::Http1, cluster, host, wish, info).await,
            },
        }
    }

    async fn connect(
        &self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        wish: &TlsWish,
        info: &mut StreamInfo,
    ) -> Result<Way, TunnelError> {
        let mut connected = connect::connect(cluster, host, wish, Some(b"http/1.1")).await?;
        info.upstream.local_address = connected.local_address;
        cluster.stats.upstream_cx_http1_total.inc();
        let permit = counted(cluster, host)?;
        let head = self.head(info, "http")?;
        let mut text = BytesMut::new();
        tunnel::write_connect(&head, &mut text);
        connected.transport.write_all(&text).await?;
        connected.transport.flush().await?;
        let status = read_answer(&mut connected.transport).await?;
        match status.is_success() {
            true => Ok(Way::Direct(Box::new(connected), Some(permit))),
            false => Err(TunnelError::Refused(status)),
        }
    }

    async fn open_stream(
        &self,
        version: Version,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        wish: &TlsWish,
        info: &mut StreamInfo,
    ) -> Result<Way, TunnelError> {
        let lease = pool::acquire(cluster, host, wish, version).await?;
        let asked = counted(cluster, host).and_then(|permit| {
            let scheme = match lease.facts().principals {
                Some(_) => "https",
                None => "http",
            };
            Ok((permit, self.head(info, scheme)?))
        });
        let (permit, head) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                lease.give_back();
                return Err(error);
            }
        };
        let facts = lease.facts().clone();
        info.upstream.local_address = facts.local_address;
        let (stream, up, down) = Carried::new(self.linger);
        let response = lease.send(head, up, None).await?;
        let status = response.head.status;
        // As Envoy.
        let is_yes = match version {
            Version::Http2 => status == StatusCode::OK,
            Version::Http1 | Version::Raw => status.is_success(),
        };
        if !is_yes {
            return Err(TunnelError::Refused(status));
        }
        down.carry(response.body, permit);
        Ok(Way::Stream {
            stream: Box::new(stream),
            version,
            principals: facts.principals,
        })
    }

    fn head(&self, info: &StreamInfo, scheme: &'static str) -> Result<RequestHead, TunnelError> {
        let entry = Entry::of(info);
        let mut authority = Vec::new();
        self.hostname.write(&entry, &mut authority);
        let name = || TunnelError::Name(authority.escape_ascii().to_string());
        let mut headers = HeaderMap::new();
        if let Some(name) = &self.request_id {
            let id = request_id::generate(&mut fastrand::Rng::new());
            headers.extend(HeaderValue::from_bytes(&id).ok().map(|id| (name.clone(), id)));
        }
        let mut head = RequestHead {
            authority: HeaderValue::from_bytes(&authority).map_err(|_| name())?,
            path: self.path.clone(),
            scheme,
            version: HttpVersion::HTTP_11,
            headers,
            is_upgrade: self.method == Method::CONNECT,
            method: self.method.clone(),
        };
        self.changes.change_request(&mut head, info);
        Ok(head)
    }
}

/// One more request of the cluster.
fn counted(cluster: &Cluster, host: &Host) -> Result<Permit, TunnelError> {
    let Some(permit) = cluster.permit(RoutingPriority::Default, Resource::Requests) else {
        cluster.stats.upstream_rq_active_overflow.inc();
        return Err(ConnectError::Overflow.into());
    };
    cluster.stats.upstream_rq_total.inc();
    host.counters.rq_total.fetch_add(1, Ordering::Relaxed);
    Ok(permit)
}

/// The final answer's status; what came after its head is to be read again.
async fn read_answer(transport: &mut Transport) -> Result<StatusCode, TunnelError> {
    let mut seen = BytesMut::with_capacity(1024);
    loop {
        while let Some((length, status)) = tunnel::parse_answer(&seen)? {
            let _head = seen.split_to(length.min(seen.len()));
            if !status.is_informational() {
                if !seen.is_empty() {
                    transport.unread(Bytes::from(seen));
                }
                return Ok(status);
            }
        }
        if seen.len() > MAX_HEAD_BYTES {
            return Err(NoHttp.into());
        }
        if transport.read_buf(&mut seen).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
}
