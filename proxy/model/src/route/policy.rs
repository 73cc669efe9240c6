//! Protobuf to [`HashPolicy`] and [`MirrorPolicy`].
use envoy_types::pb::envoy::config::route::v3::{self as pb, route_action};

use super::{HashKey, HashPolicy, MirrorPolicy, RegexRewrite};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::fraction::Fraction;
use crate::http_filter::header_mutation::HeaderStep;

impl MirrorPolicy {
    /// Converts the policies of a route, virtual host, table or cluster.
    pub(crate) fn list(
        at: FieldPath<'_>,
        protos: Vec<route_action::RequestMirrorPolicy>,
    ) -> Result<Vec<Self>, Rejection> {
        let policies = protos.into_iter().enumerate();
        policies
            .map(|(index, proto)| Self::from_proto(&at.index(index), proto))
            .collect()
    }

    fn from_proto(at: &FieldPath<'_>, proto: route_action::RequestMirrorPolicy) -> Result<Self, Rejection> {
        verdicts!(at, proto => route_action::RequestMirrorPolicy {
            supported {
                cluster, cluster_header, runtime_fraction, disable_shadow_host_suffix_append, host_rewrite_literal,
                request_headers_mutations,
            }
            unsupported { trace_sampled: "telemetry" }
        });
        match (cluster.is_empty(), cluster_header.is_empty()) {
            (true, true) => return Err(at.reject("has neither cluster nor cluster_header")),
            (false, false) => return Err(at.reject("sets both cluster and cluster_header")),
            _ => (),
        }
        let share = at.field("runtime_fraction").runtime_fraction(runtime_fraction)?;
        Ok(Self {
            cluster,
            cluster_header: cluster_header.to_ascii_lowercase(),
            share: share.unwrap_or(Fraction::ALL),
            keeps_host: disable_shadow_host_suffix_append,
            host: host_rewrite_literal,
            header_steps: HeaderStep::list(at.field("request_headers_mutations"), request_headers_mutations)?,
        })
    }
}

impl HashPolicy {
    /// Converts the policies of a route or a cluster, in order.
    pub(crate) fn list(
        at: FieldPath<'_>,
        protos: Vec<route_action::HashPolicy>,
    ) -> Result<Vec<Self>, Rejection> {
        let policies = protos.into_iter().enumerate();
        policies
            .map(|(index, proto)| Self::from_proto(&at.index(index), proto))
            .collect()
    }

    fn from_proto(at: &FieldPath<'_>, proto: route_action::HashPolicy) -> Result<Self, Rejection> {
        verdicts!(at, proto => route_action::HashPolicy { supported { terminal, policy_specifier } });
        choices!(route_action::hash_policy::PolicySpecifier {
            supported { Header, Cookie, ConnectionProperties, QueryParameter }
            refused { FilterState: "no filter here keeps such an object, so requests would spread otherwise" }
        });
        Ok(Self {
            key: HashKey::from_proto(at, at.required(policy_specifier)?)?,
            is_terminal: terminal,
        })
    }
}

impl HashKey {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: route_action::hash_policy::PolicySpecifier,
    ) -> Result<Self, Rejection> {
        use route_action::hash_policy::{self as policy, PolicySpecifier};
        Ok(match proto {
            PolicySpecifier::Header(proto) => {
                let at = at.field("header");
                verdicts!(at, proto => policy::Header { supported { header_name, regex_rewrite } });
                let rewrite =
                    regex_rewrite.map(|proto| RegexRewrite::from_proto(&at.field("regex_rewrite"), proto));
                Self::Header {
                    name: at
                        .field("header_name")
                        .not_empty(header_name)?
                        .to_ascii_lowercase(),
                    rewrite: rewrite.transpose()?,
                }
            }
            PolicySpecifier::Cookie(proto) => {
                let at = at.field("cookie");
                verdicts!(at, proto => policy::Cookie { supported { name, ttl, path, attributes } });
                let attributes = attributes.into_iter().enumerate().map(|(index, proto)| {
                    let at = at.field("attributes").index(index);
                    verdicts!(at, proto => policy::CookieAttribute { supported { name, value } });
                    Ok((at.field("name").not_empty(name)?, value))
                });
                Self::Cookie {
                    attributes: attributes.collect::<Result<_, Rejection>>()?,
                    name: at.field("name").not_empty(name)?,
                    ttl: at.field("ttl").duration(ttl)?,
                    path,
                }
            }
            PolicySpecifier::ConnectionProperties(proto) => {
                verdicts!(at, proto => policy::ConnectionProperties { supported { source_ip } });
                Self::SourceIp(source_ip)
            }
            PolicySpecifier::QueryParameter(proto) => {
                let at = at.field("query_parameter");
                verdicts!(at, proto => policy::QueryParameter { supported { name } });
                Self::QueryParameter(at.field("name").not_empty(name)?)
            }
            PolicySpecifier::FilterState(_) => {
                return Err(at
                    .field("filter_state")
                    .reject("is not supported: no filter here keeps such an object"));
            }
        })
    }
}

/// Retries that prefer priorities not tried before.
pub(super) fn previous_priorities(
    at: &FieldPath<'_>,
    proto: Option<pb::retry_policy::RetryPriority>,
) -> Result<Option<u32>, Rejection> {
    use crate::any::{TypedConfig, types};
    use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
    let Some(proto) = proto else { return Ok(None) };
    verdicts!(at, proto => pb::retry_policy::RetryPriority {
        partly {
            config_type: "PreviousPrioritiesConfig; others are refused",
            name: "in rejections; what an extension does is in the type of its config",
        }
    });
    choices!(pb::retry_policy::retry_priority::ConfigType {
        partly { TypedConfig: "PreviousPrioritiesConfig; others are refused" }
    });
    let any = config_type.map(|pb::retry_policy::retry_priority::ConfigType::TypedConfig(any)| any);
    let at = at.field("typed_config");
    let config = TypedConfig::open(&at, any)?;
    if config.type_name != types::PREVIOUS_PRIORITIES {
        return Err(config.reject(&at, "retry priority", &name, &[types::PREVIOUS_PRIORITIES]));
    }
    verdicts!(at, config.message(&at)? => PreviousPrioritiesConfig { supported { update_frequency } });
    match u32::try_from(update_frequency) {
        Ok(frequency @ 1..) => Ok(Some(frequency)),
        _ => Err(at
            .field("update_frequency")
            .reject(format!("{update_frequency} is not above 0"))),
    }
}
