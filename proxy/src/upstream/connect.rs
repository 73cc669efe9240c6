//! A new connection to a host: TCP, then what the cluster's transport wants.
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use outrigger_model::cluster::RoutingPriority;
use outrigger_model::proxy_protocol::{ProxyVersion, UpstreamHeader};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::circuit_breaker::{Permit, Resource};
use super::cluster::{Cluster, TransportSocket};
use super::endpoint::Host;
use super::happy_eyeballs;
use crate::net::connect::{OriginalSource, SocketOptions, connect as tcp_connect};
use crate::net::prefixed::Prefixed;
use crate::net::proxy_protocol::{self, Tlv};
use crate::telemetry::stream_info::ConnectionInfo;
use crate::time::{self, Instant};
use crate::tls::ConnectionOptions;
use crate::tls::error::{HandshakeError, SslCounter};
use crate::tls::info::TlsInfo;
use crate::tls::transport::Transport;

/// ALPN protocols that replace the configured ones (`istio.alpn`).
pub(crate) type AlpnOverride = Arc<[Vec<u8>]>;

/// What a request wants of its connection. A pool has connections of one such wish.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsWish {
    /// ALPN protocols in place of the context's.
    pub(crate) alpn: Option<AlpnOverride>,
    /// The host that the request asks for, when the cluster takes names from requests.
    pub(crate) host: Option<Arc<str>>,
    /// Who the client is, when the cluster has a PROXY header to write.
    pub(crate) client: Option<Arc<ProxiedClient>>,
    /// The connection comes from the client's address (listener filter `original_src`).
    pub(crate) source: Option<OriginalSource>,
    /// Whose limits count.
    pub(crate) priority: RoutingPriority,
}

/// A client that a PROXY header tells of. Source: Envoy `ProxyProtocolData`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProxiedClient {
    source: SocketAddr,
    destination: SocketAddr,
    tlvs: Arc<[Tlv]>,
}

impl ProxiedClient {
    /// The client of this connection. `made_up`: also if no PROXY header came with it.
    pub(crate) fn of(connection: &ConnectionInfo, made_up: bool) -> Option<Arc<Self>> {
        let tlvs = match &connection.proxy_tlvs {
            Some(tlvs) => tlvs.clone(),
            None if made_up => Arc::default(),
            None => return None,
        };
        Some(Arc::new(Self {
            source: connection.remote_address,
            destination: connection.local_address,
            tlvs,
        }))
    }
}

/// A connected transport.
#[derive(Debug)]
pub(crate) struct Connected {
    /// The bytes.
    pub(crate) transport: Transport,
    /// TLS facts.
    pub(crate) tls: Option<Rc<TlsInfo>>,
    /// This end.
    pub(crate) local_address: Option<SocketAddr>,
    /// Counts the connection; keep it as long as the connection.
    pub(crate) guard: ConnectionGuard,
}

/// Undoes the counts of one connection when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    _permit: Permit,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.cluster.stats.upstream_cx_active.dec();
        self.host.counters.cx_active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no connection. Nothing of a request was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// TCP failed.
    #[error("connect to {host}: {source}")]
    Tcp {
        /// Where to.
        host: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The cluster's `connect_timeout` passed.
    #[error("connect to {host}: no connection within the cluster's connect_timeout")]
    Timeout {
        /// Where to.
        host: SocketAddr,
    },
    /// The handshake failed.
    #[error("TLS with {host}: {source}")]
    Tls {
        /// Where to.
        host: SocketAddr,
        /// Who is at fault.
        source: HandshakeError,
    },
    /// A secret of the transport has not arrived.
    #[error("TLS with {host}: the certificate or the trusted roots were not delivered (SDS)")]
    SecretMissing {
        /// Where to.
        host: SocketAddr,
    },
    /// `max_connections` of the circuit breaker.
    #[error("the cluster's max_connections is reached")]
    Overflow,
    /// `max_connection_pools` of the circuit breaker.
    #[error("the cluster's max_connection_pools is reached")]
    NoPool,
}

impl ConnectError {
    /// The text for `%UPSTREAM_TRANSPORT_FAILURE_REASON%` and local replies, in Envoy's words where Envoy has some.
    pub(crate) fn transport_failure_reason(&self) -> String {
        match self {
            Self::Tcp { source, .. } => format!("delayed connect error: {}", system_text(source)),
            Self::Tls { source, .. } => source.transport_failure_reason().unwrap_or_default(),
            Self::SecretMissing { .. } => "TLS_error: Secret is not supplied by SDS".into(),
            Self::Timeout { .. } | Self::Overflow | Self::NoPool => String::new(),
        }
    }
}

