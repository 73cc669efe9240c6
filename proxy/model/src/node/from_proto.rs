//! Protobuf to [`Node`].
use envoy_types::pb::envoy::config::core::v3 as pb;
use prost::Message;

use super::{Locality, Node};
use crate::field::{FieldPath, Rejection, verdicts};
use crate::metadata;
use crate::wire;

/// `core.v3.Node.metadata`.
const METADATA_FIELD: u32 = 3;

impl Node {
    /// Converts the identity and keeps it encoded, with metadata in the order of its keys so that equal nodes are equal bytes.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: Option<pb::Node>) -> Result<Self, Rejection> {
        let Some(mut proto) = proto else {
            return Ok(Self::default());
        };
        let fields = proto.metadata.take().unwrap_or_default();
        let fields = metadata::struct_from_proto(&at.field("metadata"), fields)?;
        let mut encoded = proto.encode_to_vec();
        if !fields.is_empty() {
            wire::message(METADATA_FIELD, &wire::encode_struct(&fields), &mut encoded);
        }
        verdicts!(at, proto => pb::Node {
            supported { id, cluster, locality, metadata }
            partly {
                dynamic_parameters: "sent to the control plane as read",
                user_agent_name: "sent to the control plane as read",
                extensions: "sent to the control plane as read",
                client_features: "sent to the control plane as read",
                listening_addresses: "sent to the control plane as read",
                user_agent_version_type: "sent to the control plane as read",
            }
        });
        // Taken out above: the rest is encoded without it. The others are in `encoded` and nothing here reads them.
        drop(metadata);
        drop((
            dynamic_parameters,
            user_agent_name,
            extensions,
            client_features,
            listening_addresses,
        ));
        drop(user_agent_version_type);
        let locality = Locality::from_proto(locality);
        Ok(Self {
            id,
            cluster,
            locality,
            metadata: fields,
            encoded,
        })
    }
}

impl Locality {
    /// Converts a locality; an unset one is all empty.
    pub(crate) fn from_proto(proto: Option<pb::Locality>) -> Self {
        verdicts!((), proto.unwrap_or_default() => pb::Locality { supported { region, zone, sub_zone } });
        Self {
            region,
            zone,
            sub_zone,
        }
    }
}
