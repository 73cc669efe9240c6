//! Message bodies: one enum over the sources, no boxing of frames.
//!
//! [`BodyObserver`]s see bytes pass, trailers, the end, an error or an early drop: that is how byte counts, access logs and timeouts
//! follow a body without another layer. A body has at most a few: its
//! connection's, and its stream's.
mod copied;
mod made;
mod pace;
mod replay;
mod transformed;

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use smallvec::SmallVec;
use tokio::sync::mpsc;

use copied::Copied;
pub(crate) use copied::{CopyWriter, Ending};
use made::Made;
use pace::Pace;
use replay::Replay;
pub(crate) use replay::ReplaySource;
pub(crate) use transformed::Transform;
use transformed::Transformed;

use super::h2::UNEXPECTED_UNDERSCORE;
use super::head::clean_trailers;
use super::tunnel::Tunnel;
use super::{Feedback, Underscores};

/// A body.
#[derive(Debug)]
pub(crate) struct Body {
    source: Source,
    observers: Observers,
    finished: bool,
    /// Trailers are for observers alone.
    ends_at_trailers: bool,
    /// Bytes that are still to come, if the head says.
    left: Option<u64>,
    /// Observers have heard of the end.
    is_told: bool,
}

#[derive(Debug)]
enum Source {
    Empty,
    Full(Option<Bytes>),
    /// Whether trailers are of use.
    H1(hyper::body::Incoming, bool),
    Incoming(Incoming),
    H2(::h2::RecvStream, Option<TrailerCheck>),
    Replay(Replay),
    Tunnel(Box<Tunnel>),
    Paced(Box<Pace>),
    Made(Made),
    Copied(Copied),
    Transformed(Box<Transformed>),
}

/// What is held against the trailers of a request.
#[derive(Debug)]
pub(super) struct TrailerCheck {
    pub(super) underscores: Underscores,
    /// Hears of a request that is refused.
    pub(super) feedback: Feedback,
}

impl TrailerCheck {
    fn clean(&self, trailers: &mut HeaderMap) -> Result<(), BodyError> {
        self.underscores.clean(trailers).map_err(|unwanted| {
            self.feedback.cut(UNEXPECTED_UNDERSCORE);
            BodyError::Reset(unwanted.to_string())
        })
    }
}

/// A body that a server connection reads when it is asked for.
pub(super) trait IncomingBody: std::fmt::Debug {
    /// The next piece; never empty. Not to be asked again after an end, which may also be told by [`Self::is_whole`].
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;
    /// The last piece was given out.
    fn is_whole(&self) -> bool;
    /// Nobody asks for the rest.
    fn abandon(&self);
}

#[derive(Debug)]
struct Incoming {
    connection: Rc<dyn IncomingBody>,
    /// What comes next on the connection is no part of this body.
    ended: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.abandon();
        }
    }
}

impl Incoming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.connection.poll_frame(cx));
        self.ended = !matches!(frame, Some(Ok(_))) || self.connection.is_whole();
        Poll::Ready(frame)
    }
}

/// Some of those who watch a body.
pub(super) type Observers = SmallVec<[Rc<dyn BodyObserver>; 2]>;

/// A body ended before its end.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection that it came from failed or was closed.
    #[error("connection closed inside the body: {0}")]
    Connection(String),
    /// The connection was closed before the length that the head promised.
    #[error("body shorter than its head said: {0}")]
    Incomplete(String),
    /// The peer reset the stream.
    #[error("stream reset by the peer: {0}")]
    Reset(String),
    /// A limit of this proxy ended it.
    #[error("{0}")]
    Ended(&'static str),
}

/// Watches a body go by.
pub(crate) trait BodyObserver: std::fmt::Debug {
    /// A piece of data passed.
    fn data(&self, data: &Bytes);
    /// Trailers passed.
    fn trailers(&self, _trailers: &HeaderMap) {}
    /// The body ended in order.
    fn end(&self);
    /// The body failed.
    fn error(&self, error: &BodyError);
    /// Nobody reads it any more, before its end.
    fn abandoned(&self);
    /// [`Self::interrupt`] may have an answer.
    fn may_interrupt(&self) -> bool {
        false
    }
    /// Asked before each frame, and while the reader of the body takes none: an error ends the body here (a timeout, say); all observers then hear of it. Registers `cx` to be woken
    /// when the answer changes.
    fn interrupt(&self, _cx: &mut Context<'_>) -> Option<BodyError> {
        None
    }
}

