//! Requests that change something are let on when they come from where they go to.
//! Source: envoy/extensions/filters/http/csrf/v3/csrf.proto; Envoy `CsrfFilter`.
use http::header::{ORIGIN, REFERER};
use http::{HeaderName, Method, StatusCode};
use outrigger_model::fraction::Fraction;
use outrigger_model::http_filter::csrf::CsrfPolicy;

use super::settings::RouteConfig;
use super::{Decode, Decoding, Filter, Scope};
use crate::codec::RequestHead;
use crate::http::local_reply::LocalReply;
use crate::http::matcher::StringMatcher;
use crate::http::url::AbsoluteUrl;
use crate::stats::Counter;

/// The filter at its place.
#[derive(Debug)]
pub(super) struct CsrfFilter {
    policy: Policy,
    missing_source_origin: Counter,
    request_invalid: Counter,
    request_valid: Counter,
}

/// A policy with its matchers ready.
#[derive(Debug)]
pub(super) struct Policy {
    enabled: Fraction,
    shadow: Fraction,
    origins: Vec<StringMatcher>,
}

impl Policy {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &CsrfPolicy) -> Result<Self, regex::Error> {
        let origins = config.additional_origins.iter().map(StringMatcher::new);
        Ok(Self {
            enabled: config.enabled,
            shadow: config.shadow,
            origins: origins.collect::<Result<_, _>>()?,
        })
    }

    fn allows(&self, source: &str, head: &RequestHead) -> bool {
        let target = head.authority.to_str().map(host_and_port).unwrap_or_default();
        source == target
            || self
                .origins
                .iter()
                .any(|origin| origin.matches(source.as_bytes()))
    }
}

impl CsrfFilter {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &CsrfPolicy, scope: &Scope<'_>) -> Result<Self, regex::Error> {
        Ok(Self {
            policy: Policy::new(config)?,
            missing_source_origin: scope.counter("csrf.missing_source_origin"),
            request_invalid: scope.counter("csrf.request_invalid"),
            request_valid: scope.counter("csrf.request_valid"),
        })
    }
}

/// Of a URL; what is none counts as it is.
fn host_and_port(text: &str) -> &str {
    AbsoluteUrl::parse(text).map_or(text, |url| url.authority)
}

/// Where the request comes from; empty: it does not say.
fn source(head: &RequestHead) -> &str {
    let of = |name: HeaderName| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.map(host_and_port).filter(|source| !source.is_empty())
    };
    match of(ORIGIN) {
        // A page that must not say where it is from.
        Some("null") => "",
        Some(origin) => origin,
        None => of(REFERER).unwrap_or_default(),
    }
}

impl Filter for CsrfFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        let policy = match request.config {
            Some(RouteConfig::Csrf(policy)) => policy,
            _ => &self.policy,
        };
        let is_enabled = request.draws(policy.enabled);
        if !is_enabled && !request.draws(policy.shadow) {
            return Decode::Continue;
        }
        let changes = [Method::POST, Method::PUT, Method::DELETE, Method::PATCH];
        if !changes.contains(&request.head.method) {
            return Decode::Continue;
        }
        let source = source(request.head);
        if source.is_empty() {
            self.missing_source_origin.inc();
        } else if policy.allows(source, request.head) {
            self.request_valid.inc();
            return Decode::Continue;
        } else {
            self.request_invalid.inc();
        }
        if !is_enabled {
            return Decode::Continue;
        }
        Decode::Reply(Box::new(LocalReply::new(
            StatusCode::FORBIDDEN,
            None,
            "csrf_origin_mismatch",
            "Invalid origin",
        )))
    }
}
