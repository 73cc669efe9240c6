//! A connection's transport: plain TCP, or TLS of either side, behind one type so that codecs and copies need no generics.
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::client::ClientStream;
use super::server::ServerStream;
use crate::net::prefixed::Prefixed;

/// TCP whose first bytes may have been read by inspectors.
pub(crate) type Tcp = Prefixed<TcpStream>;

/// One connection.
#[derive(Debug)]
pub(crate) struct Transport {
    /// Decrypted bytes that were read already.
    prefix: Bytes,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Plain(Tcp),
    Server(Box<ServerStream<Tcp>>),
    Client(Box<ClientStream<Tcp>>),
}

impl Transport {
    /// No TLS.
    pub(crate) fn plain(tcp: Tcp) -> Self {
        Self {
            prefix: Bytes::new(),
            stream: Stream::Plain(tcp),
        }
    }

    /// TLS terminated here.
    pub(crate) fn server(stream: ServerStream<Tcp>) -> Self {
        Self {
            prefix: Bytes::new(),
            stream: Stream::Server(Box::new(stream)),
        }
    }

    /// TLS that we began.
    pub(crate) fn client(stream: ClientStream<Tcp>) -> Self {
        Self {
            prefix: Bytes::new(),
            stream: Stream::Client(Box::new(stream)),
        }
    }

    /// Makes the coming close a reset: the peer learns that its bytes went nowhere.
    pub(crate) fn reset_on_close(&self) {
        let tcp = match &self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Server(tls) => tls.get_ref(),
            Stream::Client(tls) => tls.get_ref(),
        };
        // Best effort: a connection that is gone already needs no reset.
        let _ = tcp.inner().set_zero_linger();
    }

    /// Puts decrypted bytes back in front.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.prefix = if self.prefix.is_empty() {
            bytes
        } else {
            [bytes, self.prefix.clone()].concat().into()
        };
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let count = this.prefix.len().min(buffer.remaining());
            buffer.put_slice(&this.prefix.split_to(count));
            return Poll::Ready(Ok(()));
        }
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Server(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Client(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Server(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Client(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Server(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Client(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Server(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Client(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Server(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Client(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