impl Body {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self::new(Source::Empty)
    }

    /// One piece.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::new(if bytes.is_empty() {
            Source::Empty
        } else {
            Source::Full(Some(bytes))
        })
    }

    /// What another thread makes: `first`, what comes through `pieces`, and at their end `rest`; `None` of it: it could not be made.
    pub(crate) fn made(
        first: Bytes,
        pieces: mpsc::Receiver<Bytes>,
        rest: impl Future<Output = Option<Bytes>> + 'static,
    ) -> Self {
        Self::new(Source::Made(Made::new(first, pieces, rest)))
    }

    /// A copy of another body, of which at most so many bytes wait to be read.
    pub(crate) fn copied(most_bytes: usize) -> (Self, CopyWriter) {
        copied::copied(most_bytes)
    }

    pub(super) fn h1(incoming: hyper::body::Incoming, passes_trailers: bool) -> Self {
        use http_body::Body as _;
        Self::new(if incoming.is_end_stream() {
            Source::Empty
        } else {
            Source::H1(incoming, passes_trailers)
        })
    }

    pub(super) fn incoming(connection: Rc<dyn IncomingBody>) -> Self {
        Self::new(Source::Incoming(Incoming {
            connection,
            ended: false,
        }))
    }

    /// Of a message; a request may have a check for its trailers.
    pub(super) fn h2(stream: ::h2::RecvStream, check: Option<TrailerCheck>) -> Self {
        Self::new(if stream.is_end_stream() {
            Source::Empty
        } else {
            Source::H2(stream, check)
        })
    }

    /// The head says how long it is: observers hear of the end with the last byte. A reader that knows the length as well may ask for
    /// nothing more, and the frame that ends the stream may come late.
    pub(super) fn of_length(mut self, length: Option<u64>) -> Self {
        self.left = length;
        self
    }

    pub(super) fn tunnel(tunnel: Tunnel) -> Self {
        Self::new(Source::Tunnel(Box::new(tunnel)))
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            observers: Observers::new(),
            finished: false,
            ends_at_trailers: false,
            left: None,
            is_told: false,
        }
    }

    /// For a reader who could make nothing of trailers.
    pub(super) fn without_trailers(mut self) -> Self {
        self.ends_at_trailers = true;
        self
    }

    /// There is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.source, Source::Empty)
    }

    /// Adds an observer, which hears of everything after those before it.
    pub(crate) fn observe(mut self, observer: Rc<dyn BodyObserver>) -> Self {
        self.observers.push(observer);
        self
    }

    /// The observers that may end it early; for a codec that waits for something else than the next frame.
    pub(super) fn watchdogs(&self) -> Observers {
        let watchdogs = self.observers.iter().filter(|observer| observer.may_interrupt());
        watchdogs.cloned().collect()
    }

    /// The same bytes, at most so many a second.
    pub(crate) fn paced(self, bytes_per_second: u64) -> Self {
        if self.is_empty() {
            return self;
        }
        Self::new(Source::Paced(Box::new(Pace::new(self, bytes_per_second))))
    }

    /// What `transform` makes of it; of an empty body nothing is made.
    pub(crate) fn transformed(self, transform: Box<dyn Transform>) -> Self {
        if self.is_empty() {
            return self;
        }
        Self::new(Source::Transformed(Box::new(Transformed::new(self, transform))))
    }

    /// Reads all of it, if it has at most so many bytes.
    pub(crate) async fn gather(mut self, max_bytes: usize) -> Gathered {
        let mut chunks = VecDeque::new();
        let (mut bytes, mut trailers) = (0, None);
        while let Some(frame) = self.frame().await {
            let Ok(frame) = frame else {
                return Gathered::Broken;
            };
            match frame.into_data() {
                Ok(data) => {
                    bytes += data.len();
                    if bytes > max_bytes {
                        return Gathered::TooLarge;
                    }
                    chunks.push_back(data);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        match ReplaySource::whole(chunks, trailers).attempt() {
            Some(body) => Gathered::Whole { body, bytes },
            None => Gathered::Broken,
        }
    }

    /// Next frame, `None` at the end.
    pub(crate) async fn frame(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(self), cx)).await
    }

    /// That was the last of the bytes that the head told of.
    fn is_at_length(&mut self, frame: &Option<Result<Frame<Bytes>, BodyError>>) -> bool {
        let (Some(left), Some(Ok(frame))) = (&mut self.left, frame) else {
            return false;
        };
        *left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        *left == 0
    }

    fn tell_end(&mut self) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.observers.iter().for_each(|observer| observer.end());
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::H1(incoming, passes_trailers) => {
                let frame = ready!(http_body::Body::poll_frame(Pin::new(incoming), cx));
                // As Envoy without `enable_trailers`.
                let frame = frame.filter(|frame| *passes_trailers || !is_trailers(frame));
                Poll::Ready(frame.map(|frame| match frame {
                    Ok(mut frame) => {
                        frame.trailers_mut().into_iter().for_each(clean_trailers);
                        Ok(frame)
                    }
                    Err(error) => Err(h1_error(&error)),
                }))
            }
            Source::Incoming(incoming) => incoming.poll(cx),
            Source::H2(stream, check) => poll_h2(stream, check.as_ref(), cx),
            Source::Replay(replay) => replay.poll(cx),
            Source::Tunnel(tunnel) => tunnel.poll(cx).map(|data| data.map(|data| data.map(Frame::data))),
            Source::Paced(pace) => pace.poll(cx),
            Source::Made(made) => made.poll(cx),
            Source::Copied(copied) => copied.poll(cx),
            Source::Transformed(transformed) => transformed.poll(cx),
        }
    }
}

