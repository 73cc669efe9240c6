//! Cluster-wide limits of each priority, one counter each over all workers. Source: Envoy docs, circuit breaking.
mod recent;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use outrigger_model::cluster::{CircuitBreaker as Limits, RetryBudget, RoutingPriority};

use self::recent::Recent;
use crate::stats::Unregistered;
use crate::time::Instant;

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
    /// Connection pools, each of one worker.
    Pools,
}

/// Counts of one cluster. Survives changes of the cluster's configuration.
#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker {
    in_use: [InUse; 2],
    /// Requests that began, by priority; for clusters whose retry budgets look back.
    begun: OnceLock<Box<Begun>>,
}

/// Since when, and what began.
#[derive(Debug)]
struct Begun {
    since: Instant,
    requests: [Recent; 2],
}

/// Of one priority, by [`Resource`].
type InUse = [AtomicU32; 5];

/// One unit in use; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Arc<CircuitBreaker>,
    priority: RoutingPriority,
    resource: Resource,
}

impl CircuitBreaker {
    /// Requests in flight of any priority, over all workers.
    pub(crate) fn active_requests(&self) -> u32 {
        [RoutingPriority::Default, RoutingPriority::High]
            .map(|priority| self.used(priority, Resource::Requests))
            .into_iter()
            .fold(0, u32::saturating_add)
    }

