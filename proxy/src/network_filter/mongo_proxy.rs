//! Counts what MongoDB clients ask and servers answer, and writes it to a log; may make clients wait. The bytes stay what they are.
//!
//! Reads along in both directions. Bytes that it does not understand end that for the connection, and are passed on as all others: so
//! does OP_MSG, which today's drivers speak after their first question, and which Envoy does not know. Per read it costs nothing where
//! the filter is not configured. Source: mongo_proxy.proto; Envoy docs, "Mongo proxy"; beside Envoy 1.40 in tests/it/alone/mongo.rs.
mod bson;
mod log;
mod message;
mod question;
mod stats;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_model::fraction::Fraction;
use outrigger_model::network_filter::mongo_proxy::MongoProxy as Config;

use self::bson::DecodeError;
use self::message::{Body, Decoder, Message, Query, Reply};
use self::question::{Breadth, Find, Question};
use self::stats::{MongoStats, Named};
use crate::drain::DrainWatch;
use crate::net::copy::{After, Watch};
use crate::stats::Registry;
use crate::telemetry::access_log::{AccessLogError, LogFile, LogSinks};
use crate::telemetry::format::write_time;
use crate::time::Instant;

/// Questions of a connection that wait for their answers; more are forgotten, the oldest first. Envoy has no limit.
const MAX_QUESTIONS: usize = 10_000;

/// A longer name of a collection and its callsite has no stats of its own. MongoDB's own limit is 255; Envoy has none.
const MAX_NAME_BYTES: usize = 512;

/// Runtime of `MongoProxy`.
#[derive(Debug)]
pub(crate) struct MongoProxy {
    stats: MongoStats,
    log: Option<LogFile>,
    /// How long a client waits, and which share of them.
    delay: Option<(Duration, Fraction)>,
    max_bson_depth: u32,
}

impl MongoProxy {
    /// Builds the runtime object.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub(crate) fn new(
        config: &Config,
        registry: &Arc<Registry>,
        sinks: &LogSinks,
    ) -> Result<Self, AccessLogError> {
        let log = config.log_path.as_deref().map(|path| LogFile::open(path, sinks));
        let delay = config.request_delay.as_ref();
        Ok(Self {
            stats: MongoStats::new(registry, &config.stat_prefix, &config.commands),
            log: log.transpose()?,
            // What a header would say, nobody says here.
            delay: delay.and_then(|delay| Some((delay.fixed?, delay.share.most))),
            max_bson_depth: config.max_bson_depth,
        })
    }

    /// Reads along with one connection to this server.
    pub(crate) fn watch(&self, server: Option<SocketAddr>, drain: DrainWatch) -> Reading<'_> {
        Reading {
            filter: self,
            server,
            drain,
            requests: RefCell::new(Decoder::new(self.max_bson_depth)),
            replies: RefCell::new(Decoder::new(self.max_bson_depth)),
            is_lost: Cell::new(false),
            client_ended: Cell::new(false),
            delayed_until: Cell::new(None),
            questions: RefCell::default(),
            names: RefCell::default(),
        }
    }
}

/// Stats of a collection, and of the function that asks for it, by their names.
type Names = HashMap<(Box<[u8]>, Option<Box<str>>), Option<Arc<Named>>>;

/// What is known of one connection. No borrow lives longer than a message.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    filter: &'a MongoProxy,
    server: Option<SocketAddr>,
    drain: DrainWatch,
    requests: RefCell<Decoder>,
    replies: RefCell<Decoder>,
    /// Something was not understood.
    is_lost: Cell<bool>,
    client_ended: Cell<bool>,
    delayed_until: Cell<Option<Instant>>,
    questions: RefCell<VecDeque<Open>>,
    names: RefCell<Names>,
}

/// A question without an answer.
#[derive(Debug)]
struct Open {
    id: i32,
    since: Instant,
    /// Where its answer counts.
    stats: [Option<Arc<Named>>; 2],
}

impl Watch for Reading<'_> {
    fn forward(&self, bytes: &[u8]) -> Option<Instant> {
        self.read(&self.requests, bytes);
        self.delayed_until.get()
    }

    fn backward(&self, bytes: &[u8]) -> After {
        let replies = self.read(&self.replies, bytes);
        if replies && self.questions.borrow().is_empty() && self.drain.is_draining() {
            self.filter.stats.cx_drain_close.inc();
            return After::Close;
        }
        After::GoOn
    }
}

/// However the connection ends.
impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let open = self.questions.get_mut().len() as u64;
        if open > 0 {
            let stats = &self.filter.stats;
            stats.op_query_active.sub(open);
            match self.client_ended.get() {
                true => stats.cx_destroy_remote_with_active_rq.inc(),
                false => stats.cx_destroy_local_with_active_rq.inc(),
            }
        }
    }
}

