//! Byte streams to a control plane: how they are made, and how much went over them.
//!
//! Knows sockets, not what is said over them. An owner that needs more than plain sockets (TLS, a tunnel) brings its own
//! [`Connect`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::Address;

/// A byte stream in both directions.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// What [`Connect::connect`] returns.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send>>;

/// Makes connections to a control plane.
pub trait Connect: Send + Sync {
    /// Begins one; dropping the future gives it up. The time limit is the caller's business.
    fn connect(&self, address: &Address) -> Connecting;
}

/// Plaintext over TCP (without Nagle's delay) or a Unix socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Connect for Plain {
    fn connect(&self, address: &Address) -> Connecting {
        match address.clone() {
            Address::Tcp { host, port } => Box::pin(async move {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as Box<dyn Connection>)
            }),
            Address::Unix(path) => {
                Box::pin(async move { Ok(Box::new(UnixStream::connect(path).await?) as Box<dyn Connection>) })
            }
        }
    }
}

/// What went over the connections of one client. Written by connections, read by handles.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    open: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Traffic {
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

/// A message of megabytes is read in pieces of this size and more, one after the other. In between, threads that share the core (those
/// that serve requests, in a proxy) have their turn; nobody else would give it to them for milliseconds.
const LARGE: usize = 4096;

/// A connection whose bytes are counted while it is open.
pub(crate) struct Counted {
    inner: Box<dyn Connection>,
    traffic: Arc<Traffic>,
}

impl Counted {
    pub(crate) fn new(inner: Box<dyn Connection>, traffic: Arc<Traffic>) -> Self {
        traffic.open.fetch_add(1, Ordering::Relaxed);
        Counted { inner, traffic }
    }

    fn sent(&self, count: usize) -> usize {
        self.traffic.sent_bytes.fetch_add(count as u64, Ordering::Relaxed);
        count
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.traffic.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let count = buffer.filled().len().saturating_sub(before);
        self.traffic
            .received_bytes
            .fetch_add(count as u64, Ordering::Relaxed);
        if count >= LARGE {
            std::thread::yield_now();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        Poll::Ready(Ok(self.sent(written)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, parts))?;
        Poll::Ready(Ok(self.sent(written)))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn every_byte_is_counted_and_an_end_is_seen() {
        let (near, mut far) = tokio::io::duplex(64);
        let traffic = Arc::new(Traffic::default());
        let mut counted = Counted::new(Box::new(near), traffic.clone());
        counted.write_all(b"abc").await.unwrap();
        far.write_all(b"hello").await.unwrap();
        counted.read_exact(&mut [0; 5]).await.unwrap();
        let read = || (traffic.open(), traffic.received_bytes(), traffic.sent_bytes());
        assert_eq!(read(), (1, 5, 3));
        drop(counted);
        assert_eq!(read(), (0, 5, 3));
    }
}
