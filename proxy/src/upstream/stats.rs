//! Counters of one cluster. Source: Envoy docs, cluster stats.
mod grpc;
mod rate_limit;

use std::sync::{Arc, OnceLock};

use http::StatusCode;
use outrigger_model::cluster::LbPolicy;

use self::grpc::ClusterGrpc;
pub(crate) use self::grpc::GrpcStats;
use self::rate_limit::ClusterRateLimits;
pub(crate) use self::rate_limit::RateLimited;
use super::endpoint::Census;
use super::health_check::HealthStats;
use super::lb::{Ring, SubsetStats, ZoneStats};
use super::outlier::OutlierStats;
use crate::stats::{Counter, Gauge, Histogram, Registry, ResponseCodes, Unregistered};
use crate::tls::error::SslCounter;

/// `cluster.<stat name>.*`; registered when the cluster is made, so that a request touches no string.
#[derive(Debug)]
#[allow(missing_docs)]
pub(crate) struct ClusterStats {
    pub(crate) upstream_cx_total: Counter,
    pub(crate) upstream_cx_active: Gauge,
    pub(crate) upstream_cx_http1_total: Counter,
    pub(crate) upstream_cx_http2_total: Counter,
    pub(crate) upstream_cx_connect_fail: Counter,
    pub(crate) upstream_cx_connect_timeout: Counter,
    pub(crate) upstream_cx_overflow: Counter,
    pub(crate) upstream_cx_pool_overflow: Counter,
    pub(crate) upstream_cx_idle_timeout: Counter,
    pub(crate) upstream_cx_connect_ms: Histogram,
    pub(crate) upstream_cx_none_healthy: Counter,
    pub(crate) upstream_cx_tx_bytes_total: Counter,
    pub(crate) upstream_cx_rx_bytes_total: Counter,
    pub(crate) upstream_rq_total: Counter,
    pub(crate) upstream_rq_active: Gauge,
    pub(crate) upstream_rq_active_overflow: Counter,
    pub(crate) upstream_rq_pending_total: Counter,
    pub(crate) upstream_rq_pending_overflow: Counter,
    pub(crate) upstream_rq_pending_failure_eject: Counter,
    pub(crate) upstream_rq_timeout: Counter,
    pub(crate) upstream_rq_per_try_timeout: Counter,
    pub(crate) upstream_rq_per_try_idle_timeout: Counter,
    pub(crate) upstream_rq_max_duration_reached: Counter,
    pub(crate) upstream_rq_rx_reset: Counter,
    pub(crate) upstream_rq_retry: Counter,
    pub(crate) upstream_rq_retry_success: Counter,
    pub(crate) upstream_rq_retry_backoff_exponential: Counter,
    pub(crate) upstream_rq_retry_backoff_ratelimited: Counter,
    pub(crate) upstream_rq_retry_overflow: Counter,
    pub(crate) upstream_rq_retry_limit_exceeded: Counter,
    pub(crate) responses: ResponseCodes,
    later: Later,
    pub(crate) upstream_rq_time: Histogram,
    pub(crate) membership_total: Gauge,
    pub(crate) membership_healthy: Gauge,
    pub(crate) membership_degraded: Gauge,
    pub(crate) membership_excluded: Gauge,
    pub(crate) membership_change: Counter,
    pub(crate) lb_healthy_panic: Counter,
    pub(crate) update_attempt: Counter,
    pub(crate) update_failure: Counter,
    pub(crate) update_no_rebuild: Counter,
    pub(crate) update_success: Counter,
    pub(crate) update_empty: Counter,
    pub(crate) assignment_stale: Counter,
    pub(crate) assignment_timeout_received: Counter,
    pub(crate) ssl_handshake: Counter,
    pub(crate) ssl_session_reused: Counter,
    pub(crate) ssl_no_certificate: Counter,
    pub(crate) ssl_connection_error: Counter,
    pub(crate) ssl_fail_verify_error: Counter,
    pub(crate) ssl_fail_verify_san: Counter,
    pub(crate) ssl_fail_verify_no_cert: Counter,
}

