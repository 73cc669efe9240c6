//! One task that keeps a session alive: connect, stream (or poll), wait, again.
//!
//! Knows neither the protocol (that is [`crate::session`]) nor gRPC (that is [`crate::Transport`]). Needs a tokio runtime
//! with time and I/O; a current-thread runtime is enough, and the future is `Send` only if the handler is.

mod file;
mod poll;
mod stream;
mod upkeep;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use self::file::FileReader;
use self::poll::Poller;
use self::stream::Streamer;
use self::upkeep::Upkeep;
use crate::connect::Traffic;
use crate::session::Session;
use crate::{
    Backoff, Counters, DeltaSession, FileSource, Handler, Node, Protocol, Report, SotwSession, Subscriptions,
    Transport,
};

/// A client that is ready to [`run`](Client::run).
pub struct Client {
    origin: Origin,
    node: Node,
    subscriptions: Subscriptions,
    backoff: Backoff,
    keeps_last_set: bool,
    random: Box<dyn FnMut() -> u64 + Send>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Kept so that `commands` never ends, whether or not a handle exists.
    commands_sender: mpsc::UnboundedSender<Command>,
    counters: watch::Sender<Counters>,
    traffic: Arc<Traffic>,
}

/// Where responses come from.
enum Origin {
    Server(Box<Transport>, Protocol),
    File(FileSource),
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
    Hold(String, BTreeSet<String>),
    Report(Report),
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

    /// As [`Session::hold`].
    ///
    /// # Errors
    /// [`ClientGone`].
    pub fn hold(&self, type_url: &str, names: BTreeSet<String>) -> Result<(), ClientGone> {
        self.send(Command::Hold(type_url.to_owned(), names))
    }

    /// As [`Session::report`].
    ///
    /// # Errors
    /// [`ClientGone`].
    pub fn report(&self, report: Report) -> Result<(), ClientGone> {
        self.send(Command::Report(report))
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
    fn apply<S: Session>(self, session: &mut S) {
        match self {
            Command::Wildcard(type_url) => session.subscriptions_mut().wildcard(&type_url),
            Command::SetNames(type_url, names) => session.subscriptions_mut().set_names(&type_url, names),
            Command::Unsubscribe(type_url) => session.subscriptions_mut().unsubscribe(&type_url),
            Command::Hold(type_url, names) => session.hold(&type_url, names),
            Command::Report(report) => session.report(report),
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
        Self::of(
            Origin::Server(Box::new(transport), protocol),
            node,
            subscriptions,
            Box::new(random),
        )
    }

    /// Prepares a client of a file. `subscriptions` are of the one type whose resources the file holds: with a wildcard it
    /// is the whole set, with names the others in it are left alone.
    pub fn of_file(source: FileSource, subscriptions: Subscriptions) -> (Client, Handle) {
        Self::of(
            Origin::File(source),
            Node::default(),
            subscriptions,
            Box::new(|| 0),
        )
    }

    fn of(
        origin: Origin,
        node: Node,
        subscriptions: Subscriptions,
        random: Box<dyn FnMut() -> u64 + Send>,
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
        let backoff = Backoff::default();
        let client = Client {
            origin,
            node,
            subscriptions,
            backoff,
            keeps_last_set: false,
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

    /// As [`SotwSession::keep_last_set`]; the incremental protocol has nothing alike.
    #[must_use]
    pub fn with_keep_last_set(mut self, keeps: bool) -> Self {
        self.keeps_last_set = keeps;
        self
    }

    /// Runs until dropped. Dropping closes the connection; the handler keeps what it has.
    pub async fn run<H: Handler>(self, mut handler: H) -> Infallible {
        let Client {
            origin,
            node,
            subscriptions,
            backoff,
            keeps_last_set,
            random,
            commands,
            commands_sender,
            counters,
            traffic,
        } = self;
        let upkeep = Upkeep::new(random, commands, commands_sender, counters);
        let sotw = |node, subscriptions| SotwSession::new(node, subscriptions).keep_last_set(keeps_last_set);
        match origin {
            Origin::Server(transport, Protocol::Delta(method)) => {
                let session = DeltaSession::new(node, subscriptions);
                let streamer = Streamer::new(upkeep, *transport, traffic, backoff, method);
                streamer.run(session, &mut handler).await
            }
            Origin::Server(transport, Protocol::Sotw(method)) => {
                let streamer = Streamer::new(upkeep, *transport, traffic, backoff, method);
                streamer.run(sotw(node, subscriptions), &mut handler).await
            }
            Origin::Server(transport, Protocol::Rest(rest)) => {
                let poller = Poller::new(upkeep, *transport, traffic, rest);
                poller.run(sotw(node, subscriptions), &mut handler).await
            }
            Origin::File(source) => {
                let reader = FileReader::new(upkeep, source);
                reader.run(sotw(node, subscriptions), &mut handler).await
            }
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("Client");
        match &self.origin {
            Origin::Server(transport, protocol) => f
                .field("address", transport.address())
                .field("protocol", protocol),
            Origin::File(source) => f.field("file", source),
        }
        .finish_non_exhaustive()
    }
}
