//! The terminal filter that moves bytes to a cluster. Source: tcp_proxy.proto; Envoy docs, TCP proxy.
mod backoff;
mod drain_close;
mod early;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outrigger_model::cluster::Percent;
use outrigger_model::network_filter::tcp_proxy::{Backoff as BackoffConfig, TcpProxy as Config, TcpShare};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use self::backoff::Backoff;
use self::drain_close::DrainClose;
use self::early::Early;
use super::metadata_exchange::{self, ExchangeStats};
use super::mongo_proxy::{MongoProxy, Reading};
use super::tunnel::{Tunnel, TunnelError, Way};
use crate::drain::DrainWatch;
use crate::http::downstream::Downstream;
use crate::http::hash_policy::source_hash;
use crate::net::copy::{self, CopyEnd, Meter, Watch};
use crate::stats::{Counter, Gauge, Registry};
use crate::telemetry::access_log::{AccessLogger, Entry};
use crate::telemetry::istio_stats::{IstioStats, TcpReport};
use crate::telemetry::peer::{LocalPeers, Peer};
use crate::telemetry::response_flag::ResponseFlag;
use crate::telemetry::stream_info::StreamInfo;
use crate::time::{self, Instant};
use crate::tls::transport::Transport;
use crate::upstream::cluster::Cluster;
use crate::upstream::cluster_table::{ClusterCell, ClusterTable};
use crate::upstream::connect::{self, ConnectError, Connected, ProxiedClient, TlsWish};
use crate::upstream::endpoint::Host;
use crate::upstream::lb::{Labels, Wish};
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::Version;
use crate::upstream::weighted::Weighted;

/// For the last words to a client.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runtime of `TcpProxy`.
#[derive(Debug)]
pub(crate) struct TcpProxy {
    targets: Weighted<Target>,
    idle_timeout: Option<Duration>,
    /// The limit, and hundredths of a percent of it that chance may add.
    max_duration: Option<(Duration, u32)>,
    hashes_source: bool,
    max_connect_attempts: u32,
    backoff: Option<BackoffConfig>,
    waits_for_data: bool,
    early_data_bytes: Option<usize>,
    closes_when_draining: bool,
    access_log: AccessLogger,
    stats: TcpStats,
    exchange: ExchangeStats,
    local_peers: Arc<LocalPeers>,
    istio_stats: Vec<IstioStats>,
    mongo: Vec<MongoProxy>,
    tunnel: Option<Tunnel>,
}

/// What filters before this one do with its connections.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    /// Tell Istio's metrics.
    pub(crate) istio_stats: Vec<IstioStats>,
    /// Read along.
    pub(crate) mongo: Vec<MongoProxy>,
}

/// `tcp.<stat_prefix>.*`. Source: Envoy docs, TCP proxy statistics.
#[derive(Debug, Clone)]
struct TcpStats {
    downstream_cx_total: Counter,
    downstream_cx_active: Gauge,
    downstream_cx_no_route: Counter,
    downstream_cx_rx_bytes_total: Counter,
    downstream_cx_tx_bytes_total: Counter,
    idle_timeout: Counter,
    max_downstream_connection_duration: Counter,
    early_data_received_count_total: Counter,
    downstream_cx_drain_close: Counter,
}

impl TcpStats {
    fn new(registry: &Registry, prefix: &str) -> Self {
        let counter = |name: &str| registry.counter(format!("tcp.{prefix}.{name}"));
        Self {
            downstream_cx_total: counter("downstream_cx_total"),
            downstream_cx_active: registry.gauge(format!("tcp.{prefix}.downstream_cx_active")),
            downstream_cx_no_route: counter("downstream_cx_no_route"),
            downstream_cx_rx_bytes_total: counter("downstream_cx_rx_bytes_total"),
            downstream_cx_tx_bytes_total: counter("downstream_cx_tx_bytes_total"),
            idle_timeout: counter("idle_timeout"),
            max_downstream_connection_duration: counter("max_downstream_connection_duration"),
            early_data_received_count_total: counter("early_data_received_count_total"),
            downstream_cx_drain_close: counter("downstream_cx_drain_close"),
        }
    }
}

/// Who sees the bytes of one connection.
struct Watches<'a> {
    mongo: Vec<Reading<'a>>,
    drain: Option<DrainClose<'a>>,
}

