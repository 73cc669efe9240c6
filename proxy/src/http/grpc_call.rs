//! One question to a gRPC service over a cluster of this proxy, and its answer.
//!
//! Knows bytes of messages, and nothing of what they say. A call is a request like any other of its cluster: it has the cluster's
//! connections, limits and counters. Nothing is tried twice. Source: Envoy `Grpc::AsyncRequestImpl`; gRPC over HTTP/2.
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use outrigger_model::cluster::RoutingPriority;
use outrigger_model::service::GrpcMethod;
use tokio::sync::oneshot;

use super::edge::X_FORWARDED_FOR;
use super::extras::INTERNAL;
use super::router::{EXPECTED_TIMEOUT, Guards, tls_wish};
use crate::codec::body::BodyError;
use crate::codec::{Body, RequestHead, SendError};
use crate::net::local_address::local_address;
use crate::telemetry::grpc::{GRPC_STATUS, GRPC_TIMEOUT, timeout_value};
use crate::time;
use crate::upstream::circuit_breaker::Resource;
use crate::upstream::cluster::Cluster;
use crate::upstream::cluster_table::{ClusterCell, ClusterTable};
use crate::upstream::connect::{ConnectError, TlsWish};
use crate::upstream::endpoint::Host;
use crate::upstream::lb::Wish;
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::{self, Lease, Version as PoolVersion};
use crate::worker;

/// Of an answer; a longer one is none.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// In front of each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A method of a service.
#[derive(Debug)]
pub(crate) struct GrpcCall {
    cluster: Arc<ClusterCell>,
    path: PathAndQuery,
    authority: Option<HeaderValue>,
    headers: HeaderMap,
    tells_envoy: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It has not come, or is gone.
    #[error("there is no cluster of the service's name; check its cluster_name")]
    NoCluster,
    /// All are down, or there is none.
    #[error("the service's cluster has no healthy host")]
    NoHost,
    /// The cluster's limits.
    #[error("the circuit breaker of the service's cluster is open")]
    Overflow,
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The question went wrong on a connection.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The answer did.
    #[error(transparent)]
    Answer(#[from] BodyError),
    /// It took too long.
    #[error("the service gave no answer in time")]
    TimedOut,
    /// Not 200.
    #[error("the service answered with the http status {0}")]
    Http(StatusCode),
    /// Not 0.
    #[error("the service answered with the grpc status {0:?}")]
    Grpc(HeaderValue),
    /// Not one whole message and a status.
    #[error("the service's answer is not one message and a status")]
    Malformed,
}

impl GrpcCall {
    /// For this path, `/package.Service/Method`. What is no header is left out: the model has refused such.
    pub(crate) fn new(config: &GrpcMethod, path: &'static str, clusters: &ClusterTable) -> Self {
        let headers = config.call_metadata.iter().filter_map(|(name, value)| {
            let name = HeaderName::try_from(name.as_str()).ok()?;
            Some((name, HeaderValue::from_str(value).ok()?))
        });
        let authority = Some(config.call_authority.as_str()).filter(|text| !text.is_empty());
        Self {
            cluster: clusters.cell(&config.asked_cluster),
            path: PathAndQuery::from_static(path),
            authority: authority.and_then(|text| HeaderValue::from_str(text).ok()),
            headers: headers.collect(),
            tells_envoy: config.tells_envoy,
        }
    }

    /// Asks, and waits for the message that answers; `None`: for as long as it takes.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn ask(&self, message: &[u8], limit: Option<Duration>) -> Result<Bytes, CallError> {
        let cluster = self.cluster.load().ok_or(CallError::NoCluster)?;
        let Some(host) = cluster.choose(&Wish::default(), &mut fastrand::Rng::new()) else {
            cluster.stats.upstream_cx_none_healthy.inc();
            cluster.stats.response(StatusCode::SERVICE_UNAVAILABLE);
            return Err(CallError::NoHost);
        };
        let head = self.head(&cluster, limit);
        let body = framed(message);
        match time::within(limit, exchange(&cluster, &host, head, body)).await {
            Ok(answer) => answer,
            Err(time::Elapsed) => {
                cluster.stats.upstream_rq_timeout.inc();
                cluster.stats.response(StatusCode::GATEWAY_TIMEOUT);
                host.counters.rq_timeout.fetch_add(1, Ordering::Relaxed);
                cluster.outcome(&host, Outcome::TimedOut);
                Err(CallError::TimedOut)
            }
        }
    }

    fn head(&self, cluster: &Cluster, limit: Option<Duration>) -> RequestHead {
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if let Some(limit) = limit {
            headers.insert(GRPC_TIMEOUT, timeout_value(limit));
            let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(millis));
        }
        if self.tells_envoy {
            headers.insert(INTERNAL, HeaderValue::from_static("true"));
            if let Ok(hop) = HeaderValue::try_from(local_address().to_string()) {
                headers.insert(X_FORWARDED_FOR, hop);
            }
        }
        let usual = || HeaderValue::from_str(&cluster.name).ok();
        RequestHead {
            method: Method::POST,
            path: self.path.clone(),
            authority: self
                .authority
                .clone()
                .or_else(usual)
                .unwrap_or_else(|| HeaderValue::from_static("")),
            scheme: "http",
            version: Version::HTTP_2,
            headers,
            is_upgrade: false,
        }
    }
}

