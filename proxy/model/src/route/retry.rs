//! Protobuf to [`RetryPolicy`], and the words of `retry_on`.
use std::ops::BitOrAssign;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::{self as pb, retry_policy};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;

use super::policy::previous_priorities;
use super::{ResetFormat, ResetHeader, RetryOn, RetryPolicy};
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::matcher::HeaderMatcher;
use crate::scalar::Wrapped;

/// First back-off of retries when unset. Source: router filter docs, `x-envoy-max-retries`.
const BACKOFF_BASE: Duration = Duration::from_millis(25);
/// `RateLimitedRetryBackOff.max_interval` when unset.
const RESET_MAX: Duration = Duration::from_secs(300);

impl RetryPolicy {
    /// Converts the policy of a route, a virtual host or a cluster.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::RetryPolicy) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::RetryPolicy {
            supported {
                retry_on, num_retries, per_try_timeout, retry_host_predicate, host_selection_retry_max_attempts,
                retriable_status_codes, retry_back_off, retriable_headers, retriable_request_headers,
                rate_limited_retry_back_off, per_try_idle_timeout, retry_priority,
            }
            inert { refresh_cluster_on_retry: "is for plugins that choose clusters, and those are refused" }
            never { retry_options_predicates: "extensions, of which Envoy has none built in" }
        });
        let codes = retriable_status_codes
            .into_iter()
            .enumerate()
            .map(|(index, code)| {
                at.field("retriable_status_codes")
                    .index(index)
                    .status(code, 100..=599)
            });
        let attempts = match u32::try_from(host_selection_retry_max_attempts) {
            Ok(attempts) => attempts.max(1),
            Err(_) => {
                let reason = format!(
                    "{host_selection_retry_max_attempts} is not between 0 and {}",
                    u32::MAX
                );
                return Err(at.field("host_selection_retry_max_attempts").reject(reason));
            }
        };
        let (backoff_base, backoff_max) = backoff(&at.field("retry_back_off"), retry_back_off)?;
        let (reset_headers, reset_max) = reset(
            &at.field("rate_limited_retry_back_off"),
            rate_limited_retry_back_off,
        )?;
        Ok(Self {
            retry_on: RetryOn::parse(&at.field("retry_on"), &retry_on),
            num_retries: num_retries.value().unwrap_or(1),
            per_try_timeout: at
                .field("per_try_timeout")
                .limit(per_try_timeout, Duration::ZERO)?,
            per_try_idle_timeout: at
                .field("per_try_idle_timeout")
                .limit(per_try_idle_timeout, Duration::ZERO)?,
            retriable_status_codes: codes.collect::<Result<_, _>>()?,
            retriable_headers: HeaderMatcher::list(at.field("retriable_headers"), retriable_headers)?,
            retriable_request_headers: HeaderMatcher::list(
                at.field("retriable_request_headers"),
                retriable_request_headers,
            )?,
            avoid_previous_hosts: avoid_previous_hosts(
                at.field("retry_host_predicate"),
                retry_host_predicate,
            )?,
            previous_priorities: previous_priorities(&at.field("retry_priority"), retry_priority)?,
            host_selection_attempts: attempts,
            backoff_base,
            backoff_max,
            reset_headers,
            reset_max,
        })
    }
}

fn backoff(
    at: &FieldPath<'_>,
    proto: Option<retry_policy::RetryBackOff>,
) -> Result<(Duration, Duration), Rejection> {
    let Some(proto) = proto else {
        return Ok((BACKOFF_BASE, BACKOFF_BASE * 10));
    };
    verdicts!(at, proto => retry_policy::RetryBackOff { supported { base_interval, max_interval } });
    let field = at.field("base_interval");
    let base = field.required(field.positive(base_interval)?)?;
    match at.field("max_interval").positive(max_interval)? {
        // A base that fits 10,000 years fits ten times as many.
        None => Ok((base, base * 10)),
        Some(max) if max < base => Err(at.field("max_interval").reject("is shorter than base_interval")),
        Some(max) => Ok((base, max)),
    }
}

/// The headers of a response that say how long to wait, and the longest wait that counts.
fn reset(
    at: &FieldPath<'_>,
    proto: Option<retry_policy::RateLimitedRetryBackOff>,
) -> Result<(Vec<ResetHeader>, Duration), Rejection> {
    let Some(proto) = proto else {
        return Ok((Vec::new(), RESET_MAX));
    };
    verdicts!(at, proto => retry_policy::RateLimitedRetryBackOff { supported { reset_headers, max_interval } });
    if reset_headers.is_empty() {
        return Err(at.field("reset_headers").reject("is empty, and no wait is named"));
    }
    let headers = reset_headers.into_iter().enumerate().map(|(index, proto)| {
        let at = at.field("reset_headers").index(index);
        verdicts!(at, proto => retry_policy::ResetHeader { supported { name, format } });
        Ok(ResetHeader {
            name: at.field("name").not_empty(name)?.to_ascii_lowercase(),
            format: match at.field("format").enumeration(format)? {
                retry_policy::ResetHeaderFormat::Seconds => ResetFormat::Seconds,
                retry_policy::ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
            },
        })
    });
    let headers = headers.collect::<Result<_, _>>()?;
    let max = at.field("max_interval").positive(max_interval)?;
    Ok((headers, max.unwrap_or(RESET_MAX)))
}

