//! `cluster.<stat name>.grpc.*`, of all gRPC calls together or of one method.
//!
//! Knows nothing of requests. Source: Envoy docs, gRPC statistics filter; Envoy `Grpc::ContextImpl::chargeStat`.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::stats::{Counter, Histogram, Registry};

/// Statuses that gRPC defines: 0 to 16.
const STATUSES: usize = 17;
/// Other statuses that one upstream can have counters for: it makes them up.
const MOST_OTHERS: usize = 32;
/// Methods of one cluster with counters of their own: clients make up the names.
const MOST_METHODS: usize = 1000;

/// Counters of calls; as in Envoy each is there from the first that it counts.
#[derive(Debug)]
pub(crate) struct GrpcStats {
    success: OnceLock<Counter>,
    failure: OnceLock<Counter>,
    total: OnceLock<Counter>,
    request_messages: OnceLock<Counter>,
    response_messages: OnceLock<Counter>,
    statuses: [OnceLock<Counter>; STATUSES],
    others: Mutex<BTreeMap<Box<str>, Counter>>,
    upstream_rq_time: OnceLock<Histogram>,
    names: Names,
}

/// Where counters are registered, and what their names begin with; `None`: nowhere.
#[derive(Debug, Clone)]
struct Names(Option<(Arc<Registry>, String)>);

impl Names {
    fn within(&self, part: &str) -> Self {
        Self(
            self.0
                .as_ref()
                .map(|(registry, prefix)| (registry.clone(), format!("{prefix}{part}."))),
        )
    }

    fn counter(&self, name: &str) -> Counter {
        match &self.0 {
            Some((registry, prefix)) => registry.counter(format!("{prefix}{name}")),
            None => Counter::none(),
        }
    }

    fn histogram(&self, name: &str) -> Histogram {
        match &self.0 {
            Some((registry, prefix)) => registry.histogram(format!("{prefix}{name}")),
            None => Histogram::none(),
        }
    }
}

impl GrpcStats {
    fn new(names: Names) -> Self {
        Self {
            success: OnceLock::new(),
            failure: OnceLock::new(),
            total: OnceLock::new(),
            request_messages: OnceLock::new(),
            response_messages: OnceLock::new(),
            statuses: Default::default(),
            others: Mutex::default(),
            upstream_rq_time: OnceLock::new(),
            names,
        }
    }

    fn count(&self, counter: &OnceLock<Counter>, name: &str, number: u64) {
        counter.get_or_init(|| self.names.counter(name)).add(number);
    }

    /// Counts messages of requests.
    pub(crate) fn asked(&self, messages: u64) {
        self.count(&self.request_messages, "request_message_count", messages);
    }

    /// Counts messages of responses.
    pub(crate) fn answered(&self, messages: u64) {
        self.count(&self.response_messages, "response_message_count", messages);
    }

    /// Counts a call that ended with this `grpc-status`. The first of a status takes a lock; so does each that gRPC does not define.
    pub(crate) fn ended(&self, status: &str) {
        self.count(&self.total, "total", 1);
        match status {
            "0" => self.count(&self.success, "success", 1),
            _ => self.count(&self.failure, "failure", 1),
        }
        // Only as gRPC writes it: `00` is a status of its own.
        let is_plain = status == "0"
            || status
                .bytes()
                .next()
                .is_some_and(|digit| matches!(digit, b'1'..=b'9'));
        let known = status.parse::<usize>().ok().filter(|_| is_plain);
        match known.and_then(|number| self.statuses.get(number)) {
            Some(counter) => self.count(counter, status, 1),
            None => self.odd(status),
        }
    }

    fn odd(&self, status: &str) {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        match others.get(status) {
            Some(counter) => counter.inc(),
            None if others.len() < MOST_OTHERS => {
                let counter = self.names.counter(status);
                counter.inc();
                others.insert(status.into(), counter);
            }
            None => {}
        }
    }

    /// Records how long the upstream took, from the end of the request.
    pub(crate) fn took(&self, time: Duration) {
        let histogram = self
            .upstream_rq_time
            .get_or_init(|| self.names.histogram("upstream_rq_time"));
        histogram.record(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
}

/// The gRPC counters of a cluster.
#[derive(Debug)]
pub(super) struct ClusterGrpc {
    names: Names,
    all: OnceLock<Arc<GrpcStats>>,
    /// By `service.method`. Replaced when one comes; reading takes no lock.
    methods: ArcSwap<HashMap<Box<str>, Arc<GrpcStats>>>,
}

impl ClusterGrpc {
    /// `place`: the registry, and the prefix of the cluster.
    pub(super) fn new(place: Option<&(Arc<Registry>, String)>) -> Self {
        Self {
            names: Names(place.cloned()).within("grpc"),
            all: OnceLock::new(),
            methods: ArcSwap::default(),
        }
    }

    /// Of all calls; made by the first.
    pub(super) fn all(&self) -> &Arc<GrpcStats> {
        self.all
            .get_or_init(|| Arc::new(GrpcStats::new(self.names.clone())))
    }

    /// Those of `service.method`; of all calls when there are too many methods.
    pub(super) fn of(&self, method: &str) -> Arc<GrpcStats> {
        if let Some(known) = self.methods.load().get(method) {
            return known.clone();
        }
        if self.methods.load().len() >= MOST_METHODS {
            return self.all().clone();
        }
        // Two threads that make the same counters get the same ids.
        let made = Arc::new(GrpcStats::new(self.names.within(method)));
        self.methods.rcu(|methods| {
            let mut methods = HashMap::clone(methods);
            methods.insert(method.into(), made.clone());
            methods
        });
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{TagRules, text};

    #[test]
    fn clients_and_upstreams_cannot_make_up_any_number_of_counters() {
        let registry = Registry::new(TagRules::new(&[], false).expect("no rule"));
        let grpc = ClusterGrpc::new(Some(&(registry.clone(), "cluster.a.".into())));
        for number in 0..2 * MOST_METHODS {
            grpc.of(&format!("s.m{number}")).ended("0");
        }
        for number in 0..100 {
            grpc.all().ended(&format!("x{number}"));
        }
        let lines = text(&registry, None, true);
        let count = |part: &str| lines.matches(part).count();
        assert_eq!(count(".total: 1\n"), MOST_METHODS);
        assert_eq!(count("cluster.a.grpc.x"), MOST_OTHERS);
        assert!(
            lines.contains("cluster.a.grpc.total: 1100\n"),
            "the rest has no name"
        );
    }

    #[test]
    fn a_status_is_counted_by_its_text() {
        let registry = Registry::new(TagRules::new(&[], false).expect("no rule"));
        let grpc = ClusterGrpc::new(Some(&(registry.clone(), "cluster.a.".into())));
        for status in ["0", "00", "16", "17"] {
            grpc.of("s.m").ended(status);
        }
        let lines = text(&registry, None, true);
        for expected in [
            "0: 1",
            "00: 1",
            "16: 1",
            "17: 1",
            "success: 1",
            "failure: 3",
            "total: 4",
        ] {
            assert!(
                lines.contains(&format!("cluster.a.grpc.s.m.{expected}\n")),
                "{expected}: {lines}"
            );
        }
    }
}
