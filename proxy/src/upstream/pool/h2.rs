//! Pooled HTTP/2 connections: one a host, shared by the worker's streams. Requests that come while it is being made wait for it. When it
//! is full, old or going away another takes its place; its streams end in peace.
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use outrigger_model::cluster::ResponseHeadLimits;
use tokio::sync::watch;

use super::{ConnectionFacts, Hold, Target};
use crate::codec::h2::client::{self, Client};
use crate::codec::{Body, Feedback, Http2Settings, RequestHead, Response, SendError};
use crate::time::{self, Instant};
use crate::upstream::connect::{ConnectError, connect_with};

/// What HPACK counts for a field beside its name and value. Source: RFC 7541 §4.1.
const FIELD_BYTES: u32 = 32;

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) target: Target,
    state: RefCell<State>,
}

#[derive(Debug)]
enum State {
    Empty,
    /// Somebody connects; the channel closes when that is over.
    Connecting(watch::Receiver<()>),
    Ready(Rc<Connection>),
}

#[derive(Debug)]
struct Connection {
    client: Client,
    facts: ConnectionFacts,
    alive: Rc<Cell<bool>>,
    active: Cell<u32>,
    served: Cell<u32>,
    old_at: Option<Instant>,
    since: Cell<Instant>,
}

/// A share of a connection.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Rc<Connection>,
}

impl Pool {
    pub(super) fn new(target: Target) -> Rc<Self> {
        Rc::new(Self {
            target,
            state: RefCell::new(State::Empty),
        })
    }

    pub(super) async fn acquire(self: Rc<Self>) -> Result<Lease, ConnectError> {
        let mut waits = None;
        loop {
            let waiting = match &*self.state.borrow() {
                State::Ready(connection) if self.usable(connection) => return Ok(Lease::of(connection)),
                State::Connecting(over) => Some(over.clone()),
                State::Ready(_) | State::Empty => None,
            };
            if waits.is_none() {
                waits = Some(self.target.wait()?);
            }
            match waiting {
                // Closing is the signal: whoever connected has left its result in the state.
                Some(mut over) => while over.changed().await.is_ok() {},
                // On the heap: the handshakes inside are many kilobytes, which a request with a connection need not carry.
                None => return Box::pin(self.clone().establish()).await,
            }
        }
    }

    fn usable(&self, connection: &Connection) -> bool {
        let http = &self.target.cluster.config.http;
        let spent = http.max_requests_per_connection > 0
            && connection.served.get() >= http.max_requests_per_connection;
        let old = connection.old_at.is_some_and(|at| Instant::now() >= at);
        let full = connection.active.get() >= http.http2.max_concurrent_streams;
        connection.alive.get() && !spent && !old && !full
    }

    async fn establish(self: Rc<Self>) -> Result<Lease, ConnectError> {
        let (over, waiting) = watch::channel(());
        *self.state.borrow_mut() = State::Connecting(waiting);
        // Runs also when this future is dropped: those that wait then connect themselves.
        let reset = Reset {
            pool: self.clone(),
            _over: over,
        };
        let connection = Rc::new(self.connect().await?);
        *self.state.borrow_mut() = State::Ready(connection.clone());
        drop(reset);
        Ok(Lease::of(&connection))
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let cluster = &self.target.cluster;
        // It has none that takes this request, and never makes two at a time: beyond the limit rather than never.
        let permit = self.target.leave(true).ok_or(ConnectError::Overflow)?;
        let Target { host, wish, .. } = &self.target;
        let connected = connect_with(permit, cluster, host, wish, Some(b"h2")).await?;
        cluster.stats.upstream_cx_http2_total.inc();
        let http2 = &cluster.config.http.http2;
        let settings = Http2Settings {
            max_concurrent_streams: http2.max_concurrent_streams,
            stream_window: http2.initial_stream_window_bytes,
            connection_window: http2.initial_connection_window_bytes,
            max_header_list_bytes: header_list_bytes(&cluster.config.http.response_head),
            allows_connect: false,
            header_table_bytes: http2.header_table_bytes,
            keepalive: http2.keepalive,
        };
        let alive = Rc::new(Cell::new(true));
        let (guard, flag) = (connected.guard, alive.clone());
        let deaf = http2.keepalive.map(|_| cluster.stats.deaf_servers());
        let on_close = move |end| {
            flag.set(false);
            if let Some(deaf) = deaf.filter(|_| end == client::End::Deaf) {
                deaf.inc();
            }
            drop(guard);
        };
        let facts = ConnectionFacts {
            local_address: connected.local_address,
            principals: connected.tls.as_ref().map(|tls| tls.principals()),
        };
        let client = client::handshake(
            connected.transport,
            settings,
            Some(cluster.config.http.response_head),
            on_close,
        )
        .await
        .map_err(|error| self.target.no_handshake(&error))?;
        let now = Instant::now();
        let (active, served, since) = (Cell::new(0), Cell::new(0), Cell::new(now));
        Ok(Connection {
            client,
            facts,
            alive,
            active,
            served,
            old_at: cluster
                .config
                .http
                .max_connection_duration
                .map(|age| now + time::drawn(age)),
            since,
        })
    }

