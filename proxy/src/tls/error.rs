//! Why a context could not be built and why a handshake did not end well.
//!
//! Every handshake failure is classified once, here: what it counts ([`SslCounter`]), what the access log says in Envoy's
//! words ([`HandshakeError::transport_failure_reason`]) and, as `Display`, what a person should read in the proxy's log.
//! Codes and texts of the reasons are those that Envoy 1.40 (BoringSSL) printed for the same peers.

use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError, PeerIncompatible};

use super::secret::SecretError;

/// Why a TLS context cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    /// A secret holds something unusable.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Envoy refuses this too: without a CA anybody could write the name into a certificate.
    #[error(
        "subject alternative names are to be matched without a trusted ca: set trusted_ca, or wait for its secret"
    )]
    SanWithoutCa,
    /// A server has to show a certificate.
    #[error(
        "a server context needs a certificate: set tls_certificates or tls_certificate_sds_secret_configs"
    )]
    NoServerCertificate,
    /// Nothing lies between the lowest and the highest version.
    #[error("tls_minimum_protocol_version is above tls_maximum_protocol_version")]
    NoVersion,
    /// The name cannot stand in a ClientHello.
    #[error("sni `{0}` is not a host name")]
    Sni(String),
    /// An ALPN name cannot stand in a ClientHello.
    #[error("alpn protocol `{0}` is empty or longer than 255 bytes")]
    Alpn(String),
    /// A subject alternative name expression does not compile.
    #[error("regular expression of a subject alternative name: {0}")]
    Regex(#[from] Box<regex::Error>),
    /// The TLS library refuses the combination.
    #[error("tls library refuses the configuration: {0}")]
    Library(#[from] rustls::Error),
}

/// Counters under `ssl.` of a listener or a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SslCounter {
    /// Handshakes that succeeded.
    Handshake,
    /// Of these, resumed ones.
    SessionReused,
    /// Of these, without a certificate of the peer.
    NoCertificate,
    /// Handshakes that broke for any other reason than the peer's certificate.
    ConnectionError,
    /// The chain was refused.
    FailVerifyError,
    /// A required certificate did not come.
    FailVerifyNoCert,
    /// No subject alternative name matched.
    FailVerifySan,
}

impl SslCounter {
    /// Name below the listener's or the cluster's prefix.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "ssl.handshake",
            Self::SessionReused => "ssl.session_reused",
            Self::NoCertificate => "ssl.no_certificate",
            Self::ConnectionError => "ssl.connection_error",
            Self::FailVerifyError => "ssl.fail_verify_error",
            Self::FailVerifyNoCert => "ssl.fail_verify_no_cert",
            Self::FailVerifySan => "ssl.fail_verify_san",
        }
    }
}

/// Why the peer's certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyFailure {
    /// The chain is good, but the peer is somebody else.
    #[error("none of its names is accepted here, it has [{}]", presented.join(", "))]
    San {
        /// The names in the certificate, in its order.
        presented: Vec<String>,
    },
    /// Past the end of validity.
    #[error("it, or a certificate it depends on, has expired")]
    Expired,
    /// Before the start of validity.
    #[error("it, or a certificate it depends on, is not yet valid (is a clock wrong?)")]
    NotYetValid,
    /// No way to a trusted root.
    #[error("its issuer is not among the trusted roots")]
    UnknownIssuer,
    /// Extended key usage or key usage forbids this role.
    #[error("it is not meant for this use (client or server authentication)")]
    Purpose,
    /// Listed in a CRL.
    #[error("it, or a certificate it depends on, was revoked")]
    Revoked,
    /// CRLs are configured, but none of this issuer.
    #[error("no revocation list of its issuer is configured")]
    NoCrl,
    /// The CRL's nextUpdate has passed.
    #[error("the revocation list of its issuer has expired: provide a new one")]
    CrlExpired,
    /// Not a readable certificate.
    #[error("it cannot be parsed")]
    Malformed,
    /// Anything rarer, in webpki's words.
    #[error("{0}")]
    Other(String),
}

impl VerifyFailure {
    /// What Envoy writes after `verify cert failed: `.
    fn envoy_text(&self) -> String {
        let x509 =
            |text: &str| format!("X509_verify_cert: certificate verification error at depth 0: {text}");
        let crl = |text: &str| {
            x509(&format!(
                "certificate revocation check against provided CRLs failed: {text}"
            ))
        };
        match self {
            Self::San { presented } => {
                format!("SAN matcher, certificate SANs are [{}]", presented.join(", "))
            }
            Self::Expired => x509("certificate has expired"),
            Self::NotYetValid => x509("certificate is not yet valid"),
            Self::UnknownIssuer => x509("unable to get local issuer certificate"),
            Self::Purpose => x509("unsupported certificate purpose"),
            Self::Revoked => crl("certificate revoked"),
            Self::NoCrl => crl("unable to get certificate CRL"),
            Self::CrlExpired => crl("CRL has expired"),
            Self::Malformed => x509("certificate cannot be parsed"),
            Self::Other(text) => x509(text),
        }
    }