/// Redirects of the cluster that a route asks to follow.
#[derive(Debug)]
#[allow(missing_docs)]
pub(crate) struct InternalRedirectStats {
    pub(crate) succeeded: Counter,
    pub(crate) failed: Counter,
}

/// Stats that not every cluster has.
#[derive(Debug)]
struct Later {
    /// Where, and what their names begin with.
    registry: Option<(Arc<Registry>, String)>,
    grpc: ClusterGrpc,
    redirects: OnceLock<InternalRedirectStats>,
    retry_abandoned: OnceLock<Counter>,
    rate_limits: ClusterRateLimits,
    original_dst_invalid: OnceLock<Counter>,
    deaf_servers: OnceLock<Counter>,
}

impl Later {
    fn counter(&self, name: &str) -> Counter {
        match &self.registry {
            Some((registry, prefix)) => registry.counter(format!("{prefix}{name}")),
            None => Counter::none(),
        }
    }

    fn gauge(&self, name: &str) -> Gauge {
        match &self.registry {
            Some((registry, prefix)) => registry.gauge(format!("{prefix}{name}")),
            None => Gauge::none(),
        }
    }
}

/// Makes stats by the last part of their names.
struct Made<'a> {
    counter: &'a dyn Fn(&str) -> Counter,
    gauge: &'a dyn Fn(&str) -> Gauge,
    histogram: &'a dyn Fn(&str) -> Histogram,
}

impl ClusterStats {
    /// Registers them under `cluster.<stat_name>.`.
    pub(crate) fn new(registry: &Arc<Registry>, stat_name: &str) -> Self {
        let name = |name: &str| format!("cluster.{stat_name}.{name}");
        let made = Made {
            counter: &|stat| registry.counter(name(stat)),
            gauge: &|stat| registry.gauge(name(stat)),
            histogram: &|stat| registry.histogram(name(stat)),
        };
        let responses = ResponseCodes::new(registry, &name("upstream_rq_"));
        Self::build(&made, responses, Some((registry, name(""))))
    }

    /// Those of a cluster that is only looked at: they count nothing.
    pub(crate) fn none() -> Self {
        let made = Made {
            counter: &|_| Counter::none(),
            gauge: &|_| Gauge::none(),
            histogram: &|_| Histogram::none(),
        };
        Self::build(&made, ResponseCodes::none(), None)
    }

