//! `load_balancing_policy`: the policy as an extension, in place of `lb_policy` and its settings.
//!
//! Source: cluster.proto `LoadBalancingPolicy`; envoy/extensions/load_balancing_policies. The messages differ from the older ones in
//! where they stand, hardly in what they say.
use envoy_types::pb::envoy::config::cluster::v3::{
    LoadBalancingPolicy, cluster, load_balancing_policy::Policy,
};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::load_balancing_policies::cluster_provided::v3::ClusterProvided;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::{
    self as common, locality_lb_config,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::{
    LeastRequest, least_request,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use envoy_types::pb::envoy::extensions::load_balancing_policies::override_host::v3::{
    OverrideHost, override_host,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::random::v3::Random;
use envoy_types::pb::envoy::extensions::load_balancing_policies::ring_hash::v3::{RingHash, ring_hash};
use envoy_types::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use envoy_types::pb::google::protobuf;

use super::Balancing;
use super::peak_ewma::PeakEwma;
use crate::any::{TypedConfig, types};
use crate::cluster::{LbPolicy, LocalityMode, SlowStart, SubsetPolicy, ZoneAware};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::route::HashPolicy;
use crate::scalar::Wrapped;

/// The policy, and what it says of localities.
pub(in crate::cluster) struct Chosen {
    pub(in crate::cluster) balancing: Balancing,
    pub(in crate::cluster) locality: LocalityMode,
    pub(in crate::cluster) hashing: Hashing,
    pub(in crate::cluster) subsets: Option<SubsetPolicy>,
    /// Lower case; hosts that requests name.
    pub(in crate::cluster) override_headers: Vec<String>,
}

/// What policies that hash have in common.
#[derive(Default)]
pub(in crate::cluster) struct Hashing {
    pub(in crate::cluster) by_hostname: bool,
    pub(in crate::cluster) balance_factor: Option<u32>,
    pub(in crate::cluster) policies: Vec<HashPolicy>,
}

impl Chosen {
    fn plain(policy: LbPolicy) -> Self {
        Self {
            balancing: Balancing::plain(policy),
            locality: LocalityMode::default(),
            hashing: Hashing::default(),
            subsets: None,
            override_headers: Vec::new(),
        }
    }

    /// The first policy of the list that exists here, as in Envoy.
    pub(in crate::cluster) fn from_proto(
        at: &FieldPath<'_>,
        proto: LoadBalancingPolicy,
    ) -> Result<Self, Rejection> {
        Self::first(at, proto, false)
    }

    /// `is_inside`: of a policy that holds another. One such is enough, and each would cost a level of the stack.
    fn first(at: &FieldPath<'_>, proto: LoadBalancingPolicy, is_inside: bool) -> Result<Self, Rejection> {
        verdicts!(at, proto => LoadBalancingPolicy { supported { policies } });
        let at = at.field("policies");
        let mut unknown = Vec::new();
        for (index, proto) in policies.into_iter().enumerate() {
            let at = at.index(index);
            verdicts!(at, proto => Policy { supported { typed_extension_config } });
            let at = at.field("typed_extension_config");
            verdicts!(at, at.required(typed_extension_config)? => core::TypedExtensionConfig {
                supported { typed_config }
                partly { name: "in rejections; what an extension does is in the type of its config" }
            });
            let at = at.field("typed_config");
            let config = TypedConfig::open(&at, typed_config)?;
            let type_name = config.type_name.clone();
            match Self::of_config(&at, config, is_inside)? {
                Some(chosen) => return Ok(chosen),
                None => unknown.push(format!("{name:?} of type {type_name:?}")),
            }
        }
        let known = "write least_request, round_robin, random, ring_hash or maglev";
        Err(at.reject(format!(
            "none of the policies exists here ({}); {known}",
            unknown.join(", ")
        )))
    }

    fn of_config(
        at: &FieldPath<'_>,
        config: TypedConfig,
        is_inside: bool,
    ) -> Result<Option<Self>, Rejection> {
        let chosen = match config.type_name.as_str() {
            types::LEAST_REQUEST => Self::least_request(at, config.message(at)?)?,
            types::ROUND_ROBIN => Self::round_robin(at, config.message(at)?)?,
            types::RANDOM => {
                verdicts!(at, config.message(at)? => Random { supported { locality_lb_config } });
                Self {
                    locality: locality(at, locality_lb_config)?,
                    ..Self::plain(LbPolicy::Random)
                }
            }
            types::CLUSTER_PROVIDED => {
                verdicts!(at, config.message(at)? => ClusterProvided {});
                Self::plain(LbPolicy::ClusterProvided)
            }
            types::PEAK_EWMA => {
                let message: PeakEwma = config.message_or_json(at)?;
                Self::plain(message.into_policy(at)?)
            }
            types::RING_HASH => Self::ring_hash(at, config.message(at)?)?,
            types::MAGLEV => Self::maglev(at, config.message(at)?)?,
            types::OVERRIDE_HOST if is_inside => return Err(at.reject("stands inside another policy")),
            types::OVERRIDE_HOST => {
                verdicts!(at, config.message(at)? => OverrideHost {
                    supported { fallback_policy, override_host_sources }
                    never { selected_host_key: "names metadata of a request, which nothing reads here" }
                });
                let override_headers =
                    override_headers(at.field("override_host_sources"), override_host_sources)?;
                let at = at.field("fallback_policy");
                Self {
                    override_headers,
                    ..Self::first(&at, at.required(fallback_policy)?, true)?
                }
            }
            types::SUBSET if is_inside => return Err(at.reject("stands inside another policy")),
            types::SUBSET => {
                let (subsets, policy) = SubsetPolicy::from_extension(at, config.message(at)?)?;
                let at = at.field("subset_lb_policy");
                Self {
                    subsets,
                    ..Self::first(&at, at.required(policy)?, true)?
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(chosen))
    }

    fn ring_hash(at: &FieldPath<'_>, proto: RingHash) -> Result<Self, Rejection> {
        use cluster::ring_hash_lb_config::HashFunction as Old;
        use ring_hash::HashFunction;
        verdicts!(at, proto => RingHash {
            supported {
                hash_function, minimum_ring_size, maximum_ring_size, use_hostname_for_hashing, hash_balance_factor,
                consistent_hashing_lb_config, locality_weighted_lb_config,
            }
        });
        // Source: Envoy `RingHashLbProto`: the message takes the place of the two deprecated fields.
        let hashing = match consistent_hashing_lb_config {
            Some(proto) => Hashing::from_proto(&at.field("consistent_hashing_lb_config"), proto)?,
            None => Hashing::new(at, use_hostname_for_hashing, hash_balance_factor)?,
        };
        let same = match at.field("hash_function").enumeration(hash_function)? {
            HashFunction::DefaultHash | HashFunction::XxHash => Old::XxHash,
            HashFunction::MurmurHash2 => Old::MurmurHash2,
        };
        let policy = super::ring_hash(
            at,
            cluster::RingHashLbConfig {
                hash_function: same.into(),
                minimum_ring_size,
                maximum_ring_size,
            },
        )?;
        Ok(Self {
            locality: weighted(locality_weighted_lb_config.is_some()),
            hashing,
            ..Self::plain(policy)
        })
    }

    fn maglev(at: &FieldPath<'_>, proto: Maglev) -> Result<Self, Rejection> {
        verdicts!(at, proto => Maglev {
            supported { table_size, consistent_hashing_lb_config, locality_weighted_lb_config }
        });
        let table_size = super::maglev(at, cluster::MaglevLbConfig { table_size })?;
        let hashing = consistent_hashing_lb_config
            .map(|proto| Hashing::from_proto(&at.field("consistent_hashing_lb_config"), proto));
        Ok(Self {
            locality: weighted(locality_weighted_lb_config.is_some()),
            hashing: hashing.transpose()?.unwrap_or_default(),
            ..Self::plain(LbPolicy::Maglev { table_size })
        })
    }

    fn least_request(at: &FieldPath<'_>, proto: LeastRequest) -> Result<Self, Rejection> {
        verdicts!(at, proto => LeastRequest {
            supported { choice_count, locality_lb_config, active_request_bias, slow_start_config, selection_method }
            inert { enable_full_scan: "Envoy does nothing with it either: selection_method took its place" }
        });
        let method: least_request::SelectionMethod =
            at.field("selection_method").enumeration(selection_method)?;
        let choice_count = at
            .field("choice_count")
            .within(choice_count.value().unwrap_or(2), 2..=u32::MAX)?;
        Ok(Self {
            balancing: Balancing {
                policy: LbPolicy::LeastRequest {
                    choice_count,
                    scans_all: method == least_request::SelectionMethod::FullScan,
                },
                slow_start: slow_start(&at.field("slow_start_config"), slow_start_config)?,
                active_request_bias: at
                    .field("active_request_bias")
                    .runtime_double(active_request_bias)?,
                original_dst_port: None,
                original_dst_header: None,
            },
            locality: locality(at, locality_lb_config)?,
            hashing: Hashing::default(),
            subsets: None,
            override_headers: Vec::new(),
        })
    }

    fn round_robin(at: &FieldPath<'_>, proto: RoundRobin) -> Result<Self, Rejection> {
        verdicts!(at, proto => RoundRobin {
            supported { locality_lb_config, slow_start_config }
        });
        Ok(Self {
            balancing: Balancing {
                slow_start: slow_start(&at.field("slow_start_config"), slow_start_config)?,
                ..Balancing::plain(LbPolicy::RoundRobin)
            },
            locality: locality(at, locality_lb_config)?,
            hashing: Hashing::default(),
            subsets: None,
            override_headers: Vec::new(),
        })
    }
}

impl Hashing {
    fn new(
        at: &FieldPath<'_>,
        by_hostname: bool,
        balance_factor: Option<protobuf::UInt32Value>,
    ) -> Result<Self, Rejection> {
        let at = at.field("hash_balance_factor");
        let factor = balance_factor
            .value()
            .map(|factor| at.within(factor, 100..=u32::MAX));
        Ok(Self {
            by_hostname,
            balance_factor: factor.transpose()?,
            policies: Vec::new(),
        })
    }

    fn from_proto(at: &FieldPath<'_>, proto: common::ConsistentHashingLbConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => common::ConsistentHashingLbConfig {
            supported { use_hostname_for_hashing, hash_balance_factor, hash_policy }
        });
        Ok(Self {
            policies: HashPolicy::list(at.field("hash_policy"), hash_policy)?,
            ..Self::new(at, use_hostname_for_hashing, hash_balance_factor)?
        })
    }
}

/// The headers that name hosts.
fn override_headers(
    at: FieldPath<'_>,
    protos: Vec<override_host::OverrideHostSource>,
) -> Result<Vec<String>, Rejection> {
    let mut headers = Vec::new();
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        verdicts!(at, proto => override_host::OverrideHostSource {
            supported { header }
            partly { metadata: "checked, and listed as without effect: no filter here writes metadata that could name a host" }
        });
        match (header.is_empty(), metadata) {
            (true, None) => return Err(at.reject("has neither header nor metadata")),
            (false, Some(_)) => return Err(at.field("metadata").reject("stands beside a header")),
            (true, Some(_)) => at
                .field("metadata")
                .problem("has no effect here: nothing writes such metadata"),
            (false, None) => headers.push(header.to_ascii_lowercase()),
        }
    }
    Ok(headers)
}

fn weighted(is_weighted: bool) -> LocalityMode {
    if is_weighted {
        LocalityMode::Weighted
    } else {
        LocalityMode::default()
    }
}

fn slow_start(
    at: &FieldPath<'_>,
    proto: Option<common::SlowStartConfig>,
) -> Result<Option<SlowStart>, Rejection> {
    let Some(proto) = proto else { return Ok(None) };
    verdicts!(at, proto => common::SlowStartConfig {
        supported { slow_start_window, aggression, min_weight_percent }
    });
    let same = cluster::SlowStartConfig {
        slow_start_window,
        aggression,
        min_weight_percent,
    };
    SlowStart::from_proto(at, Some(same))
}

fn locality(at: &FieldPath<'_>, proto: Option<common::LocalityLbConfig>) -> Result<LocalityMode, Rejection> {
    use locality_lb_config::zone_aware_lb_config::{ForceLocalZone, LocalityBasis};
    use locality_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig};
    let at = at.field("locality_lb_config");
    let Some(proto) = proto else {
        return Ok(LocalityMode::default());
    };
    verdicts!(at, proto => common::LocalityLbConfig { supported { locality_config_specifier } });
    choices!(locality_lb_config::LocalityConfigSpecifier {
        supported { LocalityWeightedLbConfig, ZoneAwareLbConfig }
    });
    let proto = match locality_config_specifier {
        None => return Ok(LocalityMode::default()),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(proto)) => {
            verdicts!((), proto => LocalityWeightedLbConfig {});
            return Ok(LocalityMode::Weighted);
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(proto)) => proto,
    };
    let at = at.field("zone_aware_lb_config");
    verdicts!(at, proto => ZoneAwareLbConfig {
        supported {
            fail_traffic_on_panic, routing_enabled, min_cluster_size, force_locality_direct_routing, force_local_zone,
            locality_basis,
        }
    });
    let forced = force_local_zone.map(|proto| {
        verdicts!((), proto => ForceLocalZone { supported { min_size } });
        min_size.value().unwrap_or(1)
    });
    let basis: LocalityBasis = at.field("locality_basis").enumeration(locality_basis)?;
    Ok(LocalityMode::ZoneAware(ZoneAware {
        fail_on_panic: fail_traffic_on_panic,
        forced_min_size: forced.or(force_locality_direct_routing.then_some(1)),
        compares_weights: basis == LocalityBasis::HealthyHostsWeight,
        ..ZoneAware::with(&at, routing_enabled, min_cluster_size)?
    }))
}
