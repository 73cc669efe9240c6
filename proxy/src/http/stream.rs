//! One request, end to end. Read [`run`]: everything else hangs off it.
//!
//! There is one end for every path: [`Stream::finish`] runs once, when the response body has ended or was given up, or when the client
//! leaves before there is a response.
use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::downstream::Downstream;
use super::filter::FilterState;
use super::head;
use super::local_reply::LocalReply;
use super::manager::ConnectionManager;
use super::route_table::{Action, Route};
use super::router::{self, Guards};
use crate::codec::body::{BodyError, BodyObserver};
use crate::codec::{Request, RequestHead, Response, ResponseHead};
use crate::telemetry::access_log::{Entry, RequestView};
use crate::telemetry::response_flag::ResponseFlag;
use crate::telemetry::stream_info::StreamInfo;
use crate::time::Instant;

/// State of one stream that outlives its handler: logs are written when the response body has ended.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) manager: Arc<ConnectionManager>,
    pub(super) downstream: Rc<Downstream>,
    pub(super) info: RefCell<StreamInfo>,
    pub(super) random: RefCell<fastrand::Rng>,
    /// The path before a rewrite.
    pub(super) original_path: RefCell<Option<HeaderValue>>,
    /// The request head as logs and local replies see it; set once it is routed and filtered, or refused.
    request: OnceCell<RequestHead>,
    response_headers: RefCell<HeaderMap>,
    trailers: RefCell<Option<HeaderMap>>,
    guards: RefCell<Option<Guards>>,
    finished: Cell<bool>,
}

/// Answers one request.
pub(super) async fn run(
    manager: &Arc<ConnectionManager>,
    downstream: &Rc<Downstream>,
    request: Request,
) -> Response {
    let Request { mut head, body } = request;
    let stream = Rc::new(Stream::new(manager, downstream, &head));
    let unanswered = Unanswered(Some(stream.clone()));
    let body = if body.is_empty() {
        body
    } else {
        body.observe(Rc::new(RequestObserver(stream.clone())))
    };
    let mut state = FilterState::default();
    let mut chosen = None;
    let outcome = match stream.prepare(&mut head, &mut state) {
        Err(reply) => Err(reply),
        Ok(Prepared {
            route,
            decorator,
            cluster,
        }) => {
            let outcome = match &route.action {
                Action::Direct { status, body } => Ok(stream.direct_response(*status, body)),
                Action::Forward(forward) => {
                    router::forward(&stream, &route, forward, cluster, &state, head, body).await
                }
            };
            chosen = Some((route, decorator));
            outcome
        }
    };
    let (mut response, deadline) = match outcome {
        Ok(forwarded) => {
            *stream.guards.borrow_mut() = forwarded.guards;
            (forwarded.response, forwarded.deadline)
        }
        Err(reply) => (stream.local_reply(&reply), None),
    };
    stream.encode(&mut response.head, &mut state, chosen);
    unanswered.disarm();
    stream.respond(response, deadline)
}

/// What is known of a request before it is forwarded.
struct Prepared {
    route: Arc<Route>,
    decorator: Option<HeaderValue>,
    cluster: Option<Arc<crate::upstream::cluster::Cluster>>,
}

impl Stream {
    fn new(manager: &Arc<ConnectionManager>, downstream: &Rc<Downstream>, head: &RequestHead) -> Self {
        let stats = &manager.stats;
        stats.downstream_rq_total.inc();
        stats.downstream_rq_active.inc();
        match head.version {
            Version::HTTP_2 => stats.downstream_rq_http2_total.inc(),
            _ => stats.downstream_rq_http1_total.inc(),
        }
        Self {
            manager: manager.clone(),
            downstream: downstream.clone(),
            info: RefCell::new(StreamInfo::new(downstream.info.clone(), Some(head.version))),
            random: RefCell::new(fastrand::Rng::new()),
            original_path: RefCell::new(None),
            request: OnceCell::new(),
            response_headers: RefCell::new(HeaderMap::new()),
            trailers: RefCell::new(None),
            guards: RefCell::new(None),
            finished: Cell::new(false),
        }
    }

