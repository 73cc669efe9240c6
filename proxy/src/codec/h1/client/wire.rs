//! What lies between hyper and the socket, for what hyper does not do: trailers that no `trailer` header named before, and how names are
//! written.
//!
//! The bytes that hyper writes are followed through head and chunks, so that it is known where they end; nothing is looked for in data. Of
//! what comes only heads are looked at.
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::codec::NameCase;
use crate::codec::body::{BodyError, BodyObserver};
use crate::codec::h1::machine::chunked::{ChunkedDecoder, Step};
use crate::codec::h1::machine::encode;
use crate::codec::h1::machine::head_end::HeadEnd;
use crate::codec::names::{Names, Naming};

/// What is done about one exchange besides; observes the body of its request.
#[derive(Debug, Default)]
pub(super) struct Script {
    writes: Cell<bool>,
    reads: Cell<bool>,
    /// Something of the response came.
    heard: Cell<bool>,
    written: RefCell<Written>,
    read: RefCell<Read>,
}

#[derive(Debug, Default)]
struct Written {
    at: Place,
    naming: Option<Naming>,
    trailers: Option<HeaderMap>,
}

#[derive(Debug, Default)]
struct Read {
    /// So far.
    head: BytesMut,
    end: HeadEnd,
    case: NameCase,
    names: Option<Names>,
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
    /// The next byte is the first of a request, whose names are written so. `case`: whether those of its response are kept.
    pub(super) fn begin(&self, naming: Option<Naming>, case: NameCase, passes_trailers: bool) {
        self.heard.set(false);
        let writes = passes_trailers || naming.is_some();
        if writes || self.writes.get() {
            self.writes.set(writes);
            self.written.replace(Written {
                naming,
                ..Written::default()
            });
        }
        if matches!(case, NameCase::Preserve { .. }) {
            self.reads.set(true);
            self.read.replace(Read {
                case,
                ..Read::default()
            });
        }
    }

    /// Something of the response came, if only a part of its head.
    pub(super) fn heard(&self) -> bool {
        self.heard.get()
    }

    /// How the response wrote names, if that is kept.
    pub(super) fn take_names(&self) -> Option<Names> {
        self.read.borrow_mut().names.take()
    }

    /// Appends what `bytes` from hyper become.
    fn write(&self, bytes: &[u8], out: &mut Vec<u8>) {
        self.written.borrow_mut().write(bytes, out);
    }
}

impl Read {
    /// Looks at what came, until a head is whole that none follows, or too long.
    fn look(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let end = self.end.find(&self.head).filter(|end| *end <= MAX_HEAD_BYTES);
            let Some(end) = end else {
                let is_too_long = self.head.len() > MAX_HEAD_BYTES;
                if is_too_long {
                    self.head = BytesMut::new();
                }
                return is_too_long;
            };
            self.end = HeadEnd::default();
            bytes = bytes.get(end - before..).unwrap_or_default();
            let head = self.head.split_to(end).freeze();
            self.head.clear();
            // `HTTP/1.1 1`: another one follows.
            if head.get(9) != Some(&b'1') || head.get(9..12) == Some(b"101") {
                self.names = Names::read(self.case, &head);
                return true;
            }
        }
        false
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
                    let next = match memchr::memmem::find(head, CHUNKED) {
                        Some(_) => Place::Chunks(ChunkedDecoder::new()),
                        None => Place::Rest,
                    };
                    if let Some(naming) = &self.naming {
                        naming.head(head);
                    }
                    out.extend_from_slice(head);
                    self.at = next;
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

/// A longer one hyper does not take either.
const MAX_HEAD_BYTES: usize = 8192 + 4096 * 100;
const END: &[u8] = b"\r\n\r\n";
/// As hyper writes it.
const CHUNKED: &[u8] = b"\r\ntransfer-encoding: chunked\r\n";

impl BodyObserver for Script {
    fn data(&self, _data: &Bytes) {}

    fn trailers(&self, trailers: &HeaderMap) {
        self.written.borrow_mut().trailers = Some(trailers.clone());
    }

    fn end(&self) {}

    fn error(&self, _error: &BodyError) {}

    fn abandoned(&self) {}
}

/// A stream that goes by a script, if there is one.
#[derive(Debug)]
pub(super) struct Wire<IO> {
    io: IO,
    script: Rc<Script>,
    /// Written by hyper, and not by us.
    out: Vec<u8>,
    /// Of `out`.
    written: usize,
}

impl<IO> Wire<IO> {
    pub(super) fn new(io: IO, script: Rc<Script>) -> Self {
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
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let script = &self.script;
        let came = buffer.filled().get(before..).unwrap_or_default();
        if !came.is_empty() {
            script.heard.set(true);
        }
        if script.reads.get() {
            let is_whole = script.read.borrow_mut().look(came);
            script.reads.set(!is_whole);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.out.is_empty() {
            ready!(this.poll_drain(cx))?;
        }
        if !this.script.writes.get() {
            return Pin::new(&mut this.io).poll_write(cx, bytes);
        }
        this.script.write(bytes, &mut this.out);
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
        if !this.script.writes.get() && this.out.is_empty() {
            return Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        Pin::new(this).poll_write(cx, first.map_or(&[], |slice| slice))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
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
                script.begin(None, NameCase::Lower, true);
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

    #[test]
    fn nothing_is_kept_of_what_follows_a_head() {
        let case = NameCase::Preserve { others_proper: false };
        let check = |text: &str, is_whole: bool, kept: usize, names: Option<&str>| {
            for pieces in [1, 7, 1000] {
                let mut read = Read {
                    case,
                    ..Read::default()
                };
                let looked = text.as_bytes().chunks(pieces).any(|piece| read.look(piece));
                assert_eq!(
                    (looked, read.head.len()),
                    (is_whole, kept),
                    "{text:?} by {pieces}"
                );
                let expected =
                    names.and_then(|head| Names::read(case, &Bytes::copy_from_slice(head.as_bytes())));
                assert_eq!(read.names, expected, "{text:?} by {pieces}");
            }
        };
        for end in ["\r\n\r\n", "\n\n", "\n\r\n"] {
            let text = format!("HTTP/1.1 200 Yes\nX-Up: 1{end}");
            check(&text, true, 0, Some("\nX-Up: 1"));
            check(
                &format!("HTTP/1.1 103 More{end}{text}"),
                true,
                0,
                Some("\nX-Up: 1"),
            );
            check(
                &format!("{text}{}", "body\n".repeat(1000)),
                true,
                0,
                Some("\nX-Up: 1"),
            );
        }
        check("HTTP/1.1 200 Yes\nX", false, 18, None);
        check(&"x".repeat(MAX_HEAD_BYTES + 1000), true, 0, None);
    }
}