impl Reading<'_> {
    /// The connection ends now, and the client ended it.
    pub(crate) fn client_ended(&self) {
        self.client_ended.set(true);
    }

    /// Whether a reply was among them.
    fn read(&self, decoder: &RefCell<Decoder>, bytes: &[u8]) -> bool {
        if self.is_lost.get() {
            return false;
        }
        let mut has_reply = false;
        let decoded = decoder.borrow_mut().feed(bytes, |message| {
            has_reply |= matches!(message.body, Body::Reply(_));
            self.message(message)
        });
        if let Err(error) = decoded {
            tracing::debug!(%error, "does not read along any more: not what a MongoDB client of old says");
            self.filter.stats.decoding_error.inc();
            self.is_lost.set(true);
            for decoder in [&self.requests, &self.replies] {
                decoder.borrow_mut().forget();
            }
        }
        has_reply
    }

    fn message(&self, message: &Message<'_>) -> Result<(), DecodeError> {
        let stats = &self.filter.stats;
        if !matches!(message.body, Body::Reply(_)) {
            self.delay();
        }
        match &message.body {
            Body::Reply(_) => stats.op_reply.inc(),
            Body::Query(_) => stats.op_query.inc(),
            Body::GetMore { .. } => stats.op_get_more.inc(),
            Body::Insert { .. } => stats.op_insert.inc(),
            Body::KillCursors { .. } => stats.op_kill_cursors.inc(),
            Body::Command { .. } => stats.op_command.inc(),
            Body::CommandReply { .. } => stats.op_command_reply.inc(),
        }
        self.log(message);
        match &message.body {
            Body::Query(query) => self.query(message.id, query),
            Body::Reply(reply) => {
                self.reply(message.response_to, reply);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// One delay at a time.
    fn delay(&self) {
        let Some((delay, Fraction(share))) = self.filter.delay else {
            return;
        };
        let now = Instant::now();
        let waits = self.delayed_until.get().is_some_and(|until| until > now);
        if !waits && fastrand::u32(..Fraction::ALL.0) < share {
            self.filter.stats.delays_injected.inc();
            self.delayed_until.set(Some(now + delay));
        }
    }

    fn log(&self, message: &Message<'_>) {
        let Some(log) = &self.filter.log else { return };
        log.append(|line| {
            line.extend_from_slice(b"{\"time\": \"");
            write_time(SystemTime::now(), line);
            line.extend_from_slice(b"\", \"message\": ");
            log::write(message, line);
            line.extend_from_slice(b", \"upstream_host\": \"");
            match self.server {
                Some(server) => line.extend_from_slice(server.to_string().as_bytes()),
                None => line.push(b'-'),
            }
            line.extend_from_slice(b"\"}\n");
        });
    }

    fn query(&self, id: i32, query: &Query<'_>) -> Result<(), DecodeError> {
        let stats = &self.filter.stats;
        let flags = [
            (1, &stats.op_query_tailable_cursor),
            (4, &stats.op_query_no_cursor_timeout),
            (5, &stats.op_query_await_data),
            (6, &stats.op_query_exhaust),
        ];
        for (bit, counter) in flags {
            if query.flags & (1 << bit) != 0 {
                counter.inc();
            }
        }
        let counts = match Question::of(query)? {
            Question::Command(name) => {
                let command = stats.command(name);
                command.asked(Breadth::One);
                [Some(command), None]
            }
            Question::Find(find) => self.find(&find),
        };
        stats.op_query_active.inc();
        let mut questions = self.questions.borrow_mut();
        if questions.len() >= MAX_QUESTIONS && questions.pop_front().is_some() {
            stats.op_query_active.dec();
        }
        questions.push_back(Open {
            id,
            since: Instant::now(),
            stats: counts,
        });
        Ok(())
    }

    fn find(&self, find: &Find<'_>) -> [Option<Arc<Named>>; 2] {
        let stats = &self.filter.stats;
        let collection = self.named(find.collection, None);
        let callsite = find.callsite.as_deref();
        let callsite = callsite.and_then(|callsite| self.named(find.collection, Some(callsite)));
        for named in [&collection, &callsite].into_iter().flatten() {
            named.asked(find.breadth);
        }
        if find.max_millis < 1 {
            stats.op_query_no_max_time.inc();
        }
        match find.breadth {
            Breadth::One => {}
            Breadth::Multi => stats.op_query_multi_get.inc(),
            Breadth::Scatter => stats.op_query_scatter_get.inc(),
        }
        [collection, callsite]
    }

    /// The filter's, which all connections share, is asked once for a name.
    fn named(&self, collection: &[u8], callsite: Option<&str>) -> Option<Arc<Named>> {
        if collection.len() + callsite.map_or(0, str::len) > MAX_NAME_BYTES {
            return None;
        }
        let mut names = self.names.borrow_mut();
        if names.len() >= MAX_QUESTIONS {
            names.clear();
        }
        let key = (collection.into(), callsite.map(Into::into));
        names
            .entry(key)
            .or_insert_with(|| self.filter.stats.collection(collection, callsite))
            .clone()
    }

    fn reply(&self, to: i32, reply: &Reply<'_>) {
        let stats = &self.filter.stats;
        if reply.cursor != 0 {
            stats.op_reply_valid_cursor.inc();
        }
        if reply.flags & 1 != 0 {
            stats.op_reply_cursor_not_found.inc();
        }
        if reply.flags & 2 != 0 {
            stats.op_reply_query_failure.inc();
        }
        let mut questions = self.questions.borrow_mut();
        let index = questions.iter().position(|question| question.id == to);
        let Some(question) = index.and_then(|index| questions.remove(index)) else {
            return;
        };
        stats.op_query_active.dec();
        for named in question.stats.iter().flatten() {
            named.answered(reply, question.since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests;
