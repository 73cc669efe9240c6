//! Who is asked: it answers with what it got. `x-info` are statuses of informational responses to be sent before; with `x-plain` the answer
//! has a length, else trailers.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use e2e::netns::Namespace;
use http::{HeaderMap, Request, Response};

use super::client::{fields, in_one_line};
use super::{HTTP1, HTTP2};

/// Starts both.
pub(super) fn start(namespace: &Namespace) {
    let listen =
        |port| namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    let listener = listen(HTTP1);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || while http1(&stream).is_some() {});
        }
    });
    let listener = listen(HTTP2);
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async {
                    let Ok(mut connection) = h2::server::handshake(stream).await else {
                        return;
                    };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(http2(request, respond));
                    }
                });
            }
        });
    });
}

/// One request; `None`: the connection is over.
fn http1(mut stream: &TcpStream) -> Option<()> {
    let mut came = Vec::new();
    let mut byte = [0];
    let mut head_end = None;
    loop {
        let whole = head_end.is_some_and(|end: usize| {
            let chunked = came[..end].to_ascii_lowercase();
            let chunked = String::from_utf8_lossy(&chunked).contains("transfer-encoding: chunked");
            !chunked
                || (came.windows(5).any(|five| five == b"\r\n0\r\n")
                    && came.len() > end
                    && came.ends_with(b"\r\n\r\n"))
        });
        if whole {
            break;
        }
        stream.read_exact(&mut byte).ok()?;
        came.push(byte[0]);
        if head_end.is_none() && came.ends_with(b"\r\n\r\n") {
            head_end = Some(came.len());
            informs(stream, &String::from_utf8_lossy(&came))?;
        }
    }
    let text = String::from_utf8_lossy(&came).into_owned();
    let (head, rest) = text.split_at(head_end?);
    let told = format!("{} {rest:?}", in_one_line(head));
    let answer = if told.contains("x-plain") {
        format!(
            "HTTP/1.1 200 OK\r\nX-Mixed-Case: 1\r\nContent-Length: {}\r\n\r\n{told}",
            told.len()
        )
    } else {
        format!(
            "HTTP/1.1 200 OK\r\nX-Mixed-Case: 1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{told}\r\n0\r\nX-Up: 1\r\nx-two: 2\r\n\r\n",
            told.len()
        )
    };
    stream.write_all(answer.as_bytes()).ok()
}

fn informs(mut stream: &TcpStream, head: &str) -> Option<()> {
    let wanted = head
        .lines()
        .find_map(|line| line.strip_prefix("x-info: "))
        .unwrap_or_default();
    for status in wanted.split(',').filter(|status| !status.is_empty()) {
        let link = if status == "103" { "Link: </a>\r\n" } else { "" };
        stream
            .write_all(format!("HTTP/1.1 {status} Wait\r\n{link}\r\n").as_bytes())
            .ok()?;
    }
    Some(())
}

async fn http2(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<bytes::Bytes>) {
    let (head, mut body) = request.into_parts();
    let text = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    for status in text("x-info").split(',').filter(|status| !status.is_empty()) {
        let mut informational = Response::builder().status(status);
        if status == "103" {
            informational = informational.header("link", "</a>");
        }
        let _ = respond.send_informational(informational.body(()).expect("a response"));
    }
    let mut came = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        came.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.ok().flatten();
    let told = format!(
        "{} {} {} {:?} {}",
        head.method,
        head.uri,
        fields(&head.headers),
        String::from_utf8_lossy(&came),
        trailers.as_ref().map_or("no trailers".to_owned(), fields)
    );
    let response = Response::builder()
        .header("x-mixed-case", "1")
        .body(())
        .expect("a response");
    let Ok(mut out) = respond.send_response(response, false) else {
        return;
    };
    let plain = !text("x-plain").is_empty();
    let _ = out.send_data(told.into(), plain);
    if !plain {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-up", "1".parse().expect("a value"));
        trailers.insert("x-two", "2".parse().expect("a value"));
        let _ = out.send_trailers(trailers);
    }
    // Until the answer is out.
    let _ = poll_fn(|cx| out.poll_reset(cx)).await;
}
