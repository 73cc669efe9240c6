//! One request, end to end. Read [`run`]: everything else hangs off it.
//!
//! There is one end for every path: [`Stream::finish`] runs once, when the response body has ended or was given up, or when the client
//! leaves before there is a response.
pub(super) mod limits;
mod metrics;
mod observers;
mod prepare;
mod redirected;

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use self::limits::{Limit, Limits, Watchdog};
use self::metrics::StreamMetrics;
use self::observers::{RequestObserver, ResponseObserver};
use self::prepare::Chosen;
use super::downstream::Downstream;
use super::filter::{ActiveFault, FilterState, Settings};
use super::head;
use super::local_reply::LocalReply;
use super::local_reply::body_format::BodyFormat;
use super::manager::ConnectionManager;
use super::redirect;
use super::route_table::Action;
use super::router::internal_redirect::{Journey, NextPass};
use super::router::steering::Steering;
use super::router::{self, Guards};
use super::upgrade::Upgraded;
use crate::codec::{Body, Feedback, Refusal, Request, RequestHead, Response, ResponseHead};
use crate::telemetry::access_log::{Entry, RequestView};
use crate::telemetry::response_flag::ResponseFlag;
use crate::telemetry::stream_info::StreamInfo;

/// State of one stream that outlives its handler: logs are written when the response body has ended.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) manager: Arc<ConnectionManager>,
    pub(super) downstream: Rc<Downstream>,
    pub(super) info: RefCell<StreamInfo>,
    pub(super) random: RefCell<fastrand::Rng>,
    pub(super) limits: Limits,
    /// Its connection's; `None` when there was no request.
    pub(super) feedback: Option<Feedback>,
    /// The name of the host that was picked, where a route puts it in the authority's place.
    pub(super) picked_authority: RefCell<Option<HeaderValue>>,
    /// The port that a CONNECT has lost, and gets back when it is forwarded.
    pub(super) lost_port: Cell<Option<u32>>,
    /// The path before a rewrite.
    pub(super) original_path: RefCell<Option<HeaderValue>>,
    /// The request head; set once it is routed and filtered, or refused.
    request: OnceCell<RequestHead>,
    /// Of the response's headers those that logs and metrics look at in the end.
    response_headers: RefCell<HeaderMap>,
    trailers: RefCell<Option<HeaderMap>>,
    guards: RefCell<Option<Guards>>,
    /// Until the stream ends.
    pub(super) fault: RefCell<Option<ActiveFault>>,
    /// The request's body while filters look at it.
    pub(super) body: RefCell<Option<Box<Body>>>,
    /// What led here; `None`: the client itself.
    journey: Option<Box<Journey>>,
    /// Where it goes on, after a redirect that is not the client's.
    next: OnceCell<Box<NextPass>>,
    /// What a client that is inside asked of the router.
    pub(super) steering: OnceCell<Box<Steering>>,
    metrics: StreamMetrics,
    /// Set when the client may change the protocol.
    upgrade: OnceCell<Upgraded>,
    finished: Cell<bool>,
}

