//! One HTTP/1.1 request from inside a namespace.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use outrigger_demo::http1::{Head, Kind, Reader};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::netns::Namespace;

/// Longest wait for a whole response.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request to send.
#[derive(Clone, Debug)]
pub struct Request {
    /// Such as `GET`.
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    /// All headers, `Host` too.
    pub headers: Vec<(String, String)>,
    /// Sent with a `content-length` unless empty.
    pub body: String,
}

impl Request {
    /// `GET` of `target` from `host`.
    pub fn get(host: &str, target: &str) -> Self {
        let headers = vec![("Host".to_owned(), host.to_owned())];
        Self {
            method: "GET",
            target: target.to_owned(),
            headers,
            body: String::new(),
        }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The bytes on the wire.
    pub fn wire(&self) -> Vec<u8> {
        let mut wire = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            wire.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() {
            wire.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        wire.push_str("\r\n");
        wire.push_str(&self.body);
        wire.into_bytes()
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status line and headers.
    pub head: Head,
    /// The body, as text.
    pub body: String,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// What the application said reached it; `Null` when the answer is not the application's.
    pub fn seen(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// Values of a header, as the application saw it.
    pub fn seen_values(&self, name: &str) -> Vec<String> {
        let seen = self.seen();
        let pairs = seen["headers"].as_array().into_iter().flatten();
        let named = pairs.filter(|pair| pair[0].as_str().is_some_and(|key| key.eq_ignore_ascii_case(name)));
        named
            .filter_map(|pair| pair[1].as_str().map(str::to_owned))
            .collect()
    }
}

/// Sends `request` to `address` from inside `namespace`, on a connection of its own.
///
/// # Errors
/// When there is no connection, no whole response, or none within 20 s.
pub fn send(namespace: &Namespace, address: SocketAddr, request: &Request) -> io::Result<Response> {
    exchange(namespace, address, &request.wire())
}

/// Sends these bytes to `address` from inside `namespace`, and reads one response.
///
/// # Errors
/// As [`send`].
pub fn exchange(namespace: &Namespace, address: SocketAddr, wire: &[u8]) -> io::Result<Response> {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let exchange = async {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(wire).await?;
                let kind = if wire.starts_with(b"HEAD ") {
                    Kind::ResponseToHead
                } else {
                    Kind::Response
                };
                read(&mut Reader::new(stream, kind)).await
            };
            let timeout = |_| {
                io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no response within {PATIENCE:?}"),
                )
            };
            tokio::time::timeout(PATIENCE, exchange).await.map_err(timeout)?
        })
    })
}

/// Reads one response, without the informational ones before it.
pub(crate) async fn read<R: tokio::io::AsyncRead + Unpin>(reader: &mut Reader<R>) -> io::Result<Response> {
    loop {
        let head = reader.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let body = reader.body().await?;
        if !(100..200).contains(&head.status()) {
            return Ok(Response {
                head,
                body: String::from_utf8_lossy(&body).into_owned(),
            });
        }
    }
}
