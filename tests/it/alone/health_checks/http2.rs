//! The same over HTTP/2: statuses, and answers of `grpc.health.v1.Health`.

use std::future::{pending, poll_fn};
use std::net::{Ipv4Addr, TcpListener};

use bytes::Bytes;
use e2e::netns::Namespace;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::sync::oneshot;

use super::host::Host;

/// Speaks HTTP/2.
pub(super) fn serve(namespace: &Namespace, host: Host) {
    let listener =
        namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, host.port)).expect("a free port"));
    listener.set_nonblocking(true).expect("a socket");
    let _ends_with_the_test = namespace.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(host.clone(), stream));
            }
        });
    });
}

async fn connection(host: Host, stream: tokio::net::TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let mut is_new = true;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (sender, ending) = oneshot::channel();
        tokio::spawn(stream_of(host.clone(), request, respond, is_new, sender));
        is_new = false;
        tokio::select! {
            // Drives the connection while the task answers.
            _ = poll_fn(|cx| connection.poll_closed(cx)) => return,
            ending = ending => match ending {
                Ok(Ending::GoAway) => connection.graceful_shutdown(),
                Ok(Ending::Close) => return,
                _ => {}
            },
        }
    }
}

/// What becomes of the connection.
enum Ending {
    Stays,
    GoAway,
    Close,
}

async fn stream_of(
    host: Host,
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    is_new: bool,
    ending: oneshot::Sender<Ending>,
) {
    let (head, mut body) = request.into_parts();
    let mut came = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        came.extend_from_slice(&data);
    }
    let mut headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    headers.sort();
    let question = format!("{} {} {headers:?} {came:?}", head.method, head.uri);
    let word = tokio::task::spawn_blocking(move || host.asked(&question, is_new));
    let Some(word) = word.await.ok().flatten() else {
        return pending().await;
    };
    let mut parts = word.split('+');
    let status = parts.next().unwrap_or_default();
    let pairs: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
    match status {
        "close" => {
            let _ = ending.send(Ending::Close);
            return;
        }
        "reset" => {
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
            let _ = ending.send(Ending::Stays);
            return;
        }
        _ => {}
    }
    if let Ok(status) = status.parse::<u16>() {
        let mut response = Response::builder().status(status);
        for (name, value) in pairs {
            response = response.header(name, value);
        }
        let _ = respond.send_response(response.body(()).expect("a response"), true);
        let _ = ending.send(Ending::Stays);
        return;
    }
    grpc(status, &pairs, &mut respond);
    let is_last = status == "goaway";
    let _ = ending.send(if is_last { Ending::GoAway } else { Ending::Stays });
}

/// A message with the named status (`goaway` is well), and trailers; `trailers-only` has no message.
fn grpc(name: &str, pairs: &[(&str, &str)], respond: &mut SendResponse<Bytes>) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let mut response = Response::builder().header("content-type", "application/grpc");
    for (name, value) in pairs {
        if *name == "grpc-status" {
            trailers.insert("grpc-status", value.parse().expect("a value"));
        } else {
            response = response.header(*name, *value);
        }
    }
    if name == "trailers-only" {
        let status = trailers.get("grpc-status").expect("inserted").clone();
        let response = response
            .header("grpc-status", status)
            .body(())
            .expect("a response");
        let _ = respond.send_response(response, true);
        return;
    }
    let response = response.body(()).expect("a response");
    let Ok(mut out) = respond.send_response(response, false) else {
        return;
    };
    let message: &[u8] = match name {
        "serving" | "goaway" => &[0, 0, 0, 0, 2, 8, 1],
        "not-serving" => &[0, 0, 0, 0, 2, 8, 2],
        "service-unknown" => &[0, 0, 0, 0, 2, 8, 3],
        "unknown" => &[0, 0, 0, 0, 0],
        "twice" => &[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 1],
        "more-fields" => &[0, 0, 0, 0, 4, 8, 1, 16, 7],
        "compressed" => &[1, 0, 0, 0, 2, 8, 1],
        "damaged" => &[0, 0, 0, 0, 2, 8],
        "no-message" => &[],
        other => panic!("no answer is named {other:?}"),
    };
    let _ = out.send_data(Bytes::from_static(message), false);
    let _ = out.send_trailers(trailers);
}
