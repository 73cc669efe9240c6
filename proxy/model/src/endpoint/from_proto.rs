//! Protobuf to [`LoadAssignment`].
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf;

use super::{
    Endpoint, EndpointHealthCheck, Health, LoadAssignment, LocalityEndpoints, OVERPROVISIONING_FACTOR,
};
use crate::address::{Address, Names};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::fraction::Fraction;
use crate::metadata::Metadata;
use crate::node::Locality;
use crate::scalar::Wrapped;

/// Largest `LocalityLbEndpoints.priority`. Source: endpoint_components.proto.
const MAX_PRIORITY: u32 = 128;

impl LoadAssignment {
    /// Converts what is said beside the localities.
    pub(super) fn with_localities(
        at: &FieldPath<'_>,
        proto: pb::ClusterLoadAssignment,
        localities: Vec<LocalityEndpoints>,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ClusterLoadAssignment {
            supported { endpoints, policy }
            partly { cluster_name: "must be there; the stream that brings the endpoints names them" }
            never { named_endpoints: "endpoints that policies name, which Istio does not use" }
        });
        debug_assert!(endpoints.is_empty(), "converted before");
        at.field("cluster_name").not_empty(cluster_name)?;
        let policy = LoadPolicy::from_proto(&at.field("policy"), policy)?;
        Ok(Self {
            localities,
            overprovisioning_factor: policy.overprovisioning_factor,
            weighs_health: policy.weighs_health,
            stale_after: policy.stale_after,
            dropped: policy.dropped,
        })
    }

    /// Converts what EDS sends: addresses only.
    pub(crate) fn from_eds(at: &FieldPath<'_>, proto: pb::ClusterLoadAssignment) -> Result<Self, Rejection> {
        Self::from_proto(at, proto, Names::Refused)
    }

    /// Converts endpoints; clusters that resolve names may have names.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        mut proto: pb::ClusterLoadAssignment,
        names: Names,
    ) -> Result<Self, Rejection> {
        let endpoints = std::mem::take(&mut proto.endpoints);
        let localities = endpoints.into_iter().enumerate().map(|(index, proto)| {
            LocalityEndpoints::from_proto(&at.field("endpoints").index(index), proto, names)
        });
        let localities = localities.collect::<Result<Vec<_>, _>>()?;
        Self::with_localities(at, proto, localities)
    }
}

/// What an assignment says of how its endpoints are used.
struct LoadPolicy {
    overprovisioning_factor: u32,
    weighs_health: bool,
    stale_after: Option<Duration>,
    dropped: Fraction,
}

impl LoadPolicy {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::cluster_load_assignment::Policy>,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => pb::cluster_load_assignment::Policy {
            supported { overprovisioning_factor, weighted_priority_health, endpoint_stale_after, drop_overloads }
        });
        let factor = overprovisioning_factor.value().unwrap_or(OVERPROVISIONING_FACTOR);
        Ok(Self {
            overprovisioning_factor: at.field("overprovisioning_factor").within(factor, 1..=u32::MAX)?,
            weighs_health: weighted_priority_health,
            stale_after: at.field("endpoint_stale_after").positive(endpoint_stale_after)?,
            dropped: dropped(&at.field("drop_overloads"), drop_overloads)?,
        })
    }
}

/// One at most, as Envoy.
fn dropped(
    at: &FieldPath<'_>,
    protos: Vec<pb::cluster_load_assignment::policy::DropOverload>,
) -> Result<Fraction, Rejection> {
    if protos.len() > 1 {
        return Err(at.reject(format!(
            "has {} entries; write one with the share of all together",
            protos.len()
        )));
    }
    let Some(proto) = protos.into_iter().next() else {
        return Ok(Fraction::NONE);
    };
    let at = at.index(0);
    verdicts!(at, proto => pb::cluster_load_assignment::policy::DropOverload {
        supported { drop_percentage }
        partly { category: "must be there; it names what load reports count, and there are none" }
    });
    at.field("category").not_empty(category)?;
    let at = at.field("drop_percentage");
    // As in Envoy, which takes more than the whole for the whole in other places.
    let whole = |share: &FractionalPercent| match share.denominator() {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    if let Some(share) = drop_percentage.filter(|share| share.numerator > whole(share)) {
        return Err(at.reject(format!(
            "is {} of {}; write a share of one",
            share.numerator,
            whole(&share)
        )));
    }
    let share = at.fraction(drop_percentage)?;
    Ok(share.unwrap_or(Fraction::NONE))
}

impl LocalityEndpoints {
    fn from_proto(
        at: &FieldPath<'_>,
        mut proto: pb::LocalityLbEndpoints,
        names: Names,
    ) -> Result<Self, Rejection> {
        let endpoints = std::mem::take(&mut proto.lb_endpoints);
        let endpoints = endpoints.into_iter().enumerate().map(|(index, proto)| {
            let at = at.field("lb_endpoints").index(index);
            Endpoint::from_proto(&at, proto, names).map(Arc::new)
        });
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        Self::with_endpoints(at, proto, endpoints, &|| ())
    }

    /// Converts what is said beside the endpoints. `pause` is called between them.
    pub(super) fn with_endpoints(
        at: &FieldPath<'_>,
        proto: pb::LocalityLbEndpoints,
        endpoints: Vec<Arc<Endpoint>>,
        pause: &dyn Fn(),
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::LocalityLbEndpoints {
            supported { locality, lb_endpoints, priority, load_balancing_weight }
            never {
                metadata: "read by matchers of transport sockets by input alone, which Istio does not configure",
                proximity: "no balancer reads it, in Envoy neither",
            }
            refused { lb_config: "ignoring it would leave the locality without its endpoints" }
        });
        debug_assert!(lb_endpoints.is_empty(), "converted before");
        let sum: u64 = endpoints
            .iter()
            .inspect(|_| pause())
            .map(|endpoint| u64::from(endpoint.weight))
            .sum();
        if sum > u64::from(u32::MAX) {
            return Err(at
                .field("lb_endpoints")
                .reject(format!("the weights sum to {sum}, more than {}", u32::MAX)));
        }
        Ok(Self {
            locality: Locality::from_proto(locality),
            weight: weight(&at.field("load_balancing_weight"), load_balancing_weight)?,
            priority: at.field("priority").within(priority, 0..=MAX_PRIORITY)?,
            endpoints,
        })
    }
}

