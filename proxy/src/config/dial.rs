//! Connections to a server of configuration, made as the cluster that the bootstrap gives it says: TLS with its secrets, or none.
//!
//! Source: Envoy speaks gRPC to a control plane over an ordinary cluster (grpc_service.proto `EnvoyGrpc`).
use std::io;
use std::sync::Arc;

use xds_client::{Address, Connect, Connecting, Connection, Plain};

use crate::tls::{ClientTls, ConnectionOptions};
use crate::upstream::cluster::{Cluster, TransportSocket};
use crate::upstream::cluster_table::ClusterCell;

/// gRPC is HTTP/2. Envoy too offers it where the TLS context names no protocols.
const ALPN: &[u8] = b"h2";

/// Makes connections for one cluster; follows its secrets.
pub(crate) struct ClusterDial {
    cluster: Arc<ClusterCell>,
}

impl ClusterDial {
    /// For the cluster of this cell.
    pub(crate) fn new(cluster: Arc<ClusterCell>) -> Self {
        Self { cluster }
    }

    /// The cluster and its TLS, if it has some.
    ///
    /// # Errors
    /// It is not in use yet, so nobody knows whether it wants TLS: plaintext would be a guess.
    fn tls(&self) -> io::Result<Option<(Arc<ClientTls>, Arc<Cluster>)>> {
        let Some(cluster) = self.cluster.load() else {
            let name = &self.cluster.name;
            return Err(io::Error::other(format!(
                "the cluster {name:?} is not there, or waits for its secrets or its first health checks"
            )));
        };
        Ok(match cluster.transports.last().map(|choice| &choice.socket) {
            Some(TransportSocket::Tls(tls)) => Some((tls.clone(), cluster)),
            Some(TransportSocket::RawBuffer) | None => None,
        })
    }
}

impl Connect for ClusterDial {
    fn connect(&self, address: &Address) -> Connecting {
        let plain = Plain.connect(address);
        let (tls, cluster) = match self.tls() {
            Ok(Some(found)) => found,
            Ok(None) => return plain,
            Err(error) => return Box::pin(async { Err(error) }),
        };
        Box::pin(async move {
            let Some(context) = tls.context() else {
                return Err(io::Error::other(
                    "TLS: the certificate or the trusted roots were not delivered (SDS)",
                ));
            };
            let options = ConnectionOptions {
                fallback_alpn: Some(ALPN),
                ..ConnectionOptions::default()
            };
            match context.connect(plain.await?, &options).await {
                Ok((stream, info)) => {
                    info.counters().for_each(|counter| cluster.stats.ssl(counter));
                    Ok(Box::new(stream) as Box<dyn Connection>)
                }
                Err(error) => {
                    error
                        .counter()
                        .into_iter()
                        .for_each(|counter| cluster.stats.ssl(counter));
                    Err(io::Error::other(format!("TLS: {error}")))
                }
            }
        })
    }
}
