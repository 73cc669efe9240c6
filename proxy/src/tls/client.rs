//! The client side of a handshake: what a cluster's transport socket does with an upstream host.
//!
//! The server name is sent as configured and plays no part in the verification. Sessions are kept in the context, at most one
//! name's worth: an upstream context has one SNI, as Envoy's `max_session_keys` default of 1.
//! With TLS 1.3 `connect` succeeds before the server has judged our certificate; its refusal comes from the first read, as an
//! error for [`HandshakeError::from_io`] (Envoy: flag `UC`, no failure reason, `ssl.connection_error`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use outrigger_model::tls::UpstreamTls;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::error::{ContextError, HandshakeError};
use super::info::{CertificateDetails, TlsInfo};
use super::provider::{alpn, provider, versions};
use super::secret::CertifiedMaterial;
use super::stream::TlsStream;
use super::verify::{PeerRules, PeerVerifier};

/// A TLS connection with an upstream host.
pub(crate) type ClientStream<IO> = TlsStream<tokio_rustls::client::TlsStream<IO>>;

/// rustls keeps eight tickets a server name and counts capacity in tickets.
const SESSIONS_OF_ONE_NAME: usize = 8;

/// What one connection wants besides its context. Source: Envoy `TransportSocketOptions`.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionOptions<'a> {
    /// ALPN protocols in place of the context's (the `istio.alpn` filter).
    pub(crate) alpn: Option<&'a [Vec<u8>]>,
    /// The protocol to offer when neither this nor the context names any.
    pub(crate) fallback_alpn: Option<&'static [u8]>,
    /// Of the host; empty: it has none.
    pub(crate) host_name: &'a str,
    /// SNI in place of the context's and the host's.
    pub(crate) server_name: Option<&'a Arc<str>>,
    /// The server's certificate must be for this name, too.
    pub(crate) required_name: Option<&'a Arc<str>>,
}

/// How a cluster speaks TLS to its hosts. Immutable; cheap to share.
pub(crate) struct ClientContext {
    config: Arc<ClientConfig>,
    /// As they are configured.
    listed: PeerRules,
    /// With the configured name, if it is required.
    rules: PeerRules,
    name: ServerName<'static>,
    sni: Option<Arc<str>>,
    sends_host_name: bool,
    requires_sent_name: bool,
    local: Option<Arc<CertificateDetails>>,
}

impl fmt::Debug for ClientContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientContext")
            .field("sni", &self.sni)
            .finish_non_exhaustive()
    }
}

