//! A body that is made while it is sent.
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

use super::BodyError;

/// Pieces, and a rest that is there when no more come.
pub(super) struct Made {
    first: Option<Bytes>,
    pieces: mpsc::Receiver<Bytes>,
    rest: Option<Pin<Box<dyn Future<Output = Option<Bytes>>>>>,
}

impl Made {
    pub(super) fn new(
        first: Bytes,
        pieces: mpsc::Receiver<Bytes>,
        rest: impl Future<Output = Option<Bytes>> + 'static,
    ) -> Self {
        Self {
            first: Some(first),
            pieces,
            rest: Some(Box::pin(rest)),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(piece) = ready!(self.pieces.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let rest = ready!(rest.as_mut().poll(cx));
        self.rest = None;
        // Whoever reads it must not take it for whole.
        Poll::Ready(Some(
            rest.map(Frame::data)
                .ok_or(BodyError::Ended("the answer could not be made")),
        ))
    }
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").finish_non_exhaustive()
    }
}
