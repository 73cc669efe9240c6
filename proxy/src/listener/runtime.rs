//! A listener at run time.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use outrigger_model::filter_chain::FilterChain;
use outrigger_model::listener::{Listener as ListenerConfig, TrafficDirection};

use super::inspect::Inspector;
use super::limits::ListenerLimits;
use crate::drain::{Drain, DrainWatch};
use crate::http::manager::ConnectionManager;
use crate::network_filter::limits::Gate;
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
    /// What it was made of; its chains in the order of `chains`.
    pub(crate) config: Arc<ListenerConfig>,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Where it listens, or which destination it serves.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Hands connections to the listener of their original destination.
    pub(crate) use_original_dst: bool,
    /// Inbound or outbound.
    pub(crate) direction: TrafficDirection,
    /// Inspectors in order.
    pub(crate) listener_filters: Vec<Inspector>,
    /// Limit for the inspectors; `None`: no limit.
    pub(crate) inspect_timeout: Option<Duration>,
    /// At the limit the connection goes on.
    pub(crate) continue_on_inspect_timeout: bool,
    /// The chains.
    pub(crate) chains: Vec<Arc<Chain>>,
    /// When none matches.
    pub(crate) default_chain: Option<Arc<Chain>>,
    /// A line for every connection.
    pub(crate) access_log: AccessLogger,
    /// How many connections it may have.
    pub(crate) limits: ListenerLimits,
    /// Counters.
    pub(crate) stats: ListenerStats,
}

impl Listener {
    /// The chain that was made of the same configuration, if there is one.
    pub(crate) fn chain_of(&self, config: &FilterChain) -> Option<&Arc<Chain>> {
        let position = self.config.filter_chains.iter().position(|chain| chain == config);
        let default = || {
            let same = self.config.default_filter_chain.as_ref() == Some(config);
            self.default_chain.as_ref().filter(|_| same)
        };
        position.and_then(|index| self.chains.get(index)).or_else(default)
    }

    /// TPROXY brought a connection to this address here, where nobody listens on it: it is the original destination.
    pub(crate) fn is_elsewhere(&self, local: SocketAddr) -> bool {
        let is_here = |address: &SocketAddr| {
            address.port() == local.port() && (address.ip().is_unspecified() || address.ip() == local.ip())
        };
        self.config.is_transparent && !self.addresses.iter().any(is_here)
    }

    fn all_chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.chains.iter().chain(&self.default_chain)
    }

    /// The chains that `successor` does not have.
    pub(crate) fn chains_not_in<'a>(
        &'a self,
        successor: &'a Listener,
    ) -> impl Iterator<Item = &'a Arc<Chain>> {
        let lives_on = |chain: &Arc<Chain>| successor.all_chains().any(|other| Arc::ptr_eq(other, chain));
        self.all_chains().filter(move |chain| !lives_on(chain))
    }

    /// Connections close in order, but for those on chains that `successor` has too.
    pub(crate) fn drain_connections(&self, successor: Option<&Listener>) {
        match successor {
            Some(successor) => self
                .chains_not_in(successor)
                .for_each(|chain| chain.drain.start()),
            None => self.all_chains().for_each(|chain| chain.drain.start()),
        }
    }
}

/// What is done with a connection. A connection keeps its chain; a new configuration of the listener keeps the chains that it does not
/// change, and the connections on the others drain. Source: Envoy docs, listener discovery, "in place filter chain update".
#[derive(Debug)]
pub(crate) struct Chain {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// TLS to terminate.
    pub(crate) tls: Option<ServerTlsCell>,
    /// Limit for the handshake.
    pub(crate) handshake_timeout: Option<Duration>,
    /// Limits of its connections, in order.
    pub(crate) gates: Vec<Gate>,
    /// TCP metadata exchange.
    pub(crate) exchange: Option<Exchange>,
    /// The end.
    pub(crate) terminal: Terminal,
    /// Tells its connections when to go.
    pub(crate) drain: Drain,
    /// How long they have then (`--drain-time-s`).
    pub(crate) drain_time: Duration,
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
    Tcp(Box<TcpProxy>),
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
    pub(crate) downstream_cx_overflow: Counter,
    pub(crate) downstream_global_cx_overflow: Counter,
    pub(crate) downstream_pre_cx_active: Gauge,
    pub(crate) downstream_pre_cx_timeout: Counter,
    pub(crate) downstream_listener_filter_remote_close: Counter,
    pub(crate) downstream_listener_filter_error: Counter,
    pub(crate) downstream_cx_transport_socket_connect_timeout: Counter,
    pub(crate) no_filter_chain_match: Counter,
    /// Of all listeners together.
    pub(crate) server_total_connections: Gauge,
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
            downstream_cx_overflow: counter("downstream_cx_overflow"),
            downstream_global_cx_overflow: counter("downstream_global_cx_overflow"),
            downstream_pre_cx_active: registry.gauge(format!("listener.{address}.downstream_pre_cx_active")),
            downstream_pre_cx_timeout: counter("downstream_pre_cx_timeout"),
            downstream_listener_filter_remote_close: counter("downstream_listener_filter_remote_close"),
            downstream_listener_filter_error: counter("downstream_listener_filter_error"),
            downstream_cx_transport_socket_connect_timeout: counter(
                "downstream_cx_transport_socket_connect_timeout",
            ),
            no_filter_chain_match: counter("no_filter_chain_match"),
            server_total_connections: registry.gauge("server.total_connections"),
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
    sockets: Drain,
}

impl ListenerCell {
    /// A cell with its first listener.
    pub(crate) fn new(listener: Arc<Listener>) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::new(listener),
            sockets: Drain::default(),
        })
    }

    /// The listener now.
    pub(crate) fn load(&self) -> Arc<Listener> {
        self.current.load_full()
    }

    /// Connections accepted from now on use `listener`; those on chains that it does not have drain. Returns what it replaces.
    pub(crate) fn set(&self, listener: Arc<Listener>) -> Arc<Listener> {
        let old = self.current.swap(listener.clone());
        old.drain_connections(Some(&listener));
        old
    }

    /// Tells accept tasks when to end.
    pub(crate) fn sockets_watch(&self) -> DrainWatch {
        self.sockets.watch()
    }

    /// Connections close in order; new ones are still taken.
    pub(crate) fn drain_connections(&self) {
        self.load().drain_connections(None);
    }

    /// The listener goes away: no new connection, and those there are close in order, but for those on chains of its successor.
    pub(crate) fn close(&self, successor: Option<&Listener>) {
        self.sockets.start();
        self.load().drain_connections(successor);
    }
}

/// The id of the next connection.
pub(crate) fn next_connection_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
