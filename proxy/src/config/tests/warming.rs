//! Clusters go in use when what they wait for has come, not at the next tick.
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::*;

/// A static cluster whose hosts send one byte when they are asked how they are.
fn bootstrap(port: u16) -> (Bootstrap, Vec<u8>) {
    let text = format!(
        "static_resources: {{ clusters: [ {{ name: c, type: STATIC, connect_timeout: 1s, health_checks: [ {{ timeout: 60s, interval: 60s, \
         unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {{ receive: [ {{ text: \"61\" }} ] }} }} ], load_assignment: {{ \
         cluster_name: c, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, \
         port_value: {port} }} }} }} }} ] }} ] }} }} ] }}"
    );
    let (message, encoded) = parse_bootstrap("b.yaml", text.as_bytes(), None, UnknownFields::Refuse).unwrap();
    let bootstrap = outrigger_model::decode::bootstrap(message).unwrap().value;
    (bootstrap, encoded)
}

#[tokio::test]
async fn a_cluster_goes_in_use_as_soon_as_its_hosts_have_been_checked() {
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = host.local_addr().unwrap().port();
    let tasks = LocalSet::new();
    tasks
        .run_until(async {
            let (bootstrap, encoded) = bootstrap(port);
            let mut control = control_with(bootstrap, encoded, true);
            let is_in_use = |control: &Control| control.shared().clusters.cell("c").load().is_some();
            assert!(!is_in_use(&control));
            let (mut asked, _) = host.accept().await.unwrap();
            control.resettle();
            assert!(!is_in_use(&control));
            asked.write_all(b"a").await.unwrap();
            let warmed = control.warmed();
            crate::time::within(Some(Duration::from_secs(30)), warmed.notified())
                .await
                .unwrap();
            control.resettle();
            assert!(is_in_use(&control));
        })
        .await;
}
