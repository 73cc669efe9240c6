//! Protobuf to [`Provider`]. Source: envoy/config/trace/v3/{http_tracer,zipkin,opentelemetry}.proto.
use envoy_types::pb::envoy::config::trace::v3::{self as pb, tracing::http, zipkin_config};

use super::{OpenTelemetry, Provider, Zipkin, ZipkinCollector};
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::scalar::Wrapped;
use crate::service::{GrpcTarget, HttpTarget};

/// `OpenTelemetryConfig.max_cache_size` when unset.
const MAX_CACHE_SIZE: u32 = 1024;

/// Providers that Envoy has and that Istio's configuration may name; of them no more is read than the type.
const OTHERS: [&str; 5] = [
    "envoy.config.trace.v3.DatadogConfig",
    "envoy.config.trace.v3.SkyWalkingConfig",
    "envoy.config.trace.v3.LightstepConfig",
    "envoy.config.trace.v3.OpenCensusConfig",
    "envoy.config.trace.v3.XRayConfig",
];

impl Provider {
    /// Converts a provider. Whoever holds it lists that it has no effect.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::tracing::Http) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::tracing::Http {
            awaited "telemetry" { config_type }
            partly { name: "in rejections; what a provider does is in the type of its config" }
        });
        choices!(http::ConfigType { awaited "telemetry" { TypedConfig } });
        let any = config_type.map(|http::ConfigType::TypedConfig(any)| any);
        let at = at.field("typed_config");
        let config = TypedConfig::open(&at, any)?;
        Ok(match config.type_name.as_str() {
            types::ZIPKIN => Self::Zipkin(Zipkin::from_proto(&at, config.message(&at)?)?),
            types::OPEN_TELEMETRY => {
                Self::OpenTelemetry(OpenTelemetry::from_proto(&at, config.message(&at)?)?)
            }
            other if OTHERS.contains(&other) => Self::Other(other.to_owned()),
            _ => {
                let valid = [types::ZIPKIN, types::OPEN_TELEMETRY];
                return Err(config.reject(&at, "tracing provider", &name, &valid));
            }
        })
    }
}

impl Zipkin {
    fn from_proto(at: &FieldPath<'_>, proto: pb::ZipkinConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ZipkinConfig {
            awaited "telemetry" {
                collector_cluster, collector_endpoint, trace_id_128bit, shared_span_context, collector_endpoint_version,
                collector_hostname, split_spans_for_request, trace_context_option, collector_service, timestamp_trace_ids,
            }
        });
        let collector = match collector_service {
            Some(proto) => {
                ZipkinCollector::Service(HttpTarget::from_proto(&at.field("collector_service"), proto)?)
            }
            None => ZipkinCollector::Cluster {
                cluster: at.field("collector_cluster").not_empty(collector_cluster)?,
                endpoint: at.field("collector_endpoint").not_empty(collector_endpoint)?,
                hostname: collector_hostname,
            },
        };
        let field = at.field("collector_endpoint_version");
        let is_proto = match field.enumeration(collector_endpoint_version)? {
            zipkin_config::CollectorEndpointVersion::HttpJson => false,
            zipkin_config::CollectorEndpointVersion::HttpProto => true,
            zipkin_config::CollectorEndpointVersion::DeprecatedAndUnavailableDoNotUse
            | zipkin_config::CollectorEndpointVersion::Grpc => {
                return Err(field.reject("must be HTTP_JSON or HTTP_PROTO"));
            }
        };
        Ok(Self {
            collector,
            is_proto,
            long_trace_ids: trace_id_128bit,
            shares_spans: shared_span_context.value().unwrap_or(true),
            splits_spans: split_spans_for_request,
            also_w3c: match at
                .field("trace_context_option")
                .enumeration(trace_context_option)?
            {
                zipkin_config::TraceContextOption::UseB3 => false,
                zipkin_config::TraceContextOption::UseB3WithW3cPropagation => true,
            },
            timestamp_trace_ids,
        })
    }
}

impl OpenTelemetry {
    fn from_proto(at: &FieldPath<'_>, proto: pb::OpenTelemetryConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::OpenTelemetryConfig {
            awaited "telemetry" { grpc_service, http_service, service_name, max_cache_size }
            unsupported {
                exporter: "telemetry", resource_detectors: "telemetry", sampler: "telemetry",
                set_telemetry_sdk_resource_attributes: "telemetry", set_service_name_resource_attribute: "telemetry",
                set_instrumentation_scope: "telemetry",
            }
        });
        if grpc_service.is_some() && http_service.is_some() {
            return Err(at.reject("sets both grpc_service and http_service"));
        }
        let grpc = grpc_service.map(|proto| GrpcTarget::from_proto(&at.field("grpc_service"), Some(proto)));
        let http = http_service.map(|proto| HttpTarget::from_proto(&at.field("http_service"), proto));
        Ok(Self {
            grpc: grpc.transpose()?,
            http: http.transpose()?,
            service_name,
            max_cache_size: max_cache_size.value().unwrap_or(MAX_CACHE_SIZE),
        })
    }
}