fn weight(at: &FieldPath<'_>, proto: Option<protobuf::UInt32Value>) -> Result<Option<u32>, Rejection> {
    proto
        .value()
        .map(|weight| at.within(weight, 1..=u32::MAX))
        .transpose()
}

impl Endpoint {
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        proto: pb::LbEndpoint,
        names: Names,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::LbEndpoint {
            supported { health_status, metadata, load_balancing_weight, host_identifier }
        });
        choices!(pb::lb_endpoint::HostIdentifier {
            supported { Endpoint }
            refused { EndpointName: "names of `named_endpoints` have no behaviour here" }
        });
        let endpoint = match host_identifier {
            Some(pb::lb_endpoint::HostIdentifier::Endpoint(endpoint)) => endpoint,
            Some(pb::lb_endpoint::HostIdentifier::EndpointName(_)) => {
                return Err(at
                    .field("endpoint_name")
                    .reject("is not supported; write the endpoint itself"));
            }
            None => return Err(at.field("endpoint").reject("is missing")),
        };
        let weight = weight(&at.field("load_balancing_weight"), load_balancing_weight)?.unwrap_or(1);
        let health = Health::from_proto(&at.field("health_status"), health_status)?;
        let metadata = Metadata::from_proto(&at.field("metadata"), metadata)?;
        let at = at.field("endpoint");
        verdicts!(at, endpoint => pb::Endpoint {
            supported { address, hostname, additional_addresses, health_check_config }
            unsupported { observability_name: "telemetry" }
        });
        let field = at.field("address");
        let address = Address::from_proto(&field, address, names)?;
        if matches!(address, Address::Pipe(_)) {
            field
                .field("pipe")
                .problem("only a control plane is reached over a pipe; requests are not sent there");
        }
        let health_check = health_check_config.map(|proto| {
            EndpointHealthCheck::from_proto(&at.field("health_check_config"), proto).map(Box::new)
        });
        let at = at.field("additional_addresses");
        let additional = additional_addresses.into_iter().enumerate();
        let additional = additional.map(|(index, proto)| additional_address(&at.index(index), proto));
        Ok(Self {
            address,
            additional_addresses: additional.collect::<Result<_, _>>()?,
            hostname,
            weight,
            health,
            metadata,
            health_check: health_check.transpose()?,
        })
    }
}

impl EndpointHealthCheck {
    fn from_proto(at: &FieldPath<'_>, proto: pb::endpoint::HealthCheckConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::endpoint::HealthCheckConfig {
            supported { port_value, hostname, address, disable_active_health_check }
        });
        let address_at = at.field("address");
        let address = match address {
            None => None,
            Some(proto) => match Address::from_proto(&address_at, Some(proto), Names::Refused)? {
                Address::Socket(address) => Some(address),
                Address::Pipe(_) | Address::Host { .. } => {
                    return Err(address_at.reject("is no IP address and port"));
                }
            },
        };
        let port = match port_value {
            0 => None,
            port => Some(at.field("port_value").port(port)?),
        };
        Ok(Self {
            is_disabled: disable_active_health_check,
            address,
            port,
            hostname,
        })
    }
}

fn additional_address(
    at: &FieldPath<'_>,
    proto: pb::endpoint::AdditionalAddress,
) -> Result<SocketAddr, Rejection> {
    verdicts!(at, proto => pb::endpoint::AdditionalAddress { supported { address } });
    let at = at.field("address");
    match Address::from_proto(&at, address, Names::Refused)? {
        Address::Socket(address) => Ok(address),
        Address::Pipe(_) | Address::Host { .. } => Err(at.reject("must be an IP address")),
    }
}

impl Health {
    /// Converts an EDS health.
    pub(crate) fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        Ok(match at.enumeration(number)? {
            core::HealthStatus::Unknown => Self::Unknown,
            core::HealthStatus::Healthy => Self::Healthy,
            core::HealthStatus::Unhealthy => Self::Unhealthy,
            core::HealthStatus::Draining => Self::Draining,
            core::HealthStatus::Timeout => Self::Timeout,
            core::HealthStatus::Degraded => Self::Degraded,
        })
    }
}
