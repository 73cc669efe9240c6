//! Whether a route takes a request. Source: route_components.proto `RouteMatch`; Envoy `RouteEntryImplBase::matchRoute`.
use std::cell::{Cell, RefCell};

use http::Method;
use http::header::COOKIE;
use outrigger_model::fraction::Fraction;
use outrigger_model::route::{CookieMatcher as CookieConfig, PathMatch, QueryMatch, RouteMatch};
use regex::bytes::Regex;

use super::index::Key;
use crate::codec::RequestHead;
use crate::http::matcher::{HeaderMatcher, StringMatcher, full_match};

/// What routes are asked about.
pub(crate) struct Asked<'a> {
    pub(in crate::http) head: &'a RequestHead,
    /// The client has shown a certificate; what is not verified is not let in.
    pub(in crate::http) has_certificate: bool,
    random: RefCell<&'a mut fastrand::Rng>,
    /// The same for all routes.
    ticket: Cell<Option<u32>>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(head: &'a RequestHead, has_certificate: bool, random: &'a mut fastrand::Rng) -> Self {
        Self {
            head,
            has_certificate,
            random: RefCell::new(random),
            ticket: Cell::new(None),
        }
    }

    fn is_within(&self, share: Fraction) -> bool {
        if share == Fraction::ALL {
            return true;
        }
        let ticket = self
            .ticket
            .get()
            .unwrap_or_else(|| self.random.borrow_mut().u32(0..Fraction::ALL.0));
        self.ticket.set(Some(ticket));
        ticket < share.0
    }
}

/// When a route applies.
#[derive(Debug)]
pub(super) struct Criteria {
    path: PathTest,
    case_sensitive: bool,
    headers: Vec<HeaderMatcher>,
    query: Vec<(String, QueryTest)>,
    cookies: Vec<CookieMatcher>,
    only_grpc: bool,
    share: Fraction,
    certificate: [Option<bool>; 2],
}

#[derive(Debug)]
enum PathTest {
    Prefix(String),
    Exact(String),
    SeparatedPrefix(String),
    Regex(Regex),
    Connect,
}

/// Judges a query parameter.
#[derive(Debug)]
pub(in crate::http) enum QueryTest {
    Present(bool),
    Value(StringMatcher),
}

#[derive(Debug)]
struct CookieMatcher {
    name: String,
    test: StringMatcher,
    invert: bool,
}

impl Criteria {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &RouteMatch) -> Result<Self, regex::Error> {
        let query = config.query_parameters.iter();
        let query = query.map(|(name, test)| Ok((name.clone(), QueryTest::new(test)?)));
        let headers = config.headers.iter().map(HeaderMatcher::new);
        let cookies = config.cookies.iter().map(CookieMatcher::new);
        Ok(Self {
            path: PathTest::new(&config.path, config.case_sensitive)?,
            case_sensitive: config.case_sensitive,
            headers: headers.collect::<Result<_, _>>()?,
            query: query.collect::<Result<_, regex::Error>>()?,
            cookies: cookies.collect::<Result<_, _>>()?,
            only_grpc: config.only_grpc,
            share: config.runtime_share,
            certificate: [config.certificate_presented, config.certificate_validated],
        })
    }

    /// How the path is looked up.
    pub(super) fn key(&self) -> Key<'_> {
        match &self.path {
            _ if !self.case_sensitive => Key::Any,
            PathTest::Prefix(prefix) | PathTest::SeparatedPrefix(prefix) => Key::Prefix(prefix),
            PathTest::Exact(path) => Key::Exact(path),
            PathTest::Regex(_) | PathTest::Connect => Key::Any,
        }
    }

    /// Bytes of the path that a prefix rewrite replaces.
    pub(super) fn matched_bytes(&self, path: &str) -> usize {
        match &self.path {
            PathTest::Prefix(text) | PathTest::Exact(text) | PathTest::SeparatedPrefix(text) => text.len(),
            PathTest::Regex(_) | PathTest::Connect => path.len(),
        }
    }

    /// Whether this request is meant. `path` has no query.
    pub(super) fn match_request(&self, asked: &Asked<'_>, path: &str, query: &str) -> bool {
        let Asked {
            head,
            has_certificate,
            ..
        } = asked;
        let [presented, validated] = self.certificate;
        let is_for_connect = matches!(self.path, PathTest::Connect);
        is_for_connect == (head.method == Method::CONNECT)
            && self.path.matches(path, self.case_sensitive)
            && asked.is_within(self.share)
            && (!self.only_grpc || head.is_grpc())
            && self.headers.iter().all(|header| header.matches(head))
            && self
                .query
                .iter()
                .all(|(name, test)| test.matches(query_value(query, name).map(str::as_bytes)))
            && self.cookies.iter().all(|cookie| cookie.matches(head))
            && presented.is_none_or(|presented| presented == *has_certificate)
            && validated.is_none_or(|validated| validated == *has_certificate)
    }
}

