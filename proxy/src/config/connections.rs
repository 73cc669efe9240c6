//! The connections to servers of configuration, counted as what they are to users: connections of a static cluster
//! (`cluster.xds-grpc.upstream_cx_total`, on which Istio's dashboards alert).
use std::sync::Arc;

use xds_client::{Counters, Handle};

use crate::stats::{Counter, Registry};
use crate::upstream::cluster_table::ClusterCell;
use crate::upstream::stats::ClusterStats;

/// All of them; control thread only.
#[derive(Debug)]
pub(super) struct Connections {
    open: Vec<Connection>,
    oddities: Oddities,
}

/// What a control plane may do and hardly ever means. These names are our own.
#[derive(Debug)]
struct Oddities {
    /// A state-of-the-world response took everything of a type away.
    emptied_sets: Counter,
    /// A time to live was over.
    expired_resources: Counter,
    /// Nobody asked for it.
    unrequested_resources: Counter,
}

/// One client and the cluster in whose name it connects.
#[derive(Debug)]
struct Connection {
    handle: Handle,
    cluster: Arc<ClusterCell>,
    is_http2: bool,
    /// What is counted already.
    seen: Counters,
}

impl Connections {
    /// None yet.
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name: &str| registry.counter(format!("control_plane.{name}"));
        Self {
            open: Vec::new(),
            oddities: Oddities {
                emptied_sets: counter("emptied_sets"),
                expired_resources: counter("expired_resources"),
                unrequested_resources: counter("unrequested_resources"),
            },
        }
    }

    /// From now on what `handle`'s client does counts for `cluster`.
    pub(super) fn count(&mut self, handle: Handle, cluster: Arc<ClusterCell>, is_http2: bool) {
        self.open.push(Connection {
            handle,
            cluster,
            is_http2,
            seen: Counters::default(),
        });
    }

    /// Adds what happened since the last call.
    pub(super) fn refresh(&mut self) {
        for connection in &mut self.open {
            let Some(cluster) = connection.cluster.load() else {
                continue;
            };
            let now = connection.handle.counters();
            self.oddities.add(&connection.seen, &now);
            add(&cluster.stats, connection.is_http2, &connection.seen, &now);
            connection.seen = now;
        }
    }
}

impl Oddities {
    fn add(&self, before: &Counters, now: &Counters) {
        let add = |counter: &Counter, of: fn(&Counters) -> u64| {
            counter.add(of(now).saturating_sub(of(before)));
        };
        add(&self.emptied_sets, |counters| counters.emptied_sets);
        add(&self.expired_resources, |counters| counters.expired);
        add(&self.unrequested_resources, |counters| counters.unrequested);
    }
}

/// A call is a request; it waits for its connection, so it was pending. Source: Envoy docs, cluster manager, cluster stats.
fn add(stats: &ClusterStats, is_http2: bool, before: &Counters, now: &Counters) {
    stats
        .upstream_cx_total
        .add(now.connect_attempts.saturating_sub(before.connect_attempts));
    let of_version = if is_http2 {
        &stats.upstream_cx_http2_total
    } else {
        &stats.upstream_cx_http1_total
    };
    of_version.add(now.connects.saturating_sub(before.connects));
    stats
        .upstream_cx_connect_fail
        .add(now.connect_failures.saturating_sub(before.connect_failures));
    stats
        .upstream_cx_rx_bytes_total
        .add(now.received_bytes.saturating_sub(before.received_bytes));
    stats
        .upstream_cx_tx_bytes_total
        .add(now.sent_bytes.saturating_sub(before.sent_bytes));
    let calls = now.calls.saturating_sub(before.calls);
    stats.upstream_rq_total.add(calls);
    stats.upstream_rq_pending_total.add(calls);
    // Several clients may share a cluster, so gauges move by differences too.
    let gauge = |gauge: &crate::stats::Gauge, before: u64, now: u64| {
        gauge.add(now.saturating_sub(before));
        gauge.sub(before.saturating_sub(now));
    };
    gauge(
        &stats.upstream_cx_active,
        before.open_connections,
        now.open_connections,
    );
    gauge(&stats.upstream_rq_active, before.open_calls, now.open_calls);
}
