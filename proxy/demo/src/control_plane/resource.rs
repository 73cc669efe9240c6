//! Resources by type and name, as a control plane holds them for one node.
//!
//! Bytes are kept as they came: a capture is served unchanged. Only the name is read, which for every xDS resource type
//! that istiod sends is field 1.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;

/// Type URL of clusters.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// Type URL of endpoints.
pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// Type URL of listeners.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Type URL of route configurations.
pub const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Type URL of the name table that istiod sends to the agent's DNS server.
pub const NAME_TABLE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";

/// The files of a captured snapshot and the type each holds.
const FILES: [(&str, &str); 5] = [
    ("cds.pb", CLUSTER),
    ("eds.pb", ENDPOINTS),
    ("lds.pb", LISTENER),
    ("rds.pb", ROUTES),
    ("nds.pb", NAME_TABLE),
];

/// One resource: its name and its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// As the client asks for it.
    pub name: String,
    /// Type URL and bytes.
    pub any: Any,
}

impl Named {
    /// Reads the name from the bytes; empty when there is none.
    pub fn from_any(any: Any) -> Self {
        Self {
            name: name_of(&any.value),
            any,
        }
    }

    /// A resource from a message.
    pub fn from_message<M: Message>(type_url: &str, message: &M) -> Self {
        Self::from_any(Any {
            type_url: type_url.to_owned(),
            value: message.encode_to_vec(),
        })
    }
}

/// What one node can ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    types: BTreeMap<String, Vec<Named>>,
}

/// A capture that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file is missing or unreadable.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what its name says.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Snapshot {
    /// Reads `cds.pb`, `eds.pb`, `lds.pb`, `rds.pb` and `nds.pb` of `folder`, each a `DiscoveryResponse`.
    ///
    /// # Errors
    /// [`CaptureError`] when a file is unreadable or no `DiscoveryResponse`. Only `nds.pb` may be missing.
    pub fn read(folder: &Path) -> Result<Self, CaptureError> {
        let mut snapshot = Self::default();
        for (file, type_url) in FILES {
            let path = folder.join(file);
            if file == "nds.pb" && !path.exists() {
                continue;
            }
            let bytes = read(&path)?;
            snapshot
                .set(type_url, &bytes)
                .map_err(|error| CaptureError::Malformed {
                    path,
                    reason: error.to_string(),
                })?;
        }
        Ok(snapshot)
    }

    /// Replaces the resources of a type by those of an encoded `DiscoveryResponse`.
    ///
    /// # Errors
    /// When `response` is none.
    pub fn set(&mut self, type_url: &str, response: &[u8]) -> Result<(), prost::DecodeError> {
        let response = DiscoveryResponse::decode(response)?;
        let resources = response.resources.into_iter().map(Named::from_any).collect();
        self.types.insert(type_url.to_owned(), resources);
        Ok(())
    }

    /// Every type that has resources.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    /// Every resource of a type, in the order in which they came.
    pub fn all(&self, type_url: &str) -> &[Named] {
        self.types.get(type_url).map_or(&[], Vec::as_slice)
    }

    /// One resource.
    pub fn find(&self, type_url: &str, name: &str) -> Option<&Named> {
        self.all(type_url).iter().find(|resource| resource.name == name)
    }

    /// Adds or replaces.
    pub fn put(&mut self, type_url: &str, resource: Named) {
        let resources = self.types.entry(type_url.to_owned()).or_default();
        match resources.iter_mut().find(|old| old.name == resource.name) {
            Some(old) => *old = resource,
            None => resources.push(resource),
        }
    }

    /// Takes a resource away.
    pub fn remove(&mut self, type_url: &str, name: &str) {
        if let Some(resources) = self.types.get_mut(type_url) {
            resources.retain(|resource| resource.name != name);
        }
    }

    /// Applies `change` to every resource of every type.
    #[must_use]
    pub fn map(mut self, change: impl Fn(Any) -> Any) -> Self {
        for resource in self.types.values_mut().flatten() {
            resource.any = change(std::mem::take(&mut resource.any));
        }
        self
    }

    /// What istiod answers to a subscription: the resource, or an empty one of that name where its generator always
    /// makes one (EDS, RDS); nothing for other types.
    pub(super) fn answer(&self, type_url: &str, name: &str) -> Option<Named> {
        self.find(type_url, name)
            .cloned()
            .or_else(|| empty(type_url, name))
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CaptureError> {
    fs::read(path).map_err(|source| CaptureError::Read {
        path: path.to_owned(),
        source,
    })
}

fn empty(type_url: &str, name: &str) -> Option<Named> {
    let name = name.to_owned();
    match type_url {
        ENDPOINTS => {
            let message = ClusterLoadAssignment {
                cluster_name: name,
                ..Default::default()
            };
            Some(Named::from_message(type_url, &message))
        }
        ROUTES => {
            let message = RouteConfiguration {
                name,
                ..Default::default()
            };
            Some(Named::from_message(type_url, &message))
        }
        _ => None,
    }
}

/// Field 1 of any message whose field 1 is a string.
#[derive(Clone, PartialEq, Message)]
struct FirstField {
    #[prost(string, tag = "1")]
    name: String,
}

fn name_of(bytes: &[u8]) -> String {
    FirstField::decode(bytes)
        .map(|first| first.name)
        .unwrap_or_default()
}
