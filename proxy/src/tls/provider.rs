//! The cryptography that a context offers: suites and groups in Envoy's order of preference.
//!
//! Envoy's defaults (common.proto `TlsParameters`), with AES-128 first also for TLS 1.3 as BoringSSL on machines with AES
//! instructions; what rustls lacks is left out, by the model.

use std::sync::Arc;

use outrigger_model::tls::{CipherSuite, CommonTls, KeyExchangeGroup, TlsVersion};
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::error::ContextError;

const DEFAULT_TLS12_SUITES: [CipherSuite; 6] = [
    CipherSuite::EcdheEcdsaAes128GcmSha256,
    CipherSuite::EcdheEcdsaChacha20Poly1305,
    CipherSuite::EcdheRsaAes128GcmSha256,
    CipherSuite::EcdheRsaChacha20Poly1305,
    CipherSuite::EcdheEcdsaAes256GcmSha384,
    CipherSuite::EcdheRsaAes256GcmSha384,
];
const DEFAULT_GROUPS: [KeyExchangeGroup; 2] = [KeyExchangeGroup::X25519, KeyExchangeGroup::P256];

/// Suites and groups of one context. TLS 1.3 suites cannot be configured, as in Envoy.
pub(super) fn provider(config: &CommonTls) -> Arc<CryptoProvider> {
    let tls12 = or_default(&config.cipher_suites, &DEFAULT_TLS12_SUITES);
    let tls13 = [
        suite::TLS13_AES_128_GCM_SHA256,
        suite::TLS13_AES_256_GCM_SHA384,
        suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider {
        cipher_suites: tls13
            .into_iter()
            .chain(tls12.iter().map(|name| tls12_suite(*name)))
            .collect(),
        kx_groups: or_default(&config.groups, &DEFAULT_GROUPS)
            .iter()
            .map(|name| group(*name))
            .collect(),
        ..default_provider()
    })
}

/// The versions between the lowest and the highest.
pub(super) fn versions(config: &CommonTls) -> Result<Vec<&'static SupportedProtocolVersion>, ContextError> {
    match (config.min_version, config.max_version) {
        (TlsVersion::V1_2, TlsVersion::V1_2) => Ok(vec![&TLS12]),
        (TlsVersion::V1_2, TlsVersion::V1_3) => Ok(vec![&TLS13, &TLS12]),
        (TlsVersion::V1_3, TlsVersion::V1_3) => Ok(vec![&TLS13]),
        (TlsVersion::V1_3, TlsVersion::V1_2) => Err(ContextError::NoVersion),
    }
}

/// ALPN names as bytes.
///
/// # Errors
/// [`ContextError::Alpn`] for a name that the protocol cannot carry.
pub(super) fn alpn(config: &CommonTls) -> Result<Vec<Vec<u8>>, ContextError> {
    let carried = |name: &String| match name.len() {
        1..=255 => Ok(name.as_bytes().to_vec()),
        _ => Err(ContextError::Alpn(name.clone())),
    };
    config.alpn_protocols.iter().map(carried).collect()
}

fn or_default<'a, T>(configured: &'a [T], default: &'a [T]) -> &'a [T] {
    if configured.is_empty() {
        default
    } else {
        configured
    }
}

fn tls12_suite(name: CipherSuite) -> SupportedCipherSuite {
    match name {
        CipherSuite::EcdheEcdsaAes256GcmSha384 => suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheRsaAes256GcmSha384 => suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheEcdsaAes128GcmSha256 => suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheRsaAes128GcmSha256 => suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheEcdsaChacha20Poly1305 => suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdheRsaChacha20Poly1305 => suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn group(name: KeyExchangeGroup) -> &'static dyn SupportedKxGroup {
    match name {
        KeyExchangeGroup::X25519 => kx_group::X25519,
        KeyExchangeGroup::P256 => kx_group::SECP256R1,
        KeyExchangeGroup::P384 => kx_group::SECP384R1,
        KeyExchangeGroup::X25519MlKem768 => kx_group::X25519MLKEM768,
    }
}
