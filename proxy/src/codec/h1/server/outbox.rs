//! Bytes on their way to the client: small ones are gathered into one write, large ones are written from where they are.
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Beyond this nothing more is asked of a response body until some of it went out. Bounds what a slow reader costs, with one frame of the
/// body above it.
const FULL: usize = 64 * 1024;
/// Copying so little costs less than one more part of a write.
const COPIED: usize = 4096;
/// Parts of one write.
const PARTS: usize = 8;
/// Memory kept for the next response.
const KEPT: usize = 16 * 1024;

/// What is not written yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Before `tail`.
    parts: VecDeque<Bytes>,
    parts_bytes: usize,
    tail: Vec<u8>,
    /// How much of `tail` is written.
    written: usize,
    /// Something was written since the last flush.
    unflushed: bool,
}

impl Outbox {
    /// Where small things are appended.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Appends data of a body.
    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() <= COPIED {
            self.tail.extend_from_slice(&data);
            return;
        }
        if self.written < self.tail.len() {
            let mut before = Bytes::from(std::mem::take(&mut self.tail));
            before.advance(self.written);
            self.parts_bytes += before.len();
            self.parts.push_back(before);
        }
        self.tail.clear();
        self.written = 0;
        self.parts_bytes += data.len();
        self.parts.push_back(data);
    }

    /// Nothing is left to write.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.written == self.tail.len()
    }

    /// Enough for one write.
    pub(super) fn is_full(&self) -> bool {
        self.parts_bytes + self.tail.len() - self.written >= FULL || self.parts.len() >= PARTS
    }

    /// Writes all, then flushes.
    pub(super) fn poll_write<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.parts.is_empty() {
                let rest = self.tail.get(self.written..).unwrap_or_default();
                ready!(Pin::new(&mut *io).poll_write(cx, rest))?
            } else {
                let mut slices = [IoSlice::new(&[]); PARTS];
                let tail = self.tail.get(self.written..).unwrap_or_default();
                let all = self.parts.iter().map(|part| &part[..]).chain([tail]);
                let count = slices
                    .iter_mut()
                    .zip(all)
                    .map(|(slice, part)| *slice = IoSlice::new(part))
                    .count();
                let slices = slices.get(..count).unwrap_or_default();
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.advance(written);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(part) = self.parts.front_mut().filter(|_| count > 0) {
            let taken = count.min(part.len());
            part.advance(taken);
            count -= taken;
            self.parts_bytes -= taken;
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
        self.written += count;
        if self.written == self.tail.len() {
            self.written = 0;
            self.tail.clear();
            self.tail.shrink_to(KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// Takes a few bytes at a time.
    #[derive(Debug, Default)]
    struct Narrow {
        taken: Vec<u8>,
        writes: usize,
        width: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.width);
            self.taken.extend_from_slice(&bytes[..count]);
            self.writes += 1;
            Poll::Ready(Ok(count))
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let count = all.len().min(self.width);
            self.taken.extend_from_slice(&all[..count]);
            self.writes += 1;
            Poll::Ready(Ok(count))
        }
        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn check(pieces: &[usize], width: usize, writes: usize) {
        let mut outbox = Outbox::default();
        let mut io = Narrow {
            width,
            ..Narrow::default()
        };
        let mut expected = Vec::new();
        for (number, length) in pieces.iter().enumerate() {
            let data = vec![number as u8; *length];
            expected.extend_from_slice(&data);
            outbox.push(Bytes::from(data));
        }
        poll_fn(|cx| outbox.poll_write(&mut io, cx))
            .await
            .expect("it takes all");
        assert!(outbox.is_empty() && io.taken == expected, "{pieces:?} by {width}");
        assert_eq!(io.writes, writes, "{pieces:?} by {width}");
    }

    #[tokio::test]
    async fn all_is_written_in_order_with_few_writes() {
        check(&[10, 20], 1 << 20, 1).await;
        check(&[10, 20_000, 30, 10], 1 << 20, 1).await;
        check(&[10, 20_000, 30, 10], 7000, 3).await;
        check(&[10, 20], 4, 8).await;
        check(&[], 4, 0).await;
    }
}
