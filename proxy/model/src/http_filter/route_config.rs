//! `typed_per_filter_config`: settings of filters for a table, virtual host, route or share of it. Those of filters that keep requests
//! out and do not exist here are refused by name.
//! Source: route_components.proto, `FilterConfig`; Envoy docs, "Route specific config".
use std::collections::HashMap;

use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::google::protobuf;

use super::buffer::RequestBuffer;
use super::compressor::RouteCompressor;
use super::cors::CorsPolicy;
use super::csrf::CsrfPolicy;
use super::fault::Fault;
use super::global_rate_limit::RouteGlobalRateLimit;
use super::header_mutation::Mutations;
use super::local_ratelimit::LocalRateLimit;
use super::policy;
use super::stateful_session::StatefulSession;
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, verdicts};

/// Settings of one filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterSettings {
    /// Name of the filter that they are for.
    pub filter: String,
    /// The filter is off here.
    pub is_disabled: bool,
    /// What it does here; `None`: what it does anyway.
    pub config: Option<RouteFilter>,
}

/// Filters that have settings for routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteFilter {
    /// Fault injection.
    Fault(Box<Fault>),
    /// CORS.
    Cors(Box<CorsPolicy>),
    /// How large a request may be; `None`: it does not wait.
    Buffer(Option<RequestBuffer>),
    /// Headers and query parameters that change.
    HeaderMutation(Box<Mutations>),
    /// Compression.
    Compressor(RouteCompressor),
    /// Where requests may come from.
    Csrf(Box<CsrfPolicy>),
    /// Local rate limit.
    LocalRateLimit(Box<LocalRateLimit>),
    /// Global rate limit.
    GlobalRateLimit(Box<RouteGlobalRateLimit>),
    /// Stateful session; `None`: off.
    StatefulSession(Option<Box<StatefulSession>>),
}

const ROUTE_FILTERS: [&str; 10] = [
    types::FAULT,
    types::CORS_POLICY,
    types::BUFFER_PER_ROUTE,
    types::COMPRESSOR_PER_ROUTE,
    types::CSRF,
    types::HEADER_MUTATION_PER_ROUTE,
    types::LOCAL_RATE_LIMIT,
    types::GLOBAL_RATE_LIMIT_PER_ROUTE,
    types::STATEFUL_SESSION_PER_ROUTE,
    types::FILTER_CONFIG,
];

impl FilterSettings {
    /// Converts all settings of one place, by name.
    ///
    /// # Errors
    /// One is of an unknown type that is not optional, or does not convert.
    pub(crate) fn list(
        at: FieldPath<'_>,
        protos: HashMap<String, protobuf::Any>,
    ) -> Result<Vec<Self>, Rejection> {
        let mut protos: Vec<_> = protos.into_iter().collect();
        protos.sort_by(|left, right| left.0.cmp(&right.0));
        let mut list = Vec::with_capacity(protos.len());
        for (name, any) in protos {
            list.extend(Self::from_any(&at.key(&name), name.clone(), any)?);
        }
        Ok(list)
    }

    fn from_any(at: &FieldPath<'_>, filter: String, any: protobuf::Any) -> Result<Option<Self>, Rejection> {
        let config = TypedConfig::open(at, Some(any))?;
        if config.type_name != types::FILTER_CONFIG {
            let config = Some(RouteFilter::from_config(at, config, &filter)?);
            return Ok(Some(Self {
                filter,
                is_disabled: false,
                config,
            }));
        }
        verdicts!(at, config.message(at)? => pb::FilterConfig {
            supported { config, disabled }
            partly { is_optional: "settings of an unknown type are left out and listed" }
        });
        let at = at.field("config");
        let config = match config {
            None if disabled => None,
            None => return Err(at.reject("is missing")),
            Some(any) => {
                let config = TypedConfig::open(&at, Some(any))?;
                if is_optional && !ROUTE_FILTERS.contains(&config.type_name.as_str()) {
                    at.problem(format!(
                        "the optional settings of type {:?} are left out",
                        config.type_name
                    ));
                    return Ok(None);
                }
                Some(RouteFilter::from_config(&at, config, &filter)?)
            }
        };
        Ok(Some(Self {
            filter,
            is_disabled: disabled,
            config,
        }))
    }
}

impl RouteFilter {
    fn from_config(at: &FieldPath<'_>, config: TypedConfig, name: &str) -> Result<Self, Rejection> {
        Ok(match config.type_name.as_str() {
            types::FAULT => Self::Fault(Box::new(Fault::from_proto(at, config.message(at)?)?)),
            types::CORS_POLICY => Self::Cors(Box::new(CorsPolicy::from_proto(at, config.message(at)?)?)),
            types::BUFFER_PER_ROUTE => Self::Buffer(RequestBuffer::from_route(at, config.message(at)?)?),
            types::COMPRESSOR_PER_ROUTE => {
                Self::Compressor(RouteCompressor::from_proto(at, config.message(at)?)?)
            }
            types::HEADER_MUTATION_PER_ROUTE => {
                Self::HeaderMutation(Box::new(Mutations::from_route(at, config.message(at)?)?))
            }
            types::CSRF => Self::Csrf(Box::new(CsrfPolicy::from_proto(at, config.message(at)?)?)),
            types::LOCAL_RATE_LIMIT => {
                let limit = LocalRateLimit::from_proto(at, config.message(at)?)?;
                // As Envoy: settings without a limit are a mistake.
                at.field("token_bucket").required(limit.bucket.as_ref())?;
                Self::LocalRateLimit(Box::new(limit))
            }
            types::GLOBAL_RATE_LIMIT_PER_ROUTE => {
                let limit = RouteGlobalRateLimit::from_proto(at, config.message(at)?)?;
                Self::GlobalRateLimit(Box::new(limit))
            }
            types::STATEFUL_SESSION_PER_ROUTE => {
                let session = StatefulSession::from_route(at, config.message(at)?)?;
                Self::StatefulSession(session.map(Box::new))
            }
            policy if policy::is_settings(policy) => {
                return Err(policy::refuse_settings(at, config, name));
            }
            _ => return Err(config.reject(at, "settings for the filter", name, &ROUTE_FILTERS)),
        })
    }
}
