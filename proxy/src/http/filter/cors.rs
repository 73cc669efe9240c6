//! CORS: answers preflights, and tells pages of other origins that they may read responses.
//! Source: envoy/extensions/filters/http/cors/v3/cors.proto; Envoy `CorsFilter`; Fetch, "CORS protocol".
use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use outrigger_model::fraction::Fraction;
use outrigger_model::http_filter::cors::CorsPolicy;

use super::settings::RouteConfig;
use super::{Decode, Decoding, Encoding, Filter, Scope};
use crate::http::local_reply::LocalReply;
use crate::http::matcher::StringMatcher;
use crate::stats::Counter;

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The filter at its place.
#[derive(Debug)]
pub(super) struct Cors {
    origin_valid: Counter,
    origin_invalid: Counter,
}

/// What one level says.
#[derive(Debug)]
pub(super) struct Policy {
    origins: Vec<StringMatcher>,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    allow_credentials: Option<bool>,
    allow_private_network: Option<bool>,
    forwards_other_preflights: Option<bool>,
    enabled: Fraction,
    shadow: Fraction,
}

/// What the response to a page of another origin is told.
#[derive(Debug)]
pub(super) struct Answer {
    origin: HeaderValue,
    has_credentials: bool,
    expose: Option<HeaderValue>,
}

impl Policy {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &CorsPolicy) -> Result<Self, regex::Error> {
        let value = |text: &str| {
            let value = HeaderValue::from_str(text).ok();
            value.filter(|value| !value.is_empty())
        };
        Ok(Self {
            origins: config
                .origins
                .iter()
                .map(StringMatcher::new)
                .collect::<Result<_, _>>()?,
            methods: value(&config.methods),
            headers: value(&config.headers),
            expose: value(&config.expose),
            max_age: value(&config.max_age),
            allow_credentials: config.allow_credentials,
            allow_private_network: config.allow_private_network,
            forwards_other_preflights: config.forwards_other_preflights,
            enabled: config.enabled,
            shadow: config.shadow,
        })
    }
}

/// The policies of a request, the innermost first: the first that says something counts.
#[derive(Clone, Copy)]
struct Policies<'a>(&'a [Arc<Policy>]);

impl<'a> Policies<'a> {
    fn first<T>(self, part: impl Fn(&'a Policy) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(|policy| part(policy))
    }

    fn allows(self, origin: &HeaderValue) -> bool {
        let origins = self.first(|policy| Some(&policy.origins).filter(|origins| !origins.is_empty()));
        let mut origins = origins.into_iter().flatten();
        origins.any(|one| one.matches(b"*") || one.matches(origin.as_bytes()))
    }

    fn has_credentials(self) -> bool {
        self.first(|policy| policy.allow_credentials).unwrap_or(false)
    }
}

impl Cors {
    pub(super) fn new(scope: &Scope<'_>) -> Self {
        Self {
            origin_valid: scope.counter("cors.origin_valid"),
            origin_invalid: scope.counter("cors.origin_invalid"),
        }
    }
}

impl Filter for Cors {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        // As Envoy: a direct response or a redirect has no policies.
        if !request.is_forwarded {
            return Decode::Continue;
        }
        let policies = match request.config {
            Some(RouteConfig::Cors(policies)) => policies,
            _ => &request.settings.cors[..],
        };
        let Some(innermost) = policies.first() else {
            return Decode::Continue;
        };
        let enabled = request.draws(innermost.enabled);
        if !enabled && !request.draws(innermost.shadow) {
            return Decode::Continue;
        }
        let origin = request
            .head
            .headers
            .get(ORIGIN)
            .filter(|origin| !origin.is_empty());
        let Some(origin) = origin.cloned() else {
            return Decode::Continue;
        };
        let policies = Policies(policies);
        let is_allowed = policies.allows(&origin);
        if is_allowed {
            self.origin_valid.inc();
        } else {
            self.origin_invalid.inc();
        }
        if !enabled {
            return Decode::Continue;
        }
        if is_allowed {
            request.state.cors = Some(Answer {
                origin: origin.clone(),
                has_credentials: policies.has_credentials(),
                expose: policies.first(|policy| policy.expose.clone()),
            });
        }
        let asked = |name| {
            let value: Option<&HeaderValue> = request.head.headers.get(name);
            value.filter(|value| !value.is_empty())
        };
        let Some(method) =
            asked(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| request.head.method == Method::OPTIONS)
        else {
            return Decode::Continue;
        };
        let forwards = || {
            policies
                .first(|policy| policy.forwards_other_preflights)
                .unwrap_or(true)
        };
        if !is_allowed && forwards() {
            return Decode::Continue;
        }
        let mut reply = LocalReply::new(StatusCode::OK, None, "cors_response", "");
        reply.is_plain = true;
        let mut say = |name: HeaderName, value: Option<HeaderValue>| {
            reply.headers.extend(value.map(|value| (name, value)));
        };
        let yes = |is_so: bool| is_so.then(|| HeaderValue::from_static("true"));
        say(ACCESS_CONTROL_ALLOW_ORIGIN, is_allowed.then_some(origin));
        say(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes(policies.has_credentials()));
        // A star stands for what was asked for.
        let or_asked = |listed: HeaderValue, asked: Option<&HeaderValue>| match listed.as_bytes() {
            b"*" => Some(asked.cloned().unwrap_or_else(|| HeaderValue::from_static(""))),
            _ => Some(listed),
        };
        let methods = policies.first(|policy| policy.methods.clone());
        say(
            ACCESS_CONTROL_ALLOW_METHODS,
            methods.and_then(|methods| or_asked(methods, Some(method))),
        );
        let headers = policies.first(|policy| policy.headers.clone());
        let asked_headers = asked(ACCESS_CONTROL_REQUEST_HEADERS);
        say(
            ACCESS_CONTROL_ALLOW_HEADERS,
            headers.and_then(|headers| or_asked(headers, asked_headers)),
        );
        say(
            ACCESS_CONTROL_MAX_AGE,
            policies.first(|policy| policy.max_age.clone()),
        );
        let is_private = policies.first(|policy| policy.allow_private_network) == Some(true)
            && asked(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true");
        say(ALLOW_PRIVATE_NETWORK, yes(is_private));
        Decode::Reply(Box::new(reply))
    }

    fn encode(&self, response: &mut Encoding<'_>) {
        let Some(answer) = response.state.cors.take() else {
            return;
        };
        let headers: &mut HeaderMap = &mut response.head.headers;
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, answer.origin);
        if answer.has_credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = answer.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
    }
}
