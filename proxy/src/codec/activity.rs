//! When a downstream connection last had a stream, for its idle limit. The same for every HTTP version.
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::time::{self, Instant};

/// The streams of one connection.
pub(super) struct Activity {
    streams: Cell<usize>,
    last: Cell<Instant>,
}

/// One stream; over when dropped.
pub(super) struct Active(Rc<Activity>);

impl Activity {
    /// A connection that begins now, without streams.
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            streams: Cell::new(0),
            last: Cell::new(Instant::now()),
        })
    }

    /// A stream begins.
    pub(super) fn begin(self: &Rc<Self>) -> Active {
        self.streams.set(self.streams.get() + 1);
        Active(self.clone())
    }

    /// No stream is open.
    pub(super) fn is_quiet(&self) -> bool {
        self.streams.get() == 0
    }

    /// Returns when no stream was open for `limit`; never without a limit.
    pub(super) async fn idle(&self, limit: Option<Duration>) {
        let Some(limit) = limit else {
            return std::future::pending().await;
        };
        loop {
            time::reach(Some(self.last.get() + limit)).await;
            if !self.is_quiet() {
                self.last.set(Instant::now());
            } else if self.last.get() + limit <= Instant::now() {
                return;
            }
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        self.0.last.set(Instant::now());
    }
}
