//! Protobuf to [`DownstreamTls`] and [`UpstreamTls`].
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    self as pb, common_tls_context as common, common_tls_context::ValidationContextType,
};

use super::{
    CertificateSource, CipherSuite, CommonTls, DownstreamTls, KeyExchangeGroup, TlsVersion, UpstreamTls,
    ValidationSource,
};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::scalar::Wrapped;
use crate::secret::{SecretRef, TlsCertificate, ValidationContext};

impl DownstreamTls {
    /// Converts a listener's side.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::DownstreamTlsContext) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::DownstreamTlsContext {
            supported { common_tls_context, require_client_certificate }
            partly { require_sni: "false only; true is refused: clients without SNI would be served" }
            unsupported {
                disable_stateful_session_resumption: "security", session_timeout: "security",
                full_scan_certs_on_sni_mismatch: "security", prefer_client_ciphers: "security",
                session_ticket_keys_type: "security",
            }
            refused { ocsp_staple_policy: "ignoring it would serve certificates without a staple" }
        });
        at.field("require_sni")
            .only_false(require_sni, "ignoring it would serve clients without SNI")?;
        let field = at.field("common_tls_context");
        let common = CommonTls::from_proto(&field, common_tls_context, TlsVersion::V1_3)?;
        if common.certificate.is_none() {
            return Err(field.reject(
                "a server needs a certificate: tls_certificates or tls_certificate_sds_secret_configs",
            ));
        }
        Ok(Self {
            common,
            require_client_certificate: require_client_certificate.value().unwrap_or(false),
        })
    }
}

impl UpstreamTls {
    /// Converts a cluster's side.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::UpstreamTlsContext) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::UpstreamTlsContext {
            supported { common_tls_context, sni, auto_host_sni, auto_sni_san_validation }
            unsupported { max_session_keys: "security", enforce_rsa_key_usage: "security" }
            never { allow_renegotiation: "rustls has none, and TLS 1.3 neither" }
        });
        let field = at.field("sni");
        // Source: tls.proto, `sni` max_bytes.
        if sni.len() > 255 {
            return Err(field.reject(format!("has {} bytes; 255 are allowed", sni.len())));
        }
        let common = CommonTls::from_proto(
            &at.field("common_tls_context"),
            common_tls_context,
            TlsVersion::V1_2,
        )?;
        if auto_sni_san_validation && common.validation.is_none() {
            let field = at.field("auto_sni_san_validation");
            return Err(field.reject("needs a validation context"));
        }
        Ok(Self {
            common,
            sni: (!sni.is_empty()).then_some(sni),
            sends_host_name: auto_host_sni,
            requires_sent_name: auto_sni_san_validation,
        })
    }
}

impl CommonTls {
    /// `default_max`: TLS 1.2 for clients, 1.3 for servers. Source: common.proto, `tls_maximum_protocol_version`.
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::CommonTlsContext>,
        default_max: TlsVersion,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => pb::CommonTlsContext {
            supported {
                tls_params, tls_certificates, tls_certificate_sds_secret_configs, alpn_protocols, validation_context_type,
            }
            unsupported { key_log: "security" }
            refused {
                tls_certificate_provider_instance: "without it there is no certificate",
                custom_tls_certificate_selector: "ignoring it would show another certificate",
                tls_certificate_certificate_provider: "without it there is no certificate",
                tls_certificate_certificate_provider_instance: "without it there is no certificate",
                custom_handshaker: "ignoring it would shake hands another way",
            }
        });
        let parameters = Parameters::from_proto(&at.field("tls_params"), tls_params, default_max)?;
        for (index, protocol) in alpn_protocols.iter().enumerate() {
            // RFC 7301 §3.1: 1 to 255 bytes.
            if !(1..=255).contains(&protocol.len()) {
                return Err(at
                    .field("alpn_protocols")
                    .index(index)
                    .reject("must have 1 to 255 bytes"));
            }
        }
        Ok(Self {
            min_version: parameters.min,
            max_version: parameters.max,
            cipher_suites: parameters.cipher_suites,
            groups: parameters.groups,
            alpn_protocols,
            certificate: certificate(at, tls_certificates, tls_certificate_sds_secret_configs)?,
            validation: ValidationSource::from_proto(at, validation_context_type)?,
        })
    }
}

