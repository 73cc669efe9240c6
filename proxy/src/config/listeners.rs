//! Listeners and route tables: what was accepted, what waits for routes or secrets, what is in use.
mod cells;
mod names;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use outrigger_model::bootstrap::{ConfigServer, ConfigSource};
use outrigger_model::decode;
use outrigger_model::listener::{ListenSocket, Listener as ListenerConfig, TrafficDirection};
use outrigger_model::scoped_routes::ScopeSource;

use self::cells::{RouteCells, Tables, discovered};
pub(super) use self::names::{chains, holds_key};
use self::names::{rds_names, scoped};
use self::sockets::{Addresses, Sockets};
use super::build::{self, Shared};
use super::clusters::waited;
use super::counters::ListenerChanges;
use super::extensions::Extensions;
use super::owners::Owners;
use super::scopes::{self, RouteParts};
use super::secrets::{self, Secrets, Wanted};
use super::store::{Changes, Offered, Pending, Store};
use super::wishes::ByServer;
use crate::http::route_table::{RouteCell, RouteTable};
use crate::listener::accept;
use crate::listener::runtime::ListenerCell;
use crate::listener::table::ListenerTable;
use crate::stats::Registry;
use crate::time::Instant;
use crate::worker::{self, WorkerHandle};

/// All listeners.
#[derive(Debug)]
pub(super) struct Listeners {
    /// LDS and the bootstrap's.
    pub(super) store: Store<ListenerConfig>,
    /// RDS.
    pub(super) routes: Store<()>,
    /// Who has them.
    pub(super) owners: Owners,
    /// SRDS and VHDS.
    pub(super) parts: RouteParts,
    /// ECDS.
    pub(super) extensions: Extensions,
    /// Accepted, not in use yet.
    pub(super) warming: BTreeMap<String, Warming>,
    /// In use.
    pub(super) active: BTreeMap<String, Active>,
    /// What workers look listeners up in.
    pub(super) table: Arc<ListenerTable>,
    route_cells: Tables,
    /// Goes up when one in use gives way to its replacement.
    replacements: u64,
    addresses: Addresses,
    /// Where changes of what is in use are counted.
    pub(super) changes: ListenerChanges,
}

/// A listener that waits.
#[derive(Debug)]
pub(super) struct Warming {
    since: Instant,
    /// Bound already, so that a port in use is told in the NACK; given to workers when the listener goes in use.
    sockets: Vec<Sockets>,
}

/// A listener in use.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) cell: Arc<ListenerCell>,
    /// Addresses really bound (port 0 resolved).
    pub(super) bound: Vec<SocketAddr>,
}

/// A listener that waits, and what for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unready {
    pub(crate) name: String,
    pub(crate) routes: Vec<String>,
    pub(crate) secrets: Vec<String>,
    pub(crate) filters: Vec<String>,
}

impl Active {
    /// It has sockets, and for exactly these addresses.
    fn is_bound_to(&self, addresses: &[SocketAddr], config: &ListenerConfig) -> bool {
        let listener = self.cell.load();
        listener.config.bind_to_port
            && listener.addresses == addresses
            && listener.config.is_transparent == config.is_transparent
            && listener.config.sockets == config.sockets
    }
}

