//! One task that keeps a session alive: connect, stream, wait, again.
//!
//! Knows neither the protocol (that is [`crate::session`]) nor gRPC (that is [`crate::Transport`]). Needs a tokio runtime
//! with time and I/O; a current-thread runtime is enough, and the future is `Send` only if the handler is.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::connect::Traffic;
use crate::session::Session;
use crate::transport::Responses;
use crate::{
    Backoff, ConnectionEvent, Counters, DeltaSession, Handler, Node, Protocol, SotwSession, Subscriptions,
    Transport, TransportError,
};

/// Requests between session and connection; more wait in the session, where they still can be merged.
const REQUESTS_IN_FLIGHT: usize = 16;
/// With so many answers unsent, nothing more is read: the control plane does not take what we say.
const MAX_WAITING_ANSWERS: usize = 256;

/// A client that is ready to [`run`](Client::run).
pub struct Client {
    transport: Transport,
    protocol: Protocol,
    node: Node,
    subscriptions: Subscriptions,
    backoff: Backoff,
    random: Box<dyn FnMut() -> u64 + Send>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Kept so that `commands` never ends, whether or not a handle exists.
    commands_sender: mpsc::UnboundedSender<Command>,
    counters: watch::Sender<Counters>,
    traffic: Arc<Traffic>,
}

/// Changes the subscriptions of a running [`Client`] and reads its counters, from any thread.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Unbounded: commands come from the owner itself at the pace of its own configuration, never from a peer; and
    /// neither losing one nor making the owner wait for the network would be right.
    commands: mpsc::UnboundedSender<Command>,
    counters: watch::Receiver<Counters>,
    traffic: Arc<Traffic>,
}

/// The client's task has ended, so a command reaches nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the xds client is not running any more")]
pub struct ClientGone;

#[derive(Debug)]
enum Command {
    Wildcard(String),
    SetNames(String, BTreeSet<String>),
    Unsubscribe(String),
}

impl Handle {
    /// As [`Subscriptions::wildcard`].
    ///
    /// # Errors
    /// [`ClientGone`] after [`Client::run`] was dropped; the same for all commands.
    pub fn wildcard(&self, type_url: &str) -> Result<(), ClientGone> {
        self.send(Command::Wildcard(type_url.to_owned()))
    }

    /// As [`Subscriptions::set_names`].
    ///
    /// # Errors
    /// [`ClientGone`].
    pub fn set_names(&self, type_url: &str, names: BTreeSet<String>) -> Result<(), ClientGone> {
        self.send(Command::SetNames(type_url.to_owned(), names))
    }

    /// As [`Subscriptions::unsubscribe`].
    ///
    /// # Errors
    /// [`ClientGone`].
    pub fn unsubscribe(&self, type_url: &str) -> Result<(), ClientGone> {
        self.send(Command::Unsubscribe(type_url.to_owned()))
    }

    /// As of the last thing that happened; connections and bytes as of now.
    pub fn counters(&self) -> Counters {
        Counters {
            open_connections: self.traffic.open(),
            received_bytes: self.traffic.received_bytes(),
            sent_bytes: self.traffic.sent_bytes(),
            ..*self.counters.borrow()
        }
    }

    fn send(&self, command: Command) -> Result<(), ClientGone> {
        self.commands.send(command).map_err(|_| ClientGone)
    }
}

impl Command {
    fn apply(self, subscriptions: &mut Subscriptions) {
        match self {
            Command::Wildcard(type_url) => subscriptions.wildcard(&type_url),
            Command::SetNames(type_url, names) => subscriptions.set_names(&type_url, names),
            Command::Unsubscribe(type_url) => subscriptions.unsubscribe(&type_url),
        }
    }
}

