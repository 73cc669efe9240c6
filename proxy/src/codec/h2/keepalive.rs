//! PING frames that tell whether the peer is still there.
//!
//! Source: Envoy 1.40, `Http2::ConnectionImpl::sendKeepalive`, `onKeepaliveResponse`; protocol.proto `KeepaliveSettings`.
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::{Ping, PingPong};
use outrigger_model::cluster::Keepalive;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::time::{self, Instant};

/// When the peer of a connection was heard last, and whether it is to be asked now.
#[derive(Debug)]
pub(super) struct Heard {
    settings: Keepalive,
    at: Cell<Instant>,
    asked: Notify,
    /// A question is under way.
    is_asking: Cell<bool>,
}

impl Heard {
    pub(super) fn new(settings: Keepalive) -> Rc<Self> {
        Rc::new(Self {
            settings,
            at: Cell::new(Instant::now()),
            asked: Notify::new(),
            is_asking: Cell::new(false),
        })
    }

    /// A stream begins: a peer that has been silent for long is asked.
    pub(super) fn begin(&self) {
        let limit = self.settings.idle_interval;
        if !self.is_asking.get() && limit.is_some_and(|limit| self.at.get().elapsed() > limit) {
            self.asked.notify_one();
        }
    }

    /// Asks when it is time; returns when there was no answer. Whatever comes is a sign of life, so that an answer may wait behind other
    /// frames.
    pub(super) async fn unanswered(self: Rc<Self>, mut pings: PingPong) {
        loop {
            let due = self
                .settings
                .interval
                .map(|interval| Instant::now() + time::drawn(interval));
            tokio::select! {
                () = time::reach(due), if due.is_some() => {}
                () = self.asked.notified() => {}
            }
            self.is_asking.set(true);
            let sent = Instant::now();
            let mut answer = pin!(pings.ping(Ping::opaque()));
            loop {
                let since = sent.max(self.at.get());
                tokio::select! {
                    biased;
                    answer = &mut answer => match answer {
                        Ok(_) => {
                            self.is_asking.set(false);
                            break;
                        }
                        // The connection ends by itself.
                        Err(_) => return std::future::pending().await,
                    },
                    () = time::sleep_until(since + self.settings.timeout) => {
                        // What came while this worker stood still is read first.
                        tokio::task::yield_now().await;
                        if self.at.get() <= since {
                            return;
                        }
                    }
                }
            }
        }
    }
}

/// A connection that notes when something comes.
pub(super) struct Listening<IO> {
    io: IO,
    heard: Option<Rc<Heard>>,
}

impl<IO> Listening<IO> {
    /// `None`: nothing is noted.
    pub(super) fn new(io: IO, heard: Option<Rc<Heard>>) -> Self {
        Self { io, heard }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Listening<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_read(cx, buffer);
        if let (Some(heard), Poll::Ready(Ok(()))) = (&self.heard, &done) {
            heard.at.set(Instant::now());
        }
        done
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Listening<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
