//! Secrets by server and name, and the TLS contexts made of them. A context lives in a cell; a new secret rebuilds the cells that use it.
mod context;
mod files;
mod key;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use outrigger_model::bootstrap::ConfigServer;
use outrigger_model::secret::{DataSource, Secret, SecretKind, SecretRef, TlsCertificate, ValidationContext};
use outrigger_model::tls::{CertificateSource, CommonTls, DownstreamTls};

pub(super) use self::context::{Wanted, holds_key, want, want_each};
pub(super) use self::key::SecretKey;
pub(super) use self::watch::Watch;

use self::context::{is_alike, names, shared_part, written};
use self::files::{Loaded, OnDisk};
use super::clusters::waited;
use super::proxy_config::ROOTS;
use crate::listener::runtime::ServerTlsCell;
use crate::time::Instant;
use crate::tls::verify::combine;
use crate::tls::{CertifiedMaterial, ClientMaterial, ClientSecrets, ContextError, PeerRules, ServerContext};

/// All secrets and the contexts that depend on them.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    certificates: BTreeMap<SecretKey, Arc<CertifiedMaterial>>,
    /// Without files: [`Loaded::Validation`].
    validations: BTreeMap<SecretKey, ValidationContext>,
    /// What has to be read again when files change.
    on_disk: Vec<OnDisk>,
    servers: Vec<Server>,
    clients: Vec<Client>,
    /// PEM roots that are trusted wherever those of [`ROOTS`] are; empty: none.
    extra_roots: Vec<u8>,
}

/// The cell of a listener's TLS and what it is made of; gone when nobody holds the cell.
#[derive(Debug)]
struct Server {
    config: DownstreamTls,
    cell: Weak<ArcSwapOption<ServerContext>>,
}

/// What clusters that name the same secrets share; gone when none of them is left.
#[derive(Debug)]
struct Client {
    /// Without what each cluster has of its own: names of peers, ALPN, versions.
    config: CommonTls,
    names: Arc<[SecretRef]>,
    secrets: Weak<ClientSecrets>,
}

/// The secrets of a cluster's TLS: their names, and what they are when they have come.
#[derive(Debug, Clone)]
pub(super) struct ClientNeeds {
    pub(super) names: Arc<[SecretRef]>,
    pub(super) secrets: Arc<ClientSecrets>,
}

/// A context lacks a secret, or cannot be built with the one there is.
#[derive(Debug, thiserror::Error)]
enum Incomplete {
    #[error("secret `{0}` has not arrived")]
    Missing(String),
    #[error(transparent)]
    Context(#[from] ContextError),
}

/// What became of files that changed.
#[derive(Debug)]
pub(super) struct Reloaded {
    /// The secret that names them; `None`: a TLS context does.
    pub(super) key: Option<SecretKey>,
    /// The certificate's serial number for a key pair; or a complaint that is not the one before.
    pub(super) outcome: Result<Option<String>, ContextError>,
}

impl Secrets {
    /// A cell for a listener's TLS; filled as soon as its secrets are there.
    pub(super) fn server_cell(&mut self, config: &DownstreamTls) -> ServerTlsCell {
        self.watch(&config.common);
        let cell = Arc::new(ArcSwapOption::empty());
        self.fill_server(config, &cell);
        self.servers.retain(|server| server.cell.strong_count() > 0);
        self.servers.push(Server {
            config: config.clone(),
            cell: Arc::downgrade(&cell),
        });
        cell
    }

    /// What the TLS of a cluster is made of; filled as soon as its secrets are there. Clusters that name the same secrets share it.
    pub(super) fn client_needs(&mut self, common: &CommonTls) -> ClientNeeds {
        let alive = |client: &Client| {
            let secrets = client.secrets.upgrade()?;
            let names = client.names.clone();
            Some(ClientNeeds { names, secrets })
        };
        let mut known = self
            .clients
            .iter()
            .filter(|client| is_alike(&client.config, common));
        if let Some(needs) = known.find_map(alive) {
            return needs;
        }
        self.clients.retain(|client| client.secrets.strong_count() > 0);
        let config = shared_part(common);
        self.watch(&config);
        let secrets = Arc::new(ClientSecrets::default());
        self.fill_client(&config, &secrets);
        let names: Arc<[SecretRef]> = names(&config).cloned().collect();
        self.clients.push(Client {
            config,
            names: names.clone(),
            secrets: Arc::downgrade(&secrets),
        });
        ClientNeeds { names, secrets }
    }

    /// When the first of our certificates ends, in seconds since 1970.
    pub(super) fn first_expiry(&self) -> Option<i64> {
        let certificates = self.certificates.values();
        certificates
            .map(|certificate| certificate.details.not_after_unix_seconds)
            .min()
    }

