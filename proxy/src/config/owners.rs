//! Who is asked for endpoints and route tables, which are known by their name alone: one server for each name.
//!
//! What wants a name from a second server goes without until one of the two is gone, for what the first has under that name is something
//! else; `/config/problems` names both. Envoy keeps a resource for each subscription.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::SystemTime;

use outrigger_model::bootstrap::ConfigServer;

use super::wishes::ByServer;

/// Of one type.
#[derive(Debug, Default)]
pub(super) struct Owners {
    before: Before,
    disputed: BTreeMap<String, Dispute>,
}

/// A name that several servers should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dispute {
    owner: ConfigServer,
    /// Not asked.
    others: Vec<ConfigServer>,
    /// Since when.
    pub(super) since: SystemTime,
}

/// Who was asked last; names only if there are several.
#[derive(Debug)]
enum Before {
    Only(Option<ConfigServer>),
    Several(ByServer),
}

impl Default for Before {
    fn default() -> Self {
        Self::Only(None)
    }
}

impl Before {
    fn is_asked(&self, server: &ConfigServer, name: &str) -> bool {
        match self {
            Self::Only(only) => only.as_ref() == Some(server),
            Self::Several(asked) => asked.get(server).is_some_and(|names| names.contains(name)),
        }
    }
}

/// What is asked now.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) wanted: ByServer,
    /// Names that have gone to another server: what the last one said of them is of no use.
    pub(super) moved: Vec<String>,
}

impl Owners {
    /// Decides. `accepted` is wanted by what is accepted, `in_use` by what serves until that is complete: if that has gone to another server,
    /// it goes on with what it has.
    pub(super) fn settle(&mut self, accepted: ByServer, in_use: ByServer) -> Asked {
        let mut wanted = accepted;
        let last = std::mem::take(&mut self.disputed);
        for name in twice(&wanted) {
            let has_it = wanted.iter().filter(|(_, names)| names.contains(&name));
            let mut others: Vec<_> = has_it.map(|(server, _)| server.clone()).collect();
            let stays = others
                .iter()
                .position(|server| self.before.is_asked(server, &name));
            let owner = others.remove(stays.unwrap_or(0));
            for other in &others {
                wanted.entry(other.clone()).and_modify(|names| {
                    names.remove(&name);
                });
            }
            let since = last.get(&name).map_or_else(SystemTime::now, |last| last.since);
            let dispute = Dispute { owner, others, since };
            if !last.contains_key(&name) {
                tracing::error!(name, "{}", dispute.text());
            }
            self.disputed.insert(name, dispute);
        }
        for (server, names) in in_use {
            let is_elsewhere = |name: &String| {
                let mut servers = wanted.iter();
                servers.any(|(other, names)| *other != server && names.contains(name))
            };
            let names: BTreeSet<_> = names.into_iter().filter(|name| !is_elsewhere(name)).collect();
            wanted.entry(server).or_default().extend(names);
        }
        let moved = self.moved(&wanted);
        self.before = if wanted.len() > 1 {
            Before::Several(wanted.clone())
        } else {
            Before::Only(wanted.keys().next().cloned())
        };
        Asked { wanted, moved }
    }

    /// A server that nobody was asked for before may have been asked for any name.
    fn moved(&self, wanted: &ByServer) -> Vec<String> {
        let was_asked = |name: &str| match &self.before {
            Before::Only(only) => only.is_some(),
            Before::Several(asked) => asked.values().any(|names| names.contains(name)),
        };
        let mut moved = Vec::new();
        for (server, names) in wanted {
            let new = names.iter().filter(|name| !self.before.is_asked(server, name));
            moved.extend(new.filter(|name| was_asked(name)).cloned());
        }
        moved
    }

    /// That server is asked for this name, so what there is under it is the server's.
    pub(super) fn is_of(&self, name: &str, server: &ConfigServer) -> bool {
        self.before.is_asked(server, name)
    }

