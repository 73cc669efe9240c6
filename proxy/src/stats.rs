//! Counters, gauges and histograms: named once at configuration time, counted per thread without a lock.
//!
//! Owns the [`Registry`] (control side) and the ids that the data path holds. Imports nothing of this crate.
//!
//! Costs, per call on a thread that called [`enter_worker`]:
//! - [`Counter::inc`], [`Gauge::add`]: one thread-local read, one relaxed load and store in memory that only this thread
//!   writes. No atomic read-modify-write, no lock, no allocation (but 8 KiB the first time a thread touches a chunk of 1024 ids).
//! - [`Histogram::record`]: the same, in the bucket of the value; allocates 720 bytes the first time a thread
//!   records a value of a new power of ten in that histogram.
//! - On any other thread the value goes into a cell that all threads share, with `fetch_add`: slower, equally exact.
//! - Registration and rendering take a lock and allocate: control thread, or once per new response code.
//!
//! Removal: [`Registry::remove_prefix`] takes names out of all outputs at once. Ids that somebody still holds (streams in
//! flight on a removed cluster) stay valid and count into a slot that nobody reads; the slot is cleared and used
//! again when the last clone of the id is dropped. A name registered again after removal starts at 0.
//!
//! Names are Envoy's full names, e.g. `cluster.outbound|9999|v1|bill.default.svc.cluster.local;.upstream_rq_total`.
mod histogram;
mod ids;
mod inclusion;
mod render;
mod response_codes;
mod slots;
mod source;
mod tagged;
mod tags;

pub(crate) use ids::{Counter, Gauge, Histogram, StatName};
pub(crate) use inclusion::NameRules;
pub(crate) use render::{json, prometheus, text};
pub(crate) use response_codes::ResponseCodes;
pub(crate) use slots::WorkerStats;
pub(crate) use source::{Show, Source, Unregistered};
pub(crate) use tagged::Tags;
pub(crate) use tags::TagRules;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use histogram::Snapshot;
use ids::{CellEntry, HistogramEntry, Kind};
use slots::Shared;

/// All stats of the process. Shared as an `Arc`; see the module for what calls cost.
pub(crate) struct Registry {
    shared: Arc<Shared>,
    tags: TagRules,
    rules: NameRules,
    names: Mutex<Names>,
    sources: Mutex<Vec<Weak<dyn Source>>>,
}

/// What is registered, sorted by full name as every output needs it.
#[derive(Default)]
struct Names {
    counters: BTreeMap<Arc<str>, Arc<CellEntry>>,
    gauges: BTreeMap<Arc<str>, Arc<CellEntry>>,
    histograms: BTreeMap<Arc<str>, Arc<HistogramEntry>>,
    texts: BTreeMap<Arc<str>, String>,
}

impl Names {
    fn has(&self, name: &str) -> bool {
        self.counters.contains_key(name)
            || self.gauges.contains_key(name)
            || self.histograms.contains_key(name)
    }
}

impl Registry {
    /// An empty registry for the stats that `rules` include.
    pub(crate) fn with_rules(tags: TagRules, rules: NameRules) -> Arc<Registry> {
        Arc::new(Registry {
            shared: Shared::new(),
            tags,
            rules,
            names: Mutex::default(),
            sources: Mutex::default(),
        })
    }