async fn exchange(
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    head: RequestHead,
    body: Bytes,
) -> Result<Bytes, CallError> {
    let guards = Guards::new(cluster, host);
    let tls = tls_wish(cluster, None, &head);
    let failed = |outcome| {
        cluster.outcome(host, outcome);
        cluster.stats.response(StatusCode::SERVICE_UNAVAILABLE);
        host.counters.rq_error.fetch_add(1, Ordering::Relaxed);
    };
    // gRPC is HTTP/2, whatever the cluster usually speaks.
    let lease = connection(cluster, host, tls)
        .await
        .inspect_err(|error| match error {
            // The host has no part in it.
            ConnectError::Overflow | ConnectError::NoPool => {
                cluster.stats.response(StatusCode::SERVICE_UNAVAILABLE);
            }
            _ => failed(Outcome::ConnectFailed),
        })?;
    let Some(_permit) = cluster.permit(RoutingPriority::Default, Resource::Requests) else {
        cluster.stats.upstream_rq_active_overflow.inc();
        cluster.stats.response(StatusCode::SERVICE_UNAVAILABLE);
        lease.give_back();
        return Err(CallError::Overflow);
    };
    cluster.stats.upstream_rq_total.inc();
    host.counters.rq_total.fetch_add(1, Ordering::Relaxed);
    cluster.outcome(host, Outcome::Connected);
    let mut response = lease.send(head, Body::full(body), None).await.inspect_err(|_| {
        cluster.stats.upstream_rq_rx_reset.inc();
        failed(Outcome::ConnectFailed);
    })?;
    let status = response.head.status;
    cluster.outcome(host, Outcome::Status(status.as_u16()));
    cluster.stats.response(status);
    host.counters.rq_success.fetch_add(1, Ordering::Relaxed);
    if status != StatusCode::OK {
        return Err(CallError::Http(status));
    }
    let answer = read(&mut response.body, response.head.headers).await;
    drop(guards);
    answer
}

/// A connection. One that takes longer than this question may is there for the next: connecting, like its own limit, is not the
/// question's. Source: Envoy `ConnPoolImplBase`, whose connections outlive the streams that asked for them.
async fn connection(cluster: &Arc<Cluster>, host: &Arc<Host>, tls: TlsWish) -> Result<Lease, ConnectError> {
    let (tell, told) = oneshot::channel();
    let (cluster, host) = (cluster.clone(), host.clone());
    worker::spawn(async move {
        let lease = pool::acquire(&cluster, &host, &tls, PoolVersion::Http2).await;
        if let Err(Ok(lease)) = tell.send(lease) {
            lease.give_back();
        }
    });
    told.await.unwrap_or(Err(ConnectError::NoPool))
}

/// The one message of a body whose status, in trailers or else in the head, is 0.
async fn read(body: &mut Body, head: HeaderMap) -> Result<Bytes, CallError> {
    let (mut data, mut trailers) = (BytesMut::new(), head);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(bytes) if data.len() + bytes.len() <= MAX_ANSWER_BYTES + PREFIX_BYTES => {
                data.extend_from_slice(&bytes);
            }
            Ok(_) => return Err(CallError::Malformed),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    match trailers.get(GRPC_STATUS) {
        Some(status) if status == "0" => message(data.freeze()),
        Some(status) => Err(CallError::Grpc(status.clone())),
        None => Err(CallError::Malformed),
    }
}

/// The first message, whole and not compressed.
fn message(mut data: Bytes) -> Result<Bytes, CallError> {
    let Some((&[0, length @ ..], rest)) = data.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(CallError::Malformed);
    };
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if rest.len() < length {
        return Err(CallError::Malformed);
    }
    data.advance(PREFIX_BYTES);
    data.truncate(length);
    Ok(data)
}

/// A message with what stands in front of it.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_message_that_is_not_compressed_is_an_answer() {
        let check = |data: &'static [u8], expected: Option<&'static [u8]>| {
            assert_eq!(
                message(Bytes::from_static(data)).ok().as_deref(),
                expected,
                "{data:?}"
            );
        };
        check(b"", None);
        check(b"\0\0\0\0", None);
        check(b"\0\0\0\0\0", Some(b""));
        check(b"\0\0\0\0\x02ab", Some(b"ab"));
        check(b"\0\0\0\0\x02abcd", Some(b"ab"));
        check(b"\0\0\0\0\x03ab", None);
        check(b"\x01\0\0\0\x02ab", None);
        check(b"\0\xff\xff\xff\xffab", None);
        let framed = framed(b"ab");
        assert_eq!(message(framed).expect("a message"), "ab");
    }
}
