//! A connection that is a request's own, for what is in a tunnel that ends here. It is never used again.
use std::sync::Arc;

use super::{ConnectionFacts, Lease as AnyLease};
use crate::codec::{Body, Response, tunnel};
use crate::tls::transport::Transport;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::{self, ConnectError, ConnectionGuard, TlsWish};
use crate::upstream::endpoint::Host;

/// The connection.
#[derive(Debug)]
pub(crate) struct Lease {
    transport: Transport,
    facts: ConnectionFacts,
    guard: ConnectionGuard,
}

/// Connects, as a TCP proxy would.
pub(super) async fn connect(
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    wish: &TlsWish,
) -> Result<AnyLease, ConnectError> {
    let connected = connect::connect(cluster, host, wish, None).await?;
    let facts = ConnectionFacts {
        local_address: connected.local_address,
        principals: connected.tls.as_ref().map(|tls| tls.principals()),
    };
    Ok(AnyLease::Raw(Box::new(Lease {
        transport: connected.transport,
        facts,
        guard: connected.guard,
    })))
}

impl Lease {
    pub(super) fn facts(&self) -> &ConnectionFacts {
        &self.facts
    }

    /// Sends `body` over it, and answers with what comes.
    pub(super) fn open(self, body: Body) -> Response {
        tunnel::end(self.transport, body, self.guard)
    }
}