    /// Takes a secret into force and rebuilds what uses it. `server`: who sent it; `None`: it is the bootstrap's.
    ///
    /// # Errors
    /// It cannot be used (wrong key, no PEM, no certificate, no such file); what was in force stays. If it names files, they are watched,
    /// and [`Self::reload`] takes it into force when they are good.
    pub(super) fn set(&mut self, server: Option<&ConfigServer>, secret: &Secret) -> Result<(), ContextError> {
        let key = SecretKey {
            server: server.cloned(),
            name: secret.name.clone(),
        };
        let mut files = OnDisk {
            watch: watch::files_of(&secret.kind),
            key: Some(key.clone()),
            kind: secret.kind.clone(),
            good: None,
        };
        let loaded = files.load();
        let has_files = !files.watch.is_empty();
        // A secret without files that cannot be used leaves the files of the one before in force.
        if has_files || loaded.is_ok() {
            self.on_disk.retain(|other| !files.replaces(other));
        }
        if has_files {
            self.on_disk.push(files);
        }
        match loaded {
            Ok(loaded) => self.take(key, loaded),
            Err(Some(error)) => return Err(error),
            Err(None) => {}
        }
        Ok(())
    }

    fn take(&mut self, key: SecretKey, loaded: Loaded) {
        let is_used = |common: &CommonTls| names(common).any(|secret| SecretKey::of(secret) == key);
        match loaded {
            Loaded::Certificate(material) => drop(self.certificates.insert(key.clone(), material)),
            Loaded::Validation(context) => drop(self.validations.insert(key.clone(), context)),
        }
        self.rebuild(is_used);
    }

    /// These PEM roots are trusted besides those of [`ROOTS`], in place of the ones before; empty: none.
    pub(super) fn trust_besides(&mut self, roots: Vec<u8>) {
        self.extra_roots = roots;
        self.rebuild(|common| names(common).any(|secret| secret.name == ROOTS));
    }

    /// The secret with what is trusted besides.
    fn with_extra_roots(&self, name: &str, secret: &ValidationContext) -> ValidationContext {
        let mut secret = secret.clone();
        if name == ROOTS
            && let Some(DataSource::Inline(roots)) = &mut secret.trusted_ca
            && !self.extra_roots.is_empty()
        {
            roots.push(b'\n');
            roots.extend_from_slice(&self.extra_roots);
        }
        secret
    }

    /// Reads again what changed on disk, or could not be used so far; what can be used now is in force. Says what there is to say.
    pub(super) fn reload(&mut self) -> Vec<Reloaded> {
        self.forget_unused_files();
        let mut reloaded = Vec::new();
        for index in 0..self.on_disk.len() {
            let Some(files) = self.on_disk.get_mut(index).filter(|files| files.watch.is_due()) else {
                continue;
            };
            let key = files.key.clone();
            let outcome = match files.load() {
                Ok(loaded) => {
                    let serial = match &loaded {
                        Loaded::Certificate(material) => Some(material.details.serial_hex.clone()),
                        Loaded::Validation(_) => None,
                    };
                    match &key {
                        Some(key) => self.take(key.clone(), loaded),
                        None => {
                            let kind = files.kind.clone();
                            files.good = Some(loaded);
                            self.rebuild(|common| written(common).any(|other| other == kind));
                        }
                    }
                    Ok(serial)
                }
                Err(Some(error)) => Err(error),
                Err(None) => continue,
            };
            reloaded.push(Reloaded { key, outcome });
        }
        reloaded
    }

    /// Forgets secrets of servers; those of the bootstrap stay.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&ConfigServer, &str) -> bool) {
        let stays = |key: &SecretKey| {
            key.server
                .as_ref()
                .is_none_or(|server| is_wanted(server, &key.name))
        };
        self.certificates.retain(|key, _| stays(key));
        self.validations.retain(|key, _| stays(key));
        self.on_disk.retain(|files| files.key.as_ref().is_none_or(stays));
    }

    /// Names of the secrets of a TLS context that have not come.
    pub(super) fn missing(&self, common: &CommonTls) -> Vec<String> {
        let missing = names(common).filter(|secret| !self.has(&SecretKey::of(secret)));
        missing.map(|secret| secret.name.clone()).collect()
    }

    fn has(&self, key: &SecretKey) -> bool {
        self.certificates.contains_key(key) || self.validations.contains_key(key)
    }

    /// Every secret of a TLS context is there, or has been waited for long enough.
    pub(super) fn is_warm(&self, common: &CommonTls, since: Instant) -> bool {
        self.are_there(names(common), since)
    }

