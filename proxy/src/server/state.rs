//! What the process is doing, for admin and readiness.
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use outrigger_model::dump::ConfigDump;
use outrigger_model::nds::NameTable;
use tokio::sync::Notify;

use super::stats::ServerStats;
use crate::admin::options::Options;
use crate::admin::{
    AdminView, BoundListener, DrainListeners, Lifecycle, ListedCluster, Problems, UnreadyListener,
};
use crate::config::control::Control;
use crate::config::history::{Difference, Summary, UnknownVersion};
use crate::stats::Registry;
use crate::worker;

/// The process's state; control thread only.
pub(super) struct ServerState {
    options: Options,
    node: Bytes,
    control: Rc<RefCell<Control>>,
    registry: Arc<Registry>,
    started: Instant,
    draining: Cell<bool>,
    quit: Notify,
    stats: ServerStats,
}

impl ServerState {
    pub(super) fn new(
        options: Options,
        node: Bytes,
        control: Rc<RefCell<Control>>,
        registry: &Arc<Registry>,
    ) -> Rc<Self> {
        let stats = ServerStats::new(registry, options.concurrency);
        let state = Rc::new(Self {
            options,
            node,
            control,
            registry: registry.clone(),
            started: Instant::now(),
            draining: Cell::new(false),
            quit: Notify::new(),
            stats,
        });
        state.refresh_stats();
        state
    }

    pub(super) async fn quit_requested(&self) {
        self.quit.notified().await;
    }
}

impl AdminView for ServerState {
    fn lifecycle(&self) -> Lifecycle {
        let control = self.control.borrow();
        match (
            self.draining.get(),
            control.is_initialized(),
            control.has_clusters(),
        ) {
            (true, _, _) => Lifecycle::Draining,
            (false, true, _) => Lifecycle::Live,
            (false, false, true) => Lifecycle::Initializing,
            (false, false, false) => Lifecycle::PreInitializing,
        }
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn node(&self) -> Bytes {
        self.node.clone()
    }

    fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    fn refresh_stats(&self) {
        let mut control = self.control.borrow_mut();
        control.refresh_stats();
        let until_expiry = control.first_certificate_expires_in();
        drop(control);
        self.stats
            .refresh(self.lifecycle(), self.started.elapsed(), until_expiry);
    }

    fn clusters(&self) -> Vec<ListedCluster> {
        let control = self.control.borrow();
        let listed = |cluster: Arc<crate::upstream::cluster::Cluster>| ListedCluster {
            added_via_api: !control.is_static_cluster(&cluster.name),
            cluster,
        };
        control.shared().clusters.all().into_iter().map(listed).collect()
    }

    fn listeners(&self) -> Vec<BoundListener> {
        let bound = self.control.borrow().bound_listeners();
        bound
            .into_iter()
            .map(|(name, address)| BoundListener { name, address })
            .collect()
    }

    fn unready(&self) -> Vec<UnreadyListener> {
        let unready = self.control.borrow().unready_listeners();
        let unready = unready.into_iter().map(|listener| UnreadyListener {
            name: listener.name,
            routes: listener.routes,
            secrets: listener.secrets,
            filters: listener.filters,
        });
        unready.collect()
    }

    fn config_dump(&self) -> ConfigDump {
        self.control.borrow().config_dump()
    }

    fn problems(&self) -> Problems {
        let control = self.control.borrow();
        Problems {
            listed: control.problems(),
            snapshot: control.snapshot_status(),
        }
    }

    fn name_table(&self) -> Option<Arc<NameTable>> {
        self.control.borrow().name_table()
    }

    fn history(&self) -> Vec<Summary> {
        self.control.borrow().history()
    }

    fn differences(&self, from: u64, to: u64) -> Result<Vec<Difference>, UnknownVersion> {
        self.control.borrow().differences(from, to)
    }

    /// Connections are told to go at once; a graceful drain lets listeners accept for the drain time, any other closes them now.
    fn drain_listeners(&self, request: DrainListeners) {
        let DrainListeners {
            graceful,
            inbound_only,
            skip_exit,
        } = request;
        self.control.borrow().drain_connections(inbound_only);
        if skip_exit {
            return;
        }
        if !graceful {
            self.control.borrow().close_listeners(inbound_only);
            return;
        }
        let (control, drain_time) = (self.control.clone(), self.options.drain_time);
        worker::spawn(async move {
            tokio::time::sleep(drain_time).await;
            control.borrow().close_listeners(inbound_only);
        });
    }

    fn quit(&self) {
        self.draining.set(true);
        self.quit.notify_one();
    }
}
