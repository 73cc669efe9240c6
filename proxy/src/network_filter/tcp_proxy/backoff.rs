//! `backoff_options`: the waits between the attempts of one connection.
//!
//! Source: Envoy `JitteredExponentialBackOffStrategy`. Envoy has one for all connections of a filter, whose waits never get short again; here
//! each connection begins anew.
use std::time::Duration;

use outrigger_model::network_filter::tcp_proxy::Backoff as Config;

/// Waits of one connection.
#[derive(Debug)]
pub(super) struct Backoff {
    /// The next wait is shorter.
    ceiling: Duration,
    max: Duration,
}

impl Backoff {
    /// Begins with the shortest ones.
    pub(super) fn new(config: Config) -> Self {
        Self {
            ceiling: config.base,
            max: config.max,
        }
    }

    /// The next one.
    pub(super) fn next_wait(&mut self, random: &mut fastrand::Rng) -> Duration {
        let wait = self.ceiling.mul_f64(random.f64());
        self.ceiling = (self.ceiling * 2).min(self.max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_below_limits_that_double() {
        let mut random = fastrand::Rng::with_seed(1);
        let (base, max) = (Duration::from_millis(10), Duration::from_millis(35));
        let mut longest = [Duration::ZERO; 4];
        for _ in 0..200 {
            let mut backoff = Backoff::new(Config { base, max });
            for longest in &mut longest {
                *longest = backoff.next_wait(&mut random).max(*longest);
            }
        }
        for (longest, limit) in longest.into_iter().zip([10, 20, 35, 35]) {
            let limit = Duration::from_millis(limit);
            assert!(
                longest < limit && longest > limit.mul_f64(0.8),
                "{longest:?} of {limit:?}"
            );
        }
    }
}
