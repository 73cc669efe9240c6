//! Listener filters that have no behaviour yet. What they say is checked, and then their listener is refused: they say who the client
//! is, or keep it out. Awaits the traffic issue.
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::listener as filters;
use envoy_types::pb::envoy::r#type::v3::TokenBucket;

use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, verdicts};
use crate::scalar::Wrapped;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwaitedFilter {
    /// Reads the header of the PROXY protocol.
    ProxyProtocol(ProxyProtocol),
    /// Speaks to servers from the client's address.
    OriginalSrc {
        /// And from its port.
        bind_port: bool,
        /// `SO_MARK` of such sockets; 0: none.
        mark: u32,
    },
    /// At most so many connections.
    LocalRateLimit {
        /// Stats are `listener_local_ratelimit.<stat_prefix>.`.
        stat_prefix: String,
        /// Connections at once.
        max_tokens: u32,
        /// Added each time; 1 unless set.
        tokens_per_fill: u32,
        /// How often.
        fill_interval: Duration,
        /// False: it limits nothing.
        is_enabled: bool,
    },
}

/// Source: envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto. Awaits the traffic issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Connections without a header pass.
    pub allow_without: bool,
    /// TLVs of version 2 that become metadata: type, namespace, key.
    pub tlvs: Vec<(u8, String, String)>,
    /// TLVs that go upstream; `None`: none.
    pub pass_through: Option<PassThrough>,
    /// Versions that are refused.
    pub disallowed_versions: Vec<i32>,
    /// In stats.
    pub stat_prefix: String,
}

/// TLVs that go upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassThrough {
    /// All.
    All,
    /// Those of these types.
    Types(Vec<u8>),
}

/// The types of them.
pub(super) const AWAITED_FILTERS: [&str; 3] = [
    types::PROXY_PROTOCOL,
    types::ORIGINAL_SRC,
    types::LISTENER_LOCAL_RATE_LIMIT,
];

impl AwaitedFilter {
    /// Converts a filter whose type is one of [`AWAITED_FILTERS`].
    pub(crate) fn from_config(
        at: &FieldPath<'_>,
        config: TypedConfig,
        name: &str,
    ) -> Result<Self, Rejection> {
        match config.type_name.as_str() {
            types::PROXY_PROTOCOL => Ok(Self::ProxyProtocol(ProxyProtocol::from_proto(
                at,
                config.message(at)?,
            )?)),
            types::ORIGINAL_SRC => {
                verdicts!(at, config.message(at)? => filters::original_src::v3::OriginalSrc {
                    awaited "traffic" { bind_port, mark }
                });
                Ok(Self::OriginalSrc { bind_port, mark })
            }
            types::LISTENER_LOCAL_RATE_LIMIT => local_rate_limit(at, config.message(at)?),
            _ => Err(config.reject(at, "listener filter", name, &AWAITED_FILTERS)),
        }
    }
}

fn local_rate_limit(
    at: &FieldPath<'_>,
    proto: filters::local_ratelimit::v3::LocalRateLimit,
) -> Result<AwaitedFilter, Rejection> {
    verdicts!(at, proto => filters::local_ratelimit::v3::LocalRateLimit {
        awaited "traffic" { stat_prefix, token_bucket, runtime_enabled }
    });
    let bucket = at.field("token_bucket");
    verdicts!(bucket, bucket.required(token_bucket)? => TokenBucket {
        awaited "traffic" { max_tokens, tokens_per_fill, fill_interval }
    });
    let enabled = match runtime_enabled {
        None => true,
        Some(proto) => {
            verdicts!((), proto => core::RuntimeFeatureFlag {
                awaited "traffic" { default_value }
                inert { runtime_key: "names a runtime key, and there is no runtime: the default counts" }
            });
            default_value.value().unwrap_or(false)
        }
    };
    let (fill, interval) = (bucket.field("tokens_per_fill"), bucket.field("fill_interval"));
    Ok(AwaitedFilter::LocalRateLimit {
        stat_prefix: at.field("stat_prefix").not_empty(stat_prefix)?,
        max_tokens: bucket.field("max_tokens").within(max_tokens, 1..=u32::MAX)?,
        tokens_per_fill: fill.within(tokens_per_fill.value().unwrap_or(1), 1..=u32::MAX)?,
        fill_interval: interval.required(interval.positive(fill_interval)?)?,
        is_enabled: enabled,
    })
}

impl ProxyProtocol {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: filters::proxy_protocol::v3::ProxyProtocol,
    ) -> Result<Self, Rejection> {
        use core::proxy_protocol_config::Version;
        use filters::proxy_protocol::v3::{self as pb, proxy_protocol};
        verdicts!(at, proto => pb::ProxyProtocol {
            awaited "traffic" {
                rules, allow_requests_without_proxy_protocol, pass_through_tlvs, disallowed_versions, stat_prefix,
            }
            unsupported { tlv_location: "traffic" }
        });
        let tlvs = rules.into_iter().enumerate().map(|(index, proto)| {
            let at = at.field("rules").index(index);
            verdicts!(at, proto => proxy_protocol::Rule { awaited "traffic" { tlv_type, on_tlv_present } });
            let kind = tlv(&at.field("tlv_type"), tlv_type)?;
            let at = at.field("on_tlv_present");
            verdicts!(at, on_tlv_present.unwrap_or_default() => proxy_protocol::KeyValuePair {
                awaited "traffic" { metadata_namespace, key }
                unsupported { value_string_encoding: "traffic" }
            });
            Ok((kind, metadata_namespace, at.field("key").not_empty(key)?))
        });
        let versions = at.field("disallowed_versions");
        for (index, version) in disallowed_versions.iter().enumerate() {
            versions.index(index).enumeration::<Version>(*version)?;
        }
        let pass_through = match pass_through_tlvs {
            Some(proto) => Some(PassThrough::from_proto(&at.field("pass_through_tlvs"), proto)?),
            None => None,
        };
        Ok(Self {
            allow_without: allow_requests_without_proxy_protocol,
            tlvs: tlvs.collect::<Result<_, _>>()?,
            pass_through,
            disallowed_versions,
            stat_prefix,
        })
    }
}

impl PassThrough {
    fn from_proto(at: &FieldPath<'_>, proto: core::ProxyProtocolPassThroughTlVs) -> Result<Self, Rejection> {
        use core::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
        verdicts!(at, proto => core::ProxyProtocolPassThroughTlVs { awaited "traffic" { match_type, tlv_type } });
        let kinds = tlv_type.into_iter().enumerate();
        let kinds = kinds.map(|(index, kind)| tlv(&at.field("tlv_type").index(index), kind));
        let kinds = kinds.collect::<Result<_, _>>()?;
        Ok(match at.field("match_type").enumeration(match_type)? {
            PassTlVsMatchType::IncludeAll => Self::All,
            PassTlVsMatchType::Include => Self::Types(kinds),
        })
    }
}

fn tlv(at: &FieldPath<'_>, kind: u32) -> Result<u8, Rejection> {
    u8::try_from(kind).map_err(|_| at.reject(format!("{kind} is no type of a TLV; the largest is 255")))
}
