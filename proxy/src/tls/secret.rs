//! PEM secrets turned into keys, roots and revocation lists.
//!
//! Runs on the control thread, once per secret version. Errors name the secret and what is wrong with it, never its bytes.
//! An expired or not yet valid certificate of our own is loaded, as Envoy does: peers refuse it, and rotation replaces it.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use outrigger_model::secret::{DataSource, TlsCertificate};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, InconsistentKeys};
use webpki::{CertRevocationList, OwnedCertRevocationList};

use super::info::CertificateDetails;

/// The roots of every public authority are a quarter of a megabyte.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Why a secret cannot be used. Trying again helps only with other bytes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The file cannot be read.
    #[error("secret `{secret}`: read {path}: {source}")]
    Read {
        secret: String,
        path: String,
        source: std::io::Error,
    },
    /// The bytes are no PEM.
    #[error("secret `{secret}`: {part} is not valid pem: {reason}")]
    Pem {
        secret: String,
        part: &'static str,
        reason: String,
    },
    /// No such section in the PEM.
    #[error("secret `{secret}`: {part} holds no {wanted} in pem")]
    Missing {
        secret: String,
        part: &'static str,
        wanted: &'static str,
    },
    /// A section that cannot be decoded.
    #[error("secret `{secret}`: {part} cannot be decoded: {reason}")]
    Malformed {
        secret: String,
        part: &'static str,
        reason: String,
    },
    /// The key is of a kind that cannot sign here.
    #[error(
        "secret `{secret}`: private key is neither rsa, ecdsa (p-256, p-384, p-521) nor ed25519, or is damaged"
    )]
    KeyType { secret: String },
    /// Certificate and key are not a pair.
    #[error("secret `{secret}`: private key does not belong to the first certificate of the chain")]
    KeyMismatch { secret: String },
}

/// A certificate chain with its key, ready to sign.
#[derive(Debug)]
pub(crate) struct CertifiedMaterial {
    pub(super) key: Arc<CertifiedKey>,
    /// The leaf, for access logs, XFCC `By=` and the admin's `/certs`.
    pub(crate) details: Arc<CertificateDetails>,
}

impl CertifiedMaterial {
    /// Reads what the model names, files included. `secret` is the name for errors.
    ///
    /// # Errors
    /// As [`CertifiedMaterial::from_pem`], and [`SecretError::Read`].
    pub(crate) fn load(secret: &str, certificate: &TlsCertificate) -> Result<Self, SecretError> {
        Self::from_pem(
            secret,
            &read(secret, &certificate.chain_pem)?,
            &read(secret, &certificate.key_pem)?,
        )
    }

    /// PEM chain, leaf first, and PEM key: PKCS#8, PKCS#1 (RSA) or SEC 1 (EC).
    ///
    /// # Errors
    /// By variant of [`SecretError`]; the key is checked against the leaf.
    pub(crate) fn from_pem(secret: &str, chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, SecretError> {
        let chain = certificates(secret, "certificate chain", chain_pem)?;
        let details = match chain.first() {
            Some(leaf) => CertificateDetails::parse(leaf).map_err(|failure| SecretError::Malformed {
                secret: secret.to_owned(),
                part: "certificate chain",
                reason: failure.to_string(),
            })?,
            None => return Err(missing(secret, "certificate chain", "certificate")),
        };
        let signer =
            any_supported_type(&private_key(secret, key_pem)?).map_err(|_| SecretError::KeyType {
                secret: secret.to_owned(),
            })?;
        let key = CertifiedKey::new(chain, signer);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(_) => {
                return Err(SecretError::KeyMismatch {
                    secret: secret.to_owned(),
                });
            }
        }
        Ok(Self {
            key: Arc::new(key),
            details: Arc::new(details),
        })
    }
}

/// Trusted certificates.
#[derive(Debug)]
pub(crate) struct Roots {
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    /// The certificates themselves: a peer may show one of them as its own.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// Subjects, for the CertificateRequest message.
    pub(super) subjects: Vec<DistinguishedName>,
    /// Certificates in the PEM that cannot be trust anchors; to be listed as a problem by the caller.
    pub(crate) skipped: usize,
}

