//! Who asks.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use e2e::alone::{Alone, read_until_quiet};
use http::{Method, Request, Uri};

use super::cases::{Case, Step};

/// Longer than anything takes that was caused by what was sent.
const PAUSE: Duration = Duration::from_millis(300);
/// Longer than Envoy's `delayed_close_timeout`, after which it closes what it refused.
const QUIET: Duration = Duration::from_millis(2500);

/// What came of it, in one line.
pub(super) fn exchange(alone: &Alone, case: &Case) -> String {
    let stream = alone.connect(case.port);
    if case.version == 1 {
        return http1(stream, case);
    }
    stream.set_nonblocking(true).expect("a socket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let stream = runtime.block_on(async { tokio::net::TcpStream::from_std(stream).expect("a socket") });
    runtime.block_on(http2(stream, case))
}

fn said(text: &str, case: &Case) -> Vec<u8> {
    text.replace("{n}", case.name)
        .replace("{large}", &"x".repeat(300_000))
        .into_bytes()
}

/// Long ones by their length.
fn shown(bytes: &[u8]) -> String {
    match bytes.len() {
        0..1000 => format!("{:?}", String::from_utf8_lossy(bytes)),
        length => format!("{length} bytes"),
    }
}

fn http1(mut stream: TcpStream, case: &Case) -> String {
    let target = if case.method == "CONNECT" {
        case.authority
    } else {
        "/"
    };
    let mut head = format!(
        "{} {target} HTTP/1.1\r\nhost: {}\r\nx-case: case-{}\r\n",
        case.method, case.authority, case.name
    );
    for (name, value) in case.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut out = head.into_bytes();
    let mut came = Vec::new();
    for step in case.steps {
        match step {
            Step::Send(text) => out.extend(said(text, case)),
            Step::Pause => {
                let _ = stream.write_all(&std::mem::take(&mut out));
                read_until_quiet(&mut stream, &mut came, PAUSE);
            }
            Step::End => drop(stream.shutdown(Shutdown::Write)),
            Step::Reset => {
                drop(stream);
                return format!("{} left", message(&came));
            }
        }
    }
    let end = read_until_quiet(&mut stream, &mut came, QUIET);
    format!("{} {end}", message(&came))
}

/// The first line, then headers in alphabetical order, then the rest.
fn message(came: &[u8]) -> String {
    let end = came.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = came.split_at(end.map_or(came.len(), |end| end + 4));
    let head = String::from_utf8_lossy(head).into_owned();
    let mut lines = head.lines().filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let mut headers: Vec<_> = lines.filter(|line| !is_chance(line)).collect();
    headers.sort_unstable();
    format!("{first} {headers:?} {}", shown(body))
}

fn is_chance(header: &str) -> bool {
    ["date", "x-envoy-upstream-service-time"].contains(&header.split(':').next().unwrap_or_default())
}

async fn http2(stream: tokio::net::TcpStream, case: &Case) -> String {
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let running = tokio::spawn(connection);
    let mut request = Request::new(());
    *request.method_mut() = case.method.parse().expect("a method");
    *request.uri_mut() = if request.method() == Method::CONNECT {
        Uri::builder()
            .authority(case.authority)
            .build()
            .expect("a target")
    } else {
        format!("http://{}/", case.authority).parse().expect("a target")
    };
    let headers = request.headers_mut();
    headers.insert("x-case", format!("case-{}", case.name).parse().expect("a value"));
    for (name, value) in case.headers {
        headers.insert(*name, value.parse().expect("a value"));
    }
    let (response, mut out) = sender.send_request(request, false).expect("a stream");
    let mut response = std::pin::pin!(response);
    let mut told = String::new();
    let mut body = None;
    for step in case.steps {
        match step {
            Step::Send(text) => {
                let _ = out.send_data(said(text, case).into(), false);
            }
            Step::End => drop(out.send_data(Bytes::new(), true)),
            Step::Reset => out.send_reset(h2::Reason::CANCEL),
            Step::Pause => {
                if body.is_none() {
                    match tokio::time::timeout(PAUSE, response.as_mut()).await {
                        Err(_) => continue,
                        Ok(Err(error)) => {
                            told = format!("no answer: {:?}", error.reason());
                            break;
                        }
                        Ok(Ok(answer)) => {
                            let (head, stream) = answer.into_parts();
                            let headers = head
                                .headers
                                .iter()
                                .map(|(name, value)| format!("{name}: {value:?}"));
                            let mut headers: Vec<_> = headers.filter(|line| !is_chance(line)).collect();
                            headers.sort_unstable();
                            told = format!("{} {headers:?}", head.status);
                            body = Some((stream, Vec::new(), "open".to_owned()));
                        }
                    }
                }
                if let Some((stream, came, end)) = &mut body
                    && end == "open"
                {
                    *end = take(stream, came).await;
                }
            }
        }
    }
    running.abort();
    match body {
        Some((_, came, end)) => format!("{told} {} {end}", shown(&came)),
        None => told,
    }
}

async fn take(stream: &mut h2::RecvStream, came: &mut Vec<u8>) -> String {
    loop {
        match tokio::time::timeout(PAUSE, stream.data()).await {
            Err(_) => return "open".into(),
            Ok(None) => return "ended".into(),
            Ok(Some(Err(error))) => return format!("{:?}", error.reason()),
            Ok(Some(Ok(data))) => {
                let _ = stream.flow_control().release_capacity(data.len());
                came.extend_from_slice(&data);
            }
        }
    }
}
