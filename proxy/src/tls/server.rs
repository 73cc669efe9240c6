//! The server side of a handshake: what a listener's filter chain does with a TLS client.
//!
//! A context holds two configurations that differ only in ALPN. rustls aborts when client and server have no protocol in
//! common; Envoy goes on without one, and Istio depends on it (contract §1.3). So the ClientHello is read first and a client
//! without overlap gets the twin that knows no protocols. Sessions are resumed from stateless tickets under a key that lives
//! and dies with the context; a ticket carries the client's certificate, so the identity survives resumption.

use std::sync::Arc;

use outrigger_model::tls::DownstreamTls;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;

use super::error::{ContextError, HandshakeError};
use super::info::{CertificateDetails, TlsInfo};
use super::provider::{alpn, provider, versions};
use super::secret::CertifiedMaterial;
use super::stream::TlsStream;
use super::verify::{PeerRules, PeerVerifier};

/// A TLS connection with a downstream client.
pub(crate) type ServerStream<IO> = TlsStream<tokio_rustls::server::TlsStream<IO>>;

/// How a filter chain answers TLS clients. Immutable; cheap to share.
#[derive(Debug)]
pub(crate) struct ServerContext {
    configured: Arc<ServerConfig>,
    without_alpn: Arc<ServerConfig>,
    /// What clients are shown.
    pub(crate) local: Arc<CertificateDetails>,
}

impl ServerContext {
    /// Builds the context from a listener's TLS and the secrets that it names.
    ///
    /// `rules` are those of the merged validation context; the default value verifies nothing.
    ///
    /// # Errors
    /// [`ContextError::NoVersion`], [`ContextError::Alpn`], [`ContextError::Library`].
    pub(crate) fn build(
        config: &DownstreamTls,
        certificate: &CertifiedMaterial,
        rules: &PeerRules,
    ) -> Result<Self, ContextError> {
        let provider = provider(&config.common);
        let verifier = PeerVerifier::new(
            rules.clone(),
            provider.signature_verification_algorithms,
            config.require_client_certificate,
        );
        let mut without_alpn = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(&config.common)?)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(OneCertificate(Arc::clone(&certificate.key))));
        without_alpn.ignore_client_order = true; // Envoy: SSL_OP_CIPHER_SERVER_PREFERENCE
        without_alpn.ticketer = Ticketer::new()?;
        let mut configured = without_alpn.clone();
        configured.alpn_protocols = alpn(&config.common)?;
        Ok(Self {
            configured: Arc::new(configured),
            without_alpn: Arc::new(without_alpn),
            local: Arc::clone(&certificate.details),
        })
    }

    /// Does the handshake. `io` begins with the ClientHello, also when an inspector has looked at it before.
    ///
    /// Has no timeout of its own. On error the alert, if one is due, has been offered to `io`.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is of no more use.
    pub(crate) async fn accept<IO>(&self, io: IO) -> Result<(ServerStream<IO>, TlsInfo), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), io)
            .await
            .map_err(HandshakeError::from_io)?;
        let config = self.config_for(&start.client_hello());
        let stream = start
            .into_stream(Arc::clone(config))
            .await
            .map_err(HandshakeError::from_io)?;
        let (_, session) = stream.get_ref();
        let server_name = session.server_name().map(Arc::from);
        let info = TlsInfo::new(session, server_name, Some(Arc::clone(&self.local)))
            .map_err(HandshakeError::Verify)?;
        Ok((TlsStream(stream), info))
    }

    fn config_for(&self, hello: &ClientHello<'_>) -> &Arc<ServerConfig> {
        let ours = &self.configured.alpn_protocols;
        let overlap = hello
            .alpn()
            .is_some_and(|mut theirs| theirs.any(|name| ours.iter().any(|own| own == name)));
        if overlap {
            &self.configured
        } else {
            &self.without_alpn
        }
    }
}

/// One certificate for every client, whatever name it asks for.
#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