/// What came of reading a body to its end.
#[derive(Debug)]
pub(crate) enum Gathered {
    /// All of it.
    Whole {
        /// The same body.
        body: Body,
        /// Of its data.
        bytes: usize,
    },
    /// It has more bytes than it may.
    TooLarge,
    /// It has no end.
    Broken,
}

/// Asks all observers whether the body has to end here; if so, all of them hear of it.
pub(super) fn poll_interruption(observers: &Observers, cx: &mut Context<'_>) -> Poll<BodyError> {
    let Some(error) = observers.iter().find_map(|observer| observer.interrupt(cx)) else {
        return Poll::Pending;
    };
    observers.iter().for_each(|observer| observer.error(&error));
    Poll::Ready(error)
}

fn is_trailers<E>(frame: &Result<Frame<Bytes>, E>) -> bool {
    frame.as_ref().is_ok_and(Frame::is_trailers)
}

fn h1_error(error: &hyper::Error) -> BodyError {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let cut = cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::UnexpectedEof);
    let text = describe(error);
    if cut || error.is_incomplete_message() {
        BodyError::Incomplete(text)
    } else {
        BodyError::Connection(text)
    }
}

/// An error with its causes in one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn poll_h2(
    stream: &mut ::h2::RecvStream,
    check: Option<&TrailerCheck>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    if let Some(data) = ready!(stream.poll_data(cx)) {
        return Poll::Ready(Some(data.map_err(h2_error).map(|bytes| {
            // The window opens as bytes leave here: what the other side reads slowly, this side receives slowly.
            let _ = stream.flow_control().release_capacity(bytes.len());
            Frame::data(bytes)
        })));
    }
    Poll::Ready(match ready!(stream.poll_trailers(cx)) {
        Ok(trailers) => trailers.map(|mut trailers| {
            check.map_or(Ok(()), |check| check.clean(&mut trailers))?;
            Ok(Frame::trailers(trailers))
        }),
        Err(error) => Some(Err(h2_error(error))),
    })
}