fn certificate(
    at: &FieldPath<'_>,
    inline: Vec<pb::TlsCertificate>,
    sds: Vec<pb::SdsSecretConfig>,
) -> Result<Option<CertificateSource>, Rejection> {
    if inline.len() + sds.len() > 1 {
        return Err(at.reject("has more than one certificate, and only one is supported"));
    }
    if let Some(proto) = inline.into_iter().next() {
        let certificate = TlsCertificate::from_proto(&at.field("tls_certificates").index(0), proto)?;
        return Ok(Some(CertificateSource::Inline(certificate)));
    }
    let Some(proto) = sds.into_iter().next() else {
        return Ok(None);
    };
    let field = at.field("tls_certificate_sds_secret_configs").index(0);
    Ok(Some(CertificateSource::Sds(SecretRef::from_proto(
        &field, proto,
    )?)))
}

impl ValidationSource {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<ValidationContextType>,
    ) -> Result<Option<Self>, Rejection> {
        choices!(common::ValidationContextType {
            supported { ValidationContext, ValidationContextSdsSecretConfig, CombinedValidationContext }
            refused {
                ValidationContextCertificateProvider: "ignoring it would trust other roots",
                ValidationContextCertificateProviderInstance: "ignoring it would trust other roots",
            }
        });
        let Some(proto) = proto else { return Ok(None) };
        let (sds, context) = match proto {
            ValidationContextType::ValidationContext(proto) => {
                let field = at.field("validation_context");
                let context = ValidationContext::from_proto(&field, proto)?;
                if context.trusted_ca.is_none() && !context.match_subject_alt_names.is_empty() {
                    // Names in a certificate that nobody vouches for prove nothing; Envoy refuses this as well.
                    return Err(field.reject("judges subject alternative names without trusted_ca"));
                }
                (None, context)
            }
            ValidationContextType::ValidationContextSdsSecretConfig(proto) => {
                let field = at.field("validation_context_sds_secret_config");
                (
                    Some(SecretRef::from_proto(&field, proto)?),
                    ValidationContext::default(),
                )
            }
            ValidationContextType::CombinedValidationContext(proto) => {
                let at = at.field("combined_validation_context");
                verdicts!(at, proto => common::CombinedCertificateValidationContext {
                    supported { default_validation_context, validation_context_sds_secret_config }
                    refused {
                        validation_context_certificate_provider: "ignoring it would trust other roots",
                        validation_context_certificate_provider_instance: "ignoring it would trust other roots",
                    }
                });
                let field = at.field("default_validation_context");
                let context =
                    ValidationContext::from_proto(&field, field.required(default_validation_context)?)?;
                let field = at.field("validation_context_sds_secret_config");
                let sds =
                    SecretRef::from_proto(&field, field.required(validation_context_sds_secret_config)?)?;
                (Some(sds), context)
            }
            ValidationContextType::ValidationContextCertificateProvider(_)
            | ValidationContextType::ValidationContextCertificateProviderInstance(_) => {
                return Err(
                    at.reject("certificate providers are not supported; write combined_validation_context")
                );
            }
        };
        Ok(Some(Self { sds, context }))
    }
}

/// What `TlsParameters` says.
struct Parameters {
    min: TlsVersion,
    max: TlsVersion,
    cipher_suites: Vec<CipherSuite>,
    groups: Vec<KeyExchangeGroup>,
}

/// OpenSSL's and IANA's names.
const CIPHER_SUITES: [(&str, CipherSuite); 12] = [
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::EcdheEcdsaAes256GcmSha384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::EcdheRsaAes256GcmSha384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::EcdheEcdsaAes128GcmSha256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::EcdheRsaAes128GcmSha256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::EcdheEcdsaChacha20Poly1305,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::EcdheRsaChacha20Poly1305,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::EcdheEcdsaAes256GcmSha384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::EcdheRsaAes256GcmSha384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::EcdheEcdsaAes128GcmSha256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::EcdheRsaAes128GcmSha256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::EcdheEcdsaChacha20Poly1305,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::EcdheRsaChacha20Poly1305,
    ),
];

