//! How a secret is known.
use outrigger_model::bootstrap::ConfigServer;
use outrigger_model::secret::SecretRef;

/// Whose secret it is: two servers may each have one of the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) struct SecretKey {
    /// Who serves it; `None`: the bootstrap.
    pub(in crate::config) server: Option<ConfigServer>,
    pub(in crate::config) name: String,
}

impl SecretKey {
    pub(super) fn of(reference: &SecretRef) -> Self {
        Self {
            server: reference.source.as_ref().map(|source| source.server.clone()),
            name: reference.name.clone(),
        }
    }
}
