//! A request body that can be sent again: what was read of it is kept, up to a limit.
//!
//! Past the limit what was sent is let go, and [`ReplaySource::replayable`] turns false. Source: Envoy docs, router filter: the retry is
//! given up when the request does not fit into the buffer.
use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::{Body, BodyError, Source};

/// The body and what is kept of it.
#[derive(Debug, Clone)]
pub(crate) struct ReplaySource {
    state: Rc<RefCell<State>>,
}

#[derive(Debug)]
struct State {
    body: Body,
    /// Chunks that were read: all of them, or those that the attempt has not taken yet.
    chunks: VecDeque<Bytes>,
    bytes: usize,
    limit_bytes: usize,
    /// Chunks stay after the attempt took them.
    keeps: bool,
    /// A chunk was let go.
    lost: bool,
    /// Chunks would stay, but there were too many bytes.
    gave_up: bool,
    end: Option<End>,
    /// The attempt that may read; those before it may not.
    attempt: u64,
    /// Index of the chunk that the attempt takes next.
    next: usize,
}

#[derive(Debug, Clone)]
enum End {
    /// With trailers, if there are any.
    Whole(Option<HeaderMap>),
    Failed(BodyError),
}

/// The body of one attempt.
#[derive(Debug)]
pub(super) struct Replay {
    state: Rc<RefCell<State>>,
    attempt: u64,
    ended: bool,
}

impl ReplaySource {
    /// Keeps at most `limit_bytes`; nothing that was sent, when the request is never sent again.
    pub(crate) fn new(body: Body, limit_bytes: usize, keeps: bool) -> Self {
        let state = State {
            body,
            chunks: VecDeque::new(),
            bytes: 0,
            limit_bytes,
            keeps,
            lost: false,
            gave_up: false,
            end: None,
            attempt: 0,
            next: 0,
        };
        Self {
            state: Rc::new(RefCell::new(state)),
        }
    }

    /// A body that is here.
    pub(in crate::codec) fn whole(chunks: VecDeque<Bytes>, trailers: Option<HeaderMap>) -> Self {
        let state = State {
            body: Body::empty(),
            bytes: chunks.iter().map(Bytes::len).sum(),
            chunks,
            limit_bytes: usize::MAX,
            keeps: false,
            lost: false,
            gave_up: false,
            end: Some(End::Whole(trailers)),
            attempt: 0,
            next: 0,
        };
        Self {
            state: Rc::new(RefCell::new(state)),
        }
    }

    /// The body from its first byte, for one attempt. Bodies of earlier attempts end with an error when polled again.
    /// `None`: its begin was let go, see [`Self::replayable`].
    pub(crate) fn attempt(&self) -> Option<Body> {
        let attempt = self.state.borrow_mut().supersede();
        self.replayable().then(|| {
            Body::new(Source::Replay(Replay {
                state: self.state.clone(),
                attempt,
                ended: false,
            }))
        })
    }

    /// Another attempt will come: whoever still sends the one before reads no more, or what it reads on would be missing then.
    pub(crate) fn supersede(&self) {
        self.state.borrow_mut().supersede();
    }

    /// Everything read so far is still here.
    pub(crate) fn replayable(&self) -> bool {
        !self.state.borrow().lost
    }

    /// It would be kept, but is larger than the limit.
    pub(crate) fn gave_up(&self) -> bool {
        self.state.borrow().gave_up
    }

    /// The end was read, and everything before it is still here.
    pub(crate) fn is_whole(&self) -> bool {
        let state = self.state.borrow();
        !state.lost && state.whole().is_some()
    }

    /// The same body for an attempt beside others that may not have read all of it. `None`: it is not whole.
    pub(crate) fn copy(&self) -> Option<Self> {
        let state = self.state.borrow();
        let end = state.whole().filter(|_| !state.lost)?;
        let copy = State {
            body: Body::empty(),
            chunks: state.chunks.clone(),
            bytes: state.bytes,
            limit_bytes: state.limit_bytes,
            keeps: true,
            lost: false,
            gave_up: false,
            end: Some(end),
            attempt: 0,
            next: 0,
        };
        Some(Self {
            state: Rc::new(RefCell::new(copy)),
        })
    }

    /// No retry will come: chunks need not be kept.
    pub(crate) fn forget(&self) {
        let mut state = self.state.borrow_mut();
        state.keeps = false;
        state.let_go();
    }

    /// Reads while nobody takes anything, until the body has ended or the limit is reached: the request is known to be whole before there
    /// is a connection to send it on.
    pub(crate) async fn read_ahead(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            while state.end.is_none() && state.bytes < state.limit_bytes {
                ready!(state.poll_read(cx));
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Replay {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let state = &mut *self.state.borrow_mut();
        if state.attempt != self.attempt {
            return Poll::Ready(Some(Err(BodyError::Ended(
                "the request moved on to another attempt",
            ))));
        }
        loop {
            if let Some(chunk) = state.take() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if let Some(end) = &state.end {
                if std::mem::replace(&mut self.ended, true) {
                    return Poll::Ready(None);
                }
                return Poll::Ready(match end {
                    End::Whole(trailers) => trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))),
                    End::Failed(error) => Some(Err(error.clone())),
                });
            }
            ready!(state.poll_read(cx));
        }
    }
}