impl Roots {
    /// Reads a PEM bundle; text around the sections is passed over.
    ///
    /// # Errors
    /// [`SecretError::Pem`], [`SecretError::Missing`]; [`SecretError::Malformed`] when no certificate is usable.
    pub(crate) fn from_pem(secret: &str, pem: &[u8]) -> Result<Self, SecretError> {
        let all = certificates(secret, "trusted ca", pem)?;
        let total = all.len();
        let mut roots = Self {
            anchors: Vec::new(),
            certificates: Vec::new(),
            subjects: Vec::new(),
            skipped: 0,
        };
        for certificate in all {
            if let Ok(anchor) = webpki::anchor_from_trusted_cert(&certificate).map(|anchor| anchor.to_owned())
            {
                roots
                    .subjects
                    .push(DistinguishedName::in_sequence(&anchor.subject));
                roots.anchors.push(anchor);
                roots.certificates.push(certificate);
            }
        }
        roots.skipped = total - roots.anchors.len();
        if roots.anchors.is_empty() {
            return Err(SecretError::Malformed {
                secret: secret.to_owned(),
                part: "trusted ca",
                reason: format!("none of its {total} certificates can be a trust anchor"),
            });
        }
        Ok(roots)
    }
}

/// Reads PEM revocation lists.
///
/// # Errors
/// [`SecretError::Pem`], [`SecretError::Missing`], [`SecretError::Malformed`]: a list that cannot be read refuses them all,
/// because leaving one out would admit revoked peers.
pub(super) fn revocation_lists(
    secret: &str,
    pem: &[u8],
) -> Result<Vec<CertRevocationList<'static>>, SecretError> {
    let part = "crl";
    let ders: Vec<CertificateRevocationListDer<'static>> = sections(secret, part, pem)?;
    if ders.is_empty() {
        return Err(missing(secret, part, "revocation list"));
    }
    ders.iter()
        .map(|der| match OwnedCertRevocationList::from_der(der) {
            Ok(list) => Ok(list.into()),
            Err(error) => Err(SecretError::Malformed {
                secret: secret.to_owned(),
                part,
                reason: error.to_string(),
            }),
        })
        .collect()
}

/// The bytes of a source. Blocks on files: control thread only.
///
/// # Errors
/// [`SecretError::Read`].
pub(crate) fn read<'a>(secret: &str, source: &'a DataSource) -> Result<Cow<'a, [u8]>, SecretError> {
    match source {
        DataSource::Inline(bytes) => Ok(Cow::Borrowed(bytes)),
        DataSource::File(path) => match read_file(path) {
            Ok(bytes) => Ok(Cow::Owned(bytes)),
            Err(source) => Err(SecretError::Read {
                secret: secret.to_owned(),
                path: path.display().to_string(),
                source,
            }),
        },
    }
}

/// Opening a pipe would wait for a writer, and a device need not have an end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        let reason = format!("larger than {MAX_FILE_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    fs::read(path)
}

