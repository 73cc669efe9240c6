//! Filters that keep requests out and have no behaviour yet: what they say is checked, and then their listener or table is refused.
//! Passing over one would let anybody in. Awaits the security issue.
use super::ext_authz::{self, ExtAuthz};
use super::jwt_authn::{self, JwtAuthn};
use super::rbac::Rbac;
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection};

/// The filters.
const FILTERS: [&str; 3] = [types::HTTP_RBAC, types::JWT_AUTHN, types::HTTP_EXT_AUTHZ];

/// Their settings for routes.
const ROUTE_SETTINGS: [&str; 3] = [
    types::HTTP_RBAC_PER_ROUTE,
    types::JWT_AUTHN_PER_ROUTE,
    types::HTTP_EXT_AUTHZ_PER_ROUTE,
];

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyFilter {
    /// Rules.
    Rbac(Rbac),
    /// Tokens.
    JwtAuthn(JwtAuthn),
    /// A server that is asked.
    ExtAuthz(Box<ExtAuthz>),
}

/// Settings of one of them for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicySettings {
    /// Other rules; `None`: none.
    Rbac(Option<Rbac>),
    /// Another requirement.
    JwtAuthn(jwt_authn::RouteSettings),
    /// Another question.
    ExtAuthz(Box<ext_authz::RouteSettings>),
}

/// It is one of them.
pub(crate) fn is_policy(type_name: &str) -> bool {
    FILTERS.contains(&type_name)
}

/// They are settings of one of them.
pub(crate) fn is_settings(type_name: &str) -> bool {
    ROUTE_SETTINGS.contains(&type_name)
}

impl PolicyFilter {
    /// Converts a filter whose type is one of theirs.
    pub(crate) fn from_config(at: &FieldPath<'_>, config: TypedConfig) -> Result<Self, Rejection> {
        Ok(match config.type_name.as_str() {
            types::HTTP_RBAC => Self::Rbac(Rbac::from_proto(at, config.message(at)?)?),
            types::JWT_AUTHN => Self::JwtAuthn(JwtAuthn::from_proto(at, config.message(at)?)?),
            _ => Self::ExtAuthz(Box::new(ExtAuthz::from_proto(at, config.message(at)?)?)),
        })
    }
}

impl PolicySettings {
    /// Converts settings whose type is one of theirs.
    pub(crate) fn from_config(at: &FieldPath<'_>, config: TypedConfig) -> Result<Self, Rejection> {
        Ok(match config.type_name.as_str() {
            types::HTTP_RBAC_PER_ROUTE => Self::Rbac(Rbac::from_route(at, config.message(at)?)?),
            types::JWT_AUTHN_PER_ROUTE => {
                Self::JwtAuthn(jwt_authn::RouteSettings::from_proto(at, config.message(at)?)?)
            }
            _ => {
                let settings = ext_authz::RouteSettings::from_proto(at, config.message(at)?)?;
                Self::ExtAuthz(Box::new(settings))
            }
        })
    }
}

/// Why a filter is refused: what is wrong with it, else that it has no behaviour.
pub(super) fn refuse(at: &FieldPath<'_>, config: TypedConfig, name: &str) -> Rejection {
    let rejection = config.reject_policy(at, "http filter", name);
    PolicyFilter::from_config(at, config).err().unwrap_or(rejection)
}

/// As [`refuse`], for settings of a route.
pub(super) fn refuse_settings(at: &FieldPath<'_>, config: TypedConfig, name: &str) -> Rejection {
    let rejection = config.reject_policy(at, "settings for the filter", name);
    PolicySettings::from_config(at, config).err().unwrap_or(rejection)
}
