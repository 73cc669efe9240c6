//! What the bodies of a stream tell it while they pass.
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::Stream;
use super::limits::Watchdog;
use crate::codec::body::{BodyError, BodyObserver};
use crate::telemetry::response_flag::ResponseFlag;

/// Counts the request body.
#[derive(Debug)]
pub(super) struct RequestObserver(pub(super) Rc<Stream>);

impl BodyObserver for RequestObserver {
    fn data(&self, data: &Bytes) {
        self.0.info.borrow_mut().bytes_received += data.len() as u64;
        self.0.metrics.request_data(data);
        self.0.limits.touch();
    }
    fn end(&self) {
        self.0.limits.request_whole();
        self.0.info.borrow_mut().last_downstream_rx = Some(std::time::Instant::now());
    }
    fn error(&self, _error: &BodyError) {}
    fn abandoned(&self) {}
}

/// Counts the response body, ends it at a limit, finishes the stream.
#[derive(Debug)]
pub(super) struct ResponseObserver {
    pub(super) stream: Rc<Stream>,
    pub(super) watchdog: Option<Watchdog>,
}

impl BodyObserver for ResponseObserver {
    fn data(&self, data: &Bytes) {
        self.stream.info.borrow_mut().bytes_sent += data.len() as u64;
        self.stream.metrics.response_data(data);
        self.stream.limits.touch();
    }

    fn trailers(&self, trailers: &HeaderMap) {
        *self.stream.trailers.borrow_mut() = Some(trailers.clone());
    }

    fn end(&self) {
        self.stream.finish();
    }

    fn error(&self, error: &BodyError) {
        let (flag, details) = match error {
            BodyError::Connection(_) => (
                Some(ResponseFlag::UpstreamConnectionTermination),
                "upstream_reset_after_response_started{connection_termination}",
            ),
            BodyError::Incomplete(_) => (
                Some(ResponseFlag::UpstreamProtocolError),
                "upstream_reset_after_response_started{protocol_error}",
            ),
            BodyError::Reset(_) => (
                Some(ResponseFlag::UpstreamRemoteReset),
                "upstream_reset_after_response_started{remote_reset}",
            ),
            // Whoever ended it has set the flag.
            BodyError::Ended(details) => (None, *details),
        };
        self.stream.set_end(flag, details);
        self.stream.finish();
    }

    fn abandoned(&self) {
        self.stream.client_left();
    }

    fn may_interrupt(&self) -> bool {
        self.watchdog.is_some()
    }

    fn interrupt(&self, cx: &mut Context<'_>) -> Option<BodyError> {
        let watchdog = self.watchdog.as_ref().filter(|_| !self.stream.finished.get())?;
        match watchdog.poll(cx) {
            Poll::Pending => None,
            Poll::Ready(limit) => {
                self.stream.count_limit(limit);
                self.stream.set_end(limit.flag(), limit.details());
                Some(BodyError::Ended(limit.details()))
            }
        }
    }
}
