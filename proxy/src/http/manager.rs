//! The HTTP connection manager of one filter chain: everything a stream needs that does not change per request.
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue};
use outrigger_model::hcm::{self as model, HeadersWithUnderscores, HttpConnectionManager};
use outrigger_model::http_filter::grpc_stats::GrpcStats;
use outrigger_model::http_filter::{HttpFilter, PlacedFilter};
use outrigger_model::listener::TrafficDirection;

use super::downstream::Downstream;
use super::extras::Extras;
use super::filter::{Earlier, FilterChain, Scope};
use super::local_reply::mapping::LocalReplies;
use super::router::internal_redirect::PassedOn;
use super::scoped_routes::Routes;
use super::stream;
use crate::codec::{
    Http2Settings, Life, Refusal, Request, Response, ServerOptions, StreamHandler, Underscores,
};
use crate::stats::{Counter, Gauge, Histogram, Registry};
use crate::telemetry::access_log::AccessLogger;
use crate::telemetry::grpc::GRPC_STATUS;
use crate::telemetry::istio_stats::{IstioMetrics, IstioStats};
use crate::telemetry::peer::LocalPeers;
use crate::time::{self, Instant};
use crate::upstream::cluster_table::ClusterTable;

/// Runtime of `HttpConnectionManager`. Immutable; shared by all workers.
#[derive(Debug)]
pub(crate) struct ConnectionManager {
    /// What it was made of.
    pub(crate) config: HttpConnectionManager,
    /// Inbound or outbound: decides whose span operation a decorator names.
    pub(crate) direction: TrafficDirection,
    /// The routes.
    pub(crate) routes: Routes,
    /// Filters before the router that look at heads.
    pub(super) filters: FilterChain,
    /// `istio.stats` filters.
    pub(crate) istio_stats: Vec<IstioStats>,
    /// The `grpc_stats` filter.
    pub(crate) grpc_stats: Option<GrpcStats>,
    /// The same with the filters that came last; `None`: all filters are written in the listener.
    latest: Option<Box<ArcSwapOption<ConnectionManager>>>,
    /// What else heads get and lose; `None`: nothing.
    pub(super) extras: Option<Arc<Extras>>,
    /// What becomes of answers that are made here; `None`: nothing.
    pub(super) local_replies: Option<Arc<LocalReplies>>,
    /// The `server` header.
    pub(crate) server_name: HeaderValue,
    /// Logs.
    pub(crate) access_log: AccessLogger,
    /// What a stream keeps of its response head for logs and metrics.
    pub(crate) kept_response_headers: Vec<HeaderName>,
    /// Counters.
    pub(crate) stats: ManagerStats,
    /// For the codecs.
    pub(crate) options: ServerOptions,
    /// Clients that did not answer PINGs.
    deaf_clients: Counter,
    /// Bytes of a request's body that are kept to send it again, where routes say nothing else.
    pub(super) buffer_limit_bytes: usize,
}

/// `http.<stat_prefix>.*`. Source: Envoy docs, HTTP connection manager statistics.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub(crate) struct ManagerStats {
    pub(crate) downstream_cx_total: Counter,
    pub(crate) downstream_cx_active: Gauge,
    pub(crate) downstream_cx_http1_total: Counter,
    pub(crate) downstream_cx_http2_total: Counter,
    pub(crate) downstream_cx_protocol_error: Counter,
    pub(crate) downstream_cx_max_duration_reached: Counter,
    pub(crate) downstream_cx_max_requests_reached: Counter,
    pub(crate) downstream_rq_total: Counter,
    pub(crate) downstream_rq_active: Gauge,
    pub(crate) downstream_rq_http1_total: Counter,
    pub(crate) downstream_rq_http2_total: Counter,
    pub(crate) downstream_rq_completed: Counter,
    pub(crate) downstream_rq_class: [Counter; 5],
    pub(crate) downstream_rq_rx_reset: Counter,
    pub(crate) downstream_rq_rejected_via_ip_detection: Counter,
    pub(crate) downstream_rq_response_before_rq_complete: Counter,
    pub(crate) downstream_rq_idle_timeout: Counter,
    pub(crate) downstream_rq_timeout: Counter,
    pub(crate) downstream_rq_too_large: Counter,
    pub(crate) downstream_rq_max_duration_reached: Counter,
    pub(crate) downstream_cx_upgrades_total: Counter,
    pub(crate) downstream_cx_upgrades_active: Gauge,
    pub(crate) downstream_rq_ws_on_non_ws_route: Counter,
    pub(crate) downstream_rq_time: Histogram,
    pub(crate) no_route: Counter,
    pub(crate) no_cluster: Counter,
    pub(crate) rq_total: Counter,
    pub(super) redirects_passed_on: PassedOn,
}

