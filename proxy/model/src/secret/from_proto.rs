//! Protobuf to [`Secret`], [`SecretRef`] and [`DataSource`].
use std::path::PathBuf;

use envoy_types::pb::envoy::config::core::v3::{self as core, data_source};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{self as pb, secret};

use super::{DataSource, Secret, SecretKind, SecretRef, TlsCertificate, ValidationContext};
use crate::bootstrap::ConfigSource;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::matcher::StringMatcher;
use crate::tls::{SanKind, SanMatcher, SanMatchers};

impl SecretRef {
    /// Converts a reference.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::SdsSecretConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::SdsSecretConfig { supported { name, sds_config } });
        let name = at.field("name").not_empty(name)?;
        let source = match sds_config {
            Some(proto) => Some(ConfigSource::from_proto(&at.field("sds_config"), Some(proto))?),
            None => None,
        };
        Ok(Self { name, source })
    }
}

impl Secret {
    /// Converts a secret of SDS or of the bootstrap.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::Secret) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Secret { supported { name, r#type } });
        choices!(secret::Type {
            supported { TlsCertificate, ValidationContext }
            refused {
                SessionTicketKeys: "session ticket keys from outside have no behaviour here",
                GenericSecret: "nothing here asks for one",
            }
        });
        let kind = match r#type {
            Some(secret::Type::TlsCertificate(proto)) => {
                SecretKind::Certificate(TlsCertificate::from_proto(&at.field("tls_certificate"), proto)?)
            }
            Some(secret::Type::ValidationContext(proto)) => SecretKind::Validation(
                ValidationContext::from_proto(&at.field("validation_context"), proto)?,
            ),
            Some(secret::Type::SessionTicketKeys(_)) => {
                return Err(at.field("session_ticket_keys").reject("is not supported"));
            }
            Some(secret::Type::GenericSecret(_)) => {
                return Err(at.field("generic_secret").reject("is not supported"));
            }
            None => return Err(at.reject("has neither tls_certificate nor validation_context")),
        };
        Ok(Self { name, kind })
    }
}

impl TlsCertificate {
    /// Converts a key pair.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::TlsCertificate) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::TlsCertificate {
            supported { certificate_chain, private_key }
            inert { watched_directory: "every change is seen without it: the files are looked at once a second, through symbolic links" }
            unsupported { ocsp_staple: "security", signed_certificate_timestamp: "security", tls_params: "security" }
            refused {
                pkcs12: "without it there is no key pair",
                private_key_provider: "without it there is no private key",
                password: "without it the private key cannot be read",
            }
        });
        let source = |field, proto| {
            let field = at.field(field);
            field.required(DataSource::from_proto(&field, proto)?)
        };
        Ok(Self {
            chain_pem: source("certificate_chain", certificate_chain)?,
            key_pem: source("private_key", private_key)?,
        })
    }
}

impl ValidationContext {
    /// Converts the rules for a peer's certificate.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        proto: pb::CertificateValidationContext,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::CertificateValidationContext {
            supported { trusted_ca, match_subject_alt_names, match_typed_subject_alt_names, crl }
            inert { watched_directory: "every change is seen without it: the files are looked at once a second, through symbolic links" }
            unsupported {
                allow_expired_certificate: "security", trust_chain_verification: "security",
                only_verify_leaf_cert_crl: "security", suppress_client_ca_list: "security",
            }
            refused {
                ca_certificate_provider_instance: "ignoring it would trust other roots",
                system_root_certs: "ignoring it would trust other roots",
                verify_certificate_spki: "ignoring it would accept other certificates",
                verify_certificate_hash: "ignoring it would accept other certificates",
                require_signed_certificate_timestamp: "ignoring it would accept other certificates",
                custom_validator_config: "ignoring it would accept other certificates",
                max_verify_depth: "ignoring it would accept longer chains",
            }
        });
        // Envoy does not read the deprecated list when the typed one is there.
        let sans = match match_typed_subject_alt_names.is_empty() {
            true => StringMatcher::list(at.field("match_subject_alt_names"), match_subject_alt_names)?
                .into_iter()
                .map(|name| SanMatcher { kind: None, name })
                .collect(),
            false => typed_sans(
                at.field("match_typed_subject_alt_names"),
                match_typed_subject_alt_names,
            )?,
        };
        Ok(Self {
            trusted_ca: DataSource::from_proto(&at.field("trusted_ca"), trusted_ca)?,
            match_subject_alt_names: sans,
            crl: DataSource::from_proto(&at.field("crl"), crl)?,
        })
    }
}

fn typed_sans(at: FieldPath<'_>, protos: Vec<pb::SubjectAltNameMatcher>) -> Result<SanMatchers, Rejection> {
    let convert = |(index, proto)| typed_san(&at.index(index), proto);
    protos.into_iter().enumerate().map(convert).collect()
}

fn typed_san(at: &FieldPath<'_>, proto: pb::SubjectAltNameMatcher) -> Result<SanMatcher, Rejection> {
    use pb::subject_alt_name_matcher::SanType;
    verdicts!(at, proto => pb::SubjectAltNameMatcher {
        supported { matcher }
        partly { san_type: "but OTHER_NAME, which is refused: ignoring it would accept other certificates" }
        refused { oid: "ignoring it would accept other certificates" }
    });
    let kind = match at.field("san_type").enumeration::<SanType>(san_type)? {
        SanType::Uri => SanKind::Uri,
        SanType::Dns => SanKind::Dns,
        SanType::IpAddress => SanKind::Ip,
        SanType::Email => SanKind::Email,
        kind @ (SanType::Unspecified | SanType::OtherName) => {
            let known = "write URI, DNS, IP_ADDRESS or EMAIL";
            return Err(at
                .field("san_type")
                .reject(format!("{} has no behaviour here; {known}", kind.as_str_name())));
        }
    };
    let name = StringMatcher::from_proto(&at.field("matcher"), at.field("matcher").required(matcher)?)?;
    Ok(SanMatcher {
        kind: Some(kind),
        name,
    })
}

impl DataSource {
    /// Converts a source; `None` when it is not there.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<core::DataSource>,
    ) -> Result<Option<Self>, Rejection> {
        let Some(proto) = proto else { return Ok(None) };
        verdicts!(at, proto => core::DataSource {
            supported { specifier }
            inert { watched_directory: "every change is seen without it: the file is looked at once a second, through symbolic links" }
        });
        choices!(data_source::Specifier {
            supported { Filename, InlineBytes, InlineString }
            refused { EnvironmentVariable: "a conversion must not depend on the environment" }
        });
        match specifier {
            Some(data_source::Specifier::Filename(path)) => Ok(Some(Self::File(PathBuf::from(
                at.field("filename").not_empty(path)?,
            )))),
            Some(data_source::Specifier::InlineBytes(bytes)) => Ok(Some(Self::Inline(bytes))),
            Some(data_source::Specifier::InlineString(text)) => Ok(Some(Self::Inline(text.into_bytes()))),
            Some(data_source::Specifier::EnvironmentVariable(_)) => Err(at
                .field("environment_variable")
                .reject("is not supported; write filename or inline_string")),
            None => Err(at.reject("is empty: write filename, inline_bytes or inline_string")),
        }
    }
}
