//! The cells that listeners share: route tables, scopes and filters that come by themselves.
use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_model::bootstrap::ConfigServer;
use outrigger_model::http_filter::PlacedFilter;

use crate::config::build::Cells;
use crate::config::extensions::Extensions;
use crate::config::owners::Owners;
use crate::config::scopes::RouteParts;
use crate::http::manager::ConnectionManager;
use crate::http::route_table::{RouteCell, RouteTable};
use crate::http::scoped_routes::ScopeCell;

/// Route tables by who has them, and name.
pub(super) type Tables = BTreeMap<(ConfigServer, String), Arc<RouteCell>>;

/// The cells that listeners share.
pub(super) struct RouteCells<'a> {
    pub(super) tables: &'a mut Tables,
    pub(super) parts: &'a mut RouteParts,
    pub(super) extensions: &'a mut Extensions,
}

impl Cells for RouteCells<'_> {
    /// Empty until the table comes.
    fn table(&mut self, server: &ConfigServer, name: &str) -> Arc<RouteCell> {
        let cell = self.tables.entry((server.clone(), name.to_owned()));
        cell.or_insert_with(|| RouteCell::new(RouteTable::default()))
            .clone()
    }

    fn scopes(&mut self, server: &ConfigServer) -> Arc<ScopeCell> {
        self.parts.cell(server)
    }

    fn filters(&self, configured: &[PlacedFilter]) -> Option<Vec<PlacedFilter>> {
        self.extensions.resolved(configured)
    }

    fn follow(&mut self, manager: &Arc<ConnectionManager>, in_use: Vec<PlacedFilter>) {
        self.extensions.follow(manager, in_use);
    }
}

/// The table of this name, from whoever is asked for it.
pub(super) fn discovered((tables, owners): (&Tables, &Owners), name: &str) -> Option<Arc<RouteCell>> {
    let owner = owners.of(name)?.clone();
    tables.get(&(owner, name.to_owned())).cloned()
}
