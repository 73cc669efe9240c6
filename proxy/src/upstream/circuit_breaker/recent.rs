//! How many requests began within the last moments, counted by all workers without a lock.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of the time that is looked back on, and the one that goes on.
const SLOTS: u64 = 32;

/// Counts by when they were made. A count is kept for the time that is looked back on, and up to a thirty-first of it longer.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// The number of the part of time, then the count, 32 bits each.
    slots: [AtomicU64; SLOTS as usize],
}

impl Recent {
    /// One more at `now`, since a moment that stays the same; `interval` is looked back on.
    pub(super) fn note(&self, now: Duration, interval: Duration) {
        let part = part(now, interval);
        let Some(slot) = self.slots.get((part % SLOTS) as usize) else {
            return;
        };
        let _never_fails = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            let is_current = before >> 32 == part;
            Some(if is_current {
                before.saturating_add(1)
            } else {
                part << 32 | 1
            })
        });
    }

    /// Those that were noted within `interval` before `now`.
    pub(super) fn count(&self, now: Duration, interval: Duration) -> u64 {
        let part = part(now, interval);
        let slots = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        let recent = slots.filter(|slot| part.checked_sub(slot >> 32).is_some_and(|age| age < SLOTS));
        recent.map(|slot| slot & u64::from(u32::MAX)).sum()
    }
}

/// Which part of time `now` is in, 1..=u32::MAX.
fn part(now: Duration, interval: Duration) -> u64 {
    let length = interval.as_nanos().div_ceil(u128::from(SLOTS - 1)).max(1);
    let part = 1 + now.as_nanos() / length % u128::from(u32::MAX);
    u64::try_from(part).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_counts_for_the_interval() {
        let interval = Duration::from_secs(31);
        let at = Duration::from_secs;
        let recent = Recent::default();
        for second in 0..10 {
            recent.note(at(second), interval);
        }
        recent.note(at(9), interval);
        for (now, expected) in [(9, 11), (31, 11), (32, 10), (36, 6), (40, 2), (41, 0), (900, 0)] {
            assert_eq!(recent.count(at(now), interval), expected, "after {now} s");
        }
        recent.note(at(900), interval);
        assert_eq!(recent.count(at(901), interval), 1);
    }

    #[test]
    fn nothing_is_lost_between_workers() {
        let recent = Recent::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| recent.note(Duration::ZERO, Duration::from_secs(1))));
            }
        });
        assert_eq!(recent.count(Duration::ZERO, Duration::from_secs(1)), 4000);
    }
}
