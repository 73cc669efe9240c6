//! What is known of an established TLS connection: version, suite, names and both certificates.
//!
//! Plain values for access logs, XFCC, RBAC and stats; names as Envoy prints them. Certificates are parsed once per
//! connection. Knows nothing of trust: `verify` judges, this only describes.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use outrigger_model::tls::SanKind;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, CommonState, HandshakeKind, NamedGroup, ProtocolVersion};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::distinguished_name::rfc2253;
use super::error::{SslCounter, VerifyFailure};
use crate::telemetry::workload::Principals;

/// An established TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: &'static str,
    /// OpenSSL's name of the cipher suite, such as `ECDHE-ECDSA-AES128-GCM-SHA256`.
    pub(crate) cipher: &'static str,
    /// Key exchange group, such as `X25519`; empty for a resumed TLS 1.2 session.
    pub(crate) group: &'static str,
    /// Negotiated protocol.
    pub(crate) alpn: Option<Vec<u8>>,
    /// Server name that the client sent.
    pub(crate) server_name: Option<Arc<str>>,
    /// The peer's certificate; a resumed session keeps that of the first handshake.
    pub(crate) peer: Option<Arc<CertificateDetails>>,
    /// Our own certificate, if there is one.
    pub(crate) local: Option<Arc<CertificateDetails>>,
    /// The handshake resumed an earlier session.
    pub(crate) resumed: bool,
}

impl TlsInfo {
    pub(super) fn new(
        state: &CommonState,
        server_name: Option<Arc<str>>,
        local: Option<Arc<CertificateDetails>>,
    ) -> Result<Self, VerifyFailure> {
        let peer = state
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(CertificateDetails::parse)
            .transpose()?;
        Ok(Self {
            version: version_name(state.protocol_version()),
            cipher: state
                .negotiated_cipher_suite()
                .map_or("", |suite| cipher_name(suite.suite())),
            group: state
                .negotiated_key_exchange_group()
                .map_or("", |group| group_name(group.name())),
            alpn: state.alpn_protocol().map(<[u8]>::to_vec),
            server_name,
            peer: peer.map(Arc::new),
            local,
            resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// What a successful handshake counts. Envoy: `SslSocket` `logHandshake`.
    pub(crate) fn counters(&self) -> impl Iterator<Item = SslCounter> {
        let resumed = self.resumed.then_some(SslCounter::SessionReused);
        let anonymous = self.peer.is_none().then_some(SslCounter::NoCertificate);
        std::iter::once(SslCounter::Handshake)
            .chain(resumed)
            .chain(anonymous)
    }
}

impl TlsInfo {
    /// Who both ends are, for metrics.
    pub(crate) fn principals(&self) -> Arc<Principals> {
        let first = |certificate: &Option<Arc<CertificateDetails>>| {
            let uri = certificate.as_ref()?.uri_sans().next()?;
            Some(uri.to_owned())
        };
        Principals::of(first(&self.peer).as_deref(), first(&self.local).as_deref())
    }
}

/// A certificate in the words of access logs and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateDetails {
    /// Subject alternative names in the certificate's order.
    pub(crate) sans: Vec<SubjectAltName>,
    /// RFC 2253; empty for Istio's workload certificates.
    pub(crate) subject: String,
    /// RFC 2253.
    pub(crate) issuer: String,
    /// Lower-case hex without leading zero bytes.
    pub(crate) serial_hex: String,
    /// SHA-256 of the DER encoding in lower-case hex: `Hash=` in XFCC.
    pub(crate) sha256_hex: String,
    /// Start of validity, seconds since 1970.
    pub(crate) not_before_unix_seconds: i64,
    /// End of validity, seconds since 1970.
    pub(crate) not_after_unix_seconds: i64,
    der: CertificateDer<'static>,
}

/// One subject alternative name, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubjectAltName {
    /// Its type.
    pub(crate) kind: SanKind,
    /// The name; IP addresses in their usual notation.
    pub(crate) text: String,
}

impl CertificateDetails {
    /// Reads a DER certificate.
    ///
    /// # Errors
    /// [`VerifyFailure::Malformed`] when it is not one.
    pub(super) fn parse(der: &CertificateDer<'_>) -> Result<Self, VerifyFailure> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| VerifyFailure::Malformed)?;
        if !rest.is_empty() {
            return Err(VerifyFailure::Malformed);
        }
        Ok(Self {
            sans: subject_alt_names(&certificate)?,
            subject: rfc2253(certificate.subject()),
            issuer: rfc2253(certificate.issuer()),
            serial_hex: serial_hex(certificate.raw_serial()),
            sha256_hex: hex(sha256(der).as_ref()),
            not_before_unix_seconds: certificate.validity().not_before.timestamp(),
            not_after_unix_seconds: certificate.validity().not_after.timestamp(),
            der: der.clone().into_owned(),
        })
    }

    /// URI names in order; the first is the SPIFFE id of a workload.
    pub(crate) fn uri_sans(&self) -> impl Iterator<Item = &str> {
        self.names(SanKind::Uri)
    }

