//! Secrets and where they come from. Source: envoy/extensions/transport_sockets/tls/v3/secret.proto, common.proto.
mod from_proto;

use std::fmt;

use crate::bootstrap::ConfigSource;
use crate::tls::SanMatchers;

/// A secret by name and the server that has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretRef {
    /// `default`, `ROOTCA`, `file-cert:…` (contract §1.11).
    pub name: String,
    /// Who serves it; `None`: a static secret of the bootstrap.
    pub source: Option<ConfigSource>,
}

/// One named secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: SecretKind,
}

/// The kinds of secret a sidecar gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretKind {
    /// A key pair.
    Certificate(TlsCertificate),
    /// Trusted roots and rules.
    Validation(ValidationContext),
}

/// A certificate chain and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsCertificate {
    /// PEM certificates, leaf first.
    pub chain_pem: DataSource,
    /// PEM private key.
    pub key_pem: DataSource,
}

impl fmt::Debug for TlsCertificate {
    /// Never prints the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCertificate")
            .field("chain_pem", &self.chain_pem)
            .field("key_pem", &"[redacted]")
            .finish()
    }
}

/// How a peer's certificate is judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ValidationContext {
    /// PEM roots; `None` here and in SDS: the chain is not verified.
    pub trusted_ca: Option<DataSource>,
    /// At least one must match a SAN of the peer; empty: any.
    pub match_subject_alt_names: SanMatchers,
    /// PEM revocation lists.
    pub crl: Option<DataSource>,
}

/// Bytes in the configuration or in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// The bytes themselves.
    Inline(Vec<u8>),
    /// Read from this path when the configuration is published, and again whenever the file changes.
    File(std::path::PathBuf),
}