fn avoid_previous_hosts(
    at: FieldPath<'_>,
    protos: Vec<retry_policy::RetryHostPredicate>,
) -> Result<bool, Rejection> {
    choices!(retry_policy::retry_host_predicate::ConfigType {
        partly { TypedConfig: "PreviousHostsPredicate only; others are refused" }
    });
    let avoid = !protos.is_empty();
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        verdicts!(at, proto => retry_policy::RetryHostPredicate {
            partly {
                config_type: "PreviousHostsPredicate only; others are refused",
                name: "in rejections; what a predicate does is in the type of its config",
            }
        });
        let any = config_type.map(|retry_policy::retry_host_predicate::ConfigType::TypedConfig(any)| any);
        let at = at.field("typed_config");
        let config = TypedConfig::open(&at, any)?;
        if config.type_name != types::PREVIOUS_HOSTS {
            return Err(config.reject(&at, "retry host predicate", &name, &[types::PREVIOUS_HOSTS]));
        }
        verdicts!(at, config.message(&at)? => PreviousHostsPredicate {});
    }
    Ok(avoid)
}

impl Default for RetryPolicy {
    /// What Envoy 1.40 has for a route without a policy: no condition, and the usual times and numbers.
    fn default() -> Self {
        Self {
            retry_on: RetryOn::default(),
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status_codes: Vec::new(),
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
            avoid_previous_hosts: false,
            previous_priorities: None,
            host_selection_attempts: 1,
            backoff_base: BACKOFF_BASE,
            backoff_max: BACKOFF_BASE * 10,
            reset_headers: Vec::new(),
            reset_max: RESET_MAX,
        }
    }
}

impl BitOrAssign for RetryOn {
    fn bitor_assign(&mut self, other: Self) {
        // Every field, so that a new one is not forgotten.
        let Self {
            five_xx,
            gateway_error,
            reset,
            reset_before_request,
            connect_failure,
            refused_stream,
            retriable_4xx,
            retriable_status_codes,
            retriable_headers,
            envoy_ratelimited,
            grpc_cancelled,
            grpc_deadline_exceeded,
            grpc_internal,
            grpc_resource_exhausted,
            grpc_unavailable,
        } = other;
        self.five_xx |= five_xx;
        self.gateway_error |= gateway_error;
        self.reset |= reset;
        self.reset_before_request |= reset_before_request;
        self.connect_failure |= connect_failure;
        self.refused_stream |= refused_stream;
        self.retriable_4xx |= retriable_4xx;
        self.retriable_status_codes |= retriable_status_codes;
        self.retriable_headers |= retriable_headers;
        self.envoy_ratelimited |= envoy_ratelimited;
        self.grpc_cancelled |= grpc_cancelled;
        self.grpc_deadline_exceeded |= grpc_deadline_exceeded;
        self.grpc_internal |= grpc_internal;
        self.grpc_resource_exhausted |= grpc_resource_exhausted;
        self.grpc_unavailable |= grpc_unavailable;
    }
}

/// A condition that nobody could see met: it needs HTTP/3, which is refused.
const INERT_CONDITION: &str = "http3-post-connect-failure";

impl RetryOn {
    /// Envoy passes over what it does not know; here it is listed as well.
    fn parse(at: &FieldPath<'_>, text: &str) -> Self {
        let mut on = Self::default();
        for condition in text
            .split(',')
            .map(str::trim)
            .filter(|condition| !condition.is_empty())
        {
            if let Some(flag) = on.of_http(condition) {
                *flag = true;
            } else if let Some(flag) = on.of_grpc(condition) {
                *flag = true;
            } else if condition != INERT_CONDITION {
                at.problem(format!("{condition:?} is no retry condition and has no effect"));
            }
        }
        on
    }

    /// Sets a condition of HTTP; of no other name is anything heard.
    pub fn add_of_http(&mut self, name: &str) {
        if let Some(flag) = self.of_http(name) {
            *flag = true;
        }
    }

    /// The same for a condition of gRPC.
    pub fn add_of_grpc(&mut self, name: &str) {
        if let Some(flag) = self.of_grpc(name) {
            *flag = true;
        }
    }

    fn of_http(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "5xx" => &mut self.five_xx,
            "gateway-error" => &mut self.gateway_error,
            "reset" => &mut self.reset,
            "reset-before-request" => &mut self.reset_before_request,
            "connect-failure" => &mut self.connect_failure,
            "refused-stream" => &mut self.refused_stream,
            "retriable-4xx" => &mut self.retriable_4xx,
            "retriable-status-codes" => &mut self.retriable_status_codes,
            "retriable-headers" => &mut self.retriable_headers,
            "envoy-ratelimited" => &mut self.envoy_ratelimited,
            _ => return None,
        })
    }

    fn of_grpc(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "cancelled" => &mut self.grpc_cancelled,
            "deadline-exceeded" => &mut self.grpc_deadline_exceeded,
            "internal" => &mut self.grpc_internal,
            "resource-exhausted" => &mut self.grpc_resource_exhausted,
            "unavailable" => &mut self.grpc_unavailable,
            _ => return None,
        })
    }
}
