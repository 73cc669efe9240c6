//! Endpoints of a cluster. Source: envoy/config/endpoint/v3/{endpoint,endpoint_components}.proto.
mod from_proto;
mod remembered;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::fraction::Fraction;
use crate::metadata::Metadata;
use crate::node::Locality;

pub use remembered::{Layout, Remembered};

/// All endpoints of one cluster (`ClusterLoadAssignment`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadAssignment {
    /// Endpoints by locality and priority, in the order received.
    pub localities: Vec<LocalityEndpoints>,
    /// Percent by which a partly healthy priority still takes all its load; Envoy's default 140.
    pub overprovisioning_factor: u32,
    /// The health of a priority is that of its hosts by their weights, not by their number.
    pub weighs_health: bool,
    /// Of no use after this time, unless it comes again; `None`: never.
    pub stale_after: Option<Duration>,
    /// This share of requests is refused at once (`drop_overloads`).
    pub dropped: Fraction,
}

impl Default for LoadAssignment {
    /// No endpoints.
    fn default() -> Self {
        Self {
            localities: Vec::new(),
            overprovisioning_factor: OVERPROVISIONING_FACTOR,
            weighs_health: false,
            stale_after: None,
            dropped: Fraction::NONE,
        }
    }
}

/// `ClusterLoadAssignment.Policy.overprovisioning_factor` when unset, percent.
const OVERPROVISIONING_FACTOR: u32 = 140;

/// Endpoints of one locality.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Locality,
    /// 0 is the most wanted.
    pub priority: u32,
    /// Share of its priority, for clusters that weigh localities; `None`: nothing for it there.
    pub weight: Option<u32>,
    /// The endpoints; those that did not change may be shared with an earlier assignment.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Where it is too, in the order of preference; one of the other family, most often.
    pub additional_addresses: Box<[SocketAddr]>,
    /// Its name in `/clusters`; empty: none.
    pub hostname: String,
    /// Weight 1..; default 1.
    pub weight: u32,
    /// As the control plane sees it.
    pub health: Health,
    /// `istio.workload`, `envoy.transport_socket_match` and others.
    pub metadata: Metadata,
    /// What is not as usual when it is checked.
    pub health_check: Option<Box<EndpointHealthCheck>>,
}

/// How one endpoint is checked. Source: endpoint_components.proto `HealthCheckConfig`; Envoy `resolveHealthCheckAddress`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointHealthCheck {
    /// It is not, and counts as healthy.
    pub is_disabled: bool,
    /// In place of its own address and port.
    pub address: Option<SocketAddr>,
    /// In place of the port of either.
    pub port: Option<u16>,
    /// The authority of questions; empty: as the checker says.
    pub hostname: String,
}

impl Endpoint {
    /// It is not checked, and counts as healthy. Source: endpoint_components.proto `disable_active_health_check`.
    pub fn is_excused(&self) -> bool {
        self.health_check
            .as_ref()
            .is_some_and(|config| config.is_disabled)
    }

    /// Where its health is asked for, if its address is this. Source: Envoy `resolveHealthCheckAddress`.
    pub fn checked_address(&self, own: SocketAddr) -> SocketAddr {
        let Some(config) = self.health_check.as_deref() else {
            return own;
        };
        let address = config.address.unwrap_or(own);
        SocketAddr::new(address.ip(), config.port.unwrap_or_else(|| address.port()))
    }

    /// What is found out of `other`, at the same address, holds for this one too: both are checked in the same place, or neither is.
    pub fn is_checked_as(&self, other: &Self) -> bool {
        let place = |endpoint: &Self| match endpoint.health_check.as_deref() {
            None => (None, None),
            Some(config) => (config.address, config.port),
        };
        self.is_excused() == other.is_excused() && place(self) == place(other)
    }
}

/// EDS health. Source: health_check.proto `HealthStatus`: UNKNOWN counts as healthy, DRAINING and TIMEOUT as unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Health {
    Unknown,
    Healthy,
    Unhealthy,
    Draining,
    Timeout,
    Degraded,
}
