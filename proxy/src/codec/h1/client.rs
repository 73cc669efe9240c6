//! The client side of HTTP/1: one request at a time on a connection.
mod wire;

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use outrigger_model::cluster::ResponseHeadLimits;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;

use self::wire::{Script, Wire};
use crate::codec::head::{
    RequestHead, ResponseHead, is_beyond, remove_connection_headers, remove_own_connection_headers,
};
use crate::codec::names::Naming;
use crate::codec::tunnel::{self, Raw};
use crate::codec::{Body, Feedback, NameCase, Response, SendError, body};
use crate::worker;

/// One upstream connection.
#[derive(Debug)]
pub(crate) struct Client {
    sender: http1::SendRequest<Body>,
    shared: Rc<Shared>,
    /// It was asked for another protocol.
    is_spent: bool,
}

/// What a connection's task and its client share.
#[derive(Debug)]
struct Shared {
    /// Who gets the connection when it stops speaking HTTP: the request that asked for that.
    heir: RefCell<Option<oneshot::Sender<Raw>>>,
    /// What hyper does not do.
    script: Rc<Script>,
    options: ClientOptions,
}

/// What an upstream connection is for besides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClientOptions {
    /// Trailers go on, in both directions.
    pub(crate) passes_trailers: bool,
    /// How names of headers are written.
    pub(crate) name_case: NameCase,
    /// The target of a request is a whole URL.
    pub(crate) writes_whole_url: bool,
    /// What heads of responses may have.
    pub(crate) response_head: Option<ResponseHeadLimits>,
}

/// Makes a client of a connected stream. `guard` lives as long as the connection.
///
/// # Errors
/// Never in practice: HTTP/1 has no handshake.
pub(crate) async fn handshake<IO>(
    io: IO,
    options: ClientOptions,
    guard: impl Any,
) -> Result<Client, SendError>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let script = Rc::<Script>::default();
    let (sender, mut connection) = builder(options.response_head)
        .handshake(TokioIo::new(Wire::new(io, script.clone())))
        .await
        .map_err(|error| SendError::Closed(body::describe(&error)))?;
    let shared = Rc::new(Shared {
        heir: RefCell::default(),
        script,
        options,
    });
    let next = shared.clone();
    worker::spawn(async move {
        let end = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
        if let Err(error) = &end {
            tracing::debug!(%error, "upstream HTTP/1 connection ended");
        }
        let parts = connection.into_parts();
        let heir = next.heir.borrow_mut().take();
        let raw = Raw::new(parts.io.into_inner().into_inner(), parts.read_buf, guard);
        let left = match heir {
            Some(heir) if end.is_ok() => heir.send(raw).err(),
            _ => Some(raw),
        };
        if let Some(mut raw) = left {
            // The peer may be gone already.
            let _ = raw.io.shutdown().await;
        }
    });
    Ok(Client {
        sender,
        shared,
        is_spent: false,
    })
}

/// Bytes of names and values, where the cluster says nothing. Source: Envoy 1.40, `MAX_RESPONSE_HEADERS_KB`.
const USUAL_HEAD_BYTES: u32 = 80 * 1024;
/// What hyper takes of a head when it is not told.
const OWN_HEADERS: u32 = 100;
const OWN_HEAD_BYTES: u32 = 400 * 1024;
/// It makes room for as many as there may be, for each head.
const MOST_HEADERS: u32 = 10_000;

fn builder(limits: Option<ResponseHeadLimits>) -> http1::Builder {
    let mut builder = http1::Builder::new();
    let Some(limits) = limits else {
        return builder;
    };
    if limits.most_headers > OWN_HEADERS {
        builder.max_headers(limits.most_headers.min(MOST_HEADERS) as usize);
    }
    if let Some(bytes) = limits.most_bytes.filter(|bytes| *bytes > OWN_HEAD_BYTES) {
        // Of names and values; the rest is the space between them.
        builder.max_buf_size(bytes.saturating_mul(2) as usize);
    }
    builder
}