    /// From the head as it came to a route and, past the filters, to a head that can be forwarded.
    fn prepare(&self, head: &mut RequestHead, state: &mut FilterState) -> Result<Prepared, LocalReply> {
        let result = self.route_and_filter(head, state);
        // Logs see the head with its request id and rewritten path.
        let _ = self.request.set(head.clone());
        result
    }

    fn route_and_filter(
        &self,
        head: &mut RequestHead,
        state: &mut FilterState,
    ) -> Result<Prepared, LocalReply> {
        head::check(&self.manager, head)?;
        head::inbound(
            &self.manager,
            &self.downstream,
            head,
            &mut self.info.borrow_mut(),
            &mut self.random.borrow_mut(),
        )?;
        let routes = self.manager.routes.load();
        let found = if head.method == Method::CONNECT {
            None
        } else {
            routes.route(head).cloned()
        };
        let Some(route) = found else {
            self.manager.stats.no_route.inc();
            return Err(LocalReply::new(
                StatusCode::NOT_FOUND,
                Some(ResponseFlag::NoRouteFound),
                "route_not_found",
                "",
            ));
        };
        self.manager.stats.rq_total.inc();
        self.info.borrow_mut().route_name = Some(route.name.clone());
        let decorator = head::decorate_request(&self.manager, &route, head);
        let mut cluster = None;
        if let Action::Forward(forward) = &route.action
            && let Some(target) = forward.target(&mut self.random.borrow_mut())
        {
            cluster = target.cluster.load();
            self.info.borrow_mut().upstream_cluster_raw = Some(target.cluster.name.clone());
            head::change_request(&target.headers, head);
            self.rewrite(&route, head);
        }
        for changes in &route.headers_changes {
            head::change_request(changes, head);
        }
        for filter in &self.manager.filters {
            filter.decode(state, head, cluster.as_deref());
        }
        Ok(Prepared {
            route,
            decorator,
            cluster,
        })
    }

    fn rewrite(&self, route: &Route, head: &mut RequestHead) {
        if let Some(path) = route.rewritten_path(head) {
            *self.original_path.borrow_mut() = HeaderValue::from_str(head.path.as_str()).ok();
            head.path = path;
        }
    }

    fn direct_response(&self, status: StatusCode, body: &bytes::Bytes) -> router::Forwarded {
        self.info.borrow_mut().response_code_details = Some("direct_response".into());
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        let body = crate::codec::Body::full(body.clone());
        router::Forwarded {
            response: Response {
                head: ResponseHead { status, headers },
                body,
            },
            deadline: None,
            guards: None,
        }
    }

    fn local_reply(&self, reply: &LocalReply) -> Response {
        let mut info = self.info.borrow_mut();
        if let Some(flag) = reply.flag {
            info.set_flag(flag);
        }
        info.response_code_details = Some(reply.details.clone());
        reply.response(
            self.request
                .get()
                .expect("prepare has set it before there is a reply"),
        )
    }

    /// The response head on its way down.
    fn encode(
        &self,
        head: &mut ResponseHead,
        state: &mut FilterState,
        chosen: Option<(Arc<Route>, Option<HeaderValue>)>,
    ) {
        let decorator = chosen.and_then(|(route, decorator)| {
            for changes in &route.headers_changes {
                head::change_response(changes, head);
            }
            decorator
        });
        for filter in self.manager.filters.iter().rev() {
            filter.encode(state, head);
        }
        head::outbound(&self.manager, head, decorator);
        self.info.borrow_mut().response_code = Some(head.status);
        self.response_headers.borrow_mut().clone_from(&head.headers);
    }

