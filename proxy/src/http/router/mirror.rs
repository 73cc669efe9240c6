//! Copies of requests that go to another cluster. Nobody sees their responses, and whatever becomes of them changes nothing.
//!
//! As in Envoy a copy goes while the request comes. A copy that is taken slower than the request is given up, where Envoy would slow down
//! the client.
//! Source: route_components.proto `RequestMirrorPolicy`; Envoy `FilterUtility::shouldShadow`, `ShadowWriterImpl`, `AsyncStreamImpl`.
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use outrigger_model::cluster::{RoutingPriority, UpstreamHttpVersion};
use outrigger_model::fraction::Fraction;
use outrigger_model::route::MirrorPolicy;

use super::{EXPECTED_TIMEOUT, Guards, tls_wish};
use crate::codec::body::{BodyError, BodyObserver, CopyWriter, Ending};
use crate::codec::{Body, RequestHead};
use crate::http::cluster_policies;
use crate::http::edge::X_FORWARDED_FOR;
use crate::http::extras::INTERNAL;
use crate::http::filter::draws;
use crate::http::header_changes::{self, Step};
use crate::http::route_table::{ClusterRef, Forward};
use crate::http::stream::Stream;
use crate::net::local_address::local_address;
use crate::telemetry::stream_info::StreamInfo;
use crate::time;
use crate::upstream::circuit_breaker::Resource;
use crate::upstream::cluster::Cluster;
use crate::upstream::cluster_table::ClusterTable;
use crate::upstream::lb::Wish;
use crate::upstream::pool::{self, Version};
use crate::worker;

/// One receiver of copies.
#[derive(Debug)]
pub(in crate::http) struct Mirror {
    cluster: ClusterRef,
    share: Fraction,
    keeps_host: bool,
    host: Option<HeaderValue>,
    steps: Box<[Step]>,
}

impl Mirror {
    /// # Errors
    /// A regular expression does not compile.
    pub(in crate::http) fn new(
        config: &MirrorPolicy,
        clusters: &Arc<ClusterTable>,
    ) -> Result<Self, regex::Error> {
        Ok(Self {
            cluster: ClusterRef::new(&config.cluster, &config.cluster_header, clusters),
            share: config.share,
            keeps_host: config.keeps_host,
            host: Some(config.host.as_str())
                .filter(|host| !host.is_empty())
                .and_then(|host| HeaderValue::from_str(host).ok()),
            steps: header_changes::steps(&config.header_steps)?,
        })
    }

    /// The head of the copy, and who gets it; `None`: this request is not copied.
    fn copy(&self, head: &RequestHead, info: &StreamInfo, random: &mut fastrand::Rng) -> Option<Copy> {
        if !draws(self.share, random) {
            return None;
        }
        let (_, cluster) = self.cluster.find(head)?;
        let cluster = cluster?;
        let mut head = head.clone();
        let expected = head.headers.get(EXPECTED_TIMEOUT).cloned();
        header_changes::change_request(&self.steps, &mut head, info);
        // What its own route makes cannot be taken out.
        if let Some(expected) = expected {
            head.headers.insert(EXPECTED_TIMEOUT, expected);
        }
        if let Some(host) = &self.host {
            head.authority = host.clone();
        } else if !self.keeps_host {
            head.authority = shadow_host(&head.authority)?;
        }
        // As Envoy: it is a request of this proxy.
        head.headers.insert(INTERNAL, HeaderValue::from_static("true"));
        let hop = local_address().to_string();
        let hops = match head.headers.get(X_FORWARDED_FOR) {
            Some(before) => HeaderValue::from_bytes(&[before.as_bytes(), b",", hop.as_bytes()].concat()),
            None => HeaderValue::from_str(&hop),
        };
        head.headers.insert(X_FORWARDED_FOR, hops.ok()?);
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

/// Who gets copies, copies of copies too.
struct Receivers<'a> {
    clusters: &'a Arc<ClusterTable>,
    info: &'a StreamInfo,
    random: &'a mut fastrand::Rng,
    copies: Vec<Copy>,
}

/// Envoy knows no end: two clusters that copy to one another are never done with a request.
const LAST_GENERATION: u32 = 4;

impl Receivers<'_> {
    /// Adds the copies of a request with `head` that `mirrors` want, and those that the clusters of these want of them.
    fn add(&mut self, mirrors: &[Mirror], head: &RequestHead, generation: u32) {
        for mirror in mirrors {
            let Some(copy) = mirror.copy(head, self.info, self.random) else {
                continue;
            };
            if generation < LAST_GENERATION {
                let own = cluster_policies::own_mirrors(&copy.cluster, self.clusters);
                self.add(own, &copy.head, generation + 1);
            }
            self.copies.push(copy);
        }
    }
}