impl Listeners {
    /// None yet.
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        Self {
            parts: RouteParts::default(),
            extensions: Extensions::new(registry),
            replacements: 0,
            addresses: Addresses::default(),
            store: Store::new(Changes::new(registry, "listener_manager.listener")).packing(),
            routes: Store::default(),
            owners: Owners::default(),
            warming: BTreeMap::new(),
            active: BTreeMap::new(),
            table: Arc::default(),
            route_cells: BTreeMap::new(),
            changes: ListenerChanges::new(registry),
        }
    }

    /// A listener of an LDS response.
    ///
    /// # Errors
    /// Why it is rejected: the model's reason, or a port in use.
    pub(super) fn offer(
        &mut self,
        name: &str,
        version: &str,
        bytes: &[u8],
        workers: usize,
    ) -> Result<(), String> {
        if self.store.is_static(name) {
            self.store.pass_over(name, version, bytes);
            return Ok(());
        }
        let Offered::Changed(pending) = self
            .store
            .offer(name, version, bytes, |bytes| decode::listener(bytes))?
        else {
            return Ok(());
        };
        self.take(name, pending, workers)
            .inspect_err(|reason| self.store.refuse(name, version, bytes, reason))
    }

    /// A listener of the bootstrap.
    ///
    /// # Errors
    /// Its port is in use, or its address is none.
    pub(super) fn add_static(
        &mut self,
        config: ListenerConfig,
        bytes: Bytes,
        workers: usize,
    ) -> Result<(), String> {
        let name = config.name.clone();
        let sockets = self.bind(&name, &config, workers)?;
        self.store.accept_static(&name, bytes, Arc::new(config));
        self.warm(&name, sockets);
        Ok(())
    }

    fn take(&mut self, name: &str, pending: Pending<ListenerConfig>, workers: usize) -> Result<(), String> {
        let sockets = self.bind(name, &pending.model, workers)?;
        self.store.accept(name, pending);
        self.warm(name, sockets);
        Ok(())
    }

    fn warm(&mut self, name: &str, sockets: Vec<Sockets>) {
        let since = Instant::now();
        self.warming.insert(name.to_owned(), Warming { since, sockets });
    }

    /// Binds the addresses that neither the active nor the waiting listener of this name has bound. A listener that is refused leaves
    /// the one that waits as it is.
    fn bind(&mut self, name: &str, config: &ListenerConfig, workers: usize) -> Result<Vec<Sockets>, String> {
        let at = |error: &dyn Display| format!("listener {name:?}: {error}");
        let addresses = build::addresses(config).map_err(|error| at(&error))?;
        if let Some((address, other)) = self.addresses.taken(name, &addresses) {
            return Err(at(&format_args!(
                "address: {address} is that of listener {other:?}; give it another"
            )));
        }
        let transparent = config.is_transparent;
        let is_bound = |active: &Active| active.is_bound_to(&addresses, config);
        let wanted = || addresses.iter().zip(&config.sockets);
        let mut sockets = Vec::new();
        if config.bind_to_port && !self.active.get(name).is_some_and(is_bound) {
            for (wanted, how) in wanted() {
                if !self.is_waiting(name, *wanted, transparent, how) {
                    let is_ours = self.addresses.is_closing(*wanted) || self.is_listening(*wanted);
                    let bound = Sockets::bind(*wanted, transparent, how, workers, is_ours);
                    sockets.push(bound.map_err(|error| {
                        at(&format_args!(
                            "address: cannot listen on {wanted}: {error}; free the port or change it"
                        ))
                    })?);
                }
            }
            let waiting = self
                .warming
                .remove(name)
                .into_iter()
                .flat_map(|warming| warming.sockets);
            let fits = |bound: &Sockets| wanted().any(|(wanted, how)| bound.fits(*wanted, transparent, how));
            sockets.extend(waiting.filter(fits));
        }
        self.addresses.set(name, &addresses);
        Ok(sockets)
    }

    /// The waiting listener of this name has bound this address.
    fn is_waiting(&self, name: &str, wanted: SocketAddr, transparent: bool, how: &ListenSocket) -> bool {
        let mut sockets = self
            .warming
            .get(name)
            .into_iter()
            .flat_map(|warming| &warming.sockets);
        sockets.any(|bound| bound.fits(wanted, transparent, how))
    }

    /// A listener in use, of whatever name, listens on this address.
    fn is_listening(&self, wanted: SocketAddr) -> bool {
        self.active.values().any(|active| active.bound.contains(&wanted))
    }

    /// A listener that the control plane took back: its sockets close, its connections drain.
    pub(super) fn remove(&mut self, name: &str) {
        if self.store.remove(name) {
            self.warming.remove(name);
            self.addresses.forget(name);
            if let Some(active) = self.active.remove(name) {
                active.cell.close(None);
                self.addresses.close(&active.bound);
                self.changes.stopped(&active.cell.load());
                self.update_table();
            }
        }
    }

    /// Routes of an RDS response.
    ///
    /// # Errors
    /// Why they are rejected.
    pub(super) fn offer_routes(
        &mut self,
        server: &ConfigServer,
        name: &str,
        version: &str,
        bytes: &[u8],
        shared: &Shared,
    ) -> Result<(), String> {
        let Offered::Changed(pending) = self
            .routes
            .offer(name, version, bytes, |bytes| decode::route_table(bytes))?
        else {
            return Ok(());
        };
        let whole = self.parts.completed(name, &pending.model);
        let model = whole.as_ref().unwrap_or(&pending.model);
        let table = RouteTable::new(model, &shared.clusters, &shared.registry);
        let table = table.map_err(|error| error.to_string());
        let table = table.inspect_err(|reason| self.routes.refuse(name, version, bytes, reason))?;
        self.parts.take_table(name, &pending.model);
        self.routes.accept(name, pending.keep(drop));
        // A snapshot does not say whose they were.
        let owner = self.owners.of(name).unwrap_or(server);
        let key = (owner.clone(), name.to_owned());
        match self.route_cells.get(&key) {
            Some(cell) => cell.set(table),
            None => drop(self.route_cells.insert(key, RouteCell::new(table))),
        }
        Ok(())
    }

    /// The route tables to subscribe, by server. Those that nobody wants any more are forgotten.
    pub(super) fn wanted_routes(&mut self) -> ByServer {
        let mut names = BTreeSet::new();
        let mut keys = BTreeSet::new();
        let mut tables = |listeners: &mut dyn Iterator<Item = Arc<ListenerConfig>>| {
            let mut wanted = ByServer::new();
            for listener in listeners {
                for (name, source) in self.rds_names(&listener) {
                    let of_server = wanted.entry(source.server.clone()).or_default();
                    of_server.insert(name.clone());
                    names.insert(name.clone());
                    keys.insert((source.server, name));
                }
            }
            wanted
        };
        let accepted = tables(&mut self.accepted());
        let in_use = tables(&mut self.in_use());
        self.routes.retain(|name| names.contains(name));
        self.route_cells.retain(|key, _| keys.contains(key));
        self.parts.retain_tables(|name| names.contains(name));
        let asked = self.owners.settle(accepted, in_use);
        for name in asked.moved {
            self.routes.remove(&name);
        }
        asked.wanted
    }

    /// What is accepted, and what is in use until that is: both need what they name.
    fn needed(&self) -> impl Iterator<Item = Arc<ListenerConfig>> {
        self.accepted().chain(self.in_use())
    }

    fn accepted(&self) -> impl Iterator<Item = Arc<ListenerConfig>> {
        let accepted = self.store.accepted.values();
        accepted.map(|listener| listener.model.clone())
    }

    /// In use, and not accepted any more.
    fn in_use(&self) -> impl Iterator<Item = Arc<ListenerConfig>> {
        self.active.iter().filter_map(|(name, active)| {
            let config = active.cell.load().config.clone();
            let is_accepted = self
                .store
                .get(name)
                .is_some_and(|accepted| Arc::ptr_eq(accepted, &config));
            (!is_accepted).then_some(config)
        })
    }

    /// Differs from an earlier one if anything that is accepted or in use does.
    pub(super) fn generation(&self) -> u64 {
        self.store.generation() + self.replacements + self.parts.generation()
    }

    /// The servers whose scopes are wanted.
    pub(super) fn wanted_scopes(&self) -> ByServer {
        let listeners: Vec<_> = self.needed().collect();
        let routes = listeners.iter().flat_map(|listener| scoped(listener));
        scopes::everything(routes.filter_map(|routes| match &routes.scopes {
            ScopeSource::Discovered { srds, .. } => Some(srds),
            ScopeSource::Inline(_) => None,
        }))
    }

    /// What the listener of the first name calls a server's scopes.
    pub(super) fn scope_set_names(&self) -> BTreeMap<ConfigServer, String> {
        let mut listeners: Vec<_> = self.needed().collect();
        listeners.sort_by(|one, other| other.name.cmp(&one.name));
        let routes = listeners.iter().flat_map(|listener| scoped(listener));
        let names = routes.filter_map(|routes| match &routes.scopes {
            ScopeSource::Discovered { srds, .. } => Some((srds.server.clone(), routes.set_name.clone())),
            ScopeSource::Inline(_) => None,
        });
        names.collect()
    }

    /// The HTTP filters to subscribe, by server.
    pub(super) fn wanted_filters(&mut self) -> ByServer {
        let listeners: Vec<_> = self.needed().collect();
        self.extensions.wanted(&listeners)
    }

    /// The route tables that a listener needs, as far as that is known.
    fn rds_names<'a>(
        &'a self,
        config: &'a ListenerConfig,
    ) -> impl Iterator<Item = (String, ConfigSource)> + 'a {
        let scoped = scoped(config).flat_map(|routes| self.parts.tables_of(routes));
        rds_names(config).chain(scoped)
    }

    /// Puts scopes, and tables whose virtual hosts have changed, in use.
    pub(super) fn publish_routes(&mut self, shared: &Shared) {
        for (name, table) in self.parts.take_changed_tables() {
            let compiled = RouteTable::new(&table, &shared.clusters, &shared.registry);
            let owner = self.owners.of(&name).cloned();
            let cell = owner.and_then(|owner| self.route_cells.get(&(owner, name.clone())));
            match (cell, compiled) {
                (Some(cell), Ok(table)) => cell.set(table),
                (None, _) => {}
                (_, Err(error)) => tracing::error!(table = name, %error, "cannot be put in use"),
            }
        }
        let tables = (&self.route_cells, &self.owners);
        self.parts.publish_scopes(|name| discovered(tables, name), shared);
    }

    /// The secrets of all listeners, by server.
    pub(super) fn want_secrets(&self, wanted: &mut Wanted) {
        for listener in self.needed() {
            for tls in chains(&listener).filter_map(|chain| chain.tls.as_ref()) {
                secrets::want(&tls.common, wanted);
            }
        }
    }

    /// Puts in use whatever has everything it waits for, or has waited long enough.
    pub(super) fn publish_warm(&mut self, secrets: &mut Secrets, shared: &Shared, workers: &[WorkerHandle]) {
        let ready: Vec<String> = self
            .warming
            .iter()
            .filter(|(name, warming)| {
                self.store
                    .get(name)
                    .is_none_or(|config| self.is_warm(config, warming.since, secrets))
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in &ready {
            if let Some(warming) = self.warming.remove(name) {
                self.publish(name, warming, secrets, shared, workers);
            }
        }
        if !ready.is_empty() {
            self.update_table();
        }
    }

    fn publish(
        &mut self,
        name: &str,
        warming: Warming,
        secrets: &mut Secrets,
        shared: &Shared,
        workers: &[WorkerHandle],
    ) {
        let Some(config) = self.store.get(name).cloned() else {
            return;
        };
        let mut cells = RouteCells {
            tables: &mut self.route_cells,
            parts: &mut self.parts,
            extensions: &mut self.extensions,
        };
        let previous = self.active.get(name).map(|active| active.cell.load());
        let listener = match build::listener(shared, secrets, &config, previous.as_deref(), &mut cells) {
            Ok(listener) => Arc::new(listener),
            Err(error) => {
                tracing::error!(listener = name, %error, "accepted, but cannot be put in use; the last working one stays");
                self.changes.not_created();
                return;
            }
        };
        // Scopes that nobody had asked for are there before the first request.
        let tables = (&self.route_cells, &self.owners);
        self.parts.publish_scopes(|name| discovered(tables, name), shared);
        let same_sockets = |active: &Active| {
            let before = active.cell.load();
            before.addresses == listener.addresses
                && before.config.bind_to_port == config.bind_to_port
                && before.config.is_transparent == config.is_transparent
                && before.config.sockets == config.sockets
        };
        match self.active.get(name) {
            Some(active) if same_sockets(active) => {
                let old = active.cell.set(listener.clone());
                self.changes.updated(&old, &listener, workers.len());
            }
            _ => {
                if let Err(error) = warming.sockets.iter().try_for_each(Sockets::listen) {
                    tracing::error!(listener = name, %error, "cannot listen any more; the last working one stays");
                    self.changes.not_created();
                    return;
                }
                self.changes.created(workers.len());
                let cell = ListenerCell::new(listener.clone());
                let bound = warming.sockets.iter().map(|sockets| sockets.bound).collect();
                for sockets in warming.sockets {
                    start_accepting(sockets, &cell, &self.table, workers);
                }
                if let Some(old) = self.active.insert(name.to_owned(), Active { cell, bound }) {
                    old.cell.close(Some(&listener));
                    self.addresses.close(&old.bound);
                    self.changes.stopped(&old.cell.load());
                }
            }
        }
        self.replacements += u64::from(previous.is_some());
        tracing::debug!(listener = name, "in use");
    }

    fn update_table(&self) {
        self.table
            .set(self.active.values().map(|active| active.cell.clone()));
    }

    /// Tells the connections of inbound listeners (or all) to go.
    pub(super) fn drain_connections(&self, inbound_only: bool) {
        self.of_direction(inbound_only)
            .for_each(ListenerCell::drain_connections);
    }

    /// Inbound listeners (or all) stop accepting.
    pub(super) fn close(&self, inbound_only: bool) {
        self.of_direction(inbound_only).for_each(|cell| cell.close(None));
    }

    fn of_direction(&self, inbound_only: bool) -> impl Iterator<Item = &ListenerCell> {
        let wanted =
            move |cell: &&ListenerCell| !inbound_only || cell.load().direction == TrafficDirection::Inbound;
        self.active
            .values()
            .map(|active| active.cell.as_ref())
            .filter(wanted)
    }

    /// Every listener that waits, with what it waits for.
    pub(super) fn unready(&self, secrets: &Secrets) -> Vec<Unready> {
        let of = |name: &String| {
            let config = self.store.get(name)?;
            let missing = |(name, source): &(String, ConfigSource)| !self.has_routes(name, source);
            let routes: BTreeSet<_> = self
                .rds_names(config)
                .filter(missing)
                .map(|(name, _)| name)
                .collect();
            let tls = chains(config).filter_map(|chain| chain.tls.as_ref());
            let awaited: BTreeSet<_> = tls.flat_map(|tls| secrets.missing(&tls.common)).collect();
            Some(Unready {
                name: name.clone(),
                routes: Vec::from_iter(routes),
                secrets: Vec::from_iter(awaited),
                filters: self.extensions.awaited(config),
            })
        };
        self.warming.keys().filter_map(of).collect()
    }

    fn has_routes(&self, name: &str, source: &ConfigSource) -> bool {
        self.routes.get(name).is_some() && self.owners.is_of(name, &source.server)
    }

    fn is_warm(&self, config: &ListenerConfig, since: Instant, secrets: &Secrets) -> bool {
        let has_hosts = |table: &str| {
            let rest = self.parts.rest_of(table);
            rest.is_none_or(|rest| self.parts.hosts.contains_key(&rest.server) || waited(rest, since))
        };
        let routes = self.rds_names(config).all(|(name, source)| {
            self.has_routes(&name, &source) && has_hosts(&name) || waited(&source, since)
        });
        let scopes = scoped(config).all(|routes| match &routes.scopes {
            ScopeSource::Discovered { srds, .. } => {
                self.parts.scopes.contains_key(&srds.server) || waited(srds, since)
            }
            ScopeSource::Inline(_) => true,
        });
        routes
            && scopes
            && self.extensions.is_warm(config, since)
            && chains(config)
                .filter_map(|chain| chain.tls.as_ref())
                .all(|tls| secrets.is_warm(&tls.common, since))
    }
}

fn start_accepting(
    sockets: Sockets,
    cell: &Arc<ListenerCell>,
    table: &Arc<ListenerTable>,
    workers: &[WorkerHandle],
) {
    for (socket, worker) in sockets.per_worker.into_iter().zip(workers) {
        let (cell, table) = (cell.clone(), table.clone());
        worker.run(move || worker::spawn(accept::run(socket, cell, table)));
    }
}
