//! A session over a file, read again when it changes.
//!
//! Each reading is a stream of its own to the session, as a poll is; nobody reads the answers.

use std::convert::Infallible;

use tracing::{info, warn};

use super::upkeep::Upkeep;
use crate::session::Session;
use crate::watch::FileWatch;
use crate::{ConnectionEvent, FileSource, Handler, SotwSession};

/// Looks at the file for ever.
pub(super) struct FileReader {
    upkeep: Upkeep,
    source: FileSource,
    watch: FileWatch,
    is_up: bool,
}

impl FileReader {
    pub(super) fn new(upkeep: Upkeep, source: FileSource) -> Self {
        let watch = FileWatch::new([source.path.clone()]);
        FileReader {
            upkeep,
            source,
            watch,
            is_up: false,
        }
    }

    pub(super) async fn run<H: Handler>(mut self, mut session: SotwSession, handler: &mut H) -> Infallible {
        let mut other_names = false;
        loop {
            if other_names || self.watch.is_due() {
                self.read(&mut session, handler);
            }
            other_names = tokio::select! {
                () = tokio::time::sleep(self.source.interval) => false,
                is_command = self.upkeep.one_turn(&mut session, handler) => is_command,
            };
        }
    }

    fn read<H: Handler>(&mut self, session: &mut SotwSession, handler: &mut H) {
        session.stream_opened();
        let Some(request) = session.next_request() else {
            // Nothing is wanted of it.
            return session.stream_closed();
        };
        self.watch.begin();
        session.counters_mut().connect_attempts += 1;
        let response = (self.source.read)(&self.source.path).and_then(|response| {
            // A file may leave out what is clear from where it is named.
            let is_named = !response.type_url.is_empty() && response.type_url != request.type_url;
            let wrong = || format!("holds {}, not {}", response.type_url, request.type_url);
            if is_named { Err(wrong()) } else { Ok(response) }
        });
        let is_new_complaint = self.watch.end(response.as_ref().err().map(String::as_str));
        self.upkeep.advance(session, handler);
        match response {
            Ok(mut response) => {
                response.type_url = request.type_url;
                if !std::mem::replace(&mut self.is_up, true) {
                    session.counters_mut().connects += 1;
                    handler.on_connection(ConnectionEvent::Connected);
                    handler.on_connection(ConnectionEvent::Answered);
                }
                session.on_response(response.into(), handler);
                info!(file = %self.source.path.display(), "configuration of a file was read");
            }
            Err(reason) => {
                session.counters_mut().connect_failures += 1;
                let was_connected = std::mem::take(&mut self.is_up);
                session.counters_mut().disconnects += u64::from(was_connected);
                if is_new_complaint {
                    warn!(file = %self.source.path.display(), reason, "configuration of a file cannot be used; what was accepted last stays");
                    handler.on_connection(ConnectionEvent::Disconnected {
                        was_connected,
                        reason,
                        retry_in: self.source.interval,
                    });
                }
            }
        }
        session.poll_ended();
        session.stream_closed();
        self.upkeep.publish(session);
    }
}
