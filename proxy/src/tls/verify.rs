//! Judges the peer's certificate: chain to a trusted root, use, validity, revocation, then names.
//!
//! The host name is never looked at: under Istio a peer is who its SPIFFE id says, and only what
//! `match_subject_alt_names` lists is asked for. Without a trusted CA nothing is verified but the handshake signature (proof
//! of the key). Order and outcome as Envoy's default_validator.cc, checked against Envoy 1.40.

use std::sync::Arc;

use outrigger_model::matcher::{Pattern, StringMatcher};
use outrigger_model::secret::ValidationContext;
use outrigger_model::tls::{SanKind, SanMatcher};
use regex::Regex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::{ContextError, VerifyFailure};
use super::info::{CertificateDetails, SubjectAltName};
use super::secret::{self, Roots};

/// How a peer's certificate is judged; compiled once, shared by every connection of its contexts.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerRules {
    trust: Option<Arc<Trust>>,
    sans: Arc<[NameRule]>,
    /// One of the names has to be for each of these, too.
    required: Arc<[Arc<str>]>,
}

#[derive(Debug)]
struct Trust {
    roots: Arc<Roots>,
    /// Empty: revocation is not checked.
    crls: Vec<CertRevocationList<'static>>,
}

impl PeerRules {
    /// Compiles a validation context. `secret` names it in errors. Reads files: control thread only.
    ///
    /// # Errors
    /// [`ContextError::Secret`], [`ContextError::Regex`]; [`ContextError::SanWithoutCa`] as Envoy refuses.
    pub(crate) fn build(secret: &str, context: &ValidationContext) -> Result<Self, ContextError> {
        let ValidationContext {
            trusted_ca,
            match_subject_alt_names,
            crl,
        } = context;
        let sans: Arc<[NameRule]> = match_subject_alt_names
            .iter()
            .map(NameRule::compile)
            .collect::<Result<_, _>>()?;
        let Some(trusted_ca) = trusted_ca else {
            return if sans.is_empty() {
                Ok(Self::default())
            } else {
                Err(ContextError::SanWithoutCa)
            };
        };
        let roots = Arc::new(Roots::from_pem(secret, &secret::read(secret, trusted_ca)?)?);
        let crls = match crl {
            Some(source) => secret::revocation_lists(secret, &secret::read(secret, source)?)?,
            None => Vec::new(),
        };
        Ok(Self {
            trust: Some(Arc::new(Trust { roots, crls })),
            sans,
            required: Arc::default(),
        })
    }

    /// The same trust with these names.
    ///
    /// # Errors
    /// [`ContextError::Regex`]; [`ContextError::SanWithoutCa`] as Envoy refuses.
    pub(crate) fn with_names<'a>(
        &self,
        names: impl Iterator<Item = &'a SanMatcher>,
    ) -> Result<Self, ContextError> {
        let sans: Arc<[NameRule]> = names.map(NameRule::compile).collect::<Result<_, _>>()?;
        if self.trust.is_none() && !sans.is_empty() {
            return Err(ContextError::SanWithoutCa);
        }
        Ok(Self {
            trust: self.trust.clone(),
            sans,
            required: Arc::default(),
        })
    }

    /// The same, and the certificate must be for this DNS name or address besides.
    pub(super) fn requiring(&self, name: Arc<str>) -> Self {
        Self {
            required: self.required.iter().cloned().chain([name]).collect(),
            ..self.clone()
        }
    }

    /// The same without the names that the context lists.
    pub(super) fn without_names(&self) -> Self {
        Self {
            sans: Arc::default(),
            ..self.clone()
        }
    }

    /// Whether anything is verified at all.
    pub(crate) fn verifies(&self) -> bool {
        self.trust.is_some()
    }

    /// Certificates of the trusted CA secret that cannot be used as roots; to be listed as a problem.
    pub(crate) fn skipped_roots(&self) -> usize {
        self.trust.as_ref().map_or(0, |trust| trust.roots.skipped)
    }

    fn judge(
        &self,
        role: PeerRole,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), VerifyFailure> {
        let details = CertificateDetails::parse(leaf)?;
        let Some(trust) = &self.trust else {
            return self.match_required(&details.sans);
        };
        check_key_usage(leaf)?;
        if trust.pins(leaf) {
            check_pinned(role, leaf, &details, now)?;
        } else {
            trust.verify_chain(role, leaf, intermediates, algorithms, now)?;
        }
        self.match_required(&details.sans)?;
        self.match_names(&details.sans)
    }

    /// Source: Envoy `DefaultCertValidator::verifySubjectAltName`.
    fn match_required(&self, names: &[SubjectAltName]) -> Result<(), VerifyFailure> {
        let is_for = |required: &str, name: &SubjectAltName| match name.kind {
            SanKind::Dns => dns_name_matches(required, &name.text),
            _ => name.text == *required,
        };
        let is_met = |required: &Arc<str>| names.iter().any(|name| is_for(required, name));
        if self.required.iter().all(is_met) {
            return Ok(());
        }
        Err(VerifyFailure::San {
            presented: names.iter().map(|name| name.text.clone()).collect(),
        })
    }

    fn match_names(&self, names: &[SubjectAltName]) -> Result<(), VerifyFailure> {
        let accepted = |name: &SubjectAltName| self.sans.iter().any(|san| san.matches(name));
        if self.sans.is_empty() || names.iter().any(accepted) {
            return Ok(());
        }
        Err(VerifyFailure::San {
            presented: names.iter().map(|name| name.text.clone()).collect(),
        })
    }
}

