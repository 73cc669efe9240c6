//! A connection that stopped speaking HTTP: its bytes are the bodies of the request and of the response that changed it.
//! Source: RFC 9110 §7.8 (upgrade), §9.3.6 (CONNECT).
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::sync::{Notify, oneshot};

use super::body::{BodyError, BodyObserver};
use super::{Body, RequestHead, Response, ResponseHead};
use crate::net::prefixed::Prefixed;
use crate::{time, worker};

/// What is read at once.
const READ_BYTES: usize = 16 * 1024;

/// What a carried stream holds each way before its writer waits.
const CARRIED_BYTES: usize = 64 * 1024;

/// Most headers of an answer; Envoy's.
const MAX_ANSWER_HEADERS: usize = 100;

const GIVEN_UP: &str = "the tunnel was given up";

/// Any stream of bytes.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<IO: AsyncRead + AsyncWrite + Unpin> Stream for IO {}

/// A connection, and what counts it.
pub(super) struct Raw {
    pub(super) io: Prefixed<Box<dyn Stream>>,
    guard: Rc<dyn Any>,
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Raw")
    }
}

impl Raw {
    /// `read` came already.
    pub(super) fn new(io: impl Stream + 'static, read: Bytes, guard: impl Any) -> Self {
        Self {
            io: Prefixed::new(read, Box::new(io)),
            guard: Rc::new(guard),
        }
    }
}

/// The answer to a request for a tunnel that ends here: `io` is its other end.
pub(crate) fn end<IO>(io: IO, out: Body, guard: impl Any) -> Response
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    Response {
        head: ResponseHead {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
        },
        body: connect(Raw::new(io, Bytes::new(), guard), out, true),
    }
}

/// A stream of bytes whose way up is the body of a request, and whose way down that of its response.
#[derive(Debug)]
pub(crate) struct Carried {
    near: DuplexStream,
    /// The response's body failed: its end is none.
    is_broken: Rc<Cell<bool>>,
    life: Rc<Life>,
}

/// Where the response's body goes.
pub(crate) struct WayDown {
    to: WriteHalf<Prefixed<Box<dyn Stream>>>,
    is_broken: Rc<Cell<bool>>,
    life: Rc<Life>,
}

/// How long somebody uses a carried stream. A server that takes nothing and says nothing would keep it for as long as its connection.
#[derive(Debug, Default)]
struct Life {
    /// The way up ended in order.
    is_ended: Cell<bool>,
    is_left: Cell<bool>,
    left: Notify,
    /// For what was said before the end, once nobody uses the stream any more.
    linger: Option<Duration>,
}

impl Life {
    /// Returns when nobody uses it, and what was to go up has had its time.
    async fn over(self: Rc<Self>) {
        while !self.is_left.get() {
            self.left.notified().await;
        }
        if self.is_ended.get() {
            match self.linger {
                Some(linger) => time::sleep(linger).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// Ends the way up with the life of the stream, also while its server takes nothing.
struct LifeGuard(RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>);

impl std::fmt::Debug for LifeGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LifeGuard")
    }
}

impl BodyObserver for LifeGuard {
    fn data(&self, _data: &Bytes) {}

    fn end(&self) {}

    fn error(&self, _error: &BodyError) {}

    fn abandoned(&self) {}

    fn may_interrupt(&self) -> bool {
        true
    }

    fn interrupt(&self, cx: &mut Context<'_>) -> Option<BodyError> {
        let mut over = self.0.borrow_mut();
        if let Some(waits) = over.as_mut() {
            if waits.as_mut().poll(cx).is_pending() {
                return None;
            }
            *over = None;
        }
        Some(BodyError::Ended(GIVEN_UP))
    }
}

impl Carried {
    /// The stream, the body of the request, and where the body of its response is to go. `linger`: how long what was said before the end
    /// has to be taken; `None`: any time.
    pub(crate) fn new(linger: Option<Duration>) -> (Self, Body, WayDown) {
        let (near, far) = tokio::io::duplex(CARRIED_BYTES);
        let raw = Raw::new(far, Bytes::new(), ());
        let (read, to) = tokio::io::split(raw.io);
        let is_broken = Rc::<Cell<bool>>::default();
        let life = Rc::new(Life {
            linger,
            ..Life::default()
        });
        let body = Body::tunnel(Tunnel {
            read,
            buffer: BytesMut::new(),
            way_up: None,
            life: Some(life.clone()),
            _guard: raw.guard,
        });
        let guard = LifeGuard(RefCell::new(Some(Box::pin(life.clone().over()))));
        let body = body.observe(Rc::new(guard));
        let way_down = WayDown {
            to,
            is_broken: is_broken.clone(),
            life: life.clone(),
        };
        let carried = Self {
            near,
            is_broken,
            life,
        };
        (carried, body, way_down)
    }
}

impl WayDown {
    /// Everything of `body` comes out of the stream, until it ends. `guard` lasts as long.
    pub(crate) fn carry(self, mut body: Body, guard: impl Any) {
        let Self {
            mut to,
            is_broken,
            life,
        } = self;
        worker::spawn(async move {
            let _guard = guard;
            let moving = async {
                while let Some(frame) = body.frame().await {
                    let Ok(frame) = frame else {
                        is_broken.set(true);
                        break;
                    };
                    if let Ok(data) = frame.into_data()
                        && to.write_all(&data).await.is_err()
                    {
                        return;
                    }
                }
                // The other half goes when the request's body does; this is an end for the reader, of whichever kind.
                let _gone = to.shutdown().await;
            };
            tokio::select! {
                () = moving => {}
                () = life.over() => {}
            }
        });
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.life.is_left.set(true);
        self.life.left.notify_waiters();
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.near).poll_read(cx, buffer);
        match read {
            Poll::Ready(Ok(())) if buffer.filled().len() == before && self.is_broken.get() => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            read => read,
        }
    }
}

impl AsyncWrite for Carried {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.near).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.life.is_ended.set(true);
        Pin::new(&mut self.near).poll_shutdown(cx)
    }
}