impl Client {
    /// Prepares a client. `random` must be uniform over `u64`; it spreads the waits between attempts.
    pub fn new(
        transport: Transport,
        protocol: Protocol,
        node: Node,
        subscriptions: Subscriptions,
        random: impl FnMut() -> u64 + Send + 'static,
    ) -> (Client, Handle) {
        #[expect(
            clippy::disallowed_methods,
            reason = "filled by the owner's own configuration, not by a peer"
        )]
        let (commands_sender, commands) = mpsc::unbounded_channel();
        let (counters, counters_receiver) = watch::channel(Counters::default());
        let traffic = Arc::new(Traffic::default());
        let handle = Handle {
            commands: commands_sender.clone(),
            counters: counters_receiver,
            traffic: traffic.clone(),
        };
        let random = Box::new(random);
        let backoff = Backoff::default();
        let client = Client {
            transport,
            protocol,
            node,
            subscriptions,
            backoff,
            random,
            commands,
            commands_sender,
            counters,
            traffic,
        };
        (client, handle)
    }

    /// Replaces Envoy's 500 ms to 30 s.
    #[must_use]
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Runs until dropped. Dropping closes the connection; the handler keeps what it has.
    pub async fn run<H: Handler>(self, mut handler: H) -> Infallible {
        let Client {
            transport,
            protocol,
            node,
            subscriptions,
            backoff,
            random,
            commands,
            commands_sender,
            counters,
            traffic,
        } = self;
        let runner = Runner {
            transport,
            backoff,
            random,
            commands,
            _commands_sender: commands_sender,
            counters,
            traffic,
            in_failure_streak: false,
        };
        match protocol {
            Protocol::DeltaAds => {
                let session = DeltaSession::new(node, subscriptions);
                runner.run(session, &mut handler, Transport::delta_ads).await
            }
            Protocol::SotwAds => {
                let session = SotwSession::new(node, subscriptions);
                runner.run(session, &mut handler, Transport::sotw_ads).await
            }
            Protocol::SotwSds => {
                let session = SotwSession::new(node, subscriptions);
                runner.run(session, &mut handler, Transport::sotw_sds).await
            }
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("address", self.transport.address())
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

struct Runner {
    transport: Transport,
    backoff: Backoff,
    random: Box<dyn FnMut() -> u64 + Send>,
    commands: mpsc::UnboundedReceiver<Command>,
    _commands_sender: mpsc::UnboundedSender<Command>,
    counters: watch::Sender<Counters>,
    traffic: Arc<Traffic>,
    /// Since the last response: then the warning was given.
    in_failure_streak: bool,
}

/// How one attempt ended.
struct Ended {
    was_connected: bool,
    /// A response came, so the control plane was there and well.
    answered: bool,
    error: TransportError,
}

impl Runner {
    async fn run<S, H, O>(mut self, mut session: S, handler: &mut H, open: O) -> Infallible
    where
        S: Session,
        H: Handler,
        O: Fn(&Transport, Channel, mpsc::Receiver<S::Request>) -> Responses<S::Response>,
    {
        loop {
            let ended = self.attempt(&mut session, handler, &open).await;
            session.stream_closed();
            let counters = session.counters_mut();
            if ended.was_connected {
                counters.open_calls = 0;
                counters.disconnects += 1;
            } else {
                counters.connect_failures += 1;
            }
            self.publish(&mut session);
            let retry_in = self.backoff.next_wait((self.random)());
            self.report(&ended, retry_in);
            handler.on_connection(ConnectionEvent::Disconnected {
                was_connected: ended.was_connected,
                reason: ended.error.to_string(),
                retry_in,
            });
            self.wait(retry_in, &mut session).await;
        }
    }

    async fn attempt<S, H, O>(&mut self, session: &mut S, handler: &mut H, open: &O) -> Ended
    where
        S: Session,
        H: Handler,
        O: Fn(&Transport, Channel, mpsc::Receiver<S::Request>) -> Responses<S::Response>,
    {
        session.counters_mut().connect_attempts += 1;
        let channel = match self.transport.connect(&self.traffic).await {
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
        let responses = open(&self.transport, channel, receiver);
        session.stream_opened();
        let counters = session.counters_mut();
        counters.connects += 1;
        counters.calls += 1;
        counters.open_calls = 1;
        self.publish(session);
        handler.on_connection(ConnectionEvent::Connected);
        self.stream(session, handler, requests, responses).await
    }

    /// Carries messages until the stream ends.
    async fn stream<S, H>(
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
            tokio::select! {
                biased;
                Some(command) = self.commands.recv() => command.apply(session.subscriptions_mut()),
                permit = requests.reserve(), if session.wants_to_send() && !requests.is_closed() => {
                    // Without a permit the call has ended; `responses` tells why.
                    if let Ok(permit) = permit
                        && let Some(request) = session.next_request()
                    {
                        permit.send(request);
                    }
                }
                response = responses.next(),
                    if session.waiting_answers() < MAX_WAITING_ANSWERS || requests.is_closed() =>
                {
                    let error = match response {
                        Some(Ok(response)) => {
                            if !answered {
                                answered = true;
                                self.answered(handler);
                            }
                            session.on_response(response, handler);
                            self.publish(session);
                            continue;
                        }
                        Some(Err(status)) => self.transport.stream_error(&status),
                        None => self.transport.closed(),
                    };
                    return Ended { was_connected: true, answered, error };
                }
            }
        }
    }

    fn answered<H: Handler>(&mut self, handler: &mut H) {
        self.backoff.reset();
        if std::mem::take(&mut self.in_failure_streak) {
            info!(control_plane = %self.transport.address(), "control plane answers again");
        }
        handler.on_connection(ConnectionEvent::Answered);
    }

    /// One warning a streak; the rest of it, and an orderly end, are for those who look closely.
    fn report(&mut self, ended: &Ended, retry_in: Duration) {
        let error = &ended.error;
        if ended.answered && matches!(error, TransportError::Closed { .. }) {
            info!("{error}; connecting again in {retry_in:?}");
        } else if std::mem::replace(&mut self.in_failure_streak, true) {
            debug!("{error}; trying again in {retry_in:?}");
        } else {
            warn!("{error}; trying again in {retry_in:?}, and silently from then on until it answers");
        }
    }

    async fn wait<S: Session>(&mut self, time: Duration, session: &mut S) {
        let sleep = tokio::time::sleep(time);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return,
                Some(command) = self.commands.recv() => command.apply(session.subscriptions_mut()),
            }
        }
    }

    fn publish<S: Session>(&self, session: &mut S) {
        self.counters.send_replace(*session.counters_mut());
    }
}
