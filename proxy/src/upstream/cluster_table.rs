//! All clusters by name. Routes hold cells, so that no request looks a cluster up by name.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;

use super::cluster::Cluster;

/// One name and the cluster that has it now, if any.
#[derive(Debug)]
pub(crate) struct ClusterCell {
    /// The name that configuration uses.
    pub(crate) name: Arc<str>,
    current: ArcSwapOption<Cluster>,
}

impl ClusterCell {
    /// The cluster now; load once a stream and keep it.
    pub(crate) fn load(&self) -> Option<Arc<Cluster>> {
        self.current.load_full()
    }
}

/// The table. The lock is taken when configuration changes and by admin, never by traffic.
#[derive(Debug, Default)]
pub(crate) struct ClusterTable {
    cells: Mutex<HashMap<Arc<str>, Arc<ClusterCell>>>,
}

impl ClusterTable {
    /// The cell of `name`; made empty when nobody asked for it before.
    pub(crate) fn cell(&self, name: &str) -> Arc<ClusterCell> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Puts a cluster in its cell; returns the one it replaces.
    pub(crate) fn set(&self, cluster: Arc<Cluster>) -> Option<Arc<Cluster>> {
        let cell = self.cell(&cluster.name);
        cell.current.swap(Some(cluster))
    }

    /// Empties a cell; forgets cells that nobody refers to.
    pub(crate) fn remove(&self, name: &str) -> Option<Arc<Cluster>> {
        let removed = self.cell(name).current.swap(None);
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.retain(|_, cell| Arc::strong_count(cell) > 1 || cell.current.load().is_some());
        removed
    }

    /// The clusters there are, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Cluster>> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let mut clusters: Vec<_> = cells.values().filter_map(|cell| cell.load()).collect();
        clusters.sort_by(|a, b| a.name.cmp(&b.name));
        clusters
    }
}
