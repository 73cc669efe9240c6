//! All clusters by name. Routes hold cells, so that no request looks a cluster up by name.
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;

use super::cluster::Cluster;
use super::slot::Slot;
use crate::stats::{Show, Source};

/// One name and the cluster that has it now, if any.
#[derive(Debug)]
pub(crate) struct ClusterCell {
    /// The name that configuration uses.
    pub(crate) name: Arc<str>,
    current: ArcSwapOption<Slot>,
}

impl ClusterCell {
    /// The cluster now; load once a stream and keep it. The first load of a cluster makes it.
    pub(crate) fn load(&self) -> Option<Arc<Cluster>> {
        self.current.load().as_ref()?.get()
    }

    /// What is in the cell.
    pub(crate) fn slot(&self) -> Option<Arc<Slot>> {
        self.current.load_full()
    }
}

/// The table. The lock is taken when configuration changes and by admin; by traffic only on routes where a header
/// names the cluster.
#[derive(Debug, Default)]
pub(crate) struct ClusterTable {
    cells: Mutex<HashMap<Arc<str>, Arc<ClusterCell>>>,
    filled: AtomicUsize,
}

impl ClusterTable {
    /// The cell of `name`; made empty when nobody asked for it before.
    pub(crate) fn cell(&self, name: &str) -> Arc<ClusterCell> {
        let mut cells = self.lock();
        if let Some(cell) = cells.get(name) {
            return cell.clone();
        }
        let name: Arc<str> = name.into();
        let cell = Arc::new(ClusterCell {
            name: name.clone(),
            current: ArcSwapOption::empty(),
        });
        cells.insert(name, cell.clone());
        cell
    }

    /// The cell of `name`, if anybody has asked for it before. For names that requests bring.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<ClusterCell>> {
        self.lock().get(name).cloned()
    }

    /// Puts a cluster in the cell of `name`; returns what it replaces.
    pub(crate) fn set(&self, name: &str, slot: Slot) -> Option<Arc<Slot>> {
        let replaced = self.cell(name).current.swap(Some(Arc::new(slot)));
        if replaced.is_none() {
            self.filled.fetch_add(1, Ordering::Relaxed);
        }
        replaced
    }

    /// Empties a cell.
    pub(crate) fn remove(&self, name: &str) -> Option<Arc<Slot>> {
        let removed = self.lock().get(name)?.current.swap(None)?;
        self.filled.fetch_sub(1, Ordering::Relaxed);
        Some(removed)
    }

    /// Forgets empty cells that nobody refers to. O(n).
    pub(crate) fn sweep(&self) {
        let mut cells = self.lock();
        if cells.len() > self.len() {
            cells.retain(|_, cell| Arc::strong_count(cell) > 1 || cell.current.load().is_some());
        }
    }

    /// How many clusters there are.
    pub(crate) fn len(&self) -> usize {
        self.filled.load(Ordering::Relaxed)
    }

    /// The clusters there are, by name; those that nobody has used are made for this answer only.
    pub(crate) fn all(&self) -> Vec<Arc<Cluster>> {
        let mut slots = self.slots();
        slots.sort_by(|(one, _), (other, _)| one.cmp(other));
        slots.iter().filter_map(|(_, slot)| slot.look()).collect()
    }

    /// The clusters that were used, in no order.
    pub(crate) fn used(&self) -> Vec<Arc<Cluster>> {
        let cells = self.lock();
        cells
            .values()
            .filter_map(|cell| cell.current.load().as_ref()?.used())
            .collect()
    }

    fn slots(&self) -> Vec<(Arc<str>, Arc<Slot>)> {
        let cells = self.lock();
        let slots = cells
            .iter()
            .map(|(name, cell)| Some((name.clone(), cell.slot()?)));
        slots.flatten().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<ClusterCell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for ClusterTable {
    fn show(&self, show: &mut Show<'_>) {
        for (_, slot) in self.slots() {
            slot.show(show);
        }
    }
}
