//! The admin interface: what an operator, `istioctl` and the probes ask of a running proxy, in Envoy's formats.
//!
//! Owns the endpoints and their texts. What it shows comes through [`AdminView`], so it knows neither the server nor how configuration
//! is kept. Runs on the control thread; answers that cost more than a few microseconds are made on a thread of their own, one at a time.
//! A new endpoint is a file here and a row in [`endpoint`]. Sources: Envoy docs "Administration interface"; what istioctl needs of
//! it; formats checked against Envoy 1.40.
mod answer;
mod clusters;
mod config_dump;
mod config_state;
mod endpoint;
mod help;
mod init_dump;
mod json;
mod listeners;
mod logging;
mod process;
mod query;
mod regex;
mod serve;
mod server_info;
mod stats;

pub(crate) mod logger;
pub(crate) mod options;

#[cfg(test)]
mod tests;

pub(crate) use serve::serve;
pub(crate) use server_info::version;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrigger_model::dump::ConfigDump;
use outrigger_model::nds::NameTable;

use crate::config::history::{Difference, Summary, UnknownVersion};
use crate::config::problems::Listed;
use crate::config::restore::SnapshotStatus;
use crate::stats::Registry;
use crate::upstream::cluster::Cluster;
use options::Options;

/// Where the process stands. Source: envoy/admin/v3/server_info.proto `State`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    /// Clusters of the bootstrap are not all ready.
    PreInitializing,
    /// The first listeners or routes are awaited.
    Initializing,
    /// Serving.
    Live,
    /// Told to go away, or to fail health checks.
    Draining,
}

impl Lifecycle {
    /// The value of the gauge `server.state`: the enum's number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Live => 0,
            Self::Draining => 1,
            Self::PreInitializing => 2,
            Self::Initializing => 3,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

/// A cluster to list.
#[derive(Debug, Clone)]
pub(crate) struct ListedCluster {
    /// The cluster now.
    pub(crate) cluster: Arc<Cluster>,
    /// It came over CDS, not with the bootstrap.
    pub(crate) added_via_api: bool,
}

/// What `/config/problems` shows.
#[derive(Debug, Clone)]
pub(crate) struct Problems {
    /// Resources that were refused, and fields without effect.
    pub(crate) listed: Vec<Listed>,
    /// The configuration on disk, if it is kept.
    pub(crate) snapshot: Option<SnapshotStatus>,
}

/// An address that a listener accepts on.
#[derive(Debug, Clone)]
pub(crate) struct BoundListener {
    /// The listener's name.
    pub(crate) name: String,
    /// As the system bound it.
    pub(crate) address: SocketAddr,
}

/// A listener that waits for what it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnreadyListener {
    /// The listener's name.
    pub(crate) name: String,
    /// Route tables that have not come.
    pub(crate) routes: Vec<String>,
    /// Secrets that have not come.
    pub(crate) secrets: Vec<String>,
    /// HTTP filters that have not come.
    pub(crate) filters: Vec<String>,
}

/// What `POST /drain_listeners` asks for. Source: Envoy docs, `/drain_listeners`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DrainListeners {
    /// Connections get the drain time before their listener closes; else it closes at once.
    pub(crate) graceful: bool,
    /// Only listeners with `traffic_direction: INBOUND`.
    pub(crate) inbound_only: bool,
    /// Connections are told to go, listeners stay; `graceful` has no effect then.
    pub(crate) skip_exit: bool,
}

/// What the endpoints show of the process, and the two things that they may ask of it. Called on the control thread.
pub(crate) trait AdminView {
    /// Where the process stands.
    fn lifecycle(&self) -> Lifecycle;
    /// Since the process began.
    fn uptime(&self) -> Duration;
    /// What it was started with.
    fn options(&self) -> &Options;
    /// The encoded `core.v3.Node`, as the control plane gets it.
    fn node(&self) -> Bytes;
    /// All stats.
    fn registry(&self) -> Arc<Registry>;
    /// Sets the gauges that follow the clock (`server.uptime`, …); called before stats are shown.
    fn refresh_stats(&self);
    /// Every active cluster, sorted by name.
    fn clusters(&self) -> Vec<ListedCluster>;
    /// Every bound address, sorted by listener.
    fn listeners(&self) -> Vec<BoundListener>;
    /// Every listener that is not in use yet, sorted by name.
    fn unready(&self) -> Vec<UnreadyListener>;
    /// All resources as received. Sharing the bytes, not copying them.
    fn config_dump(&self) -> ConfigDump;
    /// What of the configuration is not in force or has no effect, and the snapshot on disk.
    fn problems(&self) -> Problems;
    /// The names that istiod would have the DNS proxy answer; `None`: none came.
    fn name_table(&self) -> Option<Arc<NameTable>>;
    /// Accepted versions that are kept, newest first.
    fn history(&self) -> Vec<Summary>;
    /// What differs between two versions.
    ///
    /// # Errors
    /// One of them is not known, or not any more.
    fn differences(&self, from: u64, to: u64) -> Result<Vec<Difference>, UnknownVersion>;
    /// Drains listeners; returns at once.
    fn drain_listeners(&self, request: DrainListeners);
    /// Begins the orderly end of the process; returns at once. The answer to the caller is written afterwards: wait for [`serve()`].
    fn quit(&self);
}
