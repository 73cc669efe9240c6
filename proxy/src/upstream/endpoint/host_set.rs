//! All hosts of a cluster, where each is, and how they share the load.
use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_model::address::Address;
use outrigger_model::endpoint::{Endpoint, LoadAssignment};
use outrigger_model::metadata::Metadata;
use outrigger_model::node::Locality;

use super::places::Places;
use super::{Availability, HealthFlag, Host, HostState};
use crate::pace::{paced, release};
use crate::telemetry::workload::Workload;
use crate::time::Instant;
use crate::upstream::lb::{Balance, Grouping, Settings, SubsetMaking, Subsets};

/// All hosts of a cluster. Immutable: a change makes another, which shares what stays.
#[derive(Debug, Default)]
pub(crate) struct HostSet {
    /// Every host, in the order received.
    pub(crate) all: Arc<Vec<Arc<Host>>>,
    /// Who gets what.
    pub(crate) balance: Balance,
    /// Who gets what of requests that ask for labels, in clusters that know of such.
    pub(crate) subsets: Option<Box<Subsets>>,
    /// Places in `all`.
    places: Arc<Places>,
    grouping: Arc<Grouping>,
}

/// How many hosts there are. Source: Envoy docs, cluster stats `membership_*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) struct Census {
    pub(crate) total: u64,
    pub(crate) healthy: u64,
    pub(crate) degraded: u64,
    pub(crate) excluded: u64,
}

/// The hosts that were there before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Previous<'a> {
    /// They.
    pub(crate) hosts: &'a HostSet,
    /// Of the same cluster object: what did not change stays as it is. Else only counters are taken over.
    pub(crate) is_own: bool,
}

/// What hosts are made with.
#[derive(Clone, Copy)]
pub(crate) struct Making<'a> {
    /// How they share the load.
    pub(crate) settings: &'a Settings,
    /// The transport for an endpoint's metadata.
    pub(crate) transport_of: &'a dyn Fn(&Metadata) -> usize,
    /// State of a new host.
    pub(crate) state: &'a dyn Fn(&Endpoint, Instant) -> HostState,
    /// Hosts are actively checked.
    pub(crate) is_checked: bool,
    /// Now.
    pub(crate) now: Instant,
}

impl HostSet {
    /// The host of `address`, which `is_it` tells. It is looked for first at `place`, where it is if nothing changed. `place` goes to
    /// the next one.
    fn near(
        &self,
        place: &mut usize,
        address: SocketAddr,
        is_it: impl Fn(&&Arc<Host>) -> bool,
    ) -> Option<&Arc<Host>> {
        for step in 0..2 {
            if let Some(host) = self.all.get(*place + step).filter(&is_it) {
                *place += step + 1;
                return Some(host);
            }
        }
        *place += 1;
        self.find(address)
    }

    /// Groups the endpoints of an assignment. Hosts with a name for an address have to be resolved before. Counters come from
    /// `previous` where the address stays.
    pub(crate) fn build(assignment: &LoadAssignment, making: Making<'_>, previous: Previous<'_>) -> Self {
        let count = assignment
            .localities
            .iter()
            .map(|group| group.endpoints.len())
            .sum();
        let mut all: Vec<Arc<Host>> = Vec::with_capacity(count);
        let mut places = Places::with_capacity(count);
        // Where a host of the same configuration stood before, if the order is that of before.
        let mut place = 0;
        for group in &assignment.localities {
            let mut locality: Option<Arc<Locality>> = None;
            for endpoint in paced(&group.endpoints) {
                let Address::Socket(address) = endpoint.address else {
                    continue;
                };
                let before = previous.hosts.near(&mut place, address, |host| {
                    Arc::ptr_eq(&host.config, endpoint) || host.address == address
                });
                let is_in_group = |host: &&Arc<Host>| {
                    let is_here = match &locality {
                        // Of the same object, most often.
                        Some(locality) => host.locality == *locality,
                        None => *host.locality == group.locality,
                    };
                    is_here && host.priority == group.priority
                };
                let same_place = before.filter(is_in_group);
                let locality = locality.get_or_insert_with(|| match same_place {
                    Some(host) => host.locality.clone(),
                    None => Arc::new(group.locality.clone()),
                });
                let host = match same_place {
                    Some(host) if previous.is_own && Arc::ptr_eq(&host.config, endpoint) => host.clone(),
                    _ => {
                        let before = before.map(|host| (host, previous.is_own));
                        Arc::new(making.host(endpoint, address, group.priority, locality, before))
                    }
                };
                // Envoy keeps the first of endpoints with the same address.
                places.push(&mut all, host);
            }
        }
        let grouping = Arc::new(Grouping::of(assignment));
        let (balance, subsets) = share_out(&all, &grouping, making.settings, making.now);
        Self {
            balance,
            subsets,
            all: Arc::new(all),
            places: Arc::new(places),
            grouping,
        }
    }

