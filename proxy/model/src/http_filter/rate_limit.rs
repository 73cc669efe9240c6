//! What requests are to rate limits: the `rate_limits` of routes, virtual hosts and of the filters that read them, local and global
//! ones. Source: route_components.proto `RateLimit`.
use envoy_types::pb::envoy::config::route::v3::{self as pb, rate_limit};
use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as common;
use envoy_types::pb::envoy::r#type::v3::RateLimitUnit;

use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::matcher::HeaderMatcher;
use crate::route::{QueryMatch, query_parameter};
use crate::scalar::Wrapped;

/// Makes a list of keys and values of a request; none when one of its actions has nothing for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Read by limits of this stage.
    pub stage: u32,
    /// At least one.
    pub actions: Vec<RateLimitAction>,
    /// It has a `disable_key`: local limits pass over it, whatever the runtime says.
    pub has_disable_key: bool,
    /// In place of the limit that the service has. Local limits pass over it, not over the rest.
    pub limit_override: Option<LimitOverride>,
}

/// A limit that a route brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitOverride {
    /// So many.
    pub requests_per_unit: u32,
    /// `RateLimitUnit`, as the service gets it.
    pub unit_number: i32,
}

/// Makes one key and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateLimitAction {
    /// `source_cluster` and what the bootstrap calls this proxy's cluster.
    SourceCluster,
    /// `destination_cluster` and its name.
    DestinationCluster,
    /// `remote_address` and the client's.
    RemoteAddress,
    /// `masked_remote_address` and the client's network.
    MaskedRemoteAddress {
        /// Of IPv4, 0..=32; Envoy's default 32.
        v4_bits: u8,
        /// Of IPv6, 0..=128; Envoy's default 128.
        v6_bits: u8,
    },
    /// A query parameter's value.
    QueryParameter {
        /// Which one.
        name: String,
        /// What it is called.
        key: String,
        /// Without it the list goes on; otherwise there is none.
        skips_missing: bool,
    },
    /// For requests whose query parameters match, or do not.
    QueryValueMatch {
        /// Envoy's default `query_match`.
        key: String,
        /// Its value.
        value: String,
        /// All have to match.
        parameters: Vec<(String, QueryMatch)>,
        /// Envoy's default true.
        expects_match: bool,
    },
    /// Always the same.
    GenericKey {
        /// Envoy's default `generic_key`.
        key: String,
        /// Its value.
        value: String,
    },
    /// A header's value.
    RequestHeader {
        /// Lower case.
        name: String,
        /// What it is called.
        key: String,
        /// Without it the list goes on; otherwise there is none.
        skips_missing: bool,
    },
    /// For requests whose headers match, or do not.
    HeaderValueMatch {
        /// Envoy's default `header_match`.
        key: String,
        /// Its value.
        value: String,
        /// All have to match.
        headers: Vec<HeaderMatcher>,
        /// Envoy's default true.
        expects_match: bool,
    },
}

/// When a virtual host's `rate_limits` count besides the route's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostLimits {
    /// When the route has none.
    #[default]
    Override,
    /// Always.
    Include,
    /// Never.
    Ignore,
}

impl HostLimits {
    /// Converts the number.
    pub(crate) fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        Ok(match at.enumeration(number)? {
            common::VhRateLimitsOptions::Override => Self::Override,
            common::VhRateLimitsOptions::Include => Self::Include,
            common::VhRateLimitsOptions::Ignore => Self::Ignore,
        })
    }
}

impl RateLimit {
    /// Converts a list.
    pub(crate) fn list(at: FieldPath<'_>, protos: Vec<pb::RateLimit>) -> Result<Vec<Self>, Rejection> {
        let limits = protos.into_iter().enumerate();
        limits
            .map(|(index, proto)| Self::from_proto(&at.index(index), proto))
            .collect()
    }

