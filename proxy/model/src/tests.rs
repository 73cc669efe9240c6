//! What holds for the whole crate: captures convert, verdicts are true, corrupt bytes do not panic.
#![allow(clippy::unwrap_used)]

mod accepted;
mod bootstrap;
mod captures;
mod compat;
mod corruption;
mod coverage;
mod deprecated;
mod mutation;
mod mutator;
mod policy;
mod refusals;
mod sources;
mod verdict;

use std::path::{Path, PathBuf};

use crate::bootstrap::Bootstrap;
use crate::cluster::Cluster;
use crate::decode;
use crate::endpoint::LoadAssignment;
use crate::field::{Problem, Rejection};
use crate::listener::Listener;
use crate::nds::NameTable;
use crate::proxy_config::ProxyConfig;
use crate::route::RouteTableConfig;
use crate::scoped_routes::Scope;
use crate::secret::Secret;

/// Any resource.
#[derive(Debug, PartialEq)]
enum Model {
    Listener(Box<Listener>),
    Cluster(Box<Cluster>),
    RouteTable(Box<RouteTableConfig>),
    Scope(Box<Scope>),
    LoadAssignment(LoadAssignment),
    Secret(Box<Secret>),
    NameTable(NameTable),
    ProxyConfig(ProxyConfig),
    Bootstrap(Box<Bootstrap>),
    Awaited(Box<policy::Awaited>),
}

/// Holds something that is checked and then refused, see [`policy::convert_awaited`].
const AWAITED_TYPE: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

const BOOTSTRAP_TYPE: &str = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap";

/// Converts a resource of any type.
fn convert(type_url: &str, bytes: &[u8]) -> Result<(Model, Vec<Problem>), Rejection> {
    use envoy_types::pb::envoy::config::bootstrap::v3 as pb;
    use prost::Message;
    Ok(match type_url {
        decode::LISTENER_TYPE => {
            decode::listener(bytes).map(|c| (Model::Listener(Box::new(c.value)), c.problems))?
        }
        decode::CLUSTER_TYPE => {
            decode::cluster(bytes).map(|c| (Model::Cluster(Box::new(c.value)), c.problems))?
        }
        decode::ROUTE_TABLE_TYPE => {
            decode::route_table(bytes).map(|c| (Model::RouteTable(Box::new(c.value)), c.problems))?
        }
        decode::SCOPE_TYPE => decode::scope(bytes).map(|c| (Model::Scope(Box::new(c.value)), c.problems))?,
        decode::LOAD_ASSIGNMENT_TYPE => {
            decode::load_assignment(bytes).map(|c| (Model::LoadAssignment(c.value), c.problems))?
        }
        decode::SECRET_TYPE => {
            decode::secret(bytes).map(|c| (Model::Secret(Box::new(c.value)), c.problems))?
        }
        decode::NAME_TABLE_TYPE => {
            decode::name_table(bytes).map(|c| (Model::NameTable(c.value), c.problems))?
        }
        decode::PROXY_CONFIG_TYPE => {
            decode::proxy_config(bytes).map(|c| (Model::ProxyConfig(c.value), c.problems))?
        }
        BOOTSTRAP_TYPE => {
            let proto = pb::Bootstrap::decode(bytes).unwrap_or_default();
            decode::bootstrap(proto).map(|c| (Model::Bootstrap(Box::new(c.value)), c.problems))?
        }
        AWAITED_TYPE => {
            policy::convert_awaited(bytes).map(|c| (Model::Awaited(Box::new(c.value)), c.problems))?
        }
        other => panic!("no conversion for {other}"),
    })
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares with a file that `UPDATE=1` writes.
fn check_golden(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        actual == expected,
        "{} is stale; run the test with UPDATE=1 and review the difference",
        path.display()
    );
}