    /// Closes a connection idle for longer than `limit`; false: none is left.
    pub(super) fn sweep(&self, limit: Option<Duration>) -> bool {
        let mut state = self.state.borrow_mut();
        if let State::Ready(connection) = &*state {
            let expired = self.target.cluster.is_retired()
                || (connection.active.get() == 0
                    && limit.is_some_and(|limit| connection.since.get().elapsed() >= limit));
            if expired || !connection.alive.get() {
                if expired {
                    self.target.cluster.stats.upstream_cx_idle_timeout.inc();
                }
                *state = State::Empty;
            }
        }
        !matches!(*state, State::Empty)
    }

    /// No stream is on its connection.
    pub(super) fn is_unused(&self) -> bool {
        match &*self.state.borrow() {
            State::Empty => true,
            State::Connecting(_) => false,
            State::Ready(connection) => connection.active.get() == 0,
        }
    }

    /// It has no connection.
    pub(super) fn is_empty(&self) -> bool {
        match &*self.state.borrow() {
            State::Empty => true,
            State::Connecting(_) => false,
            State::Ready(connection) => !connection.alive.get(),
        }
    }

    pub(super) fn close(&self) {
        let mut state = self.state.borrow_mut();
        if matches!(*state, State::Ready(_)) {
            *state = State::Empty;
        }
    }
}

/// What the library takes: a little more than may be, so that a head is judged as Envoy counts it.
fn header_list_bytes(limits: &ResponseHeadLimits) -> u32 {
    let most = limits.most_bytes.unwrap_or(client::USUAL_HEAD_BYTES);
    let fields = limits.most_headers.saturating_add(2);
    most.saturating_add(fields.saturating_mul(FIELD_BYTES))
        .saturating_add(1024)
}

struct Reset {
    pool: Rc<Pool>,
    _over: watch::Sender<()>,
}

impl Drop for Reset {
    fn drop(&mut self) {
        let mut state = self.pool.state.borrow_mut();
        if matches!(*state, State::Connecting(_)) {
            *state = State::Empty;
        }
    }
}

impl Lease {
    fn of(connection: &Rc<Connection>) -> Self {
        connection.active.set(connection.active.get() + 1);
        connection.served.set(connection.served.get().saturating_add(1));
        Self {
            connection: connection.clone(),
        }
    }

    pub(super) fn facts(&self) -> &ConnectionFacts {
        &self.connection.facts
    }

    pub(super) async fn send(
        self,
        head: RequestHead,
        body: Body,
        feedback: Option<&Feedback>,
    ) -> Result<Response, SendError> {
        let result = self.connection.client.send(head, body, feedback).await;
        // A connection that went away (GOAWAY or closed) is not offered again, even before its task has noticed.
        if matches!(
            result,
            Err(SendError::NotSent(_) | SendError::Closed(_) | SendError::Refused(_))
        ) {
            self.connection.alive.set(false);
        }
        Ok(super::hold(self, result?))
    }
}

impl Hold for Lease {
    /// Dropping it does.
    fn release(self) {}
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection
            .active
            .set(self.connection.active.get().saturating_sub(1));
        self.connection.since.set(Instant::now());
    }
}
