//! Sorts one response: what was asked for and is sound goes to the owner, what is unsound into the NACK, the rest away.
//!
//! Judges only what needs no knowledge of resource types. Nothing that was not asked for can cause a NACK.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use envoy_types::pb::google::protobuf::Any;

use crate::subscriptions::Interest;
use crate::{Counters, Rejection, Resource, Update};

/// A resource as it stands in a response, before anybody looked at it.
pub(super) struct Offer {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) any: Option<Any>,
    pub(super) ttl: Option<Duration>,
}

/// The sorted response.
pub(super) struct Intake {
    pub(super) update: Update,
    /// What the session itself refuses.
    pub(super) rejections: Vec<Rejection>,
    /// Times to live: of what is in the update, `None` if it has none; of heartbeats too.
    pub(super) ttls: Vec<(String, Option<Duration>)>,
    /// A resource had no name, so it cannot be said which ones are absent.
    pub(super) nameless: bool,
}

/// What is left of the update once the owner has it: enough to remember what was accepted.
pub(super) struct Outcome {
    pub(super) added: Vec<(String, String)>,
    pub(super) removed: Vec<String>,
    pub(super) rejections: Vec<Rejection>,
    pub(super) ttls: Vec<(String, Option<Duration>)>,
}

impl Intake {
    /// O(n log n) in the size of the response.
    pub(super) fn sort(
        interest: &Interest,
        version: String,
        offers: Vec<Offer>,
        removed: Vec<String>,
        counters: &mut Counters,
    ) -> Intake {
        let type_url = interest.type_url.clone();
        let mut intake = Intake {
            update: Update {
                type_url,
                version,
                added: Vec::new(),
                removed: Vec::new(),
                full_state: false,
            },
            rejections: Vec::new(),
            ttls: Vec::new(),
            nameless: false,
        };
        let removed: BTreeSet<String> = removed.into_iter().collect();
        let mut occurrences: BTreeMap<String, u32> = removed.iter().map(|n| (n.clone(), 1)).collect();
        for offer in &offers {
            let count = occurrences.entry(offer.name.clone()).or_default();
            *count = count.saturating_add(1);
        }
        for offer in offers {
            let count = occurrences.get_mut(&offer.name);
            intake.offer(interest, offer, count, counters);
        }
        // A name that is also among the added ones was refused above: neither is done.
        intake
            .update
            .removed
            .extend(removed.into_iter().filter(|n| occurrences.get(n) == Some(&1)));
        intake
    }

    fn offer(&mut self, interest: &Interest, offer: Offer, count: Option<&mut u32>, counters: &mut Counters) {
        let Offer {
            name,
            version,
            any,
            ttl,
        } = offer;
        if name.is_empty() {
            self.nameless = true;
            return self.reject(name, "resource without a name".to_owned());
        }
        if !interest.wants(&name) {
            counters.unrequested += 1;
            return;
        }
        match count {
            Some(1) => {}
            // Said already, with the first of them.
            Some(0) => return,
            Some(count) => {
                *count = 0;
                return self.reject(name, "occurs more than once in one response".to_owned());
            }
            None => return,
        }
        match any {
            Some(any) if any.type_url == *interest.type_url => {
                self.ttls.push((name.clone(), ttl));
                self.update.added.push(Resource { name, version, any });
            }
            Some(any) => {
                let reason = format!("is a {:?} in a response of {:?}", any.type_url, interest.type_url);
                self.reject(name, reason);
            }
            // A heartbeat prolongs a time to live and changes nothing else (xDS protocol, "Time to live").
            None if ttl.is_some() => {
                counters.heartbeats += 1;
                self.ttls.push((name, ttl));
            }
            None => self.reject(name, "resource without a body".to_owned()),
        }
    }

    fn reject(&mut self, resource: String, reason: String) {
        self.rejections.push(Rejection { resource, reason });
    }

    /// The names of the update, for the time after the owner took it.
    pub(super) fn names(&self) -> (Vec<(String, String)>, Vec<String>) {
        let Update { added, removed, .. } = &self.update;
        (
            added
                .iter()
                .map(|r| (r.name.clone(), r.version.clone()))
                .collect(),
            removed.clone(),
        )
    }
}

impl Outcome {
    /// The names that were rejected.
    pub(super) fn rejected(&self) -> BTreeSet<&str> {
        self.rejections.iter().map(|r| r.resource.as_str()).collect()
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.rejections.is_empty()
    }

    pub(super) fn count(&self, counters: &mut Counters) {
        if self.is_accepted() {
            counters.updates_accepted += 1;
        } else {
            counters.updates_rejected += 1;
            counters.resources_rejected += u64::try_from(self.rejections.len()).unwrap_or(u64::MAX);
        }
    }
}
