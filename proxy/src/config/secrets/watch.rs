//! The files that a secret is made of.
use outrigger_model::secret::{DataSource, SecretKind};
pub(crate) use xds_client::FileWatch as Watch;

/// The files of a secret's sources.
pub(crate) fn files_of(kind: &SecretKind) -> Watch {
    let sources = match kind {
        SecretKind::Certificate(pair) => [Some(&pair.chain_pem), Some(&pair.key_pem)],
        SecretKind::Validation(context) => [context.trusted_ca.as_ref(), context.crl.as_ref()],
    };
    Watch::new(sources.into_iter().flatten().filter_map(|source| match source {
        DataSource::File(path) => Some(path.clone()),
        DataSource::Inline(_) => None,
    }))
}
