//! Stats that exist only while they are shown.
//!
//! A cluster that nobody has used has forty-five stats, all but a few of them 0. Registered they would take 13 KB of memory, for four
//! thousand clusters more than all the rest of the process; so their owner says what they are when somebody asks.
use std::sync::Arc;

use super::Registry;
use super::ids::{CellEntry, HistogramEntry, Kind};
use super::slots::Shared;

/// Takes a prefix, and what has names that begin with it.
pub(crate) type Show<'a> = dyn FnMut(&str, &[(&str, Unregistered)]) + 'a;

/// Owns stats that are not registered.
pub(crate) trait Source: Send + Sync {
    /// Calls `show` for each prefix. A name that is registered too is not shown twice.
    fn show(&self, show: &mut Show<'_>);
}

/// One of them. `None`: never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unregistered {
    /// A counter and its value.
    Counter(Option<u64>),
    /// A gauge and its value.
    Gauge(Option<u64>),
    /// A histogram without values.
    Histogram,
}

/// What all sources of a registry have of what is asked for.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) cells: Vec<Arc<CellEntry>>,
    pub(super) histograms: Vec<Arc<HistogramEntry>>,
}

impl Registry {
    /// Entries for one output. `wanted` judges full names, `is_known` says which are registered.
    pub(super) fn unregistered(
        &self,
        used_only: bool,
        wanted: &dyn Fn(&str) -> bool,
        is_known: &dyn Fn(&str) -> bool,
    ) -> Shown {
        let mut shown = Shown::default();
        let sources = self
            .sources
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        let mut name = String::new();
        for source in sources.iter().filter_map(std::sync::Weak::upgrade) {
            source.show(&mut |prefix, stats| {
                for (rest, stat) in stats.iter().filter(|(_, stat)| !used_only || stat.is_used()) {
                    name.clear();
                    name.push_str(prefix);
                    name.push_str(rest);
                    if wanted(&name) && self.rules.includes(&name) && !is_known(&name) {
                        shown.add(&name, *stat, &self.shared);
                    }
                }
            });
        }
        shown
    }
}

impl Unregistered {
    fn is_used(self) -> bool {
        matches!(self, Self::Counter(Some(_)) | Self::Gauge(Some(_)))
    }
}

impl Shown {
    fn add(&mut self, name: &str, stat: Unregistered, shared: &Arc<Shared>) {
        let cell = |kind, value| CellEntry::shown(name.into(), kind, value, Arc::clone(shared));
        match stat {
            Unregistered::Counter(value) => self.cells.push(Arc::new(cell(Kind::Counter, value))),
            Unregistered::Gauge(value) => self.cells.push(Arc::new(cell(Kind::Gauge, value))),
            Unregistered::Histogram => {
                let entry = HistogramEntry::new(name.into(), None, Arc::clone(shared));
                self.histograms.push(Arc::new(entry));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TagRules, text};
    use super::*;

    struct Two;

    impl Source for Two {
        fn show(&self, show: &mut Show<'_>) {
            let stats = [
                ("total", Unregistered::Counter(Some(3))),
                ("unused", Unregistered::Counter(None)),
                ("size", Unregistered::Gauge(Some(0))),
                ("time", Unregistered::Histogram),
            ];
            show("cluster.a.", &stats);
        }
    }

    #[test]
    fn a_source_is_shown_while_it_lives_and_never_twice() {
        let registry = Registry::new(TagRules::new(&[], false).expect("no rule"));
        registry.counter("cluster.a.total").add(7);
        let source = Arc::new(Two);
        registry.add_source(&source);
        let used = "cluster.a.size: 0\ncluster.a.total: 7\n";
        assert_eq!(text(&registry, None, true), used);
        let all = "cluster.a.size: 0\ncluster.a.total: 7\ncluster.a.unused: 0\ncluster.a.time: No recorded values\n";
        assert_eq!(text(&registry, None, false), all);
        drop(source);
        assert_eq!(text(&registry, None, false), "cluster.a.total: 7\n");
    }
}
