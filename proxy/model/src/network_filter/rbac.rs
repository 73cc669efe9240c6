//! The RBAC filter of connections. Source: envoy/extensions/filters/network/rbac/v3/rbac.proto. Awaits the security issue.
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as pb;

use crate::field::{FieldPath, Rejection, verdicts};
use crate::rbac::Rules;

/// Lets connections through or not. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rbac {
    /// What counts; `None`: everybody passes.
    pub rules: Option<Rules>,
    /// Judged and told, and nothing else.
    pub shadow_rules: Option<Rules>,
    /// Stats are `<stat_prefix>rbac.`.
    pub stat_prefix: String,
    /// Before `shadow_allowed` and `shadow_denied` in stats, and before the keys of dynamic metadata.
    pub shadow_stat_prefix: String,
    /// Judged anew with all data; false: once, with the first.
    pub is_continuous: bool,
    /// A refused connection is closed after this time.
    pub delay_deny: Option<Duration>,
}

impl Rbac {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::Rbac) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Rbac {
            awaited "security" { rules, shadow_rules, shadow_rules_stat_prefix, stat_prefix, enforcement_type, delay_deny }
            refused {
                matcher: "ignoring it would let everybody through: write rules",
                shadow_matcher: "ignoring it would leave out what depends on its result: write shadow_rules",
            }
        });
        let convert = |field, proto: Option<_>| {
            let at = at.field(field);
            proto.map(|proto| Rules::from_proto(&at, proto)).transpose()
        };
        let enforcement = at.field("enforcement_type");
        Ok(Self {
            rules: convert("rules", rules)?,
            shadow_rules: convert("shadow_rules", shadow_rules)?,
            stat_prefix: at.field("stat_prefix").not_empty(stat_prefix)?,
            shadow_stat_prefix: shadow_rules_stat_prefix,
            is_continuous: match enforcement.enumeration(enforcement_type)? {
                pb::rbac::EnforcementType::OneTimeOnFirstByte => false,
                pb::rbac::EnforcementType::Continuous => true,
            },
            delay_deny: at.field("delay_deny").duration(delay_deny)?,
        })
    }
}
