//! HTTP filters, one file each. Filters are positional: names repeat under Istio.
pub mod alpn;
pub mod buffer;
pub mod compressor;
pub mod cors;
pub mod csrf;
pub mod discovered;
pub mod ext_authz;
pub mod fault;
pub mod global_rate_limit;
pub mod grpc_stats;
pub mod header_mutation;
pub mod health_check;
pub mod jwt_authn;
pub mod local_ratelimit;
pub mod peer_metadata;
pub mod policy;
pub mod rate_limit;
pub mod rbac;
pub mod route_config;
pub mod router;
pub mod stateful_session;

use envoy_types::pb::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    self as pb, http_filter,
};

use self::router::Router;
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::network_filter::istio_stats::IstioStats;

/// One configured HTTP filter, in the order of the chain; the router is the last and is not in this list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpFilter {
    /// `istio.metadata_exchange` over headers.
    PeerMetadata(peer_metadata::PeerMetadata),
    /// Counts gRPC messages into filter state.
    GrpcStats(grpc_stats::GrpcStats),
    /// `istio.alpn`: upstream ALPN by downstream protocol.
    Alpn(alpn::Alpn),
    /// Fault injection.
    Fault(Box<fault::Fault>),
    /// CORS; the policies are the routes'.
    Cors(cors::Cors),
    /// Health checks that are answered here.
    HealthCheck(Box<health_check::HealthCheck>),
    /// Requests go on when they are whole.
    Buffer(buffer::RequestBuffer),
    /// Bodies are compressed.
    Compressor(Box<compressor::Compressor>),
    /// Bodies are decompressed.
    Decompressor(Box<compressor::Decompressor>),
    /// Headers and query parameters change.
    HeaderMutation(Box<header_mutation::HeaderMutation>),
    /// Requests that change something come from where they go to.
    Csrf(Box<csrf::CsrfPolicy>),
    /// At most so many requests.
    LocalRateLimit(Box<local_ratelimit::LocalRateLimit>),
    /// A service says who may go on.
    GlobalRateLimit(Box<global_rate_limit::GlobalRateLimit>),
    /// Requests of one session go to one host.
    StatefulSession(Box<stateful_session::StatefulSession>),
    /// gRPC for browsers.
    GrpcWeb,
    /// Istio's standard metrics.
    IstioStats(IstioStats),
    /// What it is comes by itself.
    Discovered(Box<discovered::DiscoveredFilter>),
}

/// A filter at its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedFilter {
    /// What settings for routes call it.
    pub filter_name: String,
    /// Off, but for routes that have settings for it.
    pub starts_disabled: bool,
    /// What it does.
    pub filter: HttpFilter,
}

/// What a place in the list of HTTP filters holds.
enum Filter {
    Middle(Box<PlacedFilter>),
    Router(Router),
    /// Unknown and `is_optional`.
    Off,
}

const HTTP_FILTERS: [&str; 17] = [
    types::ROUTER,
    types::PEER_METADATA,
    types::GRPC_STATS,
    types::ALPN,
    types::FAULT,
    types::CORS,
    types::HEALTH_CHECK,
    types::BUFFER,
    types::COMPRESSOR,
    types::DECOMPRESSOR,
    types::CSRF,
    types::HEADER_MUTATION,
    types::LOCAL_RATE_LIMIT,
    types::GLOBAL_RATE_LIMIT,
    types::STATEFUL_SESSION,
    types::GRPC_WEB,
    types::ISTIO_STATS,
];

/// All filters before the router, and the router.
///
/// # Errors
/// One is unknown, or the router is not the last.
pub(crate) fn list(
    at: FieldPath<'_>,
    protos: Vec<pb::HttpFilter>,
) -> Result<(Vec<PlacedFilter>, Router), Rejection> {
    let mut filters = Vec::with_capacity(protos.len());
    let last = protos.len().saturating_sub(1);
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        match Filter::from_proto(&at, proto)? {
            Filter::Router(router) if index == last => return Ok((filters, router)),
            Filter::Router(_) => return Err(at.reject("is the router, but filters follow it")),
            Filter::Middle(filter) => filters.push(*filter),
            Filter::Off => (),
        }
    }
    Err(at.reject(format!("needs {} at its end", types::ROUTER)))
}

