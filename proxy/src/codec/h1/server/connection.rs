//! What the task of a connection and the body of its request share: the socket and what was read from it.
//!
//! Only one of them reads at a time: the body until it is whole, else the connection. Nothing is read that nobody wants: while the body is
//! not consumed, the client waits.
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::outbox::Outbox;
use crate::codec::body::{BodyError, IncomingBody};
use crate::codec::h1::machine::{Piece, ReceivedHead, Receiver};
use crate::codec::names::Naming;
use crate::codec::{Feedback, Refusal};

/// What is read at once in the beginning, and after a small read.
const READ_BYTES: usize = 8 * 1024;
/// What is read at once at most.
const MAX_READ_BYTES: usize = 64 * 1024;

/// One connection's socket and input.
#[derive(Debug)]
pub(super) struct Connection<IO> {
    /// `None` when the connection is over, or was taken over.
    io: RefCell<Option<IO>>,
    input: RefCell<Input>,
    /// The client went away inside of a body.
    cut: Cell<bool>,
    /// Nobody wants the rest of the body.
    given_up: Cell<bool>,
    /// Nobody asks for the rest of the body, while its response goes on.
    unread: Cell<bool>,
    /// The task that serves the connection, while a body has the reading.
    task: RefCell<Option<Waker>>,
    /// Who waits for more of a body.
    reader: RefCell<Option<Waker>>,
    /// How the names of the response are written, when that was said with it.
    pub(super) naming: RefCell<Option<Naming>>,
    /// Tells the stream of a body that is none.
    pub(super) feedback: Feedback,
}

#[derive(Debug)]
struct Input {
    receiver: Receiver,
    buffer: BytesMut,
    read_bytes: usize,
    received: bool,
}

/// What a wait for a head brings.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "mostly the large one, and taken apart at once"
)]
pub(super) enum Received {
    /// A request.
    Head(ReceivedHead),
    /// No request.
    Refused(Refusal),
    /// The client is gone.
    End,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<IO> {
    /// Of a socket from which nothing was read.
    pub(super) fn new(io: IO, receiver: Receiver, informs: bool) -> Self {
        Self {
            io: RefCell::new(Some(io)),
            input: RefCell::new(Input {
                receiver,
                buffer: BytesMut::new(),
                read_bytes: READ_BYTES,
                received: false,
            }),
            cut: Cell::new(false),
            given_up: Cell::new(false),
            unread: Cell::new(false),
            task: RefCell::new(None),
            reader: RefCell::new(None),
            naming: RefCell::new(None),
            feedback: Feedback::for_informational(informs),
        }
    }

    /// Waits for the next head.
    pub(super) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Received> {
        let input = &mut *self.input.borrow_mut();
        loop {
            match input.receiver.head(&mut input.buffer) {
                Ok(Some(head)) => {
                    self.unread.set(false);
                    if let Some(names) = input.receiver.take_names() {
                        self.feedback.keep_request_names(names);
                    }
                    return Poll::Ready(Received::Head(head));
                }
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Received::Refused(refusal)),
            }
            if !matches!(ready!(self.poll_read(input, cx)), Ok(1..)) {
                return Poll::Ready(Received::End);
            }
        }
    }

    /// Part of a head is here.
    pub(super) fn is_in_head(&self) -> bool {
        !self.input.borrow().buffer.is_empty()
    }

    /// Anything came at all.
    pub(super) fn has_received(&self) -> bool {
        self.input.borrow().received
    }

    /// All of the request is here.
    pub(super) fn is_whole(&self) -> bool {
        self.input.borrow().receiver.is_whole()
    }

    /// Nothing is known to come behind the request.
    pub(super) fn is_drained(&self) -> bool {
        let input = self.input.borrow();
        input.receiver.is_whole() && input.buffer.is_empty()
    }

