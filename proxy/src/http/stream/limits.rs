//! Time limits of one stream. At most one timer is armed, and none when the configuration sets no limit.
//!
//! Source: Envoy docs, "How do I configure timeouts?": stream idle timeout, max stream duration, route timeout. The last begins when the
//! request has arrived whole, and a route's `max_stream_duration` takes its place.
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::Notify;

use crate::http::local_reply::LocalReply;
use crate::telemetry::response_flag::ResponseFlag;
use crate::time::{self, Instant};

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Limit {
    /// Nothing came from either side for too long.
    Idle,
    /// The request did not end in time.
    Request,
    /// The stream is too old.
    Duration,
    /// The response took too long.
    Response,
    /// Nothing of the response came for too long, after its head.
    TryIdle,
    /// The exchange with the upstream took too long, its response not being at its end.
    Exchange,
}

/// The limits of one stream, and what they are counted from.
#[derive(Debug)]
pub(in crate::http) struct Limits {
    begun: Instant,
    active: Cell<Instant>,
    whole: Cell<Option<Instant>>,
    /// The response is waited for although the request never ends.
    asked: Cell<Option<Instant>>,
    /// When filters let the request go on, if they had it wait.
    waited: Cell<Option<Instant>>,
    idle: Cell<Option<Duration>>,
    request: Cell<Option<Duration>>,
    duration: Cell<Option<Duration>>,
    response: Cell<Option<Duration>>,
    try_idle: Cell<Option<Duration>>,
    exchange_end: Cell<Option<Instant>>,
    /// The request became whole.
    arrived: Notify,
}

