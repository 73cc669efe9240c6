//! CORS: which pages of other origins may read responses. The policies are the routes'.
//! Source: envoy/config/route/v3/route_components.proto `CorsPolicy`; envoy/extensions/filters/http/cors/v3/cors.proto.
use envoy_types::pb::envoy::config::route::v3 as legacy;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as pb;

use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::fraction::Fraction;
use crate::matcher::StringMatcher;
use crate::scalar::Wrapped;

/// The filter at its place in the chain; what it does is in the routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cors {}

impl Cors {
    /// Converts the filter.
    pub(crate) fn from_proto(proto: pb::Cors) -> Self {
        verdicts!((), proto => pb::Cors {});
        Self {}
    }
}

/// Which origins may read a route's responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsPolicy {
    /// One has to match.
    pub origins: Vec<StringMatcher>,
    /// Of `access-control-allow-methods`; empty: not sent.
    pub methods: String,
    /// Of `access-control-allow-headers`.
    pub headers: String,
    /// Of `access-control-expose-headers`.
    pub expose: String,
    /// Of `access-control-max-age`, seconds as text.
    pub max_age: String,
    /// `access-control-allow-credentials: true`.
    pub allow_credentials: Option<bool>,
    /// `access-control-allow-private-network: true` to whom asks for it.
    pub allow_private_network: Option<bool>,
    /// Preflights of other origins go upstream; Envoy's default true.
    pub forwards_other_preflights: Option<bool>,
    /// Of requests; Envoy's default all.
    pub enabled: Fraction,
    /// Of requests, only judged and counted.
    pub shadow: Fraction,
}

impl CorsPolicy {
    /// Converts the settings for a route.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::CorsPolicy) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::CorsPolicy {
            supported {
                allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age, allow_credentials,
                filter_enabled, shadow_enabled, allow_private_network_access, forward_not_matching_preflights,
            }
        });
        let enabled = at.field("filter_enabled").runtime_fraction(filter_enabled)?;
        let shadow = at.field("shadow_enabled").runtime_fraction(shadow_enabled)?;
        Ok(Self {
            origins: StringMatcher::list(at.field("allow_origin_string_match"), allow_origin_string_match)?,
            methods: allow_methods,
            headers: allow_headers,
            expose: expose_headers,
            max_age,
            allow_credentials: allow_credentials.value(),
            allow_private_network: allow_private_network_access.value(),
            forwards_other_preflights: forward_not_matching_preflights.value(),
            enabled: enabled.unwrap_or(Fraction::ALL),
            shadow: shadow.unwrap_or(Fraction::NONE),
        })
    }
    /// Converts the policy that stands in a route or virtual host itself.
    pub(crate) fn from_legacy(at: &FieldPath<'_>, proto: legacy::CorsPolicy) -> Result<Self, Rejection> {
        use legacy::cors_policy::EnabledSpecifier;
        verdicts!(at, proto => legacy::CorsPolicy {
            supported {
                allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age, allow_credentials,
                shadow_enabled, allow_private_network_access, forward_not_matching_preflights, enabled_specifier,
            }
        });
        choices!(EnabledSpecifier { supported { FilterEnabled } });
        let filter_enabled = enabled_specifier.map(|EnabledSpecifier::FilterEnabled(share)| share);
        let proto = pb::CorsPolicy {
            allow_origin_string_match,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            filter_enabled,
            shadow_enabled,
            allow_private_network_access,
            forward_not_matching_preflights,
        };
        Self::from_proto(at, proto)
    }
}
