//! Cluster-wide limits, one counter each over all workers. Source: Envoy docs, circuit breaking.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use outrigger_model::cluster::CircuitBreaker as Limits;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Upstream connections.
    Connections,
    /// Requests that wait for a connection.
    PendingRequests,
    /// Requests in flight.
    Requests,
    /// Retries in flight.
    Retries,
}

/// Counts of one cluster. Survives changes of the cluster's configuration.
#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker {
    in_use: [AtomicU32; 4],
}

/// One unit in use; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Arc<CircuitBreaker>,
    resource: Resource,
}

impl CircuitBreaker {
    /// Takes one unit unless `limits` forbids it. Exact over all workers: the count never exceeds the limit.
    pub(crate) fn acquire(self: &Arc<Self>, resource: Resource, limits: &Limits) -> Option<Permit> {
        let limit = limit(resource, limits);
        let count = &self.in_use[resource as usize];
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                (used < limit).then_some(used.saturating_add(1))
            })
            .ok()
            .map(|_| Permit {
                breaker: self.clone(),
                resource,
            })
    }
}

fn limit(resource: Resource, limits: &Limits) -> u32 {
    match resource {
        Resource::Connections => limits.max_connections,
        Resource::PendingRequests => limits.max_pending_requests,
        Resource::Requests => limits.max_requests,
        Resource::Retries => limits.max_retries,
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breaker.in_use[self.resource as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_makes_room() {
        let limits = Limits {
            max_connections: 1,
            max_pending_requests: 0,
            max_requests: 9,
            max_retries: 3,
            retry_budget: None,
            max_connection_pools: None,
        };
        let breaker = Arc::new(CircuitBreaker::default());
        let first = breaker.acquire(Resource::Connections, &limits);
        assert!(first.is_some());
        assert!(breaker.acquire(Resource::Connections, &limits).is_none());
        assert!(breaker.acquire(Resource::PendingRequests, &limits).is_none());
        drop(first);
        assert!(breaker.acquire(Resource::Connections, &limits).is_some());
    }
}