const GROUPS: [(&str, KeyExchangeGroup); 4] = [
    ("X25519", KeyExchangeGroup::X25519),
    ("P-256", KeyExchangeGroup::P256),
    ("P-384", KeyExchangeGroup::P384),
    ("X25519MLKEM768", KeyExchangeGroup::X25519MlKem768),
];

impl Parameters {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::TlsParameters>,
        default_max: TlsVersion,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => pb::TlsParameters {
            supported { tls_minimum_protocol_version, tls_maximum_protocol_version, cipher_suites, ecdh_curves }
            refused {
                signature_algorithms: "ignoring it would accept other signatures",
                compliance_policies: "ignoring it would accept weaker handshakes",
            }
        });
        let min = minimum(
            &at.field("tls_minimum_protocol_version"),
            tls_minimum_protocol_version,
        )?;
        let max = maximum(
            &at.field("tls_maximum_protocol_version"),
            tls_maximum_protocol_version,
        )?
        .unwrap_or(default_max);
        if min > max {
            return Err(at
                .field("tls_maximum_protocol_version")
                .reject("is below tls_minimum_protocol_version"));
        }
        // Envoy takes `[A|B]` for suites of equal preference; an order among equals contradicts nobody.
        let suites = cipher_suites.iter().flat_map(|entry| {
            entry
                .trim_start_matches('[')
                .trim_end_matches(']')
                .split('|')
                .map(str::trim)
        });
        Ok(Self {
            min,
            max,
            cipher_suites: known(&at.field("cipher_suites"), suites, &CIPHER_SUITES)?,
            groups: known(
                &at.field("ecdh_curves"),
                ecdh_curves.iter().map(String::as_str),
                &GROUPS,
            )?,
        })
    }
}

/// Those names that the TLS library has. The others leave the offer and are listed: what they admit is not admitted.
///
/// # Errors
/// Some are named, and none is left.
fn known<'n, T: Copy + PartialEq>(
    at: &FieldPath<'_>,
    names: impl Iterator<Item = &'n str>,
    table: &[(&str, T)],
) -> Result<Vec<T>, Rejection> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match table.iter().find(|(known, _)| *known == name) {
            Some((_, item)) if found.contains(item) => (),
            Some((_, item)) => found.push(*item),
            None => missing.push(name),
        }
    }
    if let (true, Some(name)) = (found.is_empty(), missing.first()) {
        let reason = format!("names nothing that exists here: {}", missing.join(", "));
        return Err(at.reject_name(reason, name, table.iter().map(|(known, _)| *known)));
    }
    for name in missing {
        at.problem(format!("{name:?} does not exist here and is not offered"));
    }
    Ok(found)
}

/// Source: common.proto, `tls_minimum_protocol_version`: TLS 1.2 when unset.
fn minimum(at: &FieldPath<'_>, number: i32) -> Result<TlsVersion, Rejection> {
    use pb::tls_parameters::TlsProtocol;
    Ok(match at.enumeration(number)? {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv12 => TlsVersion::V1_2,
        TlsProtocol::TlSv13 => TlsVersion::V1_3,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            at.problem("versions below TLS 1.2 do not exist here and are not offered");
            TlsVersion::V1_2
        }
    })
}

/// `None`: not written.
fn maximum(at: &FieldPath<'_>, number: i32) -> Result<Option<TlsVersion>, Rejection> {
    use pb::tls_parameters::TlsProtocol;
    match at.enumeration(number)? {
        TlsProtocol::TlsAuto => Ok(None),
        TlsProtocol::TlSv13 => Ok(Some(TlsVersion::V1_3)),
        TlsProtocol::TlSv12 => Ok(Some(TlsVersion::V1_2)),
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => Err(at.reject("only TLS 1.2 and 1.3 exist here")),
    }
}
