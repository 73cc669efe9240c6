//! What happened to front's requests: counts by version and by failure, latencies, identities.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Pairs of identities that are kept; a mesh of three pods has one.
const MAX_IDENTITIES: usize = 16;
/// Kinds of failures that are kept apart in one window.
const MAX_KINDS: usize = 50;
/// Where the rest of them is counted.
const OTHER: &str = "other failures";

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The application answered.
    Answered {
        version: String,
        latency: Duration,
        identities: Option<Identities>,
    },
    /// As the user saw it, and what the sidecars logged.
    Failed(String),
}

/// Who spoke with whom over mTLS, as SPIFFE ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identities {
    pub(super) client: String,
    pub(super) server: String,
}

/// Requests of one span of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    pub(super) versions: BTreeMap<String, Latencies>,
    pub(super) failures: BTreeMap<String, u64>,
}

/// All requests, by spans that end now.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Since the last full second.
    current: Window,
    /// The last full second.
    pub(super) second: Window,
    /// Since the split was changed.
    pub(super) since_change: Window,
    pub(super) total: Window,
    pub(super) identities: BTreeSet<Identities>,
    /// Requests sent again because an idle connection had been closed.
    pub(super) resent: u64,
}

impl Tally {
    pub(super) fn note(&mut self, outcome: &Outcome) {
        for window in [&mut self.current, &mut self.since_change, &mut self.total] {
            window.note(outcome);
        }
        if let Outcome::Answered {
            identities: Some(identities),
            ..
        } = outcome
            && self.identities.len() < MAX_IDENTITIES
        {
            self.identities.insert(identities.clone());
        }
    }

    /// A second is full.
    pub(super) fn roll(&mut self) {
        self.second = std::mem::take(&mut self.current);
    }

    /// The split is another one from now on.
    pub(super) fn change(&mut self) {
        self.since_change = Window::default();
    }
}

impl Window {
    fn note(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Answered { version, latency, .. } => {
                self.versions.entry(version.clone()).or_default().note(*latency);
            }
            Outcome::Failed(kind) => {
                let is_known = self.failures.contains_key(kind) || self.failures.len() < MAX_KINDS;
                let kind = if is_known { kind } else { OTHER };
                *self.failures.entry(kind.to_owned()).or_default() += 1;
            }
        }
    }

    pub(super) fn answered(&self) -> u64 {
        self.versions.values().map(|latencies| latencies.count).sum()
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Answers of a version.
    pub(super) fn of(&self, version: &str) -> u64 {
        self.versions.get(version).map_or(0, |latencies| latencies.count)
    }

    /// Part of all answers that a version gave, in percent; `None` without answers.
    pub(super) fn share(&self, version: &str) -> Option<f64> {
        let answered = self.answered();
        #[allow(clippy::cast_precision_loss)]
        (answered > 0).then(|| 100.0 * self.of(version) as f64 / answered as f64)
    }

    /// Latencies of all versions.
    pub(super) fn latencies(&self) -> Latencies {
        let mut all = Latencies::default();
        for latencies in self.versions.values() {
            all.add(latencies);
        }
        all
    }
}

/// Latencies in buckets of 3 % width, from 1 µs to hours.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies {
    pub(super) count: u64,
    buckets: BTreeMap<u32, u64>,
}

/// Buckets for each doubling, as a power of two.
const SPLIT: u32 = 5;

impl Latencies {
    fn note(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        *self.buckets.entry(bucket(micros)).or_default() += 1;
        self.count += 1;
    }

    fn add(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
        self.count += other.count;
    }

    /// The latency that `percent` of the requests did not exceed, rounded up to a bucket; `None` without requests.
    pub(super) fn percentile(&self, percent: u64) -> Option<Duration> {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_micros(end(*bucket)));
            }
        }
        None
    }
}

/// Values below 2^SPLIT have a bucket each; above, each doubling is cut into that many.
fn bucket(micros: u64) -> u32 {
    let exponent = micros.checked_ilog2().unwrap_or(0);
    if exponent < SPLIT {
        return u32::try_from(micros).unwrap_or(0);
    }
    let within = (micros >> (exponent - SPLIT)) & ((1 << SPLIT) - 1);
    ((exponent - SPLIT + 1) << SPLIT) + u32::try_from(within).unwrap_or(0)
}

/// The largest value in a bucket.
fn end(bucket: u32) -> u64 {
    let row = bucket >> SPLIT;
    let within = u64::from(bucket & ((1 << SPLIT) - 1));
    if row == 0 {
        return within;
    }
    let width = 1_u64.checked_shl(row - 1).unwrap_or(u64::MAX);
    ((1 << SPLIT) + within)
        .saturating_mul(width)
        .saturating_add(width - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(version: &str, micros: u64) -> Outcome {
        Outcome::Answered {
            version: version.to_owned(),
            latency: Duration::from_micros(micros),
            identities: None,
        }
    }

    #[test]
    fn a_percentile_is_right_within_a_bucket() {
        let check = |values: &[u64], percent: u64, expected: u64| {
            let mut window = Window::default();
            values
                .iter()
                .for_each(|micros| window.note(&answered("v1", *micros)));
            let found = window
                .latencies()
                .percentile(percent)
                .map_or(0, |it| it.as_micros());
            let (low, high) = (u128::from(expected), u128::from(expected + expected / 32 + 1));
            assert!((low..=high).contains(&found), "{values:?} p{percent}: {found}");
        };
        check(&[7], 50, 7);
        check(&[1000, 2000, 3000], 50, 2000);
        check(&[1000, 2000, 3000], 99, 3000);
        check(&(1..=1000).collect::<Vec<_>>(), 99, 990);
        check(&[3_600_000_000], 50, 3_600_000_000);
        check(&[u64::MAX / 2], 50, u64::MAX / 2);
        assert_eq!(Latencies::default().percentile(50), None);
    }

    #[test]
    fn shares_are_of_answers_and_windows_end() {
        let mut tally = Tally::default();
        for (version, requests) in [("v1", 3), ("v2", 1)] {
            (0..requests).for_each(|_| tally.note(&answered(version, 5)));
        }
        tally.note(&Outcome::Failed("503".to_owned()));
        tally.roll();
        assert_eq!(tally.second.share("v1"), Some(75.0));
        assert_eq!((tally.second.answered(), tally.second.failed()), (4, 1));
        tally.change();
        tally.roll();
        assert_eq!(tally.second.share("v1"), None);
        assert_eq!(tally.since_change.answered(), 0);
        assert_eq!(tally.total.of("v2"), 1);
    }
}
