//! Reading the bootstrap, and finding servers among its static clusters.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use outrigger_model::address::Address as ModelAddress;
use outrigger_model::bootstrap::Bootstrap;
use outrigger_model::cluster::{Discovery, UpstreamHttpVersion};
use outrigger_model::decode;
use outrigger_model::document::{UnknownFields, encoded_bootstrap, parse_bootstrap, read_bootstrap};
use xds_client::{Address, Node, Transport};

use super::{ServerError, display};
use crate::admin::options::{Options, Service};
use crate::config::dial::ClusterDial;
use crate::upstream::cluster_table::ClusterTable;

/// A bootstrap that can be used.
pub(super) struct Loaded {
    /// For messages.
    pub(super) file: String,
    pub(super) bootstrap: Bootstrap,
    /// For `/config_dump`.
    pub(super) encoded: Vec<u8>,
    /// For the control plane.
    pub(super) node: Node,
}

/// Reads and checks the file of the options.
///
/// # Errors
/// File, position or field path, and reason.
pub(super) fn load(options: &Options) -> Result<Loaded, ServerError> {
    let file = display(options.config_path.as_ref());
    let unknown = if options.allow_unknown_static_fields {
        UnknownFields::Ignore
    } else {
        UnknownFields::Refuse
    };
    let overrides = options.config_yaml.as_deref();
    let (mut message, mut encoded) = match (&options.config_path, overrides) {
        (Some(path), _) => read_bootstrap(Path::new(path), overrides, unknown)?,
        (None, Some(text)) => parse_bootstrap(&file, text.as_bytes(), None, unknown)?,
        (None, None) => parse_bootstrap(&file, b"", None, unknown)?,
    };
    if options.service != Service::default() {
        name_node(message.node.get_or_insert_default(), &options.service);
        encoded = encoded_bootstrap(&message);
    }
    let node = message.node.clone().unwrap_or_default();
    let converted = decode::bootstrap(message).map_err(|rejection| ServerError::Bootstrap {
        file: file.clone(),
        rejection,
    })?;
    for problem in &converted.problems {
        tracing::warn!(file, %problem, "bootstrap field without effect");
    }
    Ok(Loaded {
        file,
        bootstrap: converted.value,
        encoded,
        node,
    })
}

/// As Envoy, which puts the command line's words before the bootstrap's.
fn name_node(node: &mut Node, service: &Service) {
    let Service {
        node: id,
        cluster,
        zone,
    } = service.clone();
    if let Some(id) = id {
        node.id = id;
    }
    if let Some(cluster) = cluster {
        node.cluster = cluster;
    }
    if let Some(zone) = zone {
        node.locality.get_or_insert_default().zone = zone;
    }
}

/// Transports to the static clusters that serve configuration.
pub(super) struct Transports {
    /// With whether HTTP/2 is spoken.
    addresses: BTreeMap<String, (Address, bool)>,
}

impl Transports {
    /// The first endpoint of each static cluster.
    pub(super) fn of(bootstrap: &Bootstrap) -> Self {
        let addresses = bootstrap.clusters.iter().filter_map(|cluster| {
            let assignment = match &cluster.discovery {
                Discovery::Static(assignment)
                | Discovery::StrictDns(assignment)
                | Discovery::LogicalDns(assignment) => assignment,
                Discovery::Eds { .. } | Discovery::OriginalDst => return None,
            };
            let endpoint = assignment
                .localities
                .iter()
                .flat_map(|group| &group.endpoints)
                .next()?;
            let address = match &endpoint.address {
                ModelAddress::Socket(address) => Address::Tcp {
                    host: address.ip().to_string(),
                    port: address.port(),
                },
                ModelAddress::Host { name, port } => Address::Tcp {
                    host: name.clone(),
                    port: *port,
                },
                ModelAddress::Pipe(path) => Address::Unix(path.clone()),
            };
            let is_http2 = cluster.http.version == UpstreamHttpVersion::Http2;
            Some((cluster.name.clone(), (address, is_http2)))
        });
        Self {
            addresses: addresses.collect(),
        }
    }

    /// A transport to the cluster of this name, with the cluster's TLS, and whether HTTP/2 is spoken on it.
    pub(super) fn get(&self, cluster: &str, clusters: &ClusterTable) -> Option<(Transport, bool)> {
        let (address, is_http2) = self.addresses.get(cluster)?.clone();
        let transport = Transport::new(address)
            .inspect_err(|error| tracing::error!(cluster, %error, "cannot be dialled"))
            .ok()?;
        let dial = ClusterDial::new(clusters.cell(cluster));
        Some((transport.with_connector(Arc::new(dial)), is_http2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_the_node_where_it_says_something() {
        let mut node = Node {
            id: "bootstrap".into(),
            cluster: "bootstrap".into(),
            ..Node::default()
        };
        let service = Service {
            node: Some("flag".into()),
            cluster: None,
            zone: Some("zone".into()),
        };
        name_node(&mut node, &service);
        let zone = node.locality.map(|locality| locality.zone);
        assert_eq!(
            (node.id.as_str(), node.cluster.as_str(), zone.as_deref()),
            ("flag", "bootstrap", Some("zone"))
        );
    }
}
