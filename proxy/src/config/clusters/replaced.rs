//! Clusters in use whose replacement still waits: what they were made of.
//!
//! Make before break: until the new one is complete the old one serves as it did. So its endpoints and secrets stay subscribed, and it
//! gets the endpoints of its own service only: those of the new one may speak another protocol. Source: Envoy docs, cluster manager,
//! "cluster warming".
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Kept;

/// By name.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    by_name: BTreeMap<String, Arc<Kept>>,
    /// Goes up when one of them is gone.
    generation: u64,
}

impl Replaced {
    /// A new configuration of the cluster in use is accepted. What is in use stays the same until [`Self::end`].
    pub(super) fn begin(&mut self, name: &str, in_use: &Arc<Kept>) {
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_owned(), in_use.clone());
        }
    }

    /// The new one is in use, or there is none any more.
    pub(super) fn end(&mut self, name: &str) {
        if self.by_name.remove(name).is_some() {
            self.generation += 1;
        }
    }

    /// The cluster in use is not the accepted one.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The clusters in use with endpoints of this service.
    pub(super) fn of_service<'a>(
        &'a self,
        service: &'a str,
        has_source: impl Fn(&Kept) -> bool + 'a,
    ) -> impl Iterator<Item = &'a str> {
        let clusters = self.by_name.iter();
        clusters
            .filter(move |(_, kept)| kept.service() == Some(service) && has_source(kept))
            .map(|(name, _)| name.as_str())
    }

    /// What they are made of.
    pub(super) fn all(&self) -> impl Iterator<Item = &Kept> {
        self.by_name.values().map(Arc::as_ref)
    }

    /// Differs from an earlier one if one of them is gone since.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }
}
