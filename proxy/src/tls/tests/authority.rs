//! Certificates as istiod issues them, for the tests of `tls`.

use outrigger_model::matcher::{Pattern, StringMatcher};
use outrigger_model::secret::{DataSource, ValidationContext};
use outrigger_model::tls::{CommonTls, DownstreamTls, SanMatcher, TlsVersion, UpstreamTls};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

use crate::tls::secret::CertifiedMaterial;
use crate::tls::verify::PeerRules;

pub(super) const BILL: &str = "spiffe://cluster.local/ns/default/sa/bill-service";
pub(super) const FRONT: &str = "spiffe://cluster.local/ns/default/sa/front";
pub(super) const BILL_SNI: &str = "outbound_.9999_._.bill-service.default.svc.cluster.local";

/// A root that signs workload certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "cluster.local");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub(super) fn issue(&self, leaf: &Leaf) -> Pair {
        let algorithm = if leaf.rsa {
            &PKCS_RSA_SHA256
        } else {
            &PKCS_ECDSA_P256_SHA256
        };
        let key = KeyPair::generate_for(algorithm).unwrap();
        let chain_pem = leaf.params().signed_by(&key, &self.issuer).unwrap().pem();
        Pair {
            chain_pem,
            key_pem: key.serialize_pem(),
        }
    }

    pub(super) fn crl(&self, revoked: &[u64], next_update_year: i32) -> String {
        CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(next_update_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: date_time_ymd(2021, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .unwrap()
        .pem()
        .unwrap()
    }

    pub(super) fn trusts(&self, sans: &[Pattern]) -> ValidationContext {
        ValidationContext {
            trusted_ca: Some(DataSource::Inline(self.pem.clone().into_bytes())),
            match_subject_alt_names: sans
                .iter()
                .map(|pattern| SanMatcher {
                    kind: None,
                    name: StringMatcher {
                        pattern: pattern.clone(),
                        ignore_case: false,
                    },
                })
                .collect(),
            crl: None,
        }
    }
}

/// What to write into a workload certificate.
#[derive(Clone)]
pub(super) struct Leaf {
    pub(super) sans: Vec<SanType>,
    pub(super) rsa: bool,
    pub(super) years: (i32, i32),
    pub(super) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(super) key_usages: Vec<KeyUsagePurpose>,
    pub(super) subject: Option<(DnType, &'static str)>,
    pub(super) serial: u64,
}

impl Leaf {
    /// As Istio: one URI name, no subject, both uses.
    pub(super) fn spiffe(id: &str) -> Self {
        Self {
            sans: vec![SanType::URI(id.try_into().unwrap())],
            rsa: false,
            years: (2020, 2100),
            usages: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            key_usages: vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyEncipherment,
            ],
            subject: None,
            serial: 0xab,
        }
    }

    pub(super) fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some((kind, value)) = &self.subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names.clone_from(&self.sans);
        params.extended_key_usages.clone_from(&self.usages);
        params.key_usages.clone_from(&self.key_usages);
        params.not_before = date_time_ymd(self.years.0, 1, 1);
        params.not_after = date_time_ymd(self.years.1, 1, 1);
        params.serial_number = Some(SerialNumber::from(self.serial));
        params.use_authority_key_identifier_extension = true;
        params
    }
}

/// A certificate and its key, PEM.
pub(super) struct Pair {
    pub(super) chain_pem: String,
    pub(super) key_pem: String,
}

impl Pair {
    pub(super) fn material(&self) -> CertifiedMaterial {
        CertifiedMaterial::from_pem("default", self.chain_pem.as_bytes(), self.key_pem.as_bytes()).unwrap()
    }
}

pub(super) fn rules(context: &ValidationContext) -> PeerRules {
    PeerRules::build("ROOTCA", context).unwrap()
}

/// Istio's TLS parameters with this ALPN list.
pub(super) fn common(alpn: &[&str]) -> CommonTls {
    CommonTls {
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        cipher_suites: Vec::new(),
        groups: Vec::new(),
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        certificate: None,
        validation: None,
    }
}

pub(super) fn downstream() -> DownstreamTls {
    DownstreamTls {
        common: common(&["h2", "http/1.1"]),
        require_client_certificate: true,
    }
}

pub(super) fn upstream() -> UpstreamTls {
    UpstreamTls {
        common: common(&["istio-peer-exchange", "istio"]),
        sni: Some(BILL_SNI.to_owned()),
        sends_host_name: false,
        requires_sent_name: false,
    }
}