    /// Converts those of a filter, which has one stage and no switches. As in Envoy.
    pub(crate) fn of_filter(at: FieldPath<'_>, protos: Vec<pb::RateLimit>) -> Result<Vec<Self>, Rejection> {
        let has_more = |limit: &pb::RateLimit| limit.stage.is_some() || !limit.disable_key.is_empty();
        match protos.iter().any(has_more) {
            true => Err(at.reject("may have neither a stage nor a disable_key here")),
            false => Self::list(at, protos),
        }
    }

    fn from_proto(at: &FieldPath<'_>, proto: pb::RateLimit) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::RateLimit {
            supported { stage, actions, disable_key, limit }
            unsupported { x_ratelimit_option: "traffic" }
            refused {
                hits_addend: "ignoring it would admit more requests",
                apply_on_stream_done: "ignoring it would admit more requests",
            }
        });
        if actions.is_empty() {
            return Err(at.field("actions").reject("needs at least one action"));
        }
        let actions = actions.into_iter().enumerate();
        let actions = actions
            .map(|(index, proto)| RateLimitAction::from_proto(&at.field("actions").index(index), proto))
            .collect::<Result<_, _>>()?;
        let stage = at
            .field("stage")
            .within(stage.value().unwrap_or_default(), 0..=10)?;
        Ok(Self {
            stage,
            actions,
            has_disable_key: !disable_key.is_empty(),
            limit_override: LimitOverride::from_proto(&at.field("limit"), limit)?,
        })
    }
}

impl LimitOverride {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<rate_limit::Override>,
    ) -> Result<Option<Self>, Rejection> {
        use rate_limit::r#override::{OverrideSpecifier, RateLimitOverride};
        let Some(proto) = proto else { return Ok(None) };
        verdicts!(at, proto => rate_limit::Override { supported { override_specifier } });
        choices!(OverrideSpecifier {
            supported { RateLimit }
            refused { DynamicMetadata: "without it the service's own limit would count" }
        });
        match at.required(override_specifier)? {
            OverrideSpecifier::RateLimit(proto) => {
                let at = at.field("rate_limit");
                verdicts!(at, proto => RateLimitOverride { supported { requests_per_unit, unit } });
                at.field("unit").enumeration::<RateLimitUnit>(unit)?;
                Ok(Some(Self {
                    requests_per_unit,
                    unit_number: unit,
                }))
            }
            OverrideSpecifier::DynamicMetadata(_) => Err(at
                .field("dynamic_metadata")
                .reject("is not supported, and without it the service's own limit would count")),
        }
    }
}

