//! Protobuf to [`StringMatcher`] and [`HeaderMatcher`].
use envoy_types::pb::envoy::config::route::v3::{self as route, header_matcher::HeaderMatchSpecifier};
use envoy_types::pb::envoy::r#type::matcher::v3::{self as pb, string_matcher::MatchPattern};
use envoy_types::pb::envoy::r#type::v3 as range;

use super::{HeaderMatch, HeaderMatcher, Pattern, StringMatcher, re2};
use crate::field::{FieldPath, Rejection, choices, verdicts};

impl StringMatcher {
    /// Converts a matcher.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::StringMatcher) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::StringMatcher { supported { ignore_case, match_pattern } });
        choices!(MatchPattern {
            supported { Exact, Prefix, Suffix, SafeRegex, Contains }
            refused { Custom: "no matcher extension exists here" }
        });
        let not_empty = |field, text| at.field(field).not_empty(text);
        let pattern = match at.required(match_pattern)? {
            MatchPattern::Exact(text) => Pattern::Exact(text),
            MatchPattern::Prefix(text) => Pattern::Prefix(not_empty("prefix", text)?),
            MatchPattern::Suffix(text) => Pattern::Suffix(not_empty("suffix", text)?),
            MatchPattern::Contains(text) => Pattern::Contains(not_empty("contains", text)?),
            MatchPattern::SafeRegex(regex) => Pattern::Regex(safe_regex(&at.field("safe_regex"), regex)?),
            MatchPattern::Custom(_) => return Err(at.field("custom").reject("is not supported")),
        };
        Ok(Self { pattern, ignore_case })
    }

    /// Converts a list of matchers.
    pub(crate) fn list(at: FieldPath<'_>, protos: Vec<pb::StringMatcher>) -> Result<Vec<Self>, Rejection> {
        protos
            .into_iter()
            .enumerate()
            .map(|(index, proto)| Self::from_proto(&at.index(index), proto))
            .collect()
    }
}

/// An RE2 expression, as one for the crate `regex`, checked to be one; matched against the whole string.
pub(crate) fn safe_regex(at: &FieldPath<'_>, proto: pb::RegexMatcher) -> Result<String, Rejection> {
    verdicts!(at, proto => pb::RegexMatcher {
        supported { regex }
        inert { engine_type: "RE2 is the only engine, and its program size limit has been ignored since Envoy 1.15" }
    });
    let field = at.field("regex");
    let translated = re2(&field.not_empty(regex.clone())?);
    match regex::Regex::new(&translated) {
        Ok(_) => Ok(translated),
        Err(error) => {
            // The crate's message draws the expression over several lines; the last one says what is wrong.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            Err(field.reject(format!("{regex:?} is no regular expression: {last}")))
        }
    }
}

impl HeaderMatcher {
    /// Converts a matcher.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: route::HeaderMatcher) -> Result<Self, Rejection> {
        verdicts!(at, proto => route::HeaderMatcher {
            supported { name, invert_match, treat_missing_header_as_empty, header_match_specifier }
        });
        choices!(HeaderMatchSpecifier {
            supported {
                ExactMatch, SafeRegexMatch, RangeMatch, PresentMatch, PrefixMatch, SuffixMatch, ContainsMatch, StringMatch,
            }
        });
        Ok(Self {
            name: at.field("name").not_empty(name)?.to_ascii_lowercase(),
            kind: header_match(at, header_match_specifier)?,
            invert: invert_match,
            treat_missing_as_empty: treat_missing_header_as_empty,
        })
    }

    /// Converts a list of matchers.
    pub(crate) fn list(at: FieldPath<'_>, protos: Vec<route::HeaderMatcher>) -> Result<Vec<Self>, Rejection> {
        protos
            .into_iter()
            .enumerate()
            .map(|(index, proto)| Self::from_proto(&at.index(index), proto))
            .collect()
    }
}

fn header_match(at: &FieldPath<'_>, proto: Option<HeaderMatchSpecifier>) -> Result<HeaderMatch, Rejection> {
    let string = |pattern| {
        Ok(HeaderMatch::String(StringMatcher {
            pattern,
            ignore_case: false,
        }))
    };
    match proto {
        None => Ok(HeaderMatch::Present(true)),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => Ok(HeaderMatch::Present(present)),
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => Ok(HeaderMatch::String(
            StringMatcher::from_proto(&at.field("string_match"), matcher)?,
        )),
        Some(HeaderMatchSpecifier::RangeMatch(proto)) => {
            verdicts!(at, proto => range::Int64Range { supported { start, end } });
            Ok(HeaderMatch::Range { start, end })
        }
        Some(HeaderMatchSpecifier::ExactMatch(text)) => string(Pattern::Exact(text)),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => {
            string(Pattern::Prefix(at.field("prefix_match").not_empty(text)?))
        }
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => {
            string(Pattern::Suffix(at.field("suffix_match").not_empty(text)?))
        }
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
            string(Pattern::Contains(at.field("contains_match").not_empty(text)?))
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
            string(Pattern::Regex(safe_regex(&at.field("safe_regex_match"), regex)?))
        }
    }
}
