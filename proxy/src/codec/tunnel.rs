//! A connection that stopped speaking HTTP: its bytes are the bodies of the request and of the response that changed it.
//! Source: RFC 9110 §7.8 (upgrade), §9.3.6 (CONNECT).
use std::any::Any;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::oneshot;

use super::body::BodyError;
use super::{Body, Response, ResponseHead};
use crate::net::prefixed::Prefixed;
use crate::worker;

/// What is read at once.
const READ_BYTES: usize = 16 * 1024;

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
