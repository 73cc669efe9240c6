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

/// One connection; what was read and decrypted too early can be put back in front.
pub(crate) type Transport = Prefixed<Channel>;

/// TCP, with or without TLS.
#[derive(Debug)]
pub(crate) enum Channel {
    /// No TLS.
    Plain(Tcp),
    /// TLS terminated here.
    Server(Box<ServerStream<Tcp>>),
    /// TLS that we began.
    Client(Box<ClientStream<Tcp>>),
}

impl Transport {
    /// No TLS.
    pub(crate) fn plain(tcp: Tcp) -> Self {
        Self::new(Bytes::new(), Channel::Plain(tcp))
    }

    /// TLS terminated here.
    pub(crate) fn server(stream: ServerStream<Tcp>) -> Self {
        Self::new(Bytes::new(), Channel::Server(Box::new(stream)))
    }

    /// TLS that we began.
    pub(crate) fn client(stream: ClientStream<Tcp>) -> Self {
        Self::new(Bytes::new(), Channel::Client(Box::new(stream)))
    }

    /// Nothing was read for the application, and nothing will be: as Envoy, which left all bytes to the system, the coming close is a reset
    /// if there are any. Of TLS bytes were read, and whether more came is not known: it is a reset then.
    pub(crate) fn close_unread(&self) {
        match self.inner() {
            Channel::Plain(tcp) if !self.has_prefix() && !tcp.has_prefix() => {}
            _ => self.reset_on_close(),
        }
    }

    /// Makes the coming close a reset: the peer learns that its bytes went nowhere.
    pub(crate) fn reset_on_close(&self) {
        let tcp = match self.inner() {
            Channel::Plain(tcp) => tcp,
            Channel::Server(tls) => tls.get_ref(),
            Channel::Client(tls) => tls.get_ref(),
        };
        // Best effort: a connection that is gone already needs no reset.
        let _ = tcp.inner().set_zero_linger();
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Channel::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Channel::Server(stream) => Pin::new(stream).poll_read(cx, buffer),
            Channel::Client(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Channel::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Channel::Server(stream) => Pin::new(stream).poll_write(cx, bytes),
            Channel::Client(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Channel::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Channel::Server(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Channel::Client(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Channel::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Channel::Server(stream) => Pin::new(stream).poll_flush(cx),
            Channel::Client(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Channel::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Channel::Server(stream) => Pin::new(stream).poll_shutdown(cx),
            Channel::Client(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
