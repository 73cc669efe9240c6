//! `cluster.<stat name>.ratelimit.*`: what a rate limit service said of requests to the cluster.
//!
//! Knows nothing of requests. Source: Envoy docs, rate limit statistics; Envoy `RateLimit::StatNames`.
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::stats::Counter;

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RateLimited {
    /// The request may go on.
    Ok,
    /// There was no answer.
    Error,
    /// It is one too many.
    OverLimit,
    /// It goes on without an answer.
    FailureModeAllowed,
}

impl RateLimited {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::OverLimit => "over_limit",
            Self::FailureModeAllowed => "failure_mode_allowed",
        }
    }
}

/// Counters of the filters with one prefix; as in Envoy each is there from the first that it counts.
#[derive(Debug, Default)]
struct Counters {
    prefix: Box<str>,
    ok: OnceLock<Counter>,
    error: OnceLock<Counter>,
    over_limit: OnceLock<Counter>,
    failure_mode_allowed: OnceLock<Counter>,
}

/// Those of one cluster. Filters have few prefixes, so they are found by looking at each.
#[derive(Debug, Default)]
pub(super) struct ClusterRateLimits(ArcSwap<Vec<Arc<Counters>>>);

impl ClusterRateLimits {
    /// Counts once for filters with this prefix; `register` makes a counter by the end of its name.
    pub(super) fn count(&self, prefix: &str, what: RateLimited, register: impl Fn(&str) -> Counter) {
        let counters = self.of(prefix);
        let counter = match what {
            RateLimited::Ok => &counters.ok,
            RateLimited::Error => &counters.error,
            RateLimited::OverLimit => &counters.over_limit,
            RateLimited::FailureModeAllowed => &counters.failure_mode_allowed,
        };
        let name = what.name();
        let make = || match prefix {
            "" => register(&format!("ratelimit.{name}")),
            prefix => register(&format!("ratelimit.{prefix}.{name}")),
        };
        counter.get_or_init(make).inc();
    }

    fn of(&self, prefix: &str) -> Arc<Counters> {
        let find = |known: &[Arc<Counters>]| known.iter().find(|known| *known.prefix == *prefix).cloned();
        if let Some(counters) = find(&self.0.load()) {
            return counters;
        }
        let made = Arc::new(Counters {
            prefix: prefix.into(),
            ..Counters::default()
        });
        // Counters of one name are the same, so whoever comes second loses nothing.
        self.0.rcu(|known| {
            let is_known = find(known).is_some();
            let more = (!is_known).then(|| made.clone());
            known.iter().cloned().chain(more).collect::<Vec<_>>()
        });
        made
    }
}
