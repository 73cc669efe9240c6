//! The counters Envoy keeps by response code: `upstream_rq_completed`, `upstream_rq_2xx`, `upstream_rq_200`.
//!
//! Source: Envoy docs, cluster manager statistics, "dynamic HTTP statistics"; a code's own counter exists from its first response.
use std::sync::{Arc, OnceLock};

use super::{Counter, Registry};

/// Counters of one owner, e.g. `cluster.NAME.` and `cluster.NAME.external.`.
///
/// Cost of [`ResponseCodes::count`]: three counter increments; the first response of a code takes the registry's lock once
/// and allocates (1.6 KiB at most for the first of a class).
#[derive(Debug)]
pub(crate) struct ResponseCodes {
    /// `None`: nothing is counted.
    registry: Option<Arc<Registry>>,
    prefix: Arc<str>,
    completed: Counter,
    classes: [OnceLock<Class>; 5],
}

#[derive(Debug)]
struct Class {
    total: Counter,
    codes: Box<[OnceLock<Counter>]>,
}

impl ResponseCodes {
    /// `prefix` ends where the code begins: `cluster.NAME.upstream_rq_`.
    pub(crate) fn new(registry: &Arc<Registry>, prefix: &str) -> ResponseCodes {
        let completed = registry.counter(concat(prefix, "completed"));
        ResponseCodes {
            registry: Some(Arc::clone(registry)),
            prefix: prefix.into(),
            completed,
            classes: Default::default(),
        }
    }

    /// Counters that count nothing.
    pub(crate) fn none() -> ResponseCodes {
        ResponseCodes {
            registry: None,
            prefix: "".into(),
            completed: Counter::none(),
            classes: Default::default(),
        }
    }

    fn counter(&self, code: &str) -> Counter {
        let registered = |registry: &Arc<Registry>| registry.counter(concat(&self.prefix, code));
        self.registry.as_ref().map_or_else(Counter::none, registered)
    }

    /// Counts a final response; codes outside 100..=599 count as completed only.
    pub(crate) fn count(&self, code: http::StatusCode) {
        self.completed.inc();
        let code = usize::from(code.as_u16());
        let Some((index, slot)) = (code / 100)
            .checked_sub(1)
            .and_then(|i| Some((i, self.classes.get(i)?)))
        else {
            return;
        };
        let class = slot.get_or_init(|| self.class(index + 1));
        class.total.inc();
        if let Some(counter) = class.codes.get(code % 100) {
            counter.get_or_init(|| self.counter(&code.to_string())).inc();
        }
    }

    fn class(&self, hundred: usize) -> Class {
        Class {
            total: self.counter(&format!("{hundred}xx")),
            codes: (0..100).map(|_| OnceLock::new()).collect(),
        }
    }
}

fn concat(prefix: &str, name: &str) -> String {
    [prefix, name].concat()
}

#[cfg(test)]
mod tests {
    use super::super::{TagRules, text};
    use super::*;

    #[test]
    fn counts_completed_class_and_code() {
        let registry = Registry::new(TagRules::new(&[], false).unwrap());
        let codes = ResponseCodes::new(&registry, "cluster.x.upstream_rq_");
        for code in [200, 200, 503, 999] {
            codes.count(http::StatusCode::from_u16(code).unwrap());
        }
        let expected = "cluster.x.upstream_rq_200: 2\ncluster.x.upstream_rq_2xx: 2\ncluster.x.upstream_rq_503: 1\n\
                        cluster.x.upstream_rq_5xx: 1\ncluster.x.upstream_rq_completed: 4\n";
        assert_eq!(text(&registry, None, true), expected);
    }
}
