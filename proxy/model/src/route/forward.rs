//! Protobuf to [`Forward`].
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::{self as pb, route_action};

use super::headers;
use super::rewrite::header_text;
use super::{
    ClusterSpec, Forward, HashPolicy, HedgePolicy, HostRewrite, InternalRedirects, MirrorPolicy,
    RegexRewrite, RetryPolicy, ShareChoice, TunnelEnd, WeightedCluster,
};
use crate::access_log::format;
use crate::cluster::RoutingPriority;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::hcm::Upgrade;
use crate::http_filter::cors::CorsPolicy;
use crate::http_filter::rate_limit::RateLimit;
use crate::http_filter::route_config::FilterSettings;
use crate::metadata::{Struct, subset_labels};
use crate::scalar::Wrapped;

/// `RouteAction.timeout` when unset.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Converts what a route does with a request that it forwards.
pub(super) fn from_proto(at: &FieldPath<'_>, proto: pb::RouteAction) -> Result<Forward, Rejection> {
    verdicts!(at, proto => pb::RouteAction {
        supported {
            cluster_specifier, cluster_not_found_response_code, timeout, max_stream_duration, max_grpc_timeout,
            idle_timeout, retry_policy, prefix_rewrite, regex_rewrite, path_rewrite, host_rewrite_specifier, cors, upgrade_configs,
            rate_limits, include_vh_rate_limits, append_x_forwarded_host, hash_policy, request_mirror_policies,
            hedge_policy, internal_redirect_policy, internal_redirect_action, max_internal_redirects,
            metadata_match, priority, grpc_timeout_offset,
        }
        never {
            flush_timeout: "what waits for a client that takes nothing is not held apart here: idle_timeout ends it",
            early_data_policy: "for HTTP/3 and early data of TLS, which do not exist here",
            retry_policy_typed_config: "Envoy hides it from users, and has no such extension",
        }
        refused {
            path_rewrite_policy: "ignoring it would ask for another path",
        }
    });
    // Source: Envoy `RouteEntryImplBase::usingNewTimeouts`.
    let replaced = max_stream_duration.is_some();
    let duration = MaxStreamDuration::from_proto(&at.field("max_stream_duration"), max_stream_duration)?;
    let max_grpc_timeout = at.field("max_grpc_timeout").duration(max_grpc_timeout)?;
    let retry_policy = retry_policy.map(|proto| RetryPolicy::from_proto(&at.field("retry_policy"), proto));
    let regex = regex_rewrite.map(|proto| RegexRewrite::from_proto(&at.field("regex_rewrite"), proto));
    let regex_rewrite = regex.transpose()?;
    let ways = [
        !prefix_rewrite.is_empty(),
        regex_rewrite.is_some(),
        !path_rewrite.is_empty(),
    ];
    if ways.into_iter().filter(|is_set| *is_set).count() > 1 {
        let reason =
            "prefix_rewrite, regex_rewrite and path_rewrite exclude one another: a path is rewritten once";
        return Err(at.reject(reason));
    }
    let path_format = (!path_rewrite.is_empty()).then(|| {
        format::parse(
            &at.field("path_rewrite"),
            header_text(&at.field("path_rewrite"), &path_rewrite)?,
        )
    });
    let internal_redirects = match internal_redirect_policy {
        Some(proto) => Some(InternalRedirects::from_proto(
            &at.field("internal_redirect_policy"),
            proto,
        )?),
        None => InternalRedirects::from_action(
            &at.field("internal_redirect_action"),
            internal_redirect_action,
            max_internal_redirects,
        )?,
    };
    let (upgrades, tunnel_end) = upgrades(&at.field("upgrade_configs"), upgrade_configs)?;
    let subset_labels = subset_labels(at, metadata_match)?;
    Ok(Forward {
        cluster: ClusterSpec::from_proto(at, cluster_specifier)?.with_labels(&subset_labels),
        cluster_not_found_status: not_found_status(at, cluster_not_found_response_code)?,
        timeout: at.field("timeout").limit(timeout, TIMEOUT)?.filter(|_| !replaced),
        max_stream_duration: duration.max,
        grpc_timeout_header_max: duration.grpc_timeout_header_max,
        max_grpc_timeout: max_grpc_timeout.filter(|_| !replaced),
        tells_stream_duration: replaced,
        grpc_timeout_header_offset: duration.grpc_timeout_header_offset,
        grpc_timeout_offset: at.field("grpc_timeout_offset").duration(grpc_timeout_offset)?,
        idle_timeout: at.field("idle_timeout").duration(idle_timeout)?,
        subset_labels,
        priority: RoutingPriority::from_proto(&at.field("priority"), priority)?,
        retry_policy: retry_policy.transpose()?,
        hedge_policy: HedgePolicy::from_proto(&at.field("hedge_policy"), hedge_policy)?,
        prefix_rewrite: (!prefix_rewrite.is_empty()).then_some(prefix_rewrite),
        regex_rewrite,
        path_format: path_format.transpose()?,
        host_rewrite: host_rewrite(at, host_rewrite_specifier)?,
        rate_limits: RateLimit::list(at.field("rate_limits"), rate_limits)?,
        includes_host_limits: include_vh_rate_limits.value().unwrap_or(false),
        appends_forwarded_host: append_x_forwarded_host,
        cors: cors
            .map(|proto| CorsPolicy::from_legacy(&at.field("cors"), proto))
            .transpose()?,
        hash_policies: HashPolicy::list(at.field("hash_policy"), hash_policy)?,
        upgrades,
        tunnel_end,
        mirrors: MirrorPolicy::list(at.field("request_mirror_policies"), request_mirror_policies)?,
        internal_redirects: internal_redirects.map(Box::new),
    })
}

