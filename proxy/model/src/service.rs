//! Services that this proxy itself calls: collectors of logs and spans. Source: envoy/config/core/v3/{grpc_service,http_service,http_uri}.proto.
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{self as pb, grpc_service, http_uri};

use crate::cluster::ClusterName;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::route::{HeaderAddition, header_additions};

/// Called over gRPC. Awaits the telemetry issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcTarget {
    /// Where.
    pub cluster: ClusterName,
    /// `:authority`; empty: the cluster's name.
    pub authority: String,
    /// Of one call; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Headers of every call.
    pub metadata: Vec<(String, String)>,
}

/// Where single questions go over gRPC; which method it is their filter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcMethod {
    /// Where.
    pub asked_cluster: ClusterName,
    /// `:authority`; empty: the cluster's name.
    pub call_authority: String,
    /// Headers of every call, names in lower case.
    pub call_metadata: Vec<(String, String)>,
    /// Calls say that they come from this proxy; Envoy's default true.
    pub tells_envoy: bool,
}

/// Where something is asked for over HTTP. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// What is asked for.
    pub uri: String,
    /// Where.
    pub cluster: ClusterName,
    /// Of one call.
    pub timeout: Duration,
}

/// Called over HTTP. Awaits the telemetry issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// What is asked for.
    pub uri: String,
    /// Where.
    pub cluster: ClusterName,
    /// Of one call.
    pub timeout: Duration,
    /// Headers of every call.
    pub headers: Vec<HeaderAddition>,
}

impl GrpcTarget {
    /// Converts a service that must be there.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: Option<pb::GrpcService>) -> Result<Self, Rejection> {
        verdicts!(at, at.required(proto)? => pb::GrpcService {
            awaited "telemetry" { timeout, initial_metadata, target_specifier }
            unsupported { retry_policy: "telemetry" }
        });
        choices!(grpc_service::TargetSpecifier {
            awaited "telemetry" { EnvoyGrpc }
            refused { GoogleGrpc: "there is no second gRPC library here" }
        });
        let timeout = at.field("timeout").duration(timeout)?;
        let metadata = header_values(at.field("initial_metadata"), initial_metadata)?;
        match target_specifier {
            Some(grpc_service::TargetSpecifier::EnvoyGrpc(proto)) => {
                let at = at.field("envoy_grpc");
                verdicts!(at, proto => grpc_service::EnvoyGrpc {
                    awaited "telemetry" { cluster_name, authority }
                    unsupported {
                        retry_policy: "telemetry", max_receive_message_length: "telemetry", skip_envoy_headers: "telemetry",
                    }
                });
                Ok(Self {
                    cluster: at.field("cluster_name").not_empty(cluster_name)?,
                    authority,
                    timeout,
                    metadata,
                })
            }
            Some(grpc_service::TargetSpecifier::GoogleGrpc(_)) => Err(at
                .field("google_grpc")
                .reject("is not supported; write envoy_grpc")),
            None => Err(at.field("envoy_grpc").reject("is missing")),
        }
    }
}

impl GrpcMethod {
    /// Converts a service that must be there.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: Option<pb::GrpcService>) -> Result<Self, Rejection> {
        verdicts!(at, at.required(proto)? => pb::GrpcService {
            supported { initial_metadata, target_specifier }
            inert { timeout: "the filter that asks has one of its own, and Envoy reads only that" }
            never { retry_policy: "a question that has no answer in time is too late for another one" }
        });
        choices!(grpc_service::TargetSpecifier {
            supported { EnvoyGrpc }
            refused { GoogleGrpc: "there is no second gRPC library here" }
        });
        let call_metadata = self::initial_metadata(at.field("initial_metadata"), initial_metadata)?;
        match target_specifier {
            Some(grpc_service::TargetSpecifier::EnvoyGrpc(proto)) => {
                let at = at.field("envoy_grpc");
                verdicts!(at, proto => grpc_service::EnvoyGrpc {
                    supported { cluster_name, authority, skip_envoy_headers }
                    never {
                        retry_policy: "a question that has no answer in time is too late for another one",
                        max_receive_message_length: "an answer has at most 1 MiB here",
                    }
                });
                Ok(Self {
                    asked_cluster: at.field("cluster_name").not_empty(cluster_name)?,
                    call_authority: authority,
                    call_metadata,
                    tells_envoy: !skip_envoy_headers,
                })
            }
            Some(grpc_service::TargetSpecifier::GoogleGrpc(_)) => Err(at
                .field("google_grpc")
                .reject("is not supported; write envoy_grpc")),
            None => Err(at.field("envoy_grpc").reject("is missing")),
        }
    }
}

