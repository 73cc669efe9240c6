//! Who gets what, computed from the hosts whenever they or their health change.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use outrigger_model::cluster::{LbPolicy, LocalityMode, ZoneAware};
use outrigger_model::endpoint::LoadAssignment;
use outrigger_model::node::Locality;

use super::hashing::{Hashing, Member, Places};
use super::priority::{Counts, Plan};
use super::schedule::Schedule;
use super::tier::Tier;
use super::zone::{Route, Zone, Zones};
use super::{Picked, Settings, Wish, slow_start};
use crate::pace::{paced, release};
use crate::time::Instant;
use crate::upstream::circuit_breaker::CircuitBreaker;
use crate::upstream::endpoint::{Availability, Host};

/// What an assignment says beside its endpoints.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grouping {
    overprovisioning: u32,
    /// Hosts count by their weights where the health of a priority is asked for.
    weighs_health: bool,
    /// Weights of localities, by priority.
    weights: HashMap<(u32, Locality), u32>,
}

impl Grouping {
    /// That of `assignment`.
    pub(crate) fn of(assignment: &LoadAssignment) -> Self {
        let weights = assignment.localities.iter().filter_map(|group| {
            let weight = group.weight?;
            Some(((group.priority, group.locality.clone()), weight))
        });
        Self {
            overprovisioning: assignment.overprovisioning_factor,
            weighs_health: assignment.weighs_health,
            weights: weights.collect(),
        }
    }

    /// Without weights of localities.
    pub(super) fn unweighted(&self) -> Self {
        Self {
            overprovisioning: self.overprovisioning,
            weighs_health: self.weighs_health,
            weights: HashMap::new(),
        }
    }

    /// How many hosts are where.
    pub(super) fn places(hosts: &[Arc<Host>]) -> HashMap<(u32, &Locality), u32> {
        let mut places = HashMap::new();
        for host in paced(hosts) {
            *places.entry((host.priority, &*host.locality)).or_default() += 1;
        }
        places
    }

    /// Weights of localities by the part of their hosts, `all` of them, that is in `part`.
    /// Source: Envoy `HostSubsetImpl::determineLocalityWeights`.
    pub(super) fn scaled(&self, part: &[Arc<Host>], all: &HashMap<(u32, &Locality), u32>) -> Self {
        let part = Self::places(part);
        let scaled = self.weights.iter().map(|((priority, locality), weight)| {
            let count = |places: &HashMap<(u32, &Locality), u32>| {
                f64::from(places.get(&(*priority, locality)).copied().unwrap_or(0))
            };
            let share = count(&part) / count(all).max(1.0);
            let weight = (f64::from(*weight) * share).round() as u32;
            ((*priority, locality.clone()), weight)
        });
        Self {
            overprovisioning: self.overprovisioning,
            weighs_health: self.weighs_health,
            weights: scaled.collect(),
        }
    }
}

/// The load of a cluster's hosts.
#[derive(Debug, Default)]
pub(crate) struct Balance {
    plan: Plan,
    priorities: Vec<Priority>,
    /// Until when weights change with time.
    changes_for: Option<Duration>,
}

#[derive(Debug, Default)]
struct Priority {
    /// Healthy hosts; in panic all.
    healthy: Option<Source>,
    degraded: Option<Source>,
}

/// Where a host is taken from.
#[derive(Debug)]
enum Source {
    Tier(Tier),
    /// A locality by its weight, then a host of it.
    Localities(Schedule, Vec<Tier>),
    /// This proxy's own zone if that is even.
    Zones(Box<Zones>),
    Hashing(Hashing),
}

/// Sizes of a table of a policy that hashes. Source: Envoy docs, ring hash and Maglev load balancer statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ring {
    /// Places.
    pub(crate) size: u64,
    /// Of the host with the fewest.
    pub(crate) fewest: u64,
    /// Of the host with the most.
    pub(crate) most: u64,
}

