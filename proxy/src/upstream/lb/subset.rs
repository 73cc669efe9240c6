//! Subsets: the hosts with some labels, each with a balance of its own, and who gets a request for which there are none.
//!
//! Built with the hosts; a pick looks one hash up and allocates nothing. Source: Envoy docs, load balancer subsets; Envoy
//! `SubsetLoadBalancer`.
use std::collections::HashMap;
use std::sync::Arc;

use outrigger_model::cluster::{SelectorFallback, SubsetFallback, SubsetPolicy, SubsetSelector};
use outrigger_model::metadata::{SUBSET_NAMESPACE, Struct, Value};
use outrigger_model::node::Locality;
use smallvec::SmallVec;

use super::labels::{Label, Tries, hash_of};
use super::{Balance, Grouping, Picked, Picking, Settings, among};
use crate::pace::paced;
use crate::stats::{Counter, Gauge};
use crate::time::Instant;
use crate::upstream::endpoint::Host;

/// `cluster.<name>.lb_subsets_*`. Source: Envoy docs, load balancer subset statistics. Envoy counts a subset once a thread; here once.
#[derive(Debug)]
pub(crate) struct SubsetStats {
    active: Gauge,
    created: Counter,
    removed: Counter,
    selected: Counter,
    fallback: Counter,
    fallback_panic: Counter,
    duplicates: Gauge,
}

impl SubsetStats {
    /// `counter` and `gauge` make stats by the last part of their names.
    pub(crate) fn new(counter: impl Fn(&str) -> Counter, gauge: impl Fn(&str) -> Gauge) -> Self {
        Self {
            active: gauge("lb_subsets_active"),
            created: counter("lb_subsets_created"),
            removed: counter("lb_subsets_removed"),
            selected: counter("lb_subsets_selected"),
            fallback: counter("lb_subsets_fallback"),
            fallback_panic: counter("lb_subsets_fallback_panic"),
            duplicates: gauge("lb_subsets_single_host_per_subset_duplicate"),
        }
    }

    /// These subsets are gone with their cluster. `were_last`: the next one has none.
    pub(crate) fn end(&self, subsets: &Subsets, were_last: bool) {
        self.removed.add(subsets.by_labels.len() as u64);
        if were_last {
            self.active.set(0);
        }
    }

    /// These subsets take the place of those.
    pub(crate) fn show(&self, now: &Subsets, before: Option<&Subsets>) {
        let missing = |from: &Subsets, of: Option<&Subsets>| {
            let is_new = |hash: &&u64| of.is_none_or(|of| !of.by_labels.contains_key(hash));
            from.by_labels.keys().filter(is_new).count() as u64
        };
        self.created.add(missing(now, before));
        self.removed
            .add(before.map_or(0, |before| missing(before, Some(now))));
        self.active
            .set(now.by_labels.values().map(Vec::len).sum::<usize>() as u64);
        self.duplicates.set(now.duplicates);
    }
}

/// The subsets of a cluster's hosts.
#[derive(Debug)]
pub(crate) struct Subsets {
    policy: Arc<SubsetPolicy>,
    /// Those with the most keys first; for requests with labels that no selector has.
    by_size: Vec<usize>,
    /// By the hash of their labels.
    by_labels: HashMap<u64, Vec<Subset>>,
    /// With the labels of the default subset; all hosts if there are none.
    default: Group,
    /// Hosts that no subset of one host has taken.
    duplicates: u64,
}

#[derive(Debug)]
struct Subset {
    labels: Vec<Label>,
    hosts: Members,
}

#[derive(Debug)]
enum Members {
    /// Whatever its health is.
    One(Arc<Host>),
    Group(Group),
}

/// Some of a cluster's hosts.
#[derive(Debug, Default)]
struct Group {
    all: Vec<Arc<Host>>,
    balance: Balance,
}

/// What subsets are made of.
#[derive(Clone, Copy)]
pub(crate) struct Making<'a> {
    /// All hosts of the cluster.
    pub(crate) all: &'a [Arc<Host>],
    pub(crate) grouping: &'a Grouping,
    pub(crate) settings: &'a Settings,
    pub(crate) now: Instant,
}

impl Making<'_> {
    /// All hosts together.
    pub(crate) fn any(&self, policy: &SubsetPolicy) -> Balance {
        match policy.weighs_localities {
            true => Balance::new(self.all, self.grouping, self.settings, self.now),
            false => Balance::new(self.all, &self.grouping.unweighted(), self.settings, self.now),
        }
    }

    /// `places`: how many of all hosts are where, if that counts.
    fn group(
        &self,
        policy: &SubsetPolicy,
        all: Vec<Arc<Host>>,
        places: &HashMap<(u32, &Locality), u32>,
    ) -> Group {
        let grouping = match (policy.weighs_localities, policy.scales_locality_weights) {
            (false, _) => self.grouping.unweighted(),
            (true, false) => self.grouping.clone(),
            (true, true) => self.grouping.scaled(&all, places),
        };
        Group {
            balance: Balance::new(&all, &grouping, self.settings, self.now),
            all,
        }
    }
}

