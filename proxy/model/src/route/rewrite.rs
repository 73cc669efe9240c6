//! Protobuf to [`RegexRewrite`], [`Redirect`] and [`PathRewrite`].
use envoy_types::pb::envoy::config::route::v3::{self as pb, redirect_action};
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;

use super::{PathRewrite, Redirect, RegexRewrite};
use crate::access_log::format;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::matcher::safe_regex;

impl RegexRewrite {
    /// Converts a pattern and what takes its place. A group that the pattern lacks is refused; Envoy would leave the path as it is.
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        proto: matcher::RegexMatchAndSubstitute,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => matcher::RegexMatchAndSubstitute { supported { pattern, substitution } });
        let field = at.field("pattern");
        let pattern = safe_regex(&field, field.required(pattern)?)?;
        // Only what compiles gets here.
        let groups = regex::Regex::new(&pattern).map_or(0, |regex| regex.captures_len() - 1);
        let substitution = substitution_template(&at.field("substitution"), &substitution, groups)?;
        Ok(Self {
            pattern,
            substitution,
        })
    }
}

/// RE2's `\1` as the crate's `${1}`. Source: RE2 `Rewrite`: a backslash stands before a digit or a backslash.
fn substitution_template(at: &FieldPath<'_>, text: &str, groups: usize) -> Result<String, Rejection> {
    let mut template = String::with_capacity(text.len());
    let mut chars = header_text(at, text)?.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            ('$', _) => template.push_str("$$"),
            (c, false) => template.push(c),
            (_, true) => match chars.next() {
                Some('\\') => template.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    let group = digit.to_digit(10).unwrap_or_default();
                    if group as usize > groups {
                        return Err(at.reject(format!(
                            "\\{group} stands for a group, and the pattern has {groups}"
                        )));
                    }
                    template.push_str(&format!("${{{group}}}"));
                }
                _ => return Err(at.reject("has a `\\` that stands before neither a digit nor another `\\`")),
            },
        }
    }
    Ok(template)
}

/// What may stand in a header. Source: the protos' `HTTP_HEADER_VALUE`.
pub(super) fn header_text<'t>(at: &FieldPath<'_>, text: &'t str) -> Result<&'t str, Rejection> {
    match text.contains(['\0', '\r', '\n']) {
        true => Err(at.reject("has a character that no header may have")),
        false => Ok(text),
    }
}

impl Redirect {
    /// Converts a redirect.
    pub(super) fn from_proto(at: &FieldPath<'_>, proto: pb::RedirectAction) -> Result<Self, Rejection> {
        use redirect_action::{RedirectResponseCode, SchemeRewriteSpecifier};
        verdicts!(at, proto => pb::RedirectAction {
            supported {
                host_redirect, port_redirect, response_code, strip_query, scheme_rewrite_specifier, path_rewrite_specifier,
            }
        });
        choices!(redirect_action::SchemeRewriteSpecifier { supported { HttpsRedirect, SchemeRedirect } });
        let scheme = match scheme_rewrite_specifier {
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => "https".to_owned(),
            Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => String::new(),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
                header_text(&at.field("scheme_redirect"), &scheme)?.to_owned()
            }
        };
        let port = match port_redirect {
            0 => None,
            port => Some(at.field("port_redirect").port(port)?),
        };
        Ok(Self {
            scheme: (!scheme.is_empty()).then_some(scheme),
            host: Some(header_text(&at.field("host_redirect"), &host_redirect)?.to_owned())
                .filter(|host| !host.is_empty()),
            port,
            path: PathRewrite::from_proto(at, path_rewrite_specifier)?,
            status: match at.field("response_code").enumeration(response_code)? {
                RedirectResponseCode::MovedPermanently => 301,
                RedirectResponseCode::Found => 302,
                RedirectResponseCode::SeeOther => 303,
                RedirectResponseCode::TemporaryRedirect => 307,
                RedirectResponseCode::PermanentRedirect => 308,
            },
            strip_query,
            keeps_usual_port: false,
        })
    }
}

impl PathRewrite {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<redirect_action::PathRewriteSpecifier>,
    ) -> Result<Option<Self>, Rejection> {
        use redirect_action::PathRewriteSpecifier;
        choices!(redirect_action::PathRewriteSpecifier {
            supported { PathRedirect, PrefixRewrite, RegexRewrite, PathRewrite }
        });
        let text = |field, text: String| header_text(&at.field(field), &text).map(str::to_owned);
        Ok(match proto {
            None => None,
            Some(PathRewriteSpecifier::PathRedirect(path)) if path.is_empty() => None,
            Some(PathRewriteSpecifier::PathRedirect(path)) => Some(Self::Whole(text("path_redirect", path)?)),
            Some(PathRewriteSpecifier::PrefixRewrite(prefix)) if prefix.is_empty() => None,
            Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
                Some(Self::Prefix(text("prefix_rewrite", prefix)?))
            }
            Some(PathRewriteSpecifier::RegexRewrite(proto)) => Some(Self::Regex(RegexRewrite::from_proto(
                &at.field("regex_rewrite"),
                proto,
            )?)),
            Some(PathRewriteSpecifier::PathRewrite(format)) if format.is_empty() => None,
            Some(PathRewriteSpecifier::PathRewrite(format)) => {
                let field = at.field("path_rewrite");
                Some(Self::Format(format::parse(
                    &field,
                    header_text(&field, &format)?,
                )?))
            }
        })
    }
}
