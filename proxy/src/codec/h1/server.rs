//! The server side of HTTP/1.
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;

use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Method, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::codec::activity::Activity;
use crate::codec::body::Observers;
use crate::codec::head::{RequestHead, authority_and_path, remove_connection_headers};
use crate::codec::{Body, Request, Response, ServeEnd, ServerOptions, StreamHandler, body};
use crate::drain::DrainWatch;

/// hyper refuses smaller read buffers.
const MIN_BUFFER_BYTES: usize = 8192;

/// Serves one connection until it closes. `tls` says which scheme requests in origin form have.
pub(crate) async fn serve<IO, H>(
    io: IO,
    tls: bool,
    options: &ServerOptions,
    handler: Rc<H>,
    mut drain: DrainWatch,
) -> ServeEnd
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    H: StreamHandler,
{
    let activity = Activity::new();
    let watchdogs = Rc::new(RefCell::new(Observers::new()));
    let service = {
        let (activity, drain, watchdogs) = (activity.clone(), drain.clone(), watchdogs.clone());
        hyper::service::service_fn(move |request| {
            let (handler, activity, drain) = (handler.clone(), activity.clone(), drain.clone());
            let watchdogs = watchdogs.clone();
            async move {
                let active = activity.begin();
                let response = handler.handle(incoming(request, tls)).await;
                drop(active);
                *watchdogs.borrow_mut() = response.body.watchdogs();
                Ok::<_, Infallible>(outgoing(response, drain.is_draining()))
            }
        })
    };
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .auto_date_header(false)
        .max_headers(options.max_headers)
        .max_buf_size(options.max_head_bytes.max(MIN_BUFFER_BYTES));
    let connection = builder.serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    let mut draining = false;
    loop {
        tokio::select! {
            result = &mut connection => return match result {
                Ok(()) => ServeEnd::Closed,
                Err(error) => ServeEnd::Failed(body::describe(&error)),
            },
            // hyper does not ask the body for more while the client does not read, and limits hold then too.
            error = poll_fn(|cx| body::poll_interruption(&watchdogs.borrow(), cx)) => return ServeEnd::Failed(error.to_string()),
            // Else a drained connection goes with its next response, which says so: a client's request may be on its way.
            () = drain.started(), if !draining && options.drain_closes_idle => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = activity.idle(options.idle_timeout), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn incoming(request: hyper::Request<hyper::body::Incoming>, tls: bool) -> Request {
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    let host = headers.get(HOST).cloned();
    let (authority, path) = authority_and_path(parts.uri, host);
    remove_connection_headers(&mut headers);
    let head = RequestHead {
        method: parts.method,
        path,
        authority,
        scheme: if tls { "https" } else { "http" },
        version: parts.version,
        headers,
    };
    let body = if head.method == Method::CONNECT {
        Body::empty()
    } else {
        Body::h1(body)
    };
    Request { head, body }
}

fn outgoing(response: Response, close: bool) -> hyper::Response<Body> {
    let mut message = hyper::Response::new(response.body);
    *message.status_mut() = response.head.status;
    *message.headers_mut() = response.head.headers;
    *message.version_mut() = Version::HTTP_11;
    if close {
        message
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    message
}