/// One possible cluster.
#[derive(Debug)]
struct Target {
    cell: Arc<ClusterCell>,
    /// Labels that its hosts have to have.
    labels: Option<Labels>,
}

impl Target {
    fn new(share: &TcpShare, clusters: &ClusterTable) -> Self {
        Self {
            cell: clusters.cell(&share.cluster),
            labels: Labels::new(&share.subset_labels),
        }
    }
}

impl TcpProxy {
    /// Builds the runtime object.
    pub(crate) fn new(
        config: &Config,
        clusters: &ClusterTable,
        access_log: AccessLogger,
        filters: Filters,
        local_peers: &Arc<LocalPeers>,
        registry: &Registry,
    ) -> Self {
        let targets = config
            .clusters
            .iter()
            .map(|share| (share.weight, Target::new(share, clusters)))
            .collect();
        Self {
            targets,
            idle_timeout: config.idle_timeout,
            max_duration: config
                .max_duration
                .map(|limit| (limit, config.duration_jitter.map_or(0, |Percent(share)| share))),
            hashes_source: config.hashes_source,
            max_connect_attempts: config.max_connect_attempts.max(1),
            backoff: config.backoff,
            waits_for_data: config.waits_for_data,
            early_data_bytes: config
                .early_data_bytes
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            closes_when_draining: config.closes_when_draining,
            access_log,
            stats: TcpStats::new(registry, &config.stat_prefix),
            exchange: ExchangeStats::new(registry),
            local_peers: local_peers.clone(),
            istio_stats: filters.istio_stats,
            mongo: filters.mongo,
            tunnel: config
                .tunnel
                .as_ref()
                .map(|tunnel| Tunnel::new(tunnel, config.idle_timeout)),
        }
    }

    /// Serves one connection until both sides are done. `info`: of it, with who the client says it is; `listener_log` has a line of it, too.
    pub(crate) async fn serve(
        &self,
        downstream: Rc<Downstream>,
        mut transport: Transport,
        info: StreamInfo,
        listener_log: &AccessLogger,
        drain: DrainWatch,
    ) {
        let mut log = OnEnd::new(self, info, listener_log);
        let deadline = self.deadline();
        let mut early = Early::default();
        let begun = self.begin(&downstream, &mut transport, &mut early, &mut log.info);
        // As Envoy, a connection is idle also while there is no server, or no answer of a tunnel.
        let begun = time::within(self.idle_timeout, begun);
        match time::until(deadline, begun).await {
            Ok(Ok(Some((cluster, connected)))) => {
                early.give_back(&mut transport);
                let server = log.info.upstream.host;
                let mongo = self.mongo.iter().map(|mongo| mongo.watch(server, drain.clone()));
                let watches = Watches {
                    mongo: mongo.collect(),
                    drain: self
                        .closes_when_draining
                        .then(|| DrainClose::new(drain.clone(), &self.stats.downstream_cx_drain_close)),
                };
                self.copy(&cluster, transport, connected, deadline, &mut log, &watches)
                    .await;
                return;
            }
            Ok(Ok(None)) => {}
            Ok(Err(time::Elapsed)) => {
                self.stats.idle_timeout.inc();
                self.unanswered(&mut log.info);
            }
            Err(time::Elapsed) => {
                self.too_old(&mut log.info);
                self.unanswered(&mut log.info);
            }
        }
        log.info.bytes_received = early.bytes_read();
        if early.is_nothing() {
            transport.close_unread();
        }
    }

    /// A connection to a server, as soon as there is to be one; the client may speak meanwhile, as far as that is configured. `None`: there
    /// is none, and what went wrong is in `info`.
    async fn begin(
        &self,
        downstream: &Downstream,
        transport: &mut Transport,
        early: &mut Early,
        info: &mut StreamInfo,
    ) -> Option<(Arc<Cluster>, Way)> {
        let Some(most_bytes) = self.early_data_bytes else {
            return self.connect(downstream, info).await;
        };
        let heard = &self.stats.early_data_received_count_total;
        let gone = if self.waits_for_data {
            early.first(transport, heard).await.err()
        } else {
            None
        };
        let gone = match gone {
            Some(error) => error,
            None => tokio::select! {
                biased;
                connected = self.connect(downstream, info) => return connected,
                error = early.listen(transport, most_bytes, heard) => error,
            },
        };
        tracing::debug!(error = %gone, "the client left before there was a server for it");
        info.upstream.host = None;
        None
    }

