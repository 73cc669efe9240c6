//! Faults: a request waits, is answered here, or its response is slow.
//! Source: envoy/extensions/filters/http/fault/v3/fault.proto; Envoy `FaultFilter`; Envoy docs, "Fault Injection".
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use outrigger_model::fraction::Fraction;
use outrigger_model::http_filter::fault::{
    AbortAnswer, Fault, FaultAbort, FaultDelay, FaultRateLimit, FaultShare,
};

use super::settings::RouteConfig;
use super::{Decode, Decoding, Filter, Resume, Scope};
use crate::http::local_reply::LocalReply;
use crate::http::matcher::HeaderMatcher;
use crate::stats::{Counter, Gauge};
use crate::telemetry::response_flag::ResponseFlag;
use crate::time;

/// The filter at its place.
#[derive(Debug)]
pub(super) struct FaultFilter {
    rules: Rules,
    stats: FaultStats,
    active: Arc<AtomicU64>,
}

/// `http.<stat_prefix>.fault.*`.
#[derive(Debug)]
struct FaultStats {
    delays_injected: Counter,
    aborts_injected: Counter,
    response_rl_injected: Counter,
    faults_overflow: Counter,
    active_faults: Gauge,
}

/// What happens to which requests.
#[derive(Debug)]
pub(super) struct Rules {
    config: Fault,
    headers: Vec<HeaderMatcher>,
}

/// A stream with a fault, until it ends.
#[derive(Debug)]
pub(in crate::http) struct ActiveFault {
    active: Arc<AtomicU64>,
    gauge: Gauge,
}

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

impl Rules {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &Fault) -> Result<Self, regex::Error> {
        let headers = config.headers.iter().map(HeaderMatcher::new);
        Ok(Self {
            headers: headers.collect::<Result<_, _>>()?,
            config: config.clone(),
        })
    }

    fn has_faults(&self) -> bool {
        let Fault {
            delay,
            abort,
            rate_limit,
            ..
        } = &self.config;
        delay.is_some() || abort.is_some() || rate_limit.is_some()
    }

    fn are_for(&self, request: &Decoding<'_>) -> bool {
        let Fault {
            upstream_cluster,
            downstream_nodes,
            ..
        } = &self.config;
        let is_cluster =
            upstream_cluster.is_empty() || request.cluster_name == Some(upstream_cluster.as_str());
        let is_node = downstream_nodes.is_empty() || {
            let node = request.head.headers.get("x-envoy-downstream-service-node");
            node.is_some_and(|node| {
                downstream_nodes
                    .iter()
                    .any(|one| one.as_bytes() == node.as_bytes())
            })
        };
        is_cluster && is_node && self.headers.iter().all(|header| header.matches(request.head))
    }
}

/// The number in a header; more than fits is none.
fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The share of requests, where a header may ask for less.
fn share(share: FaultShare, from_headers: bool, headers: &HeaderMap, name: &str) -> Fraction {
    let asked = from_headers.then(|| number::<u32>(headers, name)).flatten();
    match asked {
        Some(asked) => Fraction(asked.saturating_mul(share.unit)).min(share.most),
        None => share.most,
    }
}

fn delay(config: &FaultDelay, request: &Decoding<'_>) -> Option<Duration> {
    let headers = &request.head.headers;
    let name = "x-envoy-fault-delay-request-percentage";
    let share = share(config.share, config.fixed.is_none(), headers, name);
    if !request.draws(share) {
        return None;
    }
    let asked = || number(headers, "x-envoy-fault-delay-request").map(Duration::from_millis);
    config.fixed.or_else(asked).filter(|delay| !delay.is_zero())
}

