//! Pooled HTTP/1 connections: one exchange at a time each. Where the circuit breaker allows no further connection, requests wait for one
//! to become free, first come first served.
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{ConnectionFacts, Hold, Target};
use crate::codec::h1::client::{self, Client, ClientOptions};
use crate::codec::{Body, Feedback, RequestHead, Response, SendError};
use crate::time::{self, Instant};
use crate::upstream::circuit_breaker::Permit;
use crate::upstream::connect::{ConnectError, connect_with};
use crate::upstream::endpoint::Availability;
use crate::worker;

/// Connections that one request may have made ahead. Source: Envoy `ConnPoolImplBase::tryCreateNewConnections`.
const MOST_AHEAD: u32 = 3;

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) target: Target,
    idle: RefCell<Vec<Connection>>,
    /// Connections there are, busy ones and those that are being made included.
    open: Cell<usize>,
    /// Of them those that are being made for requests to come.
    ahead: Cell<usize>,
    /// Dropping one lets its owner look again.
    waiting: RefCell<VecDeque<oneshot::Sender<Connection>>>,
    closed: Cell<bool>,
}

/// Counts a connection of its pool; when it is gone somebody who waits may make another.
#[derive(Debug)]
struct Counted(Weak<Pool>);

impl Counted {
    fn of(pool: &Rc<Pool>) -> Self {
        pool.open.set(pool.open.get() + 1);
        Self(Rc::downgrade(pool))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.open.set(pool.open.get().saturating_sub(1));
            let mut waiting = pool.waiting.borrow_mut();
            // Who has gone looks no more.
            while waiting.pop_front().is_some_and(|first| first.is_closed()) {}
        }
    }
}

/// Counts a connection that is made ahead.
struct Ahead(Rc<Pool>);

impl Ahead {
    fn of(pool: &Rc<Pool>) -> Self {
        pool.ahead.set(pool.ahead.get() + 1);
        Self(pool.clone())
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.ahead.set(self.0.ahead.get().saturating_sub(1));
    }
}

#[derive(Debug)]
struct Connection {
    client: Client,
    facts: ConnectionFacts,
    since: Instant,
    old_at: Option<Instant>,
    served: u32,
}

impl Connection {
    /// `max_connection_duration` is over.
    fn is_old(&self) -> bool {
        self.old_at.is_some_and(|at| Instant::now() >= at)
    }
}

/// One connection, exclusively.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Rc<Pool>,
    connection: Connection,
}

impl Pool {
    pub(super) fn new(target: Target) -> Rc<Self> {
        Rc::new(Self {
            target,
            idle: RefCell::default(),
            open: Cell::new(0),
            ahead: Cell::new(0),
            waiting: RefCell::default(),
            closed: Cell::new(false),
        })
    }

    pub(super) async fn acquire(self: Rc<Self>) -> Result<Lease, ConnectError> {
        let connection = match self.take_idle() {
            Some(connection) => {
                self.preconnect();
                connection
            }
            // On the heap: the handshakes inside are many kilobytes, which a request with a connection need not carry.
            None => Box::pin(self.wait_for_one()).await?,
        };
        Ok(Lease {
            pool: self,
            connection,
        })
    }

    async fn wait_for_one(self: &Rc<Self>) -> Result<Connection, ConnectError> {
        let _waits = self.target.wait()?;
        loop {
            if let Some(permit) = self.target.leave(self.open.get() == 0) {
                let counted = Counted::of(self);
                self.preconnect();
                return self.connect(permit, counted).await;
            }
            // One whose last exchange is not over on the wire may be the only one there will be.
            let unready = self.idle.borrow_mut().pop();
            if let Some(mut connection) = unready {
                if connection.client.ready().await {
                    return Ok(connection);
                }
                continue;
            }
            let (give, given) = oneshot::channel();
            self.waiting.borrow_mut().push_back(give);
            if let Ok(mut connection) = given.await
                && connection.client.ready().await
            {
                return Ok(connection);
            }
            if let Some(connection) = self.take_idle() {
                return Ok(connection);
            }
        }
    }

