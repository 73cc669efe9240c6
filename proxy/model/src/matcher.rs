//! String and header matchers. Source: envoy/type/matcher/v3/string.proto, regex.proto; route_components.proto `HeaderMatcher`.
mod from_proto;
pub mod metadata;
mod predicate;
mod re2;

pub(crate) use from_proto::safe_regex;
pub use predicate::ResponsePredicate;
pub use re2::{ascii_classes, re2};

/// Matches one string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringMatcher {
    /// What to compare with.
    pub pattern: Pattern,
    /// ASCII case is ignored (not for regexes, as Envoy).
    pub ignore_case: bool,
}

/// The kinds of string comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The whole string equals.
    Exact(String),
    /// The string begins with.
    Prefix(String),
    /// The string ends with.
    Suffix(String),
    /// The string contains.
    Contains(String),
    /// The whole string matches this expression for the crate `regex`; validated to compile.
    Regex(String),
}

/// Matches one request header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatcher {
    /// Lower-case header name; `:method`, `:path`, `:authority`, `:scheme` are pseudo-headers.
    pub name: String,
    /// How its value is judged.
    pub kind: HeaderMatch,
    /// The result is negated.
    pub invert: bool,
    /// A missing header counts as an empty value.
    pub treat_missing_as_empty: bool,
}

/// The kinds of header judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMatch {
    /// Present (true) or absent (false).
    Present(bool),
    /// The value matches.
    String(StringMatcher),
    /// The value is an integer in `start..end`.
    Range {
        /// First value inside.
        start: i64,
        /// First value outside.
        end: i64,
    },
}