/// Converts headers without commands.
pub(crate) fn header_values(
    at: FieldPath<'_>,
    protos: Vec<pb::HeaderValue>,
) -> Result<Vec<(String, String)>, Rejection> {
    let pairs = protos.into_iter().enumerate().map(|(index, proto)| {
        let at = at.index(index);
        verdicts!(at, proto => pb::HeaderValue {
            awaited "telemetry" { key, value }
            unsupported { raw_value: "telemetry" }
        });
        Ok((at.field("key").not_empty(key)?.to_ascii_lowercase(), value))
    });
    pairs.collect()
}

/// Refuses any but V3. Source: Envoy, `Config::Utility::checkTransportVersion`.
pub(crate) fn only_v3(at: &FieldPath<'_>, version: i32) -> Result<(), Rejection> {
    match at.enumeration(version)? {
        pb::ApiVersion::V3 => Ok(()),
        pb::ApiVersion::Auto | pb::ApiVersion::V2 => Err(at.reject("only V3 is supported")),
    }
}

impl Uri {
    /// Converts a place that must be there.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: Option<pb::HttpUri>) -> Result<Self, Rejection> {
        verdicts!(at, at.required(proto)? => pb::HttpUri {
            awaited "security" { uri, timeout, http_upstream_type }
        });
        choices!(http_uri::HttpUpstreamType { awaited "security" { Cluster } });
        let cluster = http_upstream_type.map(|http_uri::HttpUpstreamType::Cluster(name)| name);
        let limit = at.field("timeout");
        Ok(Self {
            uri: at.field("uri").not_empty(uri)?,
            cluster: at.field("cluster").not_empty(cluster.unwrap_or_default())?,
            timeout: limit.required(limit.duration(timeout)?)?,
        })
    }
}

impl HttpTarget {
    /// Converts a service.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::HttpService) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::HttpService {
            awaited "telemetry" { http_uri, request_headers_to_add }
            unsupported { formatters: "telemetry" }
        });
        let field = at.field("http_uri");
        verdicts!(field, field.required(http_uri)? => pb::HttpUri {
            awaited "telemetry" { uri, timeout, http_upstream_type }
        });
        choices!(http_uri::HttpUpstreamType { awaited "telemetry" { Cluster } });
        let cluster = http_upstream_type.map(|http_uri::HttpUpstreamType::Cluster(name)| name);
        let limit = field.field("timeout");
        Ok(Self {
            uri: field.field("uri").not_empty(uri)?,
            cluster: field.field("cluster").not_empty(cluster.unwrap_or_default())?,
            timeout: limit.required(limit.duration(timeout)?)?,
            headers: header_additions(at.field("request_headers_to_add"), request_headers_to_add)?,
        })
    }
}

/// Headers of every stream of a gRPC service: names in lower case, and values without commands.
///
/// # Errors
/// One is not what gRPC metadata may be.
pub(crate) fn initial_metadata(
    at: FieldPath<'_>,
    protos: Vec<pb::HeaderValue>,
) -> Result<Vec<(String, String)>, Rejection> {
    let each = |(index, proto)| {
        let at = at.index(index);
        verdicts!(at, proto => pb::HeaderValue {
            supported { key, value }
            refused { raw_value: "without it the service may answer otherwise; write value" }
        });
        let field = at.field("key");
        let name = field.not_empty(key.to_ascii_lowercase())?;
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !name.bytes().all(is_token) {
            return Err(field.reject(format!("{name:?} is no name of gRPC metadata")));
        }
        if name.ends_with("-bin") {
            let reason = format!("{name:?} is for binary values, which are not supported");
            return Err(field.reject(reason));
        }
        Ok((name, plain(&at.field("value"), &value)?))
    };
    protos.into_iter().enumerate().map(each).collect()
}

/// Text in which `%%` is a percent sign.
fn plain(at: &FieldPath<'_>, text: &str) -> Result<String, Rejection> {
    if text.matches("%%").count() * 2 != text.matches('%').count() {
        return Err(at.reject("commands (`%…%`) are not supported here; write `%%` for a percent sign"));
    }
    if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err(at.reject("has a byte that gRPC metadata may not have"));
    }
    Ok(text.replace("%%", "%"))
}