impl ManagerStats {
    /// Registers them.
    pub(crate) fn new(registry: &Registry, stat_prefix: &str) -> Self {
        let counter = |name: &str| registry.counter(format!("http.{stat_prefix}.{name}"));
        let gauge = |name: &str| registry.gauge(format!("http.{stat_prefix}.{name}"));
        let histogram = |name: &str| registry.histogram(format!("http.{stat_prefix}.{name}"));
        Self {
            downstream_cx_total: counter("downstream_cx_total"),
            downstream_cx_active: gauge("downstream_cx_active"),
            downstream_cx_http1_total: counter("downstream_cx_http1_total"),
            downstream_cx_http2_total: counter("downstream_cx_http2_total"),
            downstream_cx_protocol_error: counter("downstream_cx_protocol_error"),
            downstream_cx_max_duration_reached: counter("downstream_cx_max_duration_reached"),
            downstream_cx_max_requests_reached: counter("downstream_cx_max_requests_reached"),
            downstream_rq_total: counter("downstream_rq_total"),
            downstream_rq_active: gauge("downstream_rq_active"),
            downstream_rq_http1_total: counter("downstream_rq_http1_total"),
            downstream_rq_http2_total: counter("downstream_rq_http2_total"),
            downstream_rq_completed: counter("downstream_rq_completed"),
            downstream_rq_class: [1, 2, 3, 4, 5].map(|class| counter(&format!("downstream_rq_{class}xx"))),
            downstream_rq_rx_reset: counter("downstream_rq_rx_reset"),
            downstream_rq_rejected_via_ip_detection: counter("downstream_rq_rejected_via_ip_detection"),
            downstream_rq_response_before_rq_complete: counter("downstream_rq_response_before_rq_complete"),
            downstream_rq_idle_timeout: counter("downstream_rq_idle_timeout"),
            downstream_rq_timeout: counter("downstream_rq_timeout"),
            downstream_rq_too_large: counter("downstream_rq_too_large"),
            downstream_rq_max_duration_reached: counter("downstream_rq_max_duration_reached"),
            downstream_cx_upgrades_total: counter("downstream_cx_upgrades_total"),
            downstream_cx_upgrades_active: gauge("downstream_cx_upgrades_active"),
            downstream_rq_ws_on_non_ws_route: counter("downstream_rq_ws_on_non_ws_route"),
            downstream_rq_time: histogram("downstream_rq_time"),
            no_route: counter("no_route"),
            no_cluster: counter("no_cluster"),
            rq_total: counter("rq_total"),
            redirects_passed_on: PassedOn::new(registry, stat_prefix),
        }
    }
}

/// What a manager is made from besides its configuration.
pub(crate) struct Parts<'a> {
    /// Inbound or outbound.
    pub(crate) direction: TrafficDirection,
    /// Where its routes are swapped.
    pub(crate) routes: Routes,
    /// Its logs.
    pub(crate) access_log: AccessLogger,
    /// Its filters as far as they have come, if some come by themselves; else those of its configuration count.
    pub(crate) discovered: Option<&'a [PlacedFilter]>,
    /// Who this proxy is, for the peer metadata filter.
    pub(crate) local_peers: &'a LocalPeers,
    /// Istio's metrics of this process.
    pub(crate) istio: &'a Arc<IstioMetrics>,
    /// Where counters are registered.
    pub(crate) registry: &'a Registry,
    /// All clusters.
    pub(crate) clusters: &'a Arc<ClusterTable>,
    /// Of its listener.
    pub(crate) buffer_limit_bytes: u32,
}

/// What filters are made from besides their configuration.
pub(crate) struct Surroundings<'a> {
    /// Who this proxy is, for the peer metadata filter.
    pub(crate) local_peers: &'a LocalPeers,
    /// Istio's metrics of this process.
    pub(crate) istio: &'a Arc<IstioMetrics>,
    /// Where counters are registered.
    pub(crate) registry: &'a Registry,
    /// All clusters.
    pub(crate) clusters: &'a Arc<ClusterTable>,
}