/// What is answered, if the request is one of those.
fn abort(config: &FaultAbort, request: &Decoding<'_>) -> Option<LocalReply> {
    let headers = &request.head.headers;
    let is_from_header = config.answer == AbortAnswer::Header;
    let name = "x-envoy-fault-abort-request-percentage";
    let share = share(config.share, is_from_header, headers, name);
    let (status, grpc) = match config.answer {
        AbortAnswer::Http(status) => (status, None),
        AbortAnswer::Grpc(status) => (200, Some(status)),
        AbortAnswer::Header => {
            let status = number(headers, "x-envoy-fault-abort-request");
            match status.filter(|status| (200..600).contains(status)) {
                Some(status) => (status, None),
                None => (200, Some(number(headers, "x-envoy-fault-abort-grpc-request")?)),
            }
        }
    };
    if !request.draws(share) {
        return None;
    }
    let status = StatusCode::from_u16(status).ok()?;
    let flag = Some(ResponseFlag::FaultInjected);
    let mut reply = match config.body.as_str() {
        "" => LocalReply::new(status, flag, "fault_filter_abort", "fault filter abort"),
        body => LocalReply::new(status, flag, "fault_filter_abort", body.to_owned()),
    };
    reply.grpc_status = grpc;
    Some(reply)
}

/// Bytes a second of the response.
fn rate(config: &FaultRateLimit, request: &Decoding<'_>) -> Option<u64> {
    let headers = &request.head.headers;
    let asked = || number(headers, "x-envoy-fault-throughput-response");
    let kib = config.kib_per_second.or_else(asked).filter(|kib| *kib > 0)?;
    let name = "x-envoy-fault-throughput-response-percentage";
    let share = share(config.share, config.kib_per_second.is_none(), headers, name);
    request.draws(share).then(|| kib.saturating_mul(1024))
}

impl FaultFilter {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &Fault, scope: &Scope<'_>) -> Result<Self, regex::Error> {
        Ok(Self {
            rules: Rules::new(config)?,
            stats: FaultStats {
                delays_injected: scope.counter("fault.delays_injected"),
                aborts_injected: scope.counter("fault.aborts_injected"),
                response_rl_injected: scope.counter("fault.response_rl_injected"),
                faults_overflow: scope.counter("fault.faults_overflow"),
                active_faults: scope.gauge("fault.active_faults"),
            },
            active: Arc::default(),
        })
    }

    /// Room for one more; as Envoy's, the limit is not exact when several ask at once.
    fn has_room(&self, rules: &Rules) -> bool {
        let Some(most) = rules.config.max_active else {
            return true;
        };
        let has_room = self.active.load(Ordering::Relaxed) < u64::from(most);
        if !has_room {
            self.stats.faults_overflow.inc();
        }
        has_room
    }

    /// A stream counts once, whatever happens to it.
    fn begin(&self, request: &mut Decoding<'_>) {
        let mut active = request.stream.fault.borrow_mut();
        if active.is_none() {
            self.active.fetch_add(1, Ordering::Relaxed);
            self.stats.active_faults.inc();
            *active = Some(ActiveFault {
                active: self.active.clone(),
                gauge: self.stats.active_faults.clone(),
            });
        }
    }
}

impl Filter for FaultFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        let rules = match request.config {
            Some(RouteConfig::Fault(rules)) => rules,
            _ => &self.rules,
        };
        if !rules.has_faults() || !rules.are_for(request) || !self.has_room(rules) {
            return Decode::Continue;
        }
        let Fault {
            delay: delay_config,
            abort: abort_config,
            rate_limit,
            ..
        } = &rules.config;
        if let Some(bytes) = rate_limit.as_ref().and_then(|config| rate(config, request)) {
            self.begin(request);
            self.stats.response_rl_injected.inc();
            request.state.response_bytes_per_second = Some(bytes);
        }
        let reply = abort_config.as_ref().and_then(|config| abort(config, request));
        let waits = delay_config.as_ref().and_then(|config| delay(config, request));
        if waits.is_some() || reply.is_some() {
            self.begin(request);
        }
        let aborts = self.stats.aborts_injected.clone();
        let Some(waits) = waits else {
            return match reply {
                None => Decode::Continue,
                Some(reply) => {
                    aborts.inc();
                    Decode::Reply(Box::new(reply))
                }
            };
        };
        self.stats.delays_injected.inc();
        request
            .stream
            .info
            .borrow_mut()
            .set_flag(ResponseFlag::DelayInjected);
        Decode::Wait(Box::pin(async move {
            time::sleep(waits).await;
            match reply {
                None => Resume::Continue,
                Some(reply) => {
                    aborts.inc();
                    Resume::Reply(Box::new(reply))
                }
            }
        }))
    }
}
