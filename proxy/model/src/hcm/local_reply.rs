//! What becomes of answers that the proxy makes itself. Source: http_connection_manager.proto `LocalReplyConfig`.
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;

use crate::access_log::body::inline_text;
use crate::access_log::{AccessLogFilter, BodyFormat};
use crate::field::{FieldPath, Rejection, verdicts};
use crate::route::{HeaderAddition, header_additions};
use crate::scalar::Wrapped;

/// Which answers change, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReplies {
    /// The first whose filter passes an answer changes it.
    pub mappers: Vec<ReplyMapper>,
    /// What bodies are made by; `None`: they stay as they are.
    pub usual_format: Option<BodyFormat>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyMapper {
    /// Which answers.
    pub replies: AccessLogFilter,
    /// Their status from now on, 200..=599.
    pub new_status: Option<u16>,
    /// Their text from now on.
    pub new_text: Option<String>,
    /// Takes the place of the usual format.
    pub own_format: Option<BodyFormat>,
    /// Headers they get.
    pub added_headers: Vec<HeaderAddition>,
}

impl LocalReplies {
    /// Converts the settings.
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::LocalReplyConfig>,
    ) -> Result<Option<Box<Self>>, Rejection> {
        let Some(proto) = proto else { return Ok(None) };
        verdicts!(at, proto => pb::LocalReplyConfig { supported { mappers, body_format } });
        let field = at.field("mappers");
        let mappers = mappers
            .into_iter()
            .enumerate()
            .map(|(index, proto)| ReplyMapper::from_proto(&field.index(index), proto));
        let format = body_format.map(|proto| BodyFormat::from_proto(&at.field("body_format"), proto));
        Ok(Some(Box::new(Self {
            mappers: mappers.collect::<Result<_, _>>()?,
            usual_format: format.transpose()?,
        })))
    }
}

impl ReplyMapper {
    fn from_proto(at: &FieldPath<'_>, proto: pb::ResponseMapper) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ResponseMapper {
            supported { filter, status_code, body, body_format_override, headers_to_add }
        });
        let field = at.field("filter");
        let replies = AccessLogFilter::for_replies(&field, field.required(filter)?)?;
        let field = at.field("status_code");
        let status = status_code.value().map(|code| field.status(code, 200..=599));
        let field = at.field("body_format_override");
        let format = body_format_override.map(|proto| BodyFormat::from_proto(&field, proto));
        Ok(Self {
            replies,
            new_status: status.transpose()?,
            new_text: inline_text(&at.field("body"), body)?,
            own_format: format.transpose()?,
            added_headers: header_additions(at.field("headers_to_add"), headers_to_add)?,
        })
    }
}
