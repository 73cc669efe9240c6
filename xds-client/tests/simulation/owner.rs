//! Holds what it accepted, refuses bad values, and asks for the endpoints of its clusters.

use std::collections::{BTreeMap, BTreeSet};

use xds_client::{Handler, Rejection, Subscriptions, Update};

use super::world::{self, CLUSTERS, ENDPOINTS, NAMES, SECRETS};

#[derive(Default)]
pub(crate) struct Owner {
    held: BTreeMap<String, BTreeMap<String, u64>>,
    /// Names that the response under way may remove; `None` if it is the whole set.
    pub(crate) removable: Option<BTreeSet<String>>,
}

impl Owner {
    pub(crate) fn held(&self, type_url: &str) -> BTreeMap<String, u64> {
        self.held.get(type_url).cloned().unwrap_or_default()
    }

    pub(crate) fn change_secrets(&mut self, subscriptions: &mut Subscriptions, random: &mut fastrand::Rng) {
        let names = (0..NAMES)
            .filter(|_| random.bool())
            .map(|n| n.to_string())
            .collect();
        self.subscribe(SECRETS, names, subscriptions);
    }

    /// Drops what is not wanted any more: if it is wanted again, the control plane has to send it again.
    fn subscribe(&mut self, type_url: &str, names: BTreeSet<String>, subscriptions: &mut Subscriptions) {
        self.held
            .entry(type_url.to_owned())
            .or_default()
            .retain(|name, _| names.contains(name));
        subscriptions.set_names(type_url, names);
    }
}

impl Handler for Owner {
    fn on_update(
        &mut self,
        update: &Update,
        subscriptions: &mut Subscriptions,
    ) -> Result<(), Vec<Rejection>> {
        let wanted = subscriptions.names(&update.type_url).unwrap().clone();
        let held = self.held.entry(update.type_url.to_string()).or_default();
        for name in &update.removed {
            let was_held = held.remove(name).is_some();
            let announced = self.removable.as_ref().is_none_or(|names| names.contains(name));
            assert!(
                announced || !was_held,
                "{name} was removed without a word of the control plane"
            );
        }
        let mut rejections = Vec::new();
        for resource in &update.added {
            assert!(
                wanted.contains("*") || wanted.contains(&resource.name),
                "{} was not asked for",
                resource.name
            );
            let value = world::decode(&resource.any);
            if world::is_bad(value) {
                rejections.push(Rejection {
                    resource: resource.name.clone(),
                    reason: "bad".into(),
                });
            } else {
                held.insert(resource.name.clone(), value);
            }
        }
        if &*update.type_url == CLUSTERS {
            let names = held.keys().cloned().collect();
            self.subscribe(ENDPOINTS, names, subscriptions);
        }
        if rejections.is_empty() {
            Ok(())
        } else {
            Err(rejections)
        }
    }
}
