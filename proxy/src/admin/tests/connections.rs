//! The same over sockets: headers, forms, limits, the end.
use std::cell::RefCell;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::drain::Drain;

/// Sends bytes on one connection and reads until the other side closes.
async fn talk(address: SocketAddr, bytes: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Runs `client` against a served fake; then ends the serving, which has to return.
async fn with_server(client: impl AsyncFnOnce(SocketAddr, &Fake)) {
    let tasks = tokio::task::LocalSet::new();
    let run = async {
        let view = Fake::new();
        let socket = crate::net::listen::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &[]).unwrap();
        let address = socket.local_addr().unwrap();
        let signal = Drain::default();
        let watch = signal.watch();
        let serving = tokio::task::spawn_local(serve(socket, view.clone(), watch));
        client(address, &view).await;
        signal.start();
        serving.await.unwrap();
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, tasks.run_until(run))
        .await
        .expect("answers come in time");
}

#[tokio::test]
async fn headers_are_envoys_and_head_has_no_body() {
    with_server(async |address, _| {
        let text = talk(
            address,
            "GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=UTF-8\r\n"),
            "{head}"
        );
        for header in [
            "cache-control: no-cache, max-age=0",
            "x-content-type-options: nosniff",
            "server: envoy",
        ] {
            assert!(head.lines().any(|line| line == header), "{head}");
        }
        assert!(head.contains("\r\ndate: "), "{head}");
        assert_eq!(body, "LIVE\n");
        let text = talk(
            address,
            "HEAD /nope HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(
            text.starts_with("HTTP/1.1 404 Not Found\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_form_is_a_query_and_a_large_one_is_refused() {
    let post = |length: usize, body: &str| {
        format!(
            "POST /logging HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\
             content-type: application/x-www-form-urlencoded\r\n\r\n{body}"
        )
    };
    with_server(async |address, view| {
        let text = talk(address, &post(11, "level=error")).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert_eq!(view.options.log.levels(), Levels::all(Level::Error));
        let large = "x".repeat(70_000);
        let text = talk(address, &post(large.len(), &large)).await;
        assert!(text.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn dumps_are_made_beside_and_an_idle_connection_does_not_hold_the_end_up() {
    let idle = RefCell::new(None);
    with_server(async |address, _| {
        let request = "GET /config_dump HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let (first, second) = tokio::join!(talk(address, request), talk(address, request));
        assert!(
            first.contains("\"configs\"") && second.contains("\"configs\""),
            "{first}"
        );
        *idle.borrow_mut() = tokio::net::TcpStream::connect(address).await.ok();
        tokio::task::yield_now().await;
    })
    .await;
}

#[tokio::test]
async fn a_large_dump_comes_in_pieces_and_a_slow_client_keeps_nobody_waiting() {
    with_server(async |address, view| {
        const CLUSTERS: usize = 10_000;
        view.dumped.set(CLUSTERS);
        let request = "GET /config_dump HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
        slow.write_all(request.as_bytes()).await.unwrap();
        let mut begin = [0; 15];
        slow.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200 OK");
        let text = talk(address, request).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\ntransfer-encoding: chunked"), "{head}");
        assert!(body.ends_with("\r\n0\r\n\r\n"), "the end is said");
        assert_eq!(body.matches("\"connect_timeout\"").count(), CLUSTERS);
        // Whoever makes the dump for it notices.
        drop(slow);
    })
    .await;
}

#[tokio::test]
async fn more_connections_than_slots_wait_and_are_answered() {
    with_server(async |address, _| {
        let mut held = Vec::new();
        for _ in 0..64 {
            held.push(tokio::net::TcpStream::connect(address).await.unwrap());
        }
        let late = talk(
            address,
            "GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        );
        tokio::pin!(late);
        let early = tokio::time::timeout(Duration::from_millis(200), &mut late).await;
        assert!(early.is_err(), "no slot is free");
        held.clear();
        assert!(late.await.ends_with("LIVE\n"));
    })
    .await;
}
