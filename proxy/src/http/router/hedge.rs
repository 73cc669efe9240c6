//! Requests that are sent a second time while the first is still waited for: `hedge_on_per_try_timeout`.
//!
//! An attempt that takes longer than `per_try_timeout` goes on, and another begins beside it. The first good response wins; a bad one
//! counts only when nobody else can bring a better one. Source: Envoy `Router::Filter::onSoftPerTryTimeout`, `onUpstreamHeaders`,
//! `onUpstreamReset`, `onResponseTimeout`; route_components.proto `HedgePolicy`.
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use http::StatusCode;
use smallvec::SmallVec;

use super::attempt::{Attempt, AttemptError, Attempted};
use super::retry::Verdict;
use super::{Exchange, Guards};
use crate::codec::body::ReplaySource;
use crate::codec::{Body, Response};
use crate::http::local_reply::LocalReply;
use crate::telemetry::stream_info::StreamInfo;
use crate::time::{self, Instant};
use crate::upstream::endpoint::Host;

type Outcome = Result<Attempted, AttemptError>;
/// A response, or what to answer instead; `None`: others may still bring one.
type Decision = Option<Result<(Response, Guards), LocalReply>>;

/// Who is waited for, as the response timeout counts them.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// Attempts under way.
    pub(super) attempts: usize,
    /// Their hosts, but for those that outlier detection has heard of.
    pub(super) untold: SmallVec<[SocketAddr; 2]>,
}

/// An attempt under way.
struct Running {
    work: Pin<Box<dyn Future<Output = Outcome>>>,
    host: Arc<Host>,
    guards: Guards,
    info: Rc<RefCell<StreamInfo>>,
    /// It has just become too slow.
    is_slow: Rc<Cell<bool>>,
    /// Its timeout was told to outlier detection.
    is_told: bool,
    /// Another one was sent in its place.
    is_retried: bool,
}

/// An attempt to come.
struct Pending {
    at: Instant,
    /// The one before took too long.
    timed_out: bool,
}

enum Event {
    Ended(Box<(Running, Outcome)>),
    Slow(usize),
    Due(Pending),
}

/// All attempts of an exchange that hedges.
pub(super) struct Hedged<'e, 'a> {
    exchange: &'e mut Exchange<'a>,
    source: Option<ReplaySource>,
    running: Vec<Running>,
    pending: Vec<Pending>,
}

