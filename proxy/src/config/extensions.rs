//! HTTP filters whose configuration comes by itself (ECDS): what has come, and the connection managers that use it.
//!
//! An update gives a connection manager new filters; its sockets, connections and streams do not notice. Source: Envoy docs,
//! "Extension configuration"; Envoy `FilterConfigSubscription`; behaviour checked beside Envoy 1.40 in tests/it/alone/extensions.rs.
mod counters;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use outrigger_model::bootstrap::{ConfigServer, ConfigSource};
use outrigger_model::decode;
use outrigger_model::field::Rejection;
use outrigger_model::filter_chain::TerminalFilter;
use outrigger_model::http_filter::discovered::{DiscoveredFilter, FilterResource};
use outrigger_model::http_filter::{HttpFilter, PlacedFilter};
use outrigger_model::listener::Listener as ListenerConfig;

use self::counters::{FilterCounters, Said};
use super::build::Shared;
use super::clusters::waited;
use super::listeners::chains;
use super::owners;
use super::store::{Change, Offered, Store};
use super::wishes::ByServer;
use crate::http::manager::{ConnectionManager, Surroundings};
use crate::stats::Registry;
use crate::time::Instant;

/// All of them.
#[derive(Debug)]
pub(super) struct Extensions {
    /// A filter of one server is not that of another.
    pub(super) stores: BTreeMap<ConfigServer, Store<FilterResource>>,
    /// Where each is wanted.
    places: BTreeMap<ConfigServer, BTreeMap<String, Vec<DiscoveredFilter>>>,
    /// What a server has been asked for and does not have.
    absent: BTreeSet<(ConfigServer, String)>,
    followers: Vec<Follower>,
    has_changed: bool,
    /// Goes up with everything that is in force or no more.
    generation: u64,
    /// Changes are noted.
    keeps_journal: bool,
    /// What was noted of servers that nobody asks any more.
    forgotten: Vec<Change>,
    counters: FilterCounters,
}

/// A connection manager with discovered filters.
#[derive(Debug)]
struct Follower {
    manager: Weak<ConnectionManager>,
    /// What its filters are now.
    in_use: Vec<PlacedFilter>,
}