    /// Hands the response to the codec; its body tells when the stream is over.
    fn respond(self: Rc<Self>, response: Response, deadline: Option<Instant>) -> Response {
        let body = response.body;
        if body.is_empty() {
            self.finish();
            return Response {
                head: response.head,
                body,
            };
        }
        let timer = deadline.map(|deadline| RefCell::new(Box::pin(tokio::time::sleep_until(deadline))));
        let idle = self.manager.config.stream_idle_timeout.map(IdleTimer::new);
        let observer = ResponseObserver {
            stream: self,
            timer,
            idle,
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
        self.guards.borrow_mut().take();
        let mut info = self.info.borrow_mut();
        info.finish();
        let stats = &self.manager.stats;
        stats.downstream_rq_active.dec();
        if let Some(code) = info.response_code {
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
        self.manager.access_log.log(&Entry {
            info: &info,
            request: self.request.get().map(|request| RequestView {
                method: &request.method,
                path: request.path.as_str(),
                authority: request.authority.as_bytes(),
                scheme: request.scheme,
                headers: &request.headers,
            }),
            response_headers: Some(&self.response_headers.borrow()),
            trailers: trailers.as_ref(),
        });
    }

    fn client_left(&self) {
        self.manager.stats.downstream_rq_rx_reset.inc();
        let mut info = self.info.borrow_mut();
        info.set_flag(ResponseFlag::DownstreamConnectionTermination);
        info.response_code_details = Some("downstream_remote_disconnect".into());
        drop(info);
        self.finish();
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

/// Counts the request body.
#[derive(Debug)]
struct RequestObserver(Rc<Stream>);

impl BodyObserver for RequestObserver {
    fn data(&self, bytes: usize) {
        self.0.info.borrow_mut().bytes_received += bytes as u64;
    }
    fn end(&self) {
        self.0.info.borrow_mut().last_downstream_rx = Some(std::time::Instant::now());
    }
    fn error(&self, _error: &BodyError) {}
    fn abandoned(&self) {}
}

/// Counts the response body, ends it at the deadline, finishes the stream.
#[derive(Debug)]
struct ResponseObserver {
    stream: Rc<Stream>,
    timer: Option<RefCell<Pin<Box<tokio::time::Sleep>>>>,
    idle: Option<IdleTimer>,
}

impl BodyObserver for ResponseObserver {
    fn data(&self, bytes: usize) {
        self.stream.info.borrow_mut().bytes_sent += bytes as u64;
        if let Some(idle) = &self.idle {
            idle.reset();
        }
    }

    fn trailers(&self, trailers: &HeaderMap) {
        *self.stream.trailers.borrow_mut() = Some(trailers.clone());
    }

    fn end(&self) {
        self.stream.finish();
    }

    fn error(&self, error: &BodyError) {
        let mut info = self.stream.info.borrow_mut();
        let (flag, details) = match error {
            BodyError::Connection(_) => (
                ResponseFlag::UpstreamConnectionTermination,
                "upstream_reset_after_response_started{connection_termination}",
            ),
            BodyError::Incomplete(_) => (
                ResponseFlag::UpstreamProtocolError,
                "upstream_reset_after_response_started{protocol_error}",
            ),
            BodyError::Reset(_) => (
                ResponseFlag::UpstreamRemoteReset,
                "upstream_reset_after_response_started{remote_reset}",
            ),
            BodyError::Ended(details) => (ResponseFlag::UpstreamRequestTimeout, *details),
        };
        info.set_flag(flag);
        info.response_code_details = Some(details.into());
        drop(info);
        self.stream.finish();
    }

    fn abandoned(&self) {
        self.stream.client_left();
    }

    fn interrupt(&self, cx: &mut Context<'_>) -> Option<BodyError> {
        if let Some(timer) = &self.timer
            && timer.borrow_mut().as_mut().poll(cx).is_ready()
        {
            return Some(BodyError::Ended("response_timeout"));
        }
        if self.idle.as_ref().is_some_and(|idle| idle.expired(cx)) {
            self.stream.manager.stats.downstream_rq_idle_timeout.inc();
            return Some(BodyError::Ended("stream_idle_timeout"));
        }
        None
    }
}

/// `stream_idle_timeout`: starts anew with every piece of data.
#[derive(Debug)]
struct IdleTimer {
    limit: Duration,
    sleep: RefCell<Pin<Box<tokio::time::Sleep>>>,
}

impl IdleTimer {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            sleep: RefCell::new(Box::pin(tokio::time::sleep(limit))),
        }
    }

    fn reset(&self) {
        self.sleep
            .borrow_mut()
            .as_mut()
            .reset(Instant::now() + self.limit);
    }

    fn expired(&self, cx: &mut Context<'_>) -> bool {
        matches!(self.sleep.borrow_mut().as_mut().poll(cx), Poll::Ready(()))
    }
}
