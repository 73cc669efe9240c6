//! Tables by the names of resources.
//!
//! A push of a large mesh looks thousands of names up that are sixty bytes long and much alike; the standard hasher takes as long for one
//! as comparing the resource itself. Whoever could choose names that collide is the control plane, and it can do worse.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Something of each name.
pub(super) type Named<V> = HashMap<String, V, BuildHasherDefault<NameHasher>>;

/// Names that stand elsewhere.
pub(super) type NameSet<'a> = HashSet<&'a str, BuildHasherDefault<NameHasher>>;

/// Eight bytes at a time.
#[derive(Debug, Default)]
pub(super) struct NameHasher(u64);

/// Odd, half of its bits set: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl NameHasher {
    fn add(&mut self, value: u64) {
        // All bits of the product count: the upper half says what the lower one cannot.
        let product = u128::from(self.0.rotate_left(23) ^ value) * u128::from(MULTIPLIER);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        // The length tells a short rest from one that is filled with zeros.
        let rest = rest
            .iter()
            .fold(rest.len() as u64, |value, byte| value << 8 | u64::from(*byte));
        self.add(rest);
    }

    fn write_u8(&mut self, value: u8) {
        self.add(value.into());
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;

    #[test]
    fn names_of_a_mesh_spread_over_the_table() {
        let hasher = BuildHasherDefault::<NameHasher>::default();
        let names = (0..4096)
            .map(|number| format!("outbound|80||service-{number}.ns{}.svc.cluster.local", number % 7));
        let hashes: Vec<u64> = names.map(|name| hasher.hash_one(name)).collect();
        for shift in [0, 52] {
            let mut buckets = vec![0; 4096];
            for hash in &hashes {
                buckets[(hash >> shift) as usize % 4096] += 1;
            }
            // A random function would have 7 or 8.
            let most = buckets.into_iter().max();
            assert!(most < Some(12), "{most:?} share a bucket, bits from {shift}");
        }
    }
}
