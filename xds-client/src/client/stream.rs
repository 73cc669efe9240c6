//! A session over gRPC streams, one after another.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::upkeep::Upkeep;
use crate::connect::Traffic;
use crate::session::Session;
use crate::transport::Responses;
use crate::{Backoff, ConnectionEvent, Handler, Method, Transport, TransportError};

/// Requests between session and connection; more wait in the session, where they still can be merged.
const REQUESTS_IN_FLIGHT: usize = 16;
/// With so many answers unsent, nothing more is read: the control plane does not take what we say.
const MAX_WAITING_ANSWERS: usize = 256;

/// Keeps a stream open.
pub(super) struct Streamer {
    upkeep: Upkeep,
    transport: Transport,
    traffic: Arc<Traffic>,
    backoff: Backoff,
    method: Method,
}

/// How one attempt ended.
struct Ended {
    was_connected: bool,
    /// A response came, so the control plane was there and well.
    answered: bool,
    error: TransportError,
}

impl Streamer {
    pub(super) fn new(
        upkeep: Upkeep,
        transport: Transport,
        traffic: Arc<Traffic>,
        backoff: Backoff,
        method: Method,
    ) -> Self {
        Streamer {
            upkeep,
            transport,
            traffic,
            backoff,
            method,
        }
    }

    pub(super) async fn run<S, H>(mut self, mut session: S, handler: &mut H) -> Infallible
    where
        S: Session<Request: prost::Message + 'static, Response: prost::Message + Default + 'static>,
        H: Handler,
    {
        loop {
            let ended = self.attempt(&mut session, handler).await;
            session.stream_closed();
            let counters = session.counters_mut();
            if ended.was_connected {
                counters.open_calls = 0;
                counters.disconnects += 1;
            } else {
                counters.connect_failures += 1;
            }
            self.upkeep.publish(&mut session);
            let retry_in = self.backoff.next_wait(self.upkeep.random());
            self.upkeep.report(&ended.error, ended.answered, retry_in);
            handler.on_connection(ConnectionEvent::Disconnected {
                was_connected: ended.was_connected,
                reason: ended.error.to_string(),
                retry_in,
            });
            self.wait(retry_in, &mut session, handler).await;
        }
    }

    async fn attempt<S, H>(&mut self, session: &mut S, handler: &mut H) -> Ended
    where
        S: Session<Request: prost::Message + 'static, Response: prost::Message + Default + 'static>,
        H: Handler,
    {
        session.counters_mut().connect_attempts += 1;
        let (transport, traffic) = (self.transport.clone(), self.traffic.clone());
        let connected = tokio::select! {
            connected = transport.connect(&traffic) => connected,
            never = self.upkeep.turns(session, handler) => match never {},
        };
        let channel = match connected {
            Ok(channel) => channel,
            Err(error) => {
                return Ended {
                    was_connected: false,
                    answered: false,
                    error,
                };
            }
        };
        let (requests, receiver) = mpsc::channel(REQUESTS_IN_FLIGHT);
        let responses = transport.call(&self.method, channel, receiver);
        session.stream_opened();
        let counters = session.counters_mut();
        counters.connects += 1;
        counters.calls += 1;
        counters.open_calls = 1;
        self.upkeep.publish(session);
        handler.on_connection(ConnectionEvent::Connected);
        self.carry(session, handler, requests, responses).await
    }

    /// Carries messages until the stream ends.
    async fn carry<S, H>(
        &mut self,
        session: &mut S,
        handler: &mut H,
        requests: mpsc::Sender<S::Request>,
        mut responses: Responses<S::Response>,
    ) -> Ended
    where
        S: Session,
        H: Handler,
    {
        let mut answered = false;
        loop {
            if session.wants_new_stream() {
                return Ended {
                    was_connected: true,
                    answered,
                    error: self.transport.renewed(),
                };
            }
            let (sends, reads) = (
                session.wants_to_send() && !requests.is_closed(),
                session.waiting_answers() < MAX_WAITING_ANSWERS || requests.is_closed(),
            );
            let response = tokio::select! {
                biased;
                _ = self.upkeep.one_turn(session, handler) => continue,
                permit = requests.reserve(), if sends => {
                    // Without a permit the call has ended; `responses` tells why.
                    if let Ok(permit) = permit
                        && let Some(request) = session.next_request()
                    {
                        permit.send(request);
                    }
                    continue;
                }
                response = responses.next(), if reads => response,
            };
            let error = match response {
                Some(Ok(response)) => {
                    if !answered {
                        answered = true;
                        self.backoff.reset();
                        self.upkeep.answered(self.transport.address(), handler);
                    }
                    self.upkeep.advance(session, handler);
                    session.on_response(response, handler);
                    self.upkeep.publish(session);
                    continue;
                }
                Some(Err(status)) => self.transport.stream_error(&status),
                None => self.transport.closed(),
            };
            return Ended {
                was_connected: true,
                answered,
                error,
            };
        }
    }

    async fn wait<S: Session, H: Handler>(&mut self, time: Duration, session: &mut S, handler: &mut H) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            never = self.upkeep.turns(session, handler) => match never {},
        }
    }
}
