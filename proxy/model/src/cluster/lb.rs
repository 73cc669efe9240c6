//! Protobuf to [`LbPolicy`], [`SlowStart`] and what all policies share.
mod extension;
mod peak_ewma;
mod subset;
use envoy_types::pb::envoy::config::cluster::v3::cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf;

use super::{HashFunction, LbPolicy, LocalityMode, Percent, SlowStart, ZoneAware};
use crate::endpoint::Health;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::fraction::Decimal;
use crate::scalar::Wrapped;

pub(super) use extension::Chosen;

/// `CommonLbConfig.healthy_panic_threshold` when unset.
const PANIC_THRESHOLD: Percent = Percent(5_000);
/// Source: cluster.proto, `RingHashLbConfig` and `MaglevLbConfig`.
const RING_SIZE: std::ops::RangeInclusive<u64> = 0..=8 * 1024 * 1024;
const MAGLEV_TABLE_SIZE: u64 = 65_537;
const MAGLEV_TABLE_LIMIT: u64 = 5_000_011;

/// How a host is chosen, and how gently new ones begin.
pub(super) struct Balancing {
    pub(super) policy: LbPolicy,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) active_request_bias: Option<Decimal>,
    pub(super) original_dst_port: Option<u16>,
    pub(super) original_dst_header: Option<String>,
}

impl Balancing {
    /// A policy without settings.
    fn plain(policy: LbPolicy) -> Self {
        Self {
            policy,
            slow_start: None,
            active_request_bias: None,
            original_dst_port: None,
            original_dst_header: None,
        }
    }

    /// Converts the policy and those of its settings that belong to it; Envoy passes over the settings of another policy.
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        number: i32,
        config: Option<cluster::LbConfig>,
    ) -> Result<Self, Rejection> {
        const VALID: [&str; 6] = [
            "LEAST_REQUEST",
            "ROUND_ROBIN",
            "RANDOM",
            "RING_HASH",
            "MAGLEV",
            "CLUSTER_PROVIDED",
        ];
        choices!(cluster::LbConfig {
            supported {
                LeastRequestLbConfig, OriginalDstLbConfig, RingHashLbConfig, MaglevLbConfig, RoundRobinLbConfig,
            }
        });
        let field = at.field("lb_policy");
        let policy: cluster::LbPolicy = field.enumeration(number)?;
        let mut balancing = Self {
            policy: match policy {
                cluster::LbPolicy::LeastRequest => LbPolicy::LeastRequest {
                    choice_count: 2,
                    scans_all: false,
                },
                cluster::LbPolicy::RoundRobin => LbPolicy::RoundRobin,
                cluster::LbPolicy::Random => LbPolicy::Random,
                cluster::LbPolicy::ClusterProvided => LbPolicy::ClusterProvided,
                cluster::LbPolicy::RingHash => ring_hash(
                    &at.field("ring_hash_lb_config"),
                    cluster::RingHashLbConfig::default(),
                )?,
                cluster::LbPolicy::Maglev => LbPolicy::Maglev {
                    table_size: MAGLEV_TABLE_SIZE,
                },
                cluster::LbPolicy::LoadBalancingPolicyConfig => {
                    let name = policy.as_str_name();
                    return Err(field.reject_name(
                        format!("the policy {name} is not supported"),
                        name,
                        VALID,
                    ));
                }
            },
            slow_start: None,
            active_request_bias: None,
            original_dst_port: None,
            original_dst_header: None,
        };
        balancing.settings(at, config, policy)?;
        Ok(balancing)
    }

    fn settings(
        &mut self,
        at: &FieldPath<'_>,
        config: Option<cluster::LbConfig>,
        policy: cluster::LbPolicy,
    ) -> Result<(), Rejection> {
        match config {
            Some(cluster::LbConfig::LeastRequestLbConfig(proto)) => {
                let least = self.least_request(&at.field("least_request_lb_config"), proto)?;
                if policy == cluster::LbPolicy::LeastRequest {
                    self.policy = least;
                }
            }
            Some(cluster::LbConfig::RoundRobinLbConfig(proto)) => {
                let at = at.field("round_robin_lb_config");
                verdicts!(at, proto => cluster::RoundRobinLbConfig { supported { slow_start_config } });
                self.slow_start = SlowStart::from_proto(&at.field("slow_start_config"), slow_start_config)?;
            }
            Some(cluster::LbConfig::RingHashLbConfig(proto)) => {
                let ring = ring_hash(&at.field("ring_hash_lb_config"), proto)?;
                if policy == cluster::LbPolicy::RingHash {
                    self.policy = ring;
                }
            }
            Some(cluster::LbConfig::MaglevLbConfig(proto)) => {
                let table_size = maglev(&at.field("maglev_lb_config"), proto)?;
                if policy == cluster::LbPolicy::Maglev {
                    self.policy = LbPolicy::Maglev { table_size };
                }
            }
            Some(cluster::LbConfig::OriginalDstLbConfig(proto)) => {
                let (port, header) = original_dst(&at.field("original_dst_lb_config"), proto)?;
                if policy == cluster::LbPolicy::ClusterProvided {
                    self.original_dst_port = port;
                    self.original_dst_header = header;
                }
            }
            None => (),
        }
        Ok(())
    }

    fn least_request(
        &mut self,
        at: &FieldPath<'_>,
        proto: cluster::LeastRequestLbConfig,
    ) -> Result<LbPolicy, Rejection> {
        verdicts!(at, proto => cluster::LeastRequestLbConfig {
            supported { choice_count, active_request_bias, slow_start_config }
        });
        let field = at.field("active_request_bias");
        self.active_request_bias = field.runtime_double(active_request_bias)?;
        // Source: Envoy `LeastRequestLoadBalancer`: a negative bias is taken for 0, with a warning.
        self.slow_start = SlowStart::from_proto(&at.field("slow_start_config"), slow_start_config)?;
        let choice_count = at
            .field("choice_count")
            .within(choice_count.value().unwrap_or(2), 2..=u32::MAX)?;
        Ok(LbPolicy::LeastRequest {
            choice_count,
            scans_all: false,
        })
    }
}

