//! What lies between hyper and the socket when more is to be written than hyper writes: trailers that no `trailer` header named before.
//!
//! The bytes that hyper writes are followed through head and chunks, so that it is known where they end; nothing is looked for in data.
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::codec::body::{BodyError, BodyObserver};
use crate::codec::h1::machine::chunked::{ChunkedDecoder, Step};
use crate::codec::h1::machine::encode;

/// What goes into one request besides; observes its body.
#[derive(Debug, Default)]
pub(super) struct Script(RefCell<Written>);

#[derive(Debug, Default)]
struct Written {
    at: Place,
    trailers: Option<HeaderMap>,
}

/// Where in a request the last byte from hyper was.
#[derive(Debug)]
enum Place {
    /// In the head, of which this is here.
    Head(Vec<u8>),
    /// In the chunks of a body.
    Chunks(ChunkedDecoder),
    /// In what goes as it comes.
    Rest,
}

impl Default for Place {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Script {
    /// The next byte is the first of a request.
    pub(super) fn begin(&self) {
        self.0.replace(Written::default());
    }

    /// Appends what `bytes` from hyper become.
    fn write(&self, bytes: &[u8], out: &mut Vec<u8>) {
        self.0.borrow_mut().write(bytes, out);
    }
}

impl Written {
    fn write(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            match &mut self.at {
                Place::Rest => {
                    out.extend_from_slice(bytes);
                    return;
                }
                Place::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(bytes);
                    let begin = before.saturating_sub(END.len() - 1);
                    let found = memchr::memmem::find(head.get(begin..).unwrap_or_default(), END);
                    let Some(found) = found else { return };
                    let end = begin + found + END.len();
                    bytes = bytes.get(end - before..).unwrap_or_default();
                    head.truncate(end);
                    out.extend_from_slice(head);
                    self.at = match memchr::memmem::find(head, CHUNKED) {
                        Some(_) => Place::Chunks(ChunkedDecoder::new()),
                        None => Place::Rest,
                    };
                }
                Place::Chunks(decoder) => {
                    let Ok((used, step)) = decoder.step(bytes) else {
                        // Not what hyper writes.
                        self.at = Place::Rest;
                        continue;
                    };
                    let (framing, rest) = bytes.split_at(used);
                    out.extend_from_slice(framing);
                    bytes = rest;
                    match step {
                        Step::More => {}
                        Step::Data(left) => {
                            let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                            let (data, rest) = bytes.split_at(count);
                            out.extend_from_slice(data);
                            decoder.taken(count as u64);
                            bytes = rest;
                        }
                        Step::Trailers => {
                            if let Some(trailers) = self.trailers.take() {
                                encode::fields(out, &trailers);
                            }
                            self.at = Place::Rest;
                        }
                    }
                }
            }
        }
    }
}

const END: &[u8] = b"\r\n\r\n";
/// As hyper writes it.
const CHUNKED: &[u8] = b"\r\ntransfer-encoding: chunked\r\n";

impl BodyObserver for Script {
    fn data(&self, _data: &Bytes) {}

    fn trailers(&self, trailers: &HeaderMap) {
        self.0.borrow_mut().trailers = Some(trailers.clone());
    }

    fn end(&self) {}

    fn error(&self, _error: &BodyError) {}

    fn abandoned(&self) {}
}

/// A stream that goes by a script, if there is one.
#[derive(Debug)]
pub(super) struct Wire<IO> {
    io: IO,
    script: Option<Rc<Script>>,
    /// Written by hyper, and not by us.
    out: Vec<u8>,
    /// Of `out`.
    written: usize,
}

impl<IO> Wire<IO> {
    pub(super) fn new(io: IO, script: Option<Rc<Script>>) -> Self {
        Self {
            io,
            script,
            out: Vec::new(),
            written: 0,
        }
    }

    pub(super) fn into_inner(self) -> IO {
        self.io
    }
}

impl<IO: AsyncWrite + Unpin> Wire<IO> {
    /// Writes what hyper takes for written.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(script) = this.script.clone() else {
            return Pin::new(&mut this.io).poll_write(cx, bytes);
        };
        ready!(this.poll_drain(cx))?;
        script.write(bytes, &mut this.out);
        // What does not go now goes with the next write, or flush.
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.script.is_none() {
            return Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        Pin::new(this).poll_write(cx, first.map_or(&[], |slice| slice))
    }

    fn is_write_vectored(&self) -> bool {
        self.script.is_none() && self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn check(text: &str, has_trailers: bool, expected: &str) {
        for pieces in [1, 2, 3, 7, 1000] {
            let script = Script::default();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-t", HeaderValue::from_static("1"));
            let mut out = Vec::new();
            for request in 0..2 {
                script.begin();
                if has_trailers {
                    script.trailers(&trailers);
                }
                for piece in text.as_bytes().chunks(pieces) {
                    script.write(piece, &mut out);
                }
                let so_far = String::from_utf8_lossy(&out).replace("\r\n", "|");
                assert_eq!(so_far, expected.repeat(request + 1), "{text:?} by {pieces}");
            }
        }
    }

    #[test]
    fn trailers_go_behind_the_last_chunk() {
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunks = "7\r\n0\r\n\r\n0\r\n0\r\n\r\n";
        let written = "POST / HTTP/1.1|host: a|transfer-encoding: chunked||7|0||0|0|";
        check(&format!("{head}{chunks}"), true, &format!("{written}x-t: 1||"));
        check(&format!("{head}{chunks}"), false, &format!("{written}|"));
        let plain = "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n0\r\n\r\n";
        check(plain, true, &plain.replace("\r\n", "|"));
    }
}