    /// A connection that comes to its end before this filter has it: it is counted and logged.
    pub(crate) fn turned_away(&self, info: StreamInfo, listener_log: &AccessLogger) {
        drop(OnEnd::new(self, info, listener_log));
    }

    /// As [`Self::turned_away`], for one that did not get through TLS: metrics do not know of it.
    pub(crate) fn unsecured(&self, info: StreamInfo, listener_log: &AccessLogger) {
        OnEnd::new(self, info, listener_log).reports.clear();
    }

    /// When a connection that begins now is to end. Source: Envoy `Filter::calculateMaxDownstreamConnectionDurationWithJitter`.
    fn deadline(&self) -> Option<Instant> {
        let (limit, jitter) = self.max_duration?;
        let jitter = limit.mul_f64(f64::from(jitter) / 10_000.0);
        Some(Instant::now() + limit + jitter.mul_f64(fastrand::f64()))
    }

    /// Time was up before there was a way to the server. As in Envoy, the host is known when there was a connection, and a tunnel had been
    /// asked for.
    fn unanswered(&self, info: &mut StreamInfo) {
        match self.tunnel.is_some() && info.upstream.local_address.take().is_some() {
            true => info.set_flag(ResponseFlag::UpstreamConnectionFailure),
            false => info.upstream.host = None,
        }
    }

    fn too_old(&self, info: &mut StreamInfo) {
        self.stats.max_downstream_connection_duration.inc();
        info.set_flag(ResponseFlag::DurationTimeout);
    }

    /// A connection to a host of the cluster; what went wrong is in `info`.
    async fn connect(&self, downstream: &Downstream, info: &mut StreamInfo) -> Option<(Arc<Cluster>, Way)> {
        let mut random = fastrand::Rng::new();
        let Target { cell, labels } = self
            .targets
            .draw(&mut random)
            .and_then(|index| self.targets.get(index))?;
        info.upstream_cluster_raw = Some(cell.name.clone());
        let Some(cluster) = cell.load() else {
            self.stats.downstream_cx_no_route.inc();
            info.set_flag(ResponseFlag::NoClusterFound);
            return None;
        };
        info.upstream_cluster = Some(cluster.stat_name.clone());
        info.destination = Some(cluster.destination.clone());
        let tls = TlsWish {
            client: match cluster.wants_client() {
                true => ProxiedClient::of(&downstream.info, true),
                false => None,
            },
            source: downstream.info.original_source,
            ..TlsWish::default()
        };
        let client = downstream.info.remote_address.ip();
        let hash = (self.hashes_source && cluster.wants_hash()).then(|| source_hash(client));
        let mut backoff = self.backoff.map(Backoff::new);
        for attempt in 0..self.max_connect_attempts {
            if let Some(backoff) = backoff.as_mut().filter(|_| attempt > 0) {
                time::sleep(backoff.next_wait(&mut random)).await;
            }
            let wish = Wish {
                dialled: downstream.info.original_dst(),
                hash,
                labels: labels.as_ref(),
                ..Wish::default()
            };
            let Some(host) = cluster.choose(&wish, &mut random) else {
                cluster.stats.upstream_cx_none_healthy.inc();
                info.set_flag(ResponseFlag::NoHealthyUpstream);
                return None;
            };
            let upstream = info.begin_attempt();
            upstream.host = Some(host.address);
            upstream.workload.clone_from(&host.workload);
            match self.reach(&cluster, &host, &tls, info).await {
                Ok(way) => {
                    cluster.outcome(&host, Outcome::Served);
                    way.tell(info);
                    return Some((cluster, way));
                }
                Err(error) => {
                    match error {
                        TunnelError::Connect(ConnectError::Overflow | ConnectError::NoPool) => {}
                        TunnelError::Connect(ConnectError::Timeout { .. }) => {
                            cluster.outcome(&host, Outcome::TimedOut);
                        }
                        _ => cluster.outcome(&host, Outcome::ConnectFailed),
                    }
                    failed(&cluster, &error, info);
                }
            }
        }
        info.set_flag(ResponseFlag::UpstreamRetryLimitExceeded);
        None
    }

