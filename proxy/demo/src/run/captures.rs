//! What a real istiod sent to the three workloads of bill-service, inside the binary.
//!
//! The files are the ones that the end-to-end tests replay. The name table is left out: it is for the agent's DNS server,
//! and there is no agent here.

use serde_json::Value;

use crate::control_plane::{CLUSTER, ENDPOINTS, LISTENER, ROUTES, Snapshot};

/// A workload as it was captured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capture {
    /// Its name.
    pub(super) name: &'static str,
    /// Type URL and encoded `DiscoveryResponse`.
    responses: [(&'static str, &'static [u8]); 4],
    node: &'static str,
}

macro_rules! file {
    ($name:literal, $file:literal) => {
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/data/bill/",
            $name,
            "/",
            $file
        )
    };
}
macro_rules! capture {
    ($name:literal) => {
        Capture {
            name: $name,
            responses: [
                (CLUSTER, include_bytes!(file!($name, "cds.pb"))),
                (ENDPOINTS, include_bytes!(file!($name, "eds.pb"))),
                (LISTENER, include_bytes!(file!($name, "lds.pb"))),
                (ROUTES, include_bytes!(file!($name, "rds.pb"))),
            ],
            node: include_str!(file!($name, "node.json")),
        }
    };
}

/// The one that calls.
pub(super) const FRONT: Capture = capture!("front");
/// All of them, and what the application of each says it is.
pub(super) const CAPTURES: [(Capture, &str); 3] = [
    (FRONT, "front"),
    (capture!("bill-v1"), "v1"),
    (capture!("bill-v2"), "v2"),
];

impl Capture {
    /// What istiod sent to it.
    ///
    /// # Errors
    /// Only in a broken build.
    pub(super) fn snapshot(&self) -> Result<Snapshot, prost::DecodeError> {
        let mut snapshot = Snapshot::default();
        for (type_url, response) in self.responses {
            snapshot.set(type_url, response)?;
        }
        Ok(snapshot)
    }

    /// Its node in proto JSON.
    ///
    /// # Errors
    /// Only in a broken build.
    pub(super) fn node(&self) -> Result<Value, serde_json::Error> {
        let mut json: Value = serde_json::from_str(self.node)?;
        Ok(json["node"].take())
    }
}
