//! Copies of requests that go to another cluster. Nobody sees their responses, and whatever becomes of them changes nothing.
//!
//! As in Envoy a copy goes when the request is whole, and not at all when its body is larger than the cluster's buffer.
//! Source: route_components.proto `RequestMirrorPolicy`; Envoy `FilterUtility::shouldShadow`, `ShadowWriterImpl`, `AsyncStreamImpl`.
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use outrigger_model::cluster::UpstreamHttpVersion;
use outrigger_model::fraction::Fraction;
use outrigger_model::route::MirrorPolicy;

use super::Guards;
use super::attempt::tls_wish;
use crate::codec::body::{BodyError, BodyObserver};
use crate::codec::{Body, RequestHead};
use crate::http::filter::draws;
use crate::http::route_table::{ClusterRef, Forward};
use crate::http::stream::Stream;
use crate::net::local_address::local_address;
use crate::time;
use crate::upstream::circuit_breaker::Resource;
use crate::upstream::cluster::Cluster;
use crate::upstream::cluster_table::ClusterTable;
use crate::upstream::lb::Wish;
use crate::upstream::pool::{self, Version};
use crate::worker;

const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// One receiver of copies.
#[derive(Debug)]
pub(in crate::http) struct Mirror {
    cluster: ClusterRef,
    share: Fraction,
    keeps_host: bool,
    host: Option<HeaderValue>,
}

impl Mirror {
    pub(in crate::http) fn new(config: &MirrorPolicy, clusters: &Arc<ClusterTable>) -> Self {
        Self {
            cluster: ClusterRef::new(&config.cluster, &config.cluster_header, clusters),
            share: config.share,
            keeps_host: config.keeps_host,
            host: Some(config.host.as_str())
                .filter(|host| !host.is_empty())
                .and_then(|host| HeaderValue::from_str(host).ok()),
        }
    }

    /// The head of the copy, and who gets it; `None`: this request is not copied.
    fn copy(&self, head: &RequestHead, random: &mut fastrand::Rng) -> Option<Copy> {
        if !draws(self.share, random) {
            return None;
        }
        let (_, cluster) = self.cluster.find(head)?;
        let cluster = cluster?;
        let mut head = head.clone();
        if let Some(host) = &self.host {
            head.authority = host.clone();
        } else if !self.keeps_host {
            head.authority = shadow_host(&head.authority)?;
        }
        // As Envoy: it is a request of this proxy.
        head.headers.insert(INTERNAL, HeaderValue::from_static("true"));
        let hop = local_address().to_string();
        let hops = match head.headers.get(FORWARDED_FOR) {
            Some(before) => HeaderValue::from_bytes(&[before.as_bytes(), b",", hop.as_bytes()].concat()),
            None => HeaderValue::from_str(&hop),
        };
        head.headers.insert(FORWARDED_FOR, hops.ok()?);
        Some(Copy { head, cluster })
    }
}

/// `name:port` becomes `name-shadow:port`.
fn shadow_host(host: &HeaderValue) -> Option<HeaderValue> {
    let text = host.to_str().ok()?;
    let shadow = match text.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{name}-shadow:{port}")
        }
        _ => format!("{text}-shadow"),
    };
    HeaderValue::from_str(&shadow).ok()
}

/// A request to be sent beside the one that it is a copy of.
#[derive(Debug)]
struct Copy {
    head: RequestHead,
    cluster: Arc<Cluster>,
}

impl Copy {
    async fn send(self, body: Body, timeout: Option<Duration>) {
        let cluster = self.cluster.clone();
        if time::within(timeout, self.exchange(body)).await.is_err() {
            cluster.stats.upstream_rq_timeout.inc();
        }
    }

    async fn exchange(self, body: Body) {
        let Self { head, cluster } = self;
        let mut random = fastrand::Rng::new();
        let Some(host) = cluster.choose(&Wish::default(), &mut random) else {
            cluster.stats.upstream_cx_none_healthy.inc();
            return;
        };
        let limits = &cluster.config.circuit_breaker;
        let permits = [Resource::Requests, Resource::PendingRequests]
            .map(|resource| cluster.breaker.acquire(resource, limits));
        let [Some(request), Some(pending)] = permits else {
            cluster.stats.upstream_rq_pending_overflow.inc();
            return;
        };
        let _guards = (Guards::new(&cluster, &host), request);
        let version = match (cluster.config.http.version, head.version) {
            (UpstreamHttpVersion::Http2, _) | (UpstreamHttpVersion::Downstream, http::Version::HTTP_2) => {
                Version::Http2
            }
            (UpstreamHttpVersion::Http1 | UpstreamHttpVersion::Downstream, _) => Version::Http1,
        };
        cluster.stats.upstream_rq_pending_total.inc();
        let tls = tls_wish(&cluster, None, &head);
        let lease = match pool::acquire(&cluster, &host, &tls, version).await {
            Ok(lease) => lease,
            Err(error) => return tracing::debug!(cluster = %cluster.name, %error, "no connection for a copy"),
        };
        drop(pending);
        match lease.send(head, body, None).await {
            Ok(mut response) => {
                cluster.stats.response(response.head.status);
                while let Some(Ok(_)) = response.body.frame().await {}
            }
            Err(error) => tracing::debug!(cluster = %cluster.name, %error, "no response to a copy"),
        }
    }
}

/// Sends copies of a request whose body is still to come, or is none: returns it as it has to be read.
pub(super) fn copies(stream: &Rc<Stream>, forward: &Forward, cluster: &Cluster, body: Body) -> Body {
    if forward.mirrors.is_empty() {
        return body;
    }
    let mut random = stream.random.borrow_mut();
    let copies = forward
        .mirrors
        .iter()
        .filter_map(|mirror| mirror.copy(stream.request(), &mut random));
    let copies: Vec<Copy> = copies.collect();
    let timeout = forward.config.timeout;
    if copies.is_empty() {
        return body;
    }
    if body.is_empty() {
        for copy in copies {
            worker::spawn(copy.send(Body::empty(), timeout));
        }
        return body;
    }
    body.observe(Rc::new(Collector {
        copies: RefCell::new(copies),
        timeout,
        bytes: RefCell::default(),
        left: Cell::new(usize::try_from(cluster.config.buffer_limit_bytes).unwrap_or(usize::MAX)),
    }))
}

/// Keeps a body for copies until it is whole.
#[derive(Debug)]
struct Collector {
    /// Empty when they have gone, or are given up.
    copies: RefCell<Vec<Copy>>,
    timeout: Option<Duration>,
    bytes: RefCell<BytesMut>,
    left: Cell<usize>,
}

impl Collector {
    fn give_up(&self) {
        self.copies.borrow_mut().clear();
        self.bytes.borrow_mut().clear();
    }
}

impl BodyObserver for Collector {
    fn data(&self, data: &Bytes) {
        match self.left.get().checked_sub(data.len()) {
            None => self.give_up(),
            Some(left) => {
                self.left.set(left);
                if !self.copies.borrow().is_empty() {
                    self.bytes.borrow_mut().extend_from_slice(data);
                }
            }
        }
    }

    fn end(&self) {
        let bytes = self.bytes.borrow_mut().split().freeze();
        for copy in self.copies.borrow_mut().drain(..) {
            worker::spawn(copy.send(Body::full(bytes.clone()), self.timeout));
        }
    }

    fn error(&self, _error: &BodyError) {
        self.give_up();
    }

    fn abandoned(&self) {
        self.give_up();
    }
}