/// Answers one request. `journey`: what led to it, if that was a redirect of an upstream.
pub(super) async fn run(
    manager: &Arc<ConnectionManager>,
    downstream: &Rc<Downstream>,
    request: Request,
    journey: Option<Box<Journey>>,
) -> Response {
    let Request {
        mut head,
        body,
        feedback,
    } = request;
    let mut stream = Stream::new(manager, downstream, head.version);
    stream.feedback = Some(feedback.clone());
    stream.journey = journey;
    let stream = Rc::new(stream);
    stream.metrics.received(manager, &head);
    if !manager.config.passes_100_continue {
        head::continue_at_once(&mut head, &feedback);
    }
    let unanswered = Unanswered(Some(stream.clone()));
    let mut body = if body.is_empty() {
        stream.limits.request_whole();
        body
    } else {
        stream.limits.set_request(manager.config.request_timeout);
        body.observe(Rc::new(RequestObserver(stream.clone())))
    };
    let has_body = !body.is_empty();
    let mut state = FilterState::default();
    let mut chosen = Chosen::default();
    let reads_bodies = manager.filters.reads_bodies && !body.is_empty();
    if reads_bodies {
        let body = std::mem::replace(&mut body, Body::empty());
        stream.body.replace(Some(Box::new(body)));
    }
    let prepared = stream.prepare(head, &mut state, &mut chosen).await;
    if reads_bodies && let Some(held) = stream.body.take() {
        body = *held;
    }
    let is_past_filters = prepared.is_ok();
    let outcome = match (prepared, &chosen.route) {
        (Err(reply), _) => Err(reply),
        (Ok(()), None) => Err(stream.no_route()),
        (Ok(()), Some(route)) => match &route.action {
            Action::Direct { status, body, format } => {
                Ok(stream.direct_response(*status, body, format.as_deref()))
            }
            Action::Redirect(redirect) => {
                let request = stream.request();
                let made = route.redirect_path(request, &stream.info.borrow());
                Err(redirect::reply(redirect, made.as_deref(), request))
            }
            Action::Forward(_) if chosen.is_over && chosen.cluster.is_some() => {
                // As in Envoy, whose attempt ends as it begins.
                stream.info.borrow_mut().attempt_count = 1;
                Err(stream.limit_reached(Limit::Duration))
            }
            Action::Forward(forward) => {
                let target = (chosen.target(), chosen.cluster.as_ref());
                // In place: it is some kilobytes, and would be moved with each call that takes it.
                let forwarding = pin!(router::forward(&stream, route, forward, target, &state, body));
                tokio::select! {
                    biased;
                    refusal = feedback.refused(), if has_body => Err(LocalReply::refusal(&refusal)),
                    outcome = forwarding => outcome,
                }
            }
        },
    };
    let passed = feedback.take_passed();
    if passed.is_cut {
        // Whoever resets the stream drops this.
        std::future::pending::<()>().await;
    }
    let passed = passed.informational;
    if passed > 0 {
        manager.stats.downstream_rq_class[0].add(passed);
        manager.stats.downstream_rq_completed.add(passed);
    }
    let mut response = match outcome {
        Ok(forwarded) => {
            *stream.guards.borrow_mut() = forwarded.guards;
            if let Some(next) = stream.next.get() {
                unanswered.disarm();
                return stream.redirected(&forwarded.response.head, next, feedback).await;
            }
            forwarded.response
        }
        Err(reply) => stream.local_reply(&reply),
    };
    stream.encode(&mut response, &mut state, &chosen, is_past_filters);
    if let Some(rate) = state.response_bytes_per_second {
        response.body = response.body.paced(rate);
    }
    unanswered.disarm();
    stream.respond(response)
}

/// Answers what was no request.
pub(super) fn refuse(
    manager: &Arc<ConnectionManager>,
    downstream: &Rc<Downstream>,
    refusal: &Refusal,
) -> Response {
    let stream = Rc::new(Stream::new(manager, downstream, Version::HTTP_11));
    let mut response = stream.local_reply(&LocalReply::refusal(refusal));
    head::outbound(manager, &mut response.head, None, (None, &stream.info.borrow()));
    stream.info.borrow_mut().response_code = Some(response.head.status);
    stream.respond(response)
}

/// Accounts for a request of which only the begin came.
pub(super) fn gave_up(manager: &Arc<ConnectionManager>, downstream: &Rc<Downstream>) {
    Stream::new(manager, downstream, Version::HTTP_11).client_left();
}

/// Accounts for a stream that the codec resets because of its head.
pub(super) fn reset(manager: &Arc<ConnectionManager>, downstream: &Rc<Downstream>, details: &'static str) {
    let stream = Stream::new(manager, downstream, Version::HTTP_2);
    manager.stats.downstream_rq_rx_reset.inc();
    stream.set_end(Some(ResponseFlag::DownstreamRemoteReset), details);
    stream.finish();
}

impl Stream {
    fn new(manager: &Arc<ConnectionManager>, downstream: &Rc<Downstream>, version: Version) -> Self {
        let stats = &manager.stats;
        stats.downstream_rq_total.inc();
        stats.downstream_rq_active.inc();
        match version {
            Version::HTTP_2 => stats.downstream_rq_http2_total.inc(),
            _ => stats.downstream_rq_http1_total.inc(),
        }
        Self {
            manager: manager.clone(),
            downstream: downstream.clone(),
            info: RefCell::new(StreamInfo::new(downstream.info.clone(), Some(version))),
            random: RefCell::new(fastrand::Rng::new()),
            limits: Limits::new(manager.config.stream_idle_timeout, manager.config.stream_duration),
            feedback: None,
            picked_authority: RefCell::new(None),
            lost_port: Cell::new(None),
            original_path: RefCell::new(None),
            request: OnceCell::new(),
            response_headers: RefCell::new(HeaderMap::new()),
            trailers: RefCell::new(None),
            guards: RefCell::new(None),
            fault: RefCell::new(None),
            body: RefCell::new(None),
            journey: None,
            next: OnceCell::new(),
            steering: OnceCell::new(),
            metrics: StreamMetrics::default(),
            upgrade: OnceCell::new(),
            finished: Cell::new(false),
        }
    }