/// A request to be sent beside the one that it is a copy of.
#[derive(Debug)]
struct Copy {
    head: RequestHead,
    cluster: Arc<Cluster>,
}

impl Copy {
    /// The timeout begins with the end of the request; a copy that fails before is given up, also by a server that takes nothing.
    async fn send(self, body: Body, timeout: Option<Duration>, ending: Rc<Ending>) {
        let cluster = self.cluster.clone();
        let given_up = async {
            if !ending.wait().await {
                return;
            }
            match timeout {
                None => std::future::pending().await,
                Some(timeout) => time::sleep(timeout).await,
            }
            cluster.stats.upstream_rq_timeout.inc();
        };
        tokio::select! {
            biased;
            () = self.exchange(body) => {}
            () = given_up => {}
        }
    }

    async fn exchange(self, body: Body) {
        let Self { head, cluster } = self;
        let mut random = fastrand::Rng::new();
        let Some(host) = cluster.choose(&Wish::default(), &mut random) else {
            cluster.stats.upstream_cx_none_healthy.inc();
            return;
        };
        // As Envoy, whatever the priority of the route.
        let permits = [Resource::Requests, Resource::PendingRequests]
            .map(|resource| cluster.permit(RoutingPriority::Default, resource));
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

/// Bytes of a copy that may wait for its server.
const MOST_WAITING_BYTES: usize = 1024 * 1024;

/// Sends copies of a request whose body is still to come, or is none: returns it as it has to be read.
pub(super) fn copies(stream: &Rc<Stream>, forward: &Forward, cluster: &Cluster, body: Body) -> Body {
    let mirrors = cluster_policies::mirrors(forward, cluster);
    if mirrors.is_empty() {
        return body;
    }
    let mut receivers = Receivers {
        clusters: &forward.clusters,
        info: &stream.info.borrow(),
        random: &mut stream.random.borrow_mut(),
        copies: Vec::new(),
    };
    receivers.add(mirrors, stream.request(), 1);
    let copies = receivers.copies;
    let timeout = forward.config.timeout;
    if copies.is_empty() {
        return body;
    }
    if body.is_empty() {
        for copy in copies {
            worker::spawn(copy.send(Body::empty(), timeout, Ending::of_nothing()));
        }
        return body;
    }
    let writers = copies.into_iter().map(|copy| {
        let (body, writer) = Body::copied(MOST_WAITING_BYTES);
        worker::spawn(copy.send(body, timeout, writer.ending()));
        writer
    });
    body.observe(Rc::new(Copier(writers.collect())))
}

/// Hands a body on to copies.
#[derive(Debug)]
struct Copier(Vec<CopyWriter>);

impl BodyObserver for Copier {
    fn data(&self, data: &Bytes) {
        self.0.iter().for_each(|copy| copy.data(data));
    }

    fn trailers(&self, trailers: &HeaderMap) {
        self.0.iter().for_each(|copy| copy.trailers(trailers));
    }

    fn end(&self) {
        self.0.iter().for_each(CopyWriter::end);
    }

    // Copies fail when this is dropped.
    fn error(&self, _error: &BodyError) {}

    fn abandoned(&self) {}
}
