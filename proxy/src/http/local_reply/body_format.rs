//! Bodies of answers that are made of formats. Source: envoy/config/core/v3/substitution_format_string.proto.
use http::{HeaderMap, HeaderValue};
use outrigger_model::access_log as model;

use super::PLAIN_TEXT;
use crate::codec::RequestHead;
use crate::http::stream::view;
use crate::telemetry::access_log::Entry;
use crate::telemetry::format::LineFormat;
use crate::telemetry::format::json::JsonFormat;
use crate::telemetry::stream_info::StreamInfo;

/// What makes the body of an answer.
#[derive(Debug)]
pub(crate) struct BodyFormat {
    /// Of the body.
    pub(in crate::http) media_type: HeaderValue,
    template: Template,
    omits_missing: bool,
}

#[derive(Debug)]
enum Template {
    Text(LineFormat),
    Json(JsonFormat),
}

impl BodyFormat {
    pub(in crate::http) fn new(config: &model::BodyFormat) -> Self {
        Self {
            media_type: HeaderValue::from_str(&config.media_type).unwrap_or(PLAIN_TEXT),
            template: match &config.template {
                model::BodyTemplate::Text(parts) => Template::Text(LineFormat::new(parts)),
                model::BodyTemplate::Json(template) => Template::Json(JsonFormat::new(template)),
            },
            omits_missing: config.omits_missing,
        }
    }

    /// The body, of which `text` is what it would be.
    pub(in crate::http) fn write(
        &self,
        text: &[u8],
        request: Option<&RequestHead>,
        info: &StreamInfo,
        response_headers: Option<&HeaderMap>,
    ) -> Vec<u8> {
        let entry = Entry {
            request: request.map(view),
            response_headers,
            local_reply_body: Some(text),
            ..Entry::of(info)
        };
        let mut body = Vec::new();
        match &self.template {
            Template::Text(format) if self.omits_missing => format.write_value(&entry, &mut body),
            Template::Text(format) => format.write(&entry, &mut body),
            Template::Json(format) => {
                format.write(&entry, self.omits_missing, &mut body);
                // In a header it has no place.
                if !request.is_some_and(RequestHead::is_grpc) {
                    body.push(b'\n');
                }
            }
        }
        body
    }
}
