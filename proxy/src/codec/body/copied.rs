//! A copy of a body, made while somebody else reads the body itself.
//!
//! Who reads the copy slowly holds up nobody: when too much waits, the copy fails.
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::Notify;

use super::{Body, BodyError, Source};

/// Whoever sees the body go by puts it in here. Dropped before the end, the copy fails.
#[derive(Debug)]
pub(crate) struct CopyWriter {
    state: Rc<RefCell<State>>,
    ending: Rc<Ending>,
}

/// When there is no more to come.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    told: Notify,
    is_whole: Cell<bool>,
}

impl Ending {
    /// Of a body that is nothing.
    pub(crate) fn of_nothing() -> Rc<Self> {
        let ending = Rc::<Self>::default();
        ending.tell(true);
        ending
    }

    fn tell(&self, is_whole: bool) {
        self.is_whole.set(is_whole);
        self.told.notify_one();
    }

    /// Waits for it. True: the copy is whole; false: it has failed, and who sends it may wait in vain for room. For one waiter, once.
    pub(crate) async fn wait(&self) -> bool {
        self.told.notified().await;
        self.is_whole.get()
    }
}

/// The copy.
#[derive(Debug)]
pub(super) struct Copied(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    most_bytes: usize,
    end: Option<End>,
    reader: Option<Waker>,
}

#[derive(Debug)]
enum End {
    /// With trailers that are still to be given out.
    Whole(Option<HeaderMap>),
    Failed(&'static str),
}

/// A copy that is to be written, of which at most so many bytes wait.
pub(super) fn copied(most_bytes: usize) -> (Body, CopyWriter) {
    let state = Rc::new(RefCell::new(State {
        chunks: VecDeque::new(),
        bytes: 0,
        most_bytes,
        end: None,
        reader: None,
    }));
    let writer = CopyWriter {
        state: state.clone(),
        ending: Rc::default(),
    };
    (Body::new(Source::Copied(Copied(state))), writer)
}

impl CopyWriter {
    /// Tells of the end.
    pub(crate) fn ending(&self) -> Rc<Ending> {
        self.ending.clone()
    }

    /// The next piece.
    pub(crate) fn data(&self, data: &Bytes) {
        // Nobody reads it.
        if Rc::strong_count(&self.state) == 1 {
            return;
        }
        let mut state = self.state.borrow_mut();
        if state.end.is_some() {
            return;
        }
        state.bytes += data.len();
        if state.bytes > state.most_bytes {
            state.fail("the copy is read too slowly");
            self.ending.tell(false);
        } else {
            state.chunks.push_back(data.clone());
        }
        state.wake();
    }

    /// It ends with these.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) {
        self.finish(Some(trailers.clone()));
    }

    /// It ends here, unless it has ended.
    pub(crate) fn end(&self) {
        self.finish(None);
    }

    fn finish(&self, trailers: Option<HeaderMap>) {
        let mut state = self.state.borrow_mut();
        if state.end.is_none() {
            state.end = Some(End::Whole(trailers));
            state.wake();
            self.ending.tell(true);
        }
    }
}

impl Drop for CopyWriter {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        if state.end.is_none() {
            state.fail("what it is a copy of has no end");
            state.wake();
            self.ending.tell(false);
        }
    }
}

impl State {
    fn fail(&mut self, why: &'static str) {
        self.chunks.clear();
        self.end = Some(End::Failed(why));
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.0.borrow_mut().chunks.clear();
    }
}

impl Copied {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.0.borrow_mut();
        if let Some(chunk) = state.chunks.pop_front() {
            state.bytes -= chunk.len();
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match &mut state.end {
            Some(End::Whole(trailers)) => {
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Some(End::Failed(why)) => Poll::Ready(Some(Err(BodyError::Ended(why)))),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::collect;
    use super::*;

    fn chunk(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[tokio::test]
    async fn a_copy_has_what_was_put_in_and_ends_with_it() {
        let (mut copy, writer) = copied(10);
        writer.data(&chunk("ab"));
        let first = copy.frame().await.expect("a frame").expect("no error");
        assert_eq!(first.into_data().expect("data"), "ab");
        let (rest, ()) = tokio::join!(collect(copy), async {
            tokio::task::yield_now().await;
            writer.data(&chunk("0123456789"));
            writer.end();
            assert!(writer.ending().wait().await);
        });
        assert_eq!(rest.expect("whole"), b"0123456789");
    }

    #[tokio::test]
    async fn a_copy_fails_when_too_much_waits_or_no_more_comes() {
        let (copy, writer) = copied(3);
        writer.data(&chunk("ab"));
        let ending = writer.ending();
        writer.data(&chunk("cd"));
        assert!(!ending.wait().await, "its sender hears of it");
        writer.end();
        assert!(collect(copy).await.is_err(), "too much waits");
        let (copy, writer) = copied(3);
        writer.data(&chunk("ab"));
        let ending = writer.ending();
        drop(writer);
        assert!(!ending.wait().await, "its sender hears of it");
        assert!(collect(copy).await.is_err(), "it has no end");
    }
}
