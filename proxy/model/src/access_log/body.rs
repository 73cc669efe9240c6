//! Protobuf to [`BodyFormat`]: what the bodies of answers made here are made by.
use envoy_types::pb::envoy::config::core::v3::{self as core, substitution_format_string::Format};

use super::{BodyFormat, BodyTemplate, JsonTemplate, format};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::fraction::Decimal;
use crate::metadata::{Value, struct_from_proto};
use crate::secret::DataSource;

impl BodyFormat {
    /// Converts the format of a body.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        proto: core::SubstitutionFormatString,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => core::SubstitutionFormatString {
            supported { format, content_type, omit_empty_values }
            inert { formatters: "bring commands, and those of Envoy's formatters are known without being brought" }
            unsupported { json_format_options: "telemetry" }
        });
        choices!(Format { supported { TextFormat, TextFormatSource, JsonFormat } });
        let template = match format {
            Some(Format::TextFormat(text)) => {
                BodyTemplate::Text(format::parse(&at.field("text_format"), &text)?)
            }
            Some(Format::TextFormatSource(source)) => {
                let at = at.field("text_format_source");
                let text = inline_text(&at, Some(source))?.unwrap_or_default();
                BodyTemplate::Text(format::parse(&at, &text)?)
            }
            Some(Format::JsonFormat(proto)) => {
                let at = at.field("json_format");
                let object = Value::Struct(struct_from_proto(&at, proto)?);
                BodyTemplate::Json(JsonTemplate::new(&at, object)?)
            }
            None => return Err(at.reject("has no format")),
        };
        let usual = match &template {
            BodyTemplate::Text(_) => "text/plain",
            BodyTemplate::Json(_) => "application/json",
        };
        let media_type = match content_type.is_empty() {
            true => usual.to_owned(),
            false => content_type,
        };
        if media_type.contains(|letter: char| letter.is_control()) {
            return Err(at
                .field("content_type")
                .reject(format!("{media_type:?} is no value of a header")));
        }
        Ok(Self {
            media_type,
            template,
            omits_missing: omit_empty_values,
        })
    }
}

impl JsonTemplate {
    fn new(at: &FieldPath<'_>, value: Value) -> Result<Self, Rejection> {
        Ok(match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => Self::Number(Decimal(number)),
            Value::String(text) => Self::String(format::parse(at, &text)?),
            Value::List(items) => {
                let items = items.into_iter().map(|item| Self::new(at, item));
                Self::List(items.collect::<Result<_, _>>()?)
            }
            // In order: it is a sorted map.
            Value::Struct(object) => {
                let mut fields = Vec::with_capacity(object.len());
                for (key, value) in object {
                    let value = Self::new(&at.field(&key), value)?;
                    fields.push((key, value));
                }
                Self::Object(fields)
            }
        })
    }
}

/// Text that is written in the configuration, if it is set.
///
/// # Errors
/// It is elsewhere, or no UTF-8.
pub(crate) fn inline_text(
    at: &FieldPath<'_>,
    proto: Option<core::DataSource>,
) -> Result<Option<String>, Rejection> {
    match DataSource::from_proto(at, proto)? {
        None => Ok(None),
        Some(DataSource::Inline(bytes)) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| at.reject("is not UTF-8")),
        Some(DataSource::File(_)) => Err(at.reject("only inline_string and inline_bytes are supported")),
    }
}
