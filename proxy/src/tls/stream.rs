//! The byte stream over an established TLS connection.
//!
//! Half-close: `poll_shutdown` sends close_notify and then shuts down the writing side of what is below; reading goes on
//! until the peer's close_notify. A peer that ends its side without close_notify is read as a plain end of stream, as Envoy
//! does, so framing above must not take an end of stream for a complete message where a length is known.
//! What `poll_write` accepts may wait in the session until the next `poll_write` or `poll_flush`: flush before waiting for an answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A TLS connection in either role; see [`super::server::ServerStream`] and [`super::client::ClientStream`].
#[derive(Debug)]
pub(crate) struct TlsStream<S>(pub(super) S);

impl<IO> TlsStream<tokio_rustls::server::TlsStream<IO>> {
    /// The stream below.
    pub(crate) fn get_ref(&self) -> &IO {
        self.0.get_ref().0
    }
}

impl<IO> TlsStream<tokio_rustls::client::TlsStream<IO>> {
    /// The stream below.
    pub(crate) fn get_ref(&self) -> &IO {
        self.0.get_ref().0
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(cx, buf) {
            // rustls' way to tell an end without close_notify; Envoy's SslSocket::doRead takes it for an end of stream.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
