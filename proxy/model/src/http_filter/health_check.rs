//! Health checks that this proxy answers. Source: envoy/extensions/filters/http/health_check/v3/health_check.proto.
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::http::health_check::v3 as pb;

use crate::cluster::ClusterName;
use crate::field::{FieldPath, Rejection, verdicts};
use crate::matcher::HeaderMatcher;
use crate::scalar::Wrapped;

/// What happens to requests that check the health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// A request is one when all of these match; empty: all are.
    pub headers: Vec<HeaderMatcher>,
    /// Who answers.
    pub answer: HealthAnswer,
}

/// Who answers a health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthAnswer {
    /// This proxy: well, when of each of these clusters at least so many whole percent of hosts are healthy or degraded.
    Own(Vec<(ClusterName, u32)>),
    /// Who is behind it; an answer holds for so long.
    Upstream(Option<Duration>),
}

impl HealthCheck {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::HealthCheck) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::HealthCheck {
            supported { pass_through_mode, cache_time, headers }
            partly { cluster_min_healthy_percentages: "with pass_through_mode nobody looks at them, as in Envoy" }
        });
        let field = at.field("pass_through_mode");
        let passes = field.required(pass_through_mode.value())?;
        let cache_time = at.field("cache_time").limit(cache_time, Duration::ZERO)?;
        let mut least = Vec::with_capacity(cluster_min_healthy_percentages.len());
        for (cluster, percent) in cluster_min_healthy_percentages {
            let percent = at
                .field("cluster_min_healthy_percentages")
                .key(&cluster)
                .percent(Some(percent))?;
            // As Envoy, whole percents.
            least.extend(percent.map(|percent| (cluster, percent.0 / 100)));
        }
        least.sort();
        Ok(Self {
            headers: HeaderMatcher::list(at.field("headers"), headers)?,
            answer: match (passes, cache_time) {
                (true, cache_time) => HealthAnswer::Upstream(cache_time),
                (false, None) => HealthAnswer::Own(least),
                (false, Some(_)) => {
                    let reason = "must not be set when pass_through_mode is off: nothing would be kept";
                    return Err(at.field("cache_time").reject(reason));
                }
            },
        })
    }
}
