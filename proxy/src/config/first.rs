//! How long the process waits for its first clusters, and then for its first listeners.
//!
//! As in Envoy: until they come (or are refused), until the `initial_fetch_timeout` of their source is over, or until their file turns out
//! to be of no use; then what came with the bootstrap is served. Source: Envoy `CdsApiImpl::onConfigUpdateFailed`, `LdsApiImpl`.
use outrigger_model::bootstrap::{ConfigServer, ConfigSource};

use super::clusters::waited;
use crate::time::Instant;

/// Of one type.
#[derive(Debug)]
pub(super) struct First {
    /// `None`: none are expected.
    source: Option<ConfigSource>,
    /// When the wait began.
    since: Option<Instant>,
    has_come: bool,
    is_given_up: bool,
}

impl First {
    pub(super) fn new(source: Option<ConfigSource>) -> Self {
        Self {
            source,
            since: None,
            has_come: false,
            is_given_up: false,
        }
    }

    /// From now on they are waited for. Only the first call counts.
    pub(super) fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// They have come.
    pub(super) fn come(&mut self) {
        self.has_come = true;
    }

    /// They have come, be it from a snapshot.
    pub(super) fn has_come(&self) -> bool {
        self.has_come
    }

    /// Nobody waits for them any more.
    pub(super) fn is_over(&self) -> bool {
        self.source.is_none() || self.has_come || self.is_given_up
    }

    /// Their file cannot be used. Streams and polls go on trying.
    pub(super) fn unreachable(&mut self, server: &ConfigServer) {
        let is_file = matches!(server, ConfigServer::Path(_));
        self.is_given_up |= is_file
            && self
                .source
                .as_ref()
                .is_some_and(|source| source.server == *server);
    }

    /// True, once: the wait has taken too long and is over.
    pub(super) fn expire(&mut self) -> bool {
        let (Some(source), Some(since)) = (&self.source, self.since) else {
            return false;
        };
        // Envoy has no such limit for a file.
        if self.is_over() || matches!(source.server, ConfigServer::Path(_)) || !waited(source, since) {
            return false;
        }
        self.is_given_up = true;
        true
    }
}