/// What may be changed to, and what becomes of a CONNECT.
fn upgrades(
    at: &FieldPath<'_>,
    protos: Vec<route_action::UpgradeConfig>,
) -> Result<(Vec<Upgrade>, Option<TunnelEnd>), Rejection> {
    let mut upgrades: Vec<Upgrade> = Vec::with_capacity(protos.len());
    let mut end = None;
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        verdicts!(at, proto => route_action::UpgradeConfig { supported { upgrade_type, enabled, connect_config } });
        let field = at.field("upgrade_type");
        let protocol = field.not_empty(upgrade_type)?.to_ascii_lowercase();
        if upgrades.iter().any(|upgrade| upgrade.protocol == protocol) {
            return Err(field.reject(format!("{protocol:?} comes twice")));
        }
        if let Some(proto) = connect_config {
            let at = at.field("connect_config");
            if protocol != "connect" {
                return Err(at.reject(format!("is of CONNECT, not of {protocol:?}")));
            }
            end = Some(TunnelEnd::from_proto(&at, proto)?);
        }
        upgrades.push(Upgrade {
            protocol,
            is_enabled: enabled.value().unwrap_or(true),
        });
    }
    Ok((upgrades, end))
}

impl TunnelEnd {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: route_action::upgrade_config::ConnectConfig,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => route_action::upgrade_config::ConnectConfig {
            supported { allow_post }
            refused { proxy_protocol_config: "ignoring it would hide the client from the upstream" }
        });
        Ok(Self {
            takes_posts: allow_post,
        })
    }
}

fn not_found_status(at: &FieldPath<'_>, number: i32) -> Result<u16, Rejection> {
    Ok(
        match at.field("cluster_not_found_response_code").enumeration(number)? {
            route_action::ClusterNotFoundResponseCode::ServiceUnavailable => 503,
            route_action::ClusterNotFoundResponseCode::NotFound => 404,
            route_action::ClusterNotFoundResponseCode::InternalServerError => 500,
        },
    )
}

fn host_rewrite(
    at: &FieldPath<'_>,
    proto: Option<route_action::HostRewriteSpecifier>,
) -> Result<Option<HostRewrite>, Rejection> {
    use route_action::HostRewriteSpecifier;
    choices!(route_action::HostRewriteSpecifier {
        supported { HostRewriteLiteral, AutoHostRewrite, HostRewriteHeader, HostRewritePathRegex, HostRewrite }
    });
    Ok(match proto {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            (!host.is_empty()).then_some(HostRewrite::Literal(host))
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) => auto.value.then_some(HostRewrite::Endpoint),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            (!name.is_empty()).then(|| HostRewrite::Header(name.to_ascii_lowercase()))
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(proto)) => {
            let field = at.field("host_rewrite_path_regex");
            Some(HostRewrite::PathRegex(RegexRewrite::from_proto(&field, proto)?))
        }
        Some(HostRewriteSpecifier::HostRewrite(text)) => {
            let field = at.field("host_rewrite");
            (!text.is_empty())
                .then(|| {
                    Ok(HostRewrite::Format(format::parse(
                        &field,
                        header_text(&field, &text)?,
                    )?))
                })
                .transpose()?
        }
    })
}

#[derive(Default)]
struct MaxStreamDuration {
    max: Option<Duration>,
    grpc_timeout_header_max: Option<Duration>,
    grpc_timeout_header_offset: Option<Duration>,
}

impl MaxStreamDuration {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<route_action::MaxStreamDuration>,
    ) -> Result<Self, Rejection> {
        let Some(proto) = proto else {
            return Ok(Self::default());
        };
        verdicts!(at, proto => route_action::MaxStreamDuration {
            supported { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset }
        });
        Ok(Self {
            max: at.field("max_stream_duration").duration(max_stream_duration)?,
            grpc_timeout_header_max: at
                .field("grpc_timeout_header_max")
                .duration(grpc_timeout_header_max)?,
            grpc_timeout_header_offset: at
                .field("grpc_timeout_header_offset")
                .duration(grpc_timeout_header_offset)?,
        })
    }
}

