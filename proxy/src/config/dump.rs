//! What `/config_dump` shows, from the bytes as they were received.
use bytes::Bytes;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use outrigger_model::bootstrap::ConfigServer;
use outrigger_model::dump::{ConfigDump, DumpResource, DumpScopes, DumpSection, DumpState};
use prost::Message as _;

use super::control::Control;
use super::listeners::Unready;
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
            filters: self.filters_section(),
            scopes: self.scope_sets(),
        }
    }

    /// Every listener that waits, with what it waits for, sorted by name.
    pub(crate) fn unready_listeners(&self) -> Vec<Unready> {
        self.listeners.unready(&self.secrets)
    }

    /// Envoy's section has no place for the server either.
    fn secrets_section(&self) -> DumpSection {
        let sections = self.secret_stores.values().map(|store| section(store, |_| false));
        let received = sections.flat_map(|section| section.resources);
        DumpSection {
            version_info: String::new(),
            resources: received.chain(self.awaited_secrets()).collect(),
        }
    }

    fn filters_section(&self) -> Option<DumpSection> {
        let extensions = &self.listeners.extensions;
        let sections = extensions.stores.values().map(|store| section(store, |_| false));
        extensions.is_in_use().then(|| DumpSection {
            version_info: String::new(),
            resources: sections.flat_map(|section| section.resources).collect(),
        })
    }

    /// As in Envoy, one for each server, by the name that its first user gives it, as soon as there are any scopes.
    fn scope_sets(&self) -> Vec<DumpScopes> {
        let names = self.listeners.scope_set_names();
        let stores = self.listeners.parts.scopes.iter();
        let sets = stores.filter_map(|(server, store)| {
            let last = store.accepted.values().max_by_key(|scope| scope.updated)?;
            let mut scopes = section(store, |_| false).resources;
            scopes.retain(|scope| scope.state == DumpState::Active);
            Some(DumpScopes {
                name: names.get(server)?.clone(),
                version: last.version.to_string(),
                last_updated: last.updated,
                is_inline: false,
                scopes,
            })
        });
        sets.collect()
    }

    /// Asked for, and not come. Envoy shows them so, its date being that of the subscription; no date is kept here.
    fn awaited_secrets(&self) -> impl Iterator<Item = DumpResource> {
        let wanted = self.wanted_secrets().into_iter();
        let has = |server: &ConfigServer, name: &String| {
            let store = self.secret_stores.get(server);
            store.is_some_and(|store| store.accepted.contains_key(name.as_str()))
        };
        wanted.flat_map(move |(server, names)| {
            let names = names.into_iter().filter(move |name| !has(&server, name));
            names.map(|name| DumpResource {
                version: "uninitialized".to_owned(),
                bytes: named_secret(&name),
                name,
                last_updated: self.bootstrap_updated,
                state: DumpState::Warming,
            })
        })
    }
}

fn named_secret(name: &str) -> Bytes {
    let secret = Secret {
        name: name.to_owned(),
        ..Default::default()
    };
    secret.encode_to_vec().into()
}

fn section<T>(store: &Store<T>, is_warming: impl Fn(&str) -> bool) -> DumpSection {
    // Those of the bootstrap are in its bytes.
    let received = store.accepted.iter().filter(|(_, accepted)| !accepted.is_static);
    let accepted = received.map(|(name, accepted)| DumpResource {
        version: accepted.version.to_string(),
        name: name.to_string(),
        bytes: accepted.bytes.bytes(),
        last_updated: accepted.updated,
        state: if is_warming(name) {
            DumpState::Warming
        } else {
            DumpState::Active
        },
    });
    let refused = store.refused.iter().filter(|(name, _)| !store.is_static(name));
    let refused = refused.map(|(name, refused)| DumpResource {
        version: refused.version.to_string(),
        name: name.to_string(),
        bytes: refused.bytes.clone(),
        last_updated: refused.updated,
        state: DumpState::Rejected {
            error: refused.reason.clone(),
        },
    });
    let mut accepted: Vec<_> = accepted.collect();
    accepted.sort_by(|one, other| one.name.cmp(&other.name));
    DumpSection {
        version_info: store.version.clone(),
        resources: accepted.into_iter().chain(refused).collect(),
    }
}