impl Extensions {
    /// None yet.
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        Self {
            stores: BTreeMap::new(),
            places: BTreeMap::new(),
            absent: BTreeSet::new(),
            followers: Vec::new(),
            has_changed: false,
            generation: 0,
            keeps_journal: false,
            forgotten: Vec::new(),
            counters: FilterCounters::new(registry),
        }
    }

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
        let since = std::time::Instant::now();
        let is_wanted = self
            .places
            .get(server)
            .is_some_and(|names| names.contains_key(name));
        if !is_wanted {
            // A file may hold filters for others.
            return Ok(());
        }
        let taken = self.take(server, name, version, bytes);
        let said = match taken {
            Ok(true) => Said::Changed,
            Ok(false) => Said::Same,
            Err(_) => Said::Refused,
        };
        self.counters.answered(name, said, version, since);
        taken.map(drop)
    }

    /// The same for one that is not of a response. True: it is not what is there already.
    ///
    /// # Errors
    /// As [`Self::offer`].
    pub(super) fn take(
        &mut self,
        server: &ConfigServer,
        name: &str,
        version: &str,
        bytes: &[u8],
    ) -> Result<bool, String> {
        let store = self.stores.entry(server.clone()).or_insert_with(|| {
            let mut store = Store::default();
            if self.keeps_journal {
                store.keep_journal();
            }
            store
        });
        let offered = store.offer(name, version, bytes, |bytes| decode::http_filter(bytes))?;
        let Offered::Changed(pending) = offered else {
            return Ok(false);
        };
        let places = self.places.get(server).and_then(|names| names.get(name));
        let type_name = &pending.model.type_name;
        let mut places = places.into_iter().flatten();
        if let Err(reason) = places.try_for_each(|place| place.check_type(type_name)) {
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
        self.absent.remove(&(server.clone(), name.to_owned()));
        self.has_changed = true;
        self.generation += 1;
        Ok(true)
    }

    /// A filter that is gone, or that the server does not have: its default counts again.
    pub(super) fn remove(&mut self, server: &ConfigServer, name: &str, version: &str) {
        let since = std::time::Instant::now();
        self.absent.insert((server.clone(), name.to_owned()));
        let store = self.stores.get_mut(server);
        if store.is_some_and(|store| store.remove(name)) {
            self.has_changed = true;
            self.generation += 1;
        }
        self.counters.answered(name, Said::Changed, version, since);
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
            let before = store.generation();
            store.retain(|name| is_wanted(server, name));
            self.generation += store.generation() - before;
        }
        let is_asked = |server: &ConfigServer| places.contains_key(server);
        let gone = self.stores.extract_if(.., |server, _| !is_asked(server));
        for (server, mut store) in gone {
            self.forgotten.extend(named(&server, store.take_journal()));
        }
        self.absent.retain(|(server, name)| is_wanted(server, name));
        self.counters
            .keep(flat(places).map(|(server, name, _)| (name, server)));
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
        let resource = self.received(name, place);
        let usable = resource.filter(|resource| place.check_type(&resource.type_name).is_ok());
        usable
            .map(|resource| &resource.converted_filter)
            .or(place.default_filter.as_deref())
    }

    fn received(&self, name: &str, place: &DiscoveredFilter) -> Option<&FilterResource> {
        let store = self.stores.get(&place.filter_source.server)?;
        store.get(name).map(|resource| &**resource)
    }

    /// From now on the connection manager has the filters that come.
    pub(super) fn follow(&mut self, manager: &Arc<ConnectionManager>, in_use: Vec<PlacedFilter>) {
        self.followers
            .retain(|follower| follower.manager.strong_count() > 0);
        for placed in &manager.config.filters {
            if let HttpFilter::Discovered(place) = &placed.filter
                && let Some(resource) = self.received(&placed.filter_name, place)
                && place.check_type(&resource.type_name).is_err()
            {
                self.counters.conflict(&placed.filter_name);
            }
        }
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

/// For the history, for the snapshot on disk, and for what is counted.
impl Extensions {
    /// Changes are noted from now on.
    pub(super) fn keep_journal(&mut self) {
        self.keeps_journal = true;
        self.stores.values_mut().for_each(Store::keep_journal);
    }

    /// What changed since the last time, under the names of [`full_name`].
    pub(super) fn take_journal(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.forgotten);
        for (server, store) in &mut self.stores {
            changes.extend(named(server, store.take_journal()));
        }
        changes
    }

    /// The filter in force that [`full_name`] calls so, as received.
    pub(super) fn bytes(&self, full: &str) -> Option<Bytes> {
        let mut stores = self.stores.iter();
        stores.find_map(|(server, store)| store.bytes(short_name(server, full)?))
    }

    /// All that are in force, by [`full_name`].
    pub(super) fn accepted(&self) -> impl Iterator<Item = (String, Bytes)> {
        let stores = self.stores.iter();
        stores.flat_map(|(server, store)| {
            let accepted = store.accepted.iter();
            accepted.map(|(name, accepted)| (full_name(server, name), accepted.bytes.bytes()))
        })
    }

    /// The server and the name of the wanted filter that [`full_name`] calls so.
    pub(super) fn wanted_as(&self, full: &str) -> Option<(ConfigServer, String)> {
        let mut places = self.places.iter();
        places.find_map(|(server, names)| {
            let name = short_name(server, full).filter(|name| names.contains_key(*name))?;
            Some((server.clone(), name.to_owned()))
        })
    }

    /// Differs from an earlier one if anything in force does.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The server cannot be asked.
    pub(super) fn unreachable(&self, server: &ConfigServer) {
        for name in self.places.get(server).into_iter().flat_map(BTreeMap::keys) {
            self.counters.unreachable(name, server);
        }
    }

    /// Counts what was waited for too long. Once a second.
    pub(super) fn expire(&mut self) {
        let wanted = flat(&self.places).flat_map(|(_, name, places)| {
            let sources = places.iter().map(|place| &place.filter_source);
            sources.map(move |source| (name, source))
        });
        self.counters.expire(wanted);
    }
}

/// Every place with its server and its name.
fn flat(
    places: &BTreeMap<ConfigServer, BTreeMap<String, Vec<DiscoveredFilter>>>,
) -> impl Iterator<Item = (&ConfigServer, &str, &Vec<DiscoveredFilter>)> {
    places.iter().flat_map(|(server, names)| {
        let names = names.iter();
        names.map(move |(name, places)| (server, name.as_str(), places))
    })
}

fn named(server: &ConfigServer, changes: Vec<Change>) -> impl Iterator<Item = Change> {
    changes.into_iter().map(|change| Change {
        name: full_name(server, &change.name).into(),
        ..change
    })
}

/// A name that tells the filters of two servers apart: the name alone for those of the ADS server.
fn full_name(server: &ConfigServer, name: &str) -> String {
    match server {
        ConfigServer::Ads => name.to_owned(),
        _ => format!("{name}{}", suffix(server)),
    }
}

/// The other way round; `None`: it is not of this server.
fn short_name<'a>(server: &ConfigServer, full: &'a str) -> Option<&'a str> {
    match server {
        ConfigServer::Ads => Some(full),
        _ => full.strip_suffix(&*suffix(server)),
    }
}

fn suffix(server: &ConfigServer) -> String {
    format!(" of {}", owners::text_of(server))
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
