//! The client side of HTTP/1: one request at a time on a connection.
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Uri, Version};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::codec::head::{
    RequestHead, ResponseHead, remove_connection_headers, remove_own_connection_headers,
};
use crate::codec::{Body, Feedback, Response, SendError, body};
use crate::worker;

/// One upstream connection.
#[derive(Debug)]
pub(crate) struct Client {
    sender: http1::SendRequest<Body>,
}

/// Makes a client of a connected stream. `on_close` runs when the connection is gone.
///
/// # Errors
/// Never in practice: HTTP/1 has no handshake.
pub(crate) async fn handshake<IO>(io: IO, on_close: impl FnOnce() + 'static) -> Result<Client, SendError>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io))
        .await
        .map_err(|error| SendError::Closed(body::describe(&error)))?;
    worker::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream HTTP/1 connection ended");
        }
        on_close();
    });
    Ok(Client { sender })
}

impl Client {
    /// The connection can take a request now.
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// The connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends one request and waits for the response head; informational responses go to `feedback`.
    ///
    /// # Errors
    /// [`SendError::NotSent`] only when no byte of it went out.
    pub(crate) async fn send(
        &mut self,
        head: RequestHead,
        body: Body,
        feedback: Option<&Feedback>,
    ) -> Result<Response, SendError> {
        let mut message = outgoing(head, body);
        if let Some(feedback) = feedback.cloned() {
            hyper::ext::on_informational(&mut message, move |informational| {
                let mut headers = informational.headers().clone();
                remove_connection_headers(&mut headers);
                let status = informational.status();
                feedback.inform(ResponseHead { status, headers });
            });
        }
        match self.sender.try_send_request(message).await {
            Ok(response) => Ok(incoming(response)),
            Err(mut failed) => {
                let unsent = failed.take_message().is_some();
                let error = failed.into_error();
                let text = body::describe(&error);
                Err(if unsent {
                    SendError::NotSent(text)
                } else if error.is_parse() {
                    SendError::Protocol(text)
                } else {
                    SendError::Closed(text)
                })
            }
        }
    }
}

fn outgoing(head: RequestHead, body: Body) -> hyper::Request<Body> {
    let mut message = hyper::Request::new(body);
    *message.method_mut() = head.method;
    *message.uri_mut() = Uri::from(head.path);
    *message.version_mut() = Version::HTTP_11;
    *message.headers_mut() = head.headers;
    message.headers_mut().insert(HOST, head.authority);
    // RFC 9110 §8.6: a request whose method expects content says that it has none. The exempted methods are Envoy's.
    let expects_content = !matches!(
        *message.method(),
        Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT
    );
    let has_body = !message.body().is_empty();
    if has_body && !message.headers().contains_key(CONTENT_LENGTH) {
        // hyper leaves out the body of a GET unless this says that there is one.
        let headers = message.headers_mut();
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if expects_content && !has_body {
        message
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert(HeaderValue::from_static("0"));
    }
    message
}

fn incoming(response: hyper::Response<hyper::body::Incoming>) -> Response {
    let (parts, body) = response.into_parts();
    let mut headers = parts.headers;
    remove_own_connection_headers(&mut headers);
    Response {
        head: ResponseHead {
            status: parts.status,
            headers,
        },
        body: Body::h1(body),
    }
}
