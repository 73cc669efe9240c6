//! What passes between a connection and the stream that answers its request, besides request and response.
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::StatusCode;

use super::ResponseHead;
use super::names::Names;

/// Why what a client sent is no request: what it is told, and what is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The status.
    pub(crate) status: StatusCode,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(crate) details: &'static str,
    /// The response's body.
    pub(crate) body: &'static str,
    /// The client broke the protocol: flag `DPE`, and a counter.
    pub(crate) is_protocol_error: bool,
}

impl Refusal {
    /// The client broke the protocol; the body is the status's name.
    pub(crate) fn protocol_error(status: StatusCode, details: &'static str) -> Self {
        Self {
            status,
            details,
            body: status.canonical_reason().unwrap_or_default(),
            is_protocol_error: true,
        }
    }

    /// `request_headers_timeout` passed.
    pub(crate) fn head_timeout() -> Self {
        Self {
            status: StatusCode::REQUEST_TIMEOUT,
            details: "request_header_timeout",
            body: "request header timeout",
            is_protocol_error: false,
        }
    }
}

/// Of one connection; clones are the same. By default one that takes no informational responses. Behind a lock because hyper calls for
/// informational responses only what could move to another thread; nobody else is ever in there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Feedback(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    takes_informational: bool,
    passes_informational: bool,
    informational: Option<ResponseHead>,
    passed: u64,
    refusal: Option<Refusal>,
    cut: Option<&'static str>,
    task: Option<Waker>,
    request_names: Option<Arc<Names>>,
    response_names: Option<Names>,
}

/// What passed while a request was handled.
pub(crate) struct Passed {
    /// Informational responses that went out.
    pub(crate) informational: u64,
    /// Nobody waits for the response: the stream is about to be reset.
    pub(crate) is_cut: bool,
}

impl Feedback {
    /// Of a connection that sends informational responses; those of upstreams too, or our own alone.
    pub(super) fn for_informational(of_upstreams: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            takes_informational: true,
            passes_informational: of_upstreams,
            ..Inner::default()
        })))
    }

    /// Informational responses of upstreams are passed on.
    pub(super) fn passes_informational(&self) -> bool {
        self.lock().passes_informational
    }

    /// How the request wrote names.
    pub(super) fn keep_request_names(&self, names: Names) {
        self.lock().request_names = Some(Arc::new(names));
    }

    /// What [`Self::keep_request_names`] kept.
    pub(super) fn request_names(&self) -> Option<Arc<Names>> {
        self.lock().request_names.clone()
    }

    /// How the response wrote names, if that is known.
    pub(super) fn keep_response_names(&self, names: Option<Names>) {
        self.lock().response_names = names;
    }

    /// Its connection can send a 1xx response.
    pub(super) fn takes_informational(&self) -> bool {
        self.lock().takes_informational
    }

    /// Sends a 1xx response ahead of the response, if none was sent before and the client's protocol allows. To be called while the request is handled.
    pub(crate) fn inform(&self, head: ResponseHead) {
        let mut inner = self.lock();
        // As Envoy, one a request.
        if inner.takes_informational && inner.passed == 0 {
            inner.informational = Some(head);
            inner.passed += 1;
            inner.wake();
        }
    }

    /// How many went out since this was asked before.
    pub(crate) fn take_passed(&self) -> Passed {
        let mut inner = self.lock();
        Passed {
            informational: std::mem::take(&mut inner.passed),
            is_cut: inner.cut.is_some(),
        }
    }

    /// The request turns out to be none, and its stream is reset without an answer. `details` are `%RESPONSE_CODE_DETAILS%`.
    pub(super) fn cut(&self, details: &'static str) {
        let mut inner = self.lock();
        inner.cut = Some(details);
        inner.wake();
    }

    /// Why, if it was.
    pub(crate) fn why_cut(&self) -> Option<&'static str> {
        self.lock().cut
    }

    /// What [`Self::inform`] was given since.
    pub(super) fn take_informational(&self) -> Option<ResponseHead> {
        self.lock().informational.take()
    }

    /// What [`Self::inform`] was given since, and how the response wrote names.
    pub(super) fn take_told(&self) -> (Option<ResponseHead>, Option<Names>) {
        let mut inner = self.lock();
        (inner.informational.take(), inner.response_names.take())
    }

    /// The body of the request is none.
    pub(super) fn refuse(&self, refusal: Refusal) {
        let mut inner = self.lock();
        inner.refusal = Some(refusal);
        inner.wake();
    }

    /// Whether it was.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.lock().refusal
    }

    /// The task that serves the connection, and handles its request, hears of both.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut inner = self.lock();
        match &mut inner.task {
            Some(task) => task.clone_from(cx.waker()),
            None => inner.task = Some(cx.waker().clone()),
        }
    }

    /// Returns when the body of the request turns out to be none: the stream has to answer that, instead of what it was about to.
    /// For the handler, in whose task the connection is served.
    pub(crate) async fn refused(&self) -> Refusal {
        poll_fn(|_| self.refusal().map_or(Poll::Pending, Poll::Ready)).await
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}
