//! Fault injection. Without rules it passes requests on; rules come with the traffic issue.
//! Source: envoy/extensions/filters/http/fault/v3/fault.proto, filters/common/fault/v3/fault.proto.
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::common::fault::v3::{
    self as common, fault_delay, fault_rate_limit,
};
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{self as pb, fault_abort};

use crate::cluster::ClusterName;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::fraction::Fraction;
use crate::matcher::HeaderMatcher;
use crate::scalar::Wrapped;

/// Which requests are delayed, answered or slowed, at a filter's place in the chain or for a route. Awaits the traffic issue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// Before a request goes on.
    pub delay: Option<FaultDelay>,
    /// Instead of forwarding it.
    pub abort: Option<FaultAbort>,
    /// For the response.
    pub rate_limit: Option<FaultRateLimit>,
    /// Only requests to this cluster; empty: all.
    pub upstream_cluster: ClusterName,
    /// Only requests that match all.
    pub headers: Vec<HeaderMatcher>,
    /// Only requests with one of these in `x-envoy-downstream-service-node`; empty: all.
    pub downstream_nodes: Vec<String>,
    /// Faults at a time; `None`: no limit.
    pub max_active: Option<u32>,
    /// Nothing is counted for the cluster that the request comes from.
    pub no_downstream_cluster_stats: bool,
}

/// How long a request waits. Awaits the traffic issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultDelay {
    /// Longer than 0; `None`: what `x-envoy-fault-delay-request` says.
    pub fixed: Option<Duration>,
    /// Of requests.
    pub share: Fraction,
}

/// What is answered. Awaits the traffic issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultAbort {
    /// The answer.
    pub answer: AbortAnswer,
    /// Of requests.
    pub share: Fraction,
    /// Empty: `fault filter abort`.
    pub body: String,
}

/// The status of an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortAnswer {
    /// 200..=599.
    Http(u16),
    /// A gRPC status.
    Grpc(u32),
    /// What `x-envoy-fault-abort-request` or `-grpc-request` says.
    Header,
}

/// How fast a response is. Awaits the traffic issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRateLimit {
    /// KiB a second, 1..; `None`: what `x-envoy-fault-throughput-response` says.
    pub kib_per_second: Option<u64>,
    /// Of responses.
    pub share: Fraction,
}

impl Fault {
    /// Converts the filter, or its settings for a route. Whoever holds them lists what has no effect.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::HttpFault) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::HttpFault {
            awaited "traffic" {
                delay, abort, response_rate_limit, upstream_cluster, headers, downstream_nodes, max_active_faults,
                disable_downstream_cluster_stats,
            }
            inert {
                delay_percent_runtime: "names a runtime key, and there is no runtime",
                abort_percent_runtime: "names a runtime key, and there is no runtime",
                delay_duration_runtime: "names a runtime key, and there is no runtime",
                abort_http_status_runtime: "names a runtime key, and there is no runtime",
                max_active_faults_runtime: "names a runtime key, and there is no runtime",
                response_rate_limit_percent_runtime: "names a runtime key, and there is no runtime",
                abort_grpc_status_runtime: "names a runtime key, and there is no runtime",
                filter_metadata: "only formatters and filters that do not exist here read it",
            }
        });
        Ok(Self {
            delay: delay
                .map(|proto| FaultDelay::from_proto(&at.field("delay"), proto))
                .transpose()?,
            abort: abort
                .map(|proto| FaultAbort::from_proto(&at.field("abort"), proto))
                .transpose()?,
            rate_limit: response_rate_limit
                .map(|proto| FaultRateLimit::from_proto(&at.field("response_rate_limit"), proto))
                .transpose()?,
            upstream_cluster,
            headers: HeaderMatcher::list(at.field("headers"), headers)?,
            downstream_nodes,
            max_active: max_active_faults.value(),
            no_downstream_cluster_stats: disable_downstream_cluster_stats,
        })
    }

    /// There is something that it would do.
    pub(crate) fn has_rules(&self) -> bool {
        self.delay.is_some() || self.abort.is_some() || self.rate_limit.is_some()
    }
}

impl FaultDelay {
    /// Converts the delay of an HTTP or network filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: common::FaultDelay) -> Result<Self, Rejection> {
        verdicts!(at, proto => common::FaultDelay { awaited "traffic" { percentage, fault_delay_secifier } });
        choices!(fault_delay::FaultDelaySecifier { awaited "traffic" { FixedDelay, HeaderDelay } });
        let fixed = match fault_delay_secifier {
            Some(fault_delay::FaultDelaySecifier::FixedDelay(delay)) => {
                at.field("fixed_delay").positive(Some(delay))?
            }
            Some(fault_delay::FaultDelaySecifier::HeaderDelay(proto)) => {
                verdicts!((), proto => fault_delay::HeaderDelay {});
                None
            }
            None => return Err(at.reject("has neither fixed_delay nor header_delay")),
        };
        let share = at.field("percentage").fraction(percentage)?;
        Ok(Self {
            fixed,
            share: share.unwrap_or(Fraction::NONE),
        })
    }
}

impl FaultAbort {
    fn from_proto(at: &FieldPath<'_>, proto: pb::FaultAbort) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::FaultAbort { awaited "traffic" { percentage, response_body, error_type } });
        choices!(fault_abort::ErrorType { awaited "traffic" { HttpStatus, GrpcStatus, HeaderAbort } });
        let answer = match error_type {
            Some(fault_abort::ErrorType::HttpStatus(code)) => {
                AbortAnswer::Http(at.field("http_status").status(code, 200..=599)?)
            }
            Some(fault_abort::ErrorType::GrpcStatus(code)) => AbortAnswer::Grpc(code),
            Some(fault_abort::ErrorType::HeaderAbort(proto)) => {
                verdicts!((), proto => fault_abort::HeaderAbort {});
                AbortAnswer::Header
            }
            None => return Err(at.reject("has none of http_status, grpc_status and header_abort")),
        };
        let share = at.field("percentage").fraction(percentage)?;
        Ok(Self {
            answer,
            share: share.unwrap_or(Fraction::NONE),
            body: response_body,
        })
    }
}

impl FaultRateLimit {
    fn from_proto(at: &FieldPath<'_>, proto: common::FaultRateLimit) -> Result<Self, Rejection> {
        verdicts!(at, proto => common::FaultRateLimit { awaited "traffic" { percentage, limit_type } });
        choices!(fault_rate_limit::LimitType { awaited "traffic" { FixedLimit, HeaderLimit } });
        let kib_per_second = match limit_type {
            Some(fault_rate_limit::LimitType::FixedLimit(proto)) => {
                let at = at.field("fixed_limit");
                verdicts!(at, proto => fault_rate_limit::FixedLimit { awaited "traffic" { limit_kbps } });
                Some(at.field("limit_kbps").within_u64(limit_kbps, 1..=u64::MAX)?)
            }
            Some(fault_rate_limit::LimitType::HeaderLimit(proto)) => {
                verdicts!((), proto => fault_rate_limit::HeaderLimit {});
                None
            }
            None => return Err(at.reject("has neither fixed_limit nor header_limit")),
        };
        let share = at.field("percentage").fraction(percentage)?;
        Ok(Self {
            kib_per_second,
            share: share.unwrap_or(Fraction::NONE),
        })
    }
}
