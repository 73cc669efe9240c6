//! TLS of one cluster, made at its first connection: most clusters of a large mesh never have one.
//!
//! The control thread keeps what a context is made of in one [`ClientSecrets`] for all clusters that name the same secrets, so
//! that a rotation costs one swap whatever their number. What can be refused without secrets is refused when the cluster
//! arrives ([`ClientTls::new`]); a context that cannot be built later leaves the last one in use.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use outrigger_model::tls::{SanMatchers, UpstreamTls};

use super::client::ClientContext;
use super::error::ContextError;
use super::secret::CertifiedMaterial;
use super::verify::PeerRules;

/// Certificate and roots of now.
#[derive(Debug)]
pub(crate) struct ClientMaterial {
    /// Ours.
    pub(crate) certificate: Option<Arc<CertifiedMaterial>>,
    /// Roots and revocation lists; names are each cluster's own.
    pub(crate) roots: PeerRules,
    /// Names that a secret adds to those of every cluster.
    pub(crate) names: SanMatchers,
}

/// The cell of [`ClientMaterial`]; empty until all secrets are there.
#[derive(Debug, Default)]
pub(crate) struct ClientSecrets {
    current: ArcSwapOption<ClientMaterial>,
}

impl ClientSecrets {
    /// Contexts made from now on use `material`.
    pub(crate) fn set(&self, material: ClientMaterial) {
        self.current.store(Some(Arc::new(material)));
    }
}

/// How a cluster speaks TLS. Shared by all workers, and by a cluster with the one it replaces if their TLS is equal: sessions live on.
#[derive(Debug)]
pub(crate) struct ClientTls {
    config: UpstreamTls,
    secrets: Arc<ClientSecrets>,
    made: ArcSwapOption<Made>,
}

/// A context and what it was made of.
#[derive(Debug)]
struct Made {
    material: Arc<ClientMaterial>,
    /// `None`: none could ever be made.
    context: Option<Arc<ClientContext>>,
}

impl ClientTls {
    /// Keeps `config` until it is needed.
    pub(crate) fn new(config: UpstreamTls, secrets: Arc<ClientSecrets>) -> Self {
        Self {
            config,
            secrets,
            made: ArcSwapOption::empty(),
        }
    }

    /// Refuses what no secret could make good.
    ///
    /// # Errors
    /// As [`ClientContext::build`].
    pub(crate) fn check(config: &UpstreamTls) -> Result<(), ContextError> {
        ClientContext::check(config)
    }

    /// Made of the same.
    pub(crate) fn is_of(&self, config: &UpstreamTls, secrets: &Arc<ClientSecrets>) -> bool {
        Arc::ptr_eq(&self.secrets, secrets) && self.config == *config
    }

    /// The context for the secrets of now; `None`: one has not come, or they cannot be used. Costs tens of microseconds after a
    /// secret has changed, two loads otherwise.
    pub(crate) fn context(&self) -> Option<Arc<ClientContext>> {
        let made = self.made.load();
        let current = self.secrets.current.load();
        let material = current.as_ref()?;
        if let Some(made) = made.as_ref().filter(|made| Arc::ptr_eq(&made.material, material)) {
            return made.context.clone();
        }
        let context = match self.build(material) {
            Ok(context) => Some(Arc::new(context)),
            Err(error) => {
                tracing::warn!(%error, sni = self.config.sni, "cluster TLS cannot be set up; the last working one stays");
                made.as_ref().and_then(|made| made.context.clone())
            }
        };
        // Workers that come here together may each make one; the last stays, and the others serve one connection.
        self.made.store(Some(Arc::new(Made {
            material: material.clone(),
            context: context.clone(),
        })));
        context
    }

    fn build(&self, material: &ClientMaterial) -> Result<ClientContext, ContextError> {
        let own = self.config.common.validation.as_ref();
        let own = own.map_or(&[][..], |validation| &validation.context.match_subject_alt_names);
        let rules = material.roots.with_names(own.iter().chain(&material.names))?;
        ClientContext::build(&self.config, material.certificate.as_deref(), &rules)
    }
}
