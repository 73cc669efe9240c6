//! A session over HTTP polls, of version 1.1 or 2. Source: Envoy's `HttpSubscriptionImpl` and `RestApiFetcher`.
//!
//! Each poll is a stream of its own to the session: it says the version accepted last and all names, and what it gets is
//! acknowledged by the next poll's version. 304 means that nothing changed. There is no NACK: a version that was not
//! accepted is got and refused again.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::upkeep::Upkeep;
use crate::connect::Traffic;
use crate::session::Session;
use crate::{ConnectionEvent, Handler, Rest, SotwSession, Transport, TransportError};

/// Polls for ever.
pub(super) struct Poller {
    upkeep: Upkeep,
    transport: Transport,
    traffic: Arc<Traffic>,
    rest: Rest,
    /// Kept from one poll to the next while the control plane keeps it.
    connection: Option<Sender>,
    /// The last poll succeeded.
    is_up: bool,
}

/// One end of a connection; the other is a task.
enum Sender {
    Http1(http1::SendRequest<String>),
    Http2(http2::SendRequest<String>),
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    async fn send(&mut self, message: Request<String>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(message).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(message).await
            }
        }
    }
}

impl Poller {
    pub(super) fn new(upkeep: Upkeep, transport: Transport, traffic: Arc<Traffic>, rest: Rest) -> Self {
        Poller {
            upkeep,
            transport,
            traffic,
            rest,
            connection: None,
            is_up: false,
        }
    }

    pub(super) async fn run<H: Handler>(mut self, mut session: SotwSession, handler: &mut H) -> Infallible {
        loop {
            session.stream_opened();
            let Some(request) = session.next_request() else {
                // Nothing is wanted; a command may change that.
                self.upkeep.one_turn(&mut session, handler).await;
                continue;
            };
            let type_url = request.type_url.clone();
            let polled = self.poll(request, &mut session).await;
            self.upkeep.advance(&mut session, handler);
            let retry_in = self.next_delay();
            match polled {
                Ok(response) => {
                    if !std::mem::replace(&mut self.is_up, true) {
                        handler.on_connection(ConnectionEvent::Connected);
                        self.upkeep.answered(self.transport.address(), handler);
                    }
                    if let Some(mut response) = response {
                        // Which type it is of is clear from what was asked; Envoy does not look.
                        if response.type_url.is_empty() {
                            response.type_url = type_url;
                        }
                        session.on_response(response.into(), handler);
                    }
                }
                Err(error) => {
                    self.connection = None;
                    let was_connected = std::mem::take(&mut self.is_up);
                    self.upkeep.report(&error, false, retry_in);
                    handler.on_connection(ConnectionEvent::Disconnected {
                        was_connected,
                        reason: error.to_string(),
                        retry_in,
                    });
                }
            }
            session.poll_ended();
            session.stream_closed();
            self.upkeep.publish(&mut session);
            self.wait(retry_in, &mut session, handler).await;
        }
    }

    /// Between one and two refresh delays.
    fn next_delay(&mut self) -> Duration {
        let delay = self.rest.refresh_delay.max(Duration::from_millis(1));
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).max(1);
        let jitter = self.upkeep.random().checked_rem(millis).unwrap_or(0);
        delay.saturating_add(Duration::from_millis(jitter))
    }

    /// Until the next poll is due, or the wishes change.
    async fn wait<H: Handler>(&mut self, time: Duration, session: &mut SotwSession, handler: &mut H) {
        let sleep = tokio::time::sleep(time);
        tokio::pin!(sleep);
        loop {
            let is_command = tokio::select! {
                () = &mut sleep => return,
                is_command = self.upkeep.one_turn(session, handler) => is_command,
            };
            if is_command {
                return;
            }
        }
    }

    /// `None`: nothing changed.
    async fn poll(
        &mut self,
        request: DiscoveryRequest,
        session: &mut SotwSession,
    ) -> Result<Option<DiscoveryResponse>, TransportError> {
        let body = self.rest.codec.encode(&request).map_err(|e| self.failed(e))?;
        let Rest { path, host, .. } = &self.rest;
        let message = match self.rest.is_http2 {
            // HTTP/2 has the host in the target.
            true => Request::post(format!("http://{host}{path}")),
            false => Request::post(path).header(HOST, host),
        };
        let mut message = message
            .header(CONTENT_TYPE, self.rest.codec.content_type())
            .body(body)
            .map_err(|e| self.failed(e.to_string()))?;
        message
            .headers_mut()
            .extend(self.transport.metadata().into_headers());
        let mut connection = match self.connection.take().filter(|c| !c.is_closed()) {
            Some(connection) => connection,
            None => self.connect(session).await?,
        };
        let counters = session.counters_mut();
        counters.calls += 1;
        counters.open_calls = 1;
        let limit = self.transport.max_message_bytes();
        let exchange = async {
            let response = connection.send(message).await.map_err(|e| e.to_string())?;
            read(response, limit).await
        };
        let answered = tokio::time::timeout(self.rest.request_timeout, exchange).await;
        session.counters_mut().open_calls = 0;
        let late = || format!("no response within {:?}", self.rest.request_timeout);
        let body = answered
            .unwrap_or_else(|_| Err(late()))
            .map_err(|e| self.failed(e))?;
        self.connection = Some(connection);
        let response = body
            .map(|body| self.rest.codec.decode(&body))
            .transpose()
            .map_err(|e| self.failed(e))?;
        Ok(response)
    }

    async fn connect(&mut self, session: &mut SotwSession) -> Result<Sender, TransportError> {
        session.counters_mut().connect_attempts += 1;
        let stream = self.transport.dial(&self.traffic).await;
        let stream = stream.inspect_err(|_| session.counters_mut().connect_failures += 1)?;
        let stream = TokioIo::new(stream);
        // Each task ends with the sender, or with the control plane's end of the connection.
        let sender = if self.rest.is_http2 {
            let made = http2::handshake(TokioExecutor::new(), stream).await;
            made.map(|(sender, connection)| {
                tokio::spawn(async move { drop(connection.await) });
                Sender::Http2(sender)
            })
        } else {
            let made = http1::handshake(stream).await;
            made.map(|(sender, connection)| {
                tokio::spawn(async move { drop(connection.await) });
                Sender::Http1(sender)
            })
        };
        let sender = sender.map_err(|e| self.failed(e.to_string()))?;
        session.counters_mut().connects += 1;
        Ok(sender)
    }

    fn failed(&self, reason: String) -> TransportError {
        TransportError::Poll {
            address: self.transport.address().clone(),
            path: self.rest.path.clone(),
            reason,
        }
    }
}

/// The body of a good response; `None` of one that says "as before".
async fn read(response: Response<Incoming>, limit: usize) -> Result<Option<Vec<u8>>, String> {
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Ok(None),
        status => return Err(format!("answered {status}")),
    }
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|e| e.to_string())?;
        if let Some(data) = frame.data_ref() {
            if bytes.len().saturating_add(data.len()) > limit {
                return Err(format!("response of more than {limit} bytes"));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(Some(bytes))
}