    /// Makes connections for requests to come, if that is wanted. Source: Envoy `ConnPoolImplBase::tryCreateNewConnections`,
    /// `shouldConnect`.
    fn preconnect(self: &Rc<Self>) {
        let cluster = &self.target.cluster;
        let Some(ratio) = cluster.config.preconnect_ratio else {
            return;
        };
        if self.target.host.availability() != Availability::Healthy {
            return;
        }
        for _ in 0..MOST_AHEAD {
            // Each request has a share of this pool, and so have the table of pools and what is made ahead.
            let requests = Rc::strong_count(self).saturating_sub(1 + self.ahead.get());
            if requests as f64 * ratio.0 <= self.open.get() as f64 {
                return;
            }
            let Some(permit) = self.target.leave(false) else {
                return;
            };
            let (counted, ahead) = (Counted::of(self), Ahead::of(self));
            worker::spawn(async move {
                let made = ahead.0.connect(permit, counted).await;
                let pool = ahead.0.clone();
                drop(ahead);
                match made {
                    Ok(connection) => pool.put_back(connection),
                    Err(error) => tracing::debug!(%error, "no connection ahead"),
                }
            });
        }
    }

    async fn connect(self: &Rc<Self>, permit: Permit, counted: Counted) -> Result<Connection, ConnectError> {
        let cluster = &self.target.cluster;
        let Target { host, wish, .. } = &self.target;
        let connected = connect_with(permit, cluster, host, wish, Some(b"http/1.1")).await?;
        cluster.stats.upstream_cx_http1_total.inc();
        let guard = (connected.guard, counted);
        let facts = ConnectionFacts {
            local_address: connected.local_address,
            principals: connected.tls.as_ref().map(|tls| tls.principals()),
        };
        let options = ClientOptions {
            passes_trailers: cluster.config.http.http1.passes_trailers,
            name_case: cluster.config.http.http1.name_case,
            writes_whole_url: cluster.config.http.http1.writes_whole_url,
            response_head: Some(cluster.config.http.response_head),
        };
        let client = client::handshake(connected.transport, options, guard)
            .await
            .map_err(|error| self.target.no_handshake(&error))?;
        let now = Instant::now();
        Ok(Connection {
            client,
            facts,
            since: now,
            old_at: cluster
                .config
                .http
                .max_connection_duration
                .map(|age| now + time::drawn(age)),
            served: 0,
        })
    }

    /// The connection used last that can take a request. One whose last exchange is not over on the wire waits for a later call.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| !connection.client.is_closed() && !connection.is_old());
        let position = idle.iter().rposition(|connection| connection.client.is_ready())?;
        Some(idle.remove(position))
    }

    fn put_back(&self, connection: Connection) {
        let http = &self.target.cluster.config.http;
        let spent =
            http.max_requests_per_connection > 0 && connection.served >= http.max_requests_per_connection;
        let closing = self.closed.get() || self.target.cluster.is_retired();
        if spent || connection.is_old() || closing || connection.client.is_closed() {
            return;
        }
        if let Some(connection) = self.give(connection) {
            self.idle.borrow_mut().push(connection);
        }
    }

    /// Gives a connection to whoever waits longest; returns it if nobody does.
    fn give(&self, mut connection: Connection) -> Option<Connection> {
        loop {
            let Some(first) = self.waiting.borrow_mut().pop_front() else {
                return Some(connection);
            };
            match first.send(connection) {
                Ok(()) => return None,
                // Its request is gone.
                Err(back) => connection = back,
            }
        }
    }

    /// Closes connections idle for longer than `limit`; false: none is left.
    pub(super) fn sweep(&self, limit: Option<Duration>) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| {
            let expired = limit.is_some_and(|limit| connection.since.elapsed() >= limit);
            if expired {
                self.target.cluster.stats.upstream_cx_idle_timeout.inc();
            }
            !expired && !connection.is_old() && !connection.client.is_closed()
        });
        !idle.is_empty()
    }

    /// It has no connection that could take a request.
    pub(super) fn is_empty(&self) -> bool {
        let idle = self.idle.borrow();
        idle.iter().all(|connection| connection.client.is_closed())
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
    }
}

impl Lease {
    pub(super) fn facts(&self) -> &ConnectionFacts {
        &self.connection.facts
    }

    pub(super) async fn send(
        mut self,
        head: RequestHead,
        body: Body,
        feedback: Option<&Feedback>,
    ) -> Result<Response, SendError> {
        self.connection.served += 1;
        let response = self.connection.client.send(head, body, feedback).await?;

        Ok(super::hold(self, response))
    }
}

impl Hold for Lease {
    /// A response that failed or was abandoned closes the connection instead.
    fn release(mut self) {
        self.connection.since = Instant::now();
        self.pool.clone().put_back(self.connection);
    }
}
