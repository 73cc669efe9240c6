//! Telling connections that their listener, or the process, is going away.
//!
//! A [`Drain`] is held by whoever owns the connections; every connection watches it. HTTP/1 answers with `connection: close`,
//! HTTP/2 with GOAWAY; TCP connections live on until they end or the process does. As Envoy's drain manager.
use tokio::sync::watch;

/// The sending side; dropping it starts the drain too.
#[derive(Debug)]
pub(crate) struct Drain {
    started: watch::Sender<bool>,
}

/// The watching side.
#[derive(Debug, Clone)]
pub(crate) struct DrainWatch {
    started: watch::Receiver<bool>,
}

impl Default for Drain {
    /// Not started.
    fn default() -> Self {
        Self {
            started: watch::Sender::new(false),
        }
    }
}

impl Drain {
    /// Starts the drain; repeating does nothing.
    pub(crate) fn start(&self) {
        self.started.send_replace(true);
    }

    /// Somebody watches it: a connection is still there.
    pub(crate) fn is_watched(&self) -> bool {
        self.started.receiver_count() > 0
    }

    /// A watcher.
    pub(crate) fn watch(&self) -> DrainWatch {
        DrainWatch {
            started: self.started.subscribe(),
        }
    }
}

impl DrainWatch {
    /// The drain has started.
    pub(crate) fn is_draining(&self) -> bool {
        *self.started.borrow() || self.started.has_changed().is_err()
    }

    /// Returns when the drain starts.
    pub(crate) async fn started(&mut self) {
        // An error means that the owner is gone, which is a drain as well.
        let _ = self.started.wait_for(|started| *started).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_owner_is_a_drain() {
        let signal = Drain::default();
        let watch = signal.watch();
        assert!(!watch.is_draining());
        drop(signal);
        assert!(watch.is_draining());
    }

    #[tokio::test]
    async fn watchers_made_before_and_after_see_the_start() {
        let signal = Drain::default();
        let mut early = signal.watch();
        signal.start();
        early.started().await;
        let mut late = signal.watch();
        late.started().await;
        assert!(late.is_draining());
    }
}
