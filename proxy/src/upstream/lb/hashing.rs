//! Consistent hashing: the same request goes to the same host while that is there.
//!
//! Owns what ring and Maglev table have in common: the key of a host, weights, and the limit of load. Placements are Envoy's to the
//! bit, so that a mesh of both proxies agrees on the host of a session. Source: Envoy docs, ring hash and Maglev; cluster.proto
//! `ConsistentHashingLbConfig`.
mod maglev;
mod mersenne;
mod murmur;
mod ring;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use outrigger_model::cluster::LbPolicy;
use outrigger_model::endpoint::Endpoint;
use outrigger_model::metadata::Value;
use smallvec::SmallVec;

use self::maglev::Maglev;
use self::mersenne::Mersenne;
use self::ring::Ring;
use crate::upstream::endpoint::Host;

/// A host and its share, 0..=1, of its priority.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) host: Arc<Host>,
    pub(super) share: f64,
}

/// The hosts of one priority, found by hash.
#[derive(Debug)]
pub(super) struct Hashing {
    members: Vec<Member>,
    table: Table,
    /// Percent of the average load that a host may have.
    balance_factor: Option<u32>,
}

#[derive(Debug)]
enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

/// Places on a table that a host has: fewest and most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) total: u64,
    pub(super) fewest: u64,
    pub(super) most: u64,
}

impl Hashing {
    /// For a policy that hashes; `None` for others. `by_hostname`: keys of hosts are their names.
    pub(super) fn new(
        policy: &LbPolicy,
        members: Vec<Member>,
        by_hostname: bool,
        balance_factor: Option<u32>,
    ) -> Option<Self> {
        let keys: Vec<String> = members
            .iter()
            .map(|member| key(&member.host, by_hostname))
            .collect();
        let shares: Vec<f64> = members.iter().map(|member| member.share).collect();
        let table = match policy {
            LbPolicy::RingHash {
                minimum_size,
                maximum_size,
                function,
            } => Table::Ring(Ring::new(&keys, &shares, *minimum_size, *maximum_size, *function)),
            LbPolicy::Maglev { table_size } => Table::Maglev(Maglev::new(&keys, &shares, *table_size)),
            _ => return None,
        };
        Some(Self {
            members,
            table,
            balance_factor,
        })
    }

    /// The host for `hash`; another one for each `attempt` after the first. `active`: requests of the whole cluster.
    pub(super) fn pick(&self, hash: u64, attempt: u32, active: u32) -> Option<&Arc<Host>> {
        let index = match &self.table {
            Table::Ring(ring) => ring.find(hash, attempt),
            Table::Maglev(table) => table.find(hash, attempt),
        }?;
        let member = self.members.get(index)?;
        match self.balance_factor {
            None => Some(&member.host),
            Some(factor) => Some(self.with_room(index, member, hash, Slots { factor, active })),
        }
    }

    pub(super) fn places(&self) -> Places {
        match &self.table {
            Table::Ring(ring) => ring.places(self.members.len()),
            Table::Maglev(table) => table.places(self.members.len()),
        }
    }

    /// The host of `hash` if it has room, else the first with room in an order that depends on the hash alone, else the one with the
    /// least load for its share. O(n) when a host is full.
    fn with_room<'a>(&'a self, index: usize, member: &'a Member, hash: u64, slots: Slots) -> &'a Arc<Host> {
        let mut least = (slots.load(member), &member.host);
        if least.0 <= 1.0 {
            return least.1;
        }
        let count = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let mut order: SmallVec<[u32; 64]> = (0..count).collect();
        // Envoy seeds its generator of 32 bits with the hash: the upper half has no effect.
        let mut random = Mersenne::new(hash as u32);
        for step in 0..count {
            let other = step + random.below(count - step);
            order.swap(step as usize, other as usize);
            let candidate = order
                .get(step as usize)
                .map_or(0, |candidate| *candidate as usize);
            let Some(other) = self.members.get(candidate).filter(|_| candidate != index) else {
                continue;
            };
            let load = slots.load(other);
            if load <= 1.0 {
                return &other.host;
            }
            if load < least.0 {
                least = (load, &other.host);
            }
        }
        least.1
    }
}

/// How much each host may take now.
#[derive(Debug, Clone, Copy)]
struct Slots {
    factor: u32,
    active: u32,
}

impl Slots {
    /// Active requests of a host by those that it may have; above 1: it is full.
    fn load(self, member: &Member) -> f64 {
        let total = (u64::from(self.active) + 1) * u64::from(self.factor);
        let slots = (total.div_ceil(100) as f64 * member.share).ceil().max(1.0);
        f64::from(member.host.counters.rq_active.load(Ordering::Relaxed)) / slots
    }
}

/// What is hashed for a host: `hash_key` of its `envoy.lb` metadata, else its name or address.
fn key(host: &Host, by_hostname: bool) -> String {
    match explicit_key(&host.config) {
        Some(key) => key.to_owned(),
        None if by_hostname => host.config.hostname.clone(),
        None => host.address.to_string(),
    }
}

fn explicit_key(endpoint: &Endpoint) -> Option<&str> {
    let labels = endpoint.metadata.0.get("envoy.lb")?;
    labels
        .get("hash_key")
        .and_then(Value::as_str)
        .filter(|key| !key.is_empty())
}

/// Fewest and most places over `count` members.
fn places(indexes: impl Iterator<Item = u32>, count: usize) -> Places {
    let mut of_member = vec![0_u64; count];
    let mut total = 0;
    for index in indexes {
        total += 1;
        if let Some(places) = of_member.get_mut(index as usize) {
            *places += 1;
        }
    }
    Places {
        total,
        fewest: of_member.iter().copied().min().unwrap_or(0),
        most: of_member.iter().copied().max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
