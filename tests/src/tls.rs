//! A TLS client that believes every server, and says what it was shown.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use outrigger_demo::ca::KeyCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::netns::Namespace;

/// Longest wait for anything from the server.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its own certificate, DER.
    pub certificate: Vec<u8>,
    /// Of its response.
    pub status: u16,
}

/// `GET /` over a new TLS connection without resumption, as `client` if there is one. `alpn` is offered unless empty.
///
/// # Errors
/// No connection, no handshake, or no response; a refusal of the client's certificate is one of those.
pub fn get(
    namespace: &Namespace,
    address: SocketAddr,
    client: Option<&KeyCert>,
    alpn: &str,
) -> io::Result<Answer> {
    let connection = connection(client, alpn).map_err(io::Error::other)?;
    namespace.run(move || {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(connection, socket);
        stream.write_all(b"GET / HTTP/1.1\r\nhost: bill-service:9999\r\nconnection: close\r\n\r\n")?;
        let mut response = Vec::new();
        // Not every server says goodbye.
        let end = stream.read_to_end(&mut response);
        let text = String::from_utf8_lossy(&response);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let shown = stream.conn.peer_certificates().and_then(<[_]>::first);
        match (status, shown) {
            (Some(status), Some(shown)) => Ok(Answer {
                certificate: shown.to_vec(),
                status,
            }),
            _ => Err(io::Error::other(format!("no response: {end:?} {text:?}"))),
        }
    })
}

/// The first certificate of a PEM chain, DER.
pub fn leaf(pem: &str) -> Vec<u8> {
    let first = CertificateDer::pem_slice_iter(pem.as_bytes()).next();
    first.expect("a chain").expect("PEM").to_vec()
}

fn connection(client: Option<&KeyCert>, alpn: &str) -> Result<ClientConnection, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believer(provider)));
    let mut config = match client {
        None => config.with_no_client_auth(),
        Some(pair) => {
            let chain = CertificateDer::pem_slice_iter(pair.chain.as_bytes());
            let chain: Result<Vec<_>, _> = chain.collect();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
            config.with_client_auth_cert(chain.expect("PEM"), key.expect("PEM"))?
        }
    };
    if !alpn.is_empty() {
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    }
    let name = ServerName::try_from("server.example").expect("a name");
    ClientConnection::new(Arc::new(config), name)
}

/// Checks that the server has the key of what it shows, and nothing else.
#[derive(Debug)]
struct Believer(Arc<CryptoProvider>);

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
