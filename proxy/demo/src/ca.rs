//! A certificate authority for workloads of one trust domain.
//!
//! Certificates are as istiod signs them: one critical URI SAN, no subject, both extended key usages. Variants that a peer
//! must refuse are made by changing the [`Identity`] or the [`Validity`], or by asking another authority.
//!
//! Source: istio.io/istio security/pkg/pki/util/generate_cert.go.

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, SanType, date_time_ymd,
};

/// Who a certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `cluster.local` unless the mesh says otherwise.
    pub trust_domain: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
}

impl Identity {
    /// An identity in trust domain `cluster.local`.
    pub fn new(namespace: &str, service_account: &str) -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        }
    }

    /// `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub fn spiffe_id(&self) -> String {
        format!(
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

/// Whether a certificate is valid now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From 2020 to 2099.
    Current,
    /// Ended in 2021.
    Expired,
    /// Begins in 2098.
    NotYet,
}

/// The algorithm of a workload's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256 (the agent's `ECC_SIGNATURE_ALGORITHM=ECDSA`).
    P256,
    /// RSA with 2048 bits, the agent's default.
    Rsa2048,
}

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCert {
    /// Leaf first, then the authority.
    pub chain: String,
    /// PKCS #8.
    pub key: String,
}

/// A root certificate and its key.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new root; two roots of the same name trust each other's certificates as little as any two.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(organization: &str) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        limit(&mut params, Validity::Current);
        Ok(Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
        })
    }

    /// The root certificate, PEM.
    pub fn root(&self) -> String {
        self.issuer.pem()
    }

    /// Signs a certificate for a P-256 key, valid now.
    ///
    /// # Errors
    /// When the identity is not ASCII, or no key can be made.
    pub fn issue(&self, identity: &Identity) -> Result<KeyCert, rcgen::Error> {
        self.issue_as(identity, Validity::Current, KeyKind::P256)
    }

    /// Signs a certificate.
    ///
    /// # Errors
    /// When the identity is not ASCII, or no key can be made.
    pub fn issue_as(
        &self,
        identity: &Identity,
        validity: Validity,
        key: KeyKind,
    ) -> Result<KeyCert, rcgen::Error> {
        let name = SanType::URI(Ia5String::try_from(identity.spiffe_id())?);
        self.sign(vec![name], validity, key)
    }

    /// Signs a certificate for the names of a server that is in no mesh, valid now.
    ///
    /// # Errors
    /// When a name is not ASCII, or no key can be made.
    pub fn issue_for_names(&self, names: &[&str]) -> Result<KeyCert, rcgen::Error> {
        let names = names
            .iter()
            .map(|name| Ok(SanType::DnsName(Ia5String::try_from(*name)?)));
        let names = names.collect::<Result<_, rcgen::Error>>()?;
        self.sign(names, Validity::Current, KeyKind::P256)
    }

    fn sign(&self, names: Vec<SanType>, validity: Validity, key: KeyKind) -> Result<KeyCert, rcgen::Error> {
        let key = match key {
            KeyKind::P256 => KeyPair::generate()?,
            KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        limit(&mut params, validity);
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(KeyCert {
            chain: leaf.pem() + &self.issuer.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn limit(params: &mut CertificateParams, validity: Validity) {
    let (from, to) = match validity {
        Validity::Current => (2020, 2099),
        Validity::Expired => (2020, 2021),
        Validity::NotYet => (2098, 2099),
    };
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_spiffe_id_names_trust_domain_namespace_and_account() {
        let check = |identity: Identity, expected: &str| assert_eq!(identity.spiffe_id(), expected);
        check(
            Identity::new("default", "bill"),
            "spiffe://cluster.local/ns/default/sa/bill",
        );
    }

    #[test]
    fn a_chain_is_leaf_and_root_for_both_kinds_of_key() {
        let authority = Authority::new("test").unwrap();
        for kind in [KeyKind::P256, KeyKind::Rsa2048] {
            let issued = authority
                .issue_as(&Identity::new("a", "b"), Validity::Current, kind)
                .unwrap();
            assert_eq!(issued.chain.matches("BEGIN CERTIFICATE").count(), 2);
            assert!(issued.chain.ends_with(&authority.root()));
            assert!(issued.key.contains("BEGIN PRIVATE KEY"));
        }
    }
}