/// Sends `out` over the connection, in a task of its own; what comes back is the body that is returned. That the connection ends is a failure
/// of it.
pub(super) fn open(raw: Raw, out: Body) -> Body {
    connect(raw, out, false)
}

fn connect(raw: Raw, out: Body, may_end: bool) -> Body {
    let (read, write) = tokio::io::split(raw.io);
    let guard = raw.guard.clone();
    let (over, is_over) = oneshot::channel::<()>();
    worker::spawn(async move {
        if let Err(error) = send(write, out).await {
            tracing::debug!(%error, "the way up of a tunnel ended");
        }
        drop((guard, over));
    });
    Body::tunnel(Tunnel {
        read,
        buffer: BytesMut::new(),
        way_up: (!may_end).then_some(is_over),
        life: None,
        _guard: raw.guard,
    })
}

/// The end of the body closes this direction; a body that failed closes nothing that its reader would take for an end.
async fn send(mut to: WriteHalf<Prefixed<Box<dyn Stream>>>, mut body: Body) -> std::io::Result<()> {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Ok(());
        };
        if let Ok(data) = frame.into_data() {
            to.write_all(&data).await?;
            to.flush().await?;
        }
    }
    to.shutdown().await
}

/// What comes over the connection, until its other end closes it.
pub(super) struct Tunnel {
    read: ReadHalf<Prefixed<Box<dyn Stream>>>,
    buffer: BytesMut,
    /// Closes when nothing more goes up: as Envoy, what was HTTP ends with that. `None`: both directions end by themselves.
    way_up: Option<oneshot::Receiver<()>>,
    /// Whether an end is one in order, where the other end is in this process; `None`: it is.
    life: Option<Rc<Life>>,
    _guard: Rc<dyn Any>,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tunnel")
    }
}

impl Tunnel {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.buffer.reserve(READ_BYTES);
        let read = std::pin::pin!(self.read.read_buf(&mut self.buffer));
        let Poll::Ready(read) = read.poll(cx) else {
            let way_up = self.way_up.as_mut().map(Pin::new);
            return match way_up.map(|way_up| way_up.poll(cx)) {
                None | Some(Poll::Pending) => Poll::Pending,
                Some(Poll::Ready(_)) => {
                    let error = BodyError::Connection("the tunnel was closed from below".into());
                    Poll::Ready(Some(Err(error)))
                }
            };
        };
        Poll::Ready(match read {
            Ok(0) if self.life.as_ref().is_some_and(|life| !life.is_ended.get()) => {
                Some(Err(BodyError::Ended(GIVEN_UP)))
            }
            Ok(0) if self.way_up.is_none() => None,
            // As Envoy: the end of a connection is not the end of a message.
            Ok(0) => Some(Err(BodyError::Connection(
                "the upstream closed the tunnel".into(),
            ))),
            Ok(_) => Some(Ok(self.buffer.split().freeze())),
            Err(error) => Some(Err(BodyError::Connection(error.to_string()))),
        })
    }
}

/// What was to be the head of an answer is none.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the answer to the request for a tunnel is no HTTP")]
pub(crate) struct NoHttp;

/// The head of a CONNECT (RFC 9112 §3.2.3).
pub(crate) fn write_connect(head: &RequestHead, out: &mut BytesMut) {
    for part in [
        b"CONNECT ",
        head.authority.as_bytes(),
        b" HTTP/1.1\r\nhost: ",
        head.authority.as_bytes(),
        b"\r\n",
    ] {
        out.extend_from_slice(part);
    }
    for (name, value) in &head.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// How long the head of an answer to that is, and its status; `None`: it is not all there.
///
/// # Errors
/// It is none.
pub(crate) fn parse_answer(bytes: &[u8]) -> Result<Option<(usize, StatusCode)>, NoHttp> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_ANSWER_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes).map_err(|_| NoHttp)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(length) => {
            let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
            Ok(Some((length, status.ok_or(NoHttp)?)))
        }
    }
}
