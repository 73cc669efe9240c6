//! The secrets that a TLS context names or has written in it, and what contexts have in common. Pure.
use outrigger_model::secret::{DataSource, SecretKind, SecretRef, ValidationContext};
use outrigger_model::tls::{CertificateSource, CommonTls, ValidationSource};

use super::super::wishes::ByServer;

/// What clusters with the same secrets have in common: no names of peers, no ALPN, no suites.
pub(super) fn shared_part(common: &CommonTls) -> CommonTls {
    let CommonTls {
        min_version,
        max_version,
        cipher_suites: _,
        groups: _,
        alpn_protocols: _,
        certificate,
        validation,
    } = common;
    let validation = validation.as_ref().map(|validation| ValidationSource {
        sds: validation.sds.clone(),
        context: ValidationContext {
            match_subject_alt_names: Vec::new(),
            ..validation.context.clone()
        },
    });
    CommonTls {
        min_version: *min_version,
        max_version: *max_version,
        cipher_suites: Vec::new(),
        groups: Vec::new(),
        alpn_protocols: Vec::new(),
        certificate: certificate.clone(),
        validation,
    }
}

/// `shared` is the shared part of `common`; allocates nothing, unlike making it.
pub(super) fn is_alike(shared: &CommonTls, common: &CommonTls) -> bool {
    let is_alike = |one: &ValidationSource, other: &ValidationSource| {
        let ValidationContext {
            trusted_ca,
            match_subject_alt_names: _,
            crl,
        } = &one.context;
        one.sds == other.sds && *trusted_ca == other.context.trusted_ca && *crl == other.context.crl
    };
    shared.certificate == common.certificate
        && match (&shared.validation, &common.validation) {
            (None, None) => true,
            (Some(one), Some(other)) => is_alike(one, other),
            _ => false,
        }
}

/// A private key is written in the TLS context itself.
pub(in crate::config) fn holds_key(common: &CommonTls) -> bool {
    let Some(CertificateSource::Inline(pair)) = &common.certificate else {
        return false;
    };
    matches!(pair.key_pem, DataSource::Inline(_))
}

/// The secrets a TLS context refers to.
pub(super) fn names(common: &CommonTls) -> impl Iterator<Item = &SecretRef> {
    let certificate = match &common.certificate {
        Some(CertificateSource::Sds(secret)) => Some(secret),
        _ => None,
    };
    let validation = common
        .validation
        .as_ref()
        .and_then(|validation| validation.sds.as_ref());
    certificate.into_iter().chain(validation)
}

/// What a TLS context has of its own.
pub(super) fn written(common: &CommonTls) -> impl Iterator<Item = SecretKind> {
    let certificate = match &common.certificate {
        Some(CertificateSource::Inline(pair)) => Some(SecretKind::Certificate(pair.clone())),
        _ => None,
    };
    let validation = common.validation.as_ref();
    let validation = validation.map(|validation| SecretKind::Validation(validation.context.clone()));
    certificate.into_iter().chain(validation)
}

/// The secrets wanted from each server.
pub(in crate::config) type Wanted = ByServer;

/// Adds the secrets of a TLS context; those of the bootstrap are asked of nobody.
pub(in crate::config) fn want(common: &CommonTls, wanted: &mut Wanted) {
    want_each(names(common), wanted);
}

/// As [`want`].
pub(in crate::config) fn want_each<'a>(names: impl Iterator<Item = &'a SecretRef>, wanted: &mut Wanted) {
    for secret in names {
        if let Some(source) = &secret.source {
            let names = wanted.entry(source.server.clone()).or_default();
            names.insert(secret.name.clone());
        }
    }
}
