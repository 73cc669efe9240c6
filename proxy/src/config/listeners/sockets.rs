//! The sockets of listeners: bound when a listener is accepted, so that a port in use is told in the NACK; listening when it goes in use,
//! so that nobody is kept waiting by one that still warms. Source: Envoy, `ListenSocketFactoryImpl::doFinalPreWorkerInit`.
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_model::listener::ListenSocket;

use crate::net::listen;
use crate::time::Instant;

/// One socket for each worker.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) wanted: SocketAddr,
    pub(super) bound: SocketAddr,
    pub(super) transparent: bool,
    pub(super) how: ListenSocket,
    pub(super) per_worker: Vec<std::net::TcpListener>,
}

impl Sockets {
    /// Binds `wanted`. `is_ours`: another socket of this process has it, or had it a moment ago.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub(super) fn bind(
        wanted: SocketAddr,
        transparent: bool,
        how: &ListenSocket,
        workers: usize,
        is_ours: bool,
    ) -> io::Result<Self> {
        let per_worker = if is_ours {
            listen::bind_beside_own(wanted, workers, transparent, how)?
        } else {
            listen::bind_for_workers(wanted, workers, transparent, how)?
        };
        let first = per_worker.first().and_then(|socket| socket.local_addr().ok());
        Ok(Self {
            wanted,
            transparent,
            how: how.clone(),
            bound: first.unwrap_or(wanted),
            per_worker,
        })
    }

    /// From now on the kernel takes connections.
    ///
    /// # Errors
    /// Somebody else has the address by now, or the kernel refuses an option.
    pub(super) fn listen(&self) -> io::Result<()> {
        self.per_worker
            .iter()
            .try_for_each(|socket| listen::start(socket, &self.how))
    }

    /// They are as this listener wants those of this address.
    pub(super) fn fits(&self, wanted: SocketAddr, transparent: bool, how: &ListenSocket) -> bool {
        self.wanted == wanted && self.transparent == transparent && self.how == *how
    }
}

/// Whose addresses are whose.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    owners: HashMap<SocketAddr, Arc<str>>,
    of_name: HashMap<Arc<str>, Vec<SocketAddr>>,
    /// Closed a moment ago: the workers may not have noticed yet.
    closing: Vec<(SocketAddr, Instant)>,
}

/// By then a worker has closed what it was told to close.
const CLOSING: Duration = Duration::from_secs(5);

impl Addresses {
    /// Another listener that has one of `addresses`; port 0 is nobody's.
    /// Source: Envoy, `ListenerManagerImpl::hasListenerWithDuplicatedAddress`.
    pub(super) fn taken<'a>(&'a self, name: &str, addresses: &[SocketAddr]) -> Option<(SocketAddr, &'a str)> {
        let mut others = addresses.iter().filter(|address| address.port() != 0);
        others.find_map(|address| {
            let owner = self.owners.get(address).filter(|owner| ***owner != *name)?;
            Some((*address, &**owner))
        })
    }

    /// `name` has these and no others.
    pub(super) fn set(&mut self, name: &str, addresses: &[SocketAddr]) {
        self.forget(name);
        let name: Arc<str> = name.into();
        let owned = addresses.iter().map(|address| (*address, name.clone()));
        self.owners.extend(owned);
        self.of_name.insert(name.clone(), addresses.to_vec());
    }

    /// `name` has none any more.
    pub(super) fn forget(&mut self, name: &str) {
        for address in self.of_name.remove(name).into_iter().flatten() {
            if self.owners.get(&address).is_some_and(|owner| **owner == *name) {
                self.owners.remove(&address);
            }
        }
    }

    /// Sockets of these addresses were told to close.
    pub(super) fn close(&mut self, addresses: &[SocketAddr]) {
        let now = Instant::now();
        self.closing.retain(|(_, since)| now - *since < CLOSING);
        self.closing
            .extend(addresses.iter().map(|address| (*address, now)));
    }

    /// Sockets of this address were told to close a moment ago.
    pub(super) fn is_closing(&self, address: SocketAddr) -> bool {
        let is_recent = |since: &Instant| since.elapsed() < CLOSING;
        self.closing
            .iter()
            .any(|(closing, since)| *closing == address && is_recent(since))
    }
}
