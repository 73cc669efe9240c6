//! HTTP filters: called in order with the request head, in reverse with the response head.
//!
//! A filter is a file and a line in [`build`]. `grpc_stats` and `istio.stats` count, which is the stream's (`stream::metrics`): what does
//! nothing with heads is not in the chain. What routes say about filters is in [`Settings`]; a filter may be off for a route, and one that
//! starts disabled is on where a route has settings for it. Source: Envoy `FilterManager`, `Http::Utility::resolveMostSpecificPerFilterConfig`.
mod alpn;
mod buffer;
mod compressor;
mod cors;
mod csrf;
mod descriptors;
mod fault;
mod global_ratelimit;
mod header_mutation;
mod health_check;
pub(crate) mod local_ratelimit;
mod missing;
mod peer_metadata;
mod settings;
mod stateful_session;

use std::fmt::Debug;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use outrigger_model::fraction::Fraction;
use outrigger_model::http_filter::{HttpFilter, PlacedFilter};
use smallvec::SmallVec;

pub(super) use self::descriptors::RouteLimits;
pub(super) use self::fault::ActiveFault;
pub(super) use self::local_ratelimit::ConnectionLimits;
use self::settings::RouteConfig;
pub(super) use self::settings::{Level, Settings};
pub(super) use self::stateful_session::SessionHost;
use super::header_changes;
use super::local_reply::LocalReply;
use super::route_table::Route;
use super::stream::Stream;
use crate::codec::{Body, RequestHead, ResponseHead};
use crate::stats::{Counter, Gauge, Registry};
use crate::telemetry::peer::{LocalPeers, Peer};
use crate::upstream::cluster::Cluster;
use crate::upstream::cluster_table::ClusterTable;
use crate::upstream::connect::AlpnOverride;

/// What a filter does. All of it is optional.
trait Filter: Debug + Send + Sync {
    /// The request on its way up.
    fn decode(&self, request: &mut Decoding<'_>) -> Decode;
    /// The response on its way down.
    fn encode(&self, _response: &mut Encoding<'_>) {}
}

/// What becomes of a request after a filter saw it.
pub(super) enum Decode {
    /// The next filter's turn.
    Continue,
    /// This is the answer.
    Reply(Box<LocalReply>),
    /// It is not known yet.
    Wait(Wait),
}

/// How a wait ends.
pub(super) type Wait = Pin<Box<dyn Future<Output = Resume>>>;

/// What becomes of a request after a wait.
pub(super) enum Resume {
    /// The next filter's turn.
    Continue,
    /// The same, with one more header.
    With(HeaderName, HeaderValue),
    /// This is the answer.
    Reply(Box<LocalReply>),
    /// A service said what becomes of it.
    Answered(Box<Answered>),
}

/// What a service that was asked says of a request.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// Headers that the request gets besides, if it goes on.
    request: Vec<(HeaderName, HeaderValue)>,
    /// For the filter that asked, when the response comes.
    response: Told,
    /// `None`: it goes on.
    reply: Option<LocalReply>,
}

/// What the response gets for what a service said.
#[derive(Debug, Default)]
struct Told {
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The response is the refusal.
    is_refusal: bool,
}

/// A request on its way up.
pub(super) struct Decoding<'a> {
    pub(super) stream: &'a Rc<Stream>,
    pub(super) head: &'a mut RequestHead,
    pub(super) state: &'a mut FilterState,
    /// `None`: there is none for it, and it will be refused.
    pub(super) route: Option<&'a Route>,
    /// It goes to a cluster, as far as the route knows.
    pub(super) is_forwarded: bool,
    /// Name of the cluster.
    pub(super) cluster_name: Option<&'a str>,
    /// The cluster, if there is one of this name.
    pub(super) cluster: Option<&'a Arc<Cluster>>,
    pub(super) settings: &'a Settings,
    /// The route's settings for this filter.
    config: Option<&'a RouteConfig>,
    /// Of the filter in the chain.
    place: usize,
}

/// A response on its way down.
struct Encoding<'a> {
    stream: &'a Rc<Stream>,
    head: &'a mut ResponseHead,
    body: &'a mut Body,
    state: &'a mut FilterState,
    /// The route's settings for this filter.
    config: Option<&'a RouteConfig>,
    place: usize,
}

impl<'a> Decoding<'a> {
    /// For a request that has no route so far.
    pub(super) fn new(
        stream: &'a Rc<Stream>,
        head: &'a mut RequestHead,
        state: &'a mut FilterState,
        settings: &'a Settings,
    ) -> Self {
        Self {
            stream,
            head,
            state,
            route: None,
            is_forwarded: false,
            cluster_name: None,
            cluster: None,
            settings,
            config: None,
            place: 0,
        }
    }

