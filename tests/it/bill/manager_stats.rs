//! What cluster manager, listener manager and server say of themselves: Envoy's names and, for the same story, Envoy's numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::mesh::{Mesh, PATIENCE, Plan, Scenario};
use e2e::proxy::Kind;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use outrigger_demo::control_plane::{CLUSTER, LISTENER, Verdict};

use super::{linger, rename_server};

/// Numbers that both must show: Istio's inclusion list keeps these (contract §2.2), and dashboards and alerts read them.
const SAME: &[&str] = &[
    "cluster_manager.active_clusters",
    "cluster_manager.cds.update_attempt",
    "cluster_manager.cds.update_failure",
    "cluster_manager.cds.update_rejected",
    "cluster_manager.cds.update_success",
    "cluster_manager.cluster_added",
    "cluster_manager.cluster_modified",
    "cluster_manager.cluster_removed",
    "cluster_manager.warming_clusters",
    "listener_manager.lds.update_attempt",
    "listener_manager.lds.update_failure",
    "listener_manager.lds.update_rejected",
    "listener_manager.lds.update_success",
    "listener_manager.listener_added",
    "listener_manager.listener_create_failure",
    "listener_manager.listener_create_success",
    "listener_manager.listener_in_place_updated",
    "listener_manager.listener_modified",
    "listener_manager.listener_removed",
    "listener_manager.listener_stopped",
    "listener_manager.total_listeners_active",
    "listener_manager.total_listeners_warming",
    "listener_manager.workers_started",
    "cluster.xds-grpc.upstream_cx_active",
    "cluster.xds-grpc.upstream_cx_connect_fail",
    "cluster.xds-grpc.upstream_cx_http2_total",
    "cluster.xds-grpc.upstream_cx_total",
    "cluster.xds-grpc.upstream_rq_active",
    "cluster.xds-grpc.upstream_rq_pending_total",
    "cluster.xds-grpc.upstream_rq_total",
    "server.concurrency",
    "server.hot_restart_epoch",
    "server.live",
    "server.parent_connections",
    "server.state",
    "server.total_connections",
];

/// What both must count, each to its own number.
const PRESENT: &[&str] = &[
    "cluster_manager.cds.version",
    "listener_manager.lds.version",
    "cluster_manager.cds.update_time",
    "listener_manager.lds.update_time",
    "cluster.xds-grpc.upstream_cx_rx_bytes_total",
    "cluster.xds-grpc.upstream_cx_tx_bytes_total",
    "server.days_until_first_cert_expiring",
    "server.memory_allocated",
    "server.memory_heap_size",
    "server.memory_physical_size",
];

fn stats(mesh: &Mesh) -> BTreeMap<String, String> {
    let text = mesh.admin("front", "/stats").body;
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_managers_count_what_envoys_count() {
    let stories = [Kind::Envoy, Kind::Outrigger].map(|kind| {
        let mesh = Mesh::start(&Plan::new(Scenario::Bill, kind, Kind::Outrigger));
        linger(Duration::from_millis(1500));
        let started = stats(&mesh);
        let change = |listener: &mut Listener| rename_server(listener, "renamed");
        edit(&mesh, LISTENER, "0.0.0.0_9999", change);
        edit(&mesh, CLUSTER, "PassthroughCluster", |cluster: &mut Cluster| {
            cluster.connect_timeout.get_or_insert_default().seconds += 1;
        });
        linger(Duration::from_millis(1500));
        (started, stats(&mesh))
    });
    let [envoy, outrigger] = stories;
    for (when, envoy, outrigger) in [
        ("at the start", envoy.0, outrigger.0),
        ("after a change", envoy.1, outrigger.1),
    ] {
        let differences: Vec<String> = SAME
            .iter()
            .filter(|name| envoy.get(**name) != outrigger.get(**name))
            .map(|name| {
                format!(
                    "{name}: Envoy {:?}, outrigger {:?}",
                    envoy.get(*name),
                    outrigger.get(*name)
                )
            })
            .collect();
        assert!(differences.is_empty(), "{when}: {differences:#?}");
        for name in PRESENT {
            for (who, stats) in [("Envoy", &envoy), ("outrigger", &outrigger)] {
                let value: Option<u64> = stats.get(*name).and_then(|value| value.parse().ok());
                assert!(
                    value.is_some_and(|value| value > 0),
                    "{when}: {who}: {name}: {value:?}"
                );
            }
        }
    }
}

fn edit<M: prost::Message + Default>(mesh: &Mesh, kind: &str, name: &str, change: impl FnOnce(&mut M)) {
    let nonce = mesh
        .control
        .edit("front", kind, name, change)
        .expect("front has it");
    let verdict = mesh
        .block_on(mesh.control.verdict(&nonce, PATIENCE))
        .expect("an answer");
    assert_eq!(verdict, Verdict::Ack);
}
