//! What the process was started with: read by the command line, used by the server, shown by `/server_info`.
use std::path::PathBuf;
use std::time::Duration;

use super::logger::{Level, LogControl};
use crate::config::history::Limits;
use crate::config::snapshot::SnapshotOptions;
use crate::config::streams::StreamOptions;

/// The command line, understood. Source: Envoy docs "Command line options".
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `-c`, `--config-path`. This or [`Self::config_yaml`] is there.
    pub(crate) config_path: Option<PathBuf>,
    /// `--config-yaml`: merged over the file.
    pub(crate) config_yaml: Option<String>,
    /// `--mode`.
    pub(crate) mode: Mode,
    /// `--concurrency`: workers, 1..; the number of CPUs that this process may use when not given.
    pub(crate) concurrency: usize,
    /// `-l`, `--log-level`, as at the start.
    pub(crate) log_level: Level,
    /// `--component-log-level`, as given.
    pub(crate) component_log_level: String,
    /// Changes what is logged.
    pub(crate) log: LogControl,
    /// `--drain-time-s`: connections of a listener that goes away have this long; Envoy's default 600 s.
    pub(crate) drain_time: Duration,
    /// `--allow-unknown-static-fields`.
    pub(crate) allow_unknown_static_fields: bool,
    /// `--service-node`, `--service-cluster`, `--service-zone`.
    pub(crate) service: Service,
    /// `--admin-address-path`: the address of this interface is written there.
    pub(crate) admin_address_path: Option<PathBuf>,
    /// `--config-history-versions`, `--config-history-bytes`: what can be looked up of earlier configuration.
    pub(crate) history: Limits,
    /// `--config-snapshot`, `--config-snapshot-max-age-s`: the last good configuration on disk; `None`: it is not kept.
    pub(crate) snapshot: Option<SnapshotOptions>,
    /// `--ads-token-file`, `--keep-last-set`.
    pub(crate) streams: StreamOptions,
    /// `--file-flush-interval-msec`: how often access logs are written out; Envoy's default 10 s.
    pub(crate) file_flush_interval: Duration,
}

/// Who the proxy is; what is given goes before the bootstrap's node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Service {
    /// `node.id`.
    pub(crate) node: Option<String>,
    /// `node.cluster`.
    pub(crate) cluster: Option<String>,
    /// `node.locality.zone`.
    pub(crate) zone: Option<String>,
}

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Run.
    Serve,
    /// Read the configuration, say what is wrong with it, end.
    Validate,
}
