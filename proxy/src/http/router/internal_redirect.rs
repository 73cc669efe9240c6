//! Redirects of an upstream that are followed here: the same request passes once more, to where the redirect says, and the client sees
//! only where it ends. Each pass is a stream of its own, with its log line.
//! Source: Envoy `Router::Filter::setupRedirect`, `convertRequestHeadersForInternalRedirect`; docs, "Internal redirects".
use std::cell::RefCell;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use outrigger_model::route::{InternalRedirects, RedirectPredicate};

use crate::codec::body::ReplaySource;
use crate::codec::{Body, RequestHead, ResponseHead};
use crate::http::route_table::Route;
use crate::http::stream::Stream;
use crate::http::url::AbsoluteUrl;
use crate::stats::{Counter, Registry};

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// `http.<stat_prefix>.passthrough_internal_redirect_*`: redirects that went to the client although a route asks to follow them.
#[derive(Debug, Clone)]
pub(in crate::http) struct PassedOn {
    bad_location: Counter,
    unsafe_scheme: Counter,
    too_many: Counter,
    no_route: Counter,
    predicate: Counter,
}

impl PassedOn {
    pub(in crate::http) fn new(registry: &Registry, stat_prefix: &str) -> Self {
        let counter =
            |why: &str| registry.counter(format!("http.{stat_prefix}.passthrough_internal_redirect_{why}"));
        Self {
            bad_location: counter("bad_location"),
            unsafe_scheme: counter("unsafe_scheme"),
            too_many: counter("too_many_redirects"),
            no_route: counter("no_route"),
            predicate: counter("predicate"),
        }
    }
}

/// What a route follows, ready to use.
#[derive(Debug)]
pub(in crate::http) struct Redirects {
    config: InternalRedirects,
    copied: Vec<HeaderName>,
}

/// What a request has been through: empty on its first pass.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Journey {
    redirects: u32,
    /// From a route to another, by their names.
    taken: Vec<(Arc<str>, Arc<str>)>,
}

/// The next pass of a request.
#[derive(Debug)]
pub(in crate::http) struct NextPass {
    pub(in crate::http) head: RequestHead,
    /// Until it is taken.
    pub(in crate::http) body: RefCell<Option<Body>>,
    pub(in crate::http) journey: Journey,
}

/// A redirect that a route asks to follow.
pub(super) struct Redirected<'a> {
    pub(super) stream: &'a Stream,
    /// Where the request is.
    pub(super) route: &'a Route,
    pub(super) redirects: &'a Redirects,
    pub(super) response: &'a ResponseHead,
    /// The request's body; `None`: it has none.
    pub(super) body: Option<&'a ReplaySource>,
}

impl Redirects {
    pub(in crate::http) fn new(config: &InternalRedirects) -> Self {
        let names = config.copied_headers.iter();
        Self {
            copied: names.filter_map(|name| name.parse().ok()).collect(),
            config: config.clone(),
        }
    }

    /// Responses of this status are followed.
    pub(super) fn are(&self, status: StatusCode) -> bool {
        self.config.statuses.contains(&status.as_u16())
    }

    /// The headers of the redirect take the place of the request's.
    fn copy(&self, from: &HeaderMap, to: &mut HeaderMap) {
        for name in &self.copied {
            to.remove(name);
            for value in from.get_all(name) {
                to.append(name.clone(), value.clone());
            }
        }
    }
}

impl Redirected<'_> {
    /// The next pass; `None`: the client gets the redirect.
    pub(super) fn follow(&self) -> Option<NextPass> {
        let is_here = self.stream.limits.is_request_whole() && self.body.is_none_or(ReplaySource::replayable);
        let location = self.response.headers.get(LOCATION).filter(|_| is_here)?;
        let stats = &self.stream.manager.stats.redirects_passed_on;
        let fail = |counter: &Counter| {
            counter.inc();
            None
        };
        let Some(target) = Target::parse(location) else {
            return fail(&stats.bad_location);
        };
        let config = &self.redirects.config;
        let request = self.stream.request();
        let is_http = request.scheme == "http" || self.stream.downstream.tls.is_none();
        if !config.allows_other_scheme && is_http != target.is_http {
            return fail(&stats.unsafe_scheme);
        }
        let mut journey = self.stream.journey().cloned().unwrap_or_default();
        if journey.redirects >= config.max_redirects {
            return fail(&stats.too_many);
        }
        let mut head = request.clone();
        self.redirects.copy(&self.response.headers, &mut head.headers);
        head.scheme = if target.is_http { "http" } else { "https" };
        head.authority = target.authority;
        head.path = target.path;
        let route = self.stream.find_route(&head);
        self.stream.leads_to(route.as_deref(), &head);
        let Some(route) = route else {
            return fail(&stats.no_route);
        };
        let mut agrees = |predicate: &RedirectPredicate| match predicate {
            RedirectPredicate::Listed(names) => names.iter().any(|name| **name == *route.name),
            RedirectPredicate::NewRoute => journey.is_new(&self.route.name, &route.name),
            RedirectPredicate::SafeScheme => !is_http || target.is_http,
        };
        if !config.predicates.iter().all(&mut agrees) {
            return fail(&stats.predicate);
        }
        let gets = self.response.status == StatusCode::SEE_OTHER
            && !matches!(head.method, Method::GET | Method::HEAD);
        if gets {
            // RFC 9110 §15.4.4.
            head.method = Method::GET;
            head.headers.remove(CONTENT_LENGTH);
        }
        let body = match self.body.filter(|_| !gets) {
            Some(body) => Some(body.attempt()?),
            None => None,
        };
        journey.redirects += 1;
        head.headers
            .insert(ORIGINAL_URL, self.original_url(request, is_http)?);
        Some(NextPass {
            head,
            body: RefCell::new(body),
            journey,
        })
    }

    fn original_url(&self, request: &RequestHead, is_http: bool) -> Option<HeaderValue> {
        let picked = self.stream.picked_authority.borrow();
        let authority = picked.as_ref().unwrap_or(&request.authority);
        let scheme: &[u8] = if is_http { b"http" } else { b"https" };
        let parts = [
            scheme,
            b"://",
            authority.as_bytes(),
            request.path.as_str().as_bytes(),
        ];
        HeaderValue::from_bytes(&parts.concat()).ok()
    }
}

impl Journey {
    /// No redirect of one route led to the other before; now one does.
    fn is_new(&mut self, from: &Arc<str>, to: &Arc<str>) -> bool {
        let is_known = self.taken.iter().any(|taken| taken.0 == *from && taken.1 == *to);
        if !is_known {
            self.taken.push((from.clone(), to.clone()));
        }
        !is_known
    }
}

/// An absolute URL.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    is_http: bool,
    authority: HeaderValue,
    path: PathAndQuery,
}

impl Target {
    /// As Envoy, a relative reference leads nowhere.
    fn parse(location: &HeaderValue) -> Option<Self> {
        let url = AbsoluteUrl::parse(location.to_str().ok()?)?;
        Some(Self {
            is_http: url.scheme.eq_ignore_ascii_case("http"),
            authority: HeaderValue::from_str(url.authority).ok()?,
            path: if url.path.is_empty() { "/" } else { url.path }.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_new_once() {
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let mut journey = Journey::default();
        assert!(journey.is_new(&a, &b));
        assert!(journey.is_new(&b, &a));
        assert!(!journey.is_new(&a, &b));
    }
}