    /// The head as it is forwarded, logged and answered.
    pub(super) fn request(&self) -> &RequestHead {
        self.request
            .get()
            .expect("prepare has set it before anybody asks")
    }

    /// The same before it is certain that there is one.
    pub(super) fn request_if_any(&self) -> Option<&RequestHead> {
        self.request.get()
    }

    fn direct_response(
        &self,
        status: StatusCode,
        body: &Bytes,
        format: Option<&BodyFormat>,
    ) -> router::Forwarded {
        let request = self.request();
        let made = format.map(|format| format.write(body, request.into(), &self.info.borrow(), None));
        let body = made.map_or_else(|| body.clone(), Bytes::from);
        self.info.borrow_mut().response_code_details = Some("direct_response".into());
        // What is no text is nothing that could be changed.
        let is_mapped = self.manager.local_replies.is_some() && std::str::from_utf8(&body).is_ok();
        if request.is_grpc() || is_mapped {
            let text = String::from_utf8_lossy(&body).into_owned();
            let mut reply = LocalReply::new(status, None, "direct_response", text);
            if let Some(format) = format.filter(|_| !request.is_grpc()) {
                reply
                    .headers
                    .push((http::header::CONTENT_TYPE, format.media_type.clone()));
            }
            reply.headers.extend(redirect::location(status, None, request));
            return router::Forwarded {
                response: self.local_reply(&reply),
                guards: None,
            };
        }
        let mut headers = HeaderMap::from_iter(redirect::location(status, None, request));
        if !body.is_empty() {
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            let content_type = match format {
                Some(format) => format.media_type.clone(),
                None => HeaderValue::from_static("text/plain"),
            };
            headers.insert(http::header::CONTENT_TYPE, content_type);
        }
        let body = Body::full(body);
        router::Forwarded {
            response: Response {
                head: ResponseHead { status, headers },
                body,
            },
            guards: None,
        }
    }

    fn local_reply(&self, reply: &LocalReply) -> Response {
        // What the proxy answers is there at once.
        self.limits.disarm();
        let mut info = self.info.borrow_mut();
        if let Some(flag) = reply.flag {
            info.set_flag(flag);
        }
        info.response_code_details = Some(reply.details.clone());
        let mut response = match &self.manager.local_replies {
            None => reply.response(self.request.get()),
            Some(replies) => replies.response(reply, self.request.get(), &mut info),
        };
        let extras = self.manager.extras.as_ref();
        if extras.is_some_and(|extras| extras.keeps_connections()) {
            response.head.headers.remove(http::header::CONNECTION);
        }
        response
    }

    /// The response head on its way down. What a filter answers has no header of the route.
    fn encode(
        self: &Rc<Self>,
        response: &mut Response,
        state: &mut FilterState,
        chosen: &Chosen,
        is_past_filters: bool,
    ) {
        let Response { head, body } = response;
        if is_past_filters {
            let mut info = self.info.borrow_mut();
            info.response_code = Some(head.status);
            for changes in chosen.header_changes() {
                changes.response.change_response(head, &info, self.request.get());
            }
        }
        let nothing = Settings::default();
        let settings = chosen.settings().unwrap_or(&nothing);
        self.manager.filters.encode(self, (head, body), state, settings);
        {
            let info = self.info.borrow();
            let decorator = chosen.decorator.as_ref();
            head::outbound(&self.manager, head, decorator, (self.request.get(), &info));
        }
        let mut info = self.info.borrow_mut();
        info.response_code = Some(head.status);
        info.upstream_peer = state.upstream_peer.take();
        drop(info);
        self.metrics.sent(&self.manager, head);
        self.keep_headers(&head.headers);
    }

    /// A map of all of them would be copied for the one that the usual access log shows.
    fn keep_headers(&self, headers: &HeaderMap) {
        let mut kept = self.response_headers.borrow_mut();
        for name in &self.manager.kept_response_headers {
            if let Some(value) = headers.get(name) {
                kept.insert(name.clone(), value.clone());
            }
        }
    }

    /// Hands the response to the codec; its body tells when the stream is over.
    fn respond(self: Rc<Self>, response: Response) -> Response {
        let head_only = self
            .request
            .get()
            .is_some_and(|request| request.method == Method::HEAD);
        let body = if head_only { Body::empty() } else { response.body };
        if body.is_empty() {
            self.metrics.sent_all();
            self.finish();
            return Response {
                head: response.head,
                body,
            };
        }
        self.limits.touch();
        self.limits.set_request(None);
        let watchdog = self.limits.any().then(|| {
            let stream = self.clone();
            Watchdog::new(async move { stream.limits.reached().await })
        });
        let observer = ResponseObserver {
            stream: self,
            watchdog,
        };
        Response {
            head: response.head,
            body: body.observe(Rc::new(observer)),
        }
    }

