//! A body that is made of another one, piece by piece.
use std::collections::VecDeque;
use std::fmt::Debug;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};

use super::{Body, BodyError};

/// What becomes of a body's pieces.
pub(crate) trait Transform: Debug {
    /// What goes in the place of a piece; empty: nothing so far.
    ///
    /// # Errors
    /// The body ends here.
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        Ok(data)
    }

    /// What goes after the last piece.
    ///
    /// # Errors
    /// The body ends here.
    fn end(&mut self) -> Result<Bytes, BodyError> {
        Ok(Bytes::new())
    }

    /// Trailers pass, after [`Self::end`].
    fn trailers(&mut self, _trailers: &mut HeaderMap) {}
}

/// The body and what it becomes.
#[derive(Debug)]
pub(super) struct Transformed {
    body: Body,
    transform: Box<dyn Transform>,
    /// Goes out before anything else is read.
    made: VecDeque<Frame<Bytes>>,
    ended: bool,
}

impl Transformed {
    pub(super) fn new(body: Body, transform: Box<dyn Transform>) -> Self {
        Self {
            body,
            transform,
            made: VecDeque::new(),
            ended: false,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(frame) = self.made.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose();
            let taken = frame.and_then(|frame| self.take(frame));
            if let Err(error) = taken.and_then(|()| self.end_early()) {
                self.ended = true;
                self.made.clear();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    fn take(&mut self, frame: Option<Frame<Bytes>>) -> Result<(), BodyError> {
        let Some(frame) = frame else { return self.end() };
        match frame.into_data() {
            Ok(data) => {
                let made = self.transform.data(data)?;
                self.put(made);
            }
            Err(frame) => {
                self.end()?;
                if let Ok(mut trailers) = frame.into_trailers() {
                    self.transform.trailers(&mut trailers);
                    self.made.push_back(Frame::trailers(trailers));
                }
            }
        }
        Ok(())
    }

    /// That was the last piece, and it is known to be: a reader that knows the length may never ask for the end.
    fn end_early(&mut self) -> Result<(), BodyError> {
        match !self.ended && self.body.is_end_stream() {
            true => self.end(),
            false => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), BodyError> {
        self.ended = true;
        let rest = self.transform.end()?;
        self.put(rest);
        Ok(())
    }

    fn put(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.made.push_back(Frame::data(data));
        }
    }

    /// Nothing more comes.
    pub(super) fn is_whole(&self) -> bool {
        self.ended && self.made.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ReplaySource;
    use super::super::tests::collect;
    use super::*;

    #[derive(Debug, Default)]
    struct Doubled(Vec<u8>);

    impl Transform for Doubled {
        fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
            if data == "bad" {
                return Err(BodyError::Ended("it is bad"));
            }
            self.0.extend_from_slice(&data);
            Ok(data)
        }
        fn end(&mut self) -> Result<Bytes, BodyError> {
            Ok(std::mem::take(&mut self.0).into())
        }
    }

    fn body(chunks: &[&'static str]) -> Body {
        let chunks = chunks.iter().map(|chunk| Bytes::from_static(chunk.as_bytes()));
        let whole = ReplaySource::whole(chunks.collect(), None);
        let body = whole.attempt().expect("nothing was let go");
        body.transformed(Box::<Doubled>::default())
    }

    #[tokio::test]
    async fn what_is_made_comes_in_order_and_the_rest_at_the_end() {
        assert_eq!(collect(body(&["ab", "", "c"])).await.expect("whole"), b"abcabc");
        assert_eq!(collect(body(&[])).await.expect("whole"), b"");
    }

    #[tokio::test]
    async fn the_end_is_known_with_the_last_piece() {
        let mut body = Body::full("ab").transformed(Box::<Doubled>::default());
        for is_end in [false, true] {
            let frame = body.frame().await.expect("a frame").expect("no error");
            assert_eq!(frame.into_data().expect("data"), "ab");
            assert_eq!(body.is_end_stream(), is_end);
        }
    }

    #[tokio::test]
    async fn a_piece_that_cannot_be_taken_ends_the_body() {
        assert!(collect(body(&["ab", "bad"])).await.is_err());
    }
}
