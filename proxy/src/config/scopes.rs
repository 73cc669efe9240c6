//! Parts of routes that come by themselves: the scopes of a connection manager (SRDS), and virtual hosts of a table (VHDS).
//!
//! A server's scopes are all for whoever asks that server; a virtual host is for the table that its name begins with. Source: Envoy docs,
//! "HTTP routing: route scope" and "VHDS"; a virtual host is named `<table>/<domain>`.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrigger_model::bootstrap::{ConfigServer, ConfigSource};
use outrigger_model::decode;
use outrigger_model::route::{RouteTableConfig, VirtualHost};
use outrigger_model::scoped_routes::{Scope, ScopeSource, ScopeTable, ScopedRoutes};
use xds_client::WILDCARD;

use super::build::Shared;
use super::store::{Offered, Store};
use super::wishes::ByServer;
use crate::http::route_table::{RouteCell, RouteTable};
use crate::http::scoped_routes::{ScopeCell, Scopes, joined};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct RouteParts {
    /// SRDS; a server that has answered is there.
    pub(super) scopes: BTreeMap<ConfigServer, Store<Scope>>,
    /// VHDS; a server that has answered is there.
    pub(super) hosts: BTreeMap<ConfigServer, Store<VirtualHost>>,
    cells: BTreeMap<ConfigServer, Arc<ScopeCell>>,
    /// Tables with virtual hosts elsewhere.
    tables: BTreeMap<String, RouteTableConfig>,
    /// Where those were. Asked on when nobody refers to them for a while: the next table comes after the last one is gone.
    host_sources: BTreeMap<ConfigServer, ConfigSource>,
    /// Scopes or their tables have changed.
    has_new_scopes: bool,
    /// Tables whose virtual hosts have changed.
    changed_tables: BTreeSet<String>,
    /// How often what is wanted may have changed.
    generation: u64,
}

impl RouteParts {
    /// Differs from an earlier one if scopes do, or where virtual hosts come from.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// A scope of an SRDS response.
    ///
    /// # Errors
    /// Why it is rejected.
    pub(super) fn offer_scope(
        &mut self,
        server: &ConfigServer,
        name: &str,
        version: &str,
        bytes: &[u8],
    ) -> Result<(), String> {
        let store = self.scopes.entry(server.clone()).or_default();
        if let Offered::Changed(pending) = store.offer(name, version, bytes, |bytes| decode::scope(bytes))? {
            store.accept(name, pending);
            self.has_new_scopes = true;
            self.generation += 1;
        }
        Ok(())
    }

    /// A virtual host of a VHDS response.
    ///
    /// # Errors
    /// Why it is rejected.
    pub(super) fn offer_host(
        &mut self,
        server: &ConfigServer,
        name: &str,
        version: &str,
        bytes: &[u8],
    ) -> Result<(), String> {
        let store = self.hosts.entry(server.clone()).or_default();
        if let Offered::Changed(pending) =
            store.offer(name, version, bytes, |bytes| decode::virtual_host(bytes))?
        {
            store.accept(name, pending);
            self.changed_tables.extend(table_of(name).map(str::to_owned));
        }
        Ok(())
    }

    /// A scope that is gone.
    pub(super) fn remove_scope(&mut self, server: &ConfigServer, name: &str) {
        if self
            .scopes
            .get_mut(server)
            .is_some_and(|store| store.remove(name))
        {
            self.has_new_scopes = true;
            self.generation += 1;
        }
    }

    /// A virtual host that is gone.
    pub(super) fn remove_host(&mut self, server: &ConfigServer, name: &str) {
        if self.hosts.get_mut(server).is_some_and(|store| store.remove(name)) {
            self.changed_tables.extend(table_of(name).map(str::to_owned));
        }
    }

    /// The server has answered, if only that there is nothing.
    pub(super) fn answered(&mut self, server: &ConfigServer, type_url: &str) {
        match type_url {
            decode::SCOPE_TYPE => drop(self.scopes.entry(server.clone()).or_default()),
            decode::VIRTUAL_HOST_TYPE => drop(self.hosts.entry(server.clone()).or_default()),
            _ => {}
        }
    }

    /// The table as it is to be compiled, with the virtual hosts that came by themselves.
    pub(super) fn completed(&self, name: &str, table: &RouteTableConfig) -> Option<RouteTableConfig> {
        let store = self.hosts.get(&table.vhds.as_ref()?.server);
        let hosts = store.into_iter().flat_map(|store| &store.accepted);
        let mut hosts: Vec<_> = hosts.filter(|(host, _)| table_of(host) == Some(name)).collect();
        hosts.sort_by_key(|(host, _)| *host);
        let mut whole = table.clone();
        let hosts = hosts.into_iter().map(|(_, host)| VirtualHost::clone(&host.model));
        whole.virtual_hosts.extend(hosts);
        Some(whole)
    }

