//! Limits of connections: how many at once, and how many in a time. Source: envoy/extensions/filters/network/connection_limit/v3,
//! network/local_ratelimit/v3 and listener/local_ratelimit/v3.
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::listener::local_ratelimit::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::network::connection_limit::v3 as limit;
use envoy_types::pb::envoy::extensions::filters::network::local_ratelimit::v3 as network;

use crate::field::{FieldPath, Rejection, verdicts};
use crate::http_filter::local_ratelimit::TokenBucket;
use crate::scalar::Wrapped;

/// At most so many connections at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// Stats are `connection_limit.<stat_prefix>.`.
    pub stat_prefix: String,
    /// 1..
    pub most_connections: u64,
    /// One too many is closed after this; `None`: at once.
    pub closing_delay: Option<Duration>,
    /// False: it limits nothing.
    pub limits_connections: bool,
}

/// At most so many connections in a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRate {
    /// Stats are `local_rate_limit.<stat_prefix>.`; of a listener's `listener_local_ratelimit.<stat_prefix>.`.
    pub stat_prefix: String,
    /// Each connection takes one.
    pub connection_tokens: TokenBucket,
    /// False: it limits nothing.
    pub limits_rate: bool,
    /// Filters with the same name and the same bucket have one bucket together; empty: it has its own.
    pub share_name: String,
}

impl ConnectionLimit {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: limit::ConnectionLimit) -> Result<Self, Rejection> {
        verdicts!(at, proto => limit::ConnectionLimit {
            supported { stat_prefix, max_connections, delay, runtime_enabled }
        });
        let most = at.field("max_connections");
        Ok(Self {
            stat_prefix: at.field("stat_prefix").not_empty(stat_prefix)?,
            most_connections: most.within_u64(most.required(max_connections)?.value, 1..=u64::MAX)?,
            closing_delay: at
                .field("delay")
                .duration(delay)?
                .filter(|delay| !delay.is_zero()),
            limits_connections: is_enabled(runtime_enabled),
        })
    }
}

impl ConnectionRate {
    /// Converts the network filter.
    pub(crate) fn of_chain(at: &FieldPath<'_>, proto: network::LocalRateLimit) -> Result<Self, Rejection> {
        verdicts!(at, proto => network::LocalRateLimit {
            supported { stat_prefix, token_bucket, runtime_enabled, share_key }
        });
        let rate = listener::LocalRateLimit {
            stat_prefix,
            token_bucket,
            runtime_enabled,
        };
        Ok(Self {
            share_name: share_key,
            ..Self::of_listener(at, rate)?
        })
    }

    /// Converts the listener filter.
    pub(crate) fn of_listener(
        at: &FieldPath<'_>,
        proto: listener::LocalRateLimit,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => listener::LocalRateLimit {
            supported { stat_prefix, token_bucket, runtime_enabled }
        });
        let bucket = at.field("token_bucket");
        Ok(Self {
            stat_prefix: at.field("stat_prefix").not_empty(stat_prefix)?,
            connection_tokens: TokenBucket::from_proto(&bucket, bucket.required(token_bucket)?)?,
            limits_rate: is_enabled(runtime_enabled),
            share_name: String::new(),
        })
    }
}

/// Without a key it is.
fn is_enabled(proto: Option<core::RuntimeFeatureFlag>) -> bool {
    let Some(proto) = proto else { return true };
    verdicts!((), proto => core::RuntimeFeatureFlag {
        supported { default_value }
        inert { runtime_key: "names a runtime key, and there is no runtime: the default counts" }
    });
    default_value.value().unwrap_or(false)
}