    /// Whether this request is one of a share of them.
    fn draws(&self, share: Fraction) -> bool {
        draws(share, &mut self.stream.random.borrow_mut())
    }
}

/// True for this share of calls.
pub(super) fn draws(share: Fraction, random: &mut fastrand::Rng) -> bool {
    share == Fraction::ALL || (share != Fraction::NONE && random.u32(0..Fraction::ALL.0) < share.0)
}

/// What filters of one stream tell each other, the router, and themselves when the response comes.
#[derive(Debug, Default)]
pub(crate) struct FilterState {
    /// Replaces the ALPN protocols of the upstream TLS context.
    pub(crate) alpn: Option<AlpnOverride>,
    /// The client sent peer metadata, so the response carries ours.
    answer_peer: bool,
    /// Who the client is.
    pub(crate) downstream_peer: Option<Arc<Peer>>,
    /// Who the server is.
    pub(crate) upstream_peer: Option<Arc<Peer>>,
    /// What a page of another origin is told.
    cors: Option<cors::Answer>,
    /// By place in the chain.
    limits: SmallVec<[(usize, local_ratelimit::Judgement); 1]>,
    /// By place in the chain; mostly none.
    told: Vec<(usize, Told)>,
    /// By place in the chain; mostly none.
    sessions: Vec<(usize, stateful_session::ActiveSession)>,
    /// `accept-encoding` by place in the chain, where somebody compresses.
    accepted_encodings: Vec<(usize, Box<str>)>,
    /// The host of its session.
    pub(super) session_host: Option<SessionHost>,
    /// Who saw a health check; a bit for each place in the chain.
    health_checks: u64,
    /// Who answered one from memory; likewise.
    health_remembered: u64,
    /// How fast the response's body may be.
    pub(super) response_bytes_per_second: Option<u64>,
}

/// The filters of a connection manager before the router.
#[derive(Debug)]
pub(crate) struct FilterChain {
    placed: Box<[Placed]>,
    /// What the bootstrap calls this proxy's cluster.
    service_cluster: Box<str>,
    /// One of them looks at bodies of requests.
    pub(super) reads_bodies: bool,
}

#[derive(Debug)]
struct Placed {
    name: Box<str>,
    starts_disabled: bool,
    /// Of the list of the connection manager.
    index: usize,
    /// Lists that follow one another share what stays the same.
    filter: Arc<dyn Filter>,
}

/// What filters are made from besides their configuration.
pub(super) struct Scope<'a> {
    pub(super) registry: &'a Registry,
    /// `http.<stat_prefix>.`.
    pub(super) prefix: String,
    pub(super) local_peers: &'a LocalPeers,
    pub(super) clusters: &'a Arc<ClusterTable>,
}

impl Scope<'_> {
    fn counter(&self, name: &str) -> Counter {
        self.registry.counter(format!("{}{name}", self.prefix))
    }

    fn gauge(&self, name: &str) -> Gauge {
        self.registry.gauge(format!("{}{name}", self.prefix))
    }
}

/// Filters, and the list that they were made from.
pub(super) struct Earlier<'a> {
    pub(super) configs: &'a [PlacedFilter],
    pub(super) chain: &'a FilterChain,
}

impl Earlier<'_> {
    /// The filter at this place, if it was the same: it keeps its tokens, and requests that it counts.
    fn same(&self, index: usize, config: &PlacedFilter) -> Option<Arc<dyn Filter>> {
        self.configs.get(index).filter(|earlier| *earlier == config)?;
        let placed = self.chain.placed.iter().find(|placed| placed.index == index)?;
        Some(placed.filter.clone())
    }
}

