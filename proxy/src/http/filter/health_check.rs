//! Answers health checks, or lets them pass and keeps what comes back.
//! Source: envoy/extensions/filters/http/health_check/v3/health_check.proto; Envoy `HealthCheckFilter`; docs, "Health check".
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use outrigger_model::http_filter::health_check::{HealthAnswer, HealthCheck};

use super::{Decode, Decoding, Encoding, Filter, Resume, Scope};
use crate::http::local_reply::LocalReply;
use crate::http::matcher::HeaderMatcher;
use crate::stats::Counter;
use crate::telemetry::response_flag::ResponseFlag;
use crate::time::Instant;
use crate::upstream::cluster_table::ClusterCell;

const CHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");

/// The filter at its place.
#[derive(Debug)]
pub(super) struct HealthCheckFilter {
    headers: Vec<HeaderMatcher>,
    answer: Answer,
    /// What this proxy is one of.
    own_cluster: HeaderValue,
    stats: HealthStats,
}

#[derive(Debug)]
enum Answer {
    /// Here; clusters with the least whole percent of their hosts.
    Own(Vec<(Arc<ClusterCell>, u64)>),
    Upstream(Option<Kept>),
}

/// `http.<stat_prefix>.health_check.*`.
#[derive(Debug)]
struct HealthStats {
    requests: Counter,
    ok: Counter,
    failed: Counter,
    cached: Counter,
    cluster_not_found: Counter,
    cluster_empty: Counter,
    cluster_unhealthy: Counter,
    degraded: Counter,
}

/// The last answer. Like Envoy's it is dropped every so often, however old it is then.
#[derive(Debug)]
struct Kept {
    begun: Instant,
    every: Duration,
    /// Number of the interval that it is from, status, whether degraded; 0: there is none.
    last: AtomicU64,
}

impl Kept {
    fn new(every: Duration) -> Self {
        Self {
            begun: Instant::now(),
            every,
            last: AtomicU64::new(0),
        }
    }

    /// Counts from 1.
    fn interval(&self) -> u64 {
        let passed = self.begun.elapsed().as_nanos() / self.every.as_nanos().max(1);
        u64::try_from(passed).unwrap_or(0) + 1
    }

    fn keep(&self, status: StatusCode, is_degraded: bool) {
        let answer = u64::from(status.as_u16()) << 1 | u64::from(is_degraded);
        self.last.store(self.interval() << 16 | answer, Ordering::Relaxed);
    }

    fn get(&self) -> Option<(StatusCode, bool)> {
        let last = self.last.load(Ordering::Relaxed);
        let status = u16::try_from(last >> 1 & 0x7fff).ok()?;
        let is_current = last >> 16 == self.interval();
        is_current.then_some((StatusCode::from_u16(status).ok()?, last & 1 == 1))
    }
}

