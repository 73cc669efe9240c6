//! The client side of HTTP/2: many streams on a connection.
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::Reason;
use http::uri::{self, PathAndQuery};
use http::{Method, StatusCode, Uri, Version};
use outrigger_model::cluster::ResponseHeadLimits;
use tokio::io::{AsyncRead, AsyncWrite};

use super::keepalive::{Heard, Listening};
use super::pump::pump;
use crate::codec::head::{RequestHead, ResponseHead, is_beyond};
use crate::codec::{Body, Feedback, Http2Settings, Response, SendError, upgrade};
use crate::worker;

/// Bytes of names and values, where the cluster says nothing. Source: Envoy 1.40, `DEFAULT_MAX_REQUEST_HEADERS_KB`.
pub(crate) const USUAL_HEAD_BYTES: u32 = 60 * 1024;
/// What `:status` takes of them.
const STATUS_BYTES: usize = 10;

/// One upstream connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    sender: h2::client::SendRequest<Bytes>,
    limits: Option<ResponseHeadLimits>,
    /// Of a connection whose peer is asked whether it is there.
    heard: Option<Rc<Heard>>,
}

/// Why a connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Either side closed it, or it failed.
    Closed,
    /// The peer did not answer PINGs.
    Deaf,
}

/// Makes a client of a connected stream; heads of responses beyond `limits` are refused. `on_close` runs when the connection is gone.
///
/// # Errors
/// The connection failed inside the handshake.
pub(crate) async fn handshake<IO>(
    io: IO,
    settings: Http2Settings,
    limits: Option<ResponseHeadLimits>,
    on_close: impl FnOnce(End) + 'static,
) -> Result<Client, SendError>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_header_list_size(settings.max_header_list_bytes)
        .enable_push(false);
    if let Some(bytes) = settings.header_table_bytes {
        builder.header_table_size(bytes);
    }
    let heard = settings.keepalive.map(Heard::new);
    let (sender, mut connection) = builder
        .handshake(Listening::new(io, heard.clone()))
        .await
        .map_err(|error| SendError::Closed(error.to_string()))?;
    let watch = heard.clone().zip(connection.ping_pong());
    worker::spawn(async move {
        let closed = async {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream HTTP/2 connection ended");
            }
        };
        let end = match watch {
            None => {
                closed.await;
                End::Closed
            }
            Some((heard, pings)) => tokio::select! {
                () = closed => End::Closed,
                () = heard.unanswered(pings) => End::Deaf,
            },
        };
        on_close(end);
    });
    Ok(Client {
        sender,
        limits,
        heard,
    })
}

impl Client {
    /// Sends one request and waits for the response head; informational responses go to `feedback`. Waits for a free stream slot (SETTINGS_MAX_CONCURRENT_STREAMS) first.
    ///
    /// # Errors
    /// [`SendError::NotSent`] only when no byte of it went out.
    pub(crate) async fn send(
        &self,
        head: RequestHead,
        body: Body,
        feedback: Option<&Feedback>,
    ) -> Result<Response, SendError> {
        if let Some(heard) = &self.heard {
            heard.begin();
        }
        let mut sender = self.sender.clone().ready().await.map_err(not_sent)?;
        if head.is_upgrade {
            // On the heap, for those few that ask for it.
            return Box::pin(change_protocol(sender, head, body)).await;
        }
        let end = http_body::Body::is_end_stream(&body);
        let (response, stream) = sender.send_request(outgoing(head)?, end).map_err(not_sent)?;
        if end {
            drop(body);
        } else {
            send_body(stream, body);
        }
        let mut response = response;
        let response = poll_fn(|cx| {
            if let Some(feedback) = feedback.filter(|feedback| feedback.passes_informational()) {
                while let Poll::Ready(Some(Ok(informational))) = response.poll_informational(cx) {
                    // RFC 9113 §8.6: there is none in HTTP/2, and an HTTP/1 client would take it for the end of HTTP. Where nothing is
                    // passed on it is passed over like the others.
                    if informational.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return Poll::Ready(Err(SendError::Protocol("status 101 in HTTP/2".into())));
                    }
                    inform(feedback, informational);
                }
            }
            Pin::new(&mut response).poll(cx).map_err(failed)
        });
        let response = response.await?;
        let limits = self.limits.as_ref();
        let is_too_long =
            |limits| is_beyond(limits, USUAL_HEAD_BYTES, Some(STATUS_BYTES), response.headers());
        if limits.is_some_and(is_too_long) {
            // As Envoy, whose own reset of the stream looks like the server's.
            return Err(SendError::Reset("the head of the response is too long".into()));
        }
        Ok(incoming(response))
    }
}

fn inform(feedback: &Feedback, informational: http::Response<()>) {
    let (parts, ()) = informational.into_parts();
    feedback.inform(ResponseHead {
        status: parts.status,
        headers: parts.headers,
    });
}