impl Limits {
    /// Of a stream that begins now.
    pub(super) fn new(idle: Option<Duration>, duration: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            active: Cell::new(now),
            whole: Cell::new(None),
            asked: Cell::new(None),
            waited: Cell::new(None),
            idle: Cell::new(idle),
            request: Cell::new(None),
            duration: Cell::new(duration),
            response: Cell::new(None),
            try_idle: Cell::new(None),
            exchange_end: Cell::new(None),
            arrived: Notify::new(),
        }
    }

    /// `idle_timeout` of the route; zero: none.
    pub(super) fn set_idle(&self, limit: Duration) {
        self.idle.set(Some(limit).filter(|limit| !limit.is_zero()));
    }

    /// `request_timeout`, from the stream's begin to the request's end; `None`: no such limit, or no more.
    pub(super) fn set_request(&self, limit: Option<Duration>) {
        self.request.set(limit);
    }

    /// `max_stream_duration`, from the stream's begin.
    pub(in crate::http) fn set_duration(&self, limit: Option<Duration>) {
        self.duration.set(limit);
    }

    /// The route's timeout, from the end of the request.
    pub(in crate::http) fn set_response(&self, limit: Option<Duration>) {
        self.response.set(limit);
    }

    /// `per_try_idle_timeout`, from the response head or the request's end, whichever is later.
    pub(in crate::http) fn set_try_idle(&self, limit: Option<Duration>) {
        self.try_idle.set(limit);
    }

    /// The cluster's `max_stream_duration`, for what is left of a response.
    pub(in crate::http) fn set_exchange_end(&self, end: Option<Instant>) {
        self.exchange_end.set(end);
    }

    /// No limit holds any more.
    pub(super) fn disarm(&self) {
        for limit in [
            &self.idle,
            &self.request,
            &self.duration,
            &self.response,
            &self.try_idle,
        ] {
            limit.set(None);
        }
        self.exchange_end.set(None);
    }

    /// Something of the stream moved.
    pub(super) fn touch(&self) {
        if self.idle.get().is_some() || self.try_idle.get().is_some() {
            self.active.set(Instant::now());
        }
    }

    /// The last byte of the request came.
    pub(super) fn request_whole(&self) {
        self.whole.set(Some(Instant::now()));
        self.arrived.notify_waiters();
    }

    /// A filter had the request wait: the route's timeout is the upstream's alone.
    pub(in crate::http) fn waited(&self) {
        self.waited.set(Some(Instant::now()));
        self.touch();
    }

    /// The response is due although the request goes on: that of a WebSocket handshake. Source: Envoy 1.40,
    /// `websocket_enable_timeout_on_upgrade_response`.
    pub(in crate::http) fn response_due(&self) {
        self.asked.set(Some(Instant::now()));
        self.arrived.notify_waiters();
    }

    /// What is left of the time for the response; `None`: it has no limit, or it has not begun.
    pub(in crate::http) fn response_left(&self) -> Option<Duration> {
        Some(self.response.get()?.saturating_sub(self.due()?.elapsed()))
    }

    /// Since when the response is waited for.
    fn due(&self) -> Option<Instant> {
        let due = self.whole.get().or(self.asked.get())?;
        Some(due.max(self.waited.get().unwrap_or(due)))
    }

    /// How long the whole request has been on its way upstream; `None`: it is not whole. All attempts count, and the wait for a
    /// connection. Source: Envoy's router, `downstream_request_complete_time_`.
    pub(in crate::http) fn service_time(&self) -> Option<Duration> {
        let whole = self.whole.get()?;
        Some(whole.max(self.waited.get().unwrap_or(whole)).elapsed())
    }

    /// [`Self::request_whole`] was called.
    pub(in crate::http) fn is_request_whole(&self) -> bool {
        self.whole.get().is_some()
    }

    /// Returns when the request is whole.
    pub(in crate::http) async fn whole(&self) {
        while self.whole.get().is_none() {
            self.arrived.notified().await;
        }
    }

    /// Any limit is set.
    pub(super) fn any(&self) -> bool {
        let limits = [
            &self.idle,
            &self.request,
            &self.duration,
            &self.response,
            &self.try_idle,
        ];
        limits.iter().any(|limit| limit.get().is_some()) || self.exchange_end.get().is_some()
    }

    /// Runs `future` until a limit is reached.
    pub(in crate::http) async fn within<F: Future>(&self, future: F) -> Result<F::Output, Limit> {
        if !self.any() {
            return Ok(future.await);
        }
        tokio::select! {
            biased;
            output = future => Ok(output),
            limit = self.reached() => Err(limit),
        }
    }

    /// The limit that is reached first.
    pub(super) async fn reached(&self) -> Limit {
        loop {
            let Some((at, limit)) = self.next() else {
                self.arrived.notified().await;
                continue;
            };
            tokio::select! {
                () = time::reach(Some(at)) => {
                    // Activity since then has moved an idle limit.
                    if self.next().is_some_and(|(at, _)| at <= Instant::now()) {
                        return limit;
                    }
                }
                () = self.arrived.notified() => {}
            }
        }
    }

    fn next(&self) -> Option<(Instant, Limit)> {
        let after = |from: Option<Instant>, limit: &Cell<Option<Duration>>| Some(from? + limit.get()?);
        let limits = [
            (after(Some(self.active.get()), &self.idle), Limit::Idle),
            (after(self.begun_request(), &self.request), Limit::Request),
            (after(Some(self.begun), &self.duration), Limit::Duration),
            (after(self.due(), &self.response), Limit::Response),
            (
                after(self.due().map(|due| due.max(self.active.get())), &self.try_idle),
                Limit::TryIdle,
            ),
            (self.exchange_end.get(), Limit::Exchange),
        ];
        let set = limits.into_iter().filter_map(|(at, limit)| Some((at?, limit)));
        set.min_by_key(|(at, _)| *at)
    }

    /// Since when the rest of the request is waited for.
    fn begun_request(&self) -> Option<Instant> {
        self.whole.get().is_none().then_some(self.begun)
    }

    /// The answer, when no response has begun.
    pub(in crate::http) fn reply(&self, limit: Limit) -> LocalReply {
        // As Envoy: who has not sent the whole request is at fault.
        let status = match self.whole.get().or(self.asked.get()) {
            Some(_) if limit != Limit::Request => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::REQUEST_TIMEOUT,
        };
        let body = match limit {
            Limit::Idle => "stream timeout",
            Limit::Request => "request timeout",
            Limit::Duration => "downstream duration timeout",
            Limit::Response | Limit::TryIdle => "upstream request timeout",
            Limit::Exchange => EXCHANGE_ENDED,
        };
        let mut reply = LocalReply::new(status, limit.flag(), limit.details(), body);
        if limit == Limit::Duration {
            reply.grpc_status = Some(DEADLINE_EXCEEDED);
        }
        reply
    }
}

