//! `lb_subset_config`, and the extension that says the same: hosts are grouped by their labels, and a request asks for a group.
//!
//! Source: cluster.proto `LbSubsetConfig`; envoy/extensions/load_balancing_policies/subset/v3/subset.proto; Envoy
//! `LoadBalancerSubsetInfoImpl`, `SubsetSelector`.
use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::cluster::v3::cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::lb_subset_config::{
    LbSubsetFallbackPolicy, LbSubsetMetadataFallbackPolicy, LbSubsetSelector, lb_subset_selector,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::subset::v3::{self as extension, Subset};
use envoy_types::pb::google::protobuf;
use lb_subset_selector::LbSubsetSelectorFallbackPolicy;

use crate::cluster::{SelectorFallback, SubsetFallback, SubsetPolicy, SubsetSelector};
use crate::field::{FieldPath, Rejection, verdicts};
use crate::metadata::struct_from_proto;

/// Those of a selector.
struct Selector {
    keys: Vec<String>,
    is_single: bool,
    fallback: i32,
    fallback_keys: Vec<String>,
}

impl SubsetPolicy {
    /// Converts the older message; `None`: there are no selectors, and so no subsets.
    pub(in crate::cluster) fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<cluster::LbSubsetConfig>,
    ) -> Result<Option<Self>, Rejection> {
        let Some(proto) = proto else { return Ok(None) };
        verdicts!(at, proto => cluster::LbSubsetConfig {
            supported {
                fallback_policy, default_subset, subset_selectors, locality_weight_aware, scale_locality_weight,
                panic_mode_any, list_as_any, metadata_fallback_policy,
            }
        });
        let selectors = subset_selectors.into_iter().map(|proto| {
            verdicts!((), proto => LbSubsetSelector {
                supported { keys, single_host_per_subset, fallback_policy, fallback_keys_subset }
            });
            Selector {
                keys,
                is_single: single_host_per_subset,
                fallback: fallback_policy,
                fallback_keys: fallback_keys_subset,
            }
        });
        Ok(Self {
            selectors: self::selectors(at, selectors)?,
            fallback: fallback(at, fallback_policy)?,
            default_subset: labels(at, default_subset)?,
            weighs_localities: locality_weight_aware,
            scales_locality_weights: scale_locality_weight,
            panics_to_any: panic_mode_any,
            list_matches_any: list_as_any,
            allows_other_labels: false,
            takes_fallback_list: takes_list(at, metadata_fallback_policy)?,
        }
        .if_any())
    }

    /// Converts the extension; its policy for the hosts of a subset is the caller's matter.
    pub(super) fn from_extension(
        at: &FieldPath<'_>,
        proto: Subset,
    ) -> Result<
        (
            Option<Self>,
            Option<envoy_types::pb::envoy::config::cluster::v3::LoadBalancingPolicy>,
        ),
        Rejection,
    > {
        verdicts!(at, proto => Subset {
            supported {
                fallback_policy, default_subset, subset_selectors, allow_redundant_keys, locality_weight_aware,
                scale_locality_weight, panic_mode_any, list_as_any, metadata_fallback_policy, subset_lb_policy,
            }
        });
        let selectors = subset_selectors.into_iter().map(|proto| {
            verdicts!((), proto => extension::subset::LbSubsetSelector {
                supported { keys, single_host_per_subset, fallback_policy, fallback_keys_subset }
            });
            Selector {
                keys,
                is_single: single_host_per_subset,
                fallback: fallback_policy,
                fallback_keys: fallback_keys_subset,
            }
        });
        let subsets = Self {
            selectors: self::selectors(at, selectors)?,
            fallback: fallback(at, fallback_policy)?,
            default_subset: labels(at, default_subset)?,
            weighs_localities: locality_weight_aware,
            scales_locality_weights: scale_locality_weight,
            panics_to_any: panic_mode_any,
            list_matches_any: list_as_any,
            allows_other_labels: allow_redundant_keys,
            takes_fallback_list: takes_list(at, metadata_fallback_policy)?,
        };
        Ok((subsets.if_any(), subset_lb_policy))
    }

    fn if_any(self) -> Option<Self> {
        (!self.selectors.is_empty()).then_some(self)
    }
}

// The numbers of the extension's enumerations are those of the older message.

fn fallback(at: &FieldPath<'_>, number: i32) -> Result<SubsetFallback, Rejection> {
    Ok(match at.field("fallback_policy").enumeration(number)? {
        LbSubsetFallbackPolicy::NoFallback => SubsetFallback::Nobody,
        LbSubsetFallbackPolicy::AnyEndpoint => SubsetFallback::Any,
        LbSubsetFallbackPolicy::DefaultSubset => SubsetFallback::Default,
    })
}

fn takes_list(at: &FieldPath<'_>, number: i32) -> Result<bool, Rejection> {
    Ok(match at.field("metadata_fallback_policy").enumeration(number)? {
        LbSubsetMetadataFallbackPolicy::MetadataNoFallback => false,
        LbSubsetMetadataFallbackPolicy::FallbackList => true,
    })
}

fn labels(at: &FieldPath<'_>, proto: Option<protobuf::Struct>) -> Result<crate::metadata::Struct, Rejection> {
    struct_from_proto(&at.field("default_subset"), proto.unwrap_or_default())
}

fn selectors(
    at: &FieldPath<'_>,
    protos: impl Iterator<Item = Selector>,
) -> Result<Vec<SubsetSelector>, Rejection> {
    let at = at.field("subset_selectors");
    let mut selectors = Vec::new();
    for (index, proto) in protos.enumerate() {
        selectors.push(selector(&at.index(index), proto)?);
    }
    Ok(selectors)
}

fn selector(at: &FieldPath<'_>, proto: Selector) -> Result<SubsetSelector, Rejection> {
    let keys: BTreeSet<String> = proto.keys.into_iter().collect();
    if keys.is_empty() {
        return Err(at.field("keys").reject("is empty"));
    }
    // Source: Envoy `SubsetSelector`; with more keys a host could be in many subsets of one.
    if proto.is_single && keys.len() > 1 {
        return Err(at
            .field("keys")
            .reject("has more than one key beside single_host_per_subset"));
    }
    use LbSubsetSelectorFallbackPolicy::{AnyEndpoint, DefaultSubset, KeysSubset, NoFallback, NotDefined};
    let fallback = match at.field("fallback_policy").enumeration(proto.fallback)? {
        NotDefined => SelectorFallback::OfCluster,
        NoFallback => SelectorFallback::Nobody,
        AnyEndpoint => SelectorFallback::Any,
        DefaultSubset => SelectorFallback::Default,
        KeysSubset => {
            let at = at.field("fallback_keys_subset");
            let fewer: BTreeSet<String> = proto.fallback_keys.into_iter().collect();
            if fewer.is_empty() || !fewer.is_subset(&keys) || fewer.len() == keys.len() {
                return Err(at.reject("must have some of the selector's keys, and not all"));
            }
            SelectorFallback::Fewer(fewer.into_iter().collect())
        }
    };
    Ok(SubsetSelector {
        keys: keys.into_iter().collect(),
        fallback,
        is_single_host: proto.is_single,
    })
}
