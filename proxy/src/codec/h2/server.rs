//! The server side of HTTP/2.
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::{HeaderValue, Method, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::UNEXPECTED_UNDERSCORE;
use super::keepalive::{Heard, Listening};
use super::pump::pump;
use super::runners::Runners;
use crate::codec::activity::{Active, Activity};
use crate::codec::body::TrailerCheck;
use crate::codec::head::{RequestHead, authority_and_path};
use crate::codec::{
    Body, Feedback, Http2Settings, Request, ResponseHead, ServeEnd, ServerOptions, StreamHandler,
    Underscores, upgrade,
};
use crate::drain::DrainWatch;
use crate::time::{self, Instant};

/// A stream that begins.
type Accepted = (http::Request<RecvStream>, SendResponse<Bytes>, Active);

/// Serves one connection until it closes.
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
    let heard = options.http2.keepalive.map(Heard::new);
    let io = Listening::new(io, heard.clone());
    let mut connection = match time::within(options.head_timeout, builder(options.http2).handshake(io)).await
    {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return ServeEnd::Failed(error.to_string()),
        Err(elapsed) => return ServeEnd::Failed(elapsed.to_string()),
    };
    let watch = heard.zip(connection.ping_pong());
    let mut watch = watch.map(|(heard, pings)| Box::pin(heard.unanswered(pings)));
    let streams = Activity::new();
    let underscores = options.http2_underscores.clone();
    let (informs, serving) = (options.informs, handler.clone());
    let runners = Runners::new(move |(request, respond, active): Accepted| {
        let is_checked = !matches!(underscores, Underscores::Allow);
        let request = incoming(request, tls, informs, underscores.clone());
        serve_stream(request, is_checked, respond, serving.clone(), active)
    });
    let life = options.life;
    let mut served = 0_u32;
    let mut draining = false;
    let mut deadline = None;
    loop {
        tokio::select! {
            next = connection.accept() => match next {
                Some(Ok((mut request, mut respond))) => {
                    if options.http2_underscores.clean(request.headers_mut()).is_err() {
                        handler.reset(UNEXPECTED_UNDERSCORE);
                        respond.send_reset(Reason::INTERNAL_ERROR);
                        continue;
                    }
                    served = served.saturating_add(1);
                    if life.is_spent(served) {
                        handler.is_spent();
                        if !draining {
                            draining = true;
                            deadline = Some(Instant::now() + options.drain_timeout);
                            connection.graceful_shutdown();
                        }
                    }
                    runners.run((request, respond, streams.begin()));
                }
                // A client that is gone, or that ends the connection itself, has broken no rule.
                Some(Err(error)) if error.is_io() || error.is_remote() => return ServeEnd::Closed,
                Some(Err(error)) => return ServeEnd::Failed(error.to_string()),
                None => return ServeEnd::Closed,
            },
            () = drain.started(), if !draining => {
                draining = true;
                deadline = Some(Instant::now() + options.drain_timeout);
                connection.graceful_shutdown();
            }
            () = streams.idle(options.idle_timeout), if !draining => {
                draining = true;
                deadline = Some(Instant::now() + options.drain_timeout);
                connection.graceful_shutdown();
            }
            () = time::reach(life.old_at), if !draining && life.old_at.is_some() => {
                handler.is_old();
                draining = true;
                deadline = Some(Instant::now() + options.drain_timeout);
                connection.graceful_shutdown();
            }
            () = async { if let Some(watch) = &mut watch { watch.await } }, if watch.is_some() => {
                handler.is_deaf();
                tracing::debug!("the client does not answer PINGs");
                return ServeEnd::Closed;
            }
            () = time::reach(deadline), if draining && streams.is_quiet() => return ServeEnd::Closed,
        }
    }
}

fn builder(settings: Http2Settings) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_header_list_size(settings.max_header_list_bytes);
    if let Some(bytes) = settings.header_table_bytes {
        builder.header_table_size(bytes);
    }
    if settings.allows_connect {
        builder.enable_connect_protocol();
    }
    builder
}

