//! Protobuf to [`OpenTelemetryLog`] and [`GrpcLog`].
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::grpc::v3 as grpc;
use envoy_types::pb::envoy::extensions::access_loggers::open_telemetry::v3 as otel;
use envoy_types::pb::google::protobuf;
use envoy_types::pb::opentelemetry::proto::common::v1 as common;

use super::from_proto::{check_format, check_formats};
use super::{GrpcLog, LogBatch, LogService, OpenTelemetryLog};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::metadata::{Struct, Value};
use crate::scalar::Wrapped;
use crate::service::{GrpcTarget, HttpTarget};

const INTERVAL: Duration = Duration::from_secs(1);
const BYTES: u32 = 16 * 1024;

impl LogBatch {
    fn from_protos(
        at: &FieldPath<'_>,
        interval: Option<protobuf::Duration>,
        bytes: Option<protobuf::UInt32Value>,
    ) -> Result<Self, Rejection> {
        let interval = at.field("buffer_flush_interval").positive(interval)?;
        Ok(Self {
            interval: interval.unwrap_or(INTERVAL),
            bytes: bytes.value().unwrap_or(BYTES),
        })
    }
}

/// What every logger over gRPC has.
struct CommonExport {
    service: Option<core::GrpcService>,
    log_name: String,
    batch: LogBatch,
    filter_state: Vec<String>,
}

impl CommonExport {
    fn from_proto(at: &FieldPath<'_>, proto: grpc::CommonGrpcAccessLogConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => grpc::CommonGrpcAccessLogConfig {
            awaited "telemetry" {
                log_name, grpc_service, buffer_flush_interval, buffer_size_bytes, filter_state_objects_to_log,
            }
            partly { transport_api_version: "V3 only; others are refused, as in Envoy" }
            unsupported { grpc_stream_retry_policy: "telemetry", custom_tags: "telemetry" }
        });
        let field = at.field("transport_api_version");
        match field.enumeration(transport_api_version)? {
            core::ApiVersion::V3 | core::ApiVersion::Auto => (),
            core::ApiVersion::V2 => return Err(field.reject("V2 is not supported; write V3")),
        }
        Ok(Self {
            service: grpc_service,
            log_name: at.field("log_name").not_empty(log_name)?,
            batch: LogBatch::from_protos(at, buffer_flush_interval, buffer_size_bytes)?,
            filter_state: filter_state_objects_to_log,
        })
    }
}

impl GrpcLog {
    /// Converts the logger for HTTP.
    pub(super) fn http(at: &FieldPath<'_>, proto: grpc::HttpGrpcAccessLogConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => grpc::HttpGrpcAccessLogConfig {
            awaited "telemetry" {
                common_config, additional_request_headers_to_log, additional_response_headers_to_log,
                additional_response_trailers_to_log,
            }
        });
        let lower = |names: Vec<String>| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Ok(Self {
            request_headers: lower(additional_request_headers_to_log),
            response_headers: lower(additional_response_headers_to_log),
            response_trailers: lower(additional_response_trailers_to_log),
            ..Self::common(&at.field("common_config"), common_config, false)?
        })
    }

    /// Converts the logger for TCP.
    pub(super) fn tcp(at: &FieldPath<'_>, proto: grpc::TcpGrpcAccessLogConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => grpc::TcpGrpcAccessLogConfig { awaited "telemetry" { common_config } });
        Self::common(&at.field("common_config"), common_config, true)
    }

    fn common(
        at: &FieldPath<'_>,
        proto: Option<grpc::CommonGrpcAccessLogConfig>,
        is_tcp: bool,
    ) -> Result<Self, Rejection> {
        let common = CommonExport::from_proto(at, at.required(proto)?)?;
        Ok(Self {
            is_tcp,
            service: GrpcTarget::from_proto(&at.field("grpc_service"), common.service)?,
            log_name: common.log_name,
            batch: common.batch,
            filter_state: common.filter_state,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            response_trailers: Vec::new(),
        })
    }
}

