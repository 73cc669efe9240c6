//! Resources of a state-of-the-world response: bare, or in a wrapper with a name and a time to live.

use envoy_types::pb::envoy::service::discovery::v3::Resource as PbResource;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;

use crate::Handler;
use crate::session;
use crate::session::intake::Offer;

/// The wrapper in which a resource may travel to carry a name and a time to live.
pub(super) const WRAPPER_TYPE: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

pub(super) fn offer<H: Handler + ?Sized>(any: Any, version: &str, handler: &H) -> Offer {
    let version = version.to_owned();
    if any.type_url == WRAPPER_TYPE
        && let Ok(PbResource {
            name, resource, ttl, ..
        }) = PbResource::decode(any.value.as_slice())
    {
        let inner = |any: &Any| handler.resource_name(any).unwrap_or_default();
        let name = if name.is_empty() {
            resource.as_ref().map(inner).unwrap_or_default()
        } else {
            name
        };
        return Offer {
            name,
            version,
            any: resource,
            ttl: ttl.as_ref().map(session::ttl),
        };
    }
    let name = handler.resource_name(&any).unwrap_or_default();
    Offer {
        name,
        version,
        any: Some(any),
        ttl: None,
    }
}
