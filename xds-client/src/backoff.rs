//! How long to wait before the next attempt: exponential, capped, with full jitter.
//!
//! Pure: randomness comes from the caller, sleeping is its business. Behaviour as Envoy's
//! `JitteredExponentialBackOffStrategy` with the defaults of its gRPC config streams: base 500 ms, cap 30 s, the wait is
//! uniform in `[0, ceiling)` and the ceiling doubles with each failure.

use std::time::Duration;

/// State of one retry streak.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    ceiling: Duration,
}

impl Default for Backoff {
    /// Envoy's numbers: 500 ms to 30 s.
    fn default() -> Self {
        Backoff::new(Duration::from_millis(500), Duration::from_secs(30))
    }
}

impl Backoff {
    /// Waits of up to `base` at first, up to `cap` at last. A `cap` below `base` counts as `base`; zeros as 1 ms.
    pub fn new(base: Duration, cap: Duration) -> Self {
        let base = base.max(Duration::from_millis(1));
        Backoff {
            base,
            cap: cap.max(base),
            ceiling: base,
        }
    }

    /// The next wait. `random` is uniform over all of `u64`.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.cap);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random.checked_rem(nanos).unwrap_or(0))
    }

    /// The control plane answered: the next failure starts a new streak.
    pub fn reset(&mut self) {
        self.ceiling = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest waits: random = ceiling - 1 ns.
    fn ceilings(backoff: &mut Backoff, n: usize) -> Vec<u64> {
        (0..n)
            .map(|_| {
                let ceiling = backoff.ceiling;
                let largest = backoff.next_wait(u64::try_from(ceiling.as_nanos()).unwrap_or(0) - 1);
                assert_eq!(largest, ceiling - Duration::from_nanos(1));
                u64::try_from(ceiling.as_millis()).unwrap_or(0)
            })
            .collect()
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let mut backoff = Backoff::default();
        assert_eq!(
            ceilings(&mut backoff, 8),
            [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
        );
    }

    #[test]
    fn a_reset_starts_again_at_the_base() {
        let mut backoff = Backoff::default();
        ceilings(&mut backoff, 5);
        backoff.reset();
        assert_eq!(ceilings(&mut backoff, 2), [500, 1000]);
    }

    #[test]
    fn jitter_is_full_and_stays_below_the_ceiling() {
        let wait = |random| Backoff::default().next_wait(random);
        assert_eq!(wait(0), Duration::ZERO);
        assert_eq!(wait(500_000_000), Duration::ZERO);
        assert_eq!(wait(250_000_000), Duration::from_millis(250));
        assert!(wait(u64::MAX) < Duration::from_millis(500));
    }

    #[test]
    fn absurd_settings_do_not_panic() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert!(backoff.next_wait(u64::MAX) < Duration::from_millis(1));
        let mut backoff = Backoff::new(Duration::MAX, Duration::ZERO);
        backoff.next_wait(u64::MAX);
        backoff.next_wait(7);
    }
}
