//! Protobuf to [`HeaderMutations`].
use envoy_types::pb::envoy::config::core::v3 as core;

use super::{AppendAction, HeaderAddition, HeaderMutations};
use crate::access_log::{FormatPart, format};
use crate::field::{FieldPath, Rejection, verdicts};
use crate::scalar::Wrapped;

/// The four lists that tables, virtual hosts, routes and weighted clusters have.
pub(super) struct Protos {
    pub(super) request_headers_to_add: Vec<core::HeaderValueOption>,
    pub(super) request_headers_to_remove: Vec<String>,
    pub(super) response_headers_to_add: Vec<core::HeaderValueOption>,
    pub(super) response_headers_to_remove: Vec<String>,
}

/// Converts all four.
pub(super) fn mutations(at: &FieldPath<'_>, protos: Protos) -> Result<HeaderMutations, Rejection> {
    Ok(HeaderMutations {
        request_add: additions(at.field("request_headers_to_add"), protos.request_headers_to_add)?,
        request_remove: removals(
            at.field("request_headers_to_remove"),
            protos.request_headers_to_remove,
        )?,
        response_add: additions(
            at.field("response_headers_to_add"),
            protos.response_headers_to_add,
        )?,
        response_remove: removals(
            at.field("response_headers_to_remove"),
            protos.response_headers_to_remove,
        )?,
    })
}

/// Converts a list of headers to leave out.
pub(crate) fn removals(at: FieldPath<'_>, names: Vec<String>) -> Result<Vec<String>, Rejection> {
    names
        .into_iter()
        .enumerate()
        .map(|(index, name)| header_name(&at.index(index), &name))
        .collect()
}

/// Converts a list of headers to add.
pub(crate) fn additions(
    at: FieldPath<'_>,
    protos: Vec<core::HeaderValueOption>,
) -> Result<Vec<HeaderAddition>, Rejection> {
    let mut additions = Vec::with_capacity(protos.len());
    for (index, proto) in protos.into_iter().enumerate() {
        additions.extend(addition(&at.index(index), proto)?);
    }
    Ok(additions)
}

/// `None`: an empty value, which Envoy adds only with `keep_empty_value`.
pub(crate) fn addition(
    at: &FieldPath<'_>,
    proto: core::HeaderValueOption,
) -> Result<Option<HeaderAddition>, Rejection> {
    verdicts!(at, proto => core::HeaderValueOption { supported { header, append, append_action, keep_empty_value } });
    let header_at = at.field("header");
    verdicts!(header_at, header_at.required(header)? => core::HeaderValue { supported { key, value, raw_value } });
    let name = header_name(&header_at.field("key"), &key)?;
    let value = match (value.is_empty(), raw_value.is_empty()) {
        (_, true) => format(&header_at.field("value"), &value)?,
        (true, false) => {
            let field = header_at.field("raw_value");
            format(
                &field,
                &String::from_utf8(raw_value).map_err(|_| field.reject("is not UTF-8"))?,
            )?
        }
        (false, false) => return Err(header_at.reject("sets both value and raw_value")),
    };
    if value.is_empty() && !keep_empty_value {
        return Ok(None);
    }
    let action = AppendAction::from_proto(&at.field("append_action"), append_action)?;
    let action = match append.value() {
        None => action,
        Some(_) if append_action != 0 => return Err(at.reject("sets both append and append_action")),
        Some(true) => AppendAction::AppendIfExistsOrAdd,
        Some(false) => AppendAction::OverwriteIfExistsOrAdd,
    };
    Ok(Some(HeaderAddition {
        name,
        value,
        keeps_empty: keep_empty_value,
        action,
    }))
}

impl AppendAction {
    fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        use core::header_value_option::HeaderAppendAction;
        Ok(match at.enumeration(number)? {
            HeaderAppendAction::AppendIfExistsOrAdd => Self::AppendIfExistsOrAdd,
            HeaderAppendAction::AddIfAbsent => Self::AddIfAbsent,
            HeaderAppendAction::OverwriteIfExistsOrAdd => Self::OverwriteIfExistsOrAdd,
            HeaderAppendAction::OverwriteIfExists => Self::OverwriteIfExists,
        })
    }
}

/// A token of RFC 9110 §5.6.2, in lower case; pseudo-headers and `host` have fields of their own, as in Envoy.
pub(crate) fn header_name(at: &FieldPath<'_>, name: &str) -> Result<String, Rejection> {
    let name = at.not_empty(name.to_ascii_lowercase())?;
    if name.starts_with(':') || name == "host" {
        return Err(at.reject(format!("{name:?} cannot be changed here")));
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.bytes().all(token) {
        return Err(at.reject(format!("{name:?} is no header name")));
    }
    Ok(name)
}

/// A value with its commands.
fn format(at: &FieldPath<'_>, value: &str) -> Result<Vec<FormatPart>, Rejection> {
    let allowed = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    match value.bytes().all(allowed) {
        true => format::parse(at, value),
        false => Err(at.reject("has a byte that no header value may have")),
    }
}