/// The hosts of one subset, while they are gathered.
struct Gathered {
    labels: Vec<Label>,
    is_single: bool,
    hosts: Vec<Arc<Host>>,
}

impl Subsets {
    /// Shares out `making.all` by the labels of each.
    pub(crate) fn new(policy: &Arc<SubsetPolicy>, making: Making<'_>) -> Self {
        let mut gathered: HashMap<u64, Vec<Gathered>> = HashMap::new();
        let mut duplicates = 0;
        for host in paced(making.all) {
            for selector in &policy.selectors {
                for labels in labels_of(host, selector, policy.list_matches_any) {
                    let same_hash = gathered.entry(hash_of(labels.iter())).or_default();
                    duplicates += add(same_hash, labels, selector.is_single_host, host);
                }
            }
        }
        let places = match policy.scales_locality_weights {
            true => Grouping::places(making.all),
            false => HashMap::new(),
        };
        let subset = |gathered: Gathered| Subset {
            labels: gathered.labels,
            hosts: match gathered.hosts.iter().min_by_key(|host| host.priority) {
                Some(first) if gathered.is_single => Members::One(first.clone()),
                _ => Members::Group(making.group(policy, gathered.hosts, &places)),
            },
        };
        let by_labels = gathered
            .into_iter()
            .map(|(hash, same)| (hash, same.into_iter().map(subset).collect()))
            .collect();
        let is_default = |host: &&Arc<Host>| has(host, &policy.default_subset, policy.list_matches_any);
        let mut by_size: Vec<usize> = (0..policy.selectors.len()).collect();
        by_size.sort_by_key(|index| {
            std::cmp::Reverse(
                policy
                    .selectors
                    .get(*index)
                    .map_or(0, |selector| selector.keys.len()),
            )
        });
        Self {
            by_size,
            by_labels,
            default: match uses_default(policy) {
                true => making.group(
                    policy,
                    making.all.iter().filter(is_default).cloned().collect(),
                    &places,
                ),
                false => Group::default(),
            },
            duplicates,
            policy: policy.clone(),
        }
    }

    /// A host for what is asked for; `any` are all hosts of the cluster.
    pub(super) fn choose<'a>(
        &'a self,
        any: (&'a Balance, &'a [Arc<Host>]),
        stats: Option<&SubsetStats>,
        picking: &mut Picking<'_>,
    ) -> Option<Picked<'a>> {
        let mut search = Search {
            subsets: self,
            any,
            stats,
        };
        let Some(labels) = picking.wish.labels else {
            return search.fall_back(picking);
        };
        match labels.tries(self.policy.takes_fallback_list) {
            Tries::Once(labels) => search.by_labels(labels, picking),
            Tries::Each(changed) => changed
                .iter()
                .find_map(|labels| search.by_labels(labels, picking)),
        }
    }

    fn find(&self, asked: &[&Label]) -> Option<&Subset> {
        let same_hash = self.by_labels.get(&hash_of(asked.iter().copied()))?;
        same_hash.iter().find(|subset| {
            subset.labels.len() == asked.len()
                && subset
                    .labels
                    .iter()
                    .zip(asked)
                    .all(|(own, asked)| own.is_same(asked))
        })
    }

    /// What the selector of exactly these labels says of requests without a subset. As in Envoy, one whose keys an earlier selector begins
    /// with says nothing.
    fn fallback_of(&self, asked: &[&Label]) -> &SelectorFallback {
        let is_it = |selector: &&SubsetSelector| {
            selector.keys.len() >= asked.len()
                && selector
                    .keys
                    .iter()
                    .zip(asked)
                    .all(|(key, label)| **key == *label.name)
        };
        match self.policy.selectors.iter().find(is_it) {
            Some(selector) if selector.keys.len() == asked.len() => &selector.fallback,
            _ => &SelectorFallback::OfCluster,
        }
    }
}

/// One pick.
struct Search<'a, 's> {
    subsets: &'a Subsets,
    any: (&'a Balance, &'a [Arc<Host>]),
    stats: Option<&'s SubsetStats>,
}