    /// The same hosts, shared out anew by what is known of them at `now`.
    pub(crate) fn rebalanced(&self, settings: &Settings, now: Instant) -> Self {
        let (balance, subsets) = share_out(&self.all, &self.grouping, settings, now);
        Self {
            balance,
            subsets,
            all: self.all.clone(),
            places: self.places.clone(),
            grouping: self.grouping.clone(),
        }
    }

    /// The host at this address.
    pub(crate) fn find(&self, address: SocketAddr) -> Option<&Arc<Host>> {
        self.places.find(&self.all, address)
    }

    /// A host was added or is gone. O(n).
    pub(crate) fn has_other_members(&self, before: &HostSet) -> bool {
        let mut place = 0;
        let mut is_new = |host: &Arc<Host>| {
            let is_it = |other: &&Arc<Host>| Arc::ptr_eq(other, host) || other.address == host.address;
            before.near(&mut place, host.address, is_it).is_none()
        };
        self.all.len() != before.all.len() || paced(self.all.iter()).any(&mut is_new)
    }

    /// How many are ejected by outlier detection. O(n).
    pub(crate) fn ejected(&self) -> u64 {
        let is_ejected = |host: &&Arc<Host>| host.state.has(HealthFlag::FailedOutlierCheck);
        paced(self.all.iter()).filter(is_ejected).count() as u64
    }

    /// How many are checked and pass. O(n).
    pub(crate) fn passing(&self) -> u64 {
        let passes = |host: &&Arc<Host>| !host.is_excused() && !host.state.has(HealthFlag::FailedActiveCheck);
        paced(self.all.iter()).filter(passes).count() as u64
    }

    /// Counts them.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census {
            total: self.all.len() as u64,
            ..Census::default()
        };
        for host in paced(self.all.iter()) {
            match host.availability() {
                Availability::Healthy => census.healthy += 1,
                Availability::Degraded => census.degraded += 1,
                Availability::Unhealthy => {}
            }
            census.excluded += u64::from(host.is_excluded());
        }
        census
    }
}

impl Drop for HostSet {
    fn drop(&mut self) {
        if let Some(all) = Arc::get_mut(&mut self.all) {
            release(std::mem::take(all));
        }
    }
}

/// All hosts together, and by their labels if they have a part in that.
fn share_out(
    all: &[Arc<Host>],
    grouping: &Grouping,
    settings: &Settings,
    now: Instant,
) -> (Balance, Option<Box<Subsets>>) {
    let Some(policy) = settings.subsets() else {
        return (Balance::new(all, grouping, settings, now), None);
    };
    let making = SubsetMaking {
        all,
        grouping,
        settings,
        now,
    };
    (making.any(policy), Some(Box::new(Subsets::new(policy, making))))
}

impl Making<'_> {
    /// `before`: the host that had this address, and whether it is one of the same cluster object.
    fn host(
        &self,
        endpoint: &Arc<Endpoint>,
        address: SocketAddr,
        priority: u32,
        locality: &Arc<Locality>,
        before: Option<(&Arc<Host>, bool)>,
    ) -> Host {
        // What was found out by other checks, or before there were any, does not count. Source: Envoy `updateDynamicHostList`.
        let is_same = |host: &Host| !self.is_checked || host.config.is_checked_as(endpoint);
        let own = before
            .filter(|(host, is_own)| *is_own && is_same(host))
            .map(|(host, _)| host);
        Host {
            address,
            weight: endpoint.weight.max(1),
            health: endpoint.health,
            priority,
            locality: locality.clone(),
            workload: workload(&endpoint.metadata),
            transport: (self.transport_of)(&endpoint.metadata),
            counters: before.map(|(host, _)| host.counters.clone()).unwrap_or_default(),
            state: own.map_or_else(
                || Arc::new((self.state)(endpoint, self.now)),
                |host| host.state.clone(),
            ),
            config: endpoint.clone(),
        }
    }
}

/// What istiod writes about the workload of an endpoint.
fn workload(metadata: &Metadata) -> Option<Arc<Workload>> {
    let encoded = metadata.get("istio", "workload")?.as_str()?;
    Workload::endpoint(encoded).map(Arc::new)
}
