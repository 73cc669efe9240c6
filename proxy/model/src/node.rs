//! Who this proxy is. Source: envoy/config/core/v3/base.proto `Node`; istio pkg/model/proxy.go for the metadata.
mod from_proto;

use crate::metadata::Struct;

/// The identity sent to the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// `sidecar~<ip>~<pod>.<ns>~<ns>.svc.<domain>` under Istio.
    pub id: String,
    /// Where this proxy runs.
    pub locality: Locality,
    /// Everything istiod wants to know (`ISTIO_VERSION`, `LABELS`, …).
    pub metadata: Struct,
    /// The encoded `core.v3.Node`, sent as it was read.
    pub encoded: Vec<u8>,
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