/// All filters of a list.
struct Filters {
    chain: FilterChain,
    istio_stats: Vec<IstioStats>,
    grpc_stats: Option<GrpcStats>,
}

impl Filters {
    fn new(
        configs: &[PlacedFilter],
        stat_prefix: &str,
        direction: TrafficDirection,
        surroundings: &Surroundings<'_>,
        earlier: Option<&Earlier<'_>>,
    ) -> Result<Self, regex::Error> {
        let scope = Scope {
            registry: surroundings.registry,
            prefix: format!("http.{stat_prefix}."),
            local_peers: surroundings.local_peers,
            clusters: surroundings.clusters,
        };
        let istio_stats = configs.iter().filter_map(|placed| match &placed.filter {
            HttpFilter::IstioStats(stats) => Some(IstioStats::new(stats, direction, surroundings.istio)),
            _ => None,
        });
        let grpc_stats = configs.iter().find_map(|placed| match &placed.filter {
            HttpFilter::GrpcStats(stats) => Some(stats.clone()),
            _ => None,
        });
        Ok(Self {
            chain: FilterChain::new(configs, &scope, earlier)?,
            istio_stats: istio_stats.collect(),
            grpc_stats,
        })
    }
}

impl ConnectionManager {
    /// Builds the runtime object.
    ///
    /// # Errors
    /// A regular expression does not compile (the model refuses such before).
    pub(crate) fn new(config: HttpConnectionManager, parts: Parts<'_>) -> Result<Self, regex::Error> {
        let surroundings = Surroundings {
            local_peers: parts.local_peers,
            istio: parts.istio,
            registry: parts.registry,
            clusters: parts.clusters,
        };
        let configs = parts.discovered.unwrap_or(&config.filters);
        let filters = Filters::new(configs, &config.stat_prefix, parts.direction, &surroundings, None)?;
        let local_replies = config
            .local_replies
            .as_deref()
            .map(LocalReplies::new)
            .transpose()?;
        let extras = config.head_extras.as_deref();
        let extras = extras
            .map(|extras| Extras::new(extras, &config, parts.local_peers))
            .transpose()?;
        let mut kept_response_headers = parts.access_log.response_headers();
        // Tells metrics how a gRPC call ended, when there are no trailers.
        kept_response_headers.push(GRPC_STATUS);
        Ok(Self {
            direction: parts.direction,
            routes: parts.routes,
            filters: filters.chain,
            istio_stats: filters.istio_stats,
            grpc_stats: filters.grpc_stats,
            latest: parts.discovered.map(|_| Box::default()),
            extras: extras.map(Arc::new),
            local_replies: local_replies.map(Arc::new),
            server_name: HeaderValue::from_str(&config.server_name)
                .unwrap_or_else(|_| HeaderValue::from_static("envoy")),
            access_log: parts.access_log,
            kept_response_headers,
            stats: ManagerStats::new(parts.registry, &config.stat_prefix),
            options: options(&config, parts.registry),
            deaf_clients: match config.http2.keepalive {
                Some(_) => parts.registry.counter("http2.keepalive_timeout"),
                None => Counter::none(),
            },
            buffer_limit_bytes: match parts.buffer_limit_bytes {
                // No limit, as in Envoy.
                0 => usize::MAX,
                bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
            },
            config,
        })
    }

    /// Streams that begin from now on pass the filters of `after`, which come after those of `before`. For a manager that has discovered
    /// filters.
    ///
    /// # Errors
    /// A regular expression does not compile (the model refuses such before).
    pub(crate) fn set_filters(
        &self,
        before: &[PlacedFilter],
        after: &[PlacedFilter],
        surroundings: &Surroundings<'_>,
    ) -> Result<(), regex::Error> {
        let Some(latest) = &self.latest else {
            return Ok(());
        };
        let current = latest.load_full();
        let earlier = Earlier {
            configs: before,
            chain: current
                .as_deref()
                .map_or(&self.filters, |current| &current.filters),
        };
        let prefix = &self.config.stat_prefix;
        let filters = Filters::new(after, prefix, self.direction, surroundings, Some(&earlier))?;
        latest.store(Some(Arc::new(Self {
            config: self.config.clone(),
            direction: self.direction,
            routes: self.routes.clone(),
            filters: filters.chain,
            istio_stats: filters.istio_stats,
            grpc_stats: filters.grpc_stats,
            latest: None,
            extras: self.extras.clone(),
            local_replies: self.local_replies.clone(),
            server_name: self.server_name.clone(),
            access_log: self.access_log.clone(),
            kept_response_headers: self.kept_response_headers.clone(),
            stats: self.stats.clone(),
            options: self.options.clone(),
            deaf_clients: self.deaf_clients.clone(),
            buffer_limit_bytes: self.buffer_limit_bytes,
        })));
        Ok(())
    }
}

