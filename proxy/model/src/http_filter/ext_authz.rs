//! External authorization. Source: envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto; what Istio sets: contract §1.5.
//! Awaits the security issue.
mod from_proto;

use crate::fraction::Fraction;
use crate::matcher::StringMatcher;
use crate::matcher::metadata::MetadataMatcher;
use crate::service::{GrpcTarget, Uri};

/// Asks a server whether a request may pass. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtAuthz {
    /// Whom.
    pub service: AuthorizationService,
    /// A request passes when the server does not answer.
    pub failure_mode_allow: bool,
    /// Such a request gets `x-envoy-auth-failure-mode-allowed: true`.
    pub failure_mode_allow_header_add: bool,
    /// What of the body the server is shown; `None`: nothing.
    pub body: Option<BufferSettings>,
    /// Routes are looked for again after an answer.
    pub clear_route_cache: bool,
    /// When the server does not answer; Envoy's default 403.
    pub status_on_error: u16,
    /// What an answer asks for is checked; what is none refuses the request.
    pub validate_mutations: bool,
    /// The share of requests that are asked for.
    pub enabled: Fraction,
    /// Only requests with this metadata are asked for.
    pub enabled_metadata: Option<MetadataMatcher>,
    /// Requests that are not asked for are refused.
    pub deny_at_disable: bool,
    /// The server is shown the client's certificate.
    pub include_peer_certificate: bool,
    /// The server is shown the ClientHello's server name.
    pub include_tls_session: bool,
    /// Namespaces of dynamic metadata that the server is shown.
    pub metadata_namespaces: Vec<String>,
    /// Before the filter's stats.
    pub stat_prefix: String,
    /// The headers that the server is shown; empty: all to a gRPC server, a few to an HTTP server.
    pub allowed_headers: Vec<StringMatcher>,
    /// The headers that it is not shown.
    pub disallowed_headers: Vec<StringMatcher>,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorizationService {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc(GrpcTarget),
    /// A request with the original's method and path.
    Http(Box<HttpAuthorization>),
}

/// An HTTP server that is asked. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAuthorization {
    /// Where.
    pub uri: Uri,
    /// Before the original path.
    pub path_prefix: String,
    /// In place of the original path; empty: not.
    pub path_override: String,
    /// Headers that the question has besides.
    pub headers_to_add: Vec<(String, String)>,
    /// Headers of the answer that the request gets.
    pub upstream_headers: Vec<StringMatcher>,
    /// The same, beside those it has.
    pub upstream_headers_to_append: Vec<StringMatcher>,
    /// Headers of a refusal that the client gets.
    pub client_headers: Vec<StringMatcher>,
    /// Headers of a permission that the response gets.
    pub client_headers_on_success: Vec<StringMatcher>,
    /// Headers of the answer that become dynamic metadata.
    pub dynamic_metadata: Vec<StringMatcher>,
}

/// What of the body is shown. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferSettings {
    /// At most so many bytes; 1 or more.
    pub max_bytes: u32,
    /// The first bytes of a longer body are enough; false: 413.
    pub allow_partial: bool,
    /// As bytes, not as text.
    pub as_bytes: bool,
}

/// Settings of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteSettings {
    /// Nobody is asked.
    Disabled,
    /// What the server is told besides, and who is asked instead.
    Check {
        /// Told to the server.
        context: Vec<(String, String)>,
        /// What of the body is shown instead.
        body: Option<BufferSettings>,
        /// Nothing of the body is shown.
        without_body: bool,
        /// Who is asked instead.
        service: Option<AuthorizationService>,
    },
}
