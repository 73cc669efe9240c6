//! Secrets by name and the TLS contexts made of them. A context lives in a cell; a new secret rebuilds the cells that use it.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use outrigger_model::bootstrap::ConfigServer;
use outrigger_model::secret::{Secret, SecretKind, SecretRef, TlsCertificate, ValidationContext};
use outrigger_model::tls::{CertificateSource, CommonTls, DownstreamTls, UpstreamTls};

use crate::listener::runtime::ServerTlsCell;
use crate::tls::verify::combine;
use crate::tls::{CertifiedMaterial, ClientContext, ContextError, PeerRules, ServerContext};
use crate::upstream::cluster::ClientTlsCell;

/// All secrets and the contexts that depend on them.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    certificates: BTreeMap<String, Arc<CertifiedMaterial>>,
    validations: BTreeMap<String, ValidationContext>,
    servers: Vec<Dependent<DownstreamTls, ServerContext>>,
    clients: Vec<Dependent<UpstreamTls, ClientContext>>,
}

/// A cell and what it is made of; gone when nobody holds the cell.
#[derive(Debug)]
struct Dependent<C, T> {
    config: C,
    cell: Weak<ArcSwapOption<T>>,
}

/// A context lacks a secret, or cannot be built with the one there is.
#[derive(Debug, thiserror::Error)]
enum Incomplete {
    #[error("secret `{0}` has not arrived")]
    Missing(String),
    #[error(transparent)]
    Context(#[from] ContextError),
}

impl Secrets {
    /// A cell for a listener's TLS; filled as soon as its secrets are there.
    pub(super) fn server_cell(&mut self, config: &DownstreamTls) -> ServerTlsCell {
        let cell = Arc::new(ArcSwapOption::empty());
        self.fill_server(config, &cell);
        self.servers.retain(|dependent| dependent.cell.strong_count() > 0);
        self.servers.push(Dependent {
            config: config.clone(),
            cell: Arc::downgrade(&cell),
        });
        cell
    }

    /// A cell for a cluster's TLS. Clusters with equal TLS share one.
    pub(super) fn client_cell(&mut self, config: &UpstreamTls) -> ClientTlsCell {
        self.clients.retain(|dependent| dependent.cell.strong_count() > 0);
        let shared = self.clients.iter().find(|dependent| dependent.config == *config);
        if let Some(cell) = shared.and_then(|dependent| dependent.cell.upgrade()) {
            return cell;
        }
        let cell = Arc::new(ArcSwapOption::empty());
        self.fill_client(config, &cell);
        self.clients.push(Dependent {
            config: config.clone(),
            cell: Arc::downgrade(&cell),
        });
        cell
    }

    /// Takes a secret into force and rebuilds what uses it.
    ///
    /// # Errors
    /// It cannot be used (wrong key, no PEM, no certificate); what was in force stays.
    pub(super) fn set(&mut self, secret: &Secret) -> Result<(), ContextError> {
        match &secret.kind {
            SecretKind::Certificate(certificate) => {
                let material = CertifiedMaterial::load(&secret.name, certificate)?;
                self.certificates.insert(secret.name.clone(), Arc::new(material));
            }
            SecretKind::Validation(context) => {
                // Alone it must make sense as roots; SANs come from the context that refers to it.
                let roots = ValidationContext {
                    match_subject_alt_names: Vec::new(),
                    ..context.clone()
                };
                let skipped = PeerRules::build(&secret.name, &roots)?.skipped_roots();
                if skipped > 0 {
                    tracing::warn!(
                        secret = secret.name,
                        skipped,
                        "certificates of the trusted ca that cannot be used as roots"
                    );
                }
                self.validations.insert(secret.name.clone(), context.clone());
            }
        }
        self.rebuild(&secret.name);
        Ok(())
    }

    /// The secret is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.certificates.contains_key(name) || self.validations.contains_key(name)
    }

    fn rebuild(&self, name: &str) {
        for dependent in &self.servers {
            if let Some(cell) = dependent.cell.upgrade()
                && names(&dependent.config.common).any(|secret| secret.name == name)
            {
                self.fill_server(&dependent.config, &cell);
            }
        }
        for dependent in &self.clients {
            if let Some(cell) = dependent.cell.upgrade()
                && names(&dependent.config.common).any(|secret| secret.name == name)
            {
                self.fill_client(&dependent.config, &cell);
            }
        }
    }

    fn fill_server(&self, config: &DownstreamTls, cell: &ArcSwapOption<ServerContext>) {
        match self.server(config) {
            Ok(context) => cell.store(Some(Arc::new(context))),
            Err(Incomplete::Missing(name)) => {
                tracing::debug!(secret = name, "listener TLS waits for a secret")
            }
            Err(error) => tracing::warn!(%error, "listener TLS cannot be set up; the last working one stays"),
        }
    }

    fn fill_client(&self, config: &UpstreamTls, cell: &ArcSwapOption<ClientContext>) {
        match self.client(config) {
            Ok(context) => cell.store(Some(Arc::new(context))),
            Err(Incomplete::Missing(name)) => {
                tracing::debug!(secret = name, "cluster TLS waits for a secret")
            }
            Err(error) => tracing::warn!(%error, "cluster TLS cannot be set up; the last working one stays"),
        }
    }

    fn server(&self, config: &DownstreamTls) -> Result<ServerContext, Incomplete> {
        let certificate = self
            .certificate(&config.common)?
            .ok_or(ContextError::NoServerCertificate)?;
        Ok(ServerContext::build(
            config,
            &certificate,
            &self.rules(&config.common)?,
        )?)
    }

    fn client(&self, config: &UpstreamTls) -> Result<ClientContext, Incomplete> {
        let certificate = self.certificate(&config.common)?;
        Ok(ClientContext::build(
            config,
            certificate.as_deref(),
            &self.rules(&config.common)?,
        )?)
    }

    fn certificate(&self, common: &CommonTls) -> Result<Option<Arc<CertifiedMaterial>>, Incomplete> {
        match &common.certificate {
            None => Ok(None),
            Some(CertificateSource::Sds(secret)) => match self.certificates.get(&secret.name) {
                Some(material) => Ok(Some(material.clone())),
                None => Err(Incomplete::Missing(secret.name.clone())),
            },
            Some(CertificateSource::Inline(certificate)) => Ok(Some(Arc::new(load(certificate)?))),
        }
    }

    fn rules(&self, common: &CommonTls) -> Result<PeerRules, Incomplete> {
        let Some(validation) = &common.validation else {
            return Ok(PeerRules::default());
        };
        let context = match &validation.sds {
            None => validation.context.clone(),
            Some(secret) => {
                let dynamic = self.validations.get(&secret.name);
                combine(
                    &validation.context,
                    dynamic.ok_or_else(|| Incomplete::Missing(secret.name.clone()))?,
                )
            }
        };
        let name = validation
            .sds
            .as_ref()
            .map_or("validation_context", |secret| secret.name.as_str());
        Ok(PeerRules::build(name, &context)?)
    }
}

fn load(certificate: &TlsCertificate) -> Result<CertifiedMaterial, ContextError> {
    Ok(CertifiedMaterial::load("tls_certificates", certificate)?)
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

/// The secrets wanted from each server.
pub(super) type Wanted = BTreeMap<ConfigServer, BTreeSet<String>>;