    /// Who is asked for this name.
    pub(super) fn of(&self, name: &str) -> Option<&ConfigServer> {
        match &self.before {
            Before::Only(only) => only.as_ref(),
            Before::Several(asked) => {
                let mut asked = asked.iter();
                asked.find_map(|(server, names)| names.contains(name).then_some(server))
            }
        }
    }

    /// Names that several servers should have.
    pub(super) fn disputes(&self) -> impl Iterator<Item = (&str, &Dispute)> {
        self.disputed
            .iter()
            .map(|(name, dispute)| (name.as_str(), dispute))
    }
}

impl Dispute {
    /// What is wrong, and what to do.
    pub(super) fn text(&self) -> String {
        let mut text = format!("is wanted from {}", text_of(&self.owner));
        for other in &self.others {
            // A string takes everything.
            let _ = write!(text, ", and from {}", text_of(other));
        }
        text + ": only the first is asked, and what wants it from another goes without; give one of them another name"
    }
}

/// A server, for people.
pub(super) fn text_of(server: &ConfigServer) -> String {
    match server {
        ConfigServer::Ads => "ads".to_owned(),
        ConfigServer::Grpc(server) => format!("grpc cluster {:?}", server.cluster),
        ConfigServer::DeltaGrpc(server) => format!("delta grpc cluster {:?}", server.cluster),
        ConfigServer::Rest(server) => format!("rest cluster {:?}", server.cluster),
        ConfigServer::Path(path) => format!("file {:?}", path.display().to_string()),
    }
}

/// Names that several servers are asked for.
fn twice(wanted: &ByServer) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let names = wanted.values().filter(|_| wanted.len() > 1).flatten();
    names.filter(|name| !seen.insert(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use outrigger_model::bootstrap::GrpcServer;

    use super::*;

    fn own() -> ConfigServer {
        ConfigServer::Grpc(GrpcServer::of("own"))
    }

    fn by_server(entries: &[(ConfigServer, &[&str])]) -> ByServer {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let entries = entries.iter();
        entries
            .map(|(server, list)| (server.clone(), names(list)))
            .collect()
    }

    fn settle(owners: &mut Owners, accepted: &[(ConfigServer, &[&str])]) -> Asked {
        owners.settle(by_server(accepted), ByServer::new())
    }

    #[test]
    fn who_has_a_name_keeps_it_and_the_other_goes_without() {
        let mut owners = Owners::default();
        settle(&mut owners, &[(own(), &["a"])]);
        let asked = settle(
            &mut owners,
            &[(ConfigServer::Ads, &["a", "b"]), (own(), &["a", "c"])],
        );
        assert_eq!(
            asked.wanted,
            by_server(&[(ConfigServer::Ads, &["b"]), (own(), &["a", "c"])])
        );
        assert!(owners.is_of("a", &own()) && !owners.is_of("a", &ConfigServer::Ads));
        assert!(owners.is_of("b", &ConfigServer::Ads) && owners.is_of("c", &own()));
        let disputes: Vec<_> = owners
            .disputes()
            .map(|(name, each)| (name, each.text()))
            .collect();
        let expected = "is wanted from grpc cluster \"own\", and from ads: only the first is asked, and what wants it from another goes \
                        without; give one of them another name";
        assert_eq!(disputes, [("a", expected.to_owned())]);
        let asked = settle(&mut owners, &[(ConfigServer::Ads, &["a", "b"])]);
        assert_eq!(asked.moved, ["a"], "what the other said of it is of no use");
        assert_eq!(owners.disputes().count(), 0);
    }

    #[test]
    fn what_has_gone_to_another_server_is_not_disputed() {
        let mut owners = Owners::default();
        settle(&mut owners, &[(ConfigServer::Ads, &["a", "b"])]);
        let asked = owners.settle(
            by_server(&[(own(), &["a"])]),
            by_server(&[(ConfigServer::Ads, &["a", "b"])]),
        );
        assert_eq!(
            asked.wanted,
            by_server(&[(ConfigServer::Ads, &["b"]), (own(), &["a"])])
        );
        assert_eq!(asked.moved, ["a"]);
        assert_eq!(owners.disputes().count(), 0);
    }
}