    /// As [`Self::is_warm`].
    pub(super) fn are_there<'a>(
        &self,
        mut names: impl Iterator<Item = &'a SecretRef>,
        since: Instant,
    ) -> bool {
        names.all(|secret| {
            self.has(&SecretKey::of(secret))
                || secret.source.as_ref().is_none_or(|source| waited(source, since))
        })
    }

    /// Files that a TLS context itself names are read now and watched from now on.
    fn watch(&mut self, common: &CommonTls) {
        for kind in written(common) {
            let is_known = |files: &OnDisk| files.key.is_none() && files.kind == kind;
            if !self.on_disk.iter().any(is_known) {
                self.on_disk.extend(OnDisk::written(kind));
            }
        }
    }

    fn forget_unused_files(&mut self) {
        if self.on_disk.iter().all(|files| files.key.is_some()) {
            return;
        }
        let servers = self
            .servers
            .iter()
            .filter(|server| server.cell.strong_count() > 0);
        let clients = self
            .clients
            .iter()
            .filter(|client| client.secrets.strong_count() > 0);
        let used: Vec<SecretKind> = servers
            .flat_map(|server| written(&server.config.common))
            .chain(clients.flat_map(|client| written(&client.config)))
            .collect();
        self.on_disk
            .retain(|files| files.key.is_some() || used.contains(&files.kind));
    }

    fn rebuild(&self, is_affected: impl Fn(&CommonTls) -> bool) {
        for server in &self.servers {
            if let Some(cell) = server.cell.upgrade()
                && is_affected(&server.config.common)
            {
                self.fill_server(&server.config, &cell);
            }
        }
        for client in &self.clients {
            if let Some(secrets) = client.secrets.upgrade()
                && is_affected(&client.config)
            {
                self.fill_client(&client.config, &secrets);
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

    fn fill_client(&self, config: &CommonTls, secrets: &ClientSecrets) {
        match self.client(config) {
            Ok(material) => secrets.set(material),
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

    fn client(&self, config: &CommonTls) -> Result<ClientMaterial, Incomplete> {
        let (name, mut context) = self.validation(config)?;
        let names = std::mem::take(&mut context.match_subject_alt_names);
        Ok(ClientMaterial {
            certificate: self.certificate(config)?,
            roots: PeerRules::build(&name, &context)?,
            names,
        })
    }

    fn certificate(&self, common: &CommonTls) -> Result<Option<Arc<CertifiedMaterial>>, Incomplete> {
        match &common.certificate {
            None => Ok(None),
            Some(CertificateSource::Sds(secret)) => match self.certificates.get(&SecretKey::of(secret)) {
                Some(material) => Ok(Some(material.clone())),
                None => Err(Incomplete::Missing(secret.name.clone())),
            },
            Some(CertificateSource::Inline(pair)) => Ok(Some(self.written_certificate(pair)?)),
        }
    }

    fn rules(&self, common: &CommonTls) -> Result<PeerRules, Incomplete> {
        let (name, context) = self.validation(common)?;
        Ok(PeerRules::build(&name, &context)?)
    }

    /// The whole validation context, and a name for it in errors. Empty when nothing is to be verified.
    fn validation(&self, common: &CommonTls) -> Result<(String, ValidationContext), Incomplete> {
        let Some(validation) = &common.validation else {
            return Ok((String::new(), ValidationContext::default()));
        };
        let context = self.written_validation(&validation.context)?;
        let context = match &validation.sds {
            None => context,
            Some(secret) => {
                let dynamic = self.validations.get(&SecretKey::of(secret));
                let dynamic = dynamic.ok_or_else(|| Incomplete::Missing(secret.name.clone()))?;
                combine(&context, &self.with_extra_roots(&secret.name, dynamic))
            }
        };
        let name = validation
            .sds
            .as_ref()
            .map_or("validation_context", |secret| secret.name.as_str());
        Ok((name.to_owned(), context))
    }

    /// A key pair written in a TLS context, its files as they were when they were last good.
    fn written_certificate(&self, pair: &TlsCertificate) -> Result<Arc<CertifiedMaterial>, ContextError> {
        match self.good(&SecretKind::Certificate(pair.clone())) {
            Some(Loaded::Certificate(material)) => Ok(material.clone()),
            _ => Ok(Arc::new(CertifiedMaterial::load("tls_certificates", pair)?)),
        }
    }

    fn written_validation(&self, context: &ValidationContext) -> Result<ValidationContext, ContextError> {
        let kind = SecretKind::Validation(context.clone());
        match self.good(&kind) {
            Some(Loaded::Validation(context)) => Ok(context.clone()),
            // Names no file, or one that was never good: the complaint comes with the use.
            _ => Ok(context.clone()),
        }
    }

    fn good(&self, kind: &SecretKind) -> Option<&Loaded> {
        let mut written = self.on_disk.iter().filter(|files| files.key.is_none());
        written.find(|files| files.kind == *kind)?.good.as_ref()
    }
}

#[cfg(test)]
mod tests;
