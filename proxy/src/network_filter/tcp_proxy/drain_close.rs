//! `check_drain_close`: who still speaks while the listener drains is told to come again.
//!
//! As Envoy it looks when bytes go, in either direction: a connection that is silent stays as long as its chain.
//! Source: Envoy `TcpProxy::Filter::maybeCloseDownstreamForDrainClose`.
use std::cell::Cell;

use crate::drain::DrainWatch;
use crate::net::copy::{After, Watch};
use crate::stats::Counter;
use crate::time::Instant;

/// Ends one connection.
pub(super) struct DrainClose<'a> {
    drain: DrainWatch,
    closed: &'a Counter,
    is_closed: Cell<bool>,
}

impl<'a> DrainClose<'a> {
    /// Counts in `closed`, once.
    pub(super) fn new(drain: DrainWatch, closed: &'a Counter) -> Self {
        Self {
            drain,
            closed,
            is_closed: Cell::new(false),
        }
    }

    fn look(&self) -> After {
        if !self.drain.is_draining() {
            return After::GoOn;
        }
        if !self.is_closed.replace(true) {
            self.closed.inc();
        }
        After::Close
    }
}

impl Watch for DrainClose<'_> {
    fn forward(&self, _bytes: &[u8]) -> Option<Instant> {
        None
    }

    fn after_forward(&self) -> After {
        self.look()
    }

    fn backward(&self, _bytes: &[u8]) -> After {
        self.look()
    }
}