/// The port that takes the place of the dialled one, and the header whose address does.
fn original_dst(
    at: &FieldPath<'_>,
    proto: cluster::OriginalDstLbConfig,
) -> Result<(Option<u16>, Option<String>), Rejection> {
    verdicts!(at, proto => cluster::OriginalDstLbConfig {
        supported { upstream_port_override, use_http_header, http_header_name }
        refused {
            metadata_key: "ignoring it would connect elsewhere",
        }
    });
    let header_at = at.field("http_header_name");
    let header = match (use_http_header, http_header_name.is_empty()) {
        (true, true) => Some("x-envoy-original-dst-host".to_owned()),
        (true, false) => Some(http_header_name.to_ascii_lowercase()),
        (false, true) => None,
        (false, false) => return Err(header_at.reject("is there without use_http_header; set that to true")),
    };
    let at = at.field("upstream_port_override");
    let port = upstream_port_override
        .value()
        .map(|port| at.port(port))
        .transpose()?;
    Ok((port, header))
}

fn ring_hash(at: &FieldPath<'_>, proto: cluster::RingHashLbConfig) -> Result<LbPolicy, Rejection> {
    verdicts!(at, proto => cluster::RingHashLbConfig {
        supported { minimum_ring_size, hash_function, maximum_ring_size }
    });
    let size = |field, proto: Option<protobuf::UInt64Value>, default| {
        let size = proto.map_or(default, |protobuf::UInt64Value { value }| value);
        at.field(field).within_u64(size, RING_SIZE)
    };
    let minimum_size = size("minimum_ring_size", minimum_ring_size, 1024)?;
    let maximum_size = size("maximum_ring_size", maximum_ring_size, *RING_SIZE.end())?;
    if minimum_size > maximum_size {
        return Err(at.field("maximum_ring_size").reject("is below minimum_ring_size"));
    }
    Ok(LbPolicy::RingHash {
        minimum_size,
        maximum_size,
        function: match at.field("hash_function").enumeration(hash_function)? {
            cluster::ring_hash_lb_config::HashFunction::XxHash => HashFunction::XxHash,
            cluster::ring_hash_lb_config::HashFunction::MurmurHash2 => HashFunction::MurmurHash2,
        },
    })
}

fn maglev(at: &FieldPath<'_>, proto: cluster::MaglevLbConfig) -> Result<u64, Rejection> {
    verdicts!(at, proto => cluster::MaglevLbConfig { supported { table_size } });
    let at = at.field("table_size");
    let size = table_size.map_or(MAGLEV_TABLE_SIZE, |protobuf::UInt64Value { value }| value);
    at.within_u64(size, 1..=MAGLEV_TABLE_LIMIT)?;
    // The permutations of a table cover it only if its size is prime. Source: Envoy `MaglevTable`.
    if size < 2 || (2..).take_while(|n| n * n <= size).any(|n| size % n == 0) {
        return Err(at.reject(format!("{size} is no prime number")));
    }
    Ok(size)
}

