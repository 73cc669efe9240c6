//! Who asks.

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::task::Poll;
use std::time::Duration;

use e2e::alone::Alone;
use http::{HeaderMap, HeaderName, Request};

use super::Case;

/// Longer than anything takes that was caused by what was sent.
const QUIET: Duration = Duration::from_millis(700);

/// What came of it, in one line.
pub(super) fn exchange(alone: &Alone, case: &Case) -> String {
    let stream = alone.connect(case.port);
    if case.version == 1 {
        return http1(stream, case);
    }
    stream.set_nonblocking(true).expect("a socket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
        tokio::time::timeout(QUIET * 4, http2(stream, case))
            .await
            .unwrap_or_else(|_| "nothing".to_owned())
    })
}

fn http1(mut stream: TcpStream, case: &Case) -> String {
    let method = if case.trailers.is_some() { "POST" } else { "GET" };
    let mut text = format!(
        "{method} /{} HTTP/1.1\r\nHost: a\r\nX-Case: case-{}\r\n",
        case.cluster, case.name
    );
    for (name, value) in case.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(trailers) = case.trailers {
        text.push_str("transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n");
        for (name, value) in trailers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).expect("the proxy reads");
    stream.set_read_timeout(Some(QUIET)).expect("a socket");
    let mut came = Vec::new();
    let mut piece = [0; 65_536];
    let end = loop {
        match stream.read(&mut piece) {
            Ok(0) => break "closed",
            Ok(count) => came.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break "open",
            Err(_) => break "reset",
        }
    };
    let text = String::from_utf8_lossy(&came).into_owned();
    let mut rest = text.as_str();
    let mut told = Vec::new();
    while rest.starts_with("HTTP/")
        && let Some((head, after)) = rest.split_once("\r\n\r\n")
    {
        told.push(in_one_line(head));
        rest = after;
    }
    told.push(format!("{rest:?}"));
    told.push(end.to_owned());
    told.join("\n  ")
}

/// The first line, then headers in alphabetical order.
pub(super) fn in_one_line(head: &str) -> String {
    let mut lines = head.lines().filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    let mut headers: Vec<_> = lines.filter_map(without_chance).collect();
    headers.sort_unstable();
    format!("{first}|{}", headers.join("|"))
}

fn without_chance(line: &str) -> Option<String> {
    let (name, _) = line.split_once(':')?;
    match name.to_ascii_lowercase().as_str() {
        "date" | "x-envoy-upstream-service-time" => None,
        "x-request-id" | "x-envoy-expected-rq-timeout-ms" => Some(name.to_owned()),
        _ => Some(line.to_owned()),
    }
}

/// The same of a map.
pub(super) fn fields(headers: &HeaderMap) -> String {
    let lines = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    in_one_line(&format!("-\n{}", lines.collect::<String>()))
}

async fn http2(stream: tokio::net::TcpStream, case: &Case) -> String {
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let method = if case.trailers.is_some() { "POST" } else { "GET" };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://a/{}", case.cluster))
        .header("x-case", format!("case-{}", case.name));
    for (name, value) in case.headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a request");
    let (mut response, mut out) = sender
        .send_request(request, case.trailers.is_none())
        .expect("a stream");
    if let Some(trailers) = case.trailers {
        out.send_data("body".into(), trailers.is_empty()).expect("a body");
        if !trailers.is_empty() {
            let mut map = HeaderMap::new();
            for (name, value) in trailers {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                map.append(name, value.parse().expect("a value"));
            }
            out.send_trailers(map).expect("trailers");
        }
    }
    let mut told = Vec::new();
    let response = poll_fn(|cx| {
        while let Poll::Ready(Some(Ok(informational))) = response.poll_informational(cx) {
            told.push(format!(
                "{} {}",
                informational.status(),
                fields(informational.headers())
            ));
        }
        std::pin::Pin::new(&mut response).poll(cx)
    })
    .await;
    let (head, mut body) = match response {
        Ok(response) => response.into_parts(),
        Err(error) => return format!("no answer: {:?}", error.reason()),
    };
    told.push(format!("{} {}", head.status, fields(&head.headers)));
    let mut came = Vec::new();
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => came.extend_from_slice(&data),
            Err(error) => told.push(format!("broken: {:?}", error.reason())),
        }
    }
    told.push(format!("{:?}", String::from_utf8_lossy(&came)));
    let trailers = body.trailers().await.ok().flatten();
    told.push(trailers.as_ref().map_or("no trailers".to_owned(), fields));
    told.join("\n  ")
}