    /// Shows what `source` has in every output, as long as it lives.
    pub(crate) fn add_source<S: Source + 'static>(&self, source: &Arc<S>) {
        let source: Arc<dyn Source> = source.clone();
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(Arc::downgrade(&source));
    }

    /// The counter of this name; the same id each time until it is removed.
    pub(crate) fn counter(&self, name: impl Into<StatName>) -> Counter {
        let name = self.included(name);
        Counter(name.map(|name| {
            let mut names = self.lock();
            let entry = names.counters.entry(name);
            Arc::clone(entry.or_insert_with_key(|key| self.shared.new_cell(Arc::clone(key), Kind::Counter)))
        }))
    }

    /// The gauge of this name; the same id each time until it is removed.
    pub(crate) fn gauge(&self, name: impl Into<StatName>) -> Gauge {
        let name = self.included(name);
        Gauge(name.map(|name| {
            let mut names = self.lock();
            let entry = names.gauges.entry(name);
            Arc::clone(entry.or_insert_with_key(|key| self.shared.new_cell(Arc::clone(key), Kind::Gauge)))
        }))
    }

    /// The histogram of this name; the same id each time until it is removed.
    pub(crate) fn histogram(&self, name: impl Into<StatName>) -> Histogram {
        let name = self.included(name);
        Histogram(name.map(|name| {
            let mut names = self.lock();
            let entry = names.histograms.entry(name);
            Arc::clone(entry.or_insert_with_key(|key| self.shared.new_histogram(Arc::clone(key))))
        }))
    }

    fn included(&self, name: impl Into<StatName>) -> Option<Arc<str>> {
        let name = name.into().into_inner();
        self.rules.includes(&name).then_some(name)
    }

    /// Sets a text value (`cluster_manager.cds.version_text: "…"`). Control thread only; not in Prometheus output, as Envoy.
    pub(crate) fn set_text(&self, name: impl Into<StatName>, value: impl Into<String>) {
        if let Some(name) = self.included(name) {
            self.lock().texts.insert(name, value.into());
        }
    }

    /// Takes every stat whose name starts with `prefix` out of the registry; returns how many.
    ///
    /// End the prefix at a boundary (`cluster.NAME.`), else `cluster.a` also removes `cluster.ab`. Call it when the
    /// owner is gone for good, not on an update: values start again at 0. What happens to ids still held: see the module.
    pub(crate) fn remove_prefix(&self, prefix: &str) -> usize {
        let mut names = self.lock();
        let Names {
            counters,
            gauges,
            histograms,
            texts,
        } = &mut *names;
        let removed = (
            take(counters, prefix),
            take(gauges, prefix),
            take(histograms, prefix),
            take(texts, prefix),
        );
        drop(names);
        removed.0.len() + removed.1.len() + removed.2.len() + removed.3.len()
    }

    /// Closes the interval of all histograms: the first number of `P50(interval,cumulative)`.
    ///
    /// Call it every `stats_flush_interval` (Envoy's default: 5 s); without it intervals read `nan`.
    pub(crate) fn flush(&self) {
        let histograms: Vec<_> = self.lock().histograms.values().cloned().collect();
        let tables = self.shared.tables();
        for entry in histograms {
            entry.flush(&tables);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// Gives this thread slots of its own in `registry` until the guard is dropped. Counts made before remain.
///
/// For each worker and for the control thread. A thread writes to one registry at a time: the last one entered.
#[must_use = "the thread leaves the registry when the guard is dropped"]
pub(crate) fn enter_worker(registry: &Registry) -> WorkerStats {
    slots::enter(&registry.shared)
}

fn take<V>(map: &mut BTreeMap<Arc<str>, V>, prefix: &str) -> Vec<V> {
    let keys: Vec<Arc<str>> = map
        .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
        .map(|(name, _)| name)
        .take_while(|name| name.starts_with(prefix))
        .cloned()
        .collect();
    keys.iter().filter_map(|key| map.remove(key)).collect()
}

#[cfg(test)]
impl Registry {
    /// An empty registry with every stat, whose Prometheus labels follow `tags`.
    pub(crate) fn new(tags: TagRules) -> Arc<Registry> {
        Registry::with_rules(tags, NameRules::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const NAME: &str = "cluster.outbound|9999|v1|bill.default.svc.cluster.local;.upstream_rq_total";

    fn registry() -> Arc<Registry> {
        Registry::new(TagRules::new(&[], true).unwrap())
    }

    #[test]
    fn four_threads_count_exactly_with_and_without_slots_of_their_own() {
        let registry = registry();
        let total = registry.counter(NAME);
        let active = registry.gauge("cluster.x.upstream_rq_active");
        let time = registry.histogram("cluster.x.upstream_rq_time");
        thread::scope(|scope| {
            for worker in 0..4 {
                let (registry, total, active, time) =
                    (&registry, total.clone(), active.clone(), time.clone());
                scope.spawn(move || {
                    let _guard = (worker < 2).then(|| enter_worker(registry));
                    for n in 0..25_000 {
                        total.inc();
                        active.inc();
                        time.record(n % 7);
                        active.dec();
                    }
                });
            }
        });
        assert_eq!(total.value(), 100_000);
        assert_eq!(active.value(), 0);
        assert_eq!(time.snapshot().count(), 100_000);
    }

    #[test]
    fn the_same_name_gives_the_same_id() {
        let registry = registry();
        registry.counter(NAME).inc();
        registry.counter(NAME.to_owned()).add(2);
        assert_eq!(registry.counter(NAME).value(), 3);
    }

    #[test]
    fn a_gauge_raised_in_one_thread_and_lowered_in_another_sums_up() {
        let registry = registry();
        let gauge = registry.gauge("listener.x.downstream_cx_active");
        gauge.add(3);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _guard = enter_worker(&registry);
                gauge.sub(2);
            });
        });
        assert_eq!(gauge.value(), 1);
        gauge.sub(5);
        assert_eq!(gauge.value(), 0, "what is seen is never below 0");
    }

    #[test]
    fn a_gauge_that_is_set_holds_any_number() {
        let registry = registry();
        let _guard = enter_worker(&registry);
        let gauge = registry.gauge("cluster_manager.cds.version");
        gauge.set(u64::MAX - 1);
        assert_eq!(gauge.value(), u64::MAX - 1);
    }

    #[test]
    fn a_removed_name_is_gone_at_once_and_its_id_stays_harmless() {
        let registry = registry();
        let _guard = enter_worker(&registry);
        let old = registry.counter("cluster.a.rq");
        let other = registry.counter("cluster.ab.rq");
        old.add(7);
        other.inc();
        assert_eq!(registry.remove_prefix("cluster.a."), 1);
        assert!(!text(&registry, None, false).contains("cluster.a.rq"));
        let new = registry.counter("cluster.a.rq");
        old.inc();
        assert_eq!(
            (new.value(), other.value()),
            (0, 1),
            "in-flight counts go to the old slot"
        );
        drop(old);
        let reused = registry.counter("cluster.c.rq");
        assert_eq!(reused.value(), 0, "a slot is cleared before it is used again");
    }

    #[test]
    fn leaving_keeps_the_counts_and_the_table_is_used_again() {
        let registry = registry();
        let counter = registry.counter(NAME);
        for _ in 0..3 {
            let guard = enter_worker(&registry);
            counter.inc();
            drop(guard);
        }
        assert_eq!(counter.value(), 3);
        assert_eq!(registry.shared.tables().len(), 1);
    }

    #[test]
    fn a_thread_inside_one_registry_counts_right_in_another() {
        let (first, second) = (registry(), registry());
        let _guard = enter_worker(&first);
        let (a, b) = (first.counter("a"), second.counter("b"));
        a.inc();
        b.add(2);
        assert_eq!((a.value(), b.value()), (1, 2));
    }
}
