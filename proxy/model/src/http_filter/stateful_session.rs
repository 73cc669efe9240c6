//! Stateful session: requests of one session go to one host. Without settings it passes requests on.
//! Source: envoy/extensions/filters/http/stateful_session/v3/stateful_session.proto; contract §1.5.
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3::{
    self as pb, stateful_session_per_route,
};
use envoy_types::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use envoy_types::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use envoy_types::pb::envoy::r#type::http::v3 as http;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;

use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};

/// How a session is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatefulSession {
    /// `None`: there are no sessions.
    pub state: Option<SessionState>,
    /// A request whose host is gone is refused.
    pub is_strict: bool,
    /// The status of that; Envoy's default 503.
    pub refusal_status: u16,
    /// Statistics are `http.<stat_prefix of the connection manager>.stateful_session.<this>.`; empty: there are none.
    pub session_stat_prefix: String,
}

/// What of a request names its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// A cookie.
    Cookie {
        /// Its name.
        name: String,
        /// Its age; zero: a session's.
        ttl: Duration,
        /// Its path; requests for others have no session.
        path: String,
        /// What else it says.
        attributes: Vec<(String, String)>,
    },
    /// A header, lower case.
    Header(String),
}

impl StatefulSession {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::StatefulSession) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::StatefulSession {
            supported { session_state, strict, stat_prefix, status_on_strict_destination_not_found }
        });
        let state = session_state.map(|proto| SessionState::from_proto(&at.field("session_state"), proto));
        Ok(Self {
            state: state.transpose()?,
            is_strict: strict,
            refusal_status: match status_on_strict_destination_not_found {
                0 => 503,
                status => at
                    .field("status_on_strict_destination_not_found")
                    .status(status, 100..=599)?,
            },
            session_stat_prefix: stat_prefix,
        })
    }

    /// Converts its settings for a route; `None`: it is off there.
    pub(crate) fn from_route(
        at: &FieldPath<'_>,
        proto: pb::StatefulSessionPerRoute,
    ) -> Result<Option<Self>, Rejection> {
        verdicts!(at, proto => pb::StatefulSessionPerRoute { supported { r#override } });
        choices!(stateful_session_per_route::Override { supported { Disabled, StatefulSession } });
        match at.required(r#override)? {
            stateful_session_per_route::Override::Disabled(true) => Ok(None),
            stateful_session_per_route::Override::Disabled(false) => {
                Err(at.field("disabled").reject("must be true"))
            }
            stateful_session_per_route::Override::StatefulSession(proto) => {
                Self::from_proto(&at.field("stateful_session"), proto).map(Some)
            }
        }
    }
}

impl SessionState {
    fn from_proto(at: &FieldPath<'_>, proto: core::TypedExtensionConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => core::TypedExtensionConfig {
            supported { typed_config }
            partly { name: "in rejections; what an extension does is in the type of its config" }
        });
        let at = at.field("typed_config");
        let config = TypedConfig::open(&at, typed_config)?;
        match config.type_name.as_str() {
            types::COOKIE_SESSION => {
                verdicts!(at, config.message(&at)? => CookieBasedSessionState { supported { cookie } });
                let at = at.field("cookie");
                verdicts!(at, at.required(cookie)? => http::Cookie { supported { name, ttl, path, attributes } });
                let attributes = attributes.into_iter().enumerate().map(|(index, proto)| {
                    let at = at.field("attributes").index(index);
                    verdicts!(at, proto => http::CookieAttribute { supported { name, value } });
                    Ok((at.field("name").not_empty(name)?, value))
                });
                Ok(Self::Cookie {
                    attributes: attributes.collect::<Result<_, Rejection>>()?,
                    name: at.field("name").not_empty(name)?,
                    ttl: at.field("ttl").duration(ttl)?.unwrap_or_default(),
                    path,
                })
            }
            types::HEADER_SESSION => {
                verdicts!(at, config.message(&at)? => HeaderBasedSessionState { supported { name } });
                Ok(Self::Header(
                    at.field("name").not_empty(name)?.to_ascii_lowercase(),
                ))
            }
            _ => {
                let valid = [types::COOKIE_SESSION, types::HEADER_SESSION];
                Err(config.reject(&at, "session state", &name, &valid))
            }
        }
    }
}

/// What the cookie of a session says, on the wire. Source: Envoy `envoy.Cookie`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Content {
    #[prost(string, tag = "1")]
    address: String,
    #[prost(uint64, tag = "2")]
    expires: u64,
}

/// What the cookie of a session says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCookie {
    /// Address and port of the host, as text.
    host: String,
    /// Seconds on the monotonic clock of whoever made it; 0: never.
    expires_s: u64,
}

impl SessionCookie {
    /// For the host at this address.
    pub fn new(host: String, expires_s: u64) -> Self {
        Self { host, expires_s }
    }

    /// The host, unless the cookie has expired at `now_s`.
    pub fn host_at(self, now_s: u64) -> Option<String> {
        (self.expires_s == 0 || now_s <= self.expires_s).then_some(self.host)
    }

    /// The value of the cookie.
    pub fn encode(&self) -> String {
        let content = Content {
            address: self.host.clone(),
            expires: self.expires_s,
        };
        STANDARD.encode(content.encode_to_vec())
    }

    /// Reads a value: a message, or as Envoy wrote it before, the address alone. `None`: it names no host.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let bytes = STANDARD.decode(value).ok()?;
        let cookie = match Content::decode(bytes.as_slice()) {
            Ok(Content { address, expires }) => Self::new(address, expires),
            Err(_) => Self::new(String::from_utf8(bytes).ok()?, 0),
        };
        Some(cookie).filter(|cookie| !cookie.host.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_what_envoy_reads_and_what_it_wrote_before() {
        let check = |value: &str, expected: Option<(&str, u64)>| {
            let expected = expected.map(|(host, expires)| SessionCookie::new(host.into(), expires));
            assert_eq!(SessionCookie::decode(value.as_bytes()), expected, "{value}");
        };
        check("Cg4xMjcuMC4wLjE6OTAwMQ==", Some(("127.0.0.1:9001", 0)));
        check("Cg4xMjcuMC4wLjE6OTAwMRAF", Some(("127.0.0.1:9001", 5)));
        check("MTI3LjAuMC4xOjkwMDE=", Some(("127.0.0.1:9001", 0)));
        check("Cg4xMjcuMC4wLjE6OTAwMQ", None);
        check("", None);
        check("EAU=", None);
        check("!", None);
        let cookie = SessionCookie::new("127.0.0.1:9001".into(), 5);
        assert_eq!(cookie.encode(), "Cg4xMjcuMC4wLjE6OTAwMRAF");
        assert_eq!(cookie.clone().host_at(5).as_deref(), Some("127.0.0.1:9001"));
        assert_eq!(cookie.host_at(6), None);
    }
}