/// CONNECT (RFC 9113 §8.5) or, for another protocol, extended CONNECT (RFC 8441). The body goes when the answer is yes. As Envoy, without waiting for settings that allow it: an upstream that
/// does not resets the stream.
async fn change_protocol(
    mut sender: h2::client::SendRequest<Bytes>,
    mut head: RequestHead,
    body: Body,
) -> Result<Response, SendError> {
    if head.method == Method::CONNECT {
        let (response, stream) = sender.send_request(connecting(head)?, false).map_err(not_sent)?;
        let response = response.await.map(incoming).map_err(failed)?;
        if response.head.status.is_success() {
            send_body(stream, body);
        }
        return Ok(response);
    }
    let wanted = upgrade::request_to_h2(&mut head);
    let text = wanted.as_ref().and_then(|wanted| wanted.to_str().ok());
    let (Some(text), Some(wanted)) = (text, &wanted) else {
        return Err(SendError::Protocol("the upgrade names no protocol".into()));
    };
    let protocol = h2::ext::Protocol::from(text);
    let mut request = outgoing(head)?;
    request.extensions_mut().insert(protocol);
    let (response, stream) = sender.send_request(request, false).map_err(not_sent)?;
    let mut response = response.await.map(incoming).map_err(failed)?;
    upgrade::response_from_h2(&mut response.head, wanted.clone());
    if response.head.status == StatusCode::SWITCHING_PROTOCOLS {
        send_body(stream, body);
    }
    Ok(response)
}

fn send_body(stream: h2::SendStream<Bytes>, body: Body) {
    worker::spawn(async move {
        if let Err(error) = pump(stream, body, Reason::INTERNAL_ERROR).await {
            tracing::debug!(?error, "HTTP/2 request did not leave whole");
        }
    });
}

fn incoming(response: http::Response<h2::RecvStream>) -> Response {
    let (parts, body) = response.into_parts();
    Response {
        head: ResponseHead {
            status: parts.status,
            headers: parts.headers,
        },
        body: Body::h2(body, None),
    }
}

/// A CONNECT has neither `:scheme` nor `:path`.
fn connecting(head: RequestHead) -> Result<http::Request<()>, SendError> {
    let uri = Uri::builder().authority(head.authority.as_bytes());
    with_target(uri, head)
}

fn outgoing(mut head: RequestHead) -> Result<http::Request<()>, SendError> {
    let path = std::mem::replace(&mut head.path, PathAndQuery::from_static("/"));
    // An empty authority has no place in a URI; a host that is no authority cannot be sent as one.
    let host = head.headers.get(http::header::HOST);
    if head.authority.is_empty() && head.scheme == "http" && host.is_some_and(|host| !host.is_empty()) {
        return Ok(without_authority(path, head));
    }
    let uri = Uri::builder().scheme(head.scheme).path_and_query(path);
    let uri = uri.authority(head.authority.as_bytes());
    with_target(uri, head)
}

/// As a request that comes from HTTP/1.1: `host` says for whom it is. Source: RFC 9113, section 8.3.1.
fn without_authority(path: PathAndQuery, head: RequestHead) -> http::Request<()> {
    let mut request = http::Request::new(());
    *request.method_mut() = head.method;
    *request.uri_mut() = Uri::from(path);
    // The h2 library takes no request without authority otherwise.
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = head.headers;
    request
}

fn with_target(uri: uri::Builder, mut head: RequestHead) -> Result<http::Request<()>, SendError> {
    let uri = uri
        .build()
        .map_err(|error| SendError::Protocol(format!("authority: {error}")))?;
    head.headers.remove(http::header::HOST);
    let mut request = http::Request::new(());
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers;
    Ok(request)
}

fn not_sent(error: h2::Error) -> SendError {
    SendError::NotSent(error.to_string())
}

fn failed(error: h2::Error) -> SendError {
    let text = error.to_string();
    if error.reason() == Some(Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote()) {
        SendError::Refused(text)
    } else if error.is_reset() {
        SendError::Reset(text)
    } else if error.is_io() {
        SendError::Closed(text)
    } else {
        SendError::Protocol(text)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    const SETTINGS: Http2Settings = Http2Settings {
        max_concurrent_streams: 10,
        stream_window: 65_535,
        connection_window: 65_535,
        max_header_list_bytes: 65_536,
        allows_connect: false,
        header_table_bytes: None,
        keepalive: None,
    };

    /// What comes of a request that is answered with these.
    async fn ask(informational: u16, passes: bool) -> (Result<StatusCode, SendError>, Option<StatusCode>) {
        let (near, far) = tokio::io::duplex(10_000);
        worker::spawn(async move {
            let mut server = h2::server::handshake(far).await.expect("a connection");
            while let Some(Ok((_, mut respond))) = server.accept().await {
                let status = |status| http::Response::builder().status(status).body(());
                let informational = status(informational).expect("a response");
                respond.send_informational(informational).expect("it goes");
                let last = status(200).expect("a response");
                respond.send_response(last, true).expect("it goes");
            }
        });
        let client = handshake(near, SETTINGS, None, |_| ())
            .await
            .expect("a connection");
        let head = RequestHead {
            method: Method::GET,
            path: PathAndQuery::from_static("/"),
            authority: HeaderValue::from_static("a"),
            scheme: "http",
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            is_upgrade: false,
        };
        let feedback = Feedback::for_informational(passes);
        let response = client.send(head, Body::empty(), Some(&feedback)).await;
        let told = feedback.take_informational().map(|told| told.status);
        (response.map(|response| response.head.status), told)
    }

    #[tokio::test]
    async fn protocols_are_not_switched_by_status() {
        let check = async {
            let (response, told) = ask(103, true).await;
            assert_eq!(
                (response.ok(), told),
                (Some(StatusCode::OK), Some(StatusCode::EARLY_HINTS))
            );
            let (response, told) = ask(101, true).await;
            assert!(matches!(response, Err(SendError::Protocol(_))), "{response:?}");
            assert_eq!(told, None);
            let (response, told) = ask(101, false).await;
            assert_eq!((response.ok(), told), (Some(StatusCode::OK), None));
        };
        tokio::task::LocalSet::new().run_until(check).await;
    }
}
