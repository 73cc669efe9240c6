//! Upstream connections of one worker, kept for the next request.
//!
//! A pool is found by cluster object, host, transport, ALPN override, priority and HTTP version. HTTP/1 connections carry one exchange at a time
//! and lie idle in between (last used, first taken); an HTTP/2 connection carries many. Nothing here is shared between workers.
mod h1;
mod h2;
mod raw;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrigger_model::cluster::RoutingPriority;

use super::circuit_breaker::{Permit, Resource};
use super::cluster::Cluster;
use super::connect::{self, ConnectError, ProxiedClient, TlsWish};
use super::endpoint::{HealthFlag, Host};
use crate::codec::body::{BodyError, BodyObserver};
use crate::codec::{Body, Feedback, RequestHead, Response, SendError};
use crate::net::connect::OriginalSource;
use crate::telemetry::workload::Principals;
use crate::worker;

/// How often idle connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Version spoken upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// None: what is in the request goes as it is.
    Raw,
}

/// Facts about the connection that carries an attempt.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionFacts {
    /// Our end.
    pub(crate) local_address: Option<SocketAddr>,
    /// Who both ends are, if it is TLS.
    pub(crate) principals: Option<Arc<Principals>>,
}

/// A connection ready for one request.
#[derive(Debug)]
pub(crate) enum Lease {
    /// HTTP/1: exclusive.
    H1(h1::Lease),
    /// HTTP/2: a share.
    H2(h2::Lease),
    /// A connection of its own.
    Raw(Box<raw::Lease>),
}

impl Lease {
    /// About the connection.
    pub(crate) fn facts(&self) -> &ConnectionFacts {
        match self {
            Self::H1(lease) => lease.facts(),
            Self::H2(lease) => lease.facts(),
            Self::Raw(lease) => lease.facts(),
        }
    }

    /// Leaves the connection to the next request.
    pub(crate) fn give_back(self) {
        match self {
            Self::H1(lease) => lease.release(),
            Self::H2(lease) => lease.release(),
            Self::Raw(lease) => drop(lease),
        }
    }