impl State {
    /// Returns the number of the attempt that may read from now on.
    fn supersede(&mut self) -> u64 {
        self.attempt += 1;
        self.next = 0;
        self.attempt
    }

    /// The end, also when nobody has asked for it.
    fn whole(&self) -> Option<End> {
        match &self.end {
            Some(end @ End::Whole(_)) => Some(end.clone()),
            Some(End::Failed(_)) => None,
            None => http_body::Body::is_end_stream(&self.body).then_some(End::Whole(None)),
        }
    }

    /// Reads one frame of the body.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(http_body::Body::poll_frame(Pin::new(&mut self.body), cx)) {
            None => self.end = Some(End::Whole(None)),
            Some(Err(error)) => self.end = Some(End::Failed(error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.bytes += data.len();
                    self.chunks.push_back(data);
                    if self.keeps && self.bytes > self.limit_bytes {
                        (self.keeps, self.gave_up) = (false, true);
                        self.let_go();
                    }
                }
                Err(frame) => self.end = Some(End::Whole(frame.into_trailers().ok())),
            },
        }
        Poll::Ready(())
    }

    /// The next chunk for the attempt.
    fn take(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.get(self.next)?.clone();
        self.next += 1;
        if !self.keeps {
            self.let_go();
        }
        Some(chunk)
    }

    /// Drops what the attempt has taken.
    fn let_go(&mut self) {
        for chunk in self.chunks.drain(..self.next) {
            self.bytes -= chunk.len();
            self.lost = true;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::collect;
    use super::*;

    fn source(limit_bytes: usize, keeps: bool) -> ReplaySource {
        ReplaySource::new(Body::full("payload"), limit_bytes, keeps)
    }

    fn body(source: &ReplaySource) -> Body {
        source.attempt().expect("nothing of it was let go")
    }

    #[tokio::test]
    async fn a_small_body_can_be_sent_twice() {
        let source = source(100, true);
        assert_eq!(collect(body(&source)).await.expect("first"), b"payload");
        assert!(source.replayable());
        assert_eq!(collect(body(&source)).await.expect("second"), b"payload");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_passes_once() {
        let source = source(3, true);
        assert_eq!(collect(body(&source)).await.expect("first"), b"payload");
        assert!(!source.replayable());
    }

    #[tokio::test]
    async fn a_body_that_is_not_kept_passes_once() {
        let source = source(100, false);
        assert!(source.replayable());
        assert_eq!(collect(body(&source)).await.expect("first"), b"payload");
        assert!(!source.replayable());
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_sent() {
        for (limit_bytes, keeps) in [(100, true), (100, false), (3, true), (3, false)] {
            let source = source(limit_bytes, keeps);
            source.read_ahead().await;
            assert!(source.replayable());
            assert_eq!(collect(body(&source)).await.expect("first"), b"payload");
            assert_eq!(source.replayable(), limit_bytes == 100 && keeps);
        }
    }

    #[tokio::test]
    async fn a_whole_body_is_read_by_two_at_once() {
        let source = source(100, true);
        assert!(source.copy().is_none(), "nothing of it was read");
        source.read_ahead().await;
        let first = body(&source);
        let copy = source.copy().expect("it is whole");
        assert_eq!(collect(body(&copy)).await.expect("beside"), b"payload");
        assert_eq!(collect(first).await.expect("first"), b"payload");
    }

    #[tokio::test]
    async fn an_older_attempt_cannot_read_on() {
        let source = source(100, true);
        let first = body(&source);
        let second = body(&source);
        assert!(collect(first).await.is_err());
        assert_eq!(collect(second).await.expect("the newer one"), b"payload");
    }

    /// Three chunks, of which the first alone is within the limit.
    fn long() -> ReplaySource {
        let chunks = ["ab", "cd", "ef"].map(Bytes::from);
        let long = ReplaySource::whole(chunks.into(), None);
        ReplaySource::new(body(&long), 3, true)
    }

    #[tokio::test]
    async fn who_sends_an_attempt_that_failed_loses_nothing_of_the_next() {
        let source = long();
        let mut failed = body(&source);
        assert!(failed.frame().await.is_some_and(|frame| frame.is_ok()));
        source.supersede();
        assert!(failed.frame().await.is_some_and(|frame| frame.is_err()));
        source.read_ahead().await;
        assert!(source.replayable());
        assert_eq!(collect(body(&source)).await.expect("the next"), b"abcdef");
    }

    #[tokio::test]
    async fn a_body_whose_begin_was_let_go_is_not_sent() {
        let source = long();
        assert_eq!(collect(body(&source)).await.expect("once"), b"abcdef");
        assert!(source.attempt().is_none());
    }
}
