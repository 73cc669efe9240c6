//! A request over HTTP/2 that says how long it is, and ends with a frame of its own after the last byte: the route's timeout begins.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use e2e::alone::Alone;
use e2e::beside::{FRONT, Manager, check_with, cluster, configuration};
use http::Request;

/// Accepts, and answers nothing.
const SILENT: u16 = 9002;
/// Between the last byte and the frame that ends the stream.
const LATE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(3);

#[test]
fn a_frame_that_ends_a_request_late_keeps_no_timeout_from_it() {
    let routes = "{ match: { prefix: / }, route: { cluster: silent, timeout: 0.5s } }";
    check_with(
        &configuration(&[Manager::with_routes(routes)], &[cluster("silent", &[SILENT])]),
        |namespace, _| {
            let listener =
                namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, SILENT)).expect("a free port"));
            std::thread::spawn(move || {
                let accepted = listener.incoming().collect::<Vec<_>>();
                drop(accepted);
            });
        },
        |alone| ["", "body"].map(|body| exchange(alone, body)).into(),
    );
}

fn exchange(alone: &Alone, body: &'static str) -> String {
    let stream = alone.connect(FRONT);
    stream.set_nonblocking(true).expect("a socket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.expect("a runtime").block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
        let answer = tokio::time::timeout(PATIENCE, post(stream, body)).await;
        answer.unwrap_or_else(|_| "nothing".to_owned())
    });
    assert_ne!(answer, "nothing", "the timeout of the route ends it: {body:?}");
    format!("{body:?}: {answer}")
}

async fn post(stream: tokio::net::TcpStream, body: &'static str) -> String {
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::post("http://a/")
        .header("content-length", body.len())
        .body(());
    let (response, mut out) = sender
        .send_request(request.expect("a request"), false)
        .expect("a stream");
    if !body.is_empty() {
        out.send_data(body.into(), false).expect("a body");
    }
    tokio::time::sleep(LATE).await;
    out.send_data("".into(), true).expect("an end");
    let response = response.await.expect("an answer");
    let status = response.status();
    let mut came = Vec::new();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        came.extend_from_slice(&data.expect("a body"));
    }
    format!("{status} {}", String::from_utf8_lossy(&came))
}