    /// Sends a request and waits for the response head; the connection goes back to its pool by itself.
    ///
    /// # Errors
    /// See [`SendError`].
    pub(crate) async fn send(
        self,
        head: RequestHead,
        body: Body,
        feedback: Option<&Feedback>,
    ) -> Result<Response, SendError> {
        match self {
            Self::H1(lease) => lease.send(head, body, feedback).await,
            Self::H2(lease) => lease.send(head, body, feedback).await,
            Self::Raw(lease) => Ok(lease.open(body)),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    cluster: u64,
    address: SocketAddr,
    transport: usize,
    /// Address of the override list; the pool keeps the list alive, so it cannot be another one's.
    alpn: usize,
    asked: Option<Arc<str>>,
    /// Whom the connection speaks for, when the host is told. Other than in Envoy with its TLVs.
    client: Option<Arc<ProxiedClient>>,
    /// Where it comes from, when that is the client's address.
    source: Option<OriginalSource>,
    priority: RoutingPriority,
    /// [`Cluster::host_generation`].
    generation: u64,
    version: Version,
}

#[derive(Debug, Clone)]
enum Pool {
    H1(Rc<h1::Pool>),
    H2(Rc<h2::Pool>),
}

/// What pools have in common.
#[derive(Debug)]
struct Target {
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    wish: TlsWish,
    generation: u64,
    /// One of the cluster's pools.
    _permit: Permit,
}

impl Target {
    /// Leave to wait for a connection. Source: Envoy `ConnPoolImplBase::newStreamImpl`.
    fn wait(&self) -> Result<Permit, ConnectError> {
        let stats = &self.cluster.stats;
        match self.cluster.permit(self.wish.priority, Resource::PendingRequests) {
            Some(permit) => {
                stats.upstream_rq_pending_total.inc();
                Ok(permit)
            }
            None => {
                stats.upstream_rq_pending_overflow.inc();
                Err(ConnectError::Overflow)
            }
        }
    }

    /// Leave for one more connection, or if a pool `has_none` for its first: requests must not wait for what never comes.
    /// Source: Envoy `ConnPoolImplBase::tryCreateNewConnection`.
    fn leave(&self, has_none: bool) -> Option<Permit> {
        let Self {
            cluster, host, wish, ..
        } = self;
        let beyond = || {
            cluster
                .breaker
                .acquire_beyond(wish.priority, Resource::Connections)
        };
        connect::leave(cluster, host, wish.priority).or_else(|| has_none.then(beyond))
    }

    /// It fails active checks, and connections are to be closed then.
    fn is_ill(&self) -> bool {
        self.cluster.config.closes_on_failed_check && self.host.state.has(HealthFlag::FailedActiveCheck)
    }

    /// The host is not one of the cluster any more, names have other addresses now; or hosts have changed, and that is enough.
    fn is_gone(&self) -> bool {
        if self.generation != self.cluster.host_generation() {
            return true;
        }
        !self.cluster.is_original_dst() && self.cluster.hosts().find(self.host.address).is_none()
    }

    /// The connection was there, and HTTP on it was not.
    fn no_handshake(&self, error: &SendError) -> ConnectError {
        ConnectError::Tcp {
            host: self.host.address,
            source: std::io::Error::other(error.to_string()),
        }
    }
}

thread_local! {
    static POOLS: RefCell<Pools> = RefCell::default();
}

#[derive(Debug, Default)]
struct Pools {
    by_key: HashMap<Key, Pool>,
    sweeping: bool,
}

impl Pools {
    /// Leave for one more pool, or for one in place of another of this host that nobody uses, or of any host if it is empty. Source: Envoy `ConnPoolMap::getPool`.
    fn permit(&mut self, cluster: &Cluster, key: &Key) -> Option<Permit> {
        let take = || cluster.permit(key.priority, Resource::Pools);
        take().or_else(|| {
            let is_of = |other: &Key| (other.cluster, other.priority) == (key.cluster, key.priority);
            let is_beside = |other: &Key| is_of(other) && other.address == key.address;
            let mut unused = self.by_key.extract_if(|other, pool| {
                pool.is_unused() && (is_beside(other) || is_of(other) && pool.is_empty())
            });
            let (_, freed) = unused.next()?;
            drop(unused);
            freed.close();
            drop(freed);
            take()
        })
    }
}

/// A connection to `host` for one request: an idle or shared one, else a new one.
///
/// # Errors
/// No connection could be made.
pub(crate) async fn acquire(
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    wish: &TlsWish,
    version: Version,
) -> Result<Lease, ConnectError> {
    if version == Version::Raw {
        // On the heap, for those few that ask for it.
        return Box::pin(raw::connect(cluster, host, wish)).await;
    }
    let key = Key {
        cluster: cluster.id,
        address: host.address,
        transport: host.transport,
        alpn: wish.alpn.as_ref().map_or(0, |alpn| alpn.as_ptr().addr()),
        asked: wish.host.clone(),
        client: wish
            .client
            .as_ref()
            .filter(|_| cluster.introduces_clients_to(host))
            .cloned(),
        source: wish.source,
        priority: wish.priority,
        generation: cluster.host_generation(),
        version,
    };
    let make = |key: &Key, permit| {
        let target = Target {
            cluster: cluster.clone(),
            host: host.clone(),
            wish: wish.clone(),
            generation: key.generation,
            _permit: permit,
        };
        match version {
            Version::Http1 | Version::Raw => Pool::H1(h1::Pool::new(target)),
            Version::Http2 => Pool::H2(h2::Pool::new(target)),
        }
    };
    let pool = POOLS.with_borrow_mut(|pools| match pools.by_key.get(&key) {
        Some(pool) => Some(pool.clone()),
        None => {
            let made = make(&key, pools.permit(cluster, &key)?);
            pools.by_key.insert(key, made.clone());
            Some(made)
        }
    });
    let Some(pool) = pool else {
        cluster.stats.upstream_cx_pool_overflow.inc();
        return Err(ConnectError::NoPool);
    };
    start_sweeping();
    match pool {
        Pool::H1(pool) => pool.acquire().await.map(Lease::H1),
        Pool::H2(pool) => pool.acquire().await.map(Lease::H2),
    }
}

/// What an exchange holds of a connection until its response has ended; dropping it gives the exchange up.
trait Hold {
    /// The response ended in order.
    fn release(self);
}

/// Keeps `lease` while the body of `response` lasts.
fn hold<L: Hold + 'static>(lease: L, response: Response) -> Response {
    let Response { head, body } = response;
    if body.is_empty() {
        lease.release();
        return Response { head, body };
    }
    let body = body.observe(Rc::new(UntilEnd(Cell::new(Some(lease)))));
    Response { head, body }
}

struct UntilEnd<L>(Cell<Option<L>>);

impl<L> std::fmt::Debug for UntilEnd<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UntilEnd")
    }
}

