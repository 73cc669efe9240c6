//! Resources of a state-of-the-world response: bare, or in a wrapper with a name and a time to live.

use prost::Message;

use crate::session;
use crate::session::intake::Offer;
use crate::{Any, DeltaResource, Handler};

/// The wrapper in which a resource may travel to carry a name and a time to live.
pub(super) const WRAPPER_TYPE: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

pub(super) fn offer<H: Handler + ?Sized>(any: Any, version: &str, handler: &H) -> Offer {
    let version = version.to_owned();
    if any.type_url == WRAPPER_TYPE.as_bytes()
        && let Ok(DeltaResource {
            name, resource, ttl, ..
        }) = DeltaResource::decode(any.value.clone())
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