    /// The client went away inside of a body: known without a look at the socket.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// Ready when the client is gone. Bytes of its next request are left for later, and no more than one read of them.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_cut() {
            return Poll::Ready(());
        }
        let input = &mut *self.input.borrow_mut();
        if !input.receiver.is_whole() {
            // The body reads, and says when it is through.
            register(&self.task, cx);
            return match self.unread.get() {
                true => self.poll_ignored(input, cx),
                false => Poll::Pending,
            };
        }
        if !input.buffer.is_empty() {
            return Poll::Pending;
        }
        match self.poll_read(input, cx) {
            Poll::Ready(Ok(1..)) | Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(()),
        }
    }

    /// Reads a little of what nobody asks for, to see the client go.
    fn poll_ignored(&self, input: &mut Input, cx: &mut Context<'_>) -> Poll<()> {
        while input.buffer.len() < READ_BYTES {
            if !matches!(ready!(self.poll_read(input, cx)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Writes what is in `outbox`.
    pub(super) fn poll_write(&self, outbox: &mut Outbox, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.io.borrow_mut() {
            Some(io) => outbox.poll_write(io, cx),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Tells the client that nothing more comes.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.io.borrow_mut() {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Reads and forgets, until the client is gone.
    pub(super) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        let input = &mut *self.input.borrow_mut();
        loop {
            input.buffer.clear();
            if !matches!(ready!(self.poll_read(input, cx)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
    }

    /// The response is out: whoever still reads the body gets no more of it.
    pub(super) fn give_up_body(&self) {
        self.given_up.set(true);
        wake(&self.reader);
    }

    /// The connection is over, for a body too.
    pub(super) fn close(&self) {
        self.io.borrow_mut().take();
        self.give_up_body();
    }

    fn poll_read(&self, input: &mut Input, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut io = self.io.borrow_mut();
        let Some(io) = &mut *io else {
            return Poll::Ready(Ok(0));
        };
        if input.buffer.capacity() == input.buffer.len() {
            input.buffer.reserve(input.read_bytes);
        }
        let room = input.buffer.capacity() - input.buffer.len();
        let count = ready!(pin!(io.read_buf(&mut input.buffer)).poll(cx))?;
        input.received |= count > 0;
        // A client that fills what there is has more.
        input.read_bytes = if count == room {
            (input.read_bytes * 2).min(MAX_READ_BYTES)
        } else if count < READ_BYTES {
            READ_BYTES
        } else {
            input.read_bytes
        };
        Poll::Ready(Ok(count))
    }

    fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.given_up.get() {
            return Poll::Ready(Some(Err(BodyError::Ended(
                "the response ended before the request",
            ))));
        }
        let input = &mut *self.input.borrow_mut();
        loop {
            match input.receiver.body(&mut input.buffer) {
                Ok(Some(piece)) => {
                    if input.receiver.is_whole() {
                        wake(&self.task);
                    }
                    return Poll::Ready(match piece {
                        Piece::Data(data) => Some(Ok(Frame::data(data))),
                        Piece::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
                        Piece::End => None,
                    });
                }
                Ok(None) => {}
                Err(refusal) => {
                    self.feedback.refuse(refusal);
                    return Poll::Ready(Some(Err(BodyError::Connection(refusal.details.to_owned()))));
                }
            }
            register(&self.reader, cx);
            let error = match ready!(self.poll_read(input, cx)) {
                Ok(1..) => continue,
                Ok(_) => "the client left".to_owned(),
                Err(error) => error.to_string(),
            };
            self.cut.set(true);
            wake(&self.task);
            return Poll::Ready(Some(Err(BodyError::Connection(error))));
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug> IncomingBody for Connection<IO> {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_piece(cx)
    }

    fn is_whole(&self) -> bool {
        Connection::is_whole(self)
    }

    fn abandon(&self) {
        self.unread.set(true);
        wake(&self.task);
    }
}

fn register(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    match &mut *slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(slot: &RefCell<Option<Waker>>) {
    if let Some(waker) = slot.borrow_mut().take() {
        waker.wake();
    }
}