impl HealthCheckFilter {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &HealthCheck, scope: &Scope<'_>) -> Result<Self, regex::Error> {
        let headers = config.headers.iter().map(HeaderMatcher::new);
        let counter = |name: &str| scope.counter(&format!("health_check.{name}"));
        Ok(Self {
            headers: headers.collect::<Result<_, _>>()?,
            answer: match &config.answer {
                HealthAnswer::Upstream(every) => Answer::Upstream(every.map(Kept::new)),
                HealthAnswer::Own(least) => Answer::Own(
                    least
                        .iter()
                        .map(|(name, percent)| (scope.clusters.cell(name), u64::from(*percent)))
                        .collect(),
                ),
            },
            own_cluster: HeaderValue::from_str(scope.local_peers.cluster())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            stats: HealthStats {
                requests: counter("request_total"),
                ok: counter("ok"),
                failed: counter("failed"),
                cached: counter("cached_response"),
                cluster_not_found: counter("failed_cluster_not_found"),
                cluster_empty: counter("failed_cluster_empty"),
                cluster_unhealthy: counter("failed_cluster_unhealthy"),
                degraded: counter("degraded"),
            },
        })
    }

    /// The answer by the health of clusters.
    fn own(&self, least: &[(Arc<ClusterCell>, u64)]) -> (StatusCode, &'static str) {
        let bad = StatusCode::SERVICE_UNAVAILABLE;
        for (cell, percent) in least {
            let Some(cluster) = cell.load() else {
                self.stats.cluster_not_found.inc();
                return (bad, "health_check_failed_no_cluster_found");
            };
            let census = cluster.hosts().census();
            if census.total == 0 {
                if *percent == 0 {
                    continue;
                }
                self.stats.cluster_empty.inc();
                return (bad, "health_check_failed_cluster_empty");
            }
            if 100 * (census.healthy + census.degraded) < census.total * percent {
                self.stats.cluster_unhealthy.inc();
                return (bad, "health_check_failed_cluster_unhealthy");
            }
        }
        let details = match least.is_empty() {
            true => "health_check_ok",
            false => "health_check_ok_cluster_healthy",
        };
        (StatusCode::OK, details)
    }

    fn reply(&self, status: StatusCode, details: &'static str) -> LocalReply {
        self.stats.requests.inc();
        let is_good = status.is_success();
        if is_good {
            self.stats.ok.inc();
        } else {
            self.stats.failed.inc();
        }
        let flag = (!is_good).then_some(ResponseFlag::FailedLocalHealthCheck);
        LocalReply::new(status, flag, details, "")
    }
}

impl Filter for HealthCheckFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        if !self.headers.iter().all(|header| header.matches(request.head)) {
            return Decode::Continue;
        }
        request.stream.info.borrow_mut().is_health_check = true;
        request.state.health_checks |= bit(request.place);
        let reply = match &self.answer {
            Answer::Own(least) => {
                let (status, details) = self.own(least);
                self.reply(status, details)
            }
            Answer::Upstream(kept) => {
                let Some((status, is_degraded)) = kept.as_ref().and_then(Kept::get) else {
                    return Decode::Continue;
                };
                request.state.health_remembered |= bit(request.place);
                self.stats.cached.inc();
                let mut reply = self.reply(status, "health_check_cached");
                if is_degraded {
                    self.stats.degraded.inc();
                    reply.headers.push((DEGRADED, HeaderValue::from_static("")));
                }
                reply
            }
        };
        let reply = Box::new(reply);
        match request.stream.body.take() {
            None => Decode::Reply(reply),
            // As Envoy, the request is heard out.
            Some(mut body) => Decode::Wait(Box::pin(async move {
                while let Some(Ok(_)) = body.frame().await {}
                Resume::Reply(reply)
            })),
        }
    }

    fn encode(&self, response: &mut Encoding<'_>) {
        if response.state.health_checks & bit(response.place) == 0 {
            return;
        }
        let head = &mut *response.head;
        // Unlike Envoy: what is kept already would not grow old while a slow client is heard out.
        let is_new = response.state.health_remembered & bit(response.place) == 0;
        if let Answer::Upstream(Some(kept)) = &self.answer
            && is_new
        {
            kept.keep(head.status, head.headers.contains_key(DEGRADED));
        }
        head.headers.insert(CHECKED_CLUSTER, self.own_cluster.clone());
    }
}

/// More places than bits there are not in any chain.
fn bit(place: usize) -> u64 {
    u32::try_from(place)
        .ok()
        .and_then(|place| 1_u64.checked_shl(place))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_to_the_end_of_its_interval() {
        let kept = Kept::new(Duration::from_secs(2));
        assert_eq!(kept.get(), None);
        tokio::time::advance(Duration::from_millis(1500)).await;
        kept.keep(StatusCode::OK, true);
        assert_eq!(kept.get(), Some((StatusCode::OK, true)));
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(kept.get(), None);
        kept.keep(StatusCode::SERVICE_UNAVAILABLE, false);
        assert_eq!(kept.get(), Some((StatusCode::SERVICE_UNAVAILABLE, false)));
    }
}