impl SlowStart {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<cluster::SlowStartConfig>,
    ) -> Result<Option<Self>, Rejection> {
        let Some(proto) = proto else { return Ok(None) };
        verdicts!(at, proto => cluster::SlowStartConfig {
            supported { slow_start_window, aggression, min_weight_percent }
        });
        let field = at.field("slow_start_window");
        let window = field.required(field.duration(slow_start_window)?)?;
        let aggression_at = at.field("aggression");
        let aggression = aggression_at.runtime_double(aggression)?.unwrap_or(Decimal(1.0));
        if aggression.0 <= 0.0 {
            return Err(aggression_at.reject(format!("{} is not above 0", aggression.0)));
        }
        let percent = at.field("min_weight_percent").percent(min_weight_percent)?;
        Ok(Some(Self {
            window,
            aggression,
            min_weight: percent.unwrap_or(Percent(1_000)),
        }))
    }
}

/// What all policies share.
pub(super) struct CommonBalancing {
    pub(super) panic_threshold: Percent,
    pub(super) locality: LocalityMode,
    pub(super) hash_balance_factor: Option<u32>,
    pub(super) hash_by_hostname: bool,
    pub(super) override_host_status: Vec<Health>,
    pub(super) closes_on_host_change: bool,
    pub(super) new_hosts_wait_for_health: bool,
}

impl CommonBalancing {
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<cluster::CommonLbConfig>,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => cluster::CommonLbConfig {
            supported {
                healthy_panic_threshold, consistent_hashing_lb_config, locality_config_specifier, ignore_new_hosts_until_first_hc,
                override_host_status, close_connections_on_host_set_change,
            }
            never { update_merge_window: "gathers changes so that they cost less; here each is in force at once" }
        });
        let threshold = at
            .field("healthy_panic_threshold")
            .percent(healthy_panic_threshold)?;
        let hashing_at = at.field("consistent_hashing_lb_config");
        verdicts!(hashing_at, consistent_hashing_lb_config.unwrap_or_default() => cluster::common_lb_config::ConsistentHashingLbConfig {
            supported { use_hostname_for_hashing, hash_balance_factor }
        });
        let factor_at = hashing_at.field("hash_balance_factor");
        let factor = hash_balance_factor
            .value()
            .map(|factor| factor_at.within(factor, 100..=u32::MAX));
        Ok(Self {
            panic_threshold: threshold.unwrap_or(PANIC_THRESHOLD),
            locality: LocalityMode::from_proto(at, locality_config_specifier)?,
            hash_balance_factor: factor.transpose()?,
            hash_by_hostname: use_hostname_for_hashing,
            override_host_status: statuses(&at.field("override_host_status"), override_host_status)?,
            closes_on_host_change: close_connections_on_host_set_change,
            new_hosts_wait_for_health: ignore_new_hosts_until_first_hc,
        })
    }
}

fn statuses(at: &FieldPath<'_>, proto: Option<core::HealthStatusSet>) -> Result<Vec<Health>, Rejection> {
    verdicts!(at, proto.unwrap_or_default() => core::HealthStatusSet { supported { statuses } });
    let at = at.field("statuses");
    let statuses = statuses.into_iter().enumerate();
    statuses
        .map(|(index, number)| Health::from_proto(&at.index(index), number))
        .collect()
}

impl LocalityMode {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<cluster::common_lb_config::LocalityConfigSpecifier>,
    ) -> Result<Self, Rejection> {
        use cluster::common_lb_config::{
            LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
        };
        choices!(cluster::common_lb_config::LocalityConfigSpecifier {
            supported { LocalityWeightedLbConfig, ZoneAwareLbConfig }
        });
        Ok(match proto {
            None => Self::default(),
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(proto)) => {
                verdicts!((), proto => LocalityWeightedLbConfig {});
                Self::Weighted
            }
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(proto)) => {
                let at = at.field("zone_aware_lb_config");
                verdicts!(at, proto => ZoneAwareLbConfig {
                    supported { fail_traffic_on_panic, routing_enabled, min_cluster_size }
                });
                Self::ZoneAware(ZoneAware {
                    fail_on_panic: fail_traffic_on_panic,
                    ..ZoneAware::with(&at, routing_enabled, min_cluster_size)?
                })
            }
        })
    }
}

impl ZoneAware {
    fn with(
        at: &FieldPath<'_>,
        routing_enabled: Option<envoy_types::pb::envoy::r#type::v3::Percent>,
        min_cluster_size: Option<protobuf::UInt64Value>,
    ) -> Result<Self, Rejection> {
        let percent = at.field("routing_enabled").percent(routing_enabled)?;
        let default = Self::default();
        Ok(Self {
            // Envoy compares whole percentages.
            routing_percent: percent.map_or(default.routing_percent, |Percent(hundredths)| {
                (hundredths + 50) / 100
            }),
            min_cluster_size: min_cluster_size
                .map_or(default.min_cluster_size, |protobuf::UInt64Value { value }| value),
            ..default
        })
    }
}
