//! What outlier detection knows of one host.
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Instant;

/// Written by all workers.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    pub(super) consecutive_5xx: Consecutive,
    pub(super) consecutive_gateway: Consecutive,
    pub(super) consecutive_local: Consecutive,
    /// What the server answered.
    pub(super) external: Rate,
    /// Whether there was a connection and an answer.
    pub(super) local: Rate,
    ejections: Mutex<Ejections>,
    /// Times in which it was degraded by its own word, which last as ejections do.
    degradations: Mutex<Ejections>,
}

#[derive(Debug, Default)]
struct Ejections {
    /// When and for how long in addition, of the last.
    last: Option<(Instant, Duration)>,
    brought_back: Option<Instant>,
    /// Times the base ejection time.
    backoff: u32,
}

/// Errors since the last success.
#[derive(Debug, Default)]
pub(super) struct Consecutive(AtomicU32);

impl Consecutive {
    /// One more; true for the one that makes it `threshold`.
    pub(super) fn reaches(&self, threshold: u32) -> bool {
        self.0.fetch_add(1, Relaxed).wrapping_add(1) == threshold
    }

    /// Begins anew. Looks first: hosts in order are not written to.
    pub(super) fn reset(&self) {
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }
}

/// Requests and successes of an interval.
#[derive(Debug)]
pub(super) struct Rate {
    total: AtomicU64,
    successes: AtomicU64,
    /// Of the interval before.
    last: [AtomicU64; 2],
    /// For `/clusters`: percent as bits.
    shown: AtomicU64,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            total: AtomicU64::new(0),
            successes: AtomicU64::new(0),
            last: Default::default(),
            shown: AtomicU64::new((-1.0_f64).to_bits()),
        }
    }
}

impl Rate {
    pub(super) fn note(&self, is_success: bool) {
        self.total.fetch_add(1, Relaxed);
        if is_success {
            self.successes.fetch_add(1, Relaxed);
        }
    }

    fn end_interval(&self) {
        // In this order no success is without its request; one that comes between counts in the next interval.
        let successes = self.successes.swap(0, Relaxed);
        let total = self.total.swap(0, Relaxed);
        let [last_total, last_successes] = &self.last;
        last_total.store(total, Relaxed);
        last_successes.store(successes, Relaxed);
        self.show(-1.0);
    }

    /// Successes of the last interval in percent, and its requests; `None`: there were none.
    pub(super) fn last(&self) -> Option<(f64, u64)> {
        let [total, successes] = &self.last;
        let (total, successes) = (total.load(Relaxed), successes.load(Relaxed));
        (total > 0).then(|| (successes.min(total) as f64 * 100.0 / total as f64, total))
    }

    pub(super) fn show(&self, percent: f64) {
        self.shown.store(percent.to_bits(), Relaxed);
    }
}

impl Monitor {
    /// Success rate of the last interval for `/clusters`, percent; -1: too few requests.
    pub(crate) fn shown_rate(&self, is_local: bool) -> f64 {
        f64::from_bits(self.rate(is_local).shown.load(Relaxed))
    }

    pub(super) fn rate(&self, is_local: bool) -> &Rate {
        if is_local { &self.local } else { &self.external }
    }

    pub(super) fn end_interval(&self) {
        self.external.end_interval();
        self.local.end_interval();
    }

    /// Ejected now: each time for longer, while that is below `max`.
    pub(super) fn ejected(&self, now: Instant, jitter: Duration, base: Duration, max: Duration) {
        lock(&self.ejections).begin(now, jitter, base, max);
    }

    /// The ejection has lasted `min(base × backoff, max)` and its jitter.
    pub(super) fn is_over(&self, now: Instant, base: Duration, max: Duration) -> bool {
        lock(&self.ejections).is_over(now, base, max)
    }

    pub(super) fn brought_back(&self, now: Instant) {
        self.consecutive_5xx.reset();
        self.consecutive_gateway.reset();
        self.consecutive_local.reset();
        lock(&self.ejections).brought_back = Some(now);
    }

    /// In order for an interval: the next ejection is shorter again.
    pub(super) fn calm_down(&self, now: Instant, interval: Duration) {
        lock(&self.ejections).calm_down(now, interval);
    }

    /// Degraded now; for as long as an ejection would last.
    pub(super) fn degraded(&self, now: Instant, jitter: Duration, base: Duration, max: Duration) {
        lock(&self.degradations).begin(now, jitter, base, max);
    }

    pub(super) fn is_degradation_over(&self, now: Instant, base: Duration, max: Duration) -> bool {
        lock(&self.degradations).is_over(now, base, max)
    }

    pub(super) fn recovered(&self, now: Instant) {
        lock(&self.degradations).brought_back = Some(now);
    }

    pub(super) fn calm_degradation(&self, now: Instant, interval: Duration) {
        lock(&self.degradations).calm_down(now, interval);
    }
}

impl Ejections {
    fn begin(&mut self, now: Instant, jitter: Duration, base: Duration, max: Duration) {
        self.last = Some((now, jitter));
        if base.saturating_mul(self.backoff) < max.saturating_add(base) {
            self.backoff += 1;
        }
    }

    fn is_over(&self, now: Instant, base: Duration, max: Duration) -> bool {
        let time = base.saturating_mul(self.backoff).min(max);
        self.last
            .is_some_and(|(since, jitter)| now.saturating_duration_since(since) >= time + jitter)
    }

    fn calm_down(&mut self, now: Instant, interval: Duration) {
        let in_order = self
            .brought_back
            .is_some_and(|since| now.saturating_duration_since(since) >= interval);
        if in_order {
            self.backoff = self.backoff.saturating_sub(1);
        }
    }
}

fn lock(ejections: &Mutex<Ejections>) -> MutexGuard<'_, Ejections> {
    ejections.lock().unwrap_or_else(PoisonError::into_inner)
}
