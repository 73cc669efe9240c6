//! The process: start order, workers, readiness, signals, the end.
//!
//! Order: bootstrap → stats, logs → workers → static resources and their sockets → admin → control plane. The control thread is the main
//! thread; it runs everything that is not traffic. Source of states and their names: envoy/admin/v3/server_info.proto.
mod bootstrap;
mod state;
mod stats;
mod workers;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrigger_model::document::DocumentError;
use outrigger_model::field::Rejection;
use outrigger_model::readiness::ReadinessProbe;
use tokio::signal::unix::{SignalKind, signal};

use self::bootstrap::Loaded;
use self::state::ServerState;
use self::workers::Workers;
use crate::admin;
use crate::admin::options::{Mode, Options};
use crate::agent;
use crate::config::build::Shared;
use crate::config::control::Control;
use crate::config::streams::Streams;
use crate::drain::Drain;
use crate::listener::limits::Limits;
use crate::net::listen;
use crate::stats::{NameRules, Registry, TagRules};
use crate::telemetry::access_log::LogSinks;
use crate::telemetry::istio_stats::IstioMetrics;
use crate::telemetry::peer::LocalPeers;
use crate::upstream::cluster_table::ClusterTable;
use crate::upstream::lb::LocalZone;
use crate::worker;

/// Time limits and counters are looked at this often.
const TICK: Duration = Duration::from_secs(1);
/// Envoy's `stats_flush_interval`: intervals of histograms.
const STATS_FLUSH: Duration = Duration::from_secs(5);
/// How long admin's last answers may take.
const ADMIN_SHUTDOWN: Duration = Duration::from_secs(1);
/// How long the last log lines may take to be written.
const LOG_SHUTDOWN: Duration = Duration::from_secs(2);

/// Why the process cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// The bootstrap cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The bootstrap's content is refused.
    #[error("{file}: {rejection}")]
    Bootstrap {
        /// Its path.
        file: String,
        /// Where and why.
        rejection: Rejection,
    },
    /// A static resource cannot be used.
    #[error("{file}: {reason}")]
    Static {
        /// The bootstrap's path.
        file: String,
        /// The resource and why.
        reason: String,
    },
    /// The admin address cannot be listened on.
    #[error("admin: cannot listen on {address}: {source}; free the port or change admin.address")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Rules for stats that cannot be compiled.
    #[error("stats_config: {0}")]
    StatsTags(String),
    /// Threads, signals, log writer.
    #[error("the process cannot be set up: {0}")]
    System(#[from] io::Error),
}

/// Runs the sidecar until it is told to stop.
///
/// # Errors
/// It could not start; see [`ServerError`].
pub(crate) fn run(options: Options) -> Result<(), ServerError> {
    let loaded = bootstrap::load(&options)?;
    if options.mode == Mode::Validate {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, serve(options, loaded))
}

