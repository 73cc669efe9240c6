//! HTTP filters whose configuration comes by itself (ECDS): what has come, and the connection managers that use it.
//!
//! An update gives a connection manager new filters; its sockets, connections and streams do not notice. Source: Envoy docs,
//! "Extension configuration"; Envoy `FilterConfigSubscription`; behaviour checked beside Envoy 1.40 in tests/it/alone/extensions.rs.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use outrigger_model::bootstrap::{ConfigServer, ConfigSource};
use outrigger_model::decode;
use outrigger_model::field::Rejection;
use outrigger_model::filter_chain::TerminalFilter;
use outrigger_model::http_filter::discovered::{DiscoveredFilter, FilterResource};
use outrigger_model::http_filter::{HttpFilter, PlacedFilter};
use outrigger_model::listener::Listener as ListenerConfig;

use super::build::Shared;
use super::clusters::waited;
use super::listeners::chains;
use super::store::{Offered, Store};
use super::wishes::ByServer;
use crate::http::manager::{ConnectionManager, Surroundings};
use crate::time::Instant;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    /// A filter of one server is not that of another.
    pub(super) stores: BTreeMap<ConfigServer, Store<FilterResource>>,
    /// Where each is wanted.
    places: BTreeMap<ConfigServer, BTreeMap<String, Vec<DiscoveredFilter>>>,
    /// What a server has been asked for and does not have.
    absent: BTreeSet<(ConfigServer, String)>,
    followers: Vec<Follower>,
    has_changed: bool,
}

/// A connection manager with discovered filters.
#[derive(Debug)]
struct Follower {
    manager: Weak<ConnectionManager>,
    /// What its filters are now.
    in_use: Vec<PlacedFilter>,
}

impl Extensions {
    /// A filter of an ECDS response.
    ///
    /// # Errors
    /// Why it is rejected: the model's reason, or a type that a place does not allow.
    pub(super) fn offer(
        &mut self,
        server: &ConfigServer,
        name: &str,
        version: &str,
        bytes: &[u8],
    ) -> Result<(), String> {
        let wanted = self.places.get(server).and_then(|names| names.get(name));
        let Some(places) = wanted else {
            // A file may hold filters for others.
            return Ok(());
        };
        let store = self.stores.entry(server.clone()).or_default();
        let offered = store.offer(name, version, bytes, |bytes| decode::http_filter(bytes))?;
        let Offered::Changed(pending) = offered else {
            return Ok(());
        };
        let type_name = &pending.model.type_name;
        let checked = places.iter().try_for_each(|place| place.check_type(type_name));
        if let Err(reason) = checked {
            let rejection = Rejection {
                resource: format!("extension {name:?}"),
                path: "typed_config".to_owned(),
                reason,
                did_you_mean: None,
            };
            let reason = rejection.to_string();
            store.refuse(name, version, bytes, &reason);
            return Err(reason);
        }
        store.accept(name, pending);
        self.has_changed = true;
        Ok(())
    }

    /// A filter that is gone, or that the server does not have: its default counts again.
    pub(super) fn remove(&mut self, server: &ConfigServer, name: &str) {
        self.absent.insert((server.clone(), name.to_owned()));
        let store = self.stores.get_mut(server);
        self.has_changed |= store.is_some_and(|store| store.remove(name));
    }

    /// The filters that these listeners want, by server. Those that nobody wants any more are forgotten.
    pub(super) fn wanted(&mut self, listeners: &[Arc<ListenerConfig>]) -> ByServer {
        self.places.clear();
        for (name, place) in listeners.iter().flat_map(|listener| discovered(listener)) {
            let names = self.places.entry(place.filter_source.server.clone()).or_default();
            names.entry(name.to_owned()).or_default().push(place.clone());
        }
        let places = &self.places;
        let is_wanted = |server: &ConfigServer, name: &str| {
            let names = places.get(server);
            names.is_some_and(|names| names.contains_key(name))
        };
        for (server, store) in &mut self.stores {
            store.retain(|name| is_wanted(server, name));
        }
        self.stores.retain(|server, _| places.contains_key(server));
        self.absent.retain(|(server, name)| is_wanted(server, name));
        let names = |(server, names): (&ConfigServer, &BTreeMap<String, _>)| {
            (server.clone(), names.keys().cloned().collect())
        };
        places.iter().map(names).collect()
    }

    /// Nothing that this listener discovers is waited for.
    pub(super) fn is_warm(&self, config: &ListenerConfig, since: Instant) -> bool {
        discovered(config)
            .all(|(name, place)| !self.is_awaited(name, place) || waited(&place.filter_source, since))
    }

