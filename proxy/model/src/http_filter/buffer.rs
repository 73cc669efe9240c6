//! Requests that go on when they are whole. Source: envoy/extensions/filters/http/buffer/v3/buffer.proto.
use envoy_types::pb::envoy::extensions::filters::http::buffer::v3::{self as pb, buffer_per_route::Override};

use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::scalar::Wrapped;

/// How large a request may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestBuffer {
    /// Of its body; above 0.
    pub max_request_bytes: u32,
}

impl RequestBuffer {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::Buffer) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Buffer { supported { max_request_bytes } });
        let field = at.field("max_request_bytes");
        let max_request_bytes = field.within(field.required(max_request_bytes.value())?, 1..=u32::MAX)?;
        Ok(Self { max_request_bytes })
    }

    /// Converts the settings of a route; `None`: off.
    pub(crate) fn from_route(
        at: &FieldPath<'_>,
        proto: pb::BufferPerRoute,
    ) -> Result<Option<Self>, Rejection> {
        verdicts!(at, proto => pb::BufferPerRoute { supported { r#override } });
        choices!(Override { supported { Disabled, Buffer } });
        match at.required(r#override)? {
            Override::Disabled(true) => Ok(None),
            Override::Disabled(false) => Err(at.field("disabled").reject("must be true")),
            Override::Buffer(proto) => Self::from_proto(&at.field("buffer"), proto).map(Some),
        }
    }
}
