//! A session over HTTP/1.1 polls. Source: Envoy's `HttpSubscriptionImpl` and `RestApiFetcher`.
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
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

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
    connection: Option<SendRequest<String>>,
    /// The last poll succeeded.
    is_up: bool,
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
            let polled = self.poll(request, &mut session).await;
            self.upkeep.advance(&mut session, handler);
            let retry_in = self.next_delay();
            match polled {
                Ok(response) => {
                    if !std::mem::replace(&mut self.is_up, true) {
                        handler.on_connection(ConnectionEvent::Connected);
                        self.upkeep.answered(self.transport.address(), handler);
                    }
                    if let Some(response) = response {
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
        let mut message = Request::post(&self.rest.path)
            .header(HOST, &self.rest.host)
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
            connection.ready().await.map_err(|e| e.to_string())?;
            let response = connection
                .send_request(message)
                .await
                .map_err(|e| e.to_string())?;
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

    async fn connect(&mut self, session: &mut SotwSession) -> Result<SendRequest<String>, TransportError> {
        session.counters_mut().connect_attempts += 1;
        let stream = self.transport.dial(&self.traffic).await;
        let stream = stream.inspect_err(|_| session.counters_mut().connect_failures += 1)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.failed(e.to_string()))?;
        session.counters_mut().connects += 1;
        // Ends with the sender, or with the control plane's end of it.
        tokio::spawn(async move {
            let _ = connection.await;
        });
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
