//! What a control plane changes of a proxy's own configuration while it runs (PCDS): roots that are trusted besides those of the secret.
//! Source: istio mesh/v1alpha1/proxy.proto; pilot/pkg/xds/pcds.go, which sends nothing else.
use crate::field::{FieldPath, Rejection, verdicts};
use crate::istio;

/// What is taken of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyConfig {
    /// PEM, each with one certificate or more.
    pub extra_roots: Vec<String>,
}

impl ProxyConfig {
    /// Converts what was sent. `has_more`: there are fields besides those that are known here.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        proto: istio::ProxyConfig,
        has_more: bool,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => istio::ProxyConfig {
            supported { ca_certificates_pem }
        });
        if has_more {
            at.problem("has fields besides ca_certificates_pem: they say how a proxy starts, and nothing of that is changed while it runs");
        }
        Ok(Self {
            extra_roots: ca_certificates_pem,
        })
    }
}
