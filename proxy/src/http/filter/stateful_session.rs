//! Stateful sessions: a cookie or a header names the host that answered first, and later requests go there.
//!
//! The filter reads and writes the name; whether the host may be used is the cluster's matter (`override_host_status`).
//! Source: envoy/extensions/filters/http/stateful_session/v3/stateful_session.proto; Envoy `StatefulSession`,
//! `CookieBasedSessionStateFactory`, `HeaderBasedSessionStateFactory`.
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use outrigger_model::http_filter::stateful_session::{
    SessionCookie, SessionState, StatefulSession as Config,
};

use super::settings::RouteConfig;
use super::{Decode, Decoding, Encoding, Filter, Scope};
use crate::codec::RequestHead;
use crate::http::hash_policy::cookie_tail;
use crate::http::route_table::cookie_value;
use crate::stats::Counter;
use crate::telemetry::response_flag::ResponseFlag;
use crate::time;

/// The filter at its place.
#[derive(Debug)]
pub(super) struct StatefulSessionFilter {
    session: Arc<Session>,
    stats: Option<Stats>,
}

/// Of a filter with `stat_prefix`.
#[derive(Debug)]
struct Stats {
    routed: Counter,
    failed_open: Counter,
    failed_closed: Counter,
    no_session: Counter,
}

/// How sessions are known, of the filter or of a route.
#[derive(Debug)]
pub(super) struct Session {
    state: Option<State>,
    is_strict: bool,
    refusal_status: StatusCode,
}

#[derive(Debug)]
enum State {
    Cookie {
        name: String,
        /// What follows its value.
        tail: String,
        ttl_s: u64,
        path: String,
    },
    Header(HeaderName),
}

/// The session of a request.
#[derive(Debug)]
pub(super) struct ActiveSession {
    session: Arc<Session>,
    /// Address and port as the client has them; `None`: it brought none.
    host: Option<String>,
    /// The request has a session, or begins one.
    has_state: bool,
}

/// The host that a request has to go to.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct SessionHost {
    /// `None`: what the client brought is no address.
    pub(in crate::http) address: Option<SocketAddr>,
    /// No other will do.
    pub(in crate::http) is_strict: bool,
    /// What is answered then.
    pub(in crate::http) refusal_status: StatusCode,
}

impl Session {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            state: config.state.as_ref().and_then(State::new),
            is_strict: config.is_strict,
            refusal_status: StatusCode::from_u16(config.refusal_status)
                .unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

impl State {
    fn new(config: &SessionState) -> Option<Self> {
        Some(match config {
            SessionState::Cookie {
                name,
                ttl,
                path,
                attributes,
            } => Self::Cookie {
                name: name.clone(),
                tail: cookie_tail(ttl.as_secs(), path, attributes),
                ttl_s: ttl.as_secs(),
                path: path.clone(),
            },
            SessionState::Header(name) => Self::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
        })
    }

    /// The request may have a session.
    fn is_for(&self, head: &RequestHead) -> bool {
        match self {
            Self::Cookie { path, .. } => is_below(head.path.as_str(), path),
            Self::Header(_) => true,
        }
    }

    /// The host that the client brings.
    fn host(&self, head: &RequestHead) -> Option<String> {
        match self {
            Self::Cookie { name, .. } => {
                SessionCookie::decode(cookie_value(head, name)?)?.host_at(time::since_boot().as_secs())
            }
            Self::Header(name) => {
                let bytes = STANDARD.decode(head.headers.get(name)?.as_bytes()).ok()?;
                String::from_utf8(bytes).ok().filter(|host| !host.is_empty())
            }
        }
    }

