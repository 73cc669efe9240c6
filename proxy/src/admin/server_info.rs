//! `/server_info`: version, state, uptime, command line and node, as `envoy.admin.v3.ServerInfo`.
use std::sync::LazyLock;
use std::time::Duration;

use envoy_types::pb::envoy::admin::v3::{CommandLineOptions, ServerInfo, command_line_options as flags};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf;
use outrigger_model::dump::{Defaults, Descriptors};
use prost::Message as _;

use super::AdminView;
use super::answer::Answer;
use super::endpoint::Later;
use super::options::{Mode, Options};
use super::process::HOT_RESTART_VERSION;
use super::query::Query;

const MESSAGE: &str = "envoy.admin.v3.ServerInfo";

/// `REVISION/VERSION/STATUS/BUILD/PRODUCT`, as Envoy's `SHA/1.40.0/Clean/RELEASE/BoringSSL`; tools split it at the slashes. A build
/// outside its repository knows no revision: Envoy calls that status `Distribution`.
pub(crate) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let (revision, status) = match option_env!("OUTRIGGER_REVISION") {
            Some(revision) => (revision, "Clean"),
            None => ("unknown", "Distribution"),
        };
        let build = if cfg!(debug_assertions) {
            "DEBUG"
        } else {
            "RELEASE"
        };
        format!(
            "{revision}/{}/{status}/{build}/outrigger",
            env!("CARGO_PKG_VERSION")
        )
    });
    &VERSION
}

/// `/server_info`.
pub(super) fn answer(view: &dyn AdminView, _: &Query) -> Result<Later, Answer> {
    let info = server_info(view)?.encode_to_vec();
    Ok(Box::new(move |_| {
        let descriptors = match Descriptors::full() {
            Ok(descriptors) => descriptors,
            Err(error) => return Answer::internal(error.to_string()),
        };
        match descriptors.message_to_json(MESSAGE, &info, Defaults::Print) {
            Some(text) => Answer::json(text),
            None => Answer::internal(format!("{MESSAGE} is missing in this build")),
        }
    }))
}

fn server_info(view: &dyn AdminView) -> Result<ServerInfo, Answer> {
    let uptime = Some(seconds(view.uptime()));
    let node = Node::decode(view.node()).map_err(|error| Answer::internal(format!("node: {error}")))?;
    Ok(ServerInfo {
        version: version().to_owned(),
        state: view.lifecycle().number().into(),
        uptime_current_epoch: uptime,
        uptime_all_epochs: uptime,
        hot_restart_version: HOT_RESTART_VERSION.to_owned(),
        command_line_options: Some(command_line(view.options())),
        node: Some(node),
        hot_restart_initializing: false,
    })
}

fn command_line(options: &Options) -> CommandLineOptions {
    let mode = match options.mode {
        Mode::Serve => flags::Mode::Serve,
        Mode::Validate => flags::Mode::Validate,
    };
    CommandLineOptions {
        concurrency: u32::try_from(options.concurrency).unwrap_or(u32::MAX),
        config_path: options
            .config_path
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        config_yaml: options.config_yaml.clone().unwrap_or_default(),
        allow_unknown_static_fields: options.allow_unknown_static_fields,
        log_level: options.log_level.name().to_owned(),
        component_log_level: options.component_log_level.clone(),
        file_flush_interval: Some(duration(options.file_flush_interval)),
        drain_time: Some(duration(options.drain_time)),
        // Envoy's default; there is no parent to shut down.
        parent_shutdown_time: Some(duration(Duration::from_secs(900))),
        mode: mode.into(),
        service_node: options.service.node.clone().unwrap_or_default(),
        service_cluster: options.service.cluster.clone().unwrap_or_default(),
        service_zone: options.service.zone.clone().unwrap_or_default(),
        admin_address_path: options
            .admin_address_path
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        disable_hot_restart: true,
        // The rest belongs to flags that have no effect here.
        ..CommandLineOptions::default()
    }
}

/// Envoy counts whole seconds.
fn seconds(uptime: Duration) -> protobuf::Duration {
    duration(Duration::from_secs(uptime.as_secs()))
}

fn duration(duration: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        // Below 10^9.
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}
