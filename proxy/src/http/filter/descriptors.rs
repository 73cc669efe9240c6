//! What a request is to rate limits, local and global ones: lists of keys and values.
//! Source: route_components.proto `RateLimit`; Envoy `RateLimitPolicyEntryImpl::populateDescriptors`.
use std::borrow::Cow;

use ipnet::IpNet;
use outrigger_model::http_filter::rate_limit::{HostLimits, LimitOverride, RateLimit, RateLimitAction};
use outrigger_model::rate_limit_service::Descriptor;

use super::Decoding;
use crate::http::matcher::HeaderMatcher;
use crate::http::route_table::QueryTest;

/// Makes one descriptor of each request that all its actions have something for.
#[derive(Debug)]
pub(super) struct Generator {
    stage: u32,
    has_disable_key: bool,
    limit: Option<LimitOverride>,
    actions: Vec<Action>,
}

/// What a route, a virtual host or a filter says about rate limits.
#[derive(Debug, Default)]
pub(in crate::http) struct RouteLimits(Vec<Generator>);

/// Who wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// It passes over what a runtime key could switch off.
    Local,
    Global,
}

impl RouteLimits {
    /// # Errors
    /// A regular expression does not compile.
    pub(in crate::http) fn new(configs: &[RateLimit]) -> Result<Self, regex::Error> {
        let generators = configs.iter().map(Generator::new);
        generators.collect::<Result<_, _>>().map(Self)
    }

    /// Nothing is said.
    pub(in crate::http) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What all of them make of the request.
    pub(super) fn all<'a>(&'a self, request: &'a Decoding<'_>) -> impl Iterator<Item = Descriptor> + 'a {
        self.0
            .iter()
            .filter_map(move |generator| generator.describe(request))
    }

    fn of_stage<'a>(
        &'a self,
        stage: u32,
        asker: Asker,
        request: &'a Decoding<'_>,
    ) -> impl Iterator<Item = Descriptor> + 'a {
        let is_asked = move |generator: &&Generator| {
            generator.stage == stage && (asker == Asker::Global || !generator.has_disable_key)
        };
        let generators = self.0.iter().filter(is_asked);
        generators.filter_map(move |generator| generator.describe(request))
    }
}

impl Decoding<'_> {
    /// What the route and its virtual host make of the request.
    pub(super) fn descriptors(&self, stage: u32, of_host: HostLimits, asker: Asker) -> Vec<Descriptor> {
        let Some(limits) = self.route.and_then(|route| route.rate_limits.as_ref()) else {
            return Vec::new();
        };
        let mut asked: Vec<_> = limits.own.of_stage(stage, asker, self).collect();
        let includes_host = limits.includes_host
            || match of_host {
                HostLimits::Include => true,
                HostLimits::Override => limits.own.is_empty(),
                HostLimits::Ignore => false,
            };
        if includes_host {
            asked.extend(limits.host.of_stage(stage, asker, self));
        }
        asked
    }
}

#[derive(Debug)]
enum Action {
    SourceCluster,
    MaskedRemoteAddress {
        v4_bits: u8,
        v6_bits: u8,
    },
    QueryParameter {
        name: String,
        key: String,
        skips_missing: bool,
    },
    QueryValueMatch {
        key: String,
        value: String,
        parameters: Vec<(String, QueryTest)>,
        expects_match: bool,
    },
    DestinationCluster,
    RemoteAddress,
    GenericKey {
        key: String,
        value: String,
    },
    RequestHeader {
        name: String,
        key: String,
        skips_missing: bool,
    },
    HeaderValueMatch {
        key: String,
        value: String,
        headers: Vec<HeaderMatcher>,
        expects_match: bool,
    },
}

impl Generator {
    /// # Errors
    /// A regular expression does not compile.
    fn new(config: &RateLimit) -> Result<Self, regex::Error> {
        Ok(Self {
            stage: config.stage,
            has_disable_key: config.has_disable_key,
            limit: config.limit_override,
            actions: config.actions.iter().map(Action::new).collect::<Result<_, _>>()?,
        })
    }

    /// `None`: one action has nothing for it.
    fn describe(&self, request: &Decoding<'_>) -> Option<Descriptor> {
        let mut entries = Vec::new();
        for action in &self.actions {
            match action.entry(request) {
                Entry::Made(key, value) => entries.push((key, value)),
                Entry::Skipped => {}
                Entry::Missing => return None,
            }
        }
        // As Envoy, one without entries is one, too.
        Some(Descriptor {
            entries,
            limit: self.limit,
        })
    }
}