fn h2_error(error: ::h2::Error) -> BodyError {
    if error.is_reset() || error.is_library() {
        BodyError::Reset(error.to_string())
    } else {
        BodyError::Connection(error.to_string())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.finished {
            return Poll::Ready(None);
        }
        if let Poll::Ready(error) = poll_interruption(&this.observers, cx) {
            this.finished = true;
            return Poll::Ready(Some(Err(error)));
        }
        let mut frame = ready!(this.poll_source(cx));
        for observer in &this.observers {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        observer.data(data);
                    } else if let Some(trailers) = frame.trailers_ref() {
                        observer.trailers(trailers);
                    }
                }
                Some(Err(error)) => observer.error(error),
                None => {}
            }
        }
        if this.ends_at_trailers && frame.as_ref().is_some_and(is_trailers) {
            frame = None;
        }
        if frame.is_none() || this.is_at_length(&frame) {
            this.tell_end();
        }
        this.finished = matches!(frame, None | Some(Err(_)));
        // The last byte of a known length, or a frame that ends the stream, is an end that nobody has to ask for.
        let is_last = match &this.source {
            Source::Incoming(incoming) => incoming.ended,
            Source::H2(stream, _) => stream.is_end_stream(),
            Source::Transformed(transformed) => transformed.is_whole(),
            _ => false,
        };
        if !this.finished && is_last {
            this.tell_end();
            this.finished = true;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // The observer of a body that is never polled hears of the end when it is dropped.
        match &self.source {
            Source::Empty | Source::Full(None) => true,
            Source::Incoming(incoming) => self.finished || incoming.ended,
            Source::Paced(pace) => self.finished || pace.is_end_stream(),
            Source::Transformed(transformed) => self.finished || transformed.is_whole(),
            Source::Full(Some(_))
            | Source::H1(..)
            | Source::H2(..)
            | Source::Replay(_)
            | Source::Tunnel(_)
            | Source::Made(_)
            | Source::Copied(_) => self.finished,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty | Source::Full(None) => SizeHint::with_exact(0),
            Source::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Source::H1(incoming, _) => incoming.size_hint(),
            Source::H2(..)
            | Source::Replay(_)
            | Source::Incoming(_)
            | Source::Tunnel(_)
            | Source::Paced(_)
            | Source::Made(_)
            | Source::Copied(_)
            | Source::Transformed(_) => SizeHint::default(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.finished || self.is_told {
            return;
        }
        // hyper does not poll a body that it knows to be empty or fully written: that is an end, not a loss.
        let whole = match &self.source {
            Source::Empty | Source::Full(None) => true,
            Source::H1(incoming, _) => http_body::Body::is_end_stream(incoming),
            Source::H2(stream, _) => stream.is_end_stream(),
            Source::Incoming(incoming) => incoming.ended,
            Source::Paced(pace) => pace.is_end_stream(),
            Source::Transformed(transformed) => transformed.is_whole(),
            Source::Full(Some(_))
            | Source::Replay(_)
            | Source::Tunnel(_)
            | Source::Made(_)
            | Source::Copied(_) => false,
        };
        for observer in &self.observers {
            if whole {
                observer.end()
            } else {
                observer.abandoned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    pub(super) async fn collect(mut body: Body) -> Result<Vec<u8>, BodyError> {
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                all.extend_from_slice(&data);
            }
        }
        Ok(all)
    }

    #[derive(Debug, Default)]
    struct Heard(RefCell<Vec<String>>);
    impl BodyObserver for Heard {
        fn data(&self, data: &Bytes) {
            self.0.borrow_mut().push(format!("data {}", data.len()));
        }
        fn end(&self) {
            self.0.borrow_mut().push("end".into());
        }
        fn error(&self, error: &BodyError) {
            self.0.borrow_mut().push(format!("error {error}"));
        }
        fn abandoned(&self) {
            self.0.borrow_mut().push("abandoned".into());
        }
    }

    #[tokio::test]
    async fn the_observer_hears_each_end_once() {
        let heard = Rc::new(Heard::default());
        collect(Body::full("abc").observe(heard.clone()))
            .await
            .expect("whole");
        drop(Body::full("abc").observe(heard.clone()));
        drop(Body::empty().observe(heard.clone()));
        assert_eq!(*heard.0.borrow(), ["data 3", "end", "abandoned", "end"]);
    }
}
