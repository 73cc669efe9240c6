//! Matchers of metadata and filter state. Source: envoy/type/matcher/v3/{metadata,value,filter_state,address}.proto.
//! Awaits the security issue.
use envoy_types::pb::envoy::r#type::matcher::v3::{
    self as pb, double_matcher, filter_state_matcher, list_matcher, metadata_matcher, value_matcher,
};
use envoy_types::pb::envoy::r#type::v3 as range;
use ipnet::IpNet;

use super::StringMatcher;
use crate::address::cidr_list;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::fraction::Decimal;

/// Looks at one value of metadata. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataMatcher {
    /// The namespace: a filter's name.
    pub namespace: String,
    /// Keys from the outside in; at least one.
    pub path: Vec<String>,
    /// What the value must be.
    pub value: ValueMatcher,
    /// The result is negated.
    pub invert: bool,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatcher {
    /// Null.
    Null,
    /// This number.
    Number(Decimal),
    /// A number in `start..end`.
    NumberRange {
        /// First inside.
        start: Decimal,
        /// First outside.
        end: Decimal,
    },
    /// A string.
    String(StringMatcher),
    /// This truth.
    Bool(bool),
    /// There (true) or not (false).
    Present(bool),
    /// A list with an item that matches.
    OneOf(Box<ValueMatcher>),
    /// One of these.
    Or(Vec<ValueMatcher>),
}

/// Looks at one object of the filter state. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterStateMatcher {
    /// Its name.
    pub key: String,
    /// What it must be.
    pub value: FilterStateValue,
}

/// What an object must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterStateValue {
    /// Its text matches.
    String(StringMatcher),
    /// An address in one of these ranges.
    Address {
        /// The ranges.
        ranges: Vec<IpNet>,
        /// In none of them.
        invert: bool,
    },
}

impl MetadataMatcher {
    /// Converts a matcher.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::MetadataMatcher) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::MetadataMatcher { awaited "security" { filter, path, value, invert } });
        if path.is_empty() {
            return Err(at.field("path").reject("needs at least one item"));
        }
        let segments = path.into_iter().enumerate().map(|(index, proto)| {
            let at = at.field("path").index(index);
            verdicts!(at, proto => metadata_matcher::PathSegment { awaited "security" { segment } });
            choices!(metadata_matcher::path_segment::Segment { awaited "security" { Key } });
            let metadata_matcher::path_segment::Segment::Key(key) = at.required(segment)?;
            at.field("key").not_empty(key)
        });
        let field = at.field("value");
        Ok(Self {
            namespace: at.field("filter").not_empty(filter)?,
            path: segments.collect::<Result<_, _>>()?,
            value: ValueMatcher::from_proto(&field, field.required(value)?)?,
            invert,
        })
    }
}

impl ValueMatcher {
    fn from_proto(at: &FieldPath<'_>, proto: pb::ValueMatcher) -> Result<Self, Rejection> {
        use value_matcher::{MatchPattern, NullMatch};
        verdicts!(at, proto => pb::ValueMatcher { awaited "security" { match_pattern } });
        choices!(value_matcher::MatchPattern {
            awaited "security" { NullMatch, DoubleMatch, StringMatch, BoolMatch, PresentMatch, ListMatch, OrMatch }
        });
        Ok(match at.required(match_pattern)? {
            MatchPattern::NullMatch(proto) => {
                verdicts!((), proto => NullMatch {});
                Self::Null
            }
            MatchPattern::DoubleMatch(proto) => number(&at.field("double_match"), proto)?,
            MatchPattern::StringMatch(proto) => {
                Self::String(StringMatcher::from_proto(&at.field("string_match"), proto)?)
            }
            MatchPattern::BoolMatch(value) => Self::Bool(value),
            MatchPattern::PresentMatch(value) => Self::Present(value),
            MatchPattern::ListMatch(proto) => {
                let at = at.field("list_match");
                verdicts!(at, *proto => pb::ListMatcher { awaited "security" { match_pattern } });
                choices!(list_matcher::MatchPattern { awaited "security" { OneOf } });
                let list_matcher::MatchPattern::OneOf(proto) = at.required(match_pattern)?;
                Self::OneOf(Box::new(Self::from_proto(&at.field("one_of"), *proto)?))
            }
            MatchPattern::OrMatch(proto) => {
                verdicts!((), proto => pb::OrMatcher { awaited "security" { value_matchers } });
                let at = at.field("or_match");
                let at = at.field("value_matchers");
                if value_matchers.len() < 2 {
                    return Err(at.reject("needs at least two items"));
                }
                let items = value_matchers.into_iter().enumerate();
                let items = items.map(|(index, proto)| Self::from_proto(&at.index(index), proto));
                Self::Or(items.collect::<Result<_, _>>()?)
            }
        })
    }
}

fn number(at: &FieldPath<'_>, proto: pb::DoubleMatcher) -> Result<ValueMatcher, Rejection> {
    use double_matcher::MatchPattern;
    verdicts!(at, proto => pb::DoubleMatcher { awaited "security" { match_pattern } });
    choices!(double_matcher::MatchPattern { awaited "security" { Range, Exact } });
    let finite = |value: f64| match value.is_finite() {
        true => Ok(Decimal(value)),
        false => Err(at.reject(format!("{value} is no finite number"))),
    };
    match at.required(match_pattern)? {
        MatchPattern::Exact(value) => Ok(ValueMatcher::Number(finite(value)?)),
        MatchPattern::Range(proto) => {
            verdicts!((), proto => range::DoubleRange { awaited "security" { start, end } });
            Ok(ValueMatcher::NumberRange {
                start: finite(start)?,
                end: finite(end)?,
            })
        }
    }
}

impl FilterStateMatcher {
    /// Converts a matcher.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::FilterStateMatcher) -> Result<Self, Rejection> {
        use filter_state_matcher::Matcher;
        verdicts!(at, proto => pb::FilterStateMatcher { awaited "security" { key, matcher } });
        choices!(filter_state_matcher::Matcher { awaited "security" { StringMatch, AddressMatch } });
        let value = match at.required(matcher)? {
            Matcher::StringMatch(proto) => {
                FilterStateValue::String(StringMatcher::from_proto(&at.field("string_match"), proto)?)
            }
            Matcher::AddressMatch(proto) => {
                let at = at.field("address_match");
                verdicts!(at, proto => pb::AddressMatcher { awaited "security" { ranges, invert_match } });
                FilterStateValue::Address {
                    ranges: cidr_list(at.field("ranges"), ranges)?,
                    invert: invert_match,
                }
            }
        };
        Ok(Self {
            key: at.field("key").not_empty(key)?,
            value,
        })
    }
}
