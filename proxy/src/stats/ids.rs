//! The ids that counting code holds. An id keeps its slot alive; it is one pointer wide, cloning it is one atomic increment.
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Snapshot;
use super::histogram::Bins;
use super::slots::{self, Shared, Table};
use super::tags::TaggedName;

/// A full stat name, as Envoy prints it in `/stats`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StatName(Arc<str>);

impl StatName {
    pub(super) fn into_inner(self) -> Arc<str> {
        self.0
    }
}

impl From<&str> for StatName {
    fn from(name: &str) -> StatName {
        StatName(name.into())
    }
}

impl From<String> for StatName {
    fn from(name: String) -> StatName {
        StatName(name.into())
    }
}

impl fmt::Display for StatName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// One counter or gauge. `slot` is `None` when all slots are taken: then every thread uses `fallback`.
pub(super) struct CellEntry {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    slot: Option<u32>,
    used: AtomicBool,
    fallback: AtomicU64,
    pub(super) tagged: OnceLock<TaggedName>,
    shared: Arc<Shared>,
}

impl CellEntry {
    pub(super) fn new(name: Arc<str>, kind: Kind, slot: Option<u32>, shared: Arc<Shared>) -> CellEntry {
        CellEntry {
            name,
            kind,
            slot,
            used: AtomicBool::new(false),
            fallback: AtomicU64::new(0),
            tagged: OnceLock::new(),
            shared,
        }
    }

    /// One that is not registered, for one output; `None`: never changed.
    pub(super) fn shown(name: Arc<str>, kind: Kind, value: Option<u64>, shared: Arc<Shared>) -> CellEntry {
        let entry = CellEntry::new(name, kind, None, shared);
        if let Some(value) = value {
            entry.set(value);
        }
        entry
    }

    /// Adds modulo 2^64, so that adding `-n as u64` subtracts.
    fn add(&self, n: u64) {
        self.mark_used();
        if !slots::add(&self.shared, self.slot, n) {
            self.fallback.fetch_add(n, Relaxed);
        }
    }

    fn set(&self, value: u64) {
        self.mark_used();
        self.fallback.store(value, Relaxed);
    }

    /// Reads first: a store each time would move the cache line between the workers.
    fn mark_used(&self) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    /// Envoy's "used": it was changed or set once, be it to 0.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    pub(super) fn value(&self, tables: &[Arc<Table>]) -> u64 {
        // What was set, of a gauge with one owner; the slots of such a one are all 0.
        let set = self.fallback.load(Relaxed);
        let added = tables
            .iter()
            .fold(0_u64, |sum, table| sum.wrapping_add(table.cell(self.slot)));
        let sum = set.wrapping_add(added);
        // Threads are read one after the other, so a gauge may look negative for a moment.
        if self.kind == Kind::Gauge && added != 0 && sum > i64::MAX as u64 {
            0
        } else {
            sum
        }
    }
}

impl Drop for CellEntry {
    fn drop(&mut self) {
        self.shared.free_cell(self.slot);
    }
}

impl fmt::Debug for CellEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Counts up. `None` inside: the bootstrap's `stats_matcher` leaves it out, and counting does nothing.
#[derive(Debug, Clone)]
pub(crate) struct Counter(pub(super) Option<Arc<CellEntry>>);

impl Counter {
    /// One that counts nothing.
    pub(crate) fn none() -> Counter {
        Counter(None)
    }