fn options(config: &HttpConnectionManager, registry: &Registry) -> ServerOptions {
    let model::HttpConnectionManager {
        http2,
        max_request_headers_kb,
        ..
    } = config;
    let max_head_bytes = max_request_headers_kb.saturating_mul(1024);
    ServerOptions {
        max_head_bytes: max_head_bytes as usize,
        max_headers: config.max_request_headers_count as usize,
        accept_http_10: config.accept_http_10,
        takes_chunked_length: config.takes_chunked_length,
        passes_trailers: config.http1.passes_trailers,
        name_case: config.http1.name_case,
        informs: config.passes_100_continue,
        http1_underscores: underscores(config.underscores, registry, "http1"),
        http2_underscores: underscores(config.underscores, registry, "http2"),
        head_timeout: config.request_headers_timeout,
        idle_timeout: config.idle_timeout,
        drain_timeout: config.drain_timeout.shortest,
        drain_closes_idle: false,
        life: Life {
            old_at: None,
            http1_waits_for_response: config.http1_waits_for_response,
            requests: config.requests_per_connection,
            linger: config.close_delay,
        },
        http2: Http2Settings {
            max_concurrent_streams: http2.max_concurrent_streams,
            stream_window: http2.initial_stream_window_bytes,
            connection_window: http2.initial_connection_window_bytes,
            max_header_list_bytes: max_head_bytes,
            allows_connect: http2.allows_connect,
            header_table_bytes: http2.header_table_bytes,
            keepalive: http2.keepalive,
        },
    }
}

impl ConnectionManager {
    /// For the codec of a connection that begins now.
    pub(crate) fn connection_options(&self) -> ServerOptions {
        let mut options = self.options.clone();
        let age = self.config.connection_age.map(time::drawn);
        options.life.old_at = age.map(|age| Instant::now() + age);
        options.drain_timeout = time::drawn(self.config.drain_timeout);
        options
    }
}

/// Counted for all connection managers together. Source: Envoy `Http1::CodecStats`, `Http2::CodecStats`.
fn underscores(action: HeadersWithUnderscores, registry: &Registry, version: &str) -> Underscores {
    let counter = |name: &str| registry.counter(format!("{version}.{name}"));
    match action {
        HeadersWithUnderscores::Allow => Underscores::Allow,
        HeadersWithUnderscores::Reject => {
            Underscores::Reject(counter("requests_rejected_with_underscores_in_headers"))
        }
        HeadersWithUnderscores::Drop => Underscores::Drop(counter("dropped_headers_with_underscores")),
    }
}

/// Answers the streams of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionHandler {
    /// The chain's manager when the connection began.
    pub(crate) manager: Arc<ConnectionManager>,
    /// The connection.
    pub(crate) downstream: Rc<Downstream>,
}

impl StreamHandler for ConnectionHandler {
    async fn handle(&self, request: Request) -> Response {
        let latest = match &self.manager.latest {
            None => None,
            Some(latest) => latest.load_full(),
        };
        let manager = latest.as_ref().unwrap_or(&self.manager);
        self.downstream.protocol.set(Some(request.head.version));
        stream::run(manager, &self.downstream, request, None).await
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        stream::refuse(&self.manager, &self.downstream, refusal)
    }

    fn gave_up(&self) {
        stream::gave_up(&self.manager, &self.downstream);
    }

    fn is_old(&self) {
        self.manager.stats.downstream_cx_max_duration_reached.inc();
    }

    fn is_spent(&self) {
        self.manager.stats.downstream_cx_max_requests_reached.inc();
    }

    fn is_deaf(&self) {
        self.manager.deaf_clients.inc();
    }

    fn reset(&self, details: &'static str) {
        stream::reset(&self.manager, &self.downstream, details);
    }
}