/// The filter of a configuration; `None`: it does nothing with heads.
fn build(config: &HttpFilter, scope: &Scope<'_>) -> Result<Option<Arc<dyn Filter>>, regex::Error> {
    Ok(Some(match config {
        HttpFilter::PeerMetadata(config) => {
            Arc::new(peer_metadata::PeerMetadataFilter::new(config, scope.local_peers))
        }
        HttpFilter::Alpn(config) => Arc::new(alpn::AlpnFilter::new(config)),
        HttpFilter::Fault(config) => Arc::new(fault::FaultFilter::new(config, scope)?),
        HttpFilter::HealthCheck(config) => Arc::new(health_check::HealthCheckFilter::new(config, scope)?),
        HttpFilter::Buffer(config) => Arc::new(buffer::BufferFilter::new(config)),
        HttpFilter::Compressor(config) => Arc::new(compressor::CompressorFilter::new(config, scope)?),
        HttpFilter::Decompressor(config) => Arc::new(compressor::DecompressorFilter::new(config, scope)),
        HttpFilter::Csrf(config) => Arc::new(csrf::CsrfFilter::new(config, scope)?),
        HttpFilter::HeaderMutation(config) => Arc::new(header_mutation::HeaderMutationFilter::new(config)?),
        HttpFilter::Cors(_) => Arc::new(cors::Cors::new(scope)),
        HttpFilter::LocalRateLimit(config) => Arc::new(local_ratelimit::LocalRateLimitFilter::new(
            config,
            scope.registry,
        )?),
        HttpFilter::GlobalRateLimit(config) => {
            Arc::new(global_ratelimit::GlobalRateLimitFilter::new(config, scope)?)
        }
        HttpFilter::Discovered(_) => Arc::new(missing::MissingFilter),
        HttpFilter::StatefulSession(config) => {
            Arc::new(stateful_session::StatefulSessionFilter::new(config, scope))
        }
        HttpFilter::GrpcStats(_) | HttpFilter::GrpcWeb | HttpFilter::IstioStats(_) => return Ok(None),
    }))
}

impl FilterChain {
    /// Builds the chain; what an earlier one has too is taken over.
    ///
    /// # Errors
    /// A regular expression does not compile (the model refuses such before).
    pub(super) fn new(
        configs: &[PlacedFilter],
        scope: &Scope<'_>,
        earlier: Option<&Earlier<'_>>,
    ) -> Result<Self, regex::Error> {
        let mut chain = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            let same = earlier.and_then(|earlier| earlier.same(index, config));
            let filter = match same {
                Some(filter) => Some(filter),
                None => build(&config.filter, scope)?,
            };
            if let Some(filter) = filter {
                chain.push(Placed {
                    name: config.filter_name.as_str().into(),
                    starts_disabled: config.starts_disabled,
                    index,
                    filter,
                });
            }
        }
        Ok(Self {
            placed: chain.into(),
            service_cluster: scope.local_peers.cluster().into(),
            reads_bodies: configs.iter().any(|config| {
                use HttpFilter::{Buffer, Compressor, Decompressor, HeaderMutation, HealthCheck};
                matches!(
                    config.filter,
                    Buffer(_) | HealthCheck(_) | HeaderMutation(_) | Compressor(_) | Decompressor(_)
                )
            }),
        })
    }

    /// The filters that are on for a request, with the route's settings for each.
    fn active<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> impl DoubleEndedIterator<Item = (usize, &'a dyn Filter, Option<&'a RouteConfig>)> {
        self.placed.iter().enumerate().filter_map(|(place, placed)| {
            let (is_disabled, config) = match settings.of(&placed.name) {
                None => (placed.starts_disabled, None),
                Some(found) => (found.is_disabled, found.config),
            };
            (!is_disabled).then_some((place, &*placed.filter, config))
        })
    }

    /// The request passes them. Waits that have no end of their own end with the stream's limits.
    ///
    /// # Errors
    /// What one of them answers instead.
    pub(super) async fn decode<'a>(&'a self, request: &mut Decoding<'a>) -> Result<(), LocalReply> {
        for (place, filter, config) in self.active(request.settings) {
            (request.place, request.config) = (place, config);
            match filter.decode(request) {
                Decode::Continue => {}
                Decode::Reply(reply) => return Err(*reply),
                Decode::Wait(wait) => match request.stream.limits.within(wait).await {
                    Ok(Resume::Continue) => request.stream.limits.waited(),
                    Ok(Resume::With(name, value)) => {
                        request.head.headers.insert(name, value);
                        request.stream.limits.waited();
                    }
                    Ok(Resume::Reply(reply)) => return Err(*reply),
                    Ok(Resume::Answered(answered)) => {
                        let Answered {
                            request: headers,
                            response,
                            reply,
                        } = *answered;
                        request.state.told.push((place, response));
                        if let Some(reply) = reply {
                            return Err(reply);
                        }
                        for (name, value) in headers {
                            header_changes::append(&mut request.head.headers, &name, value);
                        }
                        request.stream.limits.waited();
                    }
                    Err(limit) => return Err(request.stream.limit_reached(limit)),
                },
            }
        }
        Ok(())
    }

    /// The response passes them, the last first.
    pub(super) fn encode(
        &self,
        stream: &Rc<Stream>,
        (head, body): (&mut ResponseHead, &mut Body),
        state: &mut FilterState,
        settings: &Settings,
    ) {
        for (place, filter, config) in self.active(settings).rev() {
            filter.encode(&mut Encoding {
                stream,
                head,
                body,
                state,
                config,
                place,
            });
        }
    }
}
