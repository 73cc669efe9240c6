//! What streams and polls have in common: commands, time, counters, and one warning a streak of failures.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Command;
use crate::session::Session;
use crate::{Address, ConnectionEvent, Counters, Handler, TransportError};

/// The surroundings of a running session.
pub(super) struct Upkeep {
    random: Box<dyn FnMut() -> u64 + Send>,
    commands: mpsc::UnboundedReceiver<Command>,
    _commands_sender: mpsc::UnboundedSender<Command>,
    counters: watch::Sender<Counters>,
    /// What the session counts its time from.
    epoch: Instant,
    /// Since the last response: then the warning was given.
    in_failure_streak: bool,
}

impl Upkeep {
    pub(super) fn new(
        random: Box<dyn FnMut() -> u64 + Send>,
        commands: mpsc::UnboundedReceiver<Command>,
        commands_sender: mpsc::UnboundedSender<Command>,
        counters: watch::Sender<Counters>,
    ) -> Self {
        Upkeep {
            random,
            commands,
            _commands_sender: commands_sender,
            counters,
            epoch: Instant::now(),
            in_failure_streak: false,
        }
    }

    pub(super) fn random(&mut self) -> u64 {
        (self.random)()
    }

    pub(super) fn advance<S: Session, H: Handler>(&self, session: &mut S, handler: &mut H) {
        session.advance(self.epoch.elapsed(), handler);
    }

    /// Waits for a command or the session's deadline, and carries it out. True: a command. Nothing is lost if it is
    /// dropped before it is done.
    pub(super) async fn one_turn<S: Session, H: Handler>(
        &mut self,
        session: &mut S,
        handler: &mut H,
    ) -> bool {
        let deadline = session.next_deadline();
        let due = async {
            match deadline.and_then(|at| self.epoch.checked_add(at)) {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let command = tokio::select! {
            biased;
            Some(command) = self.commands.recv() => Some(command),
            () = due => None,
        };
        match command {
            Some(command) => {
                command.apply(session);
                true
            }
            None => {
                self.advance(session, handler);
                self.publish(session);
                false
            }
        }
    }

    /// Turns for as long as it is polled.
    pub(super) async fn turns<S: Session, H: Handler>(
        &mut self,
        session: &mut S,
        handler: &mut H,
    ) -> Infallible {
        loop {
            self.one_turn(session, handler).await;
        }
    }

    pub(super) fn publish<S: Session>(&self, session: &mut S) {
        self.counters.send_replace(*session.counters_mut());
    }

    /// The control plane speaks.
    pub(super) fn answered<H: Handler>(&mut self, address: &Address, handler: &mut H) {
        if std::mem::take(&mut self.in_failure_streak) {
            info!(control_plane = %address, "control plane answers again");
        }
        handler.on_connection(ConnectionEvent::Answered);
    }

    /// One warning a streak; the rest of it, and an orderly end, are for those who look closely.
    pub(super) fn report(&mut self, error: &TransportError, answered: bool, retry_in: Duration) {
        let is_orderly = answered && matches!(error, TransportError::Closed { .. });
        if is_orderly || matches!(error, TransportError::Renewed { .. }) {
            info!("{error}; connecting again in {retry_in:?}");
        } else if std::mem::replace(&mut self.in_failure_streak, true) {
            debug!("{error}; trying again in {retry_in:?}");
        } else {
            warn!("{error}; trying again in {retry_in:?}, and silently from then on until it answers");
        }
    }
}
