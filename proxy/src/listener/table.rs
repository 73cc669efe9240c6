//! All listeners: by the address they serve, for the hand-over of `use_original_dst`. Source: Envoy
//! `ConnectionHandlerImpl::getBalancedHandlerByAddress`: exact address, then the wildcard of its family and port.
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::runtime::ListenerCell;

/// The table; one load a connection.
#[derive(Debug, Default)]
pub(crate) struct ListenerTable {
    by_address: ArcSwap<HashMap<SocketAddr, Arc<ListenerCell>>>,
}

impl ListenerTable {
    /// The listener that serves connections to `destination`.
    pub(crate) fn find(&self, destination: SocketAddr) -> Option<Arc<ListenerCell>> {
        let by_address = self.by_address.load();
        let any = match destination.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        by_address
            .get(&destination)
            .or_else(|| by_address.get(&SocketAddr::new(any, destination.port())))
            .cloned()
    }

    /// Replaces the table.
    pub(crate) fn set(&self, listeners: impl IntoIterator<Item = Arc<ListenerCell>>) {
        let mut by_address = HashMap::new();
        for cell in listeners {
            for address in &cell.load().addresses {
                by_address.insert(*address, cell.clone());
            }
        }
        self.by_address.store(Arc::new(by_address));
    }
}
