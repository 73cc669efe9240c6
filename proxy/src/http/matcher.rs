//! String and header matchers, compiled when a route table is built.
use outrigger_model::matcher::{
    HeaderMatch, HeaderMatcher as HeaderConfig, Pattern, ResponsePredicate, StringMatcher as StringConfig,
};
use regex::bytes::Regex;

use crate::codec::{RequestHead, ResponseHead};

/// Compares one string.
#[derive(Debug, Clone)]
pub(super) struct StringMatcher {
    test: Test,
    ignore_case: bool,
}

#[derive(Debug, Clone)]
enum Test {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Contains(Vec<u8>),
    Regex(Regex),
}

/// A regular expression that has to match the whole text, as RE2's FullMatch in Envoy.
///
/// # Errors
/// The expression is no valid one; the model refuses such before.
pub(super) fn full_match(expression: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!(r"\A(?:{expression})\z"))
}

impl StringMatcher {
    /// # Errors
    /// The regular expression does not compile.
    pub(super) fn new(config: &StringConfig) -> Result<Self, regex::Error> {
        let bytes = |text: &String| {
            if config.ignore_case {
                text.to_ascii_lowercase().into_bytes()
            } else {
                text.clone().into_bytes()
            }
        };
        let test = match &config.pattern {
            Pattern::Exact(text) => Test::Exact(bytes(text)),
            Pattern::Prefix(text) => Test::Prefix(bytes(text)),
            Pattern::Suffix(text) => Test::Suffix(bytes(text)),
            Pattern::Contains(text) => Test::Contains(bytes(text)),
            Pattern::Regex(text) => Test::Regex(full_match(text)?),
        };
        Ok(Self {
            test,
            ignore_case: config.ignore_case,
        })
    }

    /// Allocates only for `ignore_case`.
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        if self.ignore_case && !matches!(self.test, Test::Regex(_)) {
            return self.test.matches(&value.to_ascii_lowercase());
        }
        self.test.matches(value)
    }
}

impl Test {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Test::Exact(text) => value == text,
            Test::Prefix(text) => value.starts_with(text),
            Test::Suffix(text) => value.ends_with(text),
            Test::Contains(text) => text.is_empty() || value.windows(text.len()).any(|part| part == text),
            Test::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Judges one header of a request.
#[derive(Debug, Clone)]
pub(super) struct HeaderMatcher {
    name: String,
    test: HeaderTest,
    invert: bool,
    treat_missing_as_empty: bool,
}

#[derive(Debug, Clone)]
enum HeaderTest {
    Present(bool),
    String(StringMatcher),
    Range(i64, i64),
}

impl HeaderMatcher {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &HeaderConfig) -> Result<Self, regex::Error> {
        let test = match &config.kind {
            HeaderMatch::Present(present) => HeaderTest::Present(*present),
            HeaderMatch::String(string) => HeaderTest::String(StringMatcher::new(string)?),
            HeaderMatch::Range { start, end } => HeaderTest::Range(*start, *end),
        };
        Ok(Self {
            name: config.name.clone(),
            test,
            invert: config.invert,
            treat_missing_as_empty: config.treat_missing_as_empty,
        })
    }

    /// Of several values of one name one has to match; inverted, none may. A missing header matches only what asks for its absence.
    /// Source: Envoy 1.40, `HeaderUtility::HeaderData::matchesHeaders`.
    pub(super) fn matches(&self, head: &RequestHead) -> bool {
        let is_single = self.name.starts_with(':') || self.name == "host";
        let single = is_single.then(|| head.header(&self.name)).flatten();
        self.judge(single, (!is_single).then_some(&head.headers))
    }

    /// As [`Self::matches`] for a response, whose only pseudo-header is `:status`.
    pub(super) fn matches_response(&self, head: &ResponseHead) -> bool {
        let is_single = self.name.starts_with(':');
        let single = (self.name == ":status").then(|| head.status.as_str().as_bytes());
        self.judge(single, (!is_single).then_some(&head.headers))
    }

    /// Judges one value, or those of the name in `headers`.
    fn judge(&self, single: Option<&[u8]>, headers: Option<&http::HeaderMap>) -> bool {
        let named = headers.map(|headers| headers.get_all(&self.name).iter());
        let mut values = single
            .into_iter()
            .chain(named.into_iter().flatten().map(http::HeaderValue::as_bytes))
            .peekable();
        let is_present = values.peek().is_some();
        if let HeaderTest::Present(expected) = self.test {
            return (is_present == expected) != self.invert;
        }
        let matched = match (is_present, self.treat_missing_as_empty) {
            (true, _) => values.any(|value| self.test.matches(value)),
            (false, true) => self.test.matches(b""),
            (false, false) => return false,
        };
        matched != self.invert
    }
}

/// Judges the head of a response.
#[derive(Debug)]
pub(super) enum ResponseMatcher {
    Any(Vec<ResponseMatcher>),
    All(Vec<ResponseMatcher>),
    Not(Box<ResponseMatcher>),
    Headers(Vec<HeaderMatcher>),
    Never,
}

impl ResponseMatcher {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &ResponsePredicate) -> Result<Self, regex::Error> {
        let each = |rules: &[ResponsePredicate]| rules.iter().map(Self::new).collect::<Result<Vec<_>, _>>();
        Ok(match config {
            ResponsePredicate::Any(rules) => Self::Any(each(rules)?),
            ResponsePredicate::All(rules) => Self::All(each(rules)?),
            ResponsePredicate::Not(rule) => Self::Not(Box::new(Self::new(rule)?)),
            ResponsePredicate::Headers(headers) => {
                Self::Headers(headers.iter().map(HeaderMatcher::new).collect::<Result<_, _>>()?)
            }
            ResponsePredicate::Never => Self::Never,
        })
    }

    /// It holds of this one.
    pub(super) fn matches(&self, head: &ResponseHead) -> bool {
        match self {
            Self::Any(rules) => rules.iter().any(|rule| rule.matches(head)),
            Self::All(rules) => rules.iter().all(|rule| rule.matches(head)),
            Self::Not(rule) => !rule.matches(head),
            Self::Headers(headers) => headers.iter().all(|header| header.matches_response(head)),
            Self::Never => false,
        }
    }
}

impl HeaderTest {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Present(_) => true,
            Self::String(string) => string.matches(value),
            Self::Range(start, end) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| (*start..*end).contains(&number)),
        }
    }
}