/// `Connection refused` without Rust's ` (os error 111)`.
fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((plain, _)) => plain.to_owned(),
        None => text,
    }
}

/// Leave for one more connection to `host`; `None`: the cluster's or the host's limit is reached.
pub(crate) fn leave(cluster: &Cluster, host: &Host, priority: RoutingPriority) -> Option<Permit> {
    let host_is_full = cluster
        .limits(priority)
        .max_connections_per_host
        .is_some_and(|limit| host.counters.cx_active.load(Ordering::Relaxed) >= limit);
    let permit = match host_is_full {
        true => None,
        false => cluster.permit(priority, Resource::Connections),
    };
    if permit.is_none() {
        cluster.stats.upstream_cx_overflow.inc();
    }
    permit
}

/// Connects if the limits allow it; see [`connect_with`].
///
/// # Errors
/// See [`ConnectError`].
pub(crate) async fn connect(
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    wish: &TlsWish,
    fallback_alpn: Option<&'static [u8]>,
) -> Result<Connected, ConnectError> {
    let permit = leave(cluster, host, wish.priority).ok_or(ConnectError::Overflow)?;
    connect_with(permit, cluster, host, wish, fallback_alpn).await
}

/// Connects to `host` of `cluster` within the cluster's `connect_timeout` (TCP and TLS together, as Envoy). `fallback_alpn` is offered when
/// nothing else says what.
///
/// # Errors
/// See [`ConnectError`].
pub(crate) async fn connect_with(
    permit: Permit,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    wish: &TlsWish,
    fallback_alpn: Option<&'static [u8]>,
) -> Result<Connected, ConnectError> {
    let started = Instant::now();
    cluster.stats.upstream_cx_total.inc();
    cluster.stats.upstream_cx_active.inc();
    host.counters.cx_total.fetch_add(1, Ordering::Relaxed);
    host.counters.cx_active.fetch_add(1, Ordering::Relaxed);
    let guard = ConnectionGuard {
        cluster: cluster.clone(),
        host: host.clone(),
        _permit: permit,
    };
    let attempt = time::within(
        Some(cluster.config.connect_timeout),
        reach(cluster, host, wish, fallback_alpn),
    )
    .await;
    match attempt {
        Ok(Ok((transport, tls, local_address))) => {
            let elapsed = started.elapsed().as_millis();
            cluster
                .stats
                .upstream_cx_connect_ms
                .record(u64::try_from(elapsed).unwrap_or(u64::MAX));
            Ok(Connected {
                transport,
                tls,
                local_address,
                guard,
            })
        }
        Ok(Err(error)) => {
            failed(cluster, host);
            Err(error)
        }
        Err(time::Elapsed) => {
            cluster.stats.upstream_cx_connect_timeout.inc();
            failed(cluster, host);
            Err(ConnectError::Timeout { host: host.address })
        }
    }
}

/// A connection for a health check, which may go to another address. It is not counted; the caller sets a time limit.
///
/// # Errors
/// See [`ConnectError`].
pub(super) async fn dial(cluster: &Cluster, host: &Host) -> Result<Transport, ConnectError> {
    let address = host.config.checked_address(host.address);
    let (transport, _, _) = establish(cluster, host, address, &TlsWish::default(), None).await?;
    Ok(transport)
}

fn failed(cluster: &Cluster, host: &Host) {
    cluster.stats.upstream_cx_connect_fail.inc();
    host.counters.cx_connect_fail.fetch_add(1, Ordering::Relaxed);
}

