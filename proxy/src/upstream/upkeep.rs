//! What has to be done for a cluster from time to time: on the control thread, in tasks that end with the cluster.
//!
//! A cluster may be made on a worker, at its first use; the control thread finds it at its next tick.
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::cluster::Cluster;
use super::{dns, health_check};
use crate::time::{self, Instant};
use crate::worker;

/// Weights of new hosts change in so many steps.
const STEPS: u32 = 50;
/// Not more often than this.
const SHORTEST_STEP: Duration = Duration::from_millis(100);

/// Begins to look after `cluster`, once.
pub(crate) fn start(cluster: &Arc<Cluster>) {
    if cluster.is_kept_up.swap(true, Ordering::Relaxed) {
        return;
    }
    dns::start(cluster);
    health_check::start(cluster);
    if cluster.config.slow_start.is_some() {
        worker::spawn(slow_start(Arc::downgrade(cluster)));
    }
    if let Some(changes) = cluster.zone_changes() {
        worker::spawn(zones(Arc::downgrade(cluster), changes));
    }
    if let Some(detector) = cluster.outlier() {
        worker::spawn(outlier(Arc::downgrade(cluster), detector.interval()));
    }
}

/// The cluster while it is in use.
pub(super) fn in_use(cluster: &Weak<Cluster>) -> Option<Arc<Cluster>> {
    cluster.upgrade().filter(|cluster| !cluster.is_retired())
}

/// Shares the load anew while weights change with time.
async fn slow_start(cluster: Weak<Cluster>) {
    let Some(mut changes) = in_use(&cluster).map(|cluster| cluster.host_changes()) else {
        return;
    };
    while let Some(now) = in_use(&cluster) {
        let step = now
            .config
            .slow_start
            .map_or(SHORTEST_STEP, |slow| slow.window / STEPS);
        let step = step.max(SHORTEST_STEP);
        if now.hosts().balance.changes_for().is_none() {
            drop(now);
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        drop(now);
        time::sleep(step).await;
        if let Some(now) = in_use(&cluster) {
            now.rebalance();
        }
    }
}

/// Shares the load anew when this proxy's peers are others, and once for what changed before.
async fn zones(cluster: Weak<Cluster>, mut changes: watch::Receiver<()>) {
    loop {
        let Some(now) = in_use(&cluster) else { return };
        now.rebalance();
        drop(now);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Looks at all hosts once an interval.
async fn outlier(cluster: Weak<Cluster>, interval: Duration) {
    loop {
        time::sleep(interval).await;
        let Some(cluster) = in_use(&cluster) else { return };
        if let Some(detector) = cluster.outlier()
            && detector.tick(&cluster.hosts(), Instant::now())
        {
            cluster.rebalance();
        }
    }
}