    /// Connects, and opens the tunnel if there is to be one.
    async fn reach(
        &self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        tls: &TlsWish,
        info: &mut StreamInfo,
    ) -> Result<Way, TunnelError> {
        let Some(tunnel) = &self.tunnel else {
            let connected = connect::connect(cluster, host, tls, None).await?;
            return Ok(Way::Direct(Box::new(connected), None));
        };
        tunnel.open(cluster, host, tls, info).await
    }

    /// How long a connection may be without bytes.
    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    async fn copy(
        &self,
        cluster: &Cluster,
        transport: Transport,
        way: Way,
        deadline: Option<Instant>,
        log: &mut OnEnd<'_>,
        watches: &Watches<'_>,
    ) {
        let (connected, _permit) = match way {
            Way::Direct(connected, permit) => (*connected, permit),
            Way::Stream { stream, version, .. } => {
                let is_http2 = version == Version::Http2;
                let broken = is_http2.then_some(ResponseFlag::UpstreamRemoteReset);
                return self
                    .pass(cluster, transport, stream, broken, deadline, log, watches)
                    .await;
            }
        };
        let Connected {
            transport: mut upstream,
            tls,
            guard,
            ..
        } = connected;
        let alpn = tls.as_ref().and_then(|tls| tls.alpn.as_deref());
        if let Some(exchange) = &cluster.config.metadata_exchange
            && metadata_exchange::agreed(&exchange.protocol, alpn, &self.exchange)
        {
            let exchanged = self.exchange(&mut upstream, &exchange.additional_labels);
            // Nobody is to hold a connection by saying nothing.
            let exchanged = time::within(self.idle_timeout, exchanged);
            match time::until(deadline, exchanged).await {
                Err(time::Elapsed) => return self.too_old(&mut log.info),
                Ok(Err(time::Elapsed)) => return self.stats.idle_timeout.inc(),
                Ok(Ok(Ok(peer))) => log.info.upstream_peer = peer,
                Ok(Ok(Err(error))) => {
                    tracing::debug!(cluster = %cluster.name, %error, "metadata exchange failed");
                    log.info.set_flag(ResponseFlag::UpstreamConnectionTermination);
                    return;
                }
            }
        }
        let is_tunnel = self.tunnel.is_some();
        let broken = (!is_tunnel).then_some(ResponseFlag::UpstreamConnectionTermination);
        self.pass(cluster, transport, upstream, broken, deadline, log, watches)
            .await;
        drop(guard);
    }

    /// Moves bytes until the end, and says how it came. `broken`: the flag of one that the upstream broke off; as Envoy none for a tunnel in
    /// HTTP/1.
    #[allow(clippy::too_many_arguments)]
    async fn pass<U: AsyncRead + AsyncWrite + Unpin>(
        &self,
        cluster: &Cluster,
        mut transport: Transport,
        upstream: U,
        broken: Option<ResponseFlag>,
        deadline: Option<Instant>,
        log: &mut OnEnd<'_>,
        watches: &Watches<'_>,
    ) {
        let mongo = &watches.mongo;
        let drain = watches.drain.as_ref().map(|drain| drain as &dyn Watch);
        let watches: Vec<_> = mongo
            .iter()
            .map(|reading| reading as &dyn Watch)
            .chain(drain)
            .collect();
        // As Envoy: what the client ended has no answer any more.
        let one_end_is_both = broken.is_none();
        let copying = self.copy_and_report(&mut transport, upstream, log, &watches, one_end_is_both);
        let end = time::until(deadline, copying).await;
        if let Ok(CopyEnd::SecondClosed | CopyEnd::First(_)) = end {
            // In the first case Envoy waited for the client's end, after the server's.
            mongo.iter().for_each(Reading::client_ended);
        }
        if matches!(end, Ok(CopyEnd::Watched)) {
            // An end in good order, for TLS too. Whoever does not take it is not waited for.
            let _ = time::within(Some(FAREWELL), transport.shutdown()).await;
        }
        let info = &mut log.info;
        let (received, sent) = (log.meter.forward_bytes(), log.meter.backward_bytes());
        self.stats.downstream_cx_rx_bytes_total.add(received);
        self.stats.downstream_cx_tx_bytes_total.add(sent);
        cluster.stats.upstream_cx_tx_bytes_total.add(received);
        cluster.stats.upstream_cx_rx_bytes_total.add(sent);
        match end {
            Err(time::Elapsed) => self.too_old(info),
            Ok(CopyEnd::Closed | CopyEnd::SecondClosed | CopyEnd::Watched) => {}
            Ok(CopyEnd::Idle) => self.stats.idle_timeout.inc(),
            Ok(CopyEnd::First(error)) => {
                tracing::debug!(%error, "downstream connection failed");
                info.set_flag(ResponseFlag::DownstreamConnectionTermination);
            }
            Ok(CopyEnd::Second(error)) => {
                tracing::debug!(%error, "upstream connection failed");
                if let Some(flag) = broken {
                    info.set_flag(flag);
                }
                if broken == Some(ResponseFlag::UpstreamRemoteReset) {
                    transport.reset_on_close();
                }
            }
        }
    }