impl<'e, 'a> Hedged<'e, 'a> {
    pub(super) fn new(exchange: &'e mut Exchange<'a>, source: Option<ReplaySource>) -> Self {
        Self {
            exchange,
            source,
            running: Vec::new(),
            pending: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) -> Result<(Response, Guards), LocalReply> {
        self.start()?;
        loop {
            self.exchange.awaited = Awaited {
                attempts: self.running.len(),
                untold: self
                    .running
                    .iter()
                    .filter(|running| !running.is_told)
                    .map(|running| running.host.address)
                    .collect(),
            };
            let decision = match self.event().await {
                Event::Slow(index) => {
                    self.too_slow(index);
                    None
                }
                Event::Due(pending) => {
                    self.exchange.timed_out = Some(pending.timed_out);
                    self.start()?;
                    None
                }
                Event::Ended(ended) => match *ended {
                    (running, Ok(attempted)) => self.answered(running, attempted),
                    (running, Err(error)) => self.failed(running, &error),
                },
            };
            if let Some(decision) = decision {
                return decision;
            }
            if let Some(source) = self.source.as_ref().filter(|_| self.running.is_empty()) {
                source.supersede();
            }
        }
    }

    /// What happens next.
    async fn event(&mut self) -> Event {
        let due = self.pending.iter().map(|pending| pending.at).min();
        let Self { running, pending, .. } = self;
        let moved = std::future::poll_fn(|cx| poll(running, cx));
        tokio::select! {
            biased;
            event = moved => event,
            () = time::reach(due) => {
                let next = pending.iter().position(|pending| Some(pending.at) == due);
                Event::Due(pending.swap_remove(next.expect("`due` is the least of them")))
            }
        }
    }

    /// Begins an attempt; none without the whole of the body, while others go on.
    fn start(&mut self) -> Result<(), LocalReply> {
        let Ok(source) = sent(self.source.as_ref(), self.running.is_empty()) else {
            return match self.others() {
                true => Ok(()),
                false => Err(Exchange::body_lost()),
            };
        };
        let exchange = &mut *self.exchange;
        exchange.attempts += 1;
        exchange.stream.info.borrow_mut().attempt_count = exchange.attempts;
        let host = exchange.pick().ok_or_else(|| exchange.no_healthy_upstream())?;
        exchange.note_tried(&host);
        let head = exchange.head_for(&host);
        let info = Rc::new(RefCell::new(exchange.stream.info.borrow().clone()));
        let is_slow = Rc::new(Cell::new(false));
        let (stream, cluster, tls) = (
            exchange.stream.clone(),
            exchange.cluster.clone(),
            exchange.tls.clone(),
        );
        let (per_try, per_try_idle) = (exchange.per_try, exchange.per_try_idle);
        let passes_on = exchange.uses_feedback() && self.running.is_empty();
        let tunnel_end = exchange.forward.config.tunnel_end;
        let guards = Guards::new(&cluster, &host);
        let (own_host, own_info, own_slow) = (host.clone(), info.clone(), is_slow.clone());
        let work = Box::pin(async move {
            let attempt = Attempt {
                cluster: &cluster,
                host: &own_host,
                tls: &tls,
                info: &own_info,
                limits: &stream.limits,
                feedback: stream.feedback.as_ref().filter(|_| passes_on),
                per_try,
                per_try_idle,
                tunnel_end,
                goes_on: Some(&own_slow),
            };
            attempt.run(head, source.as_ref()).await
        });
        self.running.push(Running {
            work,
            host,
            guards,
            info,
            is_slow,
            is_told: false,
            is_retried: false,
        });
        Ok(())
    }

    /// `per_try_timeout` passed: another attempt begins, and this one goes on.
    fn too_slow(&mut self, index: usize) {
        let Some(running) = self.running.get_mut(index) else {
            return;
        };
        running.is_told = true;
        let exchange = &mut *self.exchange;
        exchange.tell(&running.host, &Err(AttemptError::PerTryTimeout));
        if exchange.retry.may_ever() && self.source.as_ref().is_none_or(ReplaySource::is_whole) {
            let wanted = exchange.retry.on_slow();
            let verdict = exchange.allow(wanted, self.source.as_ref());
            running.is_retried = verdict == Verdict::Retry;
            self.heed(verdict, true);
        }
    }

    fn answered(&mut self, running: Running, attempted: Attempted) -> Decision {
        let exchange = &mut *self.exchange;
        let head = &attempted.response.head;
        exchange.tell_answer(&running.host, &attempted);
        let (is_bad, verdict) = match running.is_retried {
            true => (exchange.retry.would(exchange.stream.request(), head), Verdict::No),
            false => {
                let verdict = exchange.judge_response(&attempted, self.source.as_ref());
                (verdict != Verdict::No, verdict)
            }
        };
        if verdict == Verdict::Retry {
            running.host.counters.rq_error.fetch_add(1, Ordering::Relaxed);
            self.heed(verdict, false);
            return None;
        }
        let redirects = exchange.redirect(head, self.source.as_ref());
        self.heed(verdict, false);
        if !redirects && is_bad && self.others() {
            running.host.counters.rq_error.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.show(&running);
        let Running { host, mut guards, .. } = running;
        let Attempted {
            response,
            permit,
            ends_at,
            ..
        } = attempted;
        guards.request = Some(permit);
        if redirects {
            let head = response.head;
            let body = Body::empty();
            return Some(Ok((Response { head, body }, guards)));
        }
        let response = self.exchange.accept(response, ends_at, &host, verdict);
        Some(Ok((response, guards)))
    }

    fn failed(&mut self, running: Running, error: &AttemptError) -> Decision {
        let exchange = &mut *self.exchange;
        running.host.counters.rq_error.fetch_add(1, Ordering::Relaxed);
        exchange.tell_error(&running.host, error);
        if matches!(error, AttemptError::Duration) {
            exchange.cluster.stats.upstream_rq_max_duration_reached.inc();
        }
        let verdict = match running.is_retried {
            true => Verdict::No,
            false => exchange.judge_error(error, self.source.as_ref()),
        };
        self.heed(verdict, false);
        if verdict == Verdict::Retry {
            return None;
        }
        self.show(&running);
        if self.others() {
            self.exchange
                .cluster
                .stats
                .response(StatusCode::SERVICE_UNAVAILABLE);
            return None;
        }
        Some(Err(self.exchange.failed(error, verdict)))
    }

    /// A retry is planned, or the log says why there is none.
    fn heed(&mut self, verdict: Verdict, timed_out: bool) {
        match verdict {
            Verdict::Retry => {
                let wait = self.exchange.next_wait();
                self.pending.push(Pending {
                    at: Instant::now() + wait,
                    timed_out,
                });
            }
            verdict => self.exchange.flag(verdict),
        }
    }

    /// Somebody else may bring a response.
    fn others(&self) -> bool {
        !self.running.is_empty() || !self.pending.is_empty()
    }

    /// What the log says of the upstream.
    fn show(&self, running: &Running) {
        let upstream = running.info.borrow().upstream.clone();
        self.exchange.stream.info.borrow_mut().upstream = upstream;
    }
}

/// The begin of a body was let go.
#[derive(Debug, PartialEq, Eq)]
struct Lost;

/// The body that an attempt sends, which has it for itself when it is `alone`.
fn sent(source: Option<&ReplaySource>, alone: bool) -> Result<Option<ReplaySource>, Lost> {
    let Some(source) = source else {
        return Ok(None);
    };
    let body = match alone {
        true => source.replayable().then(|| source.clone()),
        false => source.copy(),
    };
    body.map(Some).ok_or(Lost)
}

/// The next thing that happens to one of those under way.
fn poll(running: &mut Vec<Running>, cx: &mut Context<'_>) -> Poll<Event> {
    for index in 0..running.len() {
        let Some(one) = running.get_mut(index) else { break };
        if let Poll::Ready(outcome) = one.work.as_mut().poll(cx) {
            return Poll::Ready(Event::Ended(Box::new((running.remove(index), outcome))));
        }
        if one.is_slow.take() {
            return Poll::Ready(Event::Slow(index));
        }
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_BYTES: usize = 8;

    /// Whether there is an attempt, and whether it has a body, after the first sent `read` frames of it.
    async fn check(text: &'static str, read: usize, alone: bool, wanted: Result<bool, Lost>) {
        let source = ReplaySource::new(Body::full(text), LIMIT_BYTES, true);
        source.read_ahead().await;
        let mut first = source.attempt().expect("nothing was sent of it");
        for _ in 0..read {
            first.frame().await;
        }
        let body = sent(Some(&source), alone).map(|body| body.is_some());
        assert_eq!(body, wanted, "{text}, {read} frames, alone: {alone}");
    }

    #[tokio::test]
    async fn no_attempt_goes_without_its_body() {
        for alone in [true, false] {
            assert!(matches!(sent(None, alone), Ok(None)));
            check("short", 0, alone, Ok(true)).await;
            check("short", 2, alone, Ok(true)).await;
            check("over the limit", 2, alone, Err(Lost)).await;
        }
        let source = ReplaySource::new(Body::full("to come"), LIMIT_BYTES, true);
        assert!(matches!(sent(Some(&source), true), Ok(Some(_))));
        assert!(matches!(sent(Some(&source), false), Err(Lost)));
    }
}