async fn serve(options: Options, loaded: Loaded) -> Result<(), ServerError> {
    let Loaded {
        file,
        bootstrap,
        encoded,
        node,
    } = loaded;
    let default_tags = bootstrap.stats_tags.is_empty();
    let tags = TagRules::new(&bootstrap.stats_tags, default_tags)
        .map_err(|error| ServerError::StatsTags(error.to_string()))?;
    let rules = NameRules::new(&bootstrap.stats_inclusion, &bootstrap.histogram_buckets)
        .map_err(|error| ServerError::StatsTags(error.to_string()))?;
    let registry = Registry::with_rules(tags, rules);
    let _counting = crate::stats::enter_worker(&registry);
    let shared = Arc::new(Shared {
        sinks: LogSinks::new(&registry)?,
        clusters: Arc::new(ClusterTable::default()),
        local_peers: Arc::new(LocalPeers::new(bootstrap.node.clone())),
        istio: IstioMetrics::new(&registry, &bootstrap.node),
        registry: registry.clone(),
        drain_time: options.drain_time,
        resolves_names: true,
        limits: Limits::new(&bootstrap.connection_limits, &registry),
        zone: Arc::new(LocalZone::new(
            bootstrap.local_cluster_name.clone().unwrap_or_default(),
            bootstrap.node.locality.clone(),
        )),
    });
    registry.add_source(&shared.clusters);
    let workers = Workers::start(options.concurrency, &shared, options.file_flush_interval)?;
    crate::pace::give_way();
    let (admin_address, admin_options) = (bootstrap.admin, bootstrap.admin_socket_options.clone());
    let stream_options = options.streams.clone();
    let address_path = options.admin_address_path.clone();
    let probe = ReadinessProbe::of_node(&bootstrap.node);
    let (ads, transports) = (bootstrap.ads.clone(), bootstrap::Transports::of(&bootstrap));
    let control = Control::new(bootstrap, Bytes::from(encoded), shared.clone(), workers.handles())
        .map_err(|reason| ServerError::Static { file, reason })?;
    let mut control = control;
    control.keep_history(options.history);
    if let Some(snapshot) = options.snapshot.clone() {
        control.keep_snapshot(snapshot, node.id.clone());
    }
    let control = Rc::new(RefCell::new(control));
    let encoded_node = control.borrow().encoded_node();
    let state = ServerState::new(options, encoded_node, control.clone(), &registry);
    let admin_drain = Drain::default();
    let mut admin_task = None;
    if let Some(address) = admin_address {
        let socket =
            listen::bind(address, &admin_options).map_err(|source| ServerError::Admin { address, source })?;
        if let Some(path) = &address_path {
            tell_address(path, socket.local_addr()?);
        }
        admin_task = Some(tokio::task::spawn_local(admin::serve(
            socket,
            state.clone(),
            admin_drain.watch(),
        )));
    }
    let clusters = shared.clusters.clone();
    let transport_of = Box::new(move |cluster: &str| transports.get(cluster, &clusters));
    let ads_stream = Streams::start(
        &control,
        node,
        ads.as_ref(),
        transport_of,
        stream_options,
        &registry,
    );
    if let Some(stream) = ads_stream {
        tell_health(probe, stream, &control);
    }
    worker::spawn(housekeeping(control, registry.clone()));
    tracing::info!(concurrency = workers.count(), "started");
    until_stopped(&state, &shared.sinks).await?;
    tracing::info!("stopping");
    admin_drain.start();
    if let Some(task) = admin_task {
        // The answer to whoever asked to quit is still written.
        let _ = crate::time::within(Some(ADMIN_SHUTDOWN), task).await;
    }
    workers.stop();
    shared.sinks.flush_local();
    if !shared.sinks.shutdown(LOG_SHUTDOWN) {
        tracing::warn!("access logs could not all be written in time");
    }
    Ok(())
}

/// The control plane is told whether the application is ready, if the node says how to ask it.
fn tell_health(
    probe: Result<Option<ReadinessProbe>, Rejection>,
    stream: xds_client::Handle,
    control: &Rc<RefCell<Control>>,
) {
    let control = control.clone();
    match probe {
        Ok(None) => {}
        Ok(Some(probe)) => worker::spawn(agent::watch(
            probe,
            move || control.borrow().is_initialized(),
            // The task never ends while the process lives.
            move |report| {
                let _ = stream.report(report);
            },
        )),
        Err(rejection) => {
            tracing::error!(%rejection, "the application is not asked whether it is ready, and nobody is told")
        }
    }
}

/// Writes where the admin interface is, for whoever started the process with port 0. As in Envoy not a reason to stop.
fn tell_address(path: &Path, address: SocketAddr) {
    if let Err(error) = std::fs::write(path, address.to_string()) {
        tracing::error!(path = %path.display(), %error, "--admin-address-path: cannot be written");
    }
}

/// What follows the clock or the system is read when stats are shown, not here.
async fn housekeeping(control: Rc<RefCell<Control>>, registry: Arc<Registry>) {
    let mut ticks = tokio::time::interval(TICK);
    let warmed = control.borrow().warmed();
    let mut until_flush = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = warmed.notified() => {
                control.borrow_mut().resettle();
                continue;
            }
        }
        control.borrow_mut().tick();
        control.borrow().shared().sinks.flush_local();
        until_flush += 1;
        if until_flush * TICK.as_secs() >= STATS_FLUSH.as_secs() {
            until_flush = 0;
            registry.flush();
        }
    }
}

/// Returns at SIGTERM, SIGINT or `POST /quitquitquit`; as Envoy, without waiting for streams (the agent drains before).
async fn until_stopped(state: &ServerState, sinks: &LogSinks) -> Result<(), ServerError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut rotate = signal(SignalKind::user_defined1())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            // Ignored, as Envoy does.
            _ = hangup.recv() => {}
            // Log rotation, as Envoy.
            _ = rotate.recv() => sinks.reopen(),
            () = state.quit_requested() => return Ok(()),
        }
    }
}

/// The path in messages.
fn display(path: Option<&PathBuf>) -> String {
    path.map_or_else(|| "--config-yaml".to_owned(), |path| path.display().to_string())
}
