//! Hosts of a cluster: what is said of each, what is known of it, and all of them together.
mod health;
mod host_set;
mod latency;
mod places;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use outrigger_model::endpoint::{Endpoint, Health, LoadAssignment};
use outrigger_model::node::Locality;

pub(crate) use self::health::{Availability, HealthFlag, Healths, HostState};
pub(crate) use self::host_set::{Census, HostSet, Making, Previous};
pub(super) use self::places::AddressSet;
use crate::telemetry::workload::Workload;

/// One upstream host. Immutable but for its counters and state, which survive endpoint updates that keep the address.
#[derive(Debug)]
pub(crate) struct Host {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// 1..
    pub(crate) weight: u32,
    /// As the control plane said.
    pub(crate) health: Health,
    /// 0 is the most wanted.
    pub(crate) priority: u32,
    /// Where it runs.
    pub(crate) locality: Arc<Locality>,
    /// What else is said of it: name, metadata.
    pub(crate) config: Arc<Endpoint>,
    /// Who it is, as its metadata says; for metrics.
    pub(crate) workload: Option<Arc<Workload>>,
    /// Index into the cluster's transports.
    pub(crate) transport: usize,
    /// Counters; a cluster that replaces another takes them over.
    pub(crate) counters: Arc<HostCounters>,
    /// What this proxy found out about it; each cluster object begins anew.
    pub(crate) state: Arc<HostState>,
}

/// Counters of one host over all workers. Source: Envoy `HostStats` (`/clusters`).
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct HostCounters {
    pub(crate) rq_active: AtomicU32,
    pub(crate) cx_active: AtomicU32,
    pub(crate) cx_total: AtomicU64,
    pub(crate) cx_connect_fail: AtomicU64,
    pub(crate) rq_total: AtomicU64,
    pub(crate) rq_success: AtomicU64,
    pub(crate) rq_error: AtomicU64,
    pub(crate) rq_timeout: AtomicU64,
}

/// There is an endpoint.
pub(crate) fn has_endpoints(assignment: &LoadAssignment) -> bool {
    assignment
        .localities
        .iter()
        .any(|group| !group.endpoints.is_empty())
}

#[cfg(test)]
mod tests;
