//! The messages in the body of a gRPC response, decoded from the pieces in which they arrived.
//!
//! A push of a large mesh is ten megabytes. tonic's decoder gathers each message in one buffer, and keeps that buffer as long as the
//! stream lives; here the pieces go as soon as what was decoded from them does. Source: the gRPC over HTTP/2 protocol,
//! "Length-Prefixed-Message" and "Responses"; codes for a missing status from "http-grpc-status-mapping".

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use futures_util::Stream;
use http_body::Body;
use prost::bytes::{Buf, BufMut as _, Bytes, BytesMut};
use tonic::codegen::http::{HeaderMap, StatusCode};
use tonic::{Code, Status};

/// Before each message: one byte that says whether it is compressed, four of its length.
const PREFIX_BYTES: usize = 5;

/// A stream of messages; ends with the error that the call ended with, or without one.
pub(super) struct Messages<B, R> {
    body: B,
    http_status: StatusCode,
    /// The headers had the status, so no trailers have to come.
    has_status: bool,
    max_message_bytes: usize,
    pieces: Pieces,
    /// Of the message that is under way.
    length: Option<usize>,
    has_ended: bool,
    message: PhantomData<fn() -> R>,
}

impl<B, R> Messages<B, R>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
    R: prost::Message + Default,
{
    pub(super) fn new(body: B, http_status: StatusCode, has_status: bool, max_message_bytes: usize) -> Self {
        Self {
            body,
            http_status,
            has_status,
            max_message_bytes,
            pieces: Pieces::default(),
            length: None,
            has_ended: false,
            message: PhantomData,
        }
    }

    /// The next message, if all of it is there.
    fn take(&mut self) -> Result<Option<R>, Status> {
        let length = match self.length {
            Some(length) => length,
            None if self.pieces.left < PREFIX_BYTES => return Ok(None),
            None => {
                let length = self.prefix()?;
                *self.length.insert(length)
            }
        };
        if self.pieces.left < length {
            return Ok(None);
        }
        self.length = None;
        let message = R::decode((&mut self.pieces).take(length));
        let message = message.map_err(|error| Status::internal(format!("malformed message: {error}")))?;
        Ok(Some(message))
    }

    fn prefix(&mut self) -> Result<usize, Status> {
        if self.pieces.get_u8() != 0 {
            return Err(Status::internal("a compressed message, which was not asked for"));
        }
        let length = usize::try_from(self.pieces.get_u32()).unwrap_or(usize::MAX);
        let limit = self.max_message_bytes;
        if length > limit {
            let reason = format!("a message of {length} bytes, the limit is {limit} bytes");
            return Err(Status::out_of_range(reason));
        }
        Ok(length)
    }

    fn poll(&mut self, context: &mut task::Context<'_>) -> Poll<Result<Option<R>, Status>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
                return Poll::Ready(self.end(None));
            };
            match frame?.into_data() {
                Ok(data) => self.pieces.push(data),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(self.end(Some(&trailers)));
                    }
                }
            }
        }
    }

    /// What the end of the body means.
    fn end(&self, trailers: Option<&HeaderMap>) -> Result<Option<R>, Status> {
        match trailers.and_then(Status::from_header_map) {
            Some(status) if status.code() != Code::Ok => Err(status),
            _ if self.pieces.left > 0 || self.length.is_some() => {
                Err(Status::internal("the stream ended within a message"))
            }
            Some(_) => Ok(None),
            None if self.has_status => Ok(None),
            None => Err(without_status(self.http_status)),
        }
    }
}

impl<B, R> Stream for Messages<B, R>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
    R: prost::Message + Default,
{
    type Item = Result<R, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll(context)).transpose();
        self.has_ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

