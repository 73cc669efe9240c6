//! External authorization of connections. Source: envoy/extensions/filters/network/ext_authz/v3/ext_authz.proto.
//! Awaits the security issue.
use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3 as pb;

use crate::field::{FieldPath, Rejection, verdicts};
use crate::matcher::metadata::MetadataMatcher;
use crate::service::{GrpcTarget, only_v3};

/// Asks a server whether a connection may pass. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtAuthz {
    /// Stats are `ext_authz.<stat_prefix>.`.
    pub stat_prefix: String,
    /// Whom.
    pub service: GrpcTarget,
    /// A connection passes when the server does not answer.
    pub failure_mode_allow: bool,
    /// The server is shown the client's certificate.
    pub include_peer_certificate: bool,
    /// The server is shown the ClientHello's server name.
    pub include_tls_session: bool,
    /// Only connections with this metadata are asked for.
    pub enabled_metadata: Option<MetadataMatcher>,
    /// Namespaces of dynamic metadata that the server is shown.
    pub metadata_namespaces: Vec<String>,
}

impl ExtAuthz {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::ExtAuthz) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ExtAuthz {
            awaited "security" {
                stat_prefix, grpc_service, failure_mode_allow, include_peer_certificate, include_tls_session,
                filter_enabled_metadata, metadata_context_namespaces,
            }
            partly { transport_api_version: "V3 only; others are refused, as in Envoy" }
            unsupported {
                bootstrap_metadata_labels_key: "security", send_tls_alert_on_denial: "security",
                typed_metadata_context_namespaces: "security",
            }
            refused { shadow_mode: "taking its answers for real would close connections that are to pass" }
        });
        only_v3(&at.field("transport_api_version"), transport_api_version)?;
        let field = at.field("filter_enabled_metadata");
        let enabled = filter_enabled_metadata.map(|proto| MetadataMatcher::from_proto(&field, proto));
        Ok(Self {
            stat_prefix: at.field("stat_prefix").not_empty(stat_prefix)?,
            service: GrpcTarget::from_proto(&at.field("grpc_service"), grpc_service)?,
            failure_mode_allow,
            include_peer_certificate,
            include_tls_session,
            enabled_metadata: enabled.transpose()?,
            metadata_namespaces: metadata_context_namespaces,
        })
    }
}
