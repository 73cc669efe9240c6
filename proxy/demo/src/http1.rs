//! HTTP/1.1 messages as they stand on the wire: header lines in their order and spelling, duplicates kept.
//!
//! For applications and clients that must see exactly what a proxy wrote. No proxy code: a peer that shares no line with
//! what it examines.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const MAX_HEADERS: usize = 200;
/// Bytes of a head, and of a chunk-size line.
const MAX_HEAD_BYTES: usize = 256 * 1024;
/// Bytes of a body that is read whole.
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;

/// The head of a request or a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Method, target and version; or version, status and reason.
    pub line: [String; 3],
    /// In order, as written.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// All values of a header, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The first value of a header.
    pub fn value<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// The status of a response head; 0 when it is none.
    pub fn status(&self) -> u16 {
        self.line[1].parse().unwrap_or(0)
    }

    fn is_closing(&self) -> bool {
        self.values("connection")
            .any(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// Which message is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request.
    Request,
    /// The response to a request that was not `HEAD`.
    Response,
    /// The response to `HEAD`: never with a body.
    ResponseToHead,
}

/// Reads messages from one connection.
#[derive(Debug)]
pub struct Reader<R> {
    stream: R,
    buffer: Vec<u8>,
    kind: Kind,
    framing: Framing,
    is_last: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads messages of one kind from `stream`.
    pub fn new(stream: R, kind: Kind) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            kind,
            framing: Framing::Length(0),
            is_last: false,
        }
    }

    /// The next head; nothing when the peer closed between messages.
    ///
    /// # Errors
    /// `InvalidData` for what is no HTTP/1, `UnexpectedEof` for half a head, else as the connection.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some((head, length)) = parse(&self.buffer, self.kind)? {
                self.buffer.drain(..length);
                self.framing = framing(&head, self.kind)?;
                self.is_last = head.is_closing() || self.framing == Framing::UntilClose;
                return Ok(Some(head));
            }
            if self.buffer.len() > MAX_HEAD_BYTES {
                return Err(invalid("head too large"));
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// The body of the message whose head was read last.
    ///
    /// # Errors
    /// `InvalidData` for malformed chunks, `UnexpectedEof` for half a body, else as the connection.
    pub async fn body(&mut self) -> io::Result<Vec<u8>> {
        match self.framing {
            Framing::Length(length) => self.take(length).await,
            Framing::Chunked => self.chunks().await,
            Framing::UntilClose => {
                while self.fill().await? > 0 {
                    within(self.buffer.len())?;
                }
                Ok(std::mem::take(&mut self.buffer))
            }
        }
    }

    /// Whether the connection ends with the message that was read last.
    pub fn is_last(&self) -> bool {
        self.is_last
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid("chunk size"))?;
            within(body.len().saturating_add(size))?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size).await?);
            self.line().await?;
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.buffer.len() > MAX_HEAD_BYTES {
                return Err(invalid("line too long"));
            }
            self.must_fill().await?;
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        within(length)?;
        while self.buffer.len() < length {
            self.must_fill().await?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    async fn must_fill(&mut self) -> io::Result<()> {
        if self.fill().await? == 0 {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }
}

fn parse(bytes: &[u8], kind: Kind) -> io::Result<Option<(Head, usize)>> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let (status, line, headers) = match kind {
        Kind::Request => {
            let mut request = httparse::Request::new(&mut lines);
            let status = request
                .parse(bytes)
                .map_err(|error| invalid(&error.to_string()))?;
            let line = [
                request.method.unwrap_or_default(),
                request.path.unwrap_or_default(),
                version(request.version),
            ];
            (status, line.map(str::to_owned), &*request.headers)
        }
        Kind::Response | Kind::ResponseToHead => {
            let mut response = httparse::Response::new(&mut lines);
            let status = response
                .parse(bytes)
                .map_err(|error| invalid(&error.to_string()))?;
            let code = response.code.unwrap_or_default().to_string();
            let line = [
                version(response.version).to_owned(),
                code,
                response.reason.unwrap_or_default().to_owned(),
            ];
            (status, line, &*response.headers)
        }
    };
    let httparse::Status::Complete(length) = status else {
        return Ok(None);
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = headers
        .iter()
        .map(|header| (header.name.to_owned(), text(header.value)))
        .collect();
    Ok(Some((Head { line, headers }, length)))
}

fn framing(head: &Head, kind: Kind) -> io::Result<Framing> {
    let is_bodiless = kind == Kind::Response && matches!(head.status(), 100..=199 | 204 | 304);
    if is_bodiless || kind == Kind::ResponseToHead {
        return Ok(Framing::Length(0));
    }
    if head
        .values("transfer-encoding")
        .any(|value| value.to_ascii_lowercase().contains("chunked"))
    {
        return Ok(Framing::Chunked);
    }
    match head.value("content-length") {
        Some(length) => length
            .parse()
            .map(Framing::Length)
            .map_err(|_| invalid("content-length")),
        None if kind == Kind::Response => Ok(Framing::UntilClose),
        None => Ok(Framing::Length(0)),
    }
}

fn version(minor: Option<u8>) -> &'static str {
    if minor == Some(0) { "HTTP/1.0" } else { "HTTP/1.1" }
}

fn within(length: usize) -> io::Result<()> {
    if length > MAX_BODY_BYTES {
        Err(invalid("body too large"))
    } else {
        Ok(())
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    type Expected<'a> = Result<(&'a [(&'a str, &'a str)], &'a str), io::ErrorKind>;

    async fn check(kind: Kind, wire: &str, expected: Expected<'_>) {
        let mut reader = Reader::new(wire.as_bytes(), kind);
        let read = async {
            let head = reader.head().await?.ok_or(io::ErrorKind::NotFound)?;
            Ok::<_, io::Error>((head.headers, String::from_utf8(reader.body().await?).unwrap()))
        };
        let found = read.await.map_err(|error| error.kind());
        let owned = |(name, value): &(&str, &str)| (String::from(*name), String::from(*value));
        let expected = expected.map(|(headers, body)| (headers.iter().map(owned).collect(), body.to_owned()));
        assert_eq!(found, expected, "{wire:?}");
    }

    #[tokio::test]
    async fn bodies_end_as_their_head_says() {
        use Kind::{Request, Response};
        check(
            Request,
            "GET / HTTP/1.1\r\nA: 1\r\na: 2\r\n\r\nrest",
            Ok((&[("A", "1"), ("a", "2")], "")),
        )
        .await;
        let length = ("Content-Length", "2");
        check(
            Request,
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabc",
            Ok((&[length], "ab")),
        )
        .await;
        let chunked = ("Transfer-Encoding", "chunked");
        let wire = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n";
        check(Response, wire, Ok((&[chunked], "abc"))).await;
        check(Response, "HTTP/1.1 200 OK\r\n\r\nabc", Ok((&[], "abc"))).await;
        check(Response, "HTTP/1.1 204 No Content\r\n\r\n", Ok((&[], ""))).await;
    }

    #[tokio::test]
    async fn half_a_message_is_an_error() {
        check(Kind::Request, "GET / HT", Err(io::ErrorKind::UnexpectedEof)).await;
        let wire = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc";
        check(Kind::Response, wire, Err(io::ErrorKind::UnexpectedEof)).await;
        check(
            Kind::Request,
            "\u{16}\u{3}\u{1}\r\n\r\n",
            Err(io::ErrorKind::InvalidData),
        )
        .await;
        check(Kind::Request, "", Err(io::ErrorKind::NotFound)).await;
    }
}