    /// As an error of a rustls verifier. The choice decides which alert the peer gets; they are Envoy's.
    pub(super) fn into_rustls(self) -> rustls::Error {
        let error = match self {
            Self::Expired => CertificateError::Expired,
            Self::NotYetValid => CertificateError::NotValidYet,
            Self::UnknownIssuer => CertificateError::UnknownIssuer,
            Self::Purpose => CertificateError::InvalidPurpose,
            Self::Revoked => CertificateError::Revoked,
            Self::NoCrl => CertificateError::UnknownRevocationStatus,
            Self::CrlExpired => CertificateError::ExpiredRevocationList,
            Self::Malformed => CertificateError::BadEncoding,
            Self::San { .. } | Self::Other(_) => {
                CertificateError::Other(OtherError(std::sync::Arc::new(self)))
            }
        };
        rustls::Error::InvalidCertificate(error)
    }

    fn from_rustls(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::Purpose
            }
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus => Self::NoCrl,
            CertificateError::ExpiredRevocationList => Self::CrlExpired,
            CertificateError::BadEncoding => Self::Malformed,
            CertificateError::Other(other) => match other.0.downcast_ref::<Self>() {
                Some(failure) => failure.clone(),
                None => Self::Other(other.to_string()),
            },
            // Also a handshake signature that the certificate's key did not make.
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<webpki::Error> for VerifyFailure {
    fn from(error: webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::CertExpired { .. } | E::InvalidCertValidity => Self::Expired,
            E::CertNotValidYet { .. } => Self::NotYetValid,
            // A root of the same name with another key did not sign it: to a person that is an unknown issuer.
            E::UnknownIssuer | E::InvalidSignatureForPublicKey => Self::UnknownIssuer,
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Self::Purpose,
            E::CertRevoked => Self::Revoked,
            E::UnknownRevocationStatus => Self::NoCrl,
            E::CrlExpired { .. } => Self::CrlExpired,
            E::BadDer | E::BadDerTime | E::TrailingData(_) => Self::Malformed,
            other => Self::Other(other.to_string()),
        }
    }
}

/// Why a handshake did not end in a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// We refuse the peer's certificate.
    #[error("certificate of the peer refused: {0}")]
    Verify(VerifyFailure),
    /// The peer sent none.
    #[error("peer did not present the certificate that is required here")]
    NoCertificate,
    /// The peer gave up, often because it refuses our certificate.
    #[error("peer ended the handshake with the alert {}", alert_name(*.0).unwrap_or("unknown"))]
    Alert(u8),
    /// The first bytes are no TLS record.
    #[error("peer does not speak tls (plain text on a tls port, or the reverse)")]
    NotTls,
    /// Versions do not overlap.
    #[error("peer and proxy have no tls version in common")]
    NoVersion,
    /// Cipher suites do not overlap.
    #[error("peer and proxy have no cipher suite in common")]
    NoCipher,
    /// The connection ended in the middle, without a word.
    #[error("peer closed the connection during the handshake")]
    Closed,
    /// The connection broke.
    #[error("connection broke during the handshake: {0}")]
    Io(io::Error),
    /// The peer violates the protocol, or needs what this side does not have.
    #[error("tls: {0}")]
    Protocol(rustls::Error),
}