/// The static part of a combined validation context with what a secret brings: repeated fields are joined, others replaced
/// where the secret sets them (Envoy: `Message::MergeFrom`).
pub(crate) fn combine(fixed: &ValidationContext, dynamic: &ValidationContext) -> ValidationContext {
    let mut sans = fixed.match_subject_alt_names.clone();
    sans.extend(dynamic.match_subject_alt_names.iter().cloned());
    ValidationContext {
        trusted_ca: dynamic.trusted_ca.clone().or_else(|| fixed.trusted_ca.clone()),
        match_subject_alt_names: sans,
        crl: dynamic.crl.clone().or_else(|| fixed.crl.clone()),
    }
}

/// What the peer does in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerRole {
    Client,
    Server,
}

impl PeerRole {
    /// Extended key usage, where the certificate has that extension; `anyExtendedKeyUsage` does not do, as in Envoy.
    fn usage(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        }
    }
}

impl Trust {
    /// The peer shows one of the trusted certificates themselves. Not with CRLs: they would have to cover it.
    fn pins(&self, leaf: &CertificateDer<'_>) -> bool {
        self.crls.is_empty()
            && self
                .roots
                .certificates
                .iter()
                .any(|root| root.as_ref() == leaf.as_ref())
    }

    fn verify_chain(
        &self,
        role: PeerRole,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), VerifyFailure> {
        let leaf = EndEntityCert::try_from(leaf)?;
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        // Every certificate of the chain needs a current list, as Envoy without only_verify_leaf_cert_crl.
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        leaf.verify_for_usage(
            algorithms.all,
            &self.roots.anchors,
            intermediates,
            now,
            role.usage(),
            revocation,
            None,
        )?;
        Ok(())
    }
}

/// Every suite here signs with the leaf's key. webpki does not look at this extension; BoringSSL does.
fn check_key_usage(leaf: &CertificateDer<'_>) -> Result<(), VerifyFailure> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| VerifyFailure::Malformed)?;
    match certificate.key_usage() {
        Ok(None) => Ok(()),
        Ok(Some(usage)) if usage.value.digital_signature() => Ok(()),
        Ok(Some(_)) => Err(VerifyFailure::Purpose),
        Err(_) => Err(VerifyFailure::Malformed),
    }
}

/// What is left to check of a certificate that is trusted itself.
fn check_pinned(
    role: PeerRole,
    leaf: &CertificateDer<'_>,
    details: &CertificateDetails,
    now: UnixTime,
) -> Result<(), VerifyFailure> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| VerifyFailure::Malformed)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < details.not_before_unix_seconds {
        return Err(VerifyFailure::NotYetValid);
    }
    if now > details.not_after_unix_seconds {
        return Err(VerifyFailure::Expired);
    }
    match certificate.extended_key_usage() {
        Ok(None) => Ok(()),
        Ok(Some(usage)) => {
            let meant = match role {
                PeerRole::Client => usage.value.client_auth,
                PeerRole::Server => usage.value.server_auth,
            };
            if meant {
                Ok(())
            } else {
                Err(VerifyFailure::Purpose)
            }
        }
        Err(_) => Err(VerifyFailure::Malformed),
    }
}

/// One matcher for names of a certificate.
#[derive(Debug)]
struct NameRule {
    kind: Option<SanKind>,
    text: CompiledText,
}

impl NameRule {
    fn compile(matcher: &SanMatcher) -> Result<Self, ContextError> {
        let SanMatcher { kind, name } = matcher;
        Ok(Self {
            kind: *kind,
            text: CompiledText::compile(name)?,
        })
    }

