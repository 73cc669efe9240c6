//! Bodies of answers that are made of format strings. Source: envoy/config/core/v3/substitution_format_string.proto.
use envoy_types::pb::envoy::config::core::v3::{self as core, substitution_format_string::Format};

use crate::access_log::{FormatPart, format};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::secret::DataSource;

/// How a body is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyFormat {
    /// Literal text and commands; `%LOCAL_REPLY_BODY%` is the body as it is without a format.
    pub text: Vec<FormatPart>,
    /// Empty: `text/plain`.
    pub content_type: String,
    /// What is not there is nothing; else `-`.
    pub omits_empty: bool,
}

impl BodyFormat {
    /// Converts a format; `None`: it is JSON, which is listed, and the body is as it is without a format.
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        proto: core::SubstitutionFormatString,
    ) -> Result<Option<Self>, Rejection> {
        verdicts!(at, proto => core::SubstitutionFormatString {
            supported { format, content_type, omit_empty_values }
            inert { formatters: "bring commands, and those of Envoy's formatters are known without being brought" }
            unsupported { json_format_options: "telemetry" }
        });
        choices!(Format {
            supported { TextFormat, TextFormatSource }
            awaited "telemetry" { JsonFormat }
        });
        let text = match format {
            Some(Format::TextFormat(text)) => format::parse_body(&at.field("text_format"), &text)?,
            Some(Format::TextFormatSource(source)) => {
                let at = at.field("text_format_source");
                format::parse_body(&at, &inline(&at, source)?)?
            }
            Some(Format::JsonFormat(_)) => {
                at.field("json_format")
                    .problem("has no effect here: the telemetry issue builds it");
                return Ok(None);
            }
            None => return Err(at.reject("has no format")),
        };
        Ok(Some(Self {
            text,
            content_type,
            omits_empty: omit_empty_values,
        }))
    }
}

fn inline(at: &FieldPath<'_>, source: core::DataSource) -> Result<String, Rejection> {
    match DataSource::from_proto(at, Some(source))? {
        Some(DataSource::Inline(bytes)) => String::from_utf8(bytes).map_err(|_| at.reject("is not UTF-8")),
        _ => Err(at.reject("must be written inline")),
    }
}
