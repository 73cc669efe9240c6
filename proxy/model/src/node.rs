//! Who this proxy is. Source: envoy/config/core/v3/base.proto `Node`; istio pkg/model/proxy.go for the metadata.
mod from_proto;

use crate::metadata::{Struct, Value};

/// The identity sent to the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// `sidecar~<ip>~<pod>.<ns>~<ns>.svc.<domain>` under Istio.
    pub id: String,
    /// What it is one of: under Istio `<app>.<namespace>`.
    pub cluster: String,
    /// Where this proxy runs.
    pub locality: Locality,
    /// Everything istiod wants to know (`ISTIO_VERSION`, `LABELS`, …).
    pub metadata: Struct,
    /// The encoded `core.v3.Node`, sent as it was read.
    pub encoded: Vec<u8>,
}

impl Node {
    /// Istio redirects the application's DNS questions to its proxy (`ISTIO_META_DNS_CAPTURE`). Source: contract §2.7.
    pub fn captures_dns(&self) -> bool {
        self.has_flag("DNS_CAPTURE")
    }

    /// Changes of the proxy's own configuration are to come from the control plane (`ISTIO_META_PROXY_CONFIG_XDS_AGENT`); the agent's own
    /// word for it is the environment's `PROXY_CONFIG_XDS_AGENT`. Source: contract §1.1.
    pub fn asks_proxy_config(&self) -> bool {
        self.has_flag("PROXY_CONFIG_XDS_AGENT")
    }

    fn has_flag(&self, name: &str) -> bool {
        match self.metadata.get(name) {
            Some(Value::String(text)) => is_true(text),
            Some(Value::Bool(value)) => *value,
            _ => false,
        }
    }
}

/// As the environment of a Go program says yes (`strconv.ParseBool`).
pub fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// Region, zone and sub-zone; empty strings when unknown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Sub-zone.
    pub sub_zone: String,
}
