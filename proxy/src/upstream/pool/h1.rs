//! Pooled HTTP/1 connections: one exchange at a time each.
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::{ConnectionFacts, Hold, Target};
use crate::codec::h1::client::{self, Client};
use crate::codec::{Body, Feedback, RequestHead, Response, SendError};
use crate::time::Instant;
use crate::upstream::connect::{ConnectError, connect};

#[derive(Debug)]
pub(super) struct Pool {
    target: Target,
    idle: RefCell<Vec<Connection>>,
    closed: Cell<bool>,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    facts: ConnectionFacts,
    since: Instant,
    born: Instant,
    served: u32,
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
            closed: Cell::new(false),
        })
    }

    pub(super) async fn acquire(self: Rc<Self>) -> Result<Lease, ConnectError> {
        let connection = match self.take_idle() {
            Some(connection) => connection,
            // On the heap: the handshakes inside are many kilobytes, which a request with a connection need not carry.
            None => Box::pin(self.connect()).await?,
        };
        Ok(Lease {
            pool: self,
            connection,
        })
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let cluster = &self.target.cluster;
        let connected = connect(cluster, &self.target.host, &self.target.wish, Some(b"http/1.1")).await?;
        cluster.stats.upstream_cx_http1_total.inc();
        let facts = ConnectionFacts {
            local_address: connected.local_address,
            principals: connected.tls.as_ref().map(|tls| tls.principals()),
        };
        let client = client::handshake(connected.transport, connected.guard)
            .await
            .map_err(|error| self.target.no_handshake(&error))?;
        let now = Instant::now();
        Ok(Connection {
            client,
            facts,
            since: now,
            born: now,
            served: 0,
        })
    }

    /// The connection used last that can take a request. One whose last exchange is not over on the wire waits for a later call.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| !connection.client.is_closed());
        let position = idle.iter().rposition(|connection| connection.client.is_ready())?;
        Some(idle.remove(position))
    }

    fn put_back(&self, connection: Connection) {
        let http = &self.target.cluster.config.http;
        let spent =
            http.max_requests_per_connection > 0 && connection.served >= http.max_requests_per_connection;
        let old = http
            .max_connection_duration
            .is_some_and(|limit| connection.born.elapsed() >= limit);
        let closing = self.closed.get() || self.target.cluster.is_retired();
        if !(spent || old || closing || connection.client.is_closed()) {
            self.idle.borrow_mut().push(connection);
        }
    }

    /// Closes connections idle for longer than the cluster's limit; false: none is left.
    pub(super) fn sweep(&self) -> bool {
        let limit = self.target.cluster.config.http.idle_timeout;
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| {
            let expired = limit.is_some_and(|limit| connection.since.elapsed() >= limit);
            if expired {
                self.target.cluster.stats.upstream_cx_idle_timeout.inc();
            }
            !expired && !connection.client.is_closed()
        });
        !idle.is_empty()
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