impl Client {
    /// The connection can take a request now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_spent && self.sender.is_ready()
    }

    /// Waits until it can; false: it is gone.
    pub(crate) async fn ready(&mut self) -> bool {
        !self.is_spent && self.sender.ready().await.is_ok()
    }

    /// The connection is gone, or of no use to another request.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_spent || self.sender.is_closed()
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
        if head.is_upgrade {
            // On the heap, for those few that ask for it.
            return Box::pin(self.upgrade(head, body, feedback)).await;
        }
        let mut body = body.without_trailers();
        let passes_trailers = self.shared.options.passes_trailers;
        if passes_trailers {
            body = body.observe(self.shared.script.clone());
        }
        let message = self.asked(head, body);
        let response = self.exchange(message, feedback).await;
        response.map(|response| incoming(response, passes_trailers))
    }

    /// The message, with the target that the server is configured to be asked for.
    fn asked(&self, head: RequestHead, body: Body) -> hyper::Request<Body> {
        let whole_url = self
            .shared
            .options
            .writes_whole_url
            .then(|| whole_url(&head))
            .flatten();
        let mut message = outgoing(head, body);
        if let Some(url) = whole_url {
            *message.uri_mut() = url;
        }
        message
    }

    /// Asks for another protocol, or for a tunnel. If the answer is yes, `body` and the response's body are what goes over the connection from then on; not
    /// before, as Envoy.
    async fn upgrade(
        &mut self,
        head: RequestHead,
        body: Body,
        feedback: Option<&Feedback>,
    ) -> Result<Response, SendError> {
        // Whatever the answer: what the upstream takes for the begin of the next message is not known. A `content-length` went without its
        // bytes, or the upstream sees a tunnel where this side sees none. As Envoy, which resets a request that is refused.
        self.is_spent = true;
        let is_connect = head.method == Method::CONNECT;
        let authority = head.authority.clone();
        let mut message = self.asked(head, Body::empty());
        if is_connect {
            // RFC 9112 §3.2.3.
            let target = Authority::try_from(authority.as_bytes());
            let target = target.map_err(|error| SendError::Protocol(format!("authority: {error}")))?;
            *message.uri_mut() = target.into();
        }
        let (give, taken) = oneshot::channel();
        *self.shared.heir.borrow_mut() = Some(give);
        let response = self.exchange(message, feedback).await;
        let is_yes = |status: StatusCode| match is_connect {
            // hyper knows no tunnel after that.
            true => status.is_success() && status != StatusCode::NO_CONTENT,
            false => status == StatusCode::SWITCHING_PROTOCOLS,
        };
        let response = match response {
            Ok(response) if is_yes(response.status()) => response,
            other => {
                self.shared.heir.borrow_mut().take();
                let passes_trailers = self.shared.options.passes_trailers;
                return other.map(|response| incoming(response, passes_trailers));
            }
        };
        let raw = taken
            .await
            .map_err(|_| SendError::Closed("the connection ended in the upgrade".into()))?;
        let headers = response.headers();
        let names = [CONNECTION, UPGRADE].into_iter().filter(|_| !is_connect);
        let kept: Vec<_> = names
            .filter_map(|name| headers.get(&name).cloned().map(|value| (name, value)))
            .collect();
        let mut response = incoming(response, false);
        response.head.headers.extend(kept);
        response.body = tunnel::open(raw, body);
        Ok(response)
    }

    async fn exchange(
        &mut self,
        mut message: hyper::Request<Body>,
        feedback: Option<&Feedback>,
    ) -> Result<hyper::Response<hyper::body::Incoming>, SendError> {
        let names = feedback.and_then(Feedback::request_names);
        let naming = names.map(Naming::Original);
        let naming = naming.or_else(|| Naming::of(self.shared.options.name_case));
        self.shared.script.begin(
            naming,
            self.shared.options.name_case,
            self.shared.options.passes_trailers,
        );
        let informed = feedback.filter(|feedback| feedback.passes_informational());
        if let Some(feedback) = informed.cloned() {
            hyper::ext::on_informational(&mut message, move |informational| {
                let mut headers = informational.headers().clone();
                remove_connection_headers(&mut headers);
                let status = informational.status();
                feedback.inform(ResponseHead { status, headers });
            });
        }
        let sent = self.sender.try_send_request(message).await;
        if let Some(feedback) = feedback {
            feedback.keep_response_names(self.shared.script.take_names());
        }
        match sent {
            Ok(response) => {
                let limits = self.shared.options.response_head.as_ref();
                if limits.is_some_and(|limits| is_beyond(limits, USUAL_HEAD_BYTES, None, response.headers()))
                {
                    return Err(SendError::Protocol("the head of the response is too long".into()));
                }
                Ok(response)
            }
            Err(mut failed) => {
                let unsent = failed.take_message().is_some();
                let error = failed.into_error();
                let text = body::describe(&error);
                Err(if unsent {
                    SendError::NotSent(text)
                // Closed inside the head is a head that is wrong, as in Envoy.
                } else if error.is_parse() || (error.is_incomplete_message() && self.shared.script.heard()) {
                    SendError::Protocol(text)
                } else {
                    SendError::Closed(text)
                })
            }
        }
    }
}