    /// A table came.
    pub(super) fn take_table(&mut self, name: &str, table: &RouteTableConfig) {
        self.has_new_scopes = true;
        if let Some(source) = &table.vhds {
            self.host_sources.insert(source.server.clone(), source.clone());
            self.generation += 1;
            self.tables.insert(name.to_owned(), table.clone());
        } else {
            self.tables.remove(name);
        }
    }

    /// Nobody wants the others any more.
    pub(super) fn retain_tables(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.tables.retain(|name, _| is_wanted(name));
    }

    /// Where the rest of a table is.
    pub(super) fn rest_of(&self, table: &str) -> Option<&ConfigSource> {
        self.tables.get(table)?.vhds.as_ref()
    }

    /// The servers of virtual hosts.
    pub(super) fn wanted_hosts(&self) -> ByServer {
        everything(self.host_sources.values())
    }

    /// The tables that these routes lead to, and where they come from.
    pub(super) fn tables_of<'a>(
        &'a self,
        routes: &'a ScopedRoutes,
    ) -> impl Iterator<Item = (String, ConfigSource)> + 'a {
        let discovered = match &routes.scopes {
            ScopeSource::Inline(_) => None,
            ScopeSource::Discovered { srds, rds } => self.scopes.get(&srds.server).map(|store| (store, rds)),
        };
        discovered.into_iter().flat_map(|(store, rds)| {
            let scopes = store.accepted.values();
            scopes.filter_map(|accepted| match &accepted.model.scope_table {
                ScopeTable::Named(name) => Some((name.clone(), rds.clone())),
                ScopeTable::Inline(_) => None,
            })
        })
    }

    /// The cell of a server's scopes.
    pub(super) fn cell(&mut self, server: &ConfigServer) -> Arc<ScopeCell> {
        self.has_new_scopes = true;
        self.cells.entry(server.clone()).or_default().clone()
    }

    /// Puts scopes in use. One whose table has not come keeps the table that its key had.
    pub(super) fn publish_scopes(&mut self, named: impl Fn(&str) -> Option<Arc<RouteCell>>, shared: &Shared) {
        if !std::mem::take(&mut self.has_new_scopes) {
            return;
        }
        for (server, cell) in &self.cells {
            let before = cell.load();
            let stored = self.scopes.get(server).into_iter();
            let scopes = stored.flat_map(|store| store.accepted.values());
            let scopes = scopes.filter_map(|accepted| {
                let (key, table) = table_of_scope(&accepted.model, shared, &named)?;
                let table = table.or_else(|| before.get(&key).cloned())?;
                Some((key, table))
            });
            cell.set(scopes.collect());
        }
    }

    /// The tables whose virtual hosts have changed, complete.
    pub(super) fn take_changed_tables(&mut self) -> Vec<(String, RouteTableConfig)> {
        let changed = std::mem::take(&mut self.changed_tables);
        let completed = |name: String| {
            let whole = self.completed(&name, self.tables.get(&name)?)?;
            Some((name, whole))
        };
        changed.into_iter().filter_map(completed).collect()
    }
}

/// The key of a scope, and its table if that is there. `None`: it cannot be compiled, which the model does not let pass.
fn table_of_scope(
    scope: &Scope,
    shared: &Shared,
    named: impl FnOnce(&str) -> Option<Arc<RouteCell>>,
) -> Option<(String, Option<Arc<RouteCell>>)> {
    let table = match &scope.scope_table {
        ScopeTable::Named(name) => named(name),
        ScopeTable::Inline(table) => Some(RouteCell::new(
            RouteTable::new(table, &shared.clusters, &shared.registry).ok()?,
        )),
    };
    Some((joined(scope.key_values.iter().map(String::as_str)), table))
}

/// The scopes that a listener writes out, with their tables.
pub(super) fn inline_scopes(scopes: &[Scope], shared: &Shared) -> Arc<ScopeCell> {
    let tables = scopes.iter().filter_map(|scope| {
        let (key, table) = table_of_scope(scope, shared, |_| None)?;
        Some((key, table?))
    });
    let cell = ScopeCell::default();
    cell.set(tables.collect::<Scopes>());
    Arc::new(cell)
}

/// All that these servers have.
pub(super) fn everything<'a>(sources: impl Iterator<Item = &'a ConfigSource>) -> ByServer {
    let all = || BTreeSet::from([WILDCARD.to_owned()]);
    sources.map(|source| (source.server.clone(), all())).collect()
}

/// The table that a virtual host of this name is for.
fn table_of(host: &str) -> Option<&str> {
    host.rsplit_once('/').map(|(table, _)| table)
}