impl<'a> Search<'a, '_> {
    fn by_labels(&mut self, labels: &[Label], picking: &mut Picking<'_>) -> Option<Picked<'a>> {
        let mut asked: SmallVec<[&Label; 8]> = labels.iter().collect();
        // Ends: each round asks for fewer labels.
        loop {
            self.leave_out_others(&mut asked);
            if let Some(subset) = self.subsets.find(&asked) {
                self.count(|stats| &stats.selected);
                return match &subset.hosts {
                    Members::One(host) => Some(Picked {
                        host,
                        in_panic: false,
                    }),
                    Members::Group(group) => group.pick(picking),
                };
            }
            match self.subsets.fallback_of(&asked) {
                SelectorFallback::OfCluster => return self.fall_back(picking),
                SelectorFallback::Nobody => return None,
                SelectorFallback::Any => return among(self.any.0, self.any.1, picking),
                SelectorFallback::Default => return self.subsets.default.pick(picking),
                SelectorFallback::Fewer(keys) => {
                    asked.retain(|label| keys.iter().any(|key| **key == *label.name));
                }
            }
        }
    }

    /// Keeps the labels of the largest selector that has no others.
    fn leave_out_others(&self, asked: &mut SmallVec<[&Label; 8]>) {
        let Subsets { policy, by_size, .. } = self.subsets;
        if !policy.allows_other_labels {
            return;
        }
        let selectors = by_size.iter().filter_map(|index| policy.selectors.get(*index));
        let mut all_asked = selectors.filter(|selector| {
            let is_asked = |key: &String| asked.iter().any(|label| **key == *label.name);
            selector.keys.iter().all(is_asked)
        });
        if let Some(selector) = all_asked.next() {
            asked.retain(|label| selector.keys.iter().any(|key| **key == *label.name));
        }
    }

    fn fall_back(&mut self, picking: &mut Picking<'_>) -> Option<Picked<'a>> {
        let picked = match self.subsets.policy.fallback {
            SubsetFallback::Nobody => return None,
            SubsetFallback::Any => among(self.any.0, self.any.1, picking),
            SubsetFallback::Default => self.subsets.default.pick(picking),
        };
        if picked.is_some() {
            self.count(|stats| &stats.fallback);
            return picked;
        }
        if !self.subsets.policy.panics_to_any {
            return None;
        }
        let picked = among(self.any.0, self.any.1, picking)?;
        self.count(|stats| &stats.fallback_panic);
        Some(picked)
    }

    fn count(&self, counter: impl Fn(&SubsetStats) -> &Counter) {
        if let Some(stats) = self.stats {
            counter(stats).inc();
        }
    }
}

impl Group {
    fn pick(&self, picking: &mut Picking<'_>) -> Option<Picked<'_>> {
        among(&self.balance, &self.all, picking)
    }
}

fn uses_default(policy: &SubsetPolicy) -> bool {
    let by_selector = |selector: &SubsetSelector| selector.fallback == SelectorFallback::Default;
    policy.fallback == SubsetFallback::Default || policy.selectors.iter().any(by_selector)
}

/// Adds `host` to the subset of these labels. Returns 1 if that has its one host of this priority.
fn add(same_hash: &mut Vec<Gathered>, labels: Vec<Label>, is_single: bool, host: &Arc<Host>) -> u64 {
    let is_it = |gathered: &&mut Gathered| {
        gathered.labels.len() == labels.len()
            && gathered
                .labels
                .iter()
                .zip(&labels)
                .all(|(own, label)| own.is_same(label))
    };
    let Some(gathered) = same_hash.iter_mut().find(is_it) else {
        same_hash.push(Gathered {
            labels,
            is_single,
            hosts: vec![host.clone()],
        });
        return 0;
    };
    let is_taken = |other: &Arc<Host>| other.priority == host.priority;
    if gathered.is_single && gathered.hosts.iter().any(is_taken) {
        return 1;
    }
    // Two selectors of the same keys. Hosts come one after the other.
    if !gathered
        .hosts
        .last()
        .is_some_and(|other| Arc::ptr_eq(other, host))
    {
        gathered.hosts.push(host.clone());
    }
    0
}

/// The subsets of a selector that a host is in: none without all its keys, more than one where values are lists.
fn labels_of(host: &Host, selector: &SubsetSelector, list_matches_any: bool) -> Vec<Vec<Label>> {
    let Some(own) = host.config.metadata.0.get(SUBSET_NAMESPACE) else {
        return Vec::new();
    };
    let mut all: Vec<Vec<Label>> = vec![Vec::new()];
    for key in &selector.keys {
        let Some(value) = own.get(key) else {
            return Vec::new();
        };
        let values = values(value, list_matches_any);
        let with = |labels: Vec<Label>| {
            let with = values.iter().map(move |value| {
                let mut labels = labels.clone();
                labels.push(Label::new(key, value));
                labels
            });
            with.collect::<Vec<_>>()
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all
}

/// The host has all these labels.
fn has(host: &Host, labels: &Struct, list_matches_any: bool) -> bool {
    let own = host.config.metadata.0.get(SUBSET_NAMESPACE);
    labels.iter().all(|(name, wanted)| {
        let value = own.and_then(|own| own.get(name));
        value.is_some_and(|value| values(value, list_matches_any).contains(wanted))
    })
}

fn values(value: &Value, list_matches_any: bool) -> &[Value] {
    match value {
        Value::List(items) if list_matches_any => items,
        value => std::slice::from_ref(value),
    }
}

#[cfg(test)]
impl SubsetStats {
    /// Active, created and removed subsets.
    pub(super) fn values(&self) -> [u64; 3] {
        [self.active.value(), self.created.value(), self.removed.value()]
    }
}
