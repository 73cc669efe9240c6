//! Secrets whose bytes are in files, by whoever names them: a secret of any server, a static one, or a TLS context itself.
//!
//! They are looked at once a second, with one `stat` for each file, and read again when something changed ([`Watch`] says why there is no
//! inotify). A second is nothing in the life of a certificate, and a few system calls are nothing in a second.
//!
//! Envoy watches the files of secrets that came over SDS only, and sees only renames; here every file is followed, however it changes.
//! What cannot be used (no PEM, a key that does not belong to the certificate because only one of them has been replaced so far) leaves
//! the last good content in force and is tried again every second.
use std::sync::Arc;

use outrigger_model::secret::{DataSource, SecretKind, ValidationContext};

use super::SecretKey;
use super::watch::{Watch, files_of};
use crate::tls::secret::{SecretError, read};
use crate::tls::{CertifiedMaterial, ContextError, PeerRules};

/// A secret with its bytes read and checked.
#[derive(Debug, Clone)]
pub(super) enum Loaded {
    Certificate(Arc<CertifiedMaterial>),
    /// Names no file any more: to use it can no longer fail for a file's sake.
    Validation(ValidationContext),
}

impl Loaded {
    /// Reads files and checks that what they hold can be used. `name` is for errors.
    pub(super) fn load(name: &str, kind: &SecretKind) -> Result<Self, ContextError> {
        match kind {
            SecretKind::Certificate(pair) => {
                Ok(Self::Certificate(Arc::new(CertifiedMaterial::load(name, pair)?)))
            }
            SecretKind::Validation(context) => {
                let context = ValidationContext {
                    trusted_ca: inline(name, context.trusted_ca.as_ref())?,
                    crl: inline(name, context.crl.as_ref())?,
                    match_subject_alt_names: context.match_subject_alt_names.clone(),
                };
                check_roots(name, &context)?;
                Ok(Self::Validation(context))
            }
        }
    }
}

fn inline(name: &str, source: Option<&DataSource>) -> Result<Option<DataSource>, SecretError> {
    source
        .map(|source| Ok(DataSource::Inline(read(name, source)?.into_owned())))
        .transpose()
}

/// Alone it must make sense as roots; SANs come from the context that refers to it.
fn check_roots(name: &str, context: &ValidationContext) -> Result<(), ContextError> {
    let roots = ValidationContext {
        match_subject_alt_names: Vec::new(),
        ..context.clone()
    };
    let skipped = PeerRules::build(name, &roots)?.skipped_roots();
    if skipped > 0 {
        tracing::warn!(
            secret = name,
            skipped,
            "certificates of the trusted ca that cannot be used as roots"
        );
    }
    Ok(())
}

/// Something that was read from files.
#[derive(Debug)]
pub(super) struct OnDisk {
    /// The secret that names the files; `None`: a TLS context does.
    pub(super) key: Option<SecretKey>,
    pub(super) kind: SecretKind,
    pub(super) watch: Watch,
    /// The last good content, for TLS contexts; a secret's is with the secrets.
    pub(super) good: Option<Loaded>,
}

impl OnDisk {
    /// What is written in a TLS context, read for the first time; `None`: it names no file.
    pub(super) fn written(kind: SecretKind) -> Option<Self> {
        let watch = files_of(&kind);
        let mut file = Self {
            key: None,
            kind,
            watch,
            good: None,
        };
        if file.watch.is_empty() {
            return None;
        }
        // The complaint is the caller's, who cannot do without.
        let _ = file.load().map(|loaded| file.good = Some(loaded));
        Some(file)
    }

    /// For errors.
    pub(super) fn name(&self) -> &str {
        match (&self.key, &self.kind) {
            (Some(key), _) => &key.name,
            (None, SecretKind::Certificate(_)) => "tls_certificates",
            (None, SecretKind::Validation(_)) => "validation_context",
        }
    }

    /// Reads it; an error is `Some` if it is a new one.
    pub(super) fn load(&mut self) -> Result<Loaded, Option<ContextError>> {
        self.watch.begin();
        let loaded = Loaded::load(self.name(), &self.kind);
        let complaint = loaded.as_ref().err().map(ToString::to_string);
        let is_new = self.watch.end(complaint.as_deref());
        loaded.map_err(|error| is_new.then_some(error))
    }

    /// The same secret, or the same thing in a TLS context.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.key == other.key
            && std::mem::discriminant(&self.kind) == std::mem::discriminant(&other.kind)
            && (self.key.is_some() || self.kind == other.kind)
    }
}
