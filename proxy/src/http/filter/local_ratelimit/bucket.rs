//! A token bucket that threads share without a lock.
//!
//! All that it holds is the moment at which it was empty: tokens come back as time goes by, a little at a time, as in Envoy's
//! `AtomicTokenBucketImpl`. Taking one moves that moment on by what one token takes to come; of two threads only one moves it.
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_model::http_filter::local_ratelimit::TokenBucket;

use crate::time::Instant;

/// The bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    max_tokens: u32,
    /// Nanoseconds in which one token comes.
    token: u128,
    /// When the bucket was empty, nanoseconds from `begin`.
    empty: AtomicU64,
    begin: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(config: &TokenBucket) -> Self {
        let token = (config.fill_interval.as_nanos() / u128::from(config.tokens_per_fill)).max(1);
        let full = token * u128::from(config.max_tokens);
        // `begin` lies so far back that the bucket has had the time to fill.
        Self {
            max_tokens: config.max_tokens,
            token,
            empty: AtomicU64::new(0),
            begin: Instant::now()
                .checked_sub(duration(full))
                .unwrap_or_else(Instant::now),
        }
    }

    /// How long a token takes to come, nanoseconds.
    pub(super) fn token_nanos(&self) -> u128 {
        self.token
    }

    pub(super) fn max_tokens(&self) -> u32 {
        self.max_tokens
    }

    /// Takes a token; false: there is none.
    pub(crate) fn take(&self) -> bool {
        self.take_at(self.now())
    }

    fn take_at(&self, now: u128) -> bool {
        let mut empty = self.empty.load(Ordering::Relaxed);
        loop {
            let since = self.emptied(empty, now);
            if now.saturating_sub(since) < self.token || self.max_tokens == 0 {
                return false;
            }
            let next = u64::try_from(since + self.token).unwrap_or(u64::MAX);
            match self
                .empty
                .compare_exchange_weak(empty, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(other) => empty = other,
            }
        }
    }

    /// When it was empty, if it has not been full since; else when it would have been to be just full now.
    fn emptied(&self, empty: u64, now: u128) -> u128 {
        u128::from(empty).max(now.saturating_sub(self.token * u128::from(self.max_tokens)))
    }

    /// Whole tokens in it.
    pub(super) fn tokens(&self) -> u64 {
        let now = self.now();
        let since = self.emptied(self.empty.load(Ordering::Relaxed), now);
        u64::try_from(now.saturating_sub(since) / self.token).unwrap_or(u64::MAX)
    }

    /// Until there is a token; 0 when there is one.
    pub(super) fn seconds_to_next(&self) -> u64 {
        let now = self.now();
        let since = self.emptied(self.empty.load(Ordering::Relaxed), now);
        let has = now.saturating_sub(since);
        let missing = self.token.saturating_sub(has);
        u64::try_from(missing.div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
    }

    fn now(&self) -> u128 {
        self.begin.elapsed().as_nanos()
    }
}

fn duration(time: u128) -> std::time::Duration {
    std::time::Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn bucket(max_tokens: u32, tokens_per_fill: u32, millis: u64) -> Bucket {
        Bucket::new(&TokenBucket {
            max_tokens,
            tokens_per_fill,
            fill_interval: Duration::from_millis(millis),
        })
    }

    #[track_caller]
    fn check(bucket: &Bucket, at_millis: &[(u64, bool)]) {
        let start = bucket.now();
        for (millis, expected) in at_millis {
            let now = start + u128::from(*millis) * 1_000_000;
            assert_eq!(bucket.take_at(now), *expected, "after {millis} ms");
        }
    }

    #[test]
    fn one_a_second_is_one_a_second() {
        let times = [
            (0, true),
            (1, false),
            (999, false),
            (1000, true),
            (1999, false),
            (2000, true),
        ];
        check(&bucket(1, 1, 1000), &times);
    }

    #[test]
    fn tokens_gather_up_to_the_most() {
        let times = [
            (0, true),
            (0, true),
            (0, false),
            (9000, true),
            (9000, true),
            (9000, false),
        ];
        check(&bucket(2, 1, 1000), &times);
    }

    #[test]
    fn tokens_come_evenly_within_an_interval() {
        let times = [
            (0, true),
            (0, true),
            (0, false),
            (499, false),
            (500, true),
            (999, false),
            (1000, true),
        ];
        check(&bucket(2, 2, 1000), &times);
    }

    #[test]
    fn a_bucket_for_no_token_has_none() {
        check(&bucket(0, 1, 50), &[(0, false), (1000, false)]);
    }

    #[test]
    fn of_many_threads_no_more_get_a_token_than_there_are() {
        let bucket = Arc::new(bucket(100, 1, 3_600_000));
        let threads = (0..4).map(|_| {
            let bucket = bucket.clone();
            std::thread::spawn(move || (0..1000).filter(|_| bucket.take()).count())
        });
        let taken: usize = threads
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum();
        assert_eq!(taken, 100);
    }
}
