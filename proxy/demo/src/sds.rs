//! Workload secrets over a Unix socket, as the Istio agent serves them: `default`, `ROOTCA` and the system's roots, state-of-the-world SDS.
//!
//! Source: istio.io/istio security/pkg/nodeagent/sds/sdsservice.go; names in pkg/security/security.go.

use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use envoy_types::pb::google::protobuf::Any;
use futures_util::Stream;
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::Server;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::ca::KeyCert;

/// Name of the secret with the workload's certificate.
pub const WORKLOAD: &str = "default";
/// Name of the secret with the roots that a workload trusts.
pub const ROOTS: &str = "ROOTCA";
/// Name of the secret with the roots of the system, which here are the workload's: that of a destination rule's `SIMPLE` TLS.
pub const SYSTEM_ROOTS: &str = "file-root:system";

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Refusals that are kept for [`SecretServer::refusals`].
const REFUSALS_KEPT: usize = 1000;

/// What one workload holds.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Its certificate and key; without, `default` is not answered.
    pub workload: Option<KeyCert>,
    /// The roots that it trusts, PEM, one or more.
    pub roots: String,
}

/// Serves the secrets of one workload. Clones serve the same.
#[derive(Clone, Debug)]
pub struct SecretServer {
    secrets: watch::Sender<Arc<Secrets>>,
    refusals: Arc<Mutex<Vec<String>>>,
}

impl SecretServer {
    /// Serves `secrets` until [`Self::set`] changes them.
    pub fn new(secrets: Secrets) -> Self {
        Self {
            secrets: watch::Sender::new(Arc::new(secrets)),
            refusals: Arc::default(),
        }
    }

    /// Replaces the secrets and pushes them to whoever subscribes.
    pub fn set(&self, secrets: Secrets) {
        self.secrets.send_replace(Arc::new(secrets));
    }

    /// What is served now.
    pub fn secrets(&self) -> Secrets {
        Secrets::clone(&self.secrets.borrow())
    }

    /// Reasons with which the proxy refused secrets.
    pub fn refusals(&self) -> Vec<String> {
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Serves at `path`, a socket that anyone on the machine may use. Needs a tokio runtime around it. Aborting the task
    /// stops it.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(&self, path: &Path) -> io::Result<JoinHandle<()>> {
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        let incoming = futures_util::stream::unfold(listener, |listener| async move {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let service = SecretDiscoveryServiceServer::new(self.clone());
        Ok(tokio::spawn(async move {
            // Ends only with the listener, which never ends.
            let _ = Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await;
        }))
    }

    async fn run(
        self,
        mut requests: Streaming<DiscoveryRequest>,
        responses: Sender<Result<DiscoveryResponse, Status>>,
    ) {
        let mut secrets = self.secrets.subscribe();
        let mut names: Vec<String> = Vec::new();
        for version in 1_u64.. {
            let sends = loop {
                tokio::select! {
                    request = requests.message() => match request {
                        Ok(Some(request)) => if self.is_new(request, &mut names) { break true; },
                        _ => break false,
                    },
                    changed = secrets.changed() => break changed.is_ok(),
                }
            };
            let response = answer(&secrets.borrow_and_update(), &names, version);
            if !sends || (!response.resources.is_empty() && responses.send(Ok(response)).await.is_err()) {
                return;
            }
        }
    }

    /// Notes a request; whether it asks for something else than before.
    fn is_new(&self, request: DiscoveryRequest, names: &mut Vec<String>) -> bool {
        if let Some(error) = request.error_detail {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            if refusals.len() < REFUSALS_KEPT {
                refusals.push(error.message);
            }
        }
        let is_new = request.resource_names != *names;
        *names = request.resource_names;
        is_new
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl SecretDiscoveryService for SecretServer {
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Responses<DiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(self.clone().run(request.into_inner(), sender));
        let responses = futures_util::stream::unfold(receiver, |mut receiver: Receiver<_>| async move {
            receiver.recv().await.map(|response| (response, receiver))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("the agent serves StreamSecrets only"))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("the agent serves StreamSecrets only"))
    }
}

fn answer(secrets: &Secrets, names: &[String], version: u64) -> DiscoveryResponse {
    let resources = names
        .iter()
        .filter_map(|name| {
            Some(Secret {
                name: name.clone(),
                r#type: Some(body(secrets, name)?),
            })
        })
        .map(|secret| Any {
            type_url: SECRET.to_owned(),
            value: secret.encode_to_vec(),
        })
        .collect();
    DiscoveryResponse {
        version_info: version.to_string(),
        nonce: version.to_string(),
        type_url: SECRET.to_owned(),
        resources,
        ..Default::default()
    }
}

fn body(secrets: &Secrets, name: &str) -> Option<secret::Type> {
    match name {
        WORKLOAD => secrets.workload.as_ref().map(|pair| {
            secret::Type::TlsCertificate(TlsCertificate {
                certificate_chain: inline(&pair.chain),
                private_key: inline(&pair.key),
                ..Default::default()
            })
        }),
        ROOTS | SYSTEM_ROOTS => Some(secret::Type::ValidationContext(CertificateValidationContext {
            trusted_ca: inline(&secrets.roots),
            ..Default::default()
        })),
        _ => None,
    }
}

fn inline(pem: &str) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(Specifier::InlineBytes(pem.as_bytes().to_vec())),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(secrets: &Secrets, names: &[&str], expected: usize) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(answer(secrets, &names, 1).resources.len(), expected, "{names:?}");
    }

    #[test]
    fn only_known_secrets_are_answered() {
        let pair = KeyCert {
            chain: "c".to_owned(),
            key: "k".to_owned(),
        };
        let with = Secrets {
            workload: Some(pair),
            roots: "r".to_owned(),
        };
        let without = Secrets {
            workload: None,
            ..with.clone()
        };
        check(&with, &[WORKLOAD, ROOTS, SYSTEM_ROOTS], 3);
        check(&with, &["kubernetes://x"], 0);
        check(&without, &[WORKLOAD], 0);
        check(&without, &[WORKLOAD, ROOTS], 1);
    }
}
