//! Virtual hosts that send clients to `https`. Source: Envoy `VirtualHostImpl::getRouteFromEntries`, `SslRedirectRoute`.
use std::sync::Arc;

use http::HeaderMap;
use outrigger_model::fraction::Fraction;
use outrigger_model::route::{self as model, TlsRequirement};

use super::criteria::Criteria;
use super::{Action, Route};
use crate::codec::RequestHead;
use crate::http::extras::INTERNAL;
use crate::http::filter::Settings;
use crate::http::head::X_FORWARDED_PROTO;

/// Whom a virtual host sends away.
#[derive(Debug)]
pub(super) enum TlsOnly {
    Nobody,
    External(Arc<Route>),
    All(Arc<Route>),
}

impl TlsOnly {
    /// # Errors
    /// None: the path that it matches is no expression.
    pub(super) fn new(requirement: TlsRequirement) -> Result<Self, regex::Error> {
        Ok(match requirement {
            TlsRequirement::None => Self::Nobody,
            TlsRequirement::External => Self::External(Arc::new(to_https()?)),
            TlsRequirement::All => Self::All(Arc::new(to_https()?)),
        })
    }

    /// Where a request goes that did not come by `https`; a proxy before this one may have said so.
    pub(super) fn redirect(&self, head: &RequestHead) -> Option<&Arc<Route>> {
        match self {
            Self::Nobody => None,
            Self::External(_) if is(&head.headers, INTERNAL, b"true") => None,
            Self::External(route) | Self::All(route) => {
                (!is(&head.headers, X_FORWARDED_PROTO, b"https")).then_some(route)
            }
        }
    }
}

fn is(headers: &HeaderMap, name: http::HeaderName, expected: &[u8]) -> bool {
    headers
        .get(name)
        .is_some_and(|value| value.as_bytes() == expected)
}

/// It has nothing of its virtual host.
fn to_https() -> Result<Route, regex::Error> {
    let all = model::RouteMatch {
        path: model::PathMatch::Prefix("/".to_owned()),
        case_sensitive: true,
        headers: Vec::new(),
        query_parameters: Vec::new(),
        cookies: Vec::new(),
        only_grpc: false,
        runtime_share: Fraction::ALL,
        certificate_presented: None,
        certificate_validated: None,
    };
    let redirect = model::Redirect {
        scheme: Some("https".to_owned()),
        host: None,
        port: None,
        path: None,
        status: 301,
        strip_query: false,
        keeps_usual_port: true,
    };
    Ok(Route {
        name: "".into(),
        criteria: Criteria::new(&all)?,
        rewrite: None,
        action: Action::Redirect(Box::new(redirect)),
        decorator: None,
        include_attempt_count: false,
        answers_attempt_count: false,
        tells_timeout_retry: false,
        changes: Vec::new(),
        settings: Settings::default(),
        rate_limits: None,
        retry: None,
        hedges: false,
        buffer_limit_bytes: None,
    })
}
