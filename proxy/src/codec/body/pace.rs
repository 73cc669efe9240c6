//! A body that is let out slowly. Source: Envoy `StreamRateLimiter`: sixteen slices a second, what was not used is kept for a second.
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};

use super::{Body, BodyError};
use crate::time::{Instant, Sleep, sleep_until};

const SLICES_PER_SECOND: u32 = 16;
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / SLICES_PER_SECOND as u64);

/// The body and what of it may go now.
#[derive(Debug)]
pub(super) struct Pace {
    body: Body,
    slice_bytes: usize,
    allowed_bytes: usize,
    /// Read and not yet let out.
    held: Bytes,
    counted_to: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Pace {
    /// The first slice goes at once.
    pub(super) fn new(body: Body, bytes_per_second: u64) -> Self {
        let slice = bytes_per_second / u64::from(SLICES_PER_SECOND);
        let slice_bytes = usize::try_from(slice).unwrap_or(usize::MAX).max(1);
        let now = Instant::now();
        Self {
            body,
            slice_bytes,
            allowed_bytes: slice_bytes,
            held: Bytes::new(),
            counted_to: now,
            sleep: Box::pin(sleep_until(now)),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while self.held.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.held = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        while self.allowed_bytes == 0 {
            self.count();
            if self.allowed_bytes == 0 {
                self.sleep.as_mut().reset(self.counted_to + INTERVAL);
                ready!(self.sleep.as_mut().poll(cx));
            }
        }
        let bytes = self.allowed_bytes.min(self.held.len());
        self.allowed_bytes -= bytes;
        Poll::Ready(Some(Ok(Frame::data(self.held.split_to(bytes)))))
    }

    /// Allows the slices of the time that has passed, of a second at most.
    fn count(&mut self) {
        let passed = self.counted_to.elapsed().as_nanos() / INTERVAL.as_nanos();
        let slices = u32::try_from(passed).unwrap_or(u32::MAX).min(SLICES_PER_SECOND);
        if passed > u128::from(slices) {
            self.counted_to = Instant::now();
        } else {
            self.counted_to += INTERVAL * slices;
        }
        self.allowed_bytes = self.slice_bytes.saturating_mul(slices as usize);
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::collect;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_paced_body_takes_its_time_and_stays_whole() {
        let start = Instant::now();
        let bytes = vec![7; 32 * 1024];
        let body = Body::full(bytes.clone()).paced(16 * 1024);
        assert_eq!(collect(body).await.expect("whole"), bytes);
        let millis = start.elapsed().as_millis();
        assert!((1900..2000).contains(&millis), "{millis} ms");
    }
}