impl<L: Hold> BodyObserver for UntilEnd<L> {
    fn data(&self, _data: &Bytes) {}

    fn end(&self) {
        if let Some(lease) = self.0.take() {
            lease.release();
        }
    }

    fn error(&self, _error: &BodyError) {
        self.0.take();
    }

    fn abandoned(&self) {
        self.0.take();
    }
}

/// Closes idle connections of this worker to a cluster that is replaced or removed; exchanges in flight end in peace.
pub(crate) fn close_all(cluster_id: u64) {
    retain(cluster_id, |_| false);
}

/// Closes idle connections of this worker that are not to be used since the hosts of the cluster changed.
pub(crate) fn close_gone(cluster_id: u64) {
    retain(cluster_id, |pool| !pool.target().is_gone());
}

fn retain(cluster_id: u64, keep: impl Fn(&Pool) -> bool) {
    POOLS.with_borrow_mut(|pools| {
        pools.by_key.retain(|key, pool| {
            let stays = key.cluster != cluster_id || keep(pool);
            if !stays {
                pool.close();
            }
            stays
        });
    });
}

/// A connection that speaks for one client (PROXY protocol) is of no use to others, and that client comes back from another port: in Envoy
/// it stays for the cluster's `idle_timeout`, an hour by default.
const ONE_CLIENT_IDLE: Duration = Duration::from_secs(60);

/// One task a worker that closes connections idle for too long; it ends when no pool is left.
fn start_sweeping() {
    let start = POOLS.with_borrow_mut(|pools| !std::mem::replace(&mut pools.sweeping, true));
    if start {
        worker::spawn(async {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                let go_on = POOLS.with_borrow_mut(|pools| {
                    pools.by_key.retain(|key, pool| pool.sweep(key.client.is_some()));
                    pools.sweeping = !pools.by_key.is_empty();
                    pools.sweeping
                });
                if !go_on {
                    return;
                }
            }
        });
    }
}

impl Pool {
    /// Closes what has been idle for too long; false: the pool is empty and unused, or of a host that is not to be used. Who has a
    /// connection of it still has a share of the pool; should the host come back, it gets another.
    fn sweep(&self, is_of_one_client: bool) -> bool {
        if self.target().is_gone() || self.target().is_ill() {
            self.close();
            return false;
        }
        let idle = self.target().cluster.config.http.idle_timeout;
        let idle = match is_of_one_client {
            true => Some(idle.map_or(ONE_CLIENT_IDLE, |idle| idle.min(ONE_CLIENT_IDLE))),
            false => idle,
        };
        match self {
            Self::H1(pool) => pool.sweep(idle) || Rc::strong_count(pool) > 1,
            Self::H2(pool) => pool.sweep(idle) || Rc::strong_count(pool) > 1,
        }
    }

    /// Nobody has a connection of it, or waits for one.
    fn is_unused(&self) -> bool {
        match self {
            Self::H1(pool) => Rc::strong_count(pool) == 1,
            Self::H2(pool) => Rc::strong_count(pool) == 1 && pool.is_unused(),
        }
    }

    /// It has no connection.
    fn is_empty(&self) -> bool {
        match self {
            Self::H1(pool) => pool.is_empty(),
            Self::H2(pool) => pool.is_empty(),
        }
    }

    fn target(&self) -> &Target {
        match self {
            Self::H1(pool) => &pool.target,
            Self::H2(pool) => &pool.target,
        }
    }

    fn close(&self) {
        match self {
            Self::H1(pool) => pool.close(),
            Self::H2(pool) => pool.close(),
        }
    }
}
