//! Telling connections that their listener, or the process, is going away.
//!
//! A [`DrainSignal`] is held by whoever owns the connections; every connection watches it. HTTP/1 answers with `connection: close`,
//! HTTP/2 with GOAWAY; TCP connections live on until they end or the process does. As Envoy's drain manager.
use tokio::sync::watch;

/// The sending side; dropping it starts the drain too.
#[derive(Debug)]
pub(crate) struct DrainSignal {
    started: watch::Sender<bool>,
}

/// The watching side.
#[derive(Debug, Clone)]
pub(crate) struct DrainWatch {
    started: watch::Receiver<bool>,
}

impl DrainSignal {
    /// A signal that has not started, and its first watcher.
    pub(crate) fn new() -> (Self, DrainWatch) {
        let (started, receiver) = watch::channel(false);
        (Self { started }, DrainWatch { started: receiver })
    }

    /// Starts the drain; repeating does nothing.
    pub(crate) fn start(&self) {
        self.started.send_replace(true);
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
        let (signal, watch) = DrainSignal::new();
        assert!(!watch.is_draining());
        drop(signal);
        assert!(watch.is_draining());
    }

    #[tokio::test]
    async fn watchers_made_before_and_after_see_the_start() {
        let (signal, mut early) = DrainSignal::new();
        signal.start();
        early.started().await;
        let mut late = early.clone();
        late.started().await;
        assert!(late.is_draining());
    }
}
