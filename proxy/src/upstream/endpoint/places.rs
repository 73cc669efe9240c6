//! Which host of a set has an address. Knows nothing of priorities and health.
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use super::Host;

/// Where the host of an address is; a few are looked through, many are indexed.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<SocketAddr, u32, BuildHasherDefault<AddressHasher>>);

/// Addresses of endpoints.
pub(in crate::upstream) type AddressSet = HashSet<SocketAddr, BuildHasherDefault<AddressHasher>>;

/// Up to so many hosts are compared one by one.
const FEW: usize = 16;

impl Places {
    /// With room for so many hosts.
    pub(super) fn with_capacity(hosts: usize) -> Self {
        let mut places = Self::default();
        if hosts > FEW {
            places.0.reserve(hosts);
        }
        places
    }

    /// The host of `all` at this address.
    pub(super) fn find<'a>(&self, all: &'a [Arc<Host>], address: SocketAddr) -> Option<&'a Arc<Host>> {
        if all.len() <= FEW {
            return all.iter().find(|host| host.address == address);
        }
        all.get(*self.0.get(&address)? as usize)
    }

    /// Adds `host` unless its address is there.
    pub(super) fn push(&mut self, all: &mut Vec<Arc<Host>>, host: Arc<Host>) {
        if all.len() < FEW {
            if all.iter().all(|known| known.address != host.address) {
                all.push(host);
            }
            return;
        }
        if self.0.is_empty() {
            self.0.extend(all.iter().map(|host| host.address).zip(0..));
        }
        if let Entry::Vacant(vacant) = self.0.entry(host.address) {
            vacant.insert(u32::try_from(all.len()).unwrap_or(u32::MAX));
            all.push(host);
        }
    }
}

/// Hashes the addresses of one service in a fifth of the time that the standard hasher takes. Whoever could choose them so that they
/// collide is the control plane, and it can do worse.
#[derive(Debug, Default)]
pub(in crate::upstream) struct AddressHasher(u64);

/// Odd, half of its bits set: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl AddressHasher {
    fn add(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(MULTIPLIER);
    }
}

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            self.add(part.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)));
        }
    }

    fn write_u16(&mut self, value: u16) {
        self.add(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.add(value.into());
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    fn finish(&self) -> u64 {
        // Tables take the low bits for the place, and those of a product depend on few bits of its factors.
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;

    /// Of 4,096 addresses of a kind that services have, the most in one of as many buckets.
    fn check(address: impl Fn(u16) -> SocketAddr) {
        let hasher = BuildHasherDefault::<AddressHasher>::default();
        for shift in [0, 52] {
            let mut buckets = vec![0; 4096];
            for number in 0..4096 {
                let hash = hasher.hash_one(address(number));
                buckets[(hash >> shift) as usize % 4096] += 1;
            }
            // A random function would have 7 or 8.
            let most = buckets.into_iter().max();
            assert!(most < Some(12), "{most:?} share a bucket, bits from {shift}");
        }
    }

    #[test]
    fn addresses_of_a_service_spread_over_the_table() {
        check(|number| ([10, 0, (number >> 8) as u8, number as u8], 8080).into());
        check(|number| ([10, (number >> 8) as u8, number as u8, 7], 8080).into());
        check(|number| ([127, 0, 0, 1], number).into());
        check(|number| ([0xfd00, 0, 0, 0, 0, 0, 0, number], 8080).into());
        check(|number| ([0xfd00, number, 0, 0, 0, 0, 0, 1], 8080).into());
    }
}
