//! The control plane over a real connection, as a delta client sees it.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status;
use outrigger_demo::control_plane::{
    CLUSTER, ControlPlane, ENDPOINTS, LISTENER, NAME_TABLE, Recording, Snapshot, Verdict,
};
use outrigger_demo::strip::without_istio_filters;
use prost::Message;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(5);
const V1: &str = "outbound|9999|v1|bill-service.default.svc.cluster.local";

struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: tonic::Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    async fn connect(control: &ControlPlane) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        control.listen(listener).unwrap();
        let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{address}"))
            .await
            .unwrap();
        let (requests, receiver) = mpsc::channel(16);
        let outgoing = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let node = Node {
            id: "sidecar~10.20.0.11~front.default~default.svc.cluster.local".to_owned(),
            ..Node::default()
        };
        let first = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: CLUSTER.to_owned(),
            ..Default::default()
        };
        requests.send(first).await.unwrap();
        let responses = client
            .delta_aggregated_resources(outgoing)
            .await
            .unwrap()
            .into_inner();
        Self { requests, responses }
    }

    async fn ask(&self, type_url: &str, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let request = DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names,
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }

    async fn answer(&self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(|message| Status {
                code: 3,
                message: message.to_owned(),
                details: Vec::new(),
            }),
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> DeltaDiscoveryResponse {
        tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }
}

fn captures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/bill")
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response
        .resources
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

#[tokio::test]
async fn a_capture_is_served_unchanged_and_unknown_endpoints_are_empty() {
    let control = ControlPlane::new();
    let snapshot = Snapshot::read(&captures().join("front")).unwrap();
    control.serve("front", snapshot.clone());
    let mut client = Client::connect(&control).await;
    let clusters = client.next().await;
    let sent: Vec<_> = clusters
        .resources
        .iter()
        .map(|resource| resource.resource.clone().unwrap())
        .collect();
    let captured: Vec<_> = snapshot
        .all(CLUSTER)
        .iter()
        .map(|named| named.any.clone())
        .collect();
    assert_eq!(sent, captured);
    assert!(
        clusters
            .resources
            .iter()
            .all(|resource| resource.version.is_empty())
    );

    client.ask(ENDPOINTS, &[V1, "unknown"]).await;
    let endpoints = client.next().await;
    assert_eq!(names(&endpoints), [V1, "unknown"]);
    let unknown = endpoints.resources[1].resource.clone().unwrap();
    let empty = ClusterLoadAssignment {
        cluster_name: "unknown".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        ClusterLoadAssignment::decode(unknown.value.as_slice()).unwrap(),
        empty
    );
}

#[tokio::test]
async fn an_edit_is_pushed_and_its_verdict_is_kept() {
    let control = ControlPlane::new();
    control.serve("front", Snapshot::read(&captures().join("front")).unwrap());
    let mut client = Client::connect(&control).await;
    client.next().await;
    client.ask(ENDPOINTS, &[V1]).await;
    client.next().await;
    for (error, expected) in [(None, Verdict::Ack), (Some("no"), Verdict::Nack("no".to_owned()))] {
        let clear = |endpoints: &mut ClusterLoadAssignment| endpoints.endpoints.clear();
        let nonce = control.edit("front", ENDPOINTS, V1, clear).unwrap();
        let pushed = client.next().await;
        assert_eq!((names(&pushed), &pushed.nonce), (vec![V1], &nonce));
        client.answer(&pushed, error).await;
        assert_eq!(control.verdict(&nonce, PATIENCE).await.unwrap(), expected);
    }
    assert_eq!(
        control.journal().refusals("front"),
        [(ENDPOINTS.to_owned(), "no".to_owned())]
    );
}

#[tokio::test]
async fn a_recording_is_replayed_byte_for_byte() {
    let recording = Recording::read(&captures().join("front-cutover.bin")).unwrap();
    let control = ControlPlane::new();
    control.replay("front", recording.clone());
    let mut client = Client::connect(&control).await;
    let connect = &recording.steps[0].responses;
    assert_eq!(client.next().await, connect[0]);
    client.ask(LISTENER, &[]).await;
    assert_eq!(client.next().await, connect[1]);
    let unasked = client.next().await;
    assert_eq!((unasked.type_url.as_str(), &unasked), (NAME_TABLE, &connect[2]));

    let answering = async {
        for expected in &recording.steps[1].responses {
            let pushed = client.next().await;
            assert_eq!(pushed, *expected);
            client.answer(&pushed, None).await;
        }
    };
    let (sent, ()) = tokio::join!(control.step("front", PATIENCE), answering);
    let verdicts: Vec<_> = sent.unwrap().iter().map(|sent| sent.verdict.is_some()).collect();
    // Routes were not subscribed to, so no answer to them was due.
    assert_eq!(verdicts.len(), 3);
    assert_eq!(verdicts[..2], [true, true]);
}

#[test]
fn stripping_changes_nothing_but_the_filters() {
    let without = |folder: &str| {
        Snapshot::read(&captures().join(folder))
            .unwrap()
            .map(without_istio_filters)
    };
    for folder in ["front", "bill-v1", "bill-v2"] {
        let captured = Snapshot::read(&captures().join(folder)).unwrap();
        let stripped = without(folder);
        for type_url in [CLUSTER, LISTENER] {
            assert_eq!(captured.all(type_url).len(), stripped.all(type_url).len());
            for (before, after) in captured.all(type_url).iter().zip(stripped.all(type_url)) {
                // A field that the schema does not know would be lost on the way.
                let length = match type_url {
                    CLUSTER => {
                        reencoded::<envoy_types::pb::envoy::config::cluster::v3::Cluster>(&before.any.value)
                    }
                    _ => {
                        reencoded::<envoy_types::pb::envoy::config::listener::v3::Listener>(&before.any.value)
                    }
                };
                assert_eq!(length, before.any.value.len(), "{}", before.name);
                assert_eq!(before.name, after.name);
                assert_eq!(
                    without_istio_filters(after.any.clone()),
                    after.any,
                    "{} twice",
                    after.name
                );
            }
        }
    }
}

fn reencoded<M: Message + Default>(bytes: &[u8]) -> usize {
    M::decode(bytes).unwrap().encoded_len()
}