    fn build(made: &Made<'_>, responses: ResponseCodes, later: Option<(&Arc<Registry>, String)>) -> Self {
        let Made {
            counter,
            gauge,
            histogram,
        } = *made;
        let later = later.map(|(registry, prefix)| (Arc::clone(registry), prefix));
        Self {
            upstream_cx_total: counter("upstream_cx_total"),
            upstream_cx_active: gauge("upstream_cx_active"),
            upstream_cx_http1_total: counter("upstream_cx_http1_total"),
            upstream_cx_http2_total: counter("upstream_cx_http2_total"),
            upstream_cx_connect_fail: counter("upstream_cx_connect_fail"),
            upstream_cx_connect_timeout: counter("upstream_cx_connect_timeout"),
            upstream_cx_overflow: counter("upstream_cx_overflow"),
            upstream_cx_pool_overflow: counter("upstream_cx_pool_overflow"),
            upstream_cx_idle_timeout: counter("upstream_cx_idle_timeout"),
            upstream_cx_connect_ms: histogram("upstream_cx_connect_ms"),
            upstream_cx_none_healthy: counter("upstream_cx_none_healthy"),
            upstream_cx_tx_bytes_total: counter("upstream_cx_tx_bytes_total"),
            upstream_cx_rx_bytes_total: counter("upstream_cx_rx_bytes_total"),
            upstream_rq_total: counter("upstream_rq_total"),
            upstream_rq_active: gauge("upstream_rq_active"),
            upstream_rq_active_overflow: counter("upstream_rq_active_overflow"),
            upstream_rq_pending_total: counter("upstream_rq_pending_total"),
            upstream_rq_pending_overflow: counter("upstream_rq_pending_overflow"),
            upstream_rq_pending_failure_eject: counter("upstream_rq_pending_failure_eject"),
            upstream_rq_timeout: counter("upstream_rq_timeout"),
            upstream_rq_per_try_timeout: counter("upstream_rq_per_try_timeout"),
            upstream_rq_per_try_idle_timeout: counter("upstream_rq_per_try_idle_timeout"),
            upstream_rq_max_duration_reached: counter("upstream_rq_max_duration_reached"),
            upstream_rq_rx_reset: counter("upstream_rq_rx_reset"),
            upstream_rq_retry: counter("upstream_rq_retry"),
            upstream_rq_retry_success: counter("upstream_rq_retry_success"),
            upstream_rq_retry_backoff_exponential: counter("upstream_rq_retry_backoff_exponential"),
            upstream_rq_retry_backoff_ratelimited: counter("upstream_rq_retry_backoff_ratelimited"),
            upstream_rq_retry_overflow: counter("upstream_rq_retry_overflow"),
            upstream_rq_retry_limit_exceeded: counter("upstream_rq_retry_limit_exceeded"),
            responses,
            later: Later {
                grpc: ClusterGrpc::new(later.as_ref()),
                registry: later,
                redirects: OnceLock::new(),
                retry_abandoned: OnceLock::new(),
                rate_limits: ClusterRateLimits::default(),
                original_dst_invalid: OnceLock::new(),
                deaf_servers: OnceLock::new(),
            },
            upstream_rq_time: histogram("upstream_rq_time"),
            membership_total: gauge("membership_total"),
            membership_healthy: gauge("membership_healthy"),
            membership_degraded: gauge("membership_degraded"),
            membership_excluded: gauge("membership_excluded"),
            membership_change: counter("membership_change"),
            lb_healthy_panic: counter("lb_healthy_panic"),
            update_attempt: counter("update_attempt"),
            update_failure: counter("update_failure"),
            update_no_rebuild: counter("update_no_rebuild"),
            update_success: counter("update_success"),
            update_empty: counter("update_empty"),
            assignment_stale: counter("assignment_stale"),
            assignment_timeout_received: counter("assignment_timeout_received"),
            ssl_handshake: counter("ssl.handshake"),
            ssl_session_reused: counter("ssl.session_reused"),
            ssl_no_certificate: counter("ssl.no_certificate"),
            ssl_connection_error: counter("ssl.connection_error"),
            ssl_fail_verify_error: counter("ssl.fail_verify_error"),
            ssl_fail_verify_san: counter("ssl.fail_verify_san"),
            ssl_fail_verify_no_cert: counter("ssl.fail_verify_no_cert"),
        }
    }

    /// Counters of gRPC calls, of `service.method` or of all; made by the first.
    pub(crate) fn grpc(&self, method: Option<&str>) -> Arc<GrpcStats> {
        match method {
            Some(method) => self.later.grpc.of(method),
            None => self.later.grpc.all().clone(),
        }
    }

    /// Counts what a rate limit service said of a request, for filters with this prefix.
    pub(crate) fn rate_limited(&self, prefix: &str, what: RateLimited) {
        let register = |name: &str| self.later.counter(name);
        self.later.rate_limits.count(prefix, what, register);
    }

    /// Counts a request that cannot be sent again because it is larger than what is kept.
    pub(crate) fn retry_abandoned(&self) {
        let make = || self.later.counter("retry_or_shadow_abandoned");
        self.later.retry_abandoned.get_or_init(make).inc();
    }