fn without_status(http: StatusCode) -> Status {
    let code = match http {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(
        code,
        format!("the stream ended without a status; HTTP status {http}"),
    )
}

/// Bytes in the pieces in which they came.
#[derive(Default)]
struct Pieces {
    /// None of them is empty.
    pieces: VecDeque<Bytes>,
    left: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.left += piece.len();
            self.pieces.push_back(piece);
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.left, "advanced over the end");
        self.left -= count;
        while count > 0 {
            let Some(first) = self.pieces.front_mut() else {
                return;
            };
            if first.len() > count {
                return first.advance(count);
            }
            count -= first.len();
            self.pieces.pop_front();
        }
    }

    /// A part of one piece as it is; copied if it is in several.
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        assert!(count <= self.left, "copied over the end");
        match self.pieces.front_mut() {
            Some(first) if first.len() > count => {
                self.left -= count;
                first.split_to(count)
            }
            _ => {
                let mut copied = BytesMut::with_capacity(count);
                copied.put(Buf::take(self, count));
                copied.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::StreamExt as _;
    use http_body::Frame;
    use prost::Message as _;

    use super::*;
    use crate::{Any, SotwResponse};

    /// Frames that are there from the beginning.
    struct Frames(VecDeque<Result<Frame<Bytes>, Status>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    fn message(values: &[&[u8]]) -> SotwResponse {
        let any = |value: &&[u8]| Any {
            type_url: "t".into(),
            value: value.to_vec().into(),
        };
        SotwResponse {
            nonce: "n".to_owned(),
            resources: values.iter().map(any).collect(),
            ..SotwResponse::default()
        }
    }

    fn framed(messages: &[SotwResponse]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.put_u8(0);
            bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
            message.encode(&mut bytes).unwrap();
        }
        bytes
    }

    fn trailers(status: &str) -> Frame<Bytes> {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        Frame::trailers(trailers)
    }

    /// All messages of a body of such pieces and their end: the code, `None` without an error.
    fn read(pieces: &[&[u8]], last: Option<Frame<Bytes>>) -> (Vec<SotwResponse>, Option<Code>) {
        let data = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))));
        let body = Frames(data.chain(last.map(Ok)).collect());
        let messages = Messages::<_, SotwResponse>::new(body, StatusCode::OK, false, 1000);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(messages.collect::<Vec<_>>());
        let (good, bad): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
        assert!(bad.len() < 2, "ended twice: {bad:?}");
        let code = bad.first().map(|end| end.as_ref().unwrap_err().code());
        (good.into_iter().map(Result::unwrap).collect(), code)
    }

    #[test]
    fn messages_are_the_same_in_whatever_pieces_they_come() {
        let expected = [
            message(&[b"one", b"two"]),
            message(&[]),
            message(&[&[7; 300], b"", b"x"]),
        ];
        let bytes = framed(&expected);
        for size in [1, 2, 3, 7, 64, 310, bytes.len()] {
            let pieces: Vec<_> = bytes.chunks(size).collect();
            let read = read(&pieces, Some(trailers("0")));
            assert_eq!(read, (expected.to_vec(), None), "pieces of {size}");
        }
    }

    #[test]
    fn the_end_is_what_the_status_says() {
        let one = framed(&[message(&[b"a"])]);
        let check = |pieces: &[&[u8]], last: Option<Frame<Bytes>>, messages: usize, code: Option<Code>| {
            let (read, end) = read(pieces, last);
            assert_eq!((read.len(), end), (messages, code), "{pieces:?}");
        };
        check(&[&one], Some(trailers("0")), 1, None);
        check(&[&one], Some(trailers("14")), 1, Some(Code::Unavailable));
        check(&[&one], None, 1, Some(Code::Unknown));
        check(&[&one, &one[..3]], Some(trailers("0")), 1, Some(Code::Internal));
        check(&[&one[..7]], Some(trailers("0")), 0, Some(Code::Internal));
        check(&[&one[..7]], Some(trailers("14")), 0, Some(Code::Unavailable));
        check(&[&[1, 0, 0, 0, 0]], Some(trailers("0")), 0, Some(Code::Internal));
        check(
            &[&[0, 0, 0, 4, 0]],
            Some(trailers("0")),
            0,
            Some(Code::OutOfRange),
        );
        check(
            &[&[0, 0, 0, 0, 2, 9, 9]],
            Some(trailers("0")),
            0,
            Some(Code::Internal),
        );
    }
}
