//! Control planes that flood, repeat themselves, send what is too large, or refuse to be refused; and services of one type.
#![allow(clippy::unwrap_used)]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_server::{
    ClusterDiscoveryService, ClusterDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::Any;
use futures_util::{Stream, StreamExt, stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use xds_client::{
    Address, Backoff, Client, ConnectionEvent, Handle, Handler, Method, Node, Protocol, Rejection,
    Subscriptions, Transport, Update,
};

const TYPE: &str = "t/things";
const PATIENCE: Duration = Duration::from_secs(60);

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a stream of requests is answered with, the `authorization` header first.
type Script =
    Arc<dyn Fn(Option<String>, Streaming<DiscoveryRequest>) -> Outgoing<DiscoveryResponse> + Send + Sync>;

struct Plane(Script);

#[tonic::async_trait]
impl ClusterDiscoveryService for Plane {
    type StreamClustersStream = Outgoing<DiscoveryResponse>;
    type DeltaClustersStream = Outgoing<DeltaDiscoveryResponse>;

    async fn stream_clusters(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Outgoing<DiscoveryResponse>>, Status> {
        let header = request.metadata().get("authorization");
        let header = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Response::new((self.0)(header, request.into_inner())))
    }

    async fn delta_clusters(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Outgoing<DeltaDiscoveryResponse>>, Status> {
        let answers = request.into_inner().filter_map(|request| async {
            let request = request.ok()?;
            request.response_nonce.is_empty().then(|| {
                Ok(DeltaDiscoveryResponse {
                    type_url: request.type_url,
                    nonce: "1".into(),
                    removed_resources: vec!["increments".into()],
                    ..DeltaDiscoveryResponse::default()
                })
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_clusters(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}

async fn serve(script: Script) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = stream::unfold(listener, |l| async { Some((l.accept().await.map(|a| a.0), l)) });
    let service = ClusterDiscoveryServiceServer::new(Plane(script)).max_encoding_message_size(usize::MAX);
    // How much of what we say fits until somebody reads it.
    let server = Server::builder()
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535);
    tokio::spawn(async move { server.serve_with_incoming(service, incoming).await });
    Address::Tcp {
        host: "127.0.0.1".into(),
        port,
    }
}

fn response(nonce: u64, names: &[&str], padding: usize) -> DiscoveryResponse {
    let any = |name: &&str| {
        let length = u8::try_from(name.len()).unwrap();
        let mut value = [&[0x0a, length], name.as_bytes()].concat();
        if padding > 0 {
            // Field 2, of `padding` bytes.
            value.push(0x12);
            prost::encode_length_delimiter(padding, &mut value).unwrap();
            value.resize(value.len() + padding, 0);
        }
        Any {
            type_url: TYPE.into(),
            value,
        }
    };
    DiscoveryResponse {
        version_info: nonce.to_string(),
        nonce: nonce.to_string(),
        type_url: TYPE.into(),
        resources: names.iter().map(any).collect(),
        ..DiscoveryResponse::default()
    }
}

enum Told {
    Update(Update),
    Down(String),
}

/// Refuses what is called "bad".
struct Owner(mpsc::Sender<Told>);

impl Handler for Owner {
    fn on_update(&mut self, update: &Update, _: &mut Subscriptions) -> Result<(), Vec<Rejection>> {
        let bad = update.added.iter().find(|r| r.name == "bad").map(|r| Rejection {
            resource: r.name.clone(),
            reason: "bad".into(),
        });
        let _ = self.0.try_send(Told::Update(update.clone()));
        bad.map_or(Ok(()), |bad| Err(vec![bad]))
    }

    fn on_connection(&mut self, event: ConnectionEvent) {
        if let ConnectionEvent::Disconnected { reason, .. } = event {
            let _ = self.0.try_send(Told::Down(reason));
        }
    }
}

fn sotw() -> Protocol {
    Protocol::Sotw(Method::from_static(
        "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
    ))
}

fn start(transport: Transport, protocol: Protocol) -> (Handle, mpsc::Receiver<Told>) {
    let mut wishes = Subscriptions::default();
    wishes.wildcard(TYPE);
    let (client, handle) = Client::new(transport, protocol, Node::default(), wishes, || 7);
    let client = client.with_backoff(Backoff::new(Duration::from_millis(20), Duration::from_millis(50)));
    let (sender, told) = mpsc::channel(100_000);
    tokio::spawn(async move { client.run(Owner(sender)).await });
    (handle, told)
}

async fn next_update(told: &mut mpsc::Receiver<Told>) -> Update {
    match tokio::time::timeout(PATIENCE, told.recv()).await {
        Ok(Some(Told::Update(update))) => update,
        Ok(Some(Told::Down(reason))) => panic!("{reason}"),
        Ok(None) | Err(_) => panic!("nothing came in time"),
    }
}

#[tokio::test]
async fn a_type_may_have_a_service_of_its_own() {
    let address = serve(Arc::new(|_, _| {
        Box::pin(stream::iter([Ok(response(1, &["state"], 0))]).chain(stream::pending()))
    }))
    .await;
    let (_handle, mut told) = start(Transport::new(address.clone()).unwrap(), sotw());
    assert_eq!(next_update(&mut told).await.added[0].name, "state");
    let delta = Protocol::Delta(Method::from_static(
        "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
    ));
    let (handle, mut told) = start(Transport::new(address).unwrap(), delta);
    let update = next_update(&mut told).await;
    assert!(
        update.added.is_empty() && update.removed.is_empty(),
        "never shown, so not removed"
    );
    assert_eq!(handle.counters().unrequested, 1);
}

#[tokio::test]
async fn a_stream_carries_the_token_of_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one\n").unwrap();
    let (seen_sender, mut seen) = mpsc::channel(64);
    let address = serve(Arc::new(move |header, _| {
        seen_sender.try_send(header).unwrap();
        Box::pin(stream::empty()) // ends at once, so the client comes again
    }))
    .await;
    let transport = Transport::new(address)
        .unwrap()
        .with_bearer_token_file(path.clone());
    let _client = start(transport, sotw());
    assert_eq!(seen.recv().await.unwrap().as_deref(), Some("Bearer one"));
    std::fs::write(&path, "two").unwrap();
    while seen.recv().await.unwrap().as_deref() != Some("Bearer two") {}
    std::fs::remove_file(&path).unwrap();
    while seen.recv().await.unwrap().is_some() {}
}

#[tokio::test]
async fn a_hundred_megabytes_are_taken_or_refused_by_their_size() {
    const LARGE: usize = 100_000_000;
    let address = serve(Arc::new(|_, _| {
        Box::pin(
            stream::iter([Ok(response(1, &["small"], 0)), Ok(response(2, &["large"], LARGE))])
                .chain(stream::pending()),
        )
    }))
    .await;
    let (_handle, mut told) = start(Transport::new(address.clone()).unwrap(), sotw());
    assert_eq!(next_update(&mut told).await.added[0].name, "small");
    assert!(next_update(&mut told).await.added[0].any.value.len() > LARGE);

    let limited = Transport::new(address).unwrap().with_max_message_bytes(1_000_000);
    let (handle, mut told) = start(limited, sotw());
    assert_eq!(next_update(&mut told).await.added[0].name, "small");
    match tokio::time::timeout(PATIENCE, told.recv()).await {
        Ok(Some(Told::Down(reason))) => {
            assert!(
                reason.contains("OutOfRange") && reason.contains("1000000"),
                "{reason}"
            );
        }
        _ => panic!("the large response was not refused"),
    }
    // What was there stays, and the control plane is asked again.
    assert!(next_update(&mut told).await.removed.is_empty());
    assert_eq!(handle.counters().updates_rejected, 0);
    assert!(
        handle.counters().received_bytes < 50_000_000,
        "{:?}",
        handle.counters()
    );
}

#[tokio::test]
async fn who_floods_without_listening_is_held_up() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    let address = serve(Arc::new(move |_, requests| {
        let sent = counted.clone();
        // The requests are kept and never read.
        Box::pin(stream::unfold((0, requests), move |(number, requests)| {
            sent.fetch_add(1, Ordering::Relaxed);
            let next = (number + 1, requests);
            async move { Some((Ok(response(number + 1, &["a"], 10_000)), next)) }
        }))
    }))
    .await;
    let (handle, _told) = start(Transport::new(address).unwrap(), sotw());
    let mut before = u64::MAX;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::Relaxed);
        if now == before {
            break;
        }
        assert!(now < 100_000, "it goes on and on");
        before = now;
    }
    let counters = handle.counters();
    assert!(
        counters.responses > 100 && counters.responses <= before,
        "{counters:?}"
    );
    assert!(
        before < 10_000,
        "{before} responses were taken without an answer getting out"
    );
}

#[tokio::test]
async fn the_same_push_again_and_again_is_answered_each_time() {
    const PUSHES: u64 = 2_000;
    let (answers, mut answered) = mpsc::channel(10_000);
    let address = serve(Arc::new(move |_, requests| {
        let answers = answers.clone();
        tokio::spawn(requests.for_each(move |request| {
            let answers = answers.clone();
            async move {
                if let Ok(request) = request {
                    answers.send(request).await.unwrap();
                }
            }
        }));
        Box::pin(stream::iter((1..=PUSHES).map(|n| Ok(response(n, &["a"], 100)))).chain(stream::pending()))
    }))
    .await;
    let (handle, _told) = start(Transport::new(address).unwrap(), sotw());
    let first = answered.recv().await.unwrap();
    assert_eq!(first.response_nonce, "");
    for nonce in 1..=PUSHES {
        let answer = answered.recv().await.unwrap();
        assert_eq!(
            (answer.response_nonce, answer.error_detail),
            (nonce.to_string(), None)
        );
    }
    assert_eq!(handle.counters().updates_accepted, PUSHES);
}

#[tokio::test]
async fn who_sends_what_was_refused_again_at_once_makes_no_loop() {
    let refusals = Arc::new(AtomicU64::new(0));
    let counted = refusals.clone();
    let address = serve(Arc::new(move |_, requests| {
        let refusals = counted.clone();
        Box::pin(requests.map(move |request| {
            let is_refusal = request?.error_detail.is_some();
            let count = refusals.fetch_add(u64::from(is_refusal), Ordering::Relaxed);
            Ok(response(count + 1, &["bad"], 0))
        }))
    }))
    .await;
    let (_handle, mut told) = start(Transport::new(address).unwrap(), sotw());
    next_update(&mut told).await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    // At 0, 50, 150, 350 and 750 ms.
    let count = refusals.load(Ordering::Relaxed);
    assert!((3..=5).contains(&count), "{count}");
}

/// Carries bytes to `target` until told to stop; then keeps the connections and carries nothing.
async fn relay(target: Address, stop: watch::Receiver<bool>) -> Address {
    let Address::Tcp { port: target, .. } = target else {
        panic!("{target}")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut stop = stop.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let stopped = async move { stop.wait_for(|stop| *stop).await.is_ok() };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = stopped => std::future::pending().await,
                }
            });
        }
    });
    Address::Tcp {
        host: "127.0.0.1".into(),
        port,
    }
}

#[tokio::test]
async fn a_control_plane_that_falls_silent_is_given_up() {
    let script: Script = Arc::new(|_, requests| {
        tokio::spawn(requests.for_each(|_| async {}));
        Box::pin(stream::iter([Ok(response(1, &["a"], 0))]).chain(stream::pending()))
    });
    let (stop, stopped) = watch::channel(false);
    let address = relay(serve(script).await, stopped).await;
    let keepalive = Duration::from_millis(200);
    let transport = Transport::new(address)
        .unwrap()
        .with_keepalive(keepalive, keepalive);
    let (handle, mut told) = start(transport, sotw());
    next_update(&mut told).await;
    tokio::time::sleep(5 * keepalive).await;
    assert_eq!(handle.counters().disconnects, 0, "pings are answered");
    stop.send(true).unwrap();
    match tokio::time::timeout(PATIENCE, told.recv()).await {
        Ok(Some(Told::Down(reason))) => assert!(reason.contains("stream ended"), "{reason}"),
        _ => panic!("nobody noticed"),
    }
}
