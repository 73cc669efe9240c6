//! One attempt: a connection, the request, the response head.
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, Version as HttpVersion};
use outrigger_model::cluster::{RoutingPriority, TlsNames, UpstreamHttpVersion};
use outrigger_model::route::TunnelEnd;

use crate::codec::body::ReplaySource;
use crate::codec::{Body, Feedback, RequestHead, Response, SendError};
use crate::http::stream::limits::Limits;
use crate::telemetry::response_flag::ResponseFlag;
use crate::telemetry::stream_info::StreamInfo;
use crate::time::{self, Instant};
use crate::upstream::circuit_breaker::{Permit, Resource};
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::{AlpnOverride, ConnectError, TlsWish};
use crate::upstream::endpoint::Host;
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::{self, Version};

/// Why an attempt brought no response head.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    /// No connection; no byte of the request was sent; always safe to retry.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The request went wrong on a connection.
    #[error(transparent)]
    Send(#[from] SendError),
    /// `per_try_timeout` passed.
    #[error("no response within per_try_timeout")]
    PerTryTimeout,
    /// `per_try_idle_timeout` passed.
    #[error("nothing came within per_try_idle_timeout")]
    PerTryIdle,
    /// The cluster's `max_stream_duration` passed.
    #[error("no response within max_stream_duration")]
    Duration,
    /// The circuit breaker allows no further request.
    #[error("the cluster's circuit breaker is open")]
    Overflow,
    /// The begin of the request's body is no longer here: it did not fit into the buffer.
    #[error("the request is larger than the buffer for retries")]
    BodyLost,
}

/// A response head in time.
#[derive(Debug)]
pub(super) struct Attempted {
    pub(super) response: Response,
    /// One of the cluster's requests until the response has ended.
    pub(super) permit: Permit,
    /// From the request's first byte to the response head.
    pub(super) service_time: Duration,
    /// When the response must have ended.
    pub(super) ends_at: Option<Instant>,
}

/// What an attempt needs.
pub(super) struct Attempt<'a> {
    pub(super) cluster: &'a Arc<Cluster>,
    pub(super) host: &'a Arc<Host>,
    /// For the TLS of a connection.
    pub(super) tls: &'a TlsWish,
    pub(super) info: &'a RefCell<StreamInfo>,
    pub(super) limits: &'a Limits,
    /// What else passes between client and upstream; `None`: nothing.
    pub(super) feedback: Option<&'a Feedback>,
    /// From the end of the request, on a connection, to the response head.
    pub(super) per_try: Option<Duration>,
    /// As `per_try`; the rest of the response has it too, from [`Limits`].
    pub(super) per_try_idle: Option<Duration>,
    /// Of the route: which requests are tunnels that end here.
    pub(super) tunnel_end: Option<TunnelEnd>,
    /// The attempt goes on when its time has passed, and this turns true; `None`: it ends.
    pub(super) goes_on: Option<&'a Cell<bool>>,
}

impl Attempt<'_> {
    pub(super) async fn run(
        self,
        head: RequestHead,
        source: Option<&ReplaySource>,
    ) -> Result<Attempted, AttemptError> {
        {
            let mut info = self.info.borrow_mut();
            let upstream = info.begin_attempt();
            upstream.host = Some(self.host.address);
            upstream.workload.clone_from(&self.host.workload);
        }
        let version = match self.tunnel_end {
            Some(end) if is_tunnel(end, &head.method) => Version::Raw,
            _ => self.version(head.version),
        };
        let acquire = pool::acquire(self.cluster, self.host, self.tls, version);
        let lease = meanwhile(acquire, source).await.inspect_err(|error| {
            tracing::debug!(cluster = %self.cluster.name, %error, "no upstream connection");
            if !matches!(error, ConnectError::Overflow | ConnectError::NoPool) {
                self.cluster.stats.upstream_rq_pending_failure_eject.inc();
            }
        })?;
        // Asked once more: time has passed since it was decided to send it.
        let Some(body) = source.map_or_else(|| Some(Body::empty()), ReplaySource::attempt) else {
            lease.give_back();
            return Err(AttemptError::BodyLost);
        };
        let Some(permit) = self.cluster.permit(self.tls.priority, Resource::Requests) else {
            self.cluster.stats.upstream_rq_active_overflow.inc();
            lease.give_back();
            return Err(AttemptError::Overflow);
        };
        self.cluster.stats.upstream_rq_total.inc();
        self.host.counters.rq_total.fetch_add(1, Ordering::Relaxed);
        self.cluster.outcome(self.host, Outcome::Connected);
        let started = Instant::now();
        {
            let upstream = &mut self.info.borrow_mut().upstream;
            let facts = lease.facts();
            upstream.local_address = facts.local_address;
            upstream.principals.clone_from(&facts.principals);
            upstream.first_tx = Some(started.into_std());
        }
        let is_upgrade = head.is_upgrade;
        let sending = std::pin::pin!(lease.send(head, body, self.feedback));
        let ends_at = self
            .cluster
            .config
            .http
            .exchange_duration
            .map(|limit| started + limit);
        let sending = self.in_time(sending, ends_at);
        let response = if is_upgrade {
            // Nothing is taken of the body before the answer, and a client that leaves is only seen by reading.
            meanwhile(sending, source).await
        } else {
            sending.await
        };
        let response = response?.inspect_err(|error| {
            tracing::debug!(cluster = %self.cluster.name, host = %self.host.address, %error, "no upstream response");
            self.cluster.stats.upstream_rq_rx_reset.inc();
        })?;
        let now = Instant::now();
        self.info.borrow_mut().upstream.first_rx = Some(now.into_std());
        Ok(Attempted {
            response,
            permit,
            service_time: now - started,
            ends_at,
        })
    }

    /// Within the `per_try_timeout`, which begins when the request is whole and there is a connection. Source: Envoy
    /// `UpstreamRequest::setupPerTryTimeout`.
    async fn in_time<F: Future + Unpin>(
        &self,
        mut sending: F,
        ends_at: Option<Instant>,
    ) -> Result<F::Output, AttemptError> {
        if ends_at.is_some() {
            // On the heap, for those few clusters that have one.
            let in_time = Box::pin(self.within_try(&mut sending));
            return time::until(ends_at, in_time)
                .await
                .unwrap_or(Err(AttemptError::Duration));
        }
        self.within_try(sending).await
    }

    async fn within_try<F: Future + Unpin>(&self, mut sending: F) -> Result<F::Output, AttemptError> {
        let (limit, error) = match (self.per_try, self.per_try_idle) {
            (None, None) => return Ok(sending.await),
            (limit, Some(idle)) if limit.is_none_or(|limit| idle < limit) => (idle, AttemptError::PerTryIdle),
            (limit, _) => (limit.unwrap_or_default(), AttemptError::PerTryTimeout),
        };
        let passed = async {
            self.limits.whole().await;
            time::sleep(limit).await;
        };
        tokio::select! {
            biased;
            output = &mut sending => return Ok(output),
            () = passed => {}
        }
        match self.goes_on {
            None => Err(error),
            Some(goes_on) => {
                goes_on.set(true);
                Ok(sending.await)
            }
        }
    }

    fn version(&self, downstream: HttpVersion) -> Version {
        match self.cluster.config.http.version {
            UpstreamHttpVersion::Http1 => Version::Http1,
            UpstreamHttpVersion::Http2 => Version::Http2,
            UpstreamHttpVersion::Downstream if downstream == HttpVersion::HTTP_2 => Version::Http2,
            UpstreamHttpVersion::Downstream => Version::Http1,
        }
    }
}