impl HandshakeError {
    /// Classifies what the TLS stream returned, also after the handshake: with TLS 1.3 a client hears only from its first
    /// read that the server refuses its certificate.
    pub(crate) fn from_io(error: io::Error) -> Self {
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(tls) => Self::from_rustls(tls),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Io(error),
        }
    }

    fn from_rustls(error: &rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::InvalidCertificate(refusal) => Self::Verify(VerifyFailure::from_rustls(refusal)),
            E::NoCertificatesPresented => Self::NoCertificate,
            E::AlertReceived(alert) => Self::Alert(u8::from(*alert)),
            E::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            E::PeerIncompatible(reason) => match reason {
                PeerIncompatible::NoCipherSuitesInCommon => Self::NoCipher,
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic => Self::NoVersion,
                _ => Self::Protocol(error.clone()),
            },
            other => Self::Protocol(other.clone()),
        }
    }

    /// What the failure counts; `None` where Envoy counts nothing under `ssl.`.
    pub(crate) fn counter(&self) -> Option<SslCounter> {
        match self {
            Self::Verify(VerifyFailure::San { .. }) => Some(SslCounter::FailVerifySan),
            Self::Verify(_) => Some(SslCounter::FailVerifyError),
            Self::NoCertificate => Some(SslCounter::FailVerifyNoCert),
            Self::Closed | Self::Io(_) => None,
            _ => Some(SslCounter::ConnectionError),
        }
    }

    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%` and `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`; `None` (logged as `-`) for a peer
    /// that just closes. Spaces are as in Envoy's error; the access log and the response code details write `_` for them.
    pub(crate) fn transport_failure_reason(&self) -> Option<String> {
        let ssl = |code: u32, text: &str| {
            format!(
                "TLS_error:|{}:SSL routines:OPENSSL_internal:{text}:TLS_error_end",
                SSL_LIBRARY + code
            )
        };
        Some(match self {
            Self::Verify(failure) => ssl(
                125,
                &format!(
                    "CERTIFICATE_VERIFY_FAILED:verify cert failed: {}",
                    failure.envoy_text()
                ),
            ),
            Self::NoCertificate => ssl(
                192,
                "PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did not provide required client certificate",
            ),
            Self::Alert(alert) => match boringssl_alert(*alert) {
                Some(name) => ssl(1000 + u32::from(*alert), name),
                None => ssl(1000 + u32::from(*alert), "UNKNOWN_ALERT_TYPE"),
            },
            Self::NotTls => ssl(247, "WRONG_VERSION_NUMBER"),
            Self::NoVersion => ssl(240, "UNSUPPORTED_PROTOCOL"),
            Self::NoCipher => ssl(184, "NO_SHARED_CIPHER"),
            Self::Closed => return None,
            Self::Io(error) => system_reason(error),
            Self::Protocol(error) => format!("TLS_error:{error}:TLS_error_end"),
        })
    }
}

/// BoringSSL's error codes: library 16 (SSL) and 2 (system) in the top byte.
const SSL_LIBRARY: u32 = 16 << 24;
const SYSTEM_LIBRARY: u32 = 2 << 24;

fn system_reason(error: &io::Error) -> String {
    match error.raw_os_error().and_then(|number| u32::try_from(number).ok()) {
        Some(number) => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            format!(
                "TLS_error:|{}:system library:OPENSSL_internal:{text}:TLS_error_end",
                SYSTEM_LIBRARY + number
            )
        }
        None => format!("TLS_error:{error}:TLS_error_end"),
    }
}

/// The alert's name in RFC 8446 §6.
fn alert_name(alert: u8) -> Option<&'static str> {
    AlertDescription::from(alert).as_str()
}

/// The alert's name in BoringSSL's error texts.
fn boringssl_alert(alert: u8) -> Option<&'static str> {
    Some(match alert {
        0 => "SSLV3_ALERT_CLOSE_NOTIFY",
        10 => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        20 => "SSLV3_ALERT_BAD_RECORD_MAC",
        21 => "TLSV1_ALERT_DECRYPTION_FAILED",
        22 => "TLSV1_ALERT_RECORD_OVERFLOW",
        30 => "SSLV3_ALERT_DECOMPRESSION_FAILURE",
        40 => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        41 => "SSLV3_ALERT_NO_CERTIFICATE",
        42 => "SSLV3_ALERT_BAD_CERTIFICATE",
        43 => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        44 => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        45 => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        46 => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        47 => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        48 => "TLSV1_ALERT_UNKNOWN_CA",
        49 => "TLSV1_ALERT_ACCESS_DENIED",
        50 => "TLSV1_ALERT_DECODE_ERROR",
        51 => "TLSV1_ALERT_DECRYPT_ERROR",
        60 => "TLSV1_ALERT_EXPORT_RESTRICTION",
        70 => "TLSV1_ALERT_PROTOCOL_VERSION",
        71 => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        80 => "TLSV1_ALERT_INTERNAL_ERROR",
        86 => "TLSV1_ALERT_INAPPROPRIATE_FALLBACK",
        90 => "TLSV1_ALERT_USER_CANCELLED",
        100 => "TLSV1_ALERT_NO_RENEGOTIATION",
        110 => "TLSV1_ALERT_UNSUPPORTED_EXTENSION",
        111 => "TLSV1_ALERT_CERTIFICATE_UNOBTAINABLE",
        112 => "TLSV1_ALERT_UNRECOGNIZED_NAME",
        113 => "TLSV1_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE",
        114 => "TLSV1_ALERT_BAD_CERTIFICATE_HASH_VALUE",
        115 => "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY",
        116 => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        120 => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        _ => return None,
    })
}
