//! Protobuf to [`AccessLogFilter`].
use envoy_types::pb::envoy::config::accesslog::v3::{
    self as pb, access_log_filter::FilterSpecifier, comparison_filter::Op, extension_filter,
};
use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;

use super::{AccessLogFilter, AwaitedFilter, Comparison, Operator};
use crate::any::{TypedConfig, types};
use crate::cel;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::fraction::Fraction;
use crate::matcher::HeaderMatcher;

/// The short names a response flag filter may list. Source: accesslog.proto, `ResponseFlagFilter`.
const RESPONSE_FLAGS: [&str; 30] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX",
    "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
];

/// What is told of an answer whose filter nothing judges.
const NOT_JUDGED_FOR_REPLIES: &str =
    "is judged by nothing here, so its mapper changes nothing: the telemetry issue builds it";

/// What a filter chooses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Entries,
    Replies,
}

/// What is told of a log whose filter nothing judges.
const NOT_JUDGED: &str =
    "is judged by nothing here, so its log writes nothing: the telemetry issue builds it";

impl AccessLogFilter {
    /// Converts the filter of a log.
    pub(super) fn from_proto(at: &FieldPath<'_>, proto: pb::AccessLogFilter) -> Result<Self, Rejection> {
        Self::of(Of::Entries, at, proto)
    }

    /// Converts the filter of a mapper of local replies.
    pub(crate) fn for_replies(at: &FieldPath<'_>, proto: pb::AccessLogFilter) -> Result<Self, Rejection> {
        Self::of(Of::Replies, at, proto)
    }

    fn of(of: Of, at: &FieldPath<'_>, proto: pb::AccessLogFilter) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::AccessLogFilter { supported { filter_specifier } });
        choices!(FilterSpecifier {
            supported { ResponseFlagFilter, StatusCodeFilter, DurationFilter, AndFilter, OrFilter }
            awaited "telemetry" {
                TraceableFilter, GrpcStatusFilter, ExtensionFilter, MetadataFilter, LogTypeFilter,
            }
            partly {
                NotHealthCheckFilter: "of local replies; a log that has it writes nothing: the telemetry issue builds it",
                RuntimeFilter: "of local replies; a log that has it writes nothing: the telemetry issue builds it",
                HeaderFilter: "of local replies; a log that has it writes nothing: the telemetry issue builds it",
            }
        });
        Ok(match at.required(filter_specifier)? {
            FilterSpecifier::ResponseFlagFilter(proto) => {
                Self::ResponseFlag(response_flags(&at.field("response_flag_filter"), proto)?)
            }
            FilterSpecifier::StatusCodeFilter(proto) => {
                let at = at.field("status_code_filter");
                verdicts!(at, proto => pb::StatusCodeFilter { supported { comparison } });
                Self::StatusCode(Comparison::from_proto(&at.field("comparison"), comparison)?)
            }
            FilterSpecifier::DurationFilter(proto) => {
                let at = at.field("duration_filter");
                verdicts!(at, proto => pb::DurationFilter { supported { comparison } });
                Self::Duration(Comparison::from_proto(&at.field("comparison"), comparison)?)
            }
            FilterSpecifier::AndFilter(proto) => {
                let at = at.field("and_filter");
                verdicts!(at, proto => pb::AndFilter { supported { filters } });
                Self::And(several(of, at.field("filters"), filters)?)
            }
            FilterSpecifier::OrFilter(proto) => {
                let at = at.field("or_filter");
                verdicts!(at, proto => pb::OrFilter { supported { filters } });
                Self::Or(several(of, at.field("filters"), filters)?)
            }
            awaited => {
                let filter = AwaitedFilter::from_proto(at, awaited)?;
                match of {
                    Of::Entries => at.problem(NOT_JUDGED),
                    Of::Replies if filter.is_of_replies() => (),
                    Of::Replies => at.problem(NOT_JUDGED_FOR_REPLIES),
                }
                Self::Awaited(filter)
            }
        })
    }
}

fn several(
    of: Of,
    at: FieldPath<'_>,
    protos: Vec<pb::AccessLogFilter>,
) -> Result<Vec<AccessLogFilter>, Rejection> {
    if protos.len() < 2 {
        return Err(at.reject("needs at least two filters"));
    }
    let filters = protos.into_iter().enumerate();
    filters
        .map(|(index, proto)| AccessLogFilter::of(of, &at.index(index), proto))
        .collect()
}

fn response_flags(at: &FieldPath<'_>, proto: pb::ResponseFlagFilter) -> Result<Vec<String>, Rejection> {
    verdicts!(at, proto => pb::ResponseFlagFilter { supported { flags } });
    for (index, flag) in flags.iter().enumerate() {
        if !RESPONSE_FLAGS.contains(&flag.as_str()) {
            let reason = format!("{flag:?} is no response flag");
            return Err(at
                .field("flags")
                .index(index)
                .reject_name(reason, flag, RESPONSE_FLAGS));
        }
    }
    Ok(flags)
}

