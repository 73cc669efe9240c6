//! What is wanted from whom: the subscriptions that follow from the configuration in force.
use std::collections::{BTreeMap, BTreeSet};

use outrigger_model::bootstrap::{ConfigServer, ConfigSource};
use outrigger_model::decode::{CLUSTER_TYPE, LISTENER_TYPE, SECRET_TYPE};
use xds_client::WILDCARD;

/// Names by type.
type ByType = BTreeMap<&'static str, BTreeSet<String>>;

/// Names by the server that has them.
pub(super) type ByServer = BTreeMap<ConfigServer, BTreeSet<String>>;

/// The wanted names of every server and type. A type that was wanted once stays, with no names when nothing of it is wanted any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    servers: BTreeMap<ConfigServer, ByType>,
    /// Counts changes, so that nobody has to compare.
    revision: u64,
}

impl Wishes {
    /// Clusters and listeners, of whom the bootstrap says.
    pub(super) fn of_bootstrap(cds: Option<&ConfigSource>, lds: Option<&ConfigSource>) -> Self {
        let mut wishes = Self::default();
        for (source, type_url) in [(cds, CLUSTER_TYPE), (lds, LISTENER_TYPE)] {
            if let Some(source) = source {
                let all = BTreeSet::from([WILDCARD.to_owned()]);
                wishes.set(type_url, BTreeMap::from([(source.server.clone(), all)]));
            }
        }
        wishes
    }

    /// Replaces what is wanted of one type. Files of secrets are left out: they are read with the secrets.
    pub(super) fn set(&mut self, type_url: &'static str, mut wanted: ByServer) {
        let is_read_elsewhere =
            |server: &ConfigServer| type_url == SECRET_TYPE && matches!(server, ConfigServer::Path(_));
        wanted.retain(|server, _| !is_read_elsewhere(server));
        for (server, types) in &mut self.servers {
            if let Some(names) = types.get_mut(type_url) {
                let now = wanted.remove(server).unwrap_or_default();
                if *names != now {
                    *names = now;
                    self.revision += 1;
                }
            }
        }
        for (server, names) in wanted.into_iter().filter(|(_, names)| !names.is_empty()) {
            self.servers.entry(server).or_default().insert(type_url, names);
            self.revision += 1;
        }
    }

    /// Goes up with each change.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Server, type, names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ConfigServer, &'static str, &BTreeSet<String>)> {
        self.servers.iter().flat_map(|(server, types)| {
            types
                .iter()
                .map(move |(type_url, names)| (server, *type_url, names))
        })
    }
}

#[cfg(test)]
mod tests {
    use outrigger_model::bootstrap::GrpcServer;
    use outrigger_model::decode::ROUTE_TABLE_TYPE;

    use super::*;

    fn by_server(entries: &[(ConfigServer, &[&str])]) -> ByServer {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        entries
            .iter()
            .map(|(server, list)| (server.clone(), names(list)))
            .collect()
    }

    fn text(wishes: &Wishes) -> Vec<String> {
        let short = |type_url: &str| type_url.rsplit('.').next().unwrap_or_default().to_owned();
        let line = |(server, type_url, names): (&ConfigServer, &str, &BTreeSet<String>)| {
            format!("{server:?} {} {names:?}", short(type_url))
        };
        wishes.iter().map(line).collect()
    }

    #[test]
    fn what_is_wanted_no_more_is_taken_back() {
        let (ads, own) = (ConfigServer::Ads, ConfigServer::Grpc(GrpcServer::of("own")));
        let mut wishes = Wishes::default();
        wishes.set(ROUTE_TABLE_TYPE, by_server(&[(ads.clone(), &["a", "b"])]));
        let before = wishes.revision();
        wishes.set(ROUTE_TABLE_TYPE, by_server(&[(ads.clone(), &["b", "a"])]));
        assert_eq!(wishes.revision(), before, "the same is no change");
        wishes.set(ROUTE_TABLE_TYPE, by_server(&[(own, &["a"])]));
        assert!(wishes.revision() > before);
        assert_eq!(
            text(&wishes),
            [
                "Ads RouteConfiguration {}",
                "Grpc(GrpcServer { cluster: \"own\", metadata: [] }) RouteConfiguration {\"a\"}"
            ]
        );
    }

    #[test]
    fn a_file_of_secrets_is_not_subscribed() {
        let mut wishes = Wishes::default();
        let file = ConfigServer::Path("/s".into());
        wishes.set(SECRET_TYPE, by_server(&[(file.clone(), &["s"])]));
        assert!(text(&wishes).is_empty());
        wishes.set(ROUTE_TABLE_TYPE, by_server(&[(file, &["r"])]));
        assert_eq!(text(&wishes).len(), 1);
    }
}
