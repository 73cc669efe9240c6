//! A listener at run time.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use outrigger_model::filter_chain::FilterChainMatch;
use outrigger_model::listener::{ListenerFilter, TrafficDirection};

use crate::drain::{DrainSignal, DrainWatch};
use crate::http::manager::ConnectionManager;
use crate::network_filter::metadata_exchange::ExchangeStats;
use crate::network_filter::tcp_proxy::TcpProxy;
use crate::stats::{Counter, Gauge, Histogram, Registry};
use crate::telemetry::access_log::AccessLogger;
use crate::telemetry::peer::LocalPeer;
use crate::tls::{ServerContext, SslCounter};

/// The secret-dependent part of a chain: swapped when a secret changes, empty until all secrets are there.
pub(crate) type ServerTlsCell = Arc<ArcSwapOption<ServerContext>>;

/// One listener, built once for each accepted configuration.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Where it listens, or which destination it serves.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Hands connections to the listener of their original destination.
    pub(crate) use_original_dst: bool,
    /// Inbound or outbound.
    pub(crate) direction: TrafficDirection,
    /// Inspectors in order.
    pub(crate) listener_filters: Vec<ListenerFilter>,
    /// Limit for the inspectors; `None`: no limit.
    pub(crate) inspect_timeout: Option<Duration>,
    /// At the limit the connection goes on.
    pub(crate) continue_on_inspect_timeout: bool,
    /// Criteria beside `chains`.
    pub(crate) matchers: Vec<FilterChainMatch>,
    /// The chains.
    pub(crate) chains: Vec<Arc<Chain>>,
    /// When none matches.
    pub(crate) default_chain: Option<Arc<Chain>>,
    /// For connections without a chain.
    pub(crate) access_log: AccessLogger,
    /// Counters.
    pub(crate) stats: ListenerStats,
}

/// What is done with a connection.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// TLS to terminate.
    pub(crate) tls: Option<ServerTlsCell>,
    /// Limit for the handshake.
    pub(crate) handshake_timeout: Option<Duration>,
    /// TCP metadata exchange.
    pub(crate) exchange: Option<Exchange>,
    /// The end.
    pub(crate) terminal: Terminal,
}

/// TCP metadata exchange of a chain.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The ALPN protocol that asks for it.
    pub(crate) protocol: String,
    /// Who we are.
    pub(crate) local_peer: Arc<LocalPeer>,
    /// Counters.
    pub(crate) stats: ExchangeStats,
}

/// Terminal filters.
#[derive(Debug)]
pub(crate) enum Terminal {
    /// Bytes.
    Tcp(TcpProxy),
    /// HTTP.
    Http(Arc<ConnectionManager>),
}

/// `listener.<address>.*`. Source: Envoy docs, listener statistics.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub(crate) struct ListenerStats {
    pub(crate) downstream_cx_total: Counter,
    pub(crate) downstream_cx_active: Gauge,
    pub(crate) downstream_cx_destroy: Counter,
    pub(crate) downstream_cx_length_ms: Histogram,
    pub(crate) downstream_pre_cx_timeout: Counter,
    pub(crate) downstream_cx_transport_socket_connect_timeout: Counter,
    pub(crate) no_filter_chain_match: Counter,
    ssl: [Counter; 7],
}

impl ListenerStats {
    /// Registers them under the address, as Envoy writes it.
    pub(crate) fn new(registry: &Registry, address: &str) -> Self {
        let counter = |name: &str| registry.counter(format!("listener.{address}.{name}"));
        Self {
            downstream_cx_total: counter("downstream_cx_total"),
            downstream_cx_active: registry.gauge(format!("listener.{address}.downstream_cx_active")),
            downstream_cx_destroy: counter("downstream_cx_destroy"),
            downstream_cx_length_ms: registry
                .histogram(format!("listener.{address}.downstream_cx_length_ms")),
            downstream_pre_cx_timeout: counter("downstream_pre_cx_timeout"),
            downstream_cx_transport_socket_connect_timeout: counter(
                "downstream_cx_transport_socket_connect_timeout",
            ),
            no_filter_chain_match: counter("no_filter_chain_match"),
            ssl: SSL_COUNTERS.map(|ssl| counter(ssl.name())),
        }
    }

    /// Counts what a handshake did.
    pub(crate) fn ssl(&self, happened: SslCounter) {
        if let Some(index) = SSL_COUNTERS.iter().position(|counter| *counter == happened)
            && let Some(counter) = self.ssl.get(index)
        {
            counter.inc();
        }
    }
}

const SSL_COUNTERS: [SslCounter; 7] = [
    SslCounter::Handshake,
    SslCounter::SessionReused,
    SslCounter::NoCertificate,
    SslCounter::ConnectionError,
    SslCounter::FailVerifyError,
    SslCounter::FailVerifyNoCert,
    SslCounter::FailVerifySan,
];

/// The cell of one listener name: sockets and accept tasks hold it, updates swap what is in it.
#[derive(Debug)]
pub(crate) struct ListenerCell {
    current: ArcSwap<Listener>,
    connections: DrainSignal,
    connections_watch: DrainWatch,
    sockets: DrainSignal,
    sockets_watch: DrainWatch,
}

impl ListenerCell {
    /// A cell with its first listener.
    pub(crate) fn new(listener: Arc<Listener>) -> Arc<Self> {
        let (connections, connections_watch) = DrainSignal::new();
        let (sockets, sockets_watch) = DrainSignal::new();
        Arc::new(Self {
            current: ArcSwap::new(listener),
            connections,
            connections_watch,
            sockets,
            sockets_watch,
        })
    }

    /// The listener now.
    pub(crate) fn load(&self) -> Arc<Listener> {
        self.current.load_full()
    }

    /// Connections accepted from now on use `listener`.
    pub(crate) fn set(&self, listener: Arc<Listener>) {
        self.current.store(listener);
    }

    /// Tells connections when to go.
    pub(crate) fn connections_watch(&self) -> DrainWatch {
        self.connections_watch.clone()
    }

    /// Tells accept tasks when to end.
    pub(crate) fn sockets_watch(&self) -> DrainWatch {
        self.sockets_watch.clone()
    }

    /// Connections close in order; new ones are still taken.
    pub(crate) fn drain_connections(&self) {
        self.connections.start();
    }

    /// The listener goes away: no new connection, and those there are close in order.
    pub(crate) fn close(&self) {
        self.sockets.start();
        self.connections.start();
    }
}

/// The id of the next connection.
pub(crate) fn next_connection_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