impl Filter {
    fn from_proto(at: &FieldPath<'_>, proto: pb::HttpFilter) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::HttpFilter {
            supported { disabled, config_type, name }
            partly {
                is_optional: "an unknown filter is left out and listed",
            }
        });
        choices!(http_filter::ConfigType {
            supported { TypedConfig, ConfigDiscovery }
        });
        let any = match config_type {
            Some(http_filter::ConfigType::TypedConfig(any)) => Some(any),
            Some(http_filter::ConfigType::ConfigDiscovery(proto)) => {
                let name = at.field("name").not_empty(name)?;
                let at = at.field("config_discovery");
                let discovered = discovered::DiscoveredFilter::from_proto(&at, proto, &name)?;
                return Ok(Self::Middle(Box::new(PlacedFilter {
                    filter: HttpFilter::Discovered(Box::new(discovered)),
                    filter_name: name,
                    starts_disabled: disabled,
                })));
            }
            None => None,
        };
        let at = at.field("typed_config");
        let config = TypedConfig::open(&at, any)?;
        if policy::is_policy(&config.type_name) {
            return Err(policy::refuse(&at, config, &name));
        }
        if is_optional && !HTTP_FILTERS.contains(&config.type_name.as_str()) {
            at.problem(format!(
                "the optional http filter {name:?} of type {:?} is left out",
                config.type_name
            ));
            return Ok(Self::Off);
        }
        if config.type_name == types::ROUTER {
            return Ok(Self::Router(Router::from_proto(&at, config.message(&at)?)?));
        }
        Ok(Self::Middle(Box::new(PlacedFilter {
            filter: HttpFilter::known(&at, config, &name)?,
            filter_name: name,
            starts_disabled: disabled,
        })))
    }
}

impl HttpFilter {
    fn known(at: &FieldPath<'_>, config: TypedConfig, name: &str) -> Result<Self, Rejection> {
        Ok(match config.type_name.as_str() {
            types::PEER_METADATA => HttpFilter::PeerMetadata(peer_metadata::PeerMetadata::from_proto(
                at,
                config.message_or_json(at)?,
            )?),
            types::GRPC_STATS => {
                HttpFilter::GrpcStats(grpc_stats::GrpcStats::from_proto(at, config.message(at)?)?)
            }
            types::ALPN => HttpFilter::Alpn(alpn::Alpn::from_proto(at, config.message(at)?)?),
            types::FAULT => HttpFilter::Fault(Box::new(fault::Fault::from_proto(at, config.message(at)?)?)),
            types::LOCAL_RATE_LIMIT => HttpFilter::LocalRateLimit(Box::new(
                local_ratelimit::LocalRateLimit::from_proto(at, config.message(at)?)?,
            )),
            types::GLOBAL_RATE_LIMIT => HttpFilter::GlobalRateLimit(Box::new(
                global_rate_limit::GlobalRateLimit::from_proto(at, config.message(at)?)?,
            )),
            types::HEALTH_CHECK => HttpFilter::HealthCheck(Box::new(health_check::HealthCheck::from_proto(
                at,
                config.message(at)?,
            )?)),
            types::BUFFER => HttpFilter::Buffer(buffer::RequestBuffer::from_proto(at, config.message(at)?)?),
            types::COMPRESSOR => {
                let compressor = compressor::Compressor::from_proto(at, config.message(at)?)?;
                HttpFilter::Compressor(Box::new(compressor))
            }
            types::DECOMPRESSOR => {
                let decompressor = compressor::Decompressor::from_proto(at, config.message(at)?)?;
                HttpFilter::Decompressor(Box::new(decompressor))
            }
            types::CSRF => HttpFilter::Csrf(Box::new(csrf::CsrfPolicy::from_proto(at, config.message(at)?)?)),
            types::HEADER_MUTATION => HttpFilter::HeaderMutation(Box::new(
                header_mutation::HeaderMutation::from_proto(at, config.message(at)?)?,
            )),
            types::CORS => HttpFilter::Cors(cors::Cors::from_proto(config.message(at)?)),
            types::STATEFUL_SESSION => {
                let session = stateful_session::StatefulSession::from_proto(at, config.message(at)?)?;
                HttpFilter::StatefulSession(Box::new(session))
            }
            types::GRPC_WEB => {
                verdicts!(at, config.message(at)? => GrpcWeb {});
                at.problem(
                    "has no effect here, and requests go on as they came: the traffic issue builds it",
                );
                HttpFilter::GrpcWeb
            }
            types::ISTIO_STATS => HttpFilter::IstioStats(IstioStats::from_proto(at, config.message(at)?)?),
            _ => return Err(config.reject(at, "http filter", name, &HTTP_FILTERS)),
        })
    }
}