/// The target in absolute form (RFC 9112 §3.2.2); `None`: the authority has no place in it.
fn whole_url(head: &RequestHead) -> Option<Uri> {
    let uri = Uri::builder()
        .scheme(head.scheme)
        .authority(head.authority.as_bytes());
    uri.path_and_query(head.path.clone()).build().ok()
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
    if !has_body && !head.is_upgrade && promises_body(message.headers()) {
        // The next request on this connection would be taken for it.
        message.headers_mut().remove(CONTENT_LENGTH);
    }
    if has_body && !message.headers().contains_key(CONTENT_LENGTH) {
        // hyper leaves out the body of a GET unless this says that there is one.
        let headers = message.headers_mut();
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if expects_content && !has_body && !head.is_upgrade {
        message
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert(HeaderValue::from_static("0"));
    }
    message
}

fn promises_body(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    lengths.any(|length| length.as_bytes().iter().any(|byte| *byte != b'0'))
}

fn incoming(response: hyper::Response<hyper::body::Incoming>, passes_trailers: bool) -> Response {
    let (parts, body) = response.into_parts();
    let mut headers = parts.headers;
    remove_own_connection_headers(&mut headers);
    Response {
        head: ResponseHead {
            status: parts.status,
            headers,
        },
        body: Body::h1(body, passes_trailers),
    }
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn head(method: Method, is_upgrade: bool, headers: &[(&'static str, &'static str)]) -> RequestHead {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
        RequestHead {
            method,
            path: PathAndQuery::from_static("/"),
            authority: HeaderValue::from_static("a:80"),
            scheme: "http",
            version: Version::HTTP_11,
            headers: headers.collect(),
            is_upgrade,
        }
    }

    /// Whether the connection takes another request after one that was answered so.
    async fn is_kept(head: RequestHead, answer: &'static [u8]) -> bool {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut client = handshake(near, ClientOptions::default(), ())
            .await
            .expect("a client");
        let upstream = async {
            let _ = far.read(&mut [0; 1000]).await;
            far.write_all(answer).await.expect("it goes");
        };
        let (response, ()) = tokio::join!(client.send(head, Body::empty(), None), upstream);
        response.expect("an answer").body.gather(1000).await;
        let is_ready = client.ready().await;
        assert_eq!(is_ready, !client.is_closed());
        is_ready && client.is_ready()
    }

    #[tokio::test]
    async fn who_was_asked_for_another_protocol_is_asked_for_nothing_else() {
        const NO: &[u8] = b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno";
        let websocket = [("connection", "upgrade"), ("upgrade", "websocket")];
        let with_length = [websocket[0], websocket[1], ("content-length", "5")];
        let cases = [
            (head(Method::GET, false, &[]), NO, true),
            (head(Method::GET, true, &websocket), NO, false),
            (head(Method::GET, true, &with_length), NO, false),
            (head(Method::CONNECT, true, &[("content-length", "5")]), NO, false),
            (
                head(Method::CONNECT, true, &[]),
                b"HTTP/1.1 204 Yes\r\n\r\n",
                false,
            ),
        ];
        let check = async {
            for (head, answer, expected) in cases {
                let text = format!("{head:?}");
                assert_eq!(is_kept(head, answer).await, expected, "{text}");
            }
        };
        tokio::task::LocalSet::new().run_until(check).await;
    }

    #[tokio::test]
    async fn trailers_of_a_response_lose_what_is_of_the_connection() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 Yes\r\ntransfer-encoding: chunked\r\n\r\n\
            0\r\nkeep-alive: 5\r\nx-t: 1\r\nupgrade: a\r\n\r\n";
        let check = async {
            let (near, mut far) = tokio::io::duplex(1000);
            let options = ClientOptions {
                passes_trailers: true,
                ..ClientOptions::default()
            };
            let mut client = handshake(near, options, ()).await.expect("a client");
            let upstream = far.write_all(ANSWER);
            let (response, _) = tokio::join!(
                client.send(head(Method::GET, false, &[]), Body::empty(), None),
                async {
                    tokio::task::yield_now().await;
                    upstream.await
                }
            );
            let frame = response.expect("an answer").body.frame().await;
            let trailers = frame.expect("trailers").expect("no error").into_trailers();
            let trailers = trailers.expect("trailers");
            assert_eq!(trailers.len(), 1, "{trailers:?}");
            assert_eq!(trailers["x-t"], "1");
        };
        tokio::task::LocalSet::new().run_until(check).await;
    }

    #[test]
    fn no_length_is_promised_without_a_body() {
        let check = |method: Method, is_upgrade, sent: &'static str, expected: Option<&str>| {
            let head = head(method.clone(), is_upgrade, &[("content-length", sent)]);
            let message = outgoing(head, Body::empty());
            let length = message.headers().get(CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok());
            assert_eq!(length, expected, "{method} {sent} {is_upgrade}");
        };
        check(Method::GET, false, "5", None);
        check(Method::POST, false, "5", Some("0"));
        check(Method::GET, false, "0", Some("0"));
        check(Method::GET, true, "5", Some("5"));
    }
}
