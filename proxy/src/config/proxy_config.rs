//! What istiod changes of this proxy's own configuration (PCDS): roots that are trusted besides those of the secret `ROOTCA`.
//!
//! Asked for beside listeners, as Istio's agent does on the proxy's stream, if the node or the environment says so. Source: istio
//! pkg/istio-agent/xds_proxy.go, security/pkg/nodeagent/cache (`mergeConfigTrustBundle`); contract §1.1, §2.6.
use std::collections::{BTreeMap, BTreeSet};

use outrigger_model::bootstrap::ConfigServer;
use outrigger_model::decode::{self, PROXY_CONFIG_TYPE};
use outrigger_model::proxy_config::ProxyConfig;
use outrigger_model::secret::{DataSource, ValidationContext};
use xds_client::WILDCARD;

use super::control::Control;
use super::store::{Offered, Store};
use super::wishes::ByServer;
use crate::tls::PeerRules;

/// There is one, and it travels without a name.
pub(super) const NAME: &str = "proxy-config";

/// Where the roots of a mesh are.
pub(super) const ROOTS: &str = "ROOTCA";

/// What has come.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) store: Store<ProxyConfig>,
}

impl Control {
    /// The environment asks for it; see also [`outrigger_model::node::Node::asks_proxy_config`].
    pub(crate) fn ask_proxy_config(&mut self) {
        self.wish_for(PROXY_CONFIG_TYPE, wanted());
    }

    /// A PCDS response.
    ///
    /// # Errors
    /// Why it is rejected, as a root that is none; what was in force stays.
    pub(super) fn offer_proxy_config(&mut self, version: &str, bytes: &[u8]) -> Result<(), String> {
        let store = &mut self.proxy_config.store;
        let Offered::Changed(pending) =
            store.offer(NAME, version, bytes, |bytes| decode::proxy_config(bytes))?
        else {
            return Ok(());
        };
        let roots = joined(&pending.model.extra_roots);
        if !roots.is_empty() {
            let context = ValidationContext {
                trusted_ca: Some(DataSource::Inline(roots.clone())),
                ..ValidationContext::default()
            };
            PeerRules::build("ca_certificates_pem", &context)
                .map_err(|error| error.to_string())
                .inspect_err(|reason| store.refuse(NAME, version, bytes, reason))?;
        }
        let count = pending.model.extra_roots.len();
        store.accept(NAME, pending);
        tracing::info!(
            count,
            "roots of the control plane are trusted besides those of {ROOTS}"
        );
        self.secrets.trust_besides(roots);
        Ok(())
    }
}

/// Whom to ask for it.
pub(super) fn wanted() -> ByServer {
    BTreeMap::from([(ConfigServer::Ads, BTreeSet::from([WILDCARD.to_owned()]))])
}

/// PEM after PEM, each on lines of its own.
fn joined(roots: &[String]) -> Vec<u8> {
    let mut joined = Vec::new();
    for root in roots {
        joined.extend_from_slice(root.trim_end().as_bytes());
        joined.push(b'\n');
    }
    joined
}
