//! Stateful session: requests of one session go to one host. Without settings it passes requests on; the traffic issue builds it.
//! Source: envoy/extensions/filters/http/stateful_session/v3/stateful_session.proto; contract §1.5.
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3::{
    self as pb, stateful_session_per_route,
};
use envoy_types::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use envoy_types::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use envoy_types::pb::envoy::r#type::http::v3 as http;

use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};

/// How a session is known. Awaits the traffic issue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatefulSession {
    /// `None`: there are no sessions.
    pub state: Option<SessionState>,
    /// A request whose host is gone is refused.
    pub is_strict: bool,
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
    },
    /// A header, lower case.
    Header(String),
}

impl StatefulSession {
    /// Converts the filter. Whoever holds it lists that it has no effect.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::StatefulSession) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::StatefulSession {
            awaited "traffic" { session_state, strict }
            unsupported { stat_prefix: "traffic", status_on_strict_destination_not_found: "traffic" }
        });
        let state = session_state.map(|proto| SessionState::from_proto(&at.field("session_state"), proto));
        Ok(Self {
            state: state.transpose()?,
            is_strict: strict,
        })
    }

    /// Converts its settings for a route; `None`: it is off there.
    pub(crate) fn from_route(
        at: &FieldPath<'_>,
        proto: pb::StatefulSessionPerRoute,
    ) -> Result<Option<Self>, Rejection> {
        verdicts!(at, proto => pb::StatefulSessionPerRoute { awaited "traffic" { r#override } });
        choices!(stateful_session_per_route::Override { awaited "traffic" { Disabled, StatefulSession } });
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
                verdicts!(at, config.message(&at)? => CookieBasedSessionState { awaited "traffic" { cookie } });
                let at = at.field("cookie");
                verdicts!(at, at.required(cookie)? => http::Cookie {
                    awaited "traffic" { name, ttl, path }
                    unsupported { attributes: "traffic" }
                });
                Ok(Self::Cookie {
                    name: at.field("name").not_empty(name)?,
                    ttl: at.field("ttl").duration(ttl)?.unwrap_or_default(),
                    path,
                })
            }
            types::HEADER_SESSION => {
                verdicts!(at, config.message(&at)? => HeaderBasedSessionState { awaited "traffic" { name } });
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