impl Balance {
    /// Shares the load of `all` at `now`.
    pub(crate) fn new(all: &[Arc<Host>], grouping: &Grouping, settings: &Settings, now: Instant) -> Self {
        let priorities = paced(all)
            .map(|host| host.priority as usize + 1)
            .max()
            .unwrap_or(0);
        let mut counts = vec![Counts::default(); priorities];
        for host in paced(all) {
            if let Some(counts) = counts.get_mut(host.priority as usize) {
                count(counts, host, grouping.weighs_health);
            }
        }
        let plan = Plan::new(&counts, grouping.overprovisioning, settings.panic_threshold);
        let by_priority = by_priority(all, &counts);
        let members = |priority: usize| by_priority.get(priority).map_or(all, Vec::as_slice);
        let mut builder = Builder {
            grouping,
            settings,
            now,
            random: fastrand::Rng::new(),
        };
        let panics = plan.panic.iter().copied();
        let priorities = counts
            .iter()
            .zip(panics)
            .enumerate()
            .map(|(priority, (counts, in_panic))| builder.priority(members(priority), counts, in_panic))
            .collect();
        by_priority.into_iter().for_each(release);
        Self {
            priorities,
            changes_for: settings
                .slow_start
                .filter(|_| !settings.wants_hash() && settings.policy != LbPolicy::Random)
                .and_then(|slow_start| slow_start::ends_in(all, slow_start, now)),
            plan,
        }
    }

    /// A host for a request with this hash; another one of the same hash for each `attempt` after the first.
    #[inline]
    pub(super) fn pick(
        &self,
        wish: &Wish<'_>,
        attempt: u32,
        breaker: &CircuitBreaker,
        random: &mut fastrand::Rng,
    ) -> Option<Picked<'_>> {
        // Envoy lets the hash choose the priority too: a session stays in one.
        let mut number = wish.hash;
        let mut number = || *number.get_or_insert_with(|| random.u64(..));
        let (index, is_degraded) = match wish.excluded_priorities {
            [] => self.plan.of(&mut number),
            // Envoy's rings and Maglev tables know no retries.
            _ if self.hashes() => self.plan.of(&mut number),
            excluded => match self.plan.without(excluded) {
                Some(plan) => plan.of(&mut number),
                None => self.plan.of(&mut number),
            },
        }?;
        let priority = self.priorities.get(index)?;
        let in_panic = self.plan.panic.get(index) == Some(&true);
        // A priority in panic gives whoever it has, degraded or not.
        let source = if is_degraded && !in_panic {
            &priority.degraded
        } else {
            &priority.healthy
        };
        let host = match source.as_ref()? {
            Source::Tier(tier) => tier.pick(random),
            Source::Localities(turns, tiers) => tiers.get(turns.next()?)?.pick(random),
            Source::Zones(zones) => zones.pick(random),
            Source::Hashing(hashing) => hashing.pick(number(), attempt, breaker.active_requests()),
        }?;
        Some(Picked { host, in_panic })
    }

    /// There are hosts of other priorities than these.
    pub(crate) fn has_others(&self, excluded: &[u32]) -> bool {
        self.plan.without(excluded).is_some()
    }

    /// For how long weights go on changing with time; `None`: they do not.
    pub(crate) fn changes_for(&self) -> Option<Duration> {
        self.changes_for
    }

    fn hashes(&self) -> bool {
        let sources = self.priorities.iter().flat_map(|priority| &priority.healthy);
        sources
            .into_iter()
            .any(|source| matches!(source, Source::Hashing(_)))
    }

    /// The table of the first priority, if the policy hashes.
    pub(crate) fn ring(&self) -> Option<Ring> {
        match self.priorities.first()?.healthy.as_ref()? {
            Source::Hashing(hashing) => {
                let Places { total, fewest, most } = hashing.places();
                Some(Ring {
                    size: total,
                    fewest,
                    most,
                })
            }
            Source::Tier(_) | Source::Localities(..) | Source::Zones(_) => None,
        }
    }
}

/// The hosts of each priority; none if there is one only, which has all.
fn by_priority(all: &[Arc<Host>], counts: &[Counts]) -> Vec<Vec<Arc<Host>>> {
    if counts.len() < 2 {
        return Vec::new();
    }
    let room = counts.iter().map(|counts| Vec::with_capacity(counts.hosts));
    let mut members: Vec<_> = room.collect();
    for host in paced(all) {
        if let Some(members) = members.get_mut(host.priority as usize) {
            members.push(host.clone());
        }
    }
    members
}

fn count(counts: &mut Counts, host: &Host, by_weight: bool) {
    let weight = if by_weight { u64::from(host.weight) } else { 1 };
    counts.hosts += 1;
    if !host.is_excluded() {
        counts.counted += 1;
        counts.weight.counted += weight;
    }
    match host.availability() {
        Availability::Healthy => {
            counts.healthy += 1;
            counts.weight.healthy += weight;
        }
        Availability::Degraded => {
            counts.degraded += 1;
            counts.weight.degraded += weight;
        }
        Availability::Unhealthy => {}
    }
}

