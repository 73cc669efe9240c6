//! What `/config_dump` shows, from the bytes as they were received.
use outrigger_model::dump::{ConfigDump, DumpResource, DumpSection, DumpState};

use super::control::Control;
use super::store::Store;

impl Control {
    /// Everything in force, waiting or refused.
    pub(crate) fn config_dump(&self) -> ConfigDump {
        ConfigDump {
            bootstrap: self.bootstrap.clone(),
            bootstrap_updated: self.bootstrap_updated,
            clusters: section(&self.clusters.store, |name| {
                self.clusters.warming.contains_key(name)
            }),
            listeners: section(&self.listeners.store, |name| {
                self.listeners.warming.contains_key(name)
            }),
            routes: section(&self.listeners.routes, |_| false),
            endpoints: section(&self.clusters.endpoints, |_| false),
            secrets: self.secrets_section(),
        }
    }

    /// Envoy's section has no place for the server either.
    fn secrets_section(&self) -> DumpSection {
        let sections = self.secret_stores.values().map(|store| section(store, |_| false));
        DumpSection {
            version_info: String::new(),
            resources: sections.flat_map(|section| section.resources).collect(),
        }
    }
}

fn section<T>(store: &Store<T>, is_warming: impl Fn(&str) -> bool) -> DumpSection {
    // Those of the bootstrap are in its bytes.
    let received = store.accepted.iter().filter(|(_, accepted)| !accepted.is_static);
    let accepted = received.map(|(name, accepted)| DumpResource {
        version: accepted.version.to_string(),
        name: name.to_string(),
        bytes: accepted.bytes.clone(),
        last_updated: accepted.updated,
        state: if is_warming(name) {
            DumpState::Warming
        } else {
            DumpState::Active
        },
    });
    let refused = store.refused.iter().map(|(name, refused)| DumpResource {
        version: refused.version.to_string(),
        name: name.to_string(),
        bytes: refused.bytes.clone(),
        last_updated: refused.updated,
        state: DumpState::Rejected {
            error: refused.reason.clone(),
        },
    });
    DumpSection {
        version_info: store.version.clone(),
        resources: accepted.chain(refused).collect(),
    }
}