    /// Counts a request that names where it is to go, and no address with a port.
    pub(crate) fn original_dst_invalid(&self) {
        let make = || self.later.counter("original_dst_host_invalid");
        self.later.original_dst_invalid.get_or_init(make).inc();
    }

    /// Counters of redirects; made by the first.
    pub(crate) fn internal_redirects(&self) -> &InternalRedirectStats {
        self.later.redirects.get_or_init(|| InternalRedirectStats {
            succeeded: self.later.counter("upstream_internal_redirect_succeeded_total"),
            failed: self.later.counter("upstream_internal_redirect_failed_total"),
        })
    }

    /// Connections that ended for want of an answer to a PING; made by the first that asks.
    pub(crate) fn deaf_servers(&self) -> Counter {
        let counter = || self.later.counter("http2.keepalive_timeout");
        self.later.deaf_servers.get_or_init(counter).clone()
    }

    /// Stats of outlier detection; call it once.
    pub(crate) fn outlier(&self) -> OutlierStats {
        OutlierStats::new(|name| self.later.counter(name), |name| self.later.gauge(name))
    }

    /// Stats of active health checks; call it once.
    pub(crate) fn health_check(&self) -> HealthStats {
        HealthStats::new(|name| self.later.counter(name), |name| self.later.gauge(name))
    }

    /// Stats of zones; call it once.
    pub(crate) fn zones(&self) -> ZoneStats {
        ZoneStats::new(|name| self.later.counter(name))
    }

    /// Stats of subsets; call it once.
    pub(crate) fn subsets(&self) -> SubsetStats {
        SubsetStats::new(|name| self.later.counter(name), |name| self.later.gauge(name))
    }

    /// Counters of [`UPDATES`].
    pub(super) fn updates(&self) -> [&Counter; UPDATES.len()] {
        [
            &self.update_success,
            &self.update_empty,
            &self.membership_change,
            &self.assignment_timeout_received,
            &self.assignment_stale,
        ]
    }

    /// Shows how many hosts there are.
    pub(crate) fn members(&self, census: Census) {
        self.membership_total.set(census.total);
        self.membership_healthy.set(census.healthy);
        self.membership_degraded.set(census.degraded);
        self.membership_excluded.set(census.excluded);
    }

    /// Shows the size of a table for consistent hashing. Source: Envoy docs, ring hash and Maglev load balancer statistics.
    pub(crate) fn ring(&self, policy: &LbPolicy, ring: Ring) {
        let set = |name: &str, value| self.later.gauge(name).set(value);
        if matches!(policy, LbPolicy::RingHash { .. }) {
            set("ring_hash_lb.size", ring.size);
            set("ring_hash_lb.min_hashes_per_host", ring.fewest);
            set("ring_hash_lb.max_hashes_per_host", ring.most);
        } else {
            set("maglev_lb.min_entries_per_host", ring.fewest);
            set("maglev_lb.max_entries_per_host", ring.most);
        }
    }

    /// Counts a response status.
    pub(crate) fn response(&self, status: StatusCode) {
        self.responses.count(status);
    }

    /// Counts what a handshake did.
    pub(crate) fn ssl(&self, counter: SslCounter) {
        match counter {
            SslCounter::Handshake => self.ssl_handshake.inc(),
            SslCounter::SessionReused => self.ssl_session_reused.inc(),
            SslCounter::NoCertificate => self.ssl_no_certificate.inc(),
            SslCounter::ConnectionError => self.ssl_connection_error.inc(),
            SslCounter::FailVerifyError => self.ssl_fail_verify_error.inc(),
            SslCounter::FailVerifyNoCert => self.ssl_fail_verify_no_cert.inc(),
            SslCounter::FailVerifySan => self.ssl_fail_verify_san.inc(),
        }
    }
}

/// What is counted of a cluster before it is made, in the order of [`ClusterStats::updates`].
pub(super) const UPDATES: [&str; 5] = [
    "update_success",
    "update_empty",
    "membership_change",
    "assignment_timeout_received",
    "assignment_stale",
];

