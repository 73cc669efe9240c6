//! A connection's transport: plain TCP, or TLS of either side, behind one type so that codecs and copies need no generics.
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
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
    /// Somebody wants to know how much goes each way.
    Counted(Box<Channel>, Rc<ByteCounts>),
}

/// How much of the application's bytes went each way.
#[derive(Debug, Default)]
pub(crate) struct ByteCounts {
    /// Read here.
    pub(crate) received: Cell<u64>,
    /// Written here.
    pub(crate) sent: Cell<u64>,
}

fn add(count: &Cell<u64>, bytes: usize) {
    count.set(count.get() + bytes as u64);
}

impl Channel {
    fn tcp(&self) -> &Tcp {
        match self {
            Channel::Plain(tcp) => tcp,
            Channel::Server(tls) => tls.get_ref(),
            Channel::Client(tls) => tls.get_ref(),
            Channel::Counted(channel, _) => channel.tcp(),
        }
    }

    fn is_unread(&self) -> bool {
        match self {
            Channel::Plain(tcp) => !tcp.has_prefix(),
            Channel::Counted(channel, _) => channel.is_unread(),
            Channel::Server(_) | Channel::Client(_) => false,
        }
    }
}

fn count_sent(counts: &ByteCounts, written: &Poll<io::Result<usize>>) {
    if let Poll::Ready(Ok(bytes)) = written {
        add(&counts.sent, *bytes);
    }
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

    /// From now on it is counted what goes. For one that nothing was put back in front of.
    pub(crate) fn counted(self, counts: Rc<ByteCounts>) -> Self {
        self.map(|channel| Channel::Counted(Box::new(channel), counts))
    }

    /// Nothing was read for the application, and nothing will be: as Envoy, which left all bytes to the system, the coming close is a reset
    /// if there are any. Of TLS bytes were read, and whether more came is not known: it is a reset then.
    pub(crate) fn close_unread(&self) {
        if self.has_prefix() || !self.inner().is_unread() {
            self.reset_on_close();
        }
    }

    /// Makes the coming close a reset: the peer learns that its bytes went nowhere.
    pub(crate) fn reset_on_close(&self) {
        // Best effort: a connection that is gone already needs no reset.
        let _ = self.inner().tcp().inner().set_zero_linger();
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
            Channel::Counted(channel, counts) => {
                let before = buffer.filled().len();
                let read = Pin::new(&mut **channel).poll_read(cx, buffer);
                add(&counts.received, buffer.filled().len() - before);
                read
            }
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Channel::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Channel::Server(stream) => Pin::new(stream).poll_write(cx, bytes),
            Channel::Client(stream) => Pin::new(stream).poll_write(cx, bytes),
            Channel::Counted(channel, counts) => {
                let written = Pin::new(&mut **channel).poll_write(cx, bytes);
                count_sent(counts, &written);
                written
            }
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
            Channel::Counted(channel, counts) => {
                let written = Pin::new(&mut **channel).poll_write_vectored(cx, parts);
                count_sent(counts, &written);
                written
            }
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
            Channel::Counted(channel, _) => Pin::new(&mut **channel).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Channel::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Channel::Server(stream) => Pin::new(stream).poll_shutdown(cx),
            Channel::Client(stream) => Pin::new(stream).poll_shutdown(cx),
            Channel::Counted(channel, _) => Pin::new(&mut **channel).poll_shutdown(cx),
        }
    }
}