impl PathTest {
    fn new(config: &PathMatch, case_sensitive: bool) -> Result<Self, regex::Error> {
        let text = |text: &String| {
            if case_sensitive {
                text.clone()
            } else {
                text.to_ascii_lowercase()
            }
        };
        Ok(match config {
            PathMatch::Prefix(prefix) => PathTest::Prefix(text(prefix)),
            PathMatch::Exact(path) => PathTest::Exact(text(path)),
            PathMatch::SeparatedPrefix(prefix) => PathTest::SeparatedPrefix(text(prefix)),
            PathMatch::Regex(regex) => PathTest::Regex(full_match(regex)?),
            PathMatch::Connect => PathTest::Connect,
        })
    }

    fn matches(&self, path: &str, case_sensitive: bool) -> bool {
        let lowered;
        let path = if case_sensitive || matches!(self, PathTest::Regex(_)) {
            path
        } else {
            lowered = path.to_ascii_lowercase();
            lowered.as_str()
        };
        match self {
            PathTest::Prefix(prefix) => path.starts_with(prefix.as_str()),
            PathTest::Exact(exact) => path == exact,
            PathTest::SeparatedPrefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            PathTest::Regex(regex) => regex.is_match(path.as_bytes()),
            PathTest::Connect => true,
        }
    }
}

impl QueryTest {
    /// # Errors
    /// A regular expression does not compile.
    pub(in crate::http) fn new(config: &QueryMatch) -> Result<Self, regex::Error> {
        Ok(match config {
            QueryMatch::Present(present) => Self::Present(*present),
            QueryMatch::Value(value) => Self::Value(StringMatcher::new(value)?),
        })
    }

    /// The first value of a parameter; `None`: the query has none.
    pub(in crate::http) fn matches(&self, value: Option<&[u8]>) -> bool {
        match self {
            Self::Present(present) => value.is_some() == *present,
            Self::Value(test) => value.is_some_and(|value| test.matches(value)),
        }
    }
}

/// The first value of a query parameter, as it is written.
pub(in crate::http) fn query_value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

impl CookieMatcher {
    fn new(config: &CookieConfig) -> Result<Self, regex::Error> {
        Ok(Self {
            name: config.cookie.clone(),
            test: StringMatcher::new(&config.test)?,
            invert: config.invert,
        })
    }

    fn matches(&self, head: &RequestHead) -> bool {
        let matched = cookie_value(head, &self.name).is_some_and(|value| self.test.matches(value));
        matched != self.invert
    }
}

/// The first value of a cookie, without quotes. Source: Envoy `Http::Utility::parseCookieValue`.
pub(in crate::http) fn cookie_value<'h>(head: &'h RequestHead, name: &str) -> Option<&'h [u8]> {
    let cookies = head.headers.get_all(COOKIE).iter();
    let mut pairs = cookies.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = pair.split_at_checked(equals)?;
        let value = value.get(1..)?;
        let unquoted = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        (key == name.as_bytes()).then_some(unquoted.unwrap_or(value))
    })
}
