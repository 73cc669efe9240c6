//! Taking turns by weight: earliest deadline first, written down beforehand.
//!
//! Envoy keeps a heap of deadlines for each worker and pops it under way. Weights here are fixed until the hosts change, and such a
//! schedule repeats after as many turns as the weights sum to; so it is computed once, and a turn is one atomic add. Where the period is
//! too long, turns follow a sequence of low discrepancy instead, which has the same shares and nearly the same evenness.
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Longest period that is written down: 32 KiB.
const MAX_PERIOD: u64 = 8192;

/// Turns of things with weights; shared by all workers, so that a few requests on many workers are spread too.
#[derive(Debug)]
pub(super) struct Schedule {
    turns: Turns,
    cursor: AtomicUsize,
}

#[derive(Debug)]
enum Turns {
    /// In order.
    Equal(usize),
    /// Indexes, one period.
    Written(Box<[u32]>),
    /// Running sums of weights.
    Spread(Box<[u64]>),
}

/// When a thing has its next turn: `turn / weight`, equal times by order of entry.
#[derive(Debug, PartialEq, Eq)]
struct Deadline {
    turn: u64,
    weight: u64,
    order: u64,
    index: u32,
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // a/b < c/d without division; weights are at most 2^32, turns at most MAX_PERIOD.
        let (own, others) = (self.turn * other.weight, other.turn * self.weight);
        own.cmp(&others).then(self.order.cmp(&other.order))
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Schedule {
    /// Begins anywhere: many proxies that start together do not all begin with the same host. O(n log n).
    pub(super) fn new(weights: &[u32], random: &mut fastrand::Rng) -> Self {
        Self {
            turns: Turns::new(weights),
            cursor: AtomicUsize::new(random.usize(..)),
        }
    }

    /// Whose turn it is; `None`: nobody has a weight.
    #[inline]
    pub(super) fn next(&self) -> Option<usize> {
        let turn = self.cursor.fetch_add(1, Ordering::Relaxed);
        match &self.turns {
            Turns::Equal(0) => None,
            Turns::Equal(count) => Some(turn % count),
            Turns::Written(order) => order.get(turn % order.len().max(1)).map(|index| *index as usize),
            Turns::Spread(upto) => {
                let total = *upto.last()?;
                // Multiples of the golden ratio fill the circle most evenly (Weyl's sequence).
                let place = (turn as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let ticket = ((u128::from(place) * u128::from(total)) >> 64) as u64;
                Some(upto.partition_point(|upto| *upto <= ticket))
            }
        }
    }
}

impl Turns {
    fn new(weights: &[u32]) -> Self {
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            let some = weights.first().is_some_and(|weight| *weight > 0);
            return Self::Equal(if some { weights.len() } else { 0 });
        }
        let divisor = weights.iter().copied().fold(0, gcd).max(1);
        let weights: Vec<u64> = weights.iter().map(|weight| u64::from(weight / divisor)).collect();
        let period: u64 = weights.iter().sum();
        if period > MAX_PERIOD {
            let running = weights.iter().scan(0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            });
            return Self::Spread(running.collect());
        }
        Self::Written(write(&weights, period))
    }
}

/// One period of turns, earliest deadline first.
fn write(weights: &[u64], period: u64) -> Box<[u32]> {
    let mut order = 0;
    let mut heap: BinaryHeap<Reverse<Deadline>> = BinaryHeap::with_capacity(weights.len());
    for (index, weight) in (0..).zip(weights).filter(|(_, weight)| **weight > 0) {
        heap.push(Reverse(Deadline {
            turn: 1,
            weight: *weight,
            order,
            index,
        }));
        order += 1;
    }
    let mut turns = Vec::with_capacity(usize::try_from(period).unwrap_or(0));
    for _ in 0..period {
        let Some(Reverse(next)) = heap.pop() else { break };
        turns.push(next.index);
        heap.push(Reverse(Deadline {
            turn: next.turn + 1,
            order,
            ..next
        }));
        order += 1;
    }
    turns.into()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let schedule = Schedule {
            turns: Turns::new(weights),
            cursor: AtomicUsize::new(0),
        };
        (0..count).filter_map(|_| schedule.next()).collect()
    }

    /// By hand: deadlines are multiples of 1 / weight, and of equal ones the first entered is first.
    #[test]
    fn turns_are_those_of_earliest_deadline_first() {
        assert_eq!(turns(&[1, 2], 6), [1, 0, 1, 1, 0, 1]);
        assert_eq!(turns(&[1, 2, 3], 6), [2, 1, 2, 0, 1, 2]);
        assert_eq!(turns(&[7, 7], 3), [0, 1, 0]);
        assert_eq!(turns(&[10, 0, 20], 3), [2, 0, 2]);
    }

    #[test]
    fn without_weight_nobody_has_a_turn() {
        assert!(turns(&[], 2).is_empty());
        assert!(turns(&[0, 0], 2).is_empty());
    }

    #[test]
    fn shares_are_exact_within_a_period_and_near_it_where_none_is_written() {
        for weights in [
            &[3, 1, 4, 1, 5][..],
            &[100_003, 9_001, 77],
            &[u32::MAX, 1, u32::MAX],
        ] {
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let mut counts = vec![0_u64; weights.len()];
            for index in turns(weights, 140_000) {
                counts[index] += 1;
            }
            for (count, weight) in counts.iter().zip(weights) {
                let expected = 140_000.0 * f64::from(*weight) / total as f64;
                assert!((*count as f64 - expected).abs() < 30.0, "{weights:?}: {counts:?}");
            }
        }
    }
}
