//! gRPC statistics. Source: envoy/extensions/filters/http/grpc_stats/v3/config.proto.
use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3::{
    self as pb, filter_config::PerMethodStatSpecifier,
};
use envoy_types::pb::google::protobuf;

use crate::field::{FieldPath, Rejection, choices, verdicts};

/// Counts gRPC requests and messages for each cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcStats {
    /// Message counts are told to `istio.stats`.
    pub emit_filter_state: bool,
    /// Which methods have counters of their own.
    pub counted_methods: CountedMethods,
    /// `a_b` stands in the names of counters for a service `a.b`; only when all methods are counted.
    pub joins_service_names: bool,
    /// How long the upstream took is recorded.
    pub times_upstream: bool,
}

/// Which methods have counters of their own; others are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CountedMethods {
    /// None.
    #[default]
    None,
    /// All; clients make up their names.
    All,
    /// Those of these services and names.
    Listed(BTreeSet<(String, String)>),
}

impl GrpcStats {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::FilterConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::FilterConfig {
            supported {
                emit_filter_state, per_method_stat_specifier, enable_upstream_stats, replace_dots_in_grpc_service_name,
            }
        });
        choices!(PerMethodStatSpecifier {
            supported { IndividualMethodStatsAllowlist }
            partly { StatsForAllMethods: "a cluster has counters for 1000 methods; further ones are counted together" }
        });
        Ok(Self {
            emit_filter_state,
            counted_methods: match per_method_stat_specifier {
                Some(PerMethodStatSpecifier::StatsForAllMethods(protobuf::BoolValue { value: true })) => {
                    CountedMethods::All
                }
                Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(proto)) => {
                    listed(&at.field("individual_method_stats_allowlist"), proto)?
                }
                Some(PerMethodStatSpecifier::StatsForAllMethods(_)) | None => CountedMethods::None,
            },
            joins_service_names: replace_dots_in_grpc_service_name,
            times_upstream: enable_upstream_stats,
        })
    }
}

fn listed(at: &FieldPath<'_>, proto: core::GrpcMethodList) -> Result<CountedMethods, Rejection> {
    verdicts!(at, proto => core::GrpcMethodList { supported { services } });
    let mut methods = BTreeSet::new();
    for (index, proto) in services.into_iter().enumerate() {
        let at = at.field("services").index(index);
        verdicts!(at, proto => core::grpc_method_list::Service { supported { name, method_names } });
        let service = at.field("name").not_empty(name)?;
        if method_names.is_empty() {
            return Err(at.field("method_names").reject("needs at least one name"));
        }
        methods.extend(method_names.into_iter().map(|method| (service.clone(), method)));
    }
    Ok(CountedMethods::Listed(methods))
}