impl RateLimitAction {
    fn from_proto(at: &FieldPath<'_>, proto: rate_limit::Action) -> Result<Self, Rejection> {
        use rate_limit::action::{self, ActionSpecifier};
        verdicts!(at, proto => rate_limit::Action { supported { action_specifier } });
        choices!(ActionSpecifier {
            supported {
                SourceCluster, DestinationCluster, RequestHeaders, RemoteAddress, GenericKey, HeaderValueMatch, QueryParameters,
                MaskedRemoteAddress, QueryParameterValueMatch,
            }
            refused {
                DynamicMetadata: "ignoring it would admit more requests",
                Metadata: "ignoring it would admit more requests",
                Extension: "ignoring it would admit more requests",
                RemoteAddressMatch: "ignoring it would admit more requests",
            }
        });
        let key = |key: String, usual: &str| match key.is_empty() {
            true => usual.to_owned(),
            false => key,
        };
        Ok(match at.required(action_specifier)? {
            ActionSpecifier::DestinationCluster(proto) => {
                verdicts!((), proto => action::DestinationCluster {});
                Self::DestinationCluster
            }
            ActionSpecifier::SourceCluster(proto) => {
                verdicts!((), proto => action::SourceCluster {});
                Self::SourceCluster
            }
            ActionSpecifier::MaskedRemoteAddress(proto) => {
                let at = at.field("masked_remote_address");
                verdicts!(at, proto => action::MaskedRemoteAddress { supported { v4_prefix_mask_len, v6_prefix_mask_len } });
                let bits = |field: &str, bits: Option<u32>, most: u8| {
                    let bits = at
                        .field(field)
                        .within(bits.unwrap_or(most.into()), 0..=most.into())?;
                    Ok(u8::try_from(bits).unwrap_or(most))
                };
                Self::MaskedRemoteAddress {
                    v4_bits: bits("v4_prefix_mask_len", v4_prefix_mask_len.value(), 32)?,
                    v6_bits: bits("v6_prefix_mask_len", v6_prefix_mask_len.value(), 128)?,
                }
            }
            ActionSpecifier::QueryParameters(proto) => {
                let at = at.field("query_parameters");
                verdicts!(at, proto => action::QueryParameters { supported { query_parameter_name, descriptor_key, skip_if_absent } });
                Self::QueryParameter {
                    name: at.field("query_parameter_name").not_empty(query_parameter_name)?,
                    key: at.field("descriptor_key").not_empty(descriptor_key)?,
                    skips_missing: skip_if_absent,
                }
            }
            ActionSpecifier::QueryParameterValueMatch(proto) => {
                let at = at.field("query_parameter_value_match");
                verdicts!(at, proto => action::QueryParameterValueMatch {
                    supported { descriptor_value, descriptor_key, expect_match, query_parameters }
                    inert { default_value: "stands in for a value with commands that comes out empty, and values have no commands" }
                });
                let field = at.field("query_parameters");
                if query_parameters.is_empty() {
                    return Err(field.reject("needs at least one parameter"));
                }
                let parameters = query_parameters.into_iter().enumerate();
                let parameters = parameters.map(|(index, proto)| query_parameter(&field.index(index), proto));
                Self::QueryValueMatch {
                    key: key(descriptor_key, "query_match"),
                    value: literal(&at.field("descriptor_value"), descriptor_value)?,
                    parameters: parameters.collect::<Result<_, _>>()?,
                    expects_match: expect_match.value().unwrap_or(true),
                }
            }
            ActionSpecifier::RemoteAddress(proto) => {
                verdicts!((), proto => action::RemoteAddress {});
                Self::RemoteAddress
            }
            ActionSpecifier::GenericKey(proto) => {
                let at = at.field("generic_key");
                verdicts!(at, proto => action::GenericKey {
                    supported { descriptor_value, descriptor_key }
                    inert { default_value: "stands in for a value with commands that comes out empty, and values have no commands" }
                });
                Self::GenericKey {
                    key: key(descriptor_key, "generic_key"),
                    value: literal(&at.field("descriptor_value"), descriptor_value)?,
                }
            }
            ActionSpecifier::RequestHeaders(proto) => {
                let at = at.field("request_headers");
                verdicts!(at, proto => action::RequestHeaders { supported { header_name, descriptor_key, skip_if_absent } });
                Self::RequestHeader {
                    name: at
                        .field("header_name")
                        .not_empty(header_name)?
                        .to_ascii_lowercase(),
                    key: at.field("descriptor_key").not_empty(descriptor_key)?,
                    skips_missing: skip_if_absent,
                }
            }
            ActionSpecifier::HeaderValueMatch(proto) => {
                let at = at.field("header_value_match");
                verdicts!(at, proto => action::HeaderValueMatch {
                    supported { descriptor_value, descriptor_key, expect_match, headers }
                    inert { default_value: "stands in for a value with commands that comes out empty, and values have no commands" }
                });
                Self::HeaderValueMatch {
                    key: key(descriptor_key, "header_match"),
                    value: literal(&at.field("descriptor_value"), descriptor_value)?,
                    headers: HeaderMatcher::list(at.field("headers"), headers)?,
                    expects_match: expect_match.value().unwrap_or(true),
                }
            }
            _ => {
                return Err(at.reject(
                    "is an action that is not supported, and ignoring it would admit more requests",
                ));
            }
        })
    }
}

/// A value without commands.
fn literal(at: &FieldPath<'_>, text: String) -> Result<String, Rejection> {
    match text.contains('%') {
        true => Err(at.reject("commands (`%…%`) are not supported here")),
        false => at.not_empty(text),
    }
}