    /// Adds 1.
    #[inline]
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`; `add(0)` only marks the counter as used.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        if let Some(entry) = &self.0 {
            entry.add(n);
        }
    }

    /// Sum over all threads; 0 if it is left out. Locks; for outputs and tests.
    #[cfg(test)]
    pub(crate) fn value(&self) -> u64 {
        self.0
            .as_ref()
            .map_or(0, |entry| entry.value(&entry.shared.tables()))
    }
}

/// Goes up and down; never seen below 0. `None` inside as in [`Counter`].
#[derive(Debug, Clone)]
pub(crate) struct Gauge(pub(super) Option<Arc<CellEntry>>);

impl Gauge {
    /// One that counts nothing.
    pub(crate) fn none() -> Gauge {
        Gauge(None)
    }

    /// Adds 1.
    #[inline]
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    /// Takes 1 away; the thread may differ from the one that added it.
    #[inline]
    pub(crate) fn dec(&self) {
        self.sub(1);
    }

    /// Adds `n`.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        if let Some(entry) = &self.0 {
            entry.add(n);
        }
    }

    /// Takes `n` away.
    #[inline]
    pub(crate) fn sub(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    /// Sets the value, for a gauge with one owner (`server.state`); do not mix with `add` and `sub`.
    pub(crate) fn set(&self, value: u64) {
        if let Some(entry) = &self.0 {
            entry.set(value);
        }
    }

    /// Sum over all threads; 0 if it is left out. Locks; for outputs and tests.
    #[cfg(test)]
    pub(crate) fn value(&self) -> u64 {
        self.0
            .as_ref()
            .map_or(0, |entry| entry.value(&entry.shared.tables()))
    }
}

/// One histogram.
pub(super) struct HistogramEntry {
    pub(super) name: Arc<str>,
    slot: Option<u32>,
    fallback: Bins,
    flushed: Mutex<Flushed>,
    pub(super) tagged: OnceLock<TaggedName>,
    /// Of Prometheus' buckets.
    pub(super) bounds: OnceLock<Arc<[f64]>>,
    shared: Arc<Shared>,
}

/// What the last flush saw.
#[derive(Default)]
struct Flushed {
    cumulative: Snapshot,
    interval: Snapshot,
}

impl HistogramEntry {
    pub(super) fn new(name: Arc<str>, slot: Option<u32>, shared: Arc<Shared>) -> HistogramEntry {
        let (fallback, flushed, tagged) = (Bins::default(), Mutex::default(), OnceLock::new());
        HistogramEntry {
            name,
            slot,
            fallback,
            flushed,
            tagged,
            bounds: OnceLock::new(),
            shared,
        }
    }

    pub(super) fn cumulative(&self, tables: &[Arc<Table>]) -> Snapshot {
        let mut sum = Snapshot::default();
        self.fallback.add_to(&mut sum);
        for bins in tables.iter().filter_map(|table| table.bins(self.slot)) {
            bins.add_to(&mut sum);
        }
        sum
    }

    /// What was recorded between the last two flushes.
    pub(super) fn interval(&self) -> Snapshot {
        self.flushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .interval
            .clone()
    }

    pub(super) fn flush(&self, tables: &[Arc<Table>]) {
        let now = self.cumulative(tables);
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        flushed.interval = now.since(&flushed.cumulative);
        flushed.cumulative = now;
    }
}

impl Drop for HistogramEntry {
    fn drop(&mut self) {
        self.shared.free_histogram(self.slot);
    }
}

impl fmt::Debug for HistogramEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Distribution of whole numbers (milliseconds, bytes, counts) with two significant digits.
///
/// `None` inside as in [`Counter`].
#[derive(Debug, Clone)]
pub(crate) struct Histogram(pub(super) Option<Arc<HistogramEntry>>);

impl Histogram {
    /// One that records nothing.
    pub(crate) fn none() -> Histogram {
        Histogram(None)
    }

    /// Records one value, in the unit of the name (`_ms`, `_time`: milliseconds).
    #[inline]
    pub(crate) fn record(&self, value: u64) {
        let Some(entry) = &self.0 else { return };
        if !slots::record(&entry.shared, entry.slot, value) {
            entry.fallback.record_shared(value);
        }
    }

    /// All threads together. Locks; for tests.
    #[cfg(test)]
    pub(super) fn snapshot(&self) -> Snapshot {
        self.0.as_ref().map_or_else(Snapshot::default, |entry| {
            entry.cumulative(&entry.shared.tables())
        })
    }
}