    fn matches(&self, name: &SubjectAltName) -> bool {
        self.kind.is_none_or(|kind| kind == name.kind) && self.text.matches(name)
    }
}

/// A string matcher ready to compare.
#[derive(Debug)]
enum CompiledText {
    Exact { text: String, ignore_case: bool },
    Prefix { text: String, ignore_case: bool },
    Suffix { text: String, ignore_case: bool },
    Contains { text: String, ignore_case: bool },
    Regex(Regex),
}

impl CompiledText {
    fn compile(matcher: &StringMatcher) -> Result<Self, ContextError> {
        let ignore_case = matcher.ignore_case;
        // Lower-cased here so that a comparison folds one side only.
        let fold = |text: &String| {
            if ignore_case {
                text.to_ascii_lowercase()
            } else {
                text.clone()
            }
        };
        Ok(match &matcher.pattern {
            Pattern::Exact(text) => Self::Exact {
                text: fold(text),
                ignore_case,
            },
            Pattern::Prefix(text) => Self::Prefix {
                text: fold(text),
                ignore_case,
            },
            Pattern::Suffix(text) => Self::Suffix {
                text: fold(text),
                ignore_case,
            },
            Pattern::Contains(text) => Self::Contains {
                text: fold(text),
                ignore_case,
            },
            Pattern::Regex(text) => Self::Regex(Regex::new(&format!(r"\A(?:{text})\z")).map_err(Box::new)?),
        })
    }

    fn matches(&self, name: &SubjectAltName) -> bool {
        let folded = |ignore_case: bool| {
            if ignore_case {
                name.text.to_ascii_lowercase()
            } else {
                name.text.clone()
            }
        };
        match self {
            Self::Exact { text, .. } if name.kind == SanKind::Dns => dns_name_matches(text, &name.text),
            Self::Exact { text, ignore_case } => folded(*ignore_case) == *text,
            Self::Prefix { text, ignore_case } => folded(*ignore_case).starts_with(text.as_str()),
            Self::Suffix { text, ignore_case } => folded(*ignore_case).ends_with(text.as_str()),
            Self::Contains { text, ignore_case } => folded(*ignore_case).contains(text.as_str()),
            Self::Regex(regex) => regex.is_match(&name.text),
        }
    }
}

/// Whether a DNS name of a certificate, which may have one `*` in its first label, covers `wanted`; case is ignored.
/// Envoy compares exact matchers with DNS names this way (`Utility::dnsNameMatch`; RFC 6125 §6.4.3).
fn dns_name_matches(wanted: &str, presented: &str) -> bool {
    if wanted.eq_ignore_ascii_case(presented) {
        return true;
    }
    let (wanted, presented) = (wanted.to_ascii_lowercase(), presented.to_ascii_lowercase());
    let (Some((wanted_label, wanted_rest)), Some((label, rest))) =
        (wanted.split_once('.'), presented.split_once('.'))
    else {
        return false;
    };
    let Some((before, after)) = label.split_once('*') else {
        return false;
    };
    let one_star = !after.contains('*') && !rest.contains('*');
    let covered = wanted_label.len() > before.len() + after.len()
        && wanted_label.starts_with(before)
        && wanted_label.ends_with(after);
    one_star && !label.starts_with("xn--") && wanted_rest == rest && covered
}

/// The rules in the shape that rustls asks, for either role.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    rules: PeerRules,
    algorithms: WebPkiSupportedAlgorithms,
    certificate_required: bool,
}

impl PeerVerifier {
    pub(super) fn new(
        rules: PeerRules,
        algorithms: WebPkiSupportedAlgorithms,
        certificate_required: bool,
    ) -> Self {
        // A name that has to match is a certificate that has to come, whatever the flag says (Envoy: verify_mode).
        let certificate_required = certificate_required || !rules.sans.is_empty();
        Self {
            rules,
            algorithms,
            certificate_required,
        }
    }

    fn judge(
        &self,
        role: PeerRole,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        self.rules
            .judge(role, leaf, intermediates, &self.algorithms, now)
            .map_err(VerifyFailure::into_rustls)
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(PeerRole::Server, leaf, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    /// Without a trusted CA no certificate is asked for, even where the listener requires one: so does Envoy.
    fn offer_client_auth(&self) -> bool {
        self.rules.verifies()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.rules.verifies() && self.certificate_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.rules
            .trust
            .as_ref()
            .map_or(&[], |trust| &trust.roots.subjects)
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(PeerRole::Client, leaf, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
