//! Protobuf to [`InternalRedirects`].
use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3::{self as pb, route_action::InternalRedirectAction};
use envoy_types::pb::envoy::extensions::internal_redirect::{
    allow_listed_routes::v3::AllowListedRoutesConfig, previous_routes::v3::PreviousRoutesConfig,
    safe_cross_scheme::v3::SafeCrossSchemeConfig,
};
use envoy_types::pb::google::protobuf;

use super::headers::header_name;
use super::{InternalRedirects, RedirectPredicate};
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, verdicts};
use crate::scalar::Wrapped;

/// Statuses that may be followed.
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
const PREDICATES: [&str; 3] = [
    types::ALLOW_LISTED_ROUTES,
    types::PREVIOUS_ROUTES,
    types::SAFE_CROSS_SCHEME,
];

impl InternalRedirects {
    /// Converts a policy.
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        proto: pb::InternalRedirectPolicy,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::InternalRedirectPolicy {
            supported {
                max_internal_redirects, predicates, allow_cross_scheme_redirect, response_headers_to_copy,
            }
            partly { redirect_response_codes: "301, 302, 303, 307 and 308; others are listed as without effect" }
        });
        let field = at.field("redirect_response_codes");
        if redirect_response_codes.len() > STATUSES.len() {
            return Err(field.reject(format!("has more than {} codes", STATUSES.len())));
        }
        let asks = !redirect_response_codes.is_empty();
        let mut statuses = Vec::new();
        for (index, code) in redirect_response_codes.into_iter().enumerate() {
            match STATUSES.into_iter().find(|status| u32::from(*status) == code) {
                Some(status) => statuses.push(status),
                None => field
                    .index(index)
                    .problem(format!("{code} is no redirect and has no effect")),
            }
        }
        if !asks {
            statuses.push(302);
        }
        let predicates = predicates.into_iter().enumerate();
        let predicates = predicates
            .map(|(index, proto)| RedirectPredicate::from_proto(&at.field("predicates").index(index), proto));
        Ok(Self {
            max_redirects: max_internal_redirects.value().unwrap_or(1),
            statuses,
            predicates: predicates.collect::<Result<_, _>>()?,
            allows_other_scheme: allow_cross_scheme_redirect,
            copied_headers: copied_headers(&at.field("response_headers_to_copy"), response_headers_to_copy)?,
        })
    }

    /// Converts the fields that were there before the policy; `None`: redirects are the client's.
    pub(super) fn from_action(
        at: &FieldPath<'_>,
        action: i32,
        most: Option<protobuf::UInt32Value>,
    ) -> Result<Option<Self>, Rejection> {
        Ok(match at.enumeration(action)? {
            InternalRedirectAction::PassThroughInternalRedirect => None,
            InternalRedirectAction::HandleInternalRedirect => Some(Self {
                max_redirects: most.value().unwrap_or(1),
                statuses: vec![302],
                predicates: Vec::new(),
                allows_other_scheme: false,
                copied_headers: Vec::new(),
            }),
        })
    }
}

fn copied_headers(at: &FieldPath<'_>, names: Vec<String>) -> Result<Vec<String>, Rejection> {
    let mut seen = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        let at = at.index(index);
        if !seen.insert(header_name(&at, name)?) {
            return Err(at.reject(format!("{name:?} stands there twice")));
        }
    }
    Ok(seen.into_iter().collect())
}

impl RedirectPredicate {
    fn from_proto(at: &FieldPath<'_>, proto: core::TypedExtensionConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => core::TypedExtensionConfig {
            supported { typed_config }
            partly { name: "in rejections; what an extension does is in the type of its config" }
        });
        let at = at.field("typed_config");
        let config = TypedConfig::open(&at, typed_config)?;
        match config.type_name.as_str() {
            types::ALLOW_LISTED_ROUTES => {
                verdicts!(at, config.message(&at)? => AllowListedRoutesConfig { supported { allowed_route_names } });
                let names = allowed_route_names.into_iter().enumerate();
                let names =
                    names.map(|(index, name)| at.field("allowed_route_names").index(index).not_empty(name));
                Ok(Self::Listed(names.collect::<Result<_, _>>()?))
            }
            types::PREVIOUS_ROUTES => {
                verdicts!(at, config.message(&at)? => PreviousRoutesConfig {});
                Ok(Self::NewRoute)
            }
            types::SAFE_CROSS_SCHEME => {
                verdicts!(at, config.message(&at)? => SafeCrossSchemeConfig {});
                Ok(Self::SafeScheme)
            }
            _ => Err(config.reject(&at, "redirect predicate", &name, &PREDICATES)),
        }
    }
}