enum Entry {
    Made(String, String),
    /// The list goes on without it.
    Skipped,
    /// There is no list.
    Missing,
}

impl Action {
    fn new(config: &RateLimitAction) -> Result<Self, regex::Error> {
        Ok(match config {
            RateLimitAction::SourceCluster => Self::SourceCluster,
            RateLimitAction::MaskedRemoteAddress { v4_bits, v6_bits } => Self::MaskedRemoteAddress {
                v4_bits: *v4_bits,
                v6_bits: *v6_bits,
            },
            RateLimitAction::QueryParameter {
                name,
                key,
                skips_missing,
            } => Self::QueryParameter {
                name: name.clone(),
                key: key.clone(),
                skips_missing: *skips_missing,
            },
            RateLimitAction::QueryValueMatch {
                key,
                value,
                parameters,
                expects_match,
            } => Self::QueryValueMatch {
                key: key.clone(),
                value: value.clone(),
                parameters: parameters
                    .iter()
                    .map(|(name, test)| Ok((name.clone(), QueryTest::new(test)?)))
                    .collect::<Result<_, regex::Error>>()?,
                expects_match: *expects_match,
            },
            RateLimitAction::DestinationCluster => Self::DestinationCluster,
            RateLimitAction::RemoteAddress => Self::RemoteAddress,
            RateLimitAction::GenericKey { key, value } => Self::GenericKey {
                key: key.clone(),
                value: value.clone(),
            },
            RateLimitAction::RequestHeader {
                name,
                key,
                skips_missing,
            } => Self::RequestHeader {
                name: name.clone(),
                key: key.clone(),
                skips_missing: *skips_missing,
            },
            RateLimitAction::HeaderValueMatch {
                key,
                value,
                headers,
                expects_match,
            } => Self::HeaderValueMatch {
                key: key.clone(),
                value: value.clone(),
                headers: headers.iter().map(HeaderMatcher::new).collect::<Result<_, _>>()?,
                expects_match: *expects_match,
            },
        })
    }

    fn entry(&self, request: &Decoding<'_>) -> Entry {
        let made = |key: &str, value: &str| Entry::Made(key.to_owned(), value.to_owned());
        match self {
            Self::DestinationCluster => match request.cluster_name {
                Some(name) => made("destination_cluster", name),
                None => Entry::Missing,
            },
            Self::SourceCluster => made("source_cluster", &request.stream.manager.filters.service_cluster),
            Self::MaskedRemoteAddress { v4_bits, v6_bits } => {
                let address = request.stream.info.borrow().downstream_remote_address().ip();
                let bits = if address.is_ipv4() { *v4_bits } else { *v6_bits };
                match IpNet::new(address, bits) {
                    Ok(network) => made("masked_remote_address", &network.trunc().to_string()),
                    Err(_) => Entry::Missing,
                }
            }
            Self::QueryParameter {
                name,
                key,
                skips_missing,
            } => match query_value(request.head.path.query(), name) {
                Some(value) => made(key, &String::from_utf8_lossy(&value)),
                None if *skips_missing => Entry::Skipped,
                None => Entry::Missing,
            },
            Self::QueryValueMatch {
                key,
                value,
                parameters,
                expects_match,
            } => {
                let query = request.head.path.query();
                let is_met =
                    |(name, test): &(String, QueryTest)| test.matches(query_value(query, name).as_deref());
                match parameters.iter().all(is_met) == *expects_match {
                    true => made(key, value),
                    false => Entry::Missing,
                }
            }
            Self::RemoteAddress => {
                let address = request.stream.info.borrow().downstream_remote_address();
                made("remote_address", &address.ip().to_string())
            }
            Self::GenericKey { key, value } => made(key, value),
            Self::RequestHeader {
                name,
                key,
                skips_missing,
            } => match request.head.header(name) {
                Some(value) => made(key, &String::from_utf8_lossy(value)),
                None if *skips_missing => Entry::Skipped,
                None => Entry::Missing,
            },
            Self::HeaderValueMatch {
                key,
                value,
                headers,
                expects_match,
            } => match headers.iter().all(|header| header.matches(request.head)) == *expects_match {
                true => made(key, value),
                false => Entry::Missing,
            },
        }
    }
}

/// The first value of a query parameter. Other than routes, rate limits see names and values without their escapes.
/// Source: Envoy `QueryParamsMulti::parseAndDecodeQueryString`.
fn query_value<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, [u8]>> {
    let decoded = |text: &'q str| Cow::from(percent_encoding::percent_decode_str(text));
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*decoded(key) == *name.as_bytes()).then(|| decoded(value))
    })
}