    /// Tells the client which host it has now.
    fn tell(&self, host: String, headers: &mut HeaderMap) {
        match self {
            Self::Cookie {
                name, tail, ttl_s, ..
            } => {
                let expires = match ttl_s {
                    0 => 0,
                    ttl => time::since_boot().as_secs() + ttl,
                };
                let value = SessionCookie::new(host, expires).encode();
                let cookie = HeaderValue::from_str(&format!("{name}=\"{value}\"{tail}"));
                headers.extend(cookie.ok().map(|cookie| (SET_COOKIE, cookie)));
            }
            Self::Header(name) => {
                let value = HeaderValue::from_str(&STANDARD.encode(host));
                headers.extend(value.ok().map(|value| (name.clone(), value)));
            }
        }
    }
}

/// A path is that of a cookie, or below it: `/a` has `/a`, `/a/b` and `/a?b`, `/a/` has `/a/b`. Without one, or at the root, all are.
fn is_below(path: &str, root: &str) -> bool {
    if root.is_empty() || root == "/" {
        return true;
    }
    match path.strip_prefix(root) {
        Some(_) if root.ends_with('/') => true,
        Some(rest) => rest.is_empty() || rest.starts_with(['/', '?', '#']),
        None => false,
    }
}

/// An address written as the proxy writes it: another way of writing is another host's name, as in Envoy.
fn address(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    (address.to_string() == text).then_some(address)
}

impl StatefulSessionFilter {
    pub(super) fn new(config: &Config, scope: &Scope<'_>) -> Self {
        let prefix = &config.session_stat_prefix;
        let counter = |name: &str| scope.counter(&format!("stateful_session.{prefix}.{name}"));
        Self {
            session: Arc::new(Session::new(config)),
            stats: (!prefix.is_empty()).then(|| Stats {
                routed: counter("routed"),
                failed_open: counter("failed_open"),
                failed_closed: counter("failed_closed"),
                no_session: counter("no_session"),
            }),
        }
    }
}

impl Filter for StatefulSessionFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        let session = match request.config {
            Some(RouteConfig::StatefulSession(None)) => return Decode::Continue,
            Some(RouteConfig::StatefulSession(Some(session))) => session,
            _ => &self.session,
        };
        let state = session.state.as_ref().filter(|state| state.is_for(request.head));
        let host = state.and_then(|state| state.host(request.head));
        if let Some(host) = &host {
            request.state.session_host = Some(SessionHost {
                address: address(host),
                is_strict: session.is_strict,
                refusal_status: session.refusal_status,
            });
        }
        let active = ActiveSession {
            session: session.clone(),
            host,
            has_state: state.is_some(),
        };
        request.state.sessions.push((request.place, active));
        Decode::Continue
    }

    fn encode(&self, response: &mut Encoding<'_>) {
        let sessions = &mut response.state.sessions;
        let Some(at) = sessions.iter().position(|(place, _)| *place == response.place) else {
            return;
        };
        let (_, active) = sessions.swap_remove(at);
        let info = response.stream.info.borrow();
        let used = info.upstream.host;
        // Settings of routes have no statistics.
        let stats = self
            .stats
            .as_ref()
            .filter(|_| Arc::ptr_eq(&active.session, &self.session));
        let count = |counter: fn(&Stats) -> &Counter| {
            if let Some(stats) = stats {
                counter(stats).inc();
            }
        };
        match (used, &active.session.state) {
            (Some(_), _) if !active.has_state => count(|stats| &stats.no_session),
            (Some(used), Some(state)) => {
                let used = used.to_string();
                if active.host.as_ref() == Some(&used) {
                    return count(|stats| &stats.routed);
                }
                // As Envoy, also when there was none before.
                if !active.session.is_strict {
                    count(|stats| &stats.failed_open);
                }
                state.tell(used, &mut response.head.headers);
            }
            (None, _) if active.session.is_strict && info.flags.contains(ResponseFlag::NoHealthyUpstream) => {
                count(|stats| &stats.failed_closed);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_its_path_and_what_is_below() {
        for (root, inside, outside) in [
            ("", &["/", "/x"][..], &[][..]),
            ("/", &["/", "/x"], &[]),
            ("/a", &["/a", "/a/", "/a/b", "/a?b", "/a#b"], &["/", "/ab", "/b"]),
            ("/a/", &["/a/", "/a/b"], &["/a", "/a?b"]),
        ] {
            assert!(inside.iter().all(|path| is_below(path, root)), "{root}");
            assert!(!outside.iter().any(|path| is_below(path, root)), "{root}");
        }
    }
}