/// Writes the PROXY header. Without a client, as for health checks, we are the client of version 1, and version 2 says `LOCAL`.
/// Source: Envoy `UpstreamProxyProtocolSocket::generateHeader`.
async fn introduce(
    tcp: &mut TcpStream,
    config: &UpstreamHeader,
    client: Option<&ProxiedClient>,
) -> io::Result<()> {
    let header = match (config.proxy_version, client) {
        (ProxyVersion::V1, None) => proxy_protocol::v1(tcp.local_addr()?, tcp.peer_addr()?),
        (ProxyVersion::V1, Some(client)) => proxy_protocol::v1(client.source, client.destination),
        (ProxyVersion::V2, None) => proxy_protocol::v2_local(),
        (ProxyVersion::V2, Some(client)) => {
            let is_added = |kind| config.added_tlvs.iter().any(|(added, _)| *added == kind);
            let passed = client.tlvs.iter().map(|tlv| (tlv.kind, &tlv.value[..]));
            let passed = passed.filter(|(kind, _)| config.passed_tlvs.has(*kind) && !is_added(*kind));
            let added = config.added_tlvs.iter().map(|(kind, value)| (*kind, &value[..]));
            proxy_protocol::v2(client.source, client.destination, added.chain(passed))
        }
    };
    tcp.write_all(&header).await
}

/// What a connection is made of: bytes, TLS facts, this end.
type Established = (Transport, Option<Rc<TlsInfo>>, Option<SocketAddr>);

/// By the address of the host, or by the one of several that answers first.
async fn reach(
    cluster: &Cluster,
    host: &Host,
    wish: &TlsWish,
    fallback_alpn: Option<&'static [u8]>,
) -> Result<Established, ConnectError> {
    let establish = |address| establish(cluster, host, address, wish, fallback_alpn);
    let others = &host.config.additional_addresses;
    if others.is_empty() {
        return establish(host.address).await;
    }
    let addresses = happy_eyeballs::order(host.address, others, cluster.config.happy_eyeballs);
    // On the heap, for those few hosts that have several.
    let attempts = addresses.into_iter().enumerate().map(async |(index, address)| {
        // As in Envoy, each is a connection of its own, the first of them counted before.
        if index > 0 {
            cluster.stats.upstream_cx_total.inc();
        }
        establish(address).await
    });
    let race = Box::pin(happy_eyeballs::race(attempts));
    race.await
        .unwrap_or(Err(ConnectError::Timeout { host: host.address }))
}

async fn establish(
    cluster: &Cluster,
    host: &Host,
    address: SocketAddr,
    wish: &TlsWish,
    fallback_alpn: Option<&'static [u8]>,
) -> Result<Established, ConnectError> {
    let keepalive = cluster
        .config
        .tcp_keepalive
        .map(|keepalive| (keepalive.time, keepalive.interval, keepalive.probes));
    let options = SocketOptions {
        source: cluster.config.bind_source,
        keepalive,
        original_source: wish.source,
    };
    let mut tcp = tcp_connect(address, options)
        .await
        .map_err(|source| ConnectError::Tcp {
            host: address,
            source,
        })?;
    let local_address = tcp.local_addr().ok();
    let choice = cluster.transports.get(host.transport);
    if let Some(config) = choice.and_then(|choice| choice.proxy_header.as_ref()) {
        let written = introduce(&mut tcp, config, wish.client.as_deref()).await;
        written.map_err(|source| ConnectError::Tcp {
            host: address,
            source,
        })?;
    }
    let tcp = Prefixed::new(Bytes::new(), tcp);
    match choice.map(|choice| &choice.socket) {
        Some(TransportSocket::Tls(tls)) => {
            let Some(context) = tls.context() else {
                return Err(ConnectError::SecretMissing { host: address });
            };
            let names = cluster.config.http.tls_names.as_deref();
            let options = ConnectionOptions {
                alpn: wish.alpn.as_deref(),
                fallback_alpn,
                host_name: &host.config.hostname,
                server_name: wish
                    .host
                    .as_ref()
                    .filter(|_| names.is_some_and(|names| names.sni)),
                required_name: wish
                    .host
                    .as_ref()
                    .filter(|_| names.is_some_and(|names| names.san)),
            };
            match context.connect(tcp, &options).await {
                Ok((stream, info)) => {
                    info.counters().for_each(|counter| cluster.stats.ssl(counter));
                    Ok((Transport::client(stream), Some(Rc::new(info)), local_address))
                }
                Err(source) => {
                    cluster.stats.ssl(SslCounter::ConnectionError);
                    source
                        .counter()
                        .into_iter()
                        .for_each(|counter| cluster.stats.ssl(counter));
                    Err(ConnectError::Tls {
                        host: address,
                        source,
                    })
                }
            }
        }
        Some(TransportSocket::RawBuffer) | None => Ok((Transport::plain(tcp), None, local_address)),
    }
}
