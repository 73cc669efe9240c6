//! Sorts one response: what was asked for and is sound goes to the owner, what is unsound into the NACK, the rest away.
//!
//! Judges only what needs no knowledge of resource types. Nothing that was not asked for can cause a NACK.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::names::NameSet;
use crate::subscriptions::Interest;
use crate::{Any, Counters, Rejection, Resource, Update};

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
    pub(super) ttls: Vec<(String, Duration)>,
    /// A resource had no name, so it cannot be said which ones are absent.
    pub(super) nameless: bool,
}

/// The update and what the owner said to it.
pub(super) struct Outcome<'a> {
    pub(super) added: &'a [Resource],
    pub(super) removed: &'a [String],
    pub(super) rejections: Vec<Rejection>,
    pub(super) ttls: Vec<(String, Duration)>,
}

impl Intake {
    /// O(n) in the size of the response. `is_known`: the owner was shown a resource of this name and still wants it.
    pub(super) fn sort(
        interest: &Interest,
        is_known: impl Fn(&str) -> bool,
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
        let mut repeated = repeated(&removed, &offers);
        intake.update.added.reserve(offers.len());
        for offer in offers {
            let is_wanted = is_known(&offer.name) || interest.wants(&offer.name);
            intake.offer(interest, is_wanted, offer, &mut repeated, counters);
        }
        // A name that is also among the added ones was refused above: neither is done.
        let removed = removed.into_iter();
        intake
            .update
            .removed
            .extend(removed.filter(|name| !repeated.contains_key(name)));
        intake
    }

    fn offer(
        &mut self,
        interest: &Interest,
        is_wanted: bool,
        offer: Offer,
        repeated: &mut HashMap<String, bool>,
        counters: &mut Counters,
    ) {
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
        if !is_wanted {
            counters.unrequested += 1;
            return;
        }
        if let Some(is_said) = repeated.get_mut(&name) {
            if !std::mem::replace(is_said, true) {
                self.reject(name, "occurs more than once in one response".to_owned());
            }
            return;
        }
        match any {
            Some(any) if any.type_url == interest.type_url.as_bytes() => {
                if let Some(ttl) = ttl {
                    self.ttls.push((name.clone(), ttl));
                }
                self.update.added.push(Resource { name, version, any });
            }
            Some(any) => {
                let type_url = String::from_utf8_lossy(&any.type_url);
                let reason = format!("is a {type_url:?} in a response of {:?}", interest.type_url);
                self.reject(name, reason);
            }
            // A heartbeat prolongs a time to live and changes nothing else (xDS protocol, "Time to live").
            None => match ttl {
                Some(ttl) => {
                    counters.heartbeats += 1;
                    self.ttls.push((name, ttl));
                }
                None => self.reject(name, "resource without a body".to_owned()),
            },
        }
    }

    fn reject(&mut self, resource: String, reason: String) {
        self.rejections.push(Rejection { resource, reason });
    }
}

/// Names that occur more than once, or are removed as well; true once that was said. Nothing is copied for a name that occurs once.
fn repeated(removed: &BTreeSet<String>, offers: &[Offer]) -> HashMap<String, bool> {
    let mut seen = NameSet::default();
    seen.reserve(removed.len() + offers.len());
    seen.extend(removed.iter().map(String::as_str));
    let again = offers.iter().filter(|offer| !seen.insert(&offer.name));
    again.map(|offer| (offer.name.clone(), false)).collect()
}

impl Outcome<'_> {
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
