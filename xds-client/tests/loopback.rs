//! The client against a tonic server in the same process: TCP and Unix socket, a server that dies and comes back.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    Resource as PbResource,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use envoy_types::pb::google::protobuf::Any;
use futures_util::{Stream, StreamExt, stream};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use xds_client::{
    Address, Backoff, Client, ConnectionEvent, Handle, Handler, Method, Node, Protocol, Rejection,
    Subscriptions, Transport, Update,
};

const CDS: &str = "t/cds";
const SDS: &str = "t/sds";
const PATIENCE: Duration = Duration::from_secs(20);

/// What reached the server. A delta stream answers its first request of a type with one resource "r" of version "".
enum Seen {
    Delta(Box<DeltaDiscoveryRequest>, Option<String>),
    Sotw(Box<DiscoveryRequest>),
}

#[derive(Clone)]
struct ControlPlane {
    seen: mpsc::Sender<Seen>,
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for ControlPlane {
    type StreamAggregatedResourcesStream = Outgoing<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outgoing<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Outgoing<DiscoveryResponse>>, Status> {
        Ok(Response::new(sotw(self.seen.clone(), request.into_inner())))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Outgoing<DeltaDiscoveryResponse>>, Status> {
        let header = request
            .metadata()
            .get("clusterid")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let seen = self.seen.clone();
        let responses = request.into_inner().filter_map(move |request| {
            let (seen, header) = (seen.clone(), header.clone());
            async move {
                let request = request.ok()?;
                let is_first = request.response_nonce.is_empty();
                let type_url = request.type_url.clone();
                seen.send(Seen::Delta(Box::new(request), header)).await.ok()?;
                let any = Any {
                    type_url: type_url.clone(),
                    value: vec![7; 5_000_000],
                };
                let resource = PbResource {
                    name: "r".into(),
                    resource: Some(any),
                    ..PbResource::default()
                };
                is_first.then(|| {
                    let nonce = "n1".to_owned();
                    let resources = vec![resource];
                    Ok(DeltaDiscoveryResponse {
                        type_url,
                        nonce,
                        resources,
                        ..DeltaDiscoveryResponse::default()
                    })
                })
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for ControlPlane {
    type DeltaSecretsStream = Outgoing<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Outgoing<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Outgoing<DeltaDiscoveryResponse>>, Status> {
        Err(Status::unimplemented("as Istio's agent"))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Outgoing<DiscoveryResponse>>, Status> {
        Ok(Response::new(sotw(self.seen.clone(), request.into_inner())))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("as Istio's agent"))
    }
}

/// Answers a request without a nonce with a resource for each name.
fn sotw(seen: mpsc::Sender<Seen>, requests: Streaming<DiscoveryRequest>) -> Outgoing<DiscoveryResponse> {
    Box::pin(requests.filter_map(move |request| {
        let seen = seen.clone();
        async move {
            let request = request.ok()?;
            let (type_url, names) = (request.type_url.clone(), request.resource_names.clone());
            let is_first = request.response_nonce.is_empty();
            seen.send(Seen::Sotw(Box::new(request))).await.ok()?;
            let body = |name: &String| {
                let length = u8::try_from(name.len()).unwrap();
                [&[0x0a, length], name.as_bytes()].concat()
            };
            let resources = names
                .iter()
                .map(|n| Any {
                    type_url: type_url.clone(),
                    value: body(n),
                })
                .collect();
            is_first.then(|| {
                let (version_info, nonce) = ("v1".to_owned(), "n1".to_owned());
                Ok(DiscoveryResponse {
                    version_info,
                    nonce,
                    type_url,
                    resources,
                    ..DiscoveryResponse::default()
                })
            })
        }
    }))
}

/// A control plane with a runtime of its own, so that its end takes its connections along.
struct Serving(Option<Runtime>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

async fn serve(address: &Address, seen: mpsc::Sender<Seen>) -> Serving {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (bound_sender, bound) = oneshot::channel();
    let (address, plane) = (address.clone(), ControlPlane { seen });
    runtime.spawn(async move {
        match address {
            Address::Tcp { host, port } => {
                let listener = TcpListener::bind((host.as_str(), port)).await.unwrap();
                bound_sender.send(()).unwrap();
                let incoming =
                    stream::unfold(listener, |l| async { Some((l.accept().await.map(|a| a.0), l)) });
                let service = AggregatedDiscoveryServiceServer::new(plane);
                Server::builder()
                    .serve_with_incoming(service, incoming)
                    .await
                    .unwrap();
            }
            Address::Unix(path) => {
                let _ = std::fs::remove_file(&path);
                let listener = UnixListener::bind(path).unwrap();
                bound_sender.send(()).unwrap();
                let incoming =
                    stream::unfold(listener, |l| async { Some((l.accept().await.map(|a| a.0), l)) });
                let service = SecretDiscoveryServiceServer::new(plane);
                Server::builder()
                    .serve_with_incoming(service, incoming)
                    .await
                    .unwrap();
            }
        }
    });
    bound.await.expect("the control plane could not bind");
    Serving(Some(runtime))
}

struct Owner {
    updates: mpsc::Sender<Update>,
    events: mpsc::Sender<ConnectionEvent>,
}

impl Handler for Owner {
    fn on_update(&mut self, update: &Update, _: &mut Subscriptions) -> Result<(), Vec<Rejection>> {
        self.updates.try_send(update.clone()).unwrap();
        Ok(())
    }

    fn on_connection(&mut self, event: ConnectionEvent) {
        self.events.try_send(event).unwrap();
    }
}

struct Fixture {
    handle: Handle,
    client: JoinHandle<()>,
    updates: mpsc::Receiver<Update>,
    events: mpsc::Receiver<ConnectionEvent>,
}

fn start(address: &Address, protocol: Protocol, wishes: Subscriptions) -> Fixture {
    let transport = Transport::new(address.clone())
        .unwrap()
        .with_metadata("ClusterID", "Kubernetes")
        .unwrap();
    let node = Node {
        id: "me".into(),
        ..Node::default()
    };
    let (client, handle) = Client::new(transport, protocol, node, wishes, || fastrand::u64(..));
    let client = client.with_backoff(Backoff::new(Duration::from_millis(20), Duration::from_millis(50)));
    let (updates_sender, updates) = mpsc::channel(64);
    let (events_sender, events) = mpsc::channel(4096);
    let owner = Owner {
        updates: updates_sender,
        events: events_sender,
    };
    // Spawning also proves that the future is `Send` when the handler is.
    let client = tokio::spawn(async move {
        client.run(owner).await;
    });
    Fixture {
        handle,
        client,
        updates,
        events,
    }
}

async fn next<T>(receiver: &mut mpsc::Receiver<T>) -> T {
    tokio::time::timeout(PATIENCE, receiver.recv())
        .await
        .expect("nothing came in time")
        .unwrap()
}

async fn next_delta(seen: &mut mpsc::Receiver<Seen>) -> (DeltaDiscoveryRequest, Option<String>) {
    match next(seen).await {
        Seen::Delta(request, header) => (*request, header),
        Seen::Sotw(request) => panic!("{request:?}"),
    }
}

async fn next_sotw(seen: &mut mpsc::Receiver<Seen>) -> DiscoveryRequest {
    match next(seen).await {
        Seen::Sotw(request) => *request,
        Seen::Delta(request, _) => panic!("{request:?}"),
    }
}

async fn disconnected(events: &mut mpsc::Receiver<ConnectionEvent>, connected: bool) -> String {
    loop {
        match next(events).await {
            ConnectionEvent::Disconnected {
                was_connected,
                reason,
                ..
            } if was_connected == connected => return reason,
            _ => {}
        }
    }
}

fn wildcard(type_url: &str) -> Subscriptions {
    let mut wishes = Subscriptions::default();
    wishes.wildcard(type_url);
    wishes
}

fn sds() -> Protocol {
    Protocol::Sotw(Method::from_static(
        "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
    ))
}

async fn free_port() -> Address {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    Address::Tcp {
        host: "127.0.0.1".into(),
        port,
    }
}

#[tokio::test]
async fn delta_over_tcp_survives_the_death_of_the_control_plane() {
    let address = free_port().await;
    let (seen_sender, mut seen) = mpsc::channel(64);
    let mut fixture = start(&address, Protocol::delta_ads(), wildcard(CDS));
    // Nobody is there yet.
    let reason = disconnected(&mut fixture.events, false).await;
    assert!(
        reason.contains(&address.to_string()) && reason.contains("refused"),
        "{reason}"
    );

    let server = serve(&address, seen_sender.clone()).await;
    let (first, header) = next_delta(&mut seen).await;
    assert_eq!(
        (first.node.unwrap().id.as_str(), header.as_deref()),
        ("me", Some("Kubernetes"))
    );
    assert!(first.initial_resource_versions.is_empty());
    let update = next(&mut fixture.updates).await;
    assert_eq!(
        update.added[0].any.value.len(),
        5_000_000,
        "above tonic's default limit of 4 MiB"
    );
    let (ack, _) = next_delta(&mut seen).await;
    assert_eq!(
        (ack.response_nonce.as_str(), ack.error_detail, ack.node),
        ("n1", None, None)
    );

    // A change from outside, on the running stream.
    fixture
        .handle
        .set_names(SDS, BTreeSet::from(["r".to_owned()]))
        .unwrap();
    let (change, _) = next_delta(&mut seen).await;
    assert_eq!(
        (change.type_url.as_str(), change.resource_names_subscribe),
        (SDS, vec!["r".to_owned()])
    );
    next(&mut fixture.updates).await;
    next_delta(&mut seen).await;

    drop(server);
    let reason = disconnected(&mut fixture.events, true).await;
    assert!(reason.contains(&address.to_string()), "{reason}");
    disconnected(&mut fixture.events, false).await;
    let _server = serve(&address, seen_sender).await;
    let (again, _) = next_delta(&mut seen).await;
    assert!(again.node.is_some());
    assert_eq!(
        again.initial_resource_versions,
        HashMap::from([("r".to_owned(), String::new())])
    );
    let (again, _) = next_delta(&mut seen).await;
    assert_eq!(
        (again.type_url.as_str(), again.resource_names_subscribe),
        (SDS, vec!["r".to_owned()])
    );
    assert_eq!(
        again.initial_resource_versions,
        HashMap::from([("r".to_owned(), String::new())])
    );
    next(&mut fixture.updates).await;
    let counters = fixture.handle.counters();
    assert_eq!((counters.connects, counters.disconnects), (2, 1));
    assert_eq!(
        counters.connect_attempts,
        counters.connects + counters.connect_failures
    );
    assert_eq!(
        (counters.calls, counters.open_calls, counters.open_connections),
        (2, 1, 1)
    );
    assert!(counters.received_bytes > 15_000_000, "{counters:?}");
    assert!((1..100_000).contains(&counters.sent_bytes), "{counters:?}");
    assert!(
        counters.connect_failures >= 2 && counters.updates_accepted >= 2,
        "{counters:?}"
    );

    fixture.client.abort();
    let _ = fixture.client.await;
    assert!(fixture.handle.wildcard(CDS).is_err());
    let closed = async {
        while fixture.handle.counters().open_connections > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("the connection stays open");
}

#[tokio::test]
async fn state_of_the_world_over_tcp() {
    let address = free_port().await;
    let (seen_sender, mut seen) = mpsc::channel(64);
    let _server = serve(&address, seen_sender).await;
    let mut fixture = start(&address, Protocol::sotw_ads(), wildcard(CDS));
    assert_eq!(next_sotw(&mut seen).await.resource_names, Vec::<String>::new());
    assert!(next(&mut fixture.updates).await.full_state);
    let ack = next_sotw(&mut seen).await;
    assert_eq!(
        (ack.version_info.as_str(), ack.response_nonce.as_str()),
        ("v1", "n1")
    );
}

#[tokio::test]
async fn secrets_over_a_unix_socket_survive_the_death_of_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Unix(folder.path().join("socket"));
    let (seen_sender, mut seen) = mpsc::channel(64);
    let mut wishes = Subscriptions::default();
    wishes.set_names(SDS, ["ROOTCA", "default"].map(str::to_owned).into());
    let mut fixture = start(&address, sds(), wishes);
    disconnected(&mut fixture.events, false).await;
    for expected_version in ["", "v1"] {
        let server = serve(&address, seen_sender.clone()).await;
        let first = next_sotw(&mut seen).await;
        assert_eq!(first.resource_names, ["ROOTCA", "default"]);
        assert_eq!(
            (first.version_info.as_str(), first.node.is_some()),
            (expected_version, true)
        );
        let update = next(&mut fixture.updates).await;
        let names: Vec<_> = update.added.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["ROOTCA", "default"]);
        assert_eq!(next_sotw(&mut seen).await.response_nonce, "n1");
        drop(server);
        disconnected(&mut fixture.events, true).await;
    }
}