impl ClusterSpec {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<route_action::ClusterSpecifier>,
    ) -> Result<Self, Rejection> {
        use route_action::ClusterSpecifier;
        choices!(route_action::ClusterSpecifier {
            supported { Cluster, WeightedClusters, ClusterHeader }
            refused {
                ClusterSpecifierPlugin: "no plugin exists here",
                InlineClusterSpecifierPlugin: "no plugin exists here",
            }
        });
        let field = match proto {
            Some(ClusterSpecifier::Cluster(name)) => {
                return Ok(Self::Single(at.field("cluster").not_empty(name)?));
            }
            Some(ClusterSpecifier::WeightedClusters(proto)) => {
                return weighted_clusters(&at.field("weighted_clusters"), proto);
            }
            Some(ClusterSpecifier::ClusterHeader(name)) => {
                let name = at.field("cluster_header").not_empty(name)?;
                return Ok(Self::Header(name.to_ascii_lowercase()));
            }
            Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => "cluster_specifier_plugin",
            Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => "inline_cluster_specifier_plugin",
            None => return Err(at.reject("has neither cluster nor weighted_clusters")),
        };
        Err(at
            .field(field)
            .reject("is not supported; write cluster or weighted_clusters"))
    }
}

impl ClusterSpec {
    /// Shares get the labels of their route; their own go first. Source: route.proto `ClusterWeight.metadata_match`.
    fn with_labels(mut self, labels: &Struct) -> Self {
        if let Self::Weighted { shares, .. } = &mut self {
            for share in shares {
                let own = std::mem::replace(&mut share.subset_labels, labels.clone());
                share.subset_labels.extend(own);
            }
        }
        self
    }
}

fn weighted_clusters(at: &FieldPath<'_>, proto: pb::WeightedCluster) -> Result<ClusterSpec, Rejection> {
    verdicts!(at, proto => pb::WeightedCluster {
        supported { clusters, random_value_specifier }
        inert {
            runtime_key_prefix: "names runtime keys, and there is no runtime",
            total_weight: "Envoy has taken the sum of the weights since 1.23",
        }
    });
    use pb::weighted_cluster::RandomValueSpecifier;
    choices!(RandomValueSpecifier { supported { HeaderName, UseHashPolicy } });
    let by = match random_value_specifier {
        Some(RandomValueSpecifier::HeaderName(name)) if !name.is_empty() => {
            ShareChoice::Header(name.to_ascii_lowercase())
        }
        Some(RandomValueSpecifier::UseHashPolicy(uses)) if uses.value => ShareChoice::Hash,
        _ => ShareChoice::Random,
    };
    let weighted = clusters.into_iter().enumerate();
    let weighted =
        weighted.map(|(index, proto)| WeightedCluster::from_proto(&at.field("clusters").index(index), proto));
    let shares = weighted.collect::<Result<Vec<_>, _>>()?;
    let sum: u64 = shares.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if !(1..=u64::from(u32::MAX)).contains(&sum) {
        return Err(at
            .field("clusters")
            .reject(format!("the weights sum to {sum}, not to 1..={}", u32::MAX)));
    }
    Ok(ClusterSpec::Weighted { shares, by })
}

impl WeightedCluster {
    fn from_proto(at: &FieldPath<'_>, proto: pb::weighted_cluster::ClusterWeight) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::weighted_cluster::ClusterWeight {
            supported {
                name, weight, request_headers_to_add, request_headers_to_remove, response_headers_to_add,
                response_headers_to_remove, host_rewrite_specifier, typed_per_filter_config, cluster_header,
                metadata_match,
            }
        });
        match (name.is_empty(), cluster_header.is_empty()) {
            (true, true) => return Err(at.reject("has neither name nor cluster_header")),
            (false, false) => return Err(at.reject("sets both name and cluster_header")),
            _ => (),
        }
        choices!(pb::weighted_cluster::cluster_weight::HostRewriteSpecifier { supported { HostRewriteLiteral } });
        let host = host_rewrite_specifier
            .map(|pb::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)| host);
        Ok(Self {
            name,
            cluster_header: cluster_header.to_ascii_lowercase(),
            weight: at.field("weight").required(weight.value())?,
            host_rewrite: host.filter(|host| !host.is_empty()),
            subset_labels: subset_labels(at, metadata_match)?,
            filter_settings: FilterSettings::list(
                at.field("typed_per_filter_config"),
                typed_per_filter_config,
            )?,
            headers: headers::mutations(
                at,
                headers::Protos {
                    request_headers_to_add,
                    request_headers_to_remove,
                    response_headers_to_add,
                    response_headers_to_remove,
                },
            )?,
        })
    }
}

impl HedgePolicy {
    /// Converts the policy of a route or a virtual host.
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<pb::HedgePolicy>,
    ) -> Result<Option<Self>, Rejection> {
        let Some(proto) = proto else { return Ok(None) };
        verdicts!(at, proto => pb::HedgePolicy {
            supported { hedge_on_per_try_timeout }
            partly { initial_requests: "must be above 0; as in Envoy, whatever it says one is sent" }
            inert { additional_request_chance: "Envoy does nothing with it either" }
        });
        if initial_requests.value() == Some(0) {
            return Err(at.field("initial_requests").reject("must be above 0"));
        }
        Ok(Some(Self {
            on_per_try_timeout: hedge_on_per_try_timeout,
        }))
    }
}