impl OpenTelemetryLog {
    /// Converts the logger. Its service stands in one of three places, of which the oldest is what istiod writes.
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        proto: otel::OpenTelemetryAccessLogConfig,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => otel::OpenTelemetryAccessLogConfig {
            awaited "telemetry" {
                common_config, http_service, grpc_service, disable_builtin_labels, resource_attributes, body, attributes,
                log_name, buffer_flush_interval, buffer_size_bytes, filter_state_objects_to_log,
            }
            inert { formatters: "bring commands, and those of Envoy's formatters are known without being brought" }
            unsupported { resource_detectors: "telemetry", stat_prefix: "telemetry", custom_tags: "telemetry" }
        });
        let field = at.field("common_config");
        let common = match common_config {
            Some(proto) => CommonExport::from_proto(&field, proto)?,
            None => CommonExport {
                service: None,
                log_name,
                batch: LogBatch::from_protos(at, buffer_flush_interval, buffer_size_bytes)?,
                filter_state: filter_state_objects_to_log,
            },
        };
        let service = match (http_service, grpc_service, common.service) {
            (Some(http), None, None) => {
                LogService::Http(HttpTarget::from_proto(&at.field("http_service"), http)?)
            }
            (None, Some(grpc), None) => {
                LogService::Grpc(GrpcTarget::from_proto(&at.field("grpc_service"), Some(grpc))?)
            }
            (None, None, Some(grpc)) => {
                LogService::Grpc(GrpcTarget::from_proto(&field.field("grpc_service"), Some(grpc))?)
            }
            (None, None, None) => return Err(at.field("grpc_service").reject("is missing")),
            _ => return Err(at.reject("names more than one service")),
        };
        let body_at = at.field("body");
        let body = body.map(|proto| any_value(&body_at, proto)).transpose()?;
        body.iter().try_for_each(|body| check_format(&body_at, body))?;
        let attributes_at = at.field("attributes");
        let attributes = key_values(&attributes_at, attributes.unwrap_or_default())?;
        check_formats(&attributes_at, &attributes)?;
        Ok(Self {
            service,
            log_name: common.log_name,
            body,
            attributes,
            resource_attributes: key_values(
                &at.field("resource_attributes"),
                resource_attributes.unwrap_or_default(),
            )?,
            disable_builtin_labels,
            batch: common.batch,
            filter_state: common.filter_state,
        })
    }
}

fn key_values(at: &FieldPath<'_>, proto: common::KeyValueList) -> Result<Struct, Rejection> {
    verdicts!(at, proto => common::KeyValueList { awaited "telemetry" { values } });
    let values = values.into_iter().enumerate().map(|(index, proto)| {
        let at = at.field("values").index(index);
        verdicts!(at, proto => common::KeyValue {
            awaited "telemetry" { key, value }
            inert { key_strindex: "points into a table that only profiles have" }
        });
        Ok((key, any_value(&at.field("value"), value.unwrap_or_default())?))
    });
    values.collect()
}

fn any_value(at: &FieldPath<'_>, proto: common::AnyValue) -> Result<Value, Rejection> {
    use common::any_value::Value as Kind;
    verdicts!(at, proto => common::AnyValue { awaited "telemetry" { value } });
    choices!(common::any_value::Value {
        awaited "telemetry" { StringValue, BoolValue, IntValue, DoubleValue, ArrayValue, KvlistValue, BytesValue }
        refused { StringValueStrindex: "it points into a table that only profiles have" }
    });
    Ok(match value {
        None => Value::Null,
        Some(Kind::StringValueStrindex(_)) => {
            return Err(at
                .field("string_value_strindex")
                .reject("points into a table that is not there"));
        }
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        // Exact up to 2^53, as in JSON.
        Some(Kind::IntValue(value)) => Value::Number(value as f64),
        Some(Kind::DoubleValue(value)) if value.is_nan() => return Err(at.reject("is not a number")),
        Some(Kind::DoubleValue(value)) => Value::Number(value),
        Some(Kind::BytesValue(bytes)) => {
            Value::List(bytes.into_iter().map(|byte| Value::Number(byte.into())).collect())
        }
        Some(Kind::KvlistValue(list)) => Value::Struct(key_values(at, list)?),
        Some(Kind::ArrayValue(proto)) => {
            verdicts!(at, proto => common::ArrayValue { awaited "telemetry" { values } });
            let values = values.into_iter().map(|value| any_value(at, value));
            Value::List(values.collect::<Result<_, _>>()?)
        }
    })
}
