//! `mongo.<stat_prefix>.*`. Source: Envoy docs, "Mongo proxy", "Statistics".
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::message::Reply;
use super::question::Breadth;
use crate::stats::{Counter, Gauge, Histogram, Registry};

/// Collections and callsites that have stats of their own: clients make these names up. Envoy has no limit.
const MAX_NAMES: usize = 4096;
/// What is counted when `commands` does not say it.
const COMMANDS: [&str; 3] = ["delete", "insert", "update"];

/// Counters of one filter.
#[derive(Debug)]
#[allow(missing_docs)]
pub(super) struct MongoStats {
    pub(super) cx_destroy_local_with_active_rq: Counter,
    pub(super) cx_destroy_remote_with_active_rq: Counter,
    pub(super) cx_drain_close: Counter,
    pub(super) decoding_error: Counter,
    pub(super) delays_injected: Counter,
    pub(super) op_command: Counter,
    pub(super) op_command_reply: Counter,
    pub(super) op_get_more: Counter,
    pub(super) op_insert: Counter,
    pub(super) op_kill_cursors: Counter,
    pub(super) op_query: Counter,
    pub(super) op_query_active: Gauge,
    pub(super) op_query_await_data: Counter,
    pub(super) op_query_exhaust: Counter,
    pub(super) op_query_multi_get: Counter,
    pub(super) op_query_no_cursor_timeout: Counter,
    pub(super) op_query_no_max_time: Counter,
    pub(super) op_query_scatter_get: Counter,
    pub(super) op_query_tailable_cursor: Counter,
    pub(super) op_reply: Counter,
    pub(super) op_reply_cursor_not_found: Counter,
    pub(super) op_reply_query_failure: Counter,
    pub(super) op_reply_valid_cursor: Counter,
    commands: BTreeMap<Box<[u8]>, Arc<Named>>,
    unknown_command: Arc<Named>,
    /// By what stands between `collection.` and `.query`.
    collections: Mutex<HashMap<String, Arc<Named>>>,
    registry: Arc<Registry>,
    prefix: String,
}

impl MongoStats {
    /// `commands`: as configured.
    pub(super) fn new(registry: &Arc<Registry>, prefix: &str, commands: &[String]) -> Self {
        let prefix = format!("mongo.{prefix}");
        let counter = |name: &str| registry.counter(format!("{prefix}.{name}"));
        let command = |name: &str| Arc::new(Named::new(registry, format!("{prefix}.cmd.{name}.")));
        let default = COMMANDS.map(str::to_owned);
        let commands = if commands.is_empty() { &default } else { commands };
        Self {
            cx_destroy_local_with_active_rq: counter("cx_destroy_local_with_active_rq"),
            cx_destroy_remote_with_active_rq: counter("cx_destroy_remote_with_active_rq"),
            cx_drain_close: counter("cx_drain_close"),
            decoding_error: counter("decoding_error"),
            delays_injected: counter("delays_injected"),
            op_command: counter("op_command"),
            op_command_reply: counter("op_command_reply"),
            op_get_more: counter("op_get_more"),
            op_insert: counter("op_insert"),
            op_kill_cursors: counter("op_kill_cursors"),
            op_query: counter("op_query"),
            op_query_active: registry.gauge(format!("{prefix}.op_query_active")),
            op_query_await_data: counter("op_query_await_data"),
            op_query_exhaust: counter("op_query_exhaust"),
            op_query_multi_get: counter("op_query_multi_get"),
            op_query_no_cursor_timeout: counter("op_query_no_cursor_timeout"),
            op_query_no_max_time: counter("op_query_no_max_time"),
            op_query_scatter_get: counter("op_query_scatter_get"),
            op_query_tailable_cursor: counter("op_query_tailable_cursor"),
            op_reply: counter("op_reply"),
            op_reply_cursor_not_found: counter("op_reply_cursor_not_found"),
            op_reply_query_failure: counter("op_reply_query_failure"),
            op_reply_valid_cursor: counter("op_reply_valid_cursor"),
            commands: commands
                .iter()
                .map(|name| (name.as_bytes().into(), command(name)))
                .collect(),
            unknown_command: command("unknown_command"),
            collections: Mutex::default(),
            registry: registry.clone(),
            prefix,
        }
    }

    /// Those of a command; one that `commands` does not name is unknown.
    pub(super) fn command(&self, name: &[u8]) -> Arc<Named> {
        self.commands.get(name).unwrap_or(&self.unknown_command).clone()
    }

    /// Those of a collection, or of one function that asks for it. `None`: there are too many names already.
    ///
    /// Takes a lock: once for a name on a connection.
    pub(super) fn collection(&self, collection: &[u8], callsite: Option<&str>) -> Option<Arc<Named>> {
        let mut name = String::from_utf8_lossy(collection).into_owned();
        if let Some(callsite) = callsite {
            name.push_str(".callsite.");
            name.push_str(callsite);
        }
        let mut known = self.collections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&name) {
            return Some(found.clone());
        }
        if known.len() >= MAX_NAMES {
            return None;
        }
        let prefix = format!("{}.collection.{name}.query.", self.prefix);
        let named = Arc::new(Named::new(&self.registry, prefix));
        known.insert(name, named.clone());
        Some(named)
    }
}

/// Stats of a command, a collection or a callsite. Each exists from the first time it counts, as in Envoy.
#[derive(Debug)]
pub(super) struct Named {
    registry: Arc<Registry>,
    /// With a dot at its end.
    prefix: String,
    total: OnceLock<Counter>,
    multi_get: OnceLock<Counter>,
    scatter_get: OnceLock<Counter>,
    replies: OnceLock<[Histogram; 3]>,
}

impl Named {
    fn new(registry: &Arc<Registry>, prefix: String) -> Self {
        Self {
            registry: registry.clone(),
            prefix,
            total: OnceLock::new(),
            multi_get: OnceLock::new(),
            scatter_get: OnceLock::new(),
            replies: OnceLock::new(),
        }
    }

    fn count(&self, counter: &OnceLock<Counter>, name: &str) {
        let prefix = &self.prefix;
        counter
            .get_or_init(|| self.registry.counter(format!("{prefix}{name}")))
            .inc();
    }

    /// It is asked for; commands have no breadth.
    pub(super) fn asked(&self, breadth: Breadth) {
        self.count(&self.total, "total");
        match breadth {
            Breadth::One => {}
            Breadth::Multi => self.count(&self.multi_get, "multi_get"),
            Breadth::Scatter => self.count(&self.scatter_get, "scatter_get"),
        }
    }

    /// It is answered, so long after it was asked for.
    pub(super) fn answered(&self, reply: &Reply<'_>, after: Duration) {
        let names = ["reply_num_docs", "reply_size", "reply_time_ms"];
        let make = || names.map(|name| self.registry.histogram(format!("{}{name}", self.prefix)));
        let [documents, size, millis] = self.replies.get_or_init(make);
        documents.record(reply.documents.count);
        size.record(reply.documents.size);
        millis.record(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    }
}
