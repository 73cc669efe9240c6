//! What requests are to rate limits: the `rate_limits` of routes, virtual hosts and local limits. Only local limits read them; filters
//! that ask a service are refused by name. Source: route_components.proto `RateLimit`.
use envoy_types::pb::envoy::config::route::v3::{self as pb, rate_limit};
use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as common;

use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::matcher::HeaderMatcher;
use crate::scalar::Wrapped;

/// Makes a list of keys and values of a request; none when one of its actions has nothing for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Read by limits of this stage.
    pub stage: u32,
    /// At least one.
    pub actions: Vec<RateLimitAction>,
}

/// Makes one key and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateLimitAction {
    /// `destination_cluster` and its name.
    DestinationCluster,
    /// `remote_address` and the client's.
    RemoteAddress,
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
            .collect::<Result<Vec<Option<_>>, _>>()
            .map(|limits| limits.into_iter().flatten().collect())
    }

    /// `None`: it is switched off.
    fn from_proto(at: &FieldPath<'_>, proto: pb::RateLimit) -> Result<Option<Self>, Rejection> {
        verdicts!(at, proto => pb::RateLimit {
            supported { stage, actions, disable_key }
            unsupported { x_ratelimit_option: "traffic" }
            refused {
                limit: "ignoring it would admit more requests",
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
        // Envoy: whatever the runtime key says, the local filter passes over it.
        Ok(disable_key.is_empty().then_some(Self { stage, actions }))
    }
}

impl RateLimitAction {
    fn from_proto(at: &FieldPath<'_>, proto: rate_limit::Action) -> Result<Self, Rejection> {
        use rate_limit::action::{self, ActionSpecifier};
        verdicts!(at, proto => rate_limit::Action { supported { action_specifier } });
        choices!(ActionSpecifier {
            supported { DestinationCluster, RequestHeaders, RemoteAddress, GenericKey, HeaderValueMatch }
            refused {
                SourceCluster: "ignoring it would admit more requests",
                QueryParameters: "ignoring it would admit more requests",
                DynamicMetadata: "ignoring it would admit more requests",
                Metadata: "ignoring it would admit more requests",
                Extension: "ignoring it would admit more requests",
                MaskedRemoteAddress: "ignoring it would admit more requests",
                QueryParameterValueMatch: "ignoring it would admit more requests",
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
