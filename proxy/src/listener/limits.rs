//! How many downstream connections there may be: in the whole process, and on one listener.
//!
//! Asked once a connection, before anything else. Threads share counts without a lock. Source: Envoy
//! `TcpListenerImpl::rejectCxOverGlobalLimit`, `ActiveTcpListener::onAccept`; as Envoy 1.40 does it.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_model::bootstrap::ConnectionLimits;
use outrigger_model::listener::Listener as ListenerConfig;

use super::runtime::ListenerStats;
use crate::stats::{Counter, Registry};

/// Limits of the process and of its listeners.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    managed: Option<Arc<Limit>>,
    accepted: Option<Arc<Limit>>,
    on_listener: HashMap<String, Arc<Limit>>,
}

impl Limits {
    /// Nothing is counted where nothing is limited.
    pub(crate) fn new(config: &ConnectionLimits, registry: &Registry) -> Self {
        let failed = || {
            let name = "overload.envoy.resource_monitors.global_downstream_max_connections.failed_updates";
            registry.counter(name.to_owned())
        };
        let on_listener = config.most_on_listener.iter();
        Self {
            managed: config
                .most_downstream
                .map(|most| Limit::new(most, Some(failed()))),
            accepted: config.most_accepted.map(|most| Limit::new(most, None)),
            on_listener: on_listener
                .map(|(name, most)| (name.clone(), Limit::new(*most, None)))
                .collect(),
        }
    }

    /// Those of one listener. One that takes the place of another of its name goes on counting.
    pub(crate) fn of(&self, listener: &ListenerConfig) -> ListenerLimits {
        let is_managed = !listener.bypasses_overload_manager && self.managed.is_some();
        let is_limited = !listener.ignores_connection_limit;
        ListenerLimits {
            managed: self.managed.clone().filter(|_| is_managed && is_limited),
            accepted: self.accepted.clone(),
            refuses_accepted: is_limited && !is_managed,
            own: self.on_listener.get(&listener.name).cloned(),
        }
    }
}

/// Limits of one listener.
#[derive(Debug)]
pub(crate) struct ListenerLimits {
    managed: Option<Arc<Limit>>,
    accepted: Option<Arc<Limit>>,
    refuses_accepted: bool,
    own: Option<Arc<Limit>>,
}

/// What a connection takes of the process' limits, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    _managed: Option<Open>,
    _accepted: Option<Open>,
}

impl ListenerLimits {
    /// One more connection was accepted. `None`: it is one too many, which is counted.
    pub(crate) fn admit(&self, stats: &ListenerStats) -> Option<Admitted> {
        let managed = self.managed.as_ref().map(Limit::enter);
        let accepted = self.accepted.as_ref().map(|limit| match self.refuses_accepted {
            true => limit.enter(),
            false => Some(limit.count()),
        });
        if matches!(managed, Some(None)) || matches!(accepted, Some(None)) {
            stats.downstream_global_cx_overflow.inc();
            return None;
        }
        if self.own.as_ref().is_some_and(|own| own.is_reached()) {
            stats.downstream_cx_overflow.inc();
            return None;
        }
        Some(Admitted {
            _managed: managed.flatten(),
            _accepted: accepted.flatten(),
        })
    }

    /// The listener serves a connection, until what is returned is dropped. One that another listener accepted and handed over is
    /// counted, and never refused.
    pub(crate) fn count(&self) -> Option<Open> {
        self.own.as_ref().map(Limit::count)
    }
}

/// At most so many at once.
#[derive(Debug)]
struct Limit {
    most: u64,
    open: AtomicU64,
    refused: Option<Counter>,
}

/// One that counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Open(Arc<Limit>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Limit {
    fn new(most: u64, refused: Option<Counter>) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: AtomicU64::new(0),
            refused,
        })
    }

    fn is_reached(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.most
    }

    fn count(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// `None`: it is reached.
    fn enter(self: &Arc<Self>) -> Option<Open> {
        let one_more = |open| (open < self.most).then_some(open + 1);
        let entered = self
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if entered.is_err() {
            self.refused.iter().for_each(Counter::inc);
        }
        entered.ok().map(|_| Open(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_is_refused_until_another_is_gone() {
        let limit = Limit::new(2, None);
        let first = limit.enter();
        let second = limit.enter();
        assert!(first.is_some() && second.is_some());
        assert!(limit.enter().is_none());
        drop(first);
        assert!(limit.enter().is_some());
        assert!(!limit.is_reached());
    }
}
