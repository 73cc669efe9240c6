//! TLS contexts. Source: envoy/extensions/transport_sockets/tls/v3/{tls,common}.proto.
mod from_proto;

use crate::matcher::StringMatcher;
use crate::secret::{SecretRef, TlsCertificate, ValidationContext};

/// What both sides of a TLS connection share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommonTls {
    /// Lowest version offered or accepted.
    pub min_version: TlsVersion,
    /// Highest version offered or accepted.
    pub max_version: TlsVersion,
    /// TLS 1.2 cipher suites in order of preference, those that the TLS library has; empty: its default.
    pub cipher_suites: Vec<CipherSuite>,
    /// Key exchange groups in order of preference; empty: X25519 then P-256.
    pub groups: Vec<KeyExchangeGroup>,
    /// ALPN protocols in order of preference.
    pub alpn_protocols: Vec<String>,
    /// This side's certificate.
    pub certificate: Option<CertificateSource>,
    /// How the peer's certificate is judged; `None`: it is not verified.
    pub validation: Option<ValidationSource>,
}

/// The two versions that exist here; TLS 1.0 and 1.1 are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// TLS 1.2 suites that rustls implements; other configured suites leave the offer and are listed as problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, non_camel_case_types)]
pub enum CipherSuite {
    EcdheEcdsaAes256GcmSha384,
    EcdheRsaAes256GcmSha384,
    EcdheEcdsaAes128GcmSha256,
    EcdheRsaAes128GcmSha256,
    EcdheEcdsaChacha20Poly1305,
    EcdheRsaChacha20Poly1305,
}

/// Key exchange groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KeyExchangeGroup {
    X25519,
    P256,
    P384,
    X25519MlKem768,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// A named secret.
    Sds(SecretRef),
    /// Written in the configuration.
    Inline(TlsCertificate),
}

/// Where the rules for the peer's certificate come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationSource {
    /// Trusted roots by name; `None`: those of `context`.
    pub sds: Option<SecretRef>,
    /// Static rules; SDS adds the roots (combined_validation_context: SDS overrides what it sets).
    pub context: ValidationContext,
}

/// A listener's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownstreamTls {
    /// The shared part.
    pub common: CommonTls,
    /// The client must present a certificate.
    pub require_client_certificate: bool,
}

/// A cluster's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The shared part. `alpn_protocols` is what a request's `istio.alpn` override replaces.
    pub common: CommonTls,
    /// SNI sent verbatim (may hold `_` and `|`-free Istio keys); `None`: no SNI.
    pub sni: Option<String>,
    /// The name of a host that has one takes the place of `sni`.
    pub sends_host_name: bool,
    /// The server's certificate must be for the name that was sent, in place of the names that validation lists.
    pub requires_sent_name: bool,
}

/// Subject alternative names the peer must show: one of them has to match.
pub type SanMatchers = Vec<SanMatcher>;

/// A name that a certificate may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanMatcher {
    /// Only names of this kind are looked at; `None`: of every kind that there is here (the deprecated, untyped list).
    pub kind: Option<SanKind>,
    /// The name. An exact DNS name also matches a wildcard of the certificate.
    pub name: StringMatcher,
}

/// Kinds of name. Source: common.proto `SubjectAltNameMatcher.SanType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanKind {
    /// SPIFFE ids are these.
    Uri,
    /// A host name or `*.` pattern.
    Dns,
    /// An IP address.
    Ip,
    /// An e-mail address.
    Email,
}
