//! Zipkin and the OpenTelemetry collector are clusters as any other: there, and with their hosts.

use e2e::mesh::{Mesh, Plan, Scenario};

use super::CLIENT;
use crate::pair::{Pair, assert_nothing_refused, for_like_pairs};

for_like_pairs!(the_providers_of_traces_are_there);

fn the_providers_of_traces_are_there(pair: Pair) {
    let mesh = Mesh::start(&Plan::new(Scenario::Traffic, pair.front, pair.bill).only(&["bill-v1"]));
    assert_nothing_refused(&mesh);
    for pod in [CLIENT, "bill-v1"] {
        let clusters = mesh.admin(pod, "/clusters").body;
        for (name, host) in [
            (
                "outbound|9411||zipkin.istio-system.svc.cluster.local",
                "10.20.2.1:9411",
            ),
            (
                "outbound|4317||otel-collector.istio-system.svc.cluster.local",
                "10.20.2.2:4317",
            ),
        ] {
            let line = format!("{name}::{host}::health_flags::healthy");
            assert!(
                clusters.lines().any(|got| got == line),
                "{pod}: no {line} in {clusters}"
            );
        }
    }
}
