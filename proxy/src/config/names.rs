//! The name table: what istiod would have the DNS proxy answer. Asked for beside listeners when the node captures DNS, as Istio's agent
//! does on the proxy's stream. Source: istio pkg/istio-agent/xds_proxy.go; contract §1.1.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrigger_model::bootstrap::ConfigServer;
use outrigger_model::decode;
use outrigger_model::nds::NameTable;
use xds_client::WILDCARD;

use super::store::{Offered, Store};
use super::wishes::ByServer;

/// There is one, and it travels without a name.
pub(super) const NAME: &str = "names";

/// What is known of names.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) store: Store<NameTable>,
}

impl Names {
    /// A table of an NDS response.
    ///
    /// # Errors
    /// Why it is rejected; the one before stays.
    pub(super) fn offer(&mut self, version: &str, bytes: &[u8]) -> Result<(), String> {
        if let Offered::Changed(pending) = self
            .store
            .offer(NAME, version, bytes, |bytes| decode::name_table(bytes))?
        {
            self.store.accept(NAME, pending);
        }
        Ok(())
    }

    /// The table, once it has come.
    pub(super) fn table(&self) -> Option<Arc<NameTable>> {
        self.store.get(NAME).cloned()
    }
}

/// Whom to ask for it.
pub(super) fn wanted() -> ByServer {
    BTreeMap::from([(ConfigServer::Ads, BTreeSet::from([WILDCARD.to_owned()]))])
}
