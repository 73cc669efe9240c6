//! Fault injection: requests that are delayed or answered here, responses that are slow.
//! Source: envoy/extensions/filters/http/fault/v3/fault.proto, filters/common/fault/v3/fault.proto.
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::common::fault::v3::{
    self as common, fault_delay, fault_rate_limit,
};
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{self as pb, fault_abort};
use envoy_types::pb::envoy::r#type::v3 as types;

use crate::cluster::ClusterName;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::fraction::Fraction;
use crate::matcher::HeaderMatcher;
use crate::scalar::Wrapped;

/// Which requests are delayed, answered or slowed, at a filter's place in the chain or for a route.
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
}

/// How long a request waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultDelay {
    /// Longer than 0; `None`: what `x-envoy-fault-delay-request` says.
    pub fixed: Option<Duration>,
    /// Of requests.
    pub share: FaultShare,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultAbort {
    /// The answer.
    pub answer: AbortAnswer,
    /// Of requests.
    pub share: FaultShare,
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

/// How fast a response is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRateLimit {
    /// KiB a second, 1..; `None`: what `x-envoy-fault-throughput-response` says.
    pub kib_per_second: Option<u64>,
    /// Of responses.
    pub share: FaultShare,
}

/// A share that a header of the request may make smaller, where headers say what the fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultShare {
    /// As configured.
    pub most: Fraction,
    /// What a header's number is in, parts of a million.
    pub unit: u32,
}

impl Fault {
    /// Converts the filter, or its settings for a route.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::HttpFault) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::HttpFault {
            supported {
                delay, abort, response_rate_limit, upstream_cluster, headers, downstream_nodes, max_active_faults,
            }
            inert {
                disable_downstream_cluster_stats: "no counter has the name of a downstream cluster in it",
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
        })
    }
}

impl FaultDelay {
    /// Converts the delay of an HTTP or network filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: common::FaultDelay) -> Result<Self, Rejection> {
        verdicts!(at, proto => common::FaultDelay { supported { percentage, fault_delay_secifier } });
        choices!(fault_delay::FaultDelaySecifier { supported { FixedDelay, HeaderDelay } });
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
        Ok(Self {
            fixed,
            share: FaultShare::from_proto(&at.field("percentage"), percentage)?,
        })
    }
}

impl FaultShare {
    fn from_proto(at: &FieldPath<'_>, proto: Option<types::FractionalPercent>) -> Result<Self, Rejection> {
        let one = proto.as_ref().map(|proto| types::FractionalPercent {
            numerator: 1,
            denominator: proto.denominator,
        });
        Ok(Self {
            most: at.fraction(proto)?.unwrap_or(Fraction::NONE),
            unit: at.fraction(one)?.unwrap_or(Fraction::NONE).0,
        })
    }
}

impl FaultAbort {
    fn from_proto(at: &FieldPath<'_>, proto: pb::FaultAbort) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::FaultAbort { supported { percentage, response_body, error_type } });
        choices!(fault_abort::ErrorType { supported { HttpStatus, GrpcStatus, HeaderAbort } });
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
        Ok(Self {
            answer,
            share: FaultShare::from_proto(&at.field("percentage"), percentage)?,
            body: response_body,
        })
    }
}

impl FaultRateLimit {
    fn from_proto(at: &FieldPath<'_>, proto: common::FaultRateLimit) -> Result<Self, Rejection> {
        verdicts!(at, proto => common::FaultRateLimit { supported { percentage, limit_type } });
        choices!(fault_rate_limit::LimitType { supported { FixedLimit, HeaderLimit } });
        let kib_per_second = match limit_type {
            Some(fault_rate_limit::LimitType::FixedLimit(proto)) => {
                let at = at.field("fixed_limit");
                verdicts!(at, proto => fault_rate_limit::FixedLimit { supported { limit_kbps } });
                Some(at.field("limit_kbps").within_u64(limit_kbps, 1..=u64::MAX)?)
            }
            Some(fault_rate_limit::LimitType::HeaderLimit(proto)) => {
                verdicts!((), proto => fault_rate_limit::HeaderLimit {});
                None
            }
            None => return Err(at.reject("has neither fixed_limit nor header_limit")),
        };
        Ok(Self {
            kib_per_second,
            share: FaultShare::from_proto(&at.field("percentage"), percentage)?,
        })
    }
}
