//! JWT authentication. Source: envoy/extensions/filters/http/jwt_authn/v3/config.proto; what Istio sets: contract §1.5.
//! Awaits the security issue.
mod from_proto;

use std::time::Duration;

use crate::matcher::StringMatcher;
use crate::route::RouteMatch;
use crate::secret::DataSource;
use crate::service::Uri;

/// Verifies tokens and refuses requests that lack one. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtAuthn {
    /// Whose tokens are known, by name.
    pub providers: Vec<(String, JwtProvider)>,
    /// The first that matches counts; a request without one passes.
    pub rules: Vec<JwtRule>,
    /// What routes may ask for, by name.
    pub requirements: Vec<(String, JwtRequirement)>,
    /// A CORS preflight request passes.
    pub bypass_cors_preflight: bool,
    /// The client is not told why.
    pub strip_failure_response: bool,
    /// Before the filter's stats.
    pub stat_prefix: String,
}

/// Whose tokens, where they are, and where their claims go. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtProvider {
    /// The `iss` claim; empty: any.
    pub issuer: String,
    /// The `aud` claim must have one of these; empty: any.
    pub audiences: Vec<String>,
    /// The `sub` claim must match.
    pub subjects: Option<StringMatcher>,
    /// The `exp` claim must be there.
    pub require_expiration: bool,
    /// Longest time between now and `exp`.
    pub max_lifetime: Option<Duration>,
    /// Keys.
    pub jwks: Jwks,
    /// The token goes on upstream.
    pub forward: bool,
    /// Headers that may hold the token; with `from_params` and `from_cookies` empty: `Authorization: Bearer` and `access_token`.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that may hold it.
    pub from_params: Vec<String>,
    /// Cookies that may hold it.
    pub from_cookies: Vec<String>,
    /// The payload goes upstream in this header, base64url; empty: not.
    pub forward_payload_header: String,
    /// With padding.
    pub pad_forward_payload_header: bool,
    /// The payload goes into dynamic metadata under this key; empty: not.
    pub payload_in_metadata: String,
    /// Claims whose words become a list there.
    pub space_delimited_claims: Vec<String>,
    /// The token's header goes into dynamic metadata under this key; empty: not.
    pub header_in_metadata: String,
    /// Clocks may differ by so many seconds; Envoy's default 60.
    pub clock_skew_seconds: u32,
    /// Claims that go upstream in headers.
    pub claims: Vec<ClaimHeader>,
    /// Routes are looked for again after the verification.
    pub clear_route_cache: bool,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jwks {
    /// In the configuration or a file. Keys that are none are told of, and refuse every token, as in Envoy.
    Local(DataSource),
    /// Fetched.
    Remote {
        /// From where.
        uri: Uri,
        /// They are kept so long; Envoy's default 5 min.
        cache_duration: Duration,
    },
}

/// A header that may hold a token. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtHeader {
    /// Its name.
    pub name: String,
    /// What stands before the token.
    pub value_prefix: String,
}

/// A claim that goes upstream in a header. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimHeader {
    /// The header.
    pub header: String,
    /// The claim, from the outside in.
    pub claim: Vec<String>,
}

/// What requests that match need. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRule {
    /// Which requests.
    pub matcher: RouteMatch,
    /// What they need; `None`: nothing.
    pub requirement: Option<JwtRequirement>,
}

/// What a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtRequirement {
    /// A token of this provider, for one of these audiences if there are any.
    Provider {
        /// Its name.
        name: String,
        /// In place of the provider's.
        audiences: Vec<String>,
    },
    /// One of these.
    Any(Vec<JwtRequirement>),
    /// All of these.
    All(Vec<JwtRequirement>),
    /// Nothing: tokens are verified, and it does not matter.
    AllowMissingOrFailed,
    /// No token, or a good one.
    AllowMissing,
}

/// Settings of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteSettings {
    /// Nothing is needed.
    Disabled,
    /// The requirement of this name.
    Requirement(String),
}