    /// Copies; every reporting interval Istio's metrics are told how far it is.
    async fn copy_and_report<U: AsyncRead + AsyncWrite + Unpin>(
        &self,
        downstream: &mut Transport,
        upstream: U,
        log: &mut OnEnd<'_>,
        watches: &[&dyn Watch],
        one_end_is_both: bool,
    ) -> CopyEnd {
        let OnEnd {
            info, meter, reports, ..
        } = log;
        let interval = self.istio_stats.iter().find_map(|stats| stats.reporting_interval);
        let copying = copy::both_ways(
            downstream,
            upstream,
            self.idle_timeout,
            meter,
            watches,
            one_end_is_both,
        );
        let mut copying = std::pin::pin!(copying);
        loop {
            match time::within(interval, copying.as_mut()).await {
                Ok(end) => return end,
                Err(time::Elapsed) => {
                    measure(info, meter);
                    for (report, stats) in reports.iter_mut().zip(&self.istio_stats) {
                        report.report(stats, info);
                    }
                }
            }
        }
    }

    /// Client side: our preface goes out at once; the server answers with its own before its first byte.
    async fn exchange(
        &self,
        upstream: &mut Transport,
        labels: &[String],
    ) -> std::io::Result<Option<Arc<Peer>>> {
        metadata_exchange::write(upstream, &self.local_peers.with_labels(labels)).await?;
        metadata_exchange::read(upstream, &self.exchange).await
    }
}

fn failed(cluster: &Cluster, error: &TunnelError, info: &mut StreamInfo) {
    tracing::debug!(cluster = %cluster.name, %error, "no upstream connection");
    info.set_flag(match error {
        TunnelError::Connect(ConnectError::Overflow | ConnectError::NoPool) => ResponseFlag::UpstreamOverflow,
        _ => ResponseFlag::UpstreamConnectionFailure,
    });
    let reason = match error {
        TunnelError::Connect(error) => error.transport_failure_reason(),
        _ => String::new(),
    };
    if !reason.is_empty() {
        info.upstream.transport_failure_reason = Some(reason.into());
    }
}

fn measure(info: &mut StreamInfo, meter: &Meter) {
    info.bytes_received = info.bytes_received.max(meter.forward_bytes());
    info.bytes_sent = meter.backward_bytes();
}

/// Writes the access log and the last metrics however the connection ends.
struct OnEnd<'a> {
    proxy: &'a TcpProxy,
    info: StreamInfo,
    meter: Meter,
    /// For each `istio.stats` filter.
    reports: Vec<TcpReport>,
    listener_log: &'a AccessLogger,
}

impl<'a> OnEnd<'a> {
    /// Counts the connection.
    fn new(proxy: &'a TcpProxy, info: StreamInfo, listener_log: &'a AccessLogger) -> Self {
        proxy.stats.downstream_cx_total.inc();
        proxy.stats.downstream_cx_active.inc();
        Self {
            proxy,
            info,
            meter: Meter::new(),
            reports: proxy.istio_stats.iter().map(|_| TcpReport::default()).collect(),
            listener_log,
        }
    }
}

impl Drop for OnEnd<'_> {
    fn drop(&mut self) {
        measure(&mut self.info, &self.meter);
        self.info.finish();
        for (report, stats) in self.reports.iter_mut().zip(&self.proxy.istio_stats) {
            report.end(stats, &self.info);
        }
        self.proxy.stats.downstream_cx_active.dec();
        let entry = Entry::of(&self.info);
        self.proxy.access_log.log(&entry);
        // As Envoy: what is known of a connection is known to both.
        self.listener_log.log(&entry);
    }
}