/// The stats of a cluster that nobody has used: what [`ClusterStats::new`] registers, with what is known before, `updates` of
/// [`UPDATES`].
pub(super) fn unused(members: Census, updates: [u64; UPDATES.len()]) -> Vec<(&'static str, Unregistered)> {
    let [_, _, changes, ..] = updates;
    let has_members = changes > 0;
    let gauge = |value: u64| Unregistered::Gauge(has_members.then_some(value));
    let mut stats = Vec::with_capacity(COUNTERS.len() + GAUGES.len() + HISTOGRAMS.len() + UPDATES.len() + 4);
    stats.extend(COUNTERS.map(|name| (name, Unregistered::Counter(None))));
    stats.extend(GAUGES.map(|name| (name, Unregistered::Gauge(None))));
    stats.extend(HISTOGRAMS.map(|name| (name, Unregistered::Histogram)));
    stats.extend([
        ("membership_total", gauge(members.total)),
        ("membership_healthy", gauge(members.healthy)),
        ("membership_degraded", gauge(members.degraded)),
        ("membership_excluded", gauge(members.excluded)),
    ]);
    let counters = UPDATES.into_iter().zip(updates);
    stats.extend(counters.map(|(name, count)| (name, Unregistered::Counter((count > 0).then_some(count)))));
    stats
}

const COUNTERS: [&str; 39] = [
    "upstream_cx_total",
    "upstream_cx_http1_total",
    "upstream_cx_http2_total",
    "upstream_cx_connect_fail",
    "upstream_cx_connect_timeout",
    "upstream_cx_overflow",
    "upstream_cx_pool_overflow",
    "upstream_cx_idle_timeout",
    "upstream_cx_none_healthy",
    "upstream_cx_tx_bytes_total",
    "upstream_cx_rx_bytes_total",
    "upstream_rq_total",
    "upstream_rq_active_overflow",
    "upstream_rq_pending_total",
    "upstream_rq_pending_overflow",
    "upstream_rq_pending_failure_eject",
    "upstream_rq_timeout",
    "upstream_rq_per_try_timeout",
    "upstream_rq_per_try_idle_timeout",
    "upstream_rq_max_duration_reached",
    "upstream_rq_rx_reset",
    "upstream_rq_retry",
    "upstream_rq_retry_success",
    "upstream_rq_retry_backoff_exponential",
    "upstream_rq_retry_backoff_ratelimited",
    "upstream_rq_retry_overflow",
    "upstream_rq_retry_limit_exceeded",
    "upstream_rq_completed",
    "lb_healthy_panic",
    "update_attempt",
    "update_failure",
    "update_no_rebuild",
    "ssl.handshake",
    "ssl.session_reused",
    "ssl.no_certificate",
    "ssl.connection_error",
    "ssl.fail_verify_error",
    "ssl.fail_verify_san",
    "ssl.fail_verify_no_cert",
];
const GAUGES: [&str; 2] = ["upstream_cx_active", "upstream_rq_active"];
const HISTOGRAMS: [&str; 2] = ["upstream_cx_connect_ms", "upstream_rq_time"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Show, Source, TagRules, text};

    struct One;

    impl Source for One {
        fn show(&self, show: &mut Show<'_>) {
            show("cluster.a.", &unused(Census::default(), [0; UPDATES.len()]));
        }
    }

    #[test]
    fn a_cluster_that_nobody_uses_shows_the_stats_that_it_would_register() {
        let registry = || Registry::new(TagRules::new(&[], false).expect("no rule"));
        let (registered, shown) = (registry(), registry());
        let _used = ClusterStats::new(&registered, "a");
        let source = Arc::new(One);
        shown.add_source(&source);
        assert_eq!(text(&shown, None, false), text(&registered, None, false));
    }
}