impl ClientContext {
    /// Builds the context from a cluster's TLS and the secrets that it names.
    ///
    /// `rules` are those of the merged validation context; the default value verifies nothing.
    ///
    /// # Errors
    /// [`ContextError::NoVersion`], [`ContextError::Alpn`], [`ContextError::Sni`], [`ContextError::Library`].
    pub(crate) fn build(
        config: &UpstreamTls,
        certificate: Option<&CertifiedMaterial>,
        rules: &PeerRules,
    ) -> Result<Self, ContextError> {
        let sni: Option<Arc<str>> = config.sni.as_deref().map(Arc::from);
        let listed = rules.clone();
        let rules = match (config.requires_sent_name, &sni) {
            (true, Some(sni)) => listed.without_names().requiring(sni.clone()),
            // As Envoy: without a name that is sent, those that are listed count.
            (true, None) | (false, _) => listed.clone(),
        };
        let provider = provider(&config.common);
        let verifier = PeerVerifier::new(rules.clone(), provider.signature_verification_algorithms, true);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(&config.common)?)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut client = match certificate {
            Some(material) => {
                builder.with_client_cert_resolver(Arc::new(OneCertificate(Arc::clone(&material.key))))
            }
            None => builder.with_no_client_auth(),
        };
        client.alpn_protocols = alpn(&config.common)?;
        client.resumption = Resumption::in_memory_sessions(SESSIONS_OF_ONE_NAME);
        client.enable_sni = config.sni.is_some();
        Ok(Self {
            config: Arc::new(client),
            listed,
            rules,
            name: server_name(config.sni.as_deref())?,
            sni,
            sends_host_name: config.sends_host_name,
            requires_sent_name: config.requires_sent_name,
            local: certificate.map(|material| Arc::clone(&material.details)),
        })
    }

    /// Refuses what [`Self::build`] would refuse whatever the secrets: versions, ALPN names, server name.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub(crate) fn check(config: &UpstreamTls) -> Result<(), ContextError> {
        versions(&config.common)?;
        alpn(&config.common)?;
        server_name(config.sni.as_deref()).map(drop)
    }

    /// Does the handshake.
    ///
    /// Has no timeout of its own.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is of no more use.
    pub(crate) async fn connect<IO>(
        &self,
        io: IO,
        options: &ConnectionOptions<'_>,
    ) -> Result<(ClientStream<IO>, TlsInfo), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let named = options.server_name.filter(|name| !is_address(name)).cloned();
        let host_name = Some(options.host_name).filter(|name| self.sends_host_name && !name.is_empty());
        let wanted = named.or_else(|| host_name.map(Arc::from));
        let name = wanted.clone().filter(|name| !is_address(name));
        let name = name.and_then(|sni| Some((ServerName::try_from(sni.to_string()).ok()?, sni)));
        let config = self.config_for(options, wanted.as_ref(), name.is_some());
        let (name, sni) = match name {
            Some((name, sni)) => (name, Some(sni)),
            None => (self.name.clone(), self.sni.clone()),
        };
        let handshake = TlsConnector::from(config).connect(name, io);
        let stream = handshake.await.map_err(HandshakeError::from_io)?;
        let (_, session) = stream.get_ref();
        let info = TlsInfo::new(session, sni, self.local.clone()).map_err(HandshakeError::Verify)?;
        Ok((TlsStream(stream), info))
    }

    /// The context's own, unless this connection wants something else. A name that is wanted and cannot be sent is required all the
    /// same: nobody is let off a check by a name that is no name of TLS.
    fn config_for(
        &self,
        options: &ConnectionOptions<'_>,
        wanted: Option<&Arc<str>>,
        has_name: bool,
    ) -> Arc<ClientConfig> {
        let replaced = wanted.filter(|_| self.requires_sent_name);
        let is_stricter = replaced.is_some() || options.required_name.is_some();
        let fallback = options
            .fallback_alpn
            .filter(|_| options.alpn.is_none() && self.config.alpn_protocols.is_empty());
        if options.alpn.is_none() && fallback.is_none() && !has_name && !is_stricter {
            return self.config.clone();
        }
        let mut config = ClientConfig::clone(&self.config);
        if let Some(protocols) = options.alpn {
            config.alpn_protocols = protocols.to_vec();
        } else if let Some(protocol) = fallback {
            config.alpn_protocols = vec![protocol.to_vec()];
        }
        config.enable_sni |= has_name;
        if is_stricter {
            let algorithms = config.crypto_provider().signature_verification_algorithms;
            let rules = match replaced {
                Some(name) => self.listed.without_names().requiring(name.clone()),
                None => self.rules.clone(),
            };
            let rules = match options.required_name {
                Some(name) => rules.requiring(name.clone()),
                None => rules,
            };
            let verifier = PeerVerifier::new(rules, algorithms, true);
            config.dangerous().set_certificate_verifier(Arc::new(verifier));
            // Sessions are kept by the name that is sent: a resumed one is not known to be of another that is required.
            let requires_another = options.required_name.is_some_and(|name| Some(name) != wanted);
            if !has_name || requires_another {
                config.resumption = Resumption::disabled();
            }
        }
        Arc::new(config)
    }
}

fn is_address(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
}

/// rustls wants a name also when it sends none; it is then only the key of the session cache.
fn server_name(sni: Option<&str>) -> Result<ServerName<'static>, ContextError> {
    match sni {
        None => Ok(ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
        Some(name) => ServerName::try_from(name.to_owned()).map_err(|_| ContextError::Sni(name.to_owned())),
    }
}

/// Our certificate, whatever authorities the server hints at: so does Envoy.
#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for OneCertificate {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