fn certificates(
    secret: &str,
    part: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, SecretError> {
    let found = sections(secret, part, pem)?;
    if found.is_empty() {
        Err(missing(secret, part, "certificate"))
    } else {
        Ok(found)
    }
}

fn private_key(secret: &str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, SecretError> {
    let part = "private key";
    let mut found: Vec<PrivateKeyDer<'static>> = sections(secret, part, pem)?;
    if found.is_empty() {
        let encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
        let wanted = if encrypted {
            "unencrypted private key"
        } else {
            "private key"
        };
        return Err(missing(secret, part, wanted));
    }
    Ok(found.swap_remove(0))
}

fn sections<T: PemObject>(secret: &str, part: &'static str, pem: &[u8]) -> Result<Vec<T>, SecretError> {
    T::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| SecretError::Pem {
            secret: secret.to_owned(),
            part,
            reason: error.to_string(),
        })
}

fn missing(secret: &str, part: &'static str, wanted: &'static str) -> SecretError {
    SecretError::Missing {
        secret: secret.to_owned(),
        part,
        wanted,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = rcgen::CertificateParams::new(["a.example".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        (certificate.pem(), key)
    }

    #[track_caller]
    fn check_error(chain: &str, key: &str, expected: &str) {
        let error = CertifiedMaterial::from_pem("default", chain.as_bytes(), key.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    /// PKCS#8 is an envelope around the older format: for RSA and P-256 it can be taken off.
    fn old_format(label: &str, key: &rcgen::KeyPair) -> String {
        use base64::Engine as _;
        let der = key.serialize_der();
        let (_, envelope) = x509_parser::der_parser::parse_der(&der).unwrap();
        let inner = envelope.as_sequence().unwrap()[2].as_slice().unwrap();
        let body = base64::engine::general_purpose::STANDARD.encode(inner);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn loads_rsa_and_ec_keys_in_every_format() {
        for (algorithm, label) in [
            (&rcgen::PKCS_RSA_SHA256, "RSA PRIVATE KEY"),
            (&rcgen::PKCS_ECDSA_P256_SHA256, "EC PRIVATE KEY"),
        ] {
            let (chain, key) = pair(algorithm);
            for key_pem in [key.serialize_pem(), old_format(label, &key)] {
                let loaded =
                    CertifiedMaterial::from_pem("default", chain.as_bytes(), key_pem.as_bytes()).unwrap();
                assert_eq!(loaded.details.dns_sans().collect::<Vec<_>>(), ["a.example"]);
            }
        }
    }

    #[test]
    fn says_which_secret_is_wrong_and_how() {
        let (chain, key) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let key = key.serialize_pem();
        let (_, other) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        check_error(
            &chain,
            &other.serialize_pem(),
            "secret `default`: private key does not belong to the first certificate of the chain",
        );
        check_error(
            "",
            &key,
            "secret `default`: certificate chain holds no certificate in pem",
        );
        check_error(
            &chain,
            "",
            "secret `default`: private key holds no private key in pem",
        );
        check_error(
            &chain,
            &chain,
            "secret `default`: private key holds no private key in pem",
        );
        let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        check_error(
            &chain,
            sealed,
            "secret `default`: private key holds no unencrypted private key in pem",
        );
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let expected = "secret `default`: certificate chain cannot be decoded: it cannot be parsed";
        check_error(damaged, &key, expected);
        let cut = chain.split_at(chain.len() / 2).0;
        let error = CertifiedMaterial::from_pem("default", cut.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(matches!(error, SecretError::Pem { .. }), "{error}");
        let damaged = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let error = CertifiedMaterial::from_pem("default", chain.as_bytes(), damaged.as_bytes()).unwrap_err();
        assert!(matches!(error, SecretError::KeyType { .. }), "{error}");
        let missing = TlsCertificate {
            chain_pem: DataSource::File("/nonexistent/cert-chain.pem".into()),
            key_pem: DataSource::Inline(Vec::new()),
        };
        let error = CertifiedMaterial::load("file-cert:x", &missing).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("secret `file-cert:x`: read /nonexistent/cert-chain.pem: "),
            "{error}"
        );
    }

    #[test]
    fn debug_output_holds_no_key() {
        let (chain, key) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let loaded =
            CertifiedMaterial::from_pem("d", chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        assert!(!format!("{:?}", loaded.key.key).contains(&format!("{:?}", key.serialize_der())));
    }

    #[test]
    fn roots_pass_over_what_is_around_and_refuse_emptiness() {
        let (one, _) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (two, _) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let bundle = format!("# roots\n{one}\n\nissued by hand\n{two}{damaged}");
        let roots = Roots::from_pem("ROOTCA", bundle.as_bytes()).unwrap();
        assert_eq!((roots.anchors.len(), roots.skipped), (2, 1));
        for pem in ["", "no pem at all", damaged] {
            Roots::from_pem("ROOTCA", pem.as_bytes()).unwrap_err();
        }
        assert!(revocation_lists("ROOTCA", one.as_bytes()).is_err());
    }
}
