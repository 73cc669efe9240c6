//! The connections to servers of configuration, counted as what they are to users: connections of a static cluster
//! (`cluster.xds-grpc.upstream_cx_total`, on which Istio's dashboards alert).
use std::sync::Arc;

use xds_client::{Counters, Handle};

use crate::stats::{Counter, Gauge, Registry};
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
        let add = |counter: &Counter, of| counter.add(since(of, before, now));
        add(&self.emptied_sets, |counters| counters.emptied_sets);
        add(&self.expired_resources, |counters| counters.expired);
        add(&self.unrequested_resources, |counters| counters.unrequested);
    }
}

/// How much a number has grown.
fn since(of: fn(&Counters) -> u64, before: &Counters, now: &Counters) -> u64 {
    of(now).saturating_sub(of(before))
}

/// A call is a request; it waits for its connection, so it was pending. Source: Envoy docs, cluster manager, cluster stats.
fn add(stats: &ClusterStats, is_http2: bool, before: &Counters, now: &Counters) {
    let add = |counter: &Counter, of| counter.add(since(of, before, now));
    let of_version = if is_http2 {
        &stats.upstream_cx_http2_total
    } else {
        &stats.upstream_cx_http1_total
    };
    add(&stats.upstream_cx_total, |counters| counters.connect_attempts);
    add(of_version, |counters| counters.connects);
    add(&stats.upstream_cx_connect_fail, |counters| {
        counters.connect_failures
    });
    add(&stats.upstream_cx_rx_bytes_total, |counters| {
        counters.received_bytes
    });
    add(&stats.upstream_cx_tx_bytes_total, |counters| counters.sent_bytes);
    add(&stats.upstream_rq_total, |counters| counters.calls);
    add(&stats.upstream_rq_pending_total, |counters| counters.calls);
    // Several clients may share a cluster, so gauges move by differences too.
    let gauge = |gauge: &Gauge, of| {
        gauge.add(since(of, before, now));
        gauge.sub(since(of, now, before));
    };
    gauge(&stats.upstream_cx_active, |counters| counters.open_connections);
    gauge(&stats.upstream_rq_active, |counters| counters.open_calls);
}