/// Source: Envoy `Router::Filter::onStreamMaxDurationReached`.
const EXCHANGE_ENDED: &str = "upstream max stream duration reached";

/// Source: gRPC, `statuscodes.md`.
const DEADLINE_EXCEEDED: u32 = 4;

impl Limit {
    /// For the access log.
    pub(super) fn flag(self) -> Option<ResponseFlag> {
        match self {
            Self::Idle => Some(ResponseFlag::StreamIdleTimeout),
            Self::Request | Self::Duration => None,
            Self::Response | Self::TryIdle => Some(ResponseFlag::UpstreamRequestTimeout),
            Self::Exchange => Some(ResponseFlag::UpstreamMaxStreamDurationReached),
        }
    }

    /// `%RESPONSE_CODE_DETAILS%`.
    pub(super) fn details(self) -> &'static str {
        match self {
            Self::Idle => "stream_idle_timeout",
            Self::Request => "request_overall_timeout",
            Self::Duration => "max_duration_timeout",
            Self::Response => "response_timeout",
            Self::TryIdle => "upstream_per_try_idle_timeout",
            Self::Exchange => "upstream_max_stream_duration_reached",
        }
    }
}

/// [`Limits::reached`] for one who is polled.
pub(super) struct Watchdog(RefCell<Pin<Box<dyn Future<Output = Limit>>>>);

impl Watchdog {
    /// Waits on `reached`.
    pub(super) fn new(reached: impl Future<Output = Limit> + 'static) -> Self {
        Self(RefCell::new(Box::pin(reached)))
    }

    /// Not to be asked again after an answer.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Limit> {
        self.0.borrow_mut().as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watchdog")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn check(limits: Limits, expected: Limit, after: Duration) {
        let start = Instant::now();
        assert_eq!(limits.reached().await, expected);
        assert_eq!(start.elapsed().as_millis(), after.as_millis());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_limit_counts() {
        let limits = Limits::new(Some(3 * SECOND), None);
        limits.set_duration(Some(2 * SECOND));
        limits.set_response(Some(SECOND));
        check(limits, Limit::Duration, 2 * SECOND).await;
        let limits = Limits::new(Some(3 * SECOND), None);
        limits.set_response(Some(SECOND));
        limits.request_whole();
        check(limits, Limit::Response, SECOND).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_response_limit_begins_with_the_end_of_the_request() {
        let limits = Limits::new(None, None);
        limits.set_response(Some(SECOND));
        let start = Instant::now();
        let (limit, ()) = tokio::join!(limits.reached(), async {
            tokio::time::sleep(5 * SECOND).await;
            limits.request_whole();
        });
        assert_eq!((limit, start.elapsed().as_secs()), (Limit::Response, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn activity_moves_the_idle_limit() {
        let limits = Limits::new(Some(2 * SECOND), None);
        let start = Instant::now();
        let (limit, ()) = tokio::join!(limits.reached(), async {
            for _ in 0..3 {
                tokio::time::sleep(SECOND).await;
                limits.touch();
            }
        });
        assert_eq!((limit, start.elapsed().as_secs()), (Limit::Idle, 5));
    }
}