    /// The end of the stream, on every path, once: counters, log, guards.
    fn finish(&self) {
        if self.finished.replace(true) {
            return;
        }
        // Filters may have left it here, and its observer holds this stream. Its drop may tell that observer of the end.
        drop(self.body.take());
        self.guards.borrow_mut().take();
        self.fault.borrow_mut().take();
        let mut info = self.info.borrow_mut();
        info.finish();
        let stats = &self.manager.stats;
        stats.downstream_rq_active.dec();
        if info.response_code.is_some() && !self.limits.is_request_whole() {
            stats.downstream_rq_response_before_rq_complete.inc();
            stats.downstream_rq_rx_reset.inc();
        }
        // As Envoy, a redirect that the client does not see is no response of this listener.
        let is_counted = self.next.get().is_none() && !info.is_health_check;
        if let Some(code) = info.response_code.filter(|_| is_counted) {
            stats.downstream_rq_completed.inc();
            if let Some(class) = stats
                .downstream_rq_class
                .get(usize::from(code.as_u16() / 100).wrapping_sub(1))
            {
                class.inc();
            }
        }
        let millis = info.duration().unwrap_or(Duration::ZERO).as_millis();
        stats
            .downstream_rq_time
            .record(u64::try_from(millis).unwrap_or(u64::MAX));
        let trailers = self.trailers.borrow();
        if self.request.get().is_some() {
            self.record_end(&info, &self.response_headers.borrow(), trailers.as_ref());
        }
        let picked = self.picked_authority.borrow();
        self.manager.access_log.log(&Entry {
            request: self.head_in_the_end().map(|request| RequestView {
                authority: picked.as_ref().unwrap_or(&request.authority).as_bytes(),
                ..view(request)
            }),
            response_headers: Some(&self.response_headers.borrow()),
            trailers: trailers.as_ref(),
            ..Entry::of(&info)
        });
    }

    /// A limit ended the stream.
    pub(super) fn limit_reached(&self, limit: Limit) -> LocalReply {
        self.count_limit(limit);
        self.limits.reply(limit)
    }

    fn count_limit(&self, limit: Limit) {
        match limit {
            Limit::Idle => self.manager.stats.downstream_rq_idle_timeout.inc(),
            Limit::Request => self.manager.stats.downstream_rq_timeout.inc(),
            Limit::Duration => self.manager.stats.downstream_rq_max_duration_reached.inc(),
            Limit::TryIdle => {
                if let Some(guards) = &*self.guards.borrow() {
                    guards.idled();
                }
            }
            Limit::Exchange => {
                if let Some(guards) = &*self.guards.borrow() {
                    guards.took_too_long();
                }
            }
            Limit::Response => {
                if let Some(guards) = &*self.guards.borrow() {
                    guards.timed_out();
                }
            }
        }
    }

    /// Why the stream ends before its time.
    fn set_end(&self, flag: Option<ResponseFlag>, details: &'static str) {
        let mut info = self.info.borrow_mut();
        if let Some(flag) = flag {
            info.set_flag(flag);
        }
        info.response_code_details = Some(details.into());
    }

    fn client_left(&self) {
        if !self.finished.get() {
            self.manager.stats.downstream_rq_rx_reset.inc();
            let cut = self.feedback.as_ref().and_then(Feedback::why_cut);
            let (flag, details) = match cut {
                Some(details) => (ResponseFlag::DownstreamRemoteReset, details),
                None => (
                    ResponseFlag::DownstreamConnectionTermination,
                    "downstream_remote_disconnect",
                ),
            };
            self.set_end(Some(flag), details);
            self.finish();
        }
    }
}

/// The request as logs and header values show it.
pub(super) fn view(request: &RequestHead) -> RequestView<'_> {
    RequestView {
        method: &request.method,
        path: if request.method == Method::CONNECT {
            ""
        } else {
            request.path.as_str()
        },
        authority: request.authority.as_bytes(),
        scheme: request.scheme,
        headers: &request.headers,
    }
}

/// Finishes a stream whose client left before the response.
struct Unanswered(Option<Rc<Stream>>);

impl Unanswered {
    fn disarm(mut self) {
        self.0.take();
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.client_left();
        }
    }
}

#[cfg(test)]
mod tests;