    /// The filters that this listener waits for.
    pub(super) fn awaited(&self, config: &ListenerConfig) -> Vec<String> {
        let awaited = discovered(config).filter(|(name, place)| self.is_awaited(name, place));
        let names: BTreeSet<_> = awaited.map(|(name, _)| name.to_owned()).collect();
        names.into_iter().collect()
    }

    /// Any are.
    pub(super) fn is_in_use(&self) -> bool {
        !self.places.is_empty()
    }

    /// As in Envoy, a refused one ends the wait.
    fn is_awaited(&self, name: &str, place: &DiscoveredFilter) -> bool {
        let ConfigSource { server, .. } = &place.filter_source;
        let has_come = self
            .stores
            .get(server)
            .is_some_and(|store| store.accepted.contains_key(name) || store.refused.contains_key(name));
        !(place.skips_warming || has_come || self.absent.contains(&(server.clone(), name.to_owned())))
    }

    /// The list with what has come in the places of discovered filters, or with their defaults. What is neither there nor has a default
    /// stays as it is. `None`: none is discovered.
    pub(super) fn resolved(&self, configured: &[PlacedFilter]) -> Option<Vec<PlacedFilter>> {
        let is_discovered = |placed: &PlacedFilter| matches!(placed.filter, HttpFilter::Discovered(_));
        if !configured.iter().any(is_discovered) {
            return None;
        }
        let resolve = |placed: &PlacedFilter| match &placed.filter {
            HttpFilter::Discovered(place) => PlacedFilter {
                filter: self
                    .current(&placed.filter_name, place)
                    .unwrap_or(&placed.filter)
                    .clone(),
                ..placed.clone()
            },
            _ => placed.clone(),
        };
        Some(configured.iter().map(resolve).collect())
    }

    fn current<'a>(&'a self, name: &str, place: &'a DiscoveredFilter) -> Option<&'a HttpFilter> {
        let store = self.stores.get(&place.filter_source.server);
        let resource = store.and_then(|store| store.get(name));
        let usable = resource.filter(|resource| place.check_type(&resource.type_name).is_ok());
        usable
            .map(|resource| &resource.converted_filter)
            .or(place.default_filter.as_deref())
    }

    /// From now on the connection manager has the filters that come.
    pub(super) fn follow(&mut self, manager: &Arc<ConnectionManager>, in_use: Vec<PlacedFilter>) {
        self.followers
            .retain(|follower| follower.manager.strong_count() > 0);
        let manager = Arc::downgrade(manager);
        self.followers.push(Follower { manager, in_use });
    }

    /// The filters of connection managers that are there.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> Vec<Vec<PlacedFilter>> {
        let alive = self
            .followers
            .iter()
            .filter(|follower| follower.manager.strong_count() > 0);
        alive.map(|follower| follower.in_use.clone()).collect()
    }

    /// Puts what has come in use.
    pub(super) fn publish(&mut self, shared: &Shared) {
        if !std::mem::take(&mut self.has_changed) {
            return;
        }
        let surroundings = Surroundings {
            local_peers: &shared.local_peers,
            istio: &shared.istio,
            registry: &shared.registry,
            clusters: &shared.clusters,
        };
        let mut followers = std::mem::take(&mut self.followers);
        followers.retain_mut(|follower| {
            let Some(manager) = follower.manager.upgrade() else {
                return false;
            };
            let now = self.resolved(&manager.config.filters).unwrap_or_default();
            if now != follower.in_use {
                match manager.set_filters(&follower.in_use, &now, &surroundings) {
                    Ok(()) => follower.in_use = now,
                    Err(error) => tracing::error!(
                        stat_prefix = manager.config.stat_prefix,
                        %error,
                        "filters were accepted, but cannot be put in use; the last working ones stay"
                    ),
                }
            }
            true
        });
        self.followers = followers;
    }
}

/// The filters of a listener that come by themselves, by name.
fn discovered(config: &ListenerConfig) -> impl Iterator<Item = (&str, &DiscoveredFilter)> {
    let managers = chains(config).filter_map(|chain| match &chain.terminal {
        TerminalFilter::Http(http) => Some(http),
        TerminalFilter::TcpProxy(_) => None,
    });
    managers.flat_map(|http| {
        http.filters.iter().filter_map(|placed| match &placed.filter {
            HttpFilter::Discovered(place) => Some((placed.filter_name.as_str(), &**place)),
            _ => None,
        })
    })
}
