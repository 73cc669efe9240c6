//! A table of fixed size in which each member has places by its share; a hash is an index.
//!
//! Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", 3.4; hashes, weights and the order of members
//! as Envoy.
use twox_hash::XxHash64;

use super::{Places, places};

/// Members by place.
#[derive(Debug)]
pub(super) struct Maglev {
    places: Box<[u32]>,
}

/// A member's walk over the table.
struct Walk {
    offset: u64,
    skip: u64,
    step: u64,
    share: f64,
    /// The member has a turn when its share times the round has come so far.
    target: f64,
}

const EMPTY: u32 = u32::MAX;

impl Maglev {
    /// O(size) on average.
    pub(super) fn new(keys: &[String], shares: &[f64], size: u64) -> Self {
        let mut walks: Vec<Walk> = keys
            .iter()
            .zip(shares)
            .map(|(key, share)| Walk {
                offset: XxHash64::oneshot(0, key.as_bytes()) % size,
                skip: XxHash64::oneshot(1, key.as_bytes()) % (size - 1) + 1,
                step: 0,
                share: *share,
                target: 0.0,
            })
            .collect();
        if walks.is_empty() {
            return Self {
                places: Box::default(),
            };
        }
        let most = shares.iter().copied().fold(0.0, f64::max);
        let mut table = vec![EMPTY; usize::try_from(size).unwrap_or(0)];
        let mut left = size;
        let mut round = 1.0;
        while left > 0 {
            for (index, walk) in (0..).zip(&mut walks) {
                if left == 0 {
                    break;
                }
                if round * walk.share < walk.target {
                    continue;
                }
                walk.target += most;
                walk.take(&mut table, size, index);
                left -= 1;
            }
            round += 1.0;
        }
        Self { places: table.into() }
    }

    /// The member at the place of `hash`; attempts change the hash in most of its bits.
    pub(super) fn find(&self, hash: u64, attempt: u32) -> Option<usize> {
        let mixed = match attempt {
            0 => hash,
            attempt => hash ^ (u64::MAX - u64::from(attempt) + 1),
        };
        let place = mixed.checked_rem(self.places.len() as u64)?;
        self.places.get(place as usize).map(|member| *member as usize)
    }

    pub(super) fn places(&self, members: usize) -> Places {
        places(self.places.iter().copied(), members)
    }
}

impl Walk {
    /// Takes the next free place. There is one: the size is prime, so the walk comes to all of them.
    fn take(&mut self, table: &mut [u32], size: u64, index: u32) {
        for _ in 0..size {
            let place = (self.offset + self.skip * self.step) % size;
            self.step += 1;
            if let Some(free) = table.get_mut(place as usize).filter(|free| **free == EMPTY) {
                *free = index;
                return;
            }
        }
    }
}
