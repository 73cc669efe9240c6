//! What a worker looked up lately: bounded maps, and the small numbers that stand for things in their keys.
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// Stands for one thing as long as the process lives; unlike an address, never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Serial(u64);

impl Serial {
    /// Of nothing.
    pub(crate) const NONE: Serial = Serial(0);

    /// A new one.
    pub(crate) fn next() -> Serial {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Serial(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// At most twice `generation` entries: when the young half is full it becomes the old half, and what was not asked for since is
/// dropped. So what is in use stays, at the cost of one lookup (two for entries not asked for lately).
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    young: Map<K, V>,
    old: Map<K, V>,
    generation: usize,
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// Keeps `generation` entries at least.
    pub(crate) fn new(generation: usize) -> Self {
        Self {
            young: Map::default(),
            old: Map::default(),
            generation,
        }
    }

    /// The value of `key`; `keep` makes the owned key when an old entry becomes young.
    pub(crate) fn get<Q>(&mut self, key: &Q, keep: impl FnOnce() -> K) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(keep(), value.clone());
        Some(value)
    }

    /// Remembers a value.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

/// Mixes words by multiplication, as the hashers of compilers do: keys are a few serial numbers. Not for keys by which a peer could
/// make a map slow for others; here a map holds at most two generations.
#[derive(Debug, Default)]
pub(crate) struct Mixer(u64);

/// 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_ne_bytes(*word));
        }
        for byte in rest {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }
    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(GOLDEN);
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
    fn finish(&self) -> u64 {
        // The map looks at the lowest and the highest bits; a product mixes upwards only.
        self.0 ^ self.0.rotate_right(32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_dropped() {
        let mut recent = Recent::new(10);
        recent.insert("used".to_owned(), 0);
        for n in 1..1000 {
            recent.insert(n.to_string(), n);
            assert_eq!(recent.get("used", || "used".to_owned()), Some(0), "after {n}");
            assert!(recent.young.len() + recent.old.len() <= 20);
        }
        assert_eq!(recent.get("1", || unreachable!("it is gone")), None);
        assert_eq!(recent.get("999", || unreachable!("it is young")), Some(999));
    }

    #[test]
    fn near_keys_have_far_hashes() {
        let hash = |value: u64| {
            let mut mixer = Mixer::default();
            (Serial(value), Serial::NONE, 200_u16).hash(&mut mixer);
            mixer.finish()
        };
        let low: std::collections::HashSet<u64> = (0..1000).map(|n| hash(n) % 4096).collect();
        let high: std::collections::HashSet<u64> = (0..1000).map(|n| hash(n) >> 57).collect();
        assert!(
            low.len() > 700 && high.len() > 100,
            "{} {}",
            low.len(),
            high.len()
        );
    }
}
