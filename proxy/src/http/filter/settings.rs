//! What a route says about filters: `typed_per_filter_config`, compiled when the route table is built.
//!
//! Each level (table, virtual host, route, share of a route) is compiled once, so that what counts requests counts those of the whole
//! level; what holds for a route is put together then too, and a request only reads it. Source: Envoy
//! `RouteEntryImplBase::mostSpecificPerFilterConfig`, `filterDisabled`.
use std::sync::Arc;

use outrigger_model::http_filter::compressor::RouteCompressor;
use outrigger_model::http_filter::cors::CorsPolicy;
use outrigger_model::http_filter::route_config::{FilterSettings, RouteFilter};

use super::cors::Policy;
use super::csrf;
use super::fault::Rules;
use super::global_ratelimit::RouteLimit;
use super::header_mutation::Mutations;
use super::local_ratelimit::Limit;
use super::stateful_session::Session;
use crate::stats::Registry;

/// One level's settings.
#[derive(Debug, Default)]
pub(in crate::http) struct Level {
    settings: Vec<Setting>,
    /// The policy that stands in the route or virtual host itself.
    cors: Option<Arc<Policy>>,
}

/// What holds for a route, or for a share of it.
#[derive(Debug, Default)]
pub(in crate::http) struct Settings {
    /// One a filter name, mostly none at all.
    settings: Box<[Setting]>,
    /// For CORS filters without settings; the innermost first.
    pub(super) cors: Box<[Arc<Policy>]>,
}

/// Settings of one filter.
#[derive(Debug, Clone)]
struct Setting {
    filter: Arc<str>,
    is_disabled: bool,
    config: Option<RouteConfig>,
}

/// What a filter does for a route.
#[derive(Debug, Clone)]
pub(super) enum RouteConfig {
    Fault(Arc<Rules>),
    /// The innermost first; what the first does not say the next may.
    Cors(Arc<[Arc<Policy>]>),
    LocalRateLimit(Arc<Limit>),
    GlobalRateLimit(Arc<RouteLimit>),
    /// `None`: there are no sessions.
    StatefulSession(Option<Arc<Session>>),
    /// Bytes; `None`: requests do not wait.
    Buffer(Option<u32>),
    Compressor(RouteCompressor),
    Csrf(Arc<csrf::Policy>),
    /// The innermost first.
    HeaderMutation(Arc<[Arc<Mutations>]>),
}

impl Level {
    /// Compiles one level.
    ///
    /// # Errors
    /// A regular expression does not compile.
    pub(in crate::http) fn new(
        configs: &[FilterSettings],
        cors: Option<&CorsPolicy>,
        registry: &Registry,
    ) -> Result<Self, regex::Error> {
        let settings = configs.iter().map(|config| Setting::new(config, registry));
        let cors = cors.map(Policy::new).transpose()?;
        Ok(Self {
            settings: settings.collect::<Result<_, _>>()?,
            cors: cors.map(Arc::new),
        })
    }
}

impl Setting {
    fn new(config: &FilterSettings, registry: &Registry) -> Result<Self, regex::Error> {
        // Without effect where it is off.
        let what = config.config.as_ref().filter(|_| !config.is_disabled);
        Ok(Self {
            filter: config.filter.as_str().into(),
            is_disabled: config.is_disabled,
            config: match what {
                Some(RouteFilter::Fault(fault)) => Some(RouteConfig::Fault(Arc::new(Rules::new(fault)?))),
                Some(RouteFilter::Cors(policy)) => {
                    Some(RouteConfig::Cors([Arc::new(Policy::new(policy)?)].into()))
                }
                Some(RouteFilter::LocalRateLimit(limit)) => Some(RouteConfig::LocalRateLimit(Arc::new(
                    Limit::new(limit, registry)?,
                ))),
                Some(RouteFilter::GlobalRateLimit(limit)) => {
                    Some(RouteConfig::GlobalRateLimit(Arc::new(RouteLimit::new(limit)?)))
                }
                Some(RouteFilter::StatefulSession(session)) => {
                    let session = session.as_deref().map(|session| Arc::new(Session::new(session)));
                    Some(RouteConfig::StatefulSession(session))
                }
                Some(RouteFilter::Buffer(buffer)) => Some(RouteConfig::Buffer(
                    buffer.as_ref().map(|buffer| buffer.max_request_bytes),
                )),
                Some(RouteFilter::Compressor(compressor)) => {
                    Some(RouteConfig::Compressor(compressor.clone()))
                }
                Some(RouteFilter::HeaderMutation(mutations)) => Some(RouteConfig::HeaderMutation(
                    [Arc::new(Mutations::new(mutations)?)].into(),
                )),
                Some(RouteFilter::Csrf(policy)) => {
                    Some(RouteConfig::Csrf(Arc::new(csrf::Policy::new(policy)?)))
                }
                None => None,
            },
        })
    }
}

impl Settings {
    /// Puts levels together, the innermost first.
    pub(in crate::http) fn merge(levels: &[&Level]) -> Self {
        let mut settings: Vec<Setting> = Vec::new();
        for setting in levels.iter().flat_map(|level| &level.settings) {
            match settings.iter_mut().find(|inner| inner.filter == setting.filter) {
                None => settings.push(setting.clone()),
                Some(inner) => inner.inherit(setting),
            }
        }
        let cors = levels.iter().filter_map(|level| level.cors.clone());
        Self {
            settings: settings.into(),
            cors: cors.collect(),
        }
    }

    /// What there is for a filter; `None`: nothing.
    pub(super) fn of(&self, filter: &str) -> Option<Found<'_>> {
        let setting = self.settings.iter().find(|setting| &*setting.filter == filter)?;
        Some(Found {
            is_disabled: setting.is_disabled,
            config: setting.config.as_ref(),
        })
    }
}

/// Settings for one filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) is_disabled: bool,
    pub(super) config: Option<&'a RouteConfig>,
}

impl Setting {
    /// Only CORS and header mutations look at more than the innermost level.
    fn inherit(&mut self, outer: &Setting) {
        match (&mut self.config, &outer.config) {
            (Some(RouteConfig::Cors(inner)), Some(RouteConfig::Cors(outer))) => {
                *inner = inner.iter().chain(outer.iter()).cloned().collect();
            }
            (Some(RouteConfig::HeaderMutation(inner)), Some(RouteConfig::HeaderMutation(outer))) => {
                *inner = inner.iter().chain(outer.iter()).cloned().collect();
            }
            _ => {}
        }
    }
}
