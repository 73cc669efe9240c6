//! The RBAC filter. Source: envoy/extensions/filters/http/rbac/v3/rbac.proto. Awaits the security issue.
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as pb;

use crate::field::{FieldPath, Rejection, verdicts};
use crate::rbac::Rules;

/// Lets requests through or not. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rbac {
    /// What counts; `None`: everybody passes.
    pub rules: Option<Rules>,
    /// Judged and told, and nothing else; a CUSTOM policy of Istio asks an authorizer when these match.
    pub shadow_rules: Option<Rules>,
    /// Before `allowed` and `denied` in stats.
    pub stat_prefix: String,
    /// Before `shadow_allowed` and `shadow_denied` in stats, and before the keys of dynamic metadata.
    pub shadow_stat_prefix: String,
}

impl Rbac {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::Rbac) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Rbac {
            awaited "security" { rules, rules_stat_prefix, shadow_rules, shadow_rules_stat_prefix }
            unsupported { track_per_rule_stats: "telemetry" }
            refused {
                matcher: "ignoring it would let everybody through: write rules",
                shadow_matcher: "ignoring it would leave out what depends on its result: write shadow_rules",
            }
        });
        let convert = |field, proto: Option<_>| {
            let at = at.field(field);
            proto.map(|proto| Rules::from_proto(&at, proto)).transpose()
        };
        Ok(Self {
            rules: convert("rules", rules)?,
            shadow_rules: convert("shadow_rules", shadow_rules)?,
            stat_prefix: rules_stat_prefix,
            shadow_stat_prefix: shadow_rules_stat_prefix,
        })
    }

    /// Converts the settings of a route; `None`: the filter is off there.
    pub(crate) fn from_route(at: &FieldPath<'_>, proto: pb::RbacPerRoute) -> Result<Option<Self>, Rejection> {
        verdicts!(at, proto => pb::RbacPerRoute { awaited "security" { rbac } });
        let at = at.field("rbac");
        rbac.map(|proto| Self::from_proto(&at, proto)).transpose()
    }
}