async fn serve_stream<H: StreamHandler>(
    request: Request,
    is_checked: bool,
    mut respond: SendResponse<Bytes>,
    handler: Rc<H>,
    _active: Active,
) {
    let is_upgrade = request.head.is_upgrade;
    let is_connect = request.head.method == Method::CONNECT;
    let feedback = request.feedback.clone();
    let has_feedback = is_checked || feedback.takes_informational();
    // In place: it is some kilobytes, and would be moved with each call that takes it.
    let mut answering = pin!(handler.handle(request));
    let response = poll_fn(|cx| {
        let response = answering.as_mut().poll(cx);
        if has_feedback {
            feedback.register(cx);
            if let Some(informational) = feedback.take_informational() {
                inform(&mut respond, informational);
            }
            if response.is_pending() && feedback.why_cut().is_some() {
                respond.send_reset(Reason::INTERNAL_ERROR);
                return Poll::Ready(None);
            }
        }
        match response {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        }
    });
    let Some(mut response) = response.await else {
        return;
    };
    if is_upgrade && !is_connect {
        upgrade::response_to_h2(&mut response.head);
    }
    let mut head = http::Response::new(());
    *head.status_mut() = response.head.status;
    *head.headers_mut() = response.head.headers;
    let end = http_body::Body::is_end_stream(&response.body);
    match respond.send_response(head, end) {
        Ok(stream) if !end => {
            // Source: Envoy `ConnectionManagerImpl::doEndStream`.
            let broken = match is_upgrade {
                true => Reason::CONNECT_ERROR,
                false => Reason::INTERNAL_ERROR,
            };
            if let Err(error) = pump(stream, response.body, broken).await {
                tracing::debug!(?error, "HTTP/2 response did not arrive whole");
            }
        }
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(%error, "HTTP/2 response could not be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// Sends a 1xx response.
fn inform(respond: &mut SendResponse<Bytes>, informational: ResponseHead) {
    let mut head = http::Response::new(());
    *head.status_mut() = informational.status;
    *head.headers_mut() = informational.headers;
    if let Err(error) = respond.send_informational(head) {
        tracing::debug!(%error, "HTTP/2 informational response could not be sent");
    }
}

fn incoming(
    request: http::Request<RecvStream>,
    tls: bool,
    informs: bool,
    underscores: Underscores,
) -> Request {
    let (mut parts, body) = request.into_parts();
    let protocol = parts.extensions.remove::<Protocol>();
    let mut headers = parts.headers;
    let host = headers.remove(HOST);
    let scheme = match parts.uri.scheme_str() {
        Some("https") => "https",
        Some("http") => "http",
        _ if tls => "https",
        _ => "http",
    };
    join_cookies(&mut headers);
    let (authority, path) = authority_and_path(parts.uri, host);
    // Who is never told anything needs no place for it.
    let feedback = match informs || headers.contains_key(EXPECT) {
        true => Feedback::for_informational(informs),
        false => Feedback::default(),
    };
    let check = (!matches!(underscores, Underscores::Allow)).then(|| TrailerCheck {
        underscores,
        feedback: feedback.clone(),
    });
    let mut head = RequestHead {
        method: parts.method,
        path,
        authority,
        scheme,
        version: Version::HTTP_2,
        headers,
        is_upgrade: false,
    };
    head.is_upgrade = head.method == Method::CONNECT;
    if let Some(protocol) = protocol {
        upgrade::request_from_h2(&mut head, protocol.as_str());
    }
    let length = head.headers.get(CONTENT_LENGTH).filter(|_| !head.is_upgrade);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let body = match length {
        // What ends the stream may come later; nobody has to wait for it.
        Some(0) => Body::empty(),
        _ => Body::h2(body, check).of_length(length),
    };
    Request { head, body, feedback }
}

/// RFC 9113 §8.2.3: cookie crumbs are joined before the request leaves HTTP/2.
fn join_cookies(headers: &mut http::HeaderMap) {
    let mut crumbs = headers.get_all(http::header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(http::header::COOKIE, value);
    }
}