/// Source: Envoy `Router::Filter::createConnPool`.
fn is_tunnel(end: TunnelEnd, method: &Method) -> bool {
    *method == Method::CONNECT || (end.takes_posts && *method == Method::POST)
}

/// What a request to this cluster wants of the TLS of its connection.
pub(in crate::http) fn tls_wish(
    cluster: &Cluster,
    alpn: Option<&AlpnOverride>,
    head: &RequestHead,
) -> TlsWish {
    let names = cluster.config.http.tls_names.as_deref();
    TlsWish {
        alpn: alpn.cloned(),
        host: names.and_then(|names| asked_host(names, head)),
        client: None,
        source: None,
        priority: RoutingPriority::Default,
    }
}

/// The authority, or the header that the cluster names, without port and brackets. Source: Envoy `Router::Filter::decodeHeaders`.
fn asked_host(names: &TlsNames, head: &RequestHead) -> Option<Arc<str>> {
    let header = names.header.as_deref().and_then(|name| head.header(name));
    let authority = header
        .filter(|value| !value.is_empty())
        .unwrap_or(head.authority.as_bytes());
    let authority = std::str::from_utf8(authority).ok()?;
    let host = match authority.strip_prefix('[') {
        Some(literal) => literal.split(']').next()?,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    (!host.is_empty()).then(|| host.into())
}

/// Reads the request ahead while `work` runs.
async fn meanwhile<F: Future>(work: F, source: Option<&ReplaySource>) -> F::Output {
    let Some(source) = source else {
        return work.await;
    };
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => done,
        () = source.read_ahead() => work.await,
    }
}

impl AttemptError {
    /// Envoy's `Http::Utility::resetReasonToString`.
    pub(super) fn reset_reason(&self) -> &'static str {
        match self {
            Self::Connect(ConnectError::Timeout { .. }) => "connection timeout",
            Self::Connect(ConnectError::Overflow) | Self::Overflow | Self::BodyLost => "overflow",
            Self::Connect(_) => "remote connection failure",
            Self::Send(SendError::NotSent(_) | SendError::Closed(_)) => "connection termination",
            Self::Send(SendError::Refused(_)) => "remote refused stream reset",
            Self::Send(SendError::Reset(_)) => "remote reset",
            Self::Send(SendError::Protocol(_)) => "protocol error",
            Self::PerTryTimeout | Self::PerTryIdle => "upstream per try timeout",
            Self::Duration => "local reset",
        }
    }

    /// Empty when the transport is not to blame.
    pub(super) fn transport_failure_reason(&self) -> String {
        match self {
            Self::Connect(error) => error.transport_failure_reason(),
            _ => String::new(),
        }
    }

    /// The flag for the access log. Source: Envoy `Filter::streamResetReasonToResponseFlag`.
    pub(super) fn flag(&self) -> ResponseFlag {
        match self {
            Self::Connect(ConnectError::Overflow) | Self::Overflow | Self::BodyLost => {
                ResponseFlag::UpstreamOverflow
            }
            Self::Connect(ConnectError::NoPool) => ResponseFlag::NoHealthyUpstream,
            Self::Connect(_) => ResponseFlag::UpstreamConnectionFailure,
            Self::Send(SendError::NotSent(_) | SendError::Closed(_)) => {
                ResponseFlag::UpstreamConnectionTermination
            }
            Self::Send(SendError::Refused(_) | SendError::Reset(_)) => ResponseFlag::UpstreamRemoteReset,
            Self::Send(SendError::Protocol(_)) => ResponseFlag::UpstreamProtocolError,
            Self::PerTryTimeout | Self::PerTryIdle => ResponseFlag::UpstreamRequestTimeout,
            Self::Duration => ResponseFlag::UpstreamMaxStreamDurationReached,
        }
    }
}