impl Comparison {
    fn from_proto(at: &FieldPath<'_>, proto: Option<pb::ComparisonFilter>) -> Result<Self, Rejection> {
        verdicts!(at, at.required(proto)? => pb::ComparisonFilter { supported { op, value } });
        let field = at.field("value");
        Ok(Self {
            operator: match at.field("op").enumeration(op)? {
                Op::Eq => Operator::Equal,
                Op::Ge => Operator::AtLeast,
                Op::Le => Operator::AtMost,
                Op::Ne => Operator::NotEqual,
            },
            value: field.required(field.runtime_u32(value))?,
        })
    }
}

impl AwaitedFilter {
    /// It is judged where answers are made.
    fn is_of_replies(&self) -> bool {
        matches!(self, Self::NotHealthCheck | Self::Share { .. } | Self::Header(_))
    }

    fn from_proto(at: &FieldPath<'_>, proto: FilterSpecifier) -> Result<Self, Rejection> {
        Ok(match proto {
            FilterSpecifier::NotHealthCheckFilter(proto) => {
                verdicts!((), proto => pb::NotHealthCheckFilter {});
                Self::NotHealthCheck
            }
            FilterSpecifier::TraceableFilter(proto) => {
                verdicts!((), proto => pb::TraceableFilter {});
                Self::Traceable
            }
            FilterSpecifier::RuntimeFilter(proto) => {
                let at = at.field("runtime_filter");
                verdicts!(at, proto => pb::RuntimeFilter {
                    partly {
                        percent_sampled: "of local replies",
                        use_independent_randomness: "of local replies",
                        runtime_key: "must be there; there is no runtime, and percent_sampled counts",
                    }
                });
                at.field("runtime_key").not_empty(runtime_key)?;
                let share = at.field("percent_sampled").fraction(percent_sampled)?;
                Self::Share {
                    share: share.unwrap_or(Fraction::NONE),
                    independent: use_independent_randomness,
                }
            }
            FilterSpecifier::HeaderFilter(proto) => {
                let at = at.field("header_filter");
                verdicts!(at, proto => pb::HeaderFilter { partly { header: "of local replies" } });
                let field = at.field("header");
                Self::Header(HeaderMatcher::from_proto(&field, field.required(header)?)?)
            }
            FilterSpecifier::GrpcStatusFilter(proto) => {
                let at = at.field("grpc_status_filter");
                verdicts!(at, proto => pb::GrpcStatusFilter { awaited "telemetry" { statuses, exclude } });
                for (index, status) in statuses.iter().enumerate() {
                    at.field("statuses")
                        .index(index)
                        .enumeration::<pb::grpc_status_filter::Status>(*status)?;
                }
                Self::GrpcStatus { statuses, exclude }
            }
            FilterSpecifier::LogTypeFilter(proto) => {
                let at = at.field("log_type_filter");
                verdicts!(at, proto => pb::LogTypeFilter { awaited "telemetry" { types, exclude } });
                for (index, kind) in types.iter().enumerate() {
                    at.field("types")
                        .index(index)
                        .enumeration::<AccessLogType>(*kind)?;
                }
                Self::LogType { types, exclude }
            }
            FilterSpecifier::ExtensionFilter(proto) => {
                Self::Cel(extension(&at.field("extension_filter"), proto)?)
            }
            FilterSpecifier::MetadataFilter(proto) => {
                let at = at.field("metadata_filter");
                verdicts!(at, proto => pb::MetadataFilter {
                    unsupported { matcher: "telemetry", match_if_key_not_found: "telemetry" }
                });
                Self::Metadata
            }
            // The caller has the ones that exist.
            FilterSpecifier::ResponseFlagFilter(_)
            | FilterSpecifier::StatusCodeFilter(_)
            | FilterSpecifier::DurationFilter(_)
            | FilterSpecifier::AndFilter(_)
            | FilterSpecifier::OrFilter(_) => return Err(at.reject("is judged elsewhere")),
        })
    }
}

/// A CEL expression, checked to be one. Source: Envoy refuses a filter whose expression does not parse.
fn extension(at: &FieldPath<'_>, proto: pb::ExtensionFilter) -> Result<String, Rejection> {
    verdicts!(at, proto => pb::ExtensionFilter {
        awaited "telemetry" { config_type }
        partly { name: "in rejections; what a filter does is in the type of its config" }
    });
    choices!(extension_filter::ConfigType { awaited "telemetry" { TypedConfig } });
    let any = config_type.map(|extension_filter::ConfigType::TypedConfig(any)| any);
    let at = at.field("typed_config");
    let config = TypedConfig::open(&at, any)?;
    if config.type_name != types::CEL_FILTER {
        return Err(config.reject(&at, "access log filter", &name, &[types::CEL_FILTER]));
    }
    verdicts!(at, config.message(&at)? => ExpressionFilter {
        awaited "telemetry" { expression }
        unsupported { cel_config: "telemetry" }
    });
    let at = at.field("expression");
    match cel::check(&expression) {
        Ok(()) => Ok(expression),
        Err(error) => Err(at.reject(format!("is no CEL expression: {error}"))),
    }
}
