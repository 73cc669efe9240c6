//! How long a host takes to answer: a moving average that follows peaks at once and forgets with time.
//!
//! Written by all workers with relaxed atomics: of two samples at the same moment one may be lost, which is no matter to an average.
//! Source: Finagle's and linkerd's peak EWMA.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Cheapest answer that is told apart from none.
const FLOOR_NANOS: f64 = 1_000.0;

/// Latency of one host.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// Nanoseconds as bits of a float; 0: no sample.
    nanos: AtomicU64,
    /// When, in microseconds of the host's age.
    at: AtomicU64,
}

impl Latency {
    /// A sample at `age` of the host. A peak counts at once, anything lower as much as time has passed.
    pub(crate) fn note(&self, sample: Duration, age: Duration, decay: Duration) {
        let sample = (sample.as_nanos() as f64).max(FLOOR_NANOS);
        let next = match self.now(age, decay) {
            Some(projected) if sample <= projected => {
                let kept = kept(self.passed(age), decay);
                let before = f64::from_bits(self.nanos.load(Relaxed));
                before * kept + sample * (1.0 - kept)
            }
            _ => sample,
        };
        self.nanos.store(next.to_bits(), Relaxed);
        self.at.store(micros(age), Relaxed);
    }

    /// Nanoseconds at `age`: an old measurement fades. `None`: there was none.
    pub(crate) fn now(&self, age: Duration, decay: Duration) -> Option<f64> {
        let nanos = f64::from_bits(self.nanos.load(Relaxed));
        (nanos > 0.0).then(|| (nanos * kept(self.passed(age), decay)).max(FLOOR_NANOS))
    }

    fn passed(&self, age: Duration) -> Duration {
        Duration::from_micros(micros(age).saturating_sub(self.at.load(Relaxed)))
    }
}

fn micros(age: Duration) -> u64 {
    u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
}

/// The part that is left after this time.
fn kept(passed: Duration, decay: Duration) -> f64 {
    (-passed.as_secs_f64() / decay.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    #[test]
    fn a_peak_counts_at_once_and_fades_with_time() {
        let latency = Latency::default();
        let (seconds, millis) = (Duration::from_secs, Duration::from_millis);
        let now = |age| latency.now(age, DECAY).map(|nanos| (nanos / 1e6).round());
        assert_eq!(now(seconds(0)), None);
        latency.note(millis(10), seconds(1), DECAY);
        assert_eq!(now(seconds(1)), Some(10.0));
        latency.note(millis(100), seconds(1), DECAY);
        assert_eq!(now(seconds(1)), Some(100.0));
        // A moment later a quick answer hardly changes that.
        latency.note(millis(10), seconds(1) + millis(100), DECAY);
        assert_eq!(now(seconds(1) + millis(100)), Some(99.0));
        assert_eq!(now(seconds(11)), Some(37.0));
        latency.note(millis(10), seconds(31), DECAY);
        assert!(now(seconds(31)).is_some_and(|millis| millis <= 15.0));
    }
}
