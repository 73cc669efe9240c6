//! Requests that change something come from where they go to. Source: envoy/extensions/filters/http/csrf/v3/csrf.proto.
use envoy_types::pb::envoy::extensions::filters::http::csrf::v3 as pb;

use crate::field::{FieldPath, Rejection, verdicts};
use crate::fraction::Fraction;
use crate::matcher::StringMatcher;

/// Which origins may send them. A filter and a route have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrfPolicy {
    /// Of requests: others are answered 403.
    pub enabled: Fraction,
    /// Of requests that are not enabled: they are counted only.
    pub shadow: Fraction,
    /// Origins besides the one that a request goes to.
    pub additional_origins: Vec<StringMatcher>,
}

impl CsrfPolicy {
    /// Converts a policy.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::CsrfPolicy) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::CsrfPolicy { supported { filter_enabled, shadow_enabled, additional_origins } });
        let field = at.field("filter_enabled");
        let enabled = field.required(field.runtime_fraction(filter_enabled)?)?;
        let origins = additional_origins.into_iter().enumerate();
        let origins = origins.map(|(index, proto)| {
            StringMatcher::from_proto(&at.field("additional_origins").index(index), proto)
        });
        Ok(Self {
            enabled,
            shadow: at
                .field("shadow_enabled")
                .runtime_fraction(shadow_enabled)?
                .unwrap_or(Fraction::NONE),
            additional_origins: origins.collect::<Result<_, _>>()?,
        })
    }
}
