//! Connections of the admin interface: plain HTTP/1.1, few of them, small requests.
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, DATE, SERVER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use super::AdminView;
use super::answer::Answer;
use super::endpoint::{self, Later, Outcome, Pieces};
use super::query::Query;
use crate::codec::{
    Body, Http2Settings, Refusal, Request, RequestHead, Response, ResponseHead, ServeEnd, ServerOptions,
    StreamHandler, Underscores, h1,
};
use crate::drain::DrainWatch;
use crate::{time, worker};

/// More connections wait in the kernel's queue until one of these ends.
const MAX_CONNECTIONS: u32 = 64;
/// Request bodies beyond this are refused; the only ones that are read are forms.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Request heads: a long filter in the query fits.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Answers that are on their way when the process ends have this long.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// As listeners do when file descriptors are short.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(10);

/// Pieces of an answer that wait for its client.
const PIECES_AHEAD: usize = 4;

const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// Serves until `drain` starts, which is when the process ends and not when its listeners drain: the admin interface answers
/// through the whole drain time. Returns when the last answers are written, or after two seconds: wait for it, or the OK of
/// `/quitquitquit` may be lost.
pub(crate) async fn serve(listener: std::net::TcpListener, view: Rc<dyn AdminView>, mut drain: DrainWatch) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "admin socket cannot be used");
            return;
        }
    };
    let admin = Rc::new(Admin {
        view,
        aside: Semaphore::new(1),
    });
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = drain.started() => break,
        };
        match accepted {
            Ok((stream, slot)) => {
                let (admin, drain) = (admin.clone(), drain.clone());
                worker::spawn(async move {
                    if let ServeEnd::Failed(reason) =
                        h1::server::serve(stream, false, &OPTIONS, admin, drain).await
                    {
                        tracing::debug!(reason, "admin connection ended");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept an admin connection; trying on");
                let _ = time::within(Some(EXHAUSTED_PAUSE), std::future::pending::<()>()).await;
            }
        }
    }
    let _ = time::within(Some(LAST_ANSWERS), slots.acquire_many(MAX_CONNECTIONS)).await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}

const OPTIONS: ServerOptions = ServerOptions {
    max_head_bytes: MAX_HEAD_BYTES,
    max_headers: MAX_HEADERS,
    // Scripts of old speak it.
    accept_http_10: true,
    takes_chunked_length: false,
    passes_trailers: false,
    name_case: crate::codec::NameCase::Lower,
    informs: false,
    http1_underscores: Underscores::Allow,
    http2_underscores: Underscores::Allow,
    head_timeout: Some(HEAD_TIMEOUT),
    idle_timeout: Some(IDLE_TIMEOUT),
    drain_timeout: LAST_ANSWERS,
    drain_closes_idle: true,
    life: crate::codec::Life::ENDLESS,
    // Never spoken here.
    http2: Http2Settings {
        max_concurrent_streams: 1,
        stream_window: 65_535,
        connection_window: 65_535,
        max_header_list_bytes: 65_536,
        allows_connect: false,
        header_table_bytes: None,
        keepalive: None,
    },
};

struct Admin {
    view: Rc<dyn AdminView>,
    /// A dump takes tens of megabytes while it is made: one at a time.
    aside: Semaphore,
}

impl StreamHandler for Admin {
    async fn handle(&self, request: Request) -> Response {
        let Request { head, mut body, .. } = request;
        let answer = match query(&head, &mut body).await {
            Ok(query) => match endpoint::route(&*self.view, &head.method, head.path.path(), &query) {
                Outcome::Ready(answer) => answer,
                Outcome::Later(later) => return self.aside(later).await,
            },
            Err(answer) => answer,
        };
        response(answer)
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        response(Answer::text(refusal.body).with_status(refusal.status))
    }
}

impl Admin {
    async fn aside(&self, later: Later) -> Response {
        let Ok(_turn) = self.aside.acquire().await else {
            return response(Answer::internal("shutting down\n"));
        };
        let (sender, mut pieces) = mpsc::channel(PIECES_AHEAD);
        let rest = tokio::task::spawn_blocking(move || later(&Pieces(sender)));
        // An answer in pieces is small while it is made, and takes as long as its client: it does not keep others waiting.
        if let Some(first) = pieces.recv().await {
            let rest = async move { Some(rest.await.ok()?.body.into()) };
            return head_and_body(&Answer::json(String::new()), Body::made(first, pieces, rest));
        }
        response(match rest.await {
            Ok(answer) => answer,
            Err(error) => Answer::internal(format!("the answer could not be made: {error}\n")),
        })
    }
}

/// The query of the path, or if it has none and the body is a form, that.
async fn query(head: &RequestHead, body: &mut Body) -> Result<Query, Answer> {
    let query = Query::parse(head.path.query().unwrap_or_default());
    let is_form = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(FORM));
    if head.method != Method::POST || !query.is_empty() || !is_form {
        return Ok(query);
    }
    let mut form = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Answer::bad_request(format!("request body: {error}\n")))?;
        let data = frame.data_ref().map(AsRef::as_ref).unwrap_or_default();
        if form.len() + data.len() > MAX_BODY_BYTES {
            return Err(Answer::text("Payload Too Large").with_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        form.extend_from_slice(data);
    }
    Ok(Query::parse(&String::from_utf8_lossy(&form)))
}

fn response(mut answer: Answer) -> Response {
    let text = std::mem::take(&mut answer.body);
    let length = HeaderValue::from(text.len());
    let mut response = head_and_body(&answer, Body::full(text));
    response.head.headers.insert(CONTENT_LENGTH, length);
    response
}

/// What is the same for an answer whose length is not known.
fn head_and_body(answer: &Answer, body: Body) -> Response {
    let Answer {
        status, content_type, ..
    } = *answer;
    let mut headers = HeaderMap::with_capacity(7);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now())) {
        headers.insert(DATE, now);
    }
    headers.insert(SERVER, HeaderValue::from_static("envoy"));
    Response {
        head: ResponseHead { status, headers },
        body,
    }
}