struct Builder<'a> {
    grouping: &'a Grouping,
    settings: &'a Settings,
    now: Instant,
    random: fastrand::Rng,
}

/// Hosts of one locality: those that may be picked, and how many there are.
struct Neighbours {
    weight: u32,
    usable: Vec<Arc<Host>>,
    counted: usize,
}

impl Builder<'_> {
    fn priority(&mut self, members: &[Arc<Host>], counts: &Counts, in_panic: bool) -> Priority {
        let fails = matches!(
            self.settings.locality,
            LocalityMode::ZoneAware(ZoneAware {
                fail_on_panic: true,
                ..
            })
        );
        if in_panic {
            return Priority {
                healthy: if fails {
                    None
                } else {
                    self.source(members, |_| true, in_panic)
                },
                degraded: None,
            };
        }
        let is = |wanted: Availability| move |host: &Host| host.availability() == wanted;
        if let Some(route) = self.route(members) {
            let mut by_zone = |wanted| self.zones(members, is(wanted), &route);
            return Priority {
                healthy: by_zone(Availability::Healthy),
                degraded: by_zone(Availability::Degraded),
            };
        }
        Priority {
            healthy: self.source(members, is(Availability::Healthy), in_panic),
            degraded: match counts.degraded {
                0 => None,
                _ => self.source(members, is(Availability::Degraded), in_panic),
            },
        }
    }

    /// How the zones of priority 0 share its requests; `None`: they do not count.
    fn route(&self, members: &[Arc<Host>]) -> Option<Route> {
        let zoned = self.settings.zoned.as_ref()?;
        if members.first()?.priority > 0 {
            return None;
        }
        let localities = self.localities_of(members, |host| host.availability() == Availability::Healthy);
        let zones = localities.iter().map(|(locality, healthy)| Zone {
            locality,
            healthy: [
                healthy.len() as u64,
                healthy.iter().map(|host| u64::from(host.weight)).sum(),
            ],
        });
        zoned.route(&zones.collect::<Vec<_>>())
    }

    fn zones(
        &mut self,
        members: &[Arc<Host>],
        is_usable: impl Fn(&Host) -> bool,
        route: &Route,
    ) -> Option<Source> {
        let zoned = self.settings.zoned.as_ref()?;
        let usable = members.iter().filter(|host| is_usable(host)).cloned().collect();
        let whole = Tier::new(usable, self.settings, self.now, &mut self.random)?;
        let localities = self.localities_of(members, is_usable).into_iter();
        let by_zone =
            localities.map(|(_, hosts)| Tier::new(hosts, self.settings, self.now, &mut self.random));
        let zones = Zones::new(zoned, route.clone(), by_zone.collect(), whole);
        Some(Source::Zones(Box::new(zones)))
    }

    /// Localities with their usable hosts: this proxy's own first, the others in their order.
    fn localities_of(
        &self,
        members: &[Arc<Host>],
        is_usable: impl Fn(&Host) -> bool,
    ) -> Vec<(Arc<Locality>, Vec<Arc<Host>>)> {
        let is_own = |locality: &Locality| {
            self.settings
                .zoned
                .as_ref()
                .is_some_and(|zoned| zoned.local.is_own(locality))
        };
        let mut localities: BTreeMap<(bool, Arc<Locality>), Vec<Arc<Host>>> = BTreeMap::new();
        for host in members {
            let usable = localities
                .entry((!is_own(&host.locality), host.locality.clone()))
                .or_default();
            if is_usable(host) {
                usable.push(host.clone());
            }
        }
        localities
            .into_iter()
            .map(|((_, locality), hosts)| (locality, hosts))
            .collect()
    }

    fn source(
        &mut self,
        members: &[Arc<Host>],
        is_usable: impl Fn(&Host) -> bool,
        in_panic: bool,
    ) -> Option<Source> {
        let is_weighted =
            self.settings.locality == LocalityMode::Weighted && !self.grouping.weights.is_empty();
        if self.settings.wants_hash() {
            let members = match is_weighted {
                true => self.shares_of_localities(members, is_usable),
                false => shares(members.iter().filter(|host| is_usable(host)), 1.0),
            };
            return self.hashing(members).map(Source::Hashing);
        }
        // In panic Envoy does not look at localities.
        if is_weighted
            && !in_panic
            && let Some(source) = self.localities(members, &is_usable)
        {
            return Some(source);
        }
        let mut usable = Vec::with_capacity(members.len());
        usable.extend(paced(members).filter(|host| is_usable(host)).cloned());
        usable.shrink_to_fit();
        Tier::new(usable, self.settings, self.now, &mut self.random).map(Source::Tier)
    }

    fn hashing(&self, members: Vec<Member>) -> Option<Hashing> {
        if members.is_empty() {
            return None;
        }
        let settings = self.settings;
        Hashing::new(
            &settings.policy,
            members,
            settings.hash_by_hostname,
            settings.hash_balance_factor,
        )
    }

    /// Localities in their order, which is that of Envoy: tables depend on it.
    fn neighbours(&self, members: &[Arc<Host>], is_usable: impl Fn(&Host) -> bool) -> Vec<Neighbours> {
        let mut localities: BTreeMap<[&str; 3], Neighbours> = BTreeMap::new();
        for host in members {
            let Locality {
                region,
                zone,
                sub_zone,
            } = &*host.locality;
            let neighbours = localities.entry([region, zone, sub_zone]).or_insert_with(|| {
                let key = (host.priority, Locality::clone(&host.locality));
                Neighbours {
                    weight: self.grouping.weights.get(&key).copied().unwrap_or(0),
                    usable: Vec::new(),
                    counted: 0,
                }
            });
            neighbours.counted += usize::from(!host.is_excluded());
            if is_usable(host) {
                neighbours.usable.push(host.clone());
            }
        }
        localities.into_values().collect()
    }

    /// By `weight × min(1, overprovisioning × usable / counted)`. `None`: no locality has a weight.
    /// Source: Envoy docs, locality weighted load balancing.
    fn localities(&mut self, members: &[Arc<Host>], is_usable: impl Fn(&Host) -> bool) -> Option<Source> {
        let mut weights = Vec::new();
        let mut tiers = Vec::new();
        for neighbours in self.neighbours(members, is_usable) {
            let ratio = neighbours.usable.len() as f64 / neighbours.counted.max(1) as f64;
            let available = (ratio * f64::from(self.grouping.overprovisioning) / 100.0).min(1.0);
            let weight = f64::from(neighbours.weight) * available;
            let tier = Tier::new(neighbours.usable, self.settings, self.now, &mut self.random);
            if let Some(tier) = tier.filter(|_| weight > 0.0) {
                weights.push(weight);
                tiers.push(tier);
            }
        }
        if tiers.is_empty() {
            return None;
        }
        Some(Source::Localities(
            Schedule::new(&whole(&weights), &mut self.random),
            tiers,
        ))
    }

    /// For tables: a locality's share is divided among its hosts; one without weight has none. Health has no effect on it, as in Envoy.
    fn shares_of_localities(&self, members: &[Arc<Host>], is_usable: impl Fn(&Host) -> bool) -> Vec<Member> {
        let localities = self.neighbours(members, is_usable);
        let total: u64 = localities.iter().map(|locality| u64::from(locality.weight)).sum();
        let weighted = localities.iter().filter(|locality| locality.weight > 0);
        weighted
            .flat_map(|locality| {
                let share = f64::from(locality.weight) / total as f64;
                shares(locality.usable.iter(), share)
            })
            .collect()
    }
}

/// Divides `share` among hosts by their weights.
fn shares<'a>(hosts: impl Iterator<Item = &'a Arc<Host>> + Clone, share: f64) -> Vec<Member> {
    let total: u64 = hosts.clone().map(|host| u64::from(host.weight)).sum();
    let member = |host: &Arc<Host>| Member {
        host: host.clone(),
        share: f64::from(host.weight) * share / total as f64,
    };
    hosts.map(member).collect()
}

/// Weights as whole numbers: as they are if they are whole, else in thousandths of the least.
fn whole(weights: &[f64]) -> Vec<u32> {
    if weights.iter().all(|weight| weight.fract() == 0.0) {
        return weights.iter().map(|weight| *weight as u32).collect();
    }
    let least = weights.iter().copied().fold(f64::INFINITY, f64::min);
    let scale = (1000.0 / least).min(f64::from(u32::MAX) / weights.iter().sum::<f64>());
    weights
        .iter()
        .map(|weight| (weight * scale).round().max(1.0) as u32)
        .collect()
}
