//! A ring of hashes (Ketama): each host has places on it by its share, and a request goes to the next place.
//!
//! Source: Envoy docs, ring hash; names of places (`key_0`, `key_1`, …) and their number as Envoy.
use std::fmt::Write as _;

use outrigger_model::cluster::HashFunction;
use twox_hash::XxHash64;

use super::murmur::murmur2;
use super::{Places, places};

/// Places in order of their hash.
#[derive(Debug)]
pub(super) struct Ring {
    /// Hash and member.
    places: Vec<(u64, u32)>,
}

impl Ring {
    /// The member with the least share has a whole number of places, and all together at least `minimum` and at most `maximum`.
    /// O(size log size).
    pub(super) fn new(
        keys: &[String],
        shares: &[f64],
        minimum: u64,
        maximum: u64,
        function: HashFunction,
    ) -> Self {
        let least = shares.iter().copied().fold(1.0, f64::min);
        let scale = ((least * minimum as f64).ceil() / least).min(maximum as f64);
        let mut ring = Vec::with_capacity(scale.ceil() as usize);
        // Running sums: shares that are no whole number of places take turns in rounding.
        let (mut placed, mut target) = (0.0, 0.0);
        let mut name = String::new();
        for (index, (key, share)) in (0..).zip(keys.iter().zip(shares)) {
            target += scale * share;
            let mut number = 0_u64;
            while placed < target {
                name.clear();
                let _infallible = write!(name, "{key}_{number}");
                ring.push((hash(function, name.as_bytes()), index));
                number += 1;
                placed += 1.0;
            }
        }
        ring.sort_unstable_by_key(|(hash, _)| *hash);
        Self { places: ring }
    }

    /// The member at the first place from `hash` on; each attempt goes one place further.
    pub(super) fn find(&self, hash: u64, attempt: u32) -> Option<usize> {
        let next = self.places.partition_point(|(place, _)| *place < hash);
        let place = (next % self.places.len().max(1) + attempt as usize) % self.places.len().max(1);
        self.places.get(place).map(|(_, member)| *member as usize)
    }

    pub(super) fn places(&self, members: usize) -> Places {
        places(self.places.iter().map(|(_, member)| *member), members)
    }
}

fn hash(function: HashFunction, key: &[u8]) -> u64 {
    match function {
        HashFunction::XxHash => XxHash64::oneshot(0, key),
        HashFunction::MurmurHash2 => murmur2(key),
    }
}
