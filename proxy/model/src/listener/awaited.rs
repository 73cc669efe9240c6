//! Listener filters that have no behaviour yet. What they say is checked, and then their listener is refused: they keep
//! clients out. Awaits the traffic issue.
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::listener as filters;
use envoy_types::pb::envoy::r#type::v3::TokenBucket;

use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, verdicts};
use crate::scalar::Wrapped;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwaitedFilter {
    /// At most so many connections.
    LocalRateLimit {
        /// Stats are `listener_local_ratelimit.<stat_prefix>.`.
        stat_prefix: String,
        /// Connections at once.
        max_tokens: u32,
        /// Added each time; 1 unless set.
        tokens_per_fill: u32,
        /// How often.
        fill_interval: Duration,
        /// False: it limits nothing.
        is_enabled: bool,
    },
}

/// The types of them.
pub(super) const AWAITED_FILTERS: [&str; 1] = [types::LISTENER_LOCAL_RATE_LIMIT];

impl AwaitedFilter {
    /// Converts a filter whose type is one of [`AWAITED_FILTERS`].
    pub(crate) fn from_config(
        at: &FieldPath<'_>,
        config: TypedConfig,
        name: &str,
    ) -> Result<Self, Rejection> {
        match config.type_name.as_str() {
            types::LISTENER_LOCAL_RATE_LIMIT => local_rate_limit(at, config.message(at)?),
            _ => Err(config.reject(at, "listener filter", name, &AWAITED_FILTERS)),
        }
    }
}

fn local_rate_limit(
    at: &FieldPath<'_>,
    proto: filters::local_ratelimit::v3::LocalRateLimit,
) -> Result<AwaitedFilter, Rejection> {
    verdicts!(at, proto => filters::local_ratelimit::v3::LocalRateLimit {
        awaited "traffic" { stat_prefix, token_bucket, runtime_enabled }
    });
    let bucket = at.field("token_bucket");
    verdicts!(bucket, bucket.required(token_bucket)? => TokenBucket {
        awaited "traffic" { max_tokens, tokens_per_fill, fill_interval }
    });
    let enabled = match runtime_enabled {
        None => true,
        Some(proto) => {
            verdicts!((), proto => core::RuntimeFeatureFlag {
                awaited "traffic" { default_value }
                inert { runtime_key: "names a runtime key, and there is no runtime: the default counts" }
            });
            default_value.value().unwrap_or(false)
        }
    };
    let (fill, interval) = (bucket.field("tokens_per_fill"), bucket.field("fill_interval"));
    Ok(AwaitedFilter::LocalRateLimit {
        stat_prefix: at.field("stat_prefix").not_empty(stat_prefix)?,
        max_tokens: bucket.field("max_tokens").within(max_tokens, 1..=u32::MAX)?,
        tokens_per_fill: fill.within(tokens_per_fill.value().unwrap_or(1), 1..=u32::MAX)?,
        fill_interval: interval.required(interval.positive(fill_interval)?)?,
        is_enabled: enabled,
    })
}
