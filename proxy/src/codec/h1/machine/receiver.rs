//! What a client sends on one connection: heads and bodies, one after the other.
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::chunked::{ChunkedDecoder, Step};
use super::fields;
use super::head_end::HeadEnd;
use super::request::{self, Framing, HeadLimits, Reason, ReceivedHead};
use super::request_line::cannot_begin;
use crate::codec::head::clean_trailers;
use crate::codec::names::Names;
use crate::codec::{Refusal, Underscores};

/// Takes requests off the front of a buffer. After a refusal nothing more comes of the connection.
#[derive(Debug)]
pub(in crate::codec::h1) struct Receiver {
    limits: HeadLimits,
    state: State,
    /// Of the last head, if they are kept.
    names: Option<Names>,
}

#[derive(Debug)]
enum State {
    /// Before or in a head.
    Head { end: HeadEnd, first_line_is_good: bool },
    /// In a body of this many bytes more.
    Length { left: u64 },
    /// In a chunked body.
    Chunked(ChunkedDecoder),
    /// In the trailers of one.
    Trailers(HeadEnd),
    /// Behind a CONNECT.
    Tunnel,
    /// After a refusal.
    Refused,
}

impl State {
    fn head() -> Self {
        Self::Head {
            end: HeadEnd::default(),
            first_line_is_good: false,
        }
    }
}

/// Something of a body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::codec::h1) enum Piece {
    /// Never empty.
    Data(Bytes),
    /// Its end, with trailers; at least one.
    Trailers(HeaderMap),
    /// Its end.
    End,
}

impl Receiver {
    /// At the begin of a connection.
    pub(in crate::codec::h1) fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            state: State::head(),
            names: None,
        }
    }

    /// How the last head wrote names, if that is kept.
    pub(in crate::codec::h1) fn take_names(&mut self) -> Option<Names> {
        self.names.take()
    }

    /// The next head, once it is here whole. To be called when the body before it was taken.
    ///
    /// # Errors
    /// What was sent is no request.
    pub(in crate::codec::h1) fn head(
        &mut self,
        buffer: &mut BytesMut,
    ) -> Result<Option<ReceivedHead>, Refusal> {
        let head = self.take_head(buffer).map_err(|reason| self.refuse(reason))?;
        if let Some(head) = &head {
            self.state = match head.framing {
                Framing::Length(0) => State::head(),
                Framing::Length(left) => State::Length { left },
                Framing::Chunked => State::Chunked(ChunkedDecoder::new()),
                Framing::Tunnel => State::Tunnel,
            };
        }
        Ok(head)
    }

    /// No body is under way.
    pub(in crate::codec::h1) fn is_whole(&self) -> bool {
        matches!(self.state, State::Head { .. })
    }

    /// More of the body; `None`: more bytes must come. [`Piece::End`] of a body whose length is known comes with its last data already in
    /// [`Self::is_whole`].
    ///
    /// # Errors
    /// Its chunks are none.
    pub(in crate::codec::h1) fn body(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, Refusal> {
        self.take_body(buffer).map_err(|reason| self.refuse(reason))
    }

    fn refuse(&mut self, reason: Reason) -> Refusal {
        self.state = State::Refused;
        reason.refusal()
    }

    fn take_head(&mut self, buffer: &mut BytesMut) -> Result<Option<ReceivedHead>, Reason> {
        let State::Head {
            end,
            first_line_is_good,
        } = &mut self.state
        else {
            return Err(Reason::Codec);
        };
        // RFC 9112 §2.2: empty lines before a request are passed over.
        while matches!(buffer.first(), Some(b'\r' | b'\n')) {
            buffer.advance(1);
        }
        let Some(first) = buffer.first() else {
            return Ok(None);
        };
        if cannot_begin(*first) {
            return Err(Reason::Codec);
        }
        let max = self.limits.max_bytes;
        let Some(head_end) = end.find(buffer).filter(|head_end| *head_end <= max) else {
            // Who does not speak HTTP is told so without waiting for an empty line.
            let first_line = end
                .first_line_end()
                .filter(|line_end| *line_end <= max && !*first_line_is_good);
            if let Some(line_end) = first_line {
                request::begins_badly(buffer.get(..line_end).unwrap_or_default())?;
                *first_line_is_good = true;
            }
            return if buffer.len() > max {
                Err(Reason::HeadersTooLarge)
            } else {
                Ok(None)
            };
        };
        let head = buffer.split_to(head_end).freeze();
        let parsed = request::parse(&head, &self.limits)?;
        self.names = Names::read(self.limits.name_case, &head);
        Ok(Some(parsed))
    }

    fn take_body(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, Reason> {
        loop {
            match &mut self.state {
                State::Head { .. } => return Ok(Some(Piece::End)),
                State::Refused => return Err(Reason::Codec),
                State::Tunnel => {
                    let data = take(buffer, u64::MAX);
                    return Ok((!data.is_empty()).then_some(Piece::Data(data)));
                }
                State::Length { left } => {
                    let data = take(buffer, *left);
                    *left -= data.len() as u64;
                    if *left == 0 {
                        self.state = State::head();
                    }
                    return Ok((!data.is_empty()).then_some(Piece::Data(data)));
                }
                State::Chunked(decoder) => {
                    let (used, step) = decoder.step(buffer)?;
                    buffer.advance(used);
                    match step {
                        Step::More => return Ok(None),
                        Step::Data(left) => {
                            let data = take(buffer, left);
                            decoder.taken(data.len() as u64);
                            return Ok(Some(Piece::Data(data)));
                        }
                        Step::Trailers => self.state = State::Trailers(HeadEnd::default()),
                    }
                }
                State::Trailers(_) => return self.take_trailers(buffer),
            }
        }
    }

    /// Looks at trailers and, as Envoy without `enable_trailers`, lets go of them.
    fn take_trailers(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, Reason> {
        let State::Trailers(end) = &mut self.state else {
            return Ok(None);
        };
        let length = match &buffer[..] {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            [] | [b'\r'] => return Ok(None),
            _ => match end.find(buffer) {
                Some(length) => length,
                None if buffer.len() > self.limits.max_bytes => return Err(Reason::HeadersTooLarge),
                None => return Ok(None),
            },
        };
        if length > self.limits.max_bytes {
            return Err(Reason::HeadersTooLarge);
        }
        let trailers = buffer.split_to(length).freeze();
        let passes = self.limits.passes_trailers;
        let underscores = if passes {
            &self.limits.underscores
        } else {
            &Underscores::Allow
        };
        let mut trailers = fields::parse(&trailers, self.limits.max_headers, underscores)?;
        self.state = State::head();
        if passes {
            clean_trailers(&mut trailers);
        }
        Ok(Some(match passes && !trailers.is_empty() {
            true => Piece::Trailers(trailers),
            false => Piece::End,
        }))
    }
}

/// At most `limit` bytes off the front.
fn take(buffer: &mut BytesMut, limit: u64) -> Bytes {
    let count = usize::try_from(limit).unwrap_or(usize::MAX).min(buffer.len());
    buffer.split_to(count).freeze()
}
