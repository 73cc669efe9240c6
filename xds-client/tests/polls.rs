//! The REST client against a hand-made HTTP server: what is posted, what answers do.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use xds_client::{
    Address, Client, ConnectionEvent, Handle, Handler, Node, Protocol, Rejection, Rest, RestCodec,
    Subscriptions, Transport, Update,
};

const TYPE: &str = "t/things";
const PATIENCE: Duration = Duration::from_secs(20);

/// A request is `node version names`, a response `version names`; a version with `~` comes without the type.
struct Codec;

impl RestCodec for Codec {
    fn encode(&self, request: &DiscoveryRequest) -> Result<String, String> {
        let node = request.node.clone().unwrap_or_default().id;
        let names = request.resource_names.join(",");
        Ok(format!("{node} {:?} {names}", request.version_info))
    }

    fn decode(&self, body: &[u8]) -> Result<DiscoveryResponse, String> {
        let text = std::str::from_utf8(body).map_err(|e| e.to_string())?;
        let (version, names) = text.split_once(' ').ok_or("no version")?;
        let any = |name: &str| {
            let length = u8::try_from(name.len()).unwrap();
            Any {
                type_url: TYPE.into(),
                value: [&[0x0a, length], name.as_bytes()].concat(),
            }
        };
        Ok(DiscoveryResponse {
            version_info: version.to_owned(),
            type_url: if version.starts_with('~') {
                String::new()
            } else {
                TYPE.into()
            },
            resources: names.split_whitespace().map(any).collect(),
            ..DiscoveryResponse::default()
        })
    }
}

