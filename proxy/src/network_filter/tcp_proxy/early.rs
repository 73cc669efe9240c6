//! `max_early_data_bytes`: what a client says before there is a server for it.
//!
//! Source: Envoy `TcpProxy::Filter::onData`, `receive_before_connect_`.
use std::io;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;

use crate::stats::Counter;
use crate::tls::transport::Transport;

/// Read at once.
const READ_BYTES: usize = 16 * 1024;

/// What was heard so far.
#[derive(Debug, Default)]
pub(super) struct Early {
    bytes: BytesMut,
    is_ended: bool,
}

impl Early {
    /// Waits for the first bytes. As in Envoy, an end without any is not an occasion to connect: the wait goes on, to its limit.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) async fn first(&mut self, transport: &mut Transport, heard: &Counter) -> io::Result<()> {
        self.read(transport, heard).await?;
        if self.bytes.is_empty() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    /// Reads until there are so many bytes, and then no more; returns only when the client is gone.
    pub(super) async fn listen(
        &mut self,
        transport: &mut Transport,
        most_bytes: usize,
        heard: &Counter,
    ) -> io::Error {
        while !self.is_ended && (self.bytes.is_empty() || self.bytes.len() < most_bytes) {
            if let Err(error) = self.read(transport, heard).await {
                return error;
            }
        }
        std::future::pending().await
    }

    async fn read(&mut self, transport: &mut Transport, heard: &Counter) -> io::Result<()> {
        self.bytes.reserve(READ_BYTES);
        self.is_ended = transport.read_buf(&mut self.bytes).await? == 0;
        heard.inc();
        Ok(())
    }

    /// It is read again, by who moves bytes; so is its end, which a transport says as often as it is asked.
    pub(super) fn give_back(self, transport: &mut Transport) {
        if !self.bytes.is_empty() {
            transport.unread(self.bytes.freeze());
        }
    }

    /// Nothing was read.
    pub(super) fn is_nothing(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How much was read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes.len() as u64
    }
}