    /// DNS names in order.
    pub(crate) fn dns_sans(&self) -> impl Iterator<Item = &str> {
        self.names(SanKind::Dns)
    }

    /// PEM, escaped as Envoy does for XFCC's `Cert=`. Made anew on each call.
    pub(crate) fn pem_urlencoded(&self) -> String {
        let body = base64::engine::general_purpose::STANDARD.encode(&self.der);
        let mut out = String::from("-----BEGIN%20CERTIFICATE-----%0A");
        for (index, byte) in body.bytes().enumerate() {
            if index > 0 && index % 64 == 0 {
                out.push_str("%0A");
            }
            match byte {
                b'+' => out.push_str("%2B"),
                b'/' => out.push_str("%2F"),
                b'=' => out.push_str("%3D"),
                plain => out.push(char::from(plain)),
            }
        }
        out.push_str("%0A-----END%20CERTIFICATE-----%0A");
        out
    }

    fn names(&self, kind: SanKind) -> impl Iterator<Item = &str> {
        self.sans
            .iter()
            .filter(move |san| san.kind == kind)
            .map(|san| san.text.as_str())
    }
}

fn subject_alt_names(certificate: &X509Certificate<'_>) -> Result<Vec<SubjectAltName>, VerifyFailure> {
    let mut names = Vec::new();
    // Not `subject_alternative_name()`: a doubled or unreadable extension must refuse the certificate, not hide the names.
    let extensions: Vec<_> = certificate
        .extensions()
        .iter()
        .filter(|extension| extension.oid == x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME)
        .collect();
    match extensions.as_slice() {
        [] => {}
        [extension] => match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(list) => {
                names.extend(list.general_names.iter().filter_map(subject_alt_name));
            }
            _ => return Err(VerifyFailure::Malformed),
        },
        _ => return Err(VerifyFailure::Malformed),
    }
    Ok(names)
}

fn subject_alt_name(name: &GeneralName<'_>) -> Option<SubjectAltName> {
    let (kind, text) = match name {
        GeneralName::URI(text) => (SanKind::Uri, (*text).to_owned()),
        GeneralName::DNSName(text) => (SanKind::Dns, (*text).to_owned()),
        GeneralName::RFC822Name(text) => (SanKind::Email, (*text).to_owned()),
        GeneralName::IPAddress(bytes) => (SanKind::Ip, ip_text(bytes)?),
        _ => return None,
    };
    Some(SubjectAltName { kind, text })
}

fn ip_text(bytes: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(octets).to_string());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(octets).to_string())
}

fn serial_hex(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    match bytes.get(zeros..) {
        None | Some([]) => "0".to_owned(),
        Some(significant) => hex(significant),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn sha256(bytes: &[u8]) -> impl AsRef<[u8]> {
    TLS13_AES_128_GCM_SHA256
        .tls13()
        .map(|suite| suite.common.hash_provider.hash(bytes))
        .expect("the suite is a TLS 1.3 suite by its name")
}

fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "",
    }
}

fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn certificate() -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(["a.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.serial_number = Some(rcgen::SerialNumber::from(vec![0x0f, 0xf1, 0x02]));
        params
            .subject_alt_names
            .push(rcgen::SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap()));
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn describes_a_certificate() {
        let details = CertificateDetails::parse(&certificate()).unwrap();
        let names: Vec<_> = details
            .sans
            .iter()
            .map(|san| (san.kind, san.text.as_str()))
            .collect();
        let expected = [
            (SanKind::Dns, "a.example"),
            (SanKind::Ip, "10.0.0.1"),
            (SanKind::Uri, "spiffe://td/ns/a/sa/b"),
        ];
        assert_eq!(names, expected);
        assert_eq!(details.serial_hex, "0ff102");
        assert_eq!(details.sha256_hex.len(), 64);
        assert!(details.not_before_unix_seconds < details.not_after_unix_seconds);
        let pem = percent_decoded(&details.pem_urlencoded());
        let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        assert_eq!(parsed.contents, details.der.as_ref());
    }

    fn percent_decoded(text: &str) -> String {
        let pairs = [
            ("%0A", "\n"),
            ("%20", " "),
            ("%2B", "+"),
            ("%2F", "/"),
            ("%3D", "="),
        ];
        pairs
            .iter()
            .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
    }

    #[test]
    fn serial_numbers_are_printed_as_envoy_does() {
        assert_eq!(serial_hex(&[0, 0xf1, 0xe2]), "f1e2");
        assert_eq!(serial_hex(&[1]), "01");
        assert_eq!(serial_hex(&[0]), "0");
        assert_eq!(serial_hex(&[]), "0");
    }

    #[test]
    fn sha256_is_the_known_one() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(sha256(b"").as_ref()), empty);
    }

    #[test]
    fn damaged_certificates_never_panic() {
        let good = certificate();
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..20_000 {
            let mut bytes = good.to_vec();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            let _ = CertificateDetails::parse(&CertificateDer::from(bytes));
        }
    }
}
