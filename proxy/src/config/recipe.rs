//! How a cluster is made of the bytes that were accepted, on whichever thread needs it first.
use std::sync::Arc;

use outrigger_model::decode;
use outrigger_model::tls::UpstreamTls;

use super::build::Shared;
use super::clusters::Kept;
use crate::packed::Packed;
use crate::stats::Registry;
use crate::tls::{ClientSecrets, ClientTls};
use crate::upstream::cluster::{Cluster, TransportSocket};
use crate::upstream::lb::LocalZone;
use crate::upstream::slot::{Counting, Recipe};
use crate::upstream::stats::ClusterStats;

/// An accepted cluster.
#[derive(Debug)]
pub(super) struct Encoded {
    bytes: Packed,
    /// Of its TLS transports, in order.
    secrets: Box<[Arc<ClientSecrets>]>,
    registry: Arc<Registry>,
    zone: Arc<LocalZone>,
}

impl Encoded {
    /// The cluster that `bytes` are and of which `kept` is kept.
    pub(super) fn new(bytes: Packed, kept: &Kept, shared: &Shared) -> Self {
        Self {
            bytes,
            secrets: kept.tls.iter().map(|needs| needs.secrets.clone()).collect(),
            registry: shared.registry.clone(),
            zone: shared.zone.clone(),
        }
    }

    /// The cluster now, with what it takes over from the one it replaces.
    pub(super) fn make_after(
        &self,
        endpoints: Option<&Packed>,
        previous: Option<&Cluster>,
    ) -> Option<Cluster> {
        self.make_counting(endpoints, previous, Counting::Registered)
    }

    fn make_counting(
        &self,
        endpoints: Option<&Packed>,
        previous: Option<&Cluster>,
        counting: Counting,
    ) -> Option<Cluster> {
        // Both were accepted as they are: an error here would be one of this program.
        let decoded = decode::cluster(&self.bytes.bytes())
            .inspect_err(unexpected)
            .ok()?;
        let config = Arc::new(decoded.value);
        let stats = match counting {
            Counting::Registered => ClusterStats::new(&self.registry, &config.stat_name),
            Counting::Not => ClusterStats::none(),
        };
        let mut secrets = self.secrets.iter().cloned();
        let cluster = Cluster::new(config, stats, previous, &self.zone, |tls| {
            client_tls(tls, secrets.next().unwrap_or_default(), previous)
        });
        if let Some(endpoints) = endpoints {
            let assignment = decode::load_assignment(&endpoints.bytes())
                .inspect_err(unexpected)
                .ok()?;
            cluster.set_endpoints(&assignment.value, previous.map(|old| old.hosts()).as_deref());
        }
        Some(cluster)
    }
}

fn unexpected(rejection: &outrigger_model::field::Rejection) {
    tracing::error!(%rejection, "accepted before, and refused now; please report this");
}

impl Recipe for Encoded {
    fn make(&self, endpoints: Option<&Packed>, counting: Counting) -> Option<Cluster> {
        self.make_counting(endpoints, None, counting)
    }
}

/// TLS of a cluster; that of the one it replaces, sessions and all, if it is the same.
pub(super) fn client_tls(
    config: &UpstreamTls,
    secrets: Arc<ClientSecrets>,
    previous: Option<&Cluster>,
) -> Arc<ClientTls> {
    let before = previous.into_iter().flat_map(|cluster| &cluster.transports);
    let mut before = before.filter_map(|choice| match &choice.socket {
        TransportSocket::Tls(tls) => Some(tls),
        TransportSocket::RawBuffer => None,
    });
    match before.find(|tls| tls.is_of(config, &secrets)) {
        Some(same) => same.clone(),
        None => Arc::new(ClientTls::new(config.clone(), secrets)),
    }
}