/// Status and body of the answers, in turn; then 304 for ever. `None` answers nothing at all.
async fn serve(
    listener: TcpListener,
    mut answers: VecDeque<Option<(u16, &'static str)>>,
    seen: mpsc::Sender<String>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        while let Some(request) = read(&mut stream).await {
            seen.send(request).await.unwrap();
            let Some((status, body)) = answers.pop_front().unwrap_or(Some((304, ""))) else {
                tokio::time::sleep(PATIENCE).await;
                break;
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

/// As [`serve`], in HTTP/2; each connection serves two polls and is closed.
async fn serve_http2(
    listener: TcpListener,
    mut answers: VecDeque<Option<(u16, &'static str)>>,
    seen: mpsc::Sender<String>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut served = 0;
        while let Some(accepted) = connection.accept().await {
            let (request, mut respond) = accepted.unwrap();
            let line = format!("{} {}", request.method(), request.uri());
            let (seen, answer) = (seen.clone(), answers.pop_front());
            // The connection has to be polled for the body to come.
            tokio::spawn(async move {
                let mut body = request.into_body();
                let mut text = line;
                while let Some(data) = body.data().await {
                    text = format!("{text}|{}", String::from_utf8_lossy(&data.unwrap()));
                }
                seen.send(text).await.unwrap();
                let (status, body) = answer.unwrap_or(Some((304, ""))).unwrap();
                let mut response = hyper::Response::new(());
                *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
                let mut stream = respond.send_response(response, false).unwrap();
                stream.send_data(body.into(), true).unwrap();
            });
            served += 1;
            if served == 2 {
                connection.graceful_shutdown();
            }
        }
    }
}

/// Request line, then two headers, then the body.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let (mut length, mut kept) = (0, Vec::new());
    for index in 0.. {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        match line.split_once(": ") {
            _ if line.is_empty() => break,
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(("host" | "content-type" | "authorization", _)) => kept.push(line),
            _ if index == 0 => kept.push(line),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    kept.push(String::from_utf8(body).unwrap());
    Some(kept.join("|"))
}

struct Owner(mpsc::Sender<String>);

impl Handler for Owner {
    fn on_update(&mut self, update: &Update, _: &mut Subscriptions) -> Result<(), Vec<Rejection>> {
        let names: Vec<_> = update.added.iter().map(|r| r.name.as_str()).collect();
        let told = format!("+{} -{}", names.join(","), update.removed.join(","));
        self.0.try_send(told).unwrap();
        match update.added.iter().find(|r| r.name == "bad") {
            Some(bad) => Err(vec![Rejection {
                resource: bad.name.clone(),
                reason: "bad".into(),
            }]),
            None => Ok(()),
        }
    }

    fn on_connection(&mut self, event: ConnectionEvent) {
        if let ConnectionEvent::Disconnected { reason, .. } = event {
            self.0.try_send(reason).unwrap();
        }
    }
}

struct Fixture {
    handle: Handle,
    seen: mpsc::Receiver<String>,
    told: mpsc::Receiver<String>,
}

async fn start(answers: &[Option<(u16, &'static str)>]) -> Fixture {
    start_with(answers, false).await
}

async fn start_with(answers: &[Option<(u16, &'static str)>], is_http2: bool) -> Fixture {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
    };
    let (seen_sender, seen) = mpsc::channel(64);
    let answers = answers.iter().copied().collect();
    match is_http2 {
        true => drop(tokio::spawn(serve_http2(listener, answers, seen_sender))),
        false => drop(tokio::spawn(serve(listener, answers, seen_sender))),
    }
    let rest = Rest {
        path: "/v3/discovery:things".into(),
        host: "xds_cluster".into(),
        is_http2,
        refresh_delay: Duration::from_millis(10),
        request_timeout: Duration::from_millis(300),
        codec: Arc::new(Codec),
    };
    let mut wishes = Subscriptions::default();
    wishes.wildcard(TYPE);
    let node = Node {
        id: "me".into(),
        ..Node::default()
    };
    let transport = Transport::new(address).unwrap().with_max_message_bytes(1000);
    let (client, handle) = Client::new(transport, Protocol::Rest(rest), node, wishes, || 3);
    let (sender, told) = mpsc::channel(1024);
    tokio::spawn(async move { client.run(Owner(sender)).await });
    Fixture { handle, seen, told }
}

async fn next(receiver: &mut mpsc::Receiver<String>) -> String {
    let next = tokio::time::timeout(PATIENCE, receiver.recv()).await;
    next.expect("nothing came in time").unwrap()
}

fn post(body: &str) -> String {
    format!("post /v3/discovery:things http/1.1|host: xds_cluster|content-type: application/json|{body}")
}

#[tokio::test]
async fn a_poll_says_what_was_accepted_and_304_changes_nothing() {
    let mut fixture = start(&[Some((200, "v1 a b")), None]).await;
    assert_eq!(next(&mut fixture.seen).await, post("me \"\" "));
    assert_eq!(next(&mut fixture.told).await, "+a,b -");
    assert_eq!(next(&mut fixture.seen).await, post("me \"v1\" "));
    // No answer in time, then a new connection.
    let reason = next(&mut fixture.told).await;
    assert!(
        reason.contains("POST /v3/discovery:things: no response within 300ms"),
        "{reason}"
    );
}

#[tokio::test]
async fn one_connection_serves_many_polls() {
    let mut fixture = start(&[Some((200, "v1 a"))]).await;
    for _ in 0..10 {
        next(&mut fixture.seen).await;
    }
    let counters = fixture.handle.counters();
    assert_eq!((counters.connects, counters.open_connections), (1, 1));
    assert!(counters.calls >= 9 && counters.sent_bytes > 500 && counters.received_bytes > 100);
    assert_eq!((counters.responses, counters.stale_nonces), (1, 0));
}

#[tokio::test]
async fn a_refused_version_is_not_claimed_and_comes_again() {
    let answers = [
        Some((200, "v1 a")),
        Some((200, "v2 bad")),
        Some((200, "v3 b")),
        Some((200, "v4")),
        Some((503, "overloaded")),
    ];
    let mut fixture = start(&answers).await;
    for version in ["", "v1", "v1", "v3", "v3", "v3"] {
        assert_eq!(next(&mut fixture.seen).await, post(&format!("me {version:?} ")));
    }
    for told in ["+a -", "+bad -a", "+b -bad"] {
        assert_eq!(next(&mut fixture.told).await, told);
    }
    assert!(
        next(&mut fixture.told).await.contains("no version"),
        "a body cut short"
    );
    assert!(next(&mut fixture.told).await.contains("answered 503"));
}

#[tokio::test]
async fn a_response_above_the_limit_is_refused_by_its_size() {
    let large: &'static str = Box::leak(format!("v1 {}", "a ".repeat(600)).into_boxed_str());
    let mut fixture = start(&[Some((200, large))]).await;
    let reason = next(&mut fixture.told).await;
    assert!(reason.contains("more than 1000 bytes"), "{reason}");
}

#[tokio::test]
async fn other_names_are_asked_for_at_once() {
    let mut fixture = start(&[]).await;
    next(&mut fixture.seen).await;
    fixture.handle.set_names(TYPE, ["x".to_owned()].into()).unwrap();
    loop {
        if next(&mut fixture.seen).await == post("me \"\" x") {
            break;
        }
    }
}

#[tokio::test]
async fn a_server_that_speaks_http2_is_polled_so() {
    let answers = [Some((200, "v1 a")), Some((200, "v2 bad")), Some((503, ""))];
    let mut fixture = start_with(&answers, true).await;
    for version in ["", "v1", "v1", "v1"] {
        let expected = format!("POST http://xds_cluster/v3/discovery:things|me {version:?} ");
        assert_eq!(next(&mut fixture.seen).await, expected);
    }
    for told in ["+a -", "+bad -a"] {
        assert_eq!(next(&mut fixture.told).await, told);
    }
    assert!(next(&mut fixture.told).await.contains("answered 503"));
    let counters = fixture.handle.counters();
    assert!(
        counters.connects >= 2,
        "a connection that ends is replaced: {counters:?}"
    );
}

#[tokio::test]
async fn a_response_need_not_say_its_type() {
    let mut fixture = start(&[Some((200, "~1 a"))]).await;
    assert_eq!(next(&mut fixture.told).await, "+a -");
}