    /// Takes one unit unless `limits`, those of the priority, forbid it. Exact over all workers: the count never exceeds the limit.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        priority: RoutingPriority,
        resource: Resource,
        limits: &Limits,
    ) -> Option<Permit> {
        let limit = self.limit(priority, resource, limits);
        let taken = self
            .count(priority, resource)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                (used < limit).then_some(used.saturating_add(1))
            })
            .is_ok();
        if taken
            && resource == Resource::Requests
            && let Some(interval) = limits.retry_budget.and_then(|budget| budget.budget_interval)
        {
            let begun = self.begun();
            begun.requests[priority as usize].note(begun.since.elapsed(), interval);
        }
        taken.then(|| self.permit(priority, resource))
    }

    /// Takes one unit whatever the limit is.
    pub(crate) fn acquire_beyond(self: &Arc<Self>, priority: RoutingPriority, resource: Resource) -> Permit {
        self.count(priority, resource).fetch_add(1, Ordering::Relaxed);
        self.permit(priority, resource)
    }

    fn permit(self: &Arc<Self>, priority: RoutingPriority, resource: Resource) -> Permit {
        Permit {
            breaker: self.clone(),
            priority,
            resource,
        }
    }

    fn begun(&self) -> &Begun {
        self.begun.get_or_init(|| {
            Box::new(Begun {
                since: Instant::now(),
                requests: Default::default(),
            })
        })
    }

    fn count(&self, priority: RoutingPriority, resource: Resource) -> &AtomicU32 {
        &self.in_use[priority as usize][resource as usize]
    }

    fn used(&self, priority: RoutingPriority, resource: Resource) -> u32 {
        self.count(priority, resource).load(Ordering::Relaxed)
    }

    /// The limit now; that of retries may follow the number of requests.
    fn limit(&self, priority: RoutingPriority, resource: Resource, limits: &Limits) -> u32 {
        match resource {
            Resource::Connections => limits.max_connections,
            Resource::PendingRequests => limits.max_pending_requests,
            Resource::Requests => limits.max_requests,
            Resource::Pools => limits.max_connection_pools.unwrap_or(u32::MAX),
            Resource::Retries => match limits.retry_budget {
                None => limits.max_retries,
                Some(budget) => self.budgeted(priority, budget),
            },
        }
    }

    /// A share of the requests that are active or wait. Source: circuit_breaker.proto `RetryBudget`.
    fn budgeted(&self, priority: RoutingPriority, budget: RetryBudget) -> u32 {
        let of = |resource| u64::from(self.used(priority, resource));
        let began = budget.budget_interval.map_or(0, |interval| {
            let begun = self.begun();
            begun.requests[priority as usize].count(begun.since.elapsed(), interval)
        });
        let active = of(Resource::Requests).max(began) + of(Resource::PendingRequests);
        let share = active * u64::from(budget.budget.0) / 10_000;
        u32::try_from(share)
            .unwrap_or(u32::MAX)
            .max(budget.min_concurrency)
    }

    /// Gauges under `circuit_breakers.<priority>.`: which limits are reached, and what is left of them if that is wanted.
    pub(crate) fn gauges(
        &self,
        priority: RoutingPriority,
        limits: &Limits,
    ) -> Vec<(&'static str, Unregistered)> {
        let gauge = |value: u64| Unregistered::Gauge((value > 0).then_some(value));
        let of = |resource| {
            (
                self.used(priority, resource),
                self.limit(priority, resource, limits),
            )
        };
        let names = [
            (Resource::Connections, "cx_open", "remaining_cx"),
            (Resource::PendingRequests, "rq_pending_open", "remaining_pending"),
            (Resource::Requests, "rq_open", "remaining_rq"),
            (Resource::Retries, "rq_retry_open", "remaining_retries"),
            (Resource::Pools, "cx_pool_open", "remaining_cx_pools"),
        ];
        let open = names.map(|(resource, open, _)| {
            let (used, limit) = of(resource);
            (open, gauge(u64::from(used > 0 && used >= limit)))
        });
        let left = names.map(|(resource, _, left)| {
            let (used, limit) = of(resource);
            // Envoy's counts are of 64 bits, and only this one has no limit by default.
            let limit = match (resource, limits.max_connection_pools) {
                (Resource::Pools, None) => u64::MAX,
                _ => u64::from(limit),
            };
            (left, gauge(limit.saturating_sub(u64::from(used))))
        });
        let left = left.into_iter().filter(|_| limits.tracks_remaining);
        open.into_iter().chain(left).collect()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breaker
            .count(self.priority, self.resource)
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use outrigger_model::cluster::Percent;

    use super::RoutingPriority::{Default as Low, High};
    use super::*;

    const LIMITS: Limits = Limits {
        max_connections: 1,
        max_pending_requests: 0,
        max_requests: 9,
        max_retries: 3,
        max_connections_per_host: None,
        retry_budget: None,
        max_connection_pools: None,
        tracks_remaining: true,
    };

    #[test]
    fn a_dropped_permit_makes_room() {
        let breaker = Arc::new(CircuitBreaker::default());
        let first = breaker.acquire(Low, Resource::Connections, &LIMITS);
        assert!(first.is_some());
        assert!(breaker.acquire(Low, Resource::Connections, &LIMITS).is_none());
        assert!(breaker.acquire(Low, Resource::PendingRequests, &LIMITS).is_none());
        drop(first);
        assert!(breaker.acquire(Low, Resource::Connections, &LIMITS).is_some());
    }

    #[test]
    fn a_priority_leaves_the_limits_of_the_other_alone() {
        let breaker = Arc::new(CircuitBreaker::default());
        let high = breaker.acquire(High, Resource::Connections, &LIMITS);
        assert!(high.is_some());
        assert!(breaker.acquire(High, Resource::Connections, &LIMITS).is_none());
        let low = breaker.acquire(Low, Resource::Connections, &LIMITS);
        assert!(low.is_some());
        drop(low);
        assert!(breaker.acquire(High, Resource::Connections, &LIMITS).is_none());
        drop(high);
        assert!(breaker.acquire(High, Resource::Connections, &LIMITS).is_some());
    }

    #[test]
    fn requests_of_all_priorities_are_active() {
        let breaker = Arc::new(CircuitBreaker::default());
        let _requests =
            [Low, High, High].map(|priority| breaker.acquire(priority, Resource::Requests, &LIMITS));
        assert_eq!(breaker.active_requests(), 3);
    }

    #[test]
    fn a_budget_follows_the_requests_and_never_goes_below_its_minimum() {
        let limits = Limits {
            retry_budget: Some(RetryBudget {
                budget: Percent(2_000),
                min_concurrency: 3,
                budget_interval: None,
            }),
            max_requests: u32::MAX,
            max_pending_requests: u32::MAX,
            ..LIMITS
        };
        for (requests, pending, expected) in [(0, 0, 3), (15, 0, 3), (15, 5, 4), (100, 0, 20)] {
            let breaker = Arc::new(CircuitBreaker::default());
            let take = |resource, count| -> Vec<_> {
                (0..count)
                    .map(|_| breaker.acquire(Low, resource, &limits))
                    .collect()
            };
            let _requests = take(Resource::Requests, requests);
            let _pending = take(Resource::PendingRequests, pending);
            let retries = take(Resource::Retries, 50);
            assert_eq!(retries.iter().flatten().count(), expected, "{requests} {pending}");
        }
    }

    #[test]
    fn limits_are_exact_however_many_workers_take() {
        let limits = Limits {
            max_requests: 100,
            ..LIMITS
        };
        let breaker = Arc::new(CircuitBreaker::default());
        let taken: Vec<Permit> = std::thread::scope(|scope| {
            let worker = || -> Vec<_> {
                let permits = (0..1000).filter_map(|_| breaker.acquire(Low, Resource::Requests, &limits));
                permits.collect()
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().expect("permits"))
                .collect()
        });
        assert_eq!((taken.len(), breaker.active_requests()), (100, 100));
    }

    #[test]
    fn gauges_say_which_limit_is_reached_and_what_is_left() {
        let breaker = Arc::new(CircuitBreaker::default());
        let value = |name: &str| {
            let gauges = breaker.gauges(Low, &LIMITS);
            gauges
                .iter()
                .find(|(gauge, _)| *gauge == name)
                .map(|(_, value)| *value)
        };
        assert_eq!(value("cx_open"), Some(Unregistered::Gauge(None)));
        assert_eq!(value("remaining_rq"), Some(Unregistered::Gauge(Some(9))));
        let _connection = breaker.acquire(Low, Resource::Connections, &LIMITS);
        assert_eq!(value("cx_open"), Some(Unregistered::Gauge(Some(1))));
        assert_eq!(value("remaining_cx"), Some(Unregistered::Gauge(None)));
        let high = breaker.gauges(High, &LIMITS);
        assert_eq!(high.first(), Some(&("cx_open", Unregistered::Gauge(None))));
        let _beyond = breaker.acquire_beyond(Low, Resource::Connections);
        assert_eq!(value("cx_open"), Some(Unregistered::Gauge(Some(1))));
    }
}
