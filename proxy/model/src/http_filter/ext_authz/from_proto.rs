//! Protobuf to [`ExtAuthz`].
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::{
    self as pb, check_settings, ext_authz, ext_authz_per_route,
};
use envoy_types::pb::envoy::r#type::matcher::v3::ListStringMatcher;
use envoy_types::pb::envoy::r#type::v3::{HttpStatus, StatusCode};

use super::{AuthorizationService, BufferSettings, ExtAuthz, HttpAuthorization, RouteSettings};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::fraction::Fraction;
use crate::matcher::StringMatcher;
use crate::matcher::metadata::MetadataMatcher;
use crate::scalar::Wrapped;
use crate::service::{GrpcTarget, Uri, header_values, only_v3};

impl ExtAuthz {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::ExtAuthz) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ExtAuthz {
            awaited "security" {
                services, failure_mode_allow, failure_mode_allow_header_add, with_request_body, clear_route_cache, status_on_error,
                validate_mutations, metadata_context_namespaces, filter_enabled, filter_enabled_metadata, deny_at_disable,
                include_peer_certificate, stat_prefix, allowed_headers, disallowed_headers, include_tls_session,
            }
            partly { transport_api_version: "V3 only; others are refused, as in Envoy" }
            unsupported {
                typed_metadata_context_namespaces: "security", route_metadata_context_namespaces: "security",
                route_typed_metadata_context_namespaces: "security", bootstrap_metadata_labels_key: "security",
                charge_cluster_response_stats: "security", encode_raw_headers: "security",
                enable_dynamic_metadata_ingestion: "security", filter_metadata: "security", emit_filter_state_stats: "security",
                max_denied_response_body_bytes: "security", enforce_response_header_limits: "security",
                emit_client_span: "telemetry",
            }
            refused {
                decoder_header_mutation_rules: "ignoring it would let the server change any header",
                shadow_mode: "taking its answers for real would refuse requests that are to pass",
            }
        });
        only_v3(&at.field("transport_api_version"), transport_api_version)?;
        choices!(ext_authz::Services { awaited "security" { GrpcService, HttpService } });
        let service = match services {
            Some(ext_authz::Services::GrpcService(proto)) => grpc(at, proto)?,
            Some(ext_authz::Services::HttpService(proto)) => http(at, proto)?,
            None => return Err(at.reject("has neither grpc_service nor http_service")),
        };
        let field = at.field("filter_enabled");
        Ok(Self {
            service,
            failure_mode_allow,
            failure_mode_allow_header_add,
            body: buffer(&at.field("with_request_body"), with_request_body)?,
            clear_route_cache,
            status_on_error: status(&at.field("status_on_error"), status_on_error)?.unwrap_or(403),
            validate_mutations,
            enabled: field.runtime_fraction(filter_enabled)?.unwrap_or(Fraction::ALL),
            enabled_metadata: metadata(&at.field("filter_enabled_metadata"), filter_enabled_metadata)?,
            deny_at_disable: flag(deny_at_disable),
            include_peer_certificate,
            include_tls_session,
            metadata_namespaces: metadata_context_namespaces,
            stat_prefix,
            allowed_headers: strings(&at.field("allowed_headers"), allowed_headers)?,
            disallowed_headers: strings(&at.field("disallowed_headers"), disallowed_headers)?,
        })
    }
}

impl RouteSettings {
    /// Converts the settings of a route.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::ExtAuthzPerRoute) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::ExtAuthzPerRoute { awaited "security" { r#override } });
        choices!(ext_authz_per_route::Override { awaited "security" { Disabled, CheckSettings } });
        let proto = match at.required(r#override)? {
            ext_authz_per_route::Override::Disabled(true) => return Ok(Self::Disabled),
            ext_authz_per_route::Override::Disabled(false) => pb::CheckSettings::default(),
            ext_authz_per_route::Override::CheckSettings(proto) => proto,
        };
        let at = at.field("check_settings");
        verdicts!(at, proto => pb::CheckSettings {
            awaited "security" {
                context_extensions, disable_request_body_buffering, with_request_body, service_override,
            }
            unsupported { emit_client_span: "telemetry" }
        });
        choices!(check_settings::ServiceOverride { awaited "security" { GrpcService, HttpService } });
        let body = buffer(&at.field("with_request_body"), with_request_body)?;
        if body.is_some() && disable_request_body_buffering {
            return Err(at.reject("has both with_request_body and disable_request_body_buffering"));
        }
        let mut context: Vec<_> = context_extensions.into_iter().collect();
        context.sort();
        Ok(Self::Check {
            context,
            body,
            without_body: disable_request_body_buffering,
            service: match service_override {
                Some(check_settings::ServiceOverride::GrpcService(proto)) => Some(grpc(&at, proto)?),
                Some(check_settings::ServiceOverride::HttpService(proto)) => Some(http(&at, proto)?),
                None => None,
            },
        })
    }
}

fn grpc(at: &FieldPath<'_>, proto: core::GrpcService) -> Result<AuthorizationService, Rejection> {
    let target = GrpcTarget::from_proto(&at.field("grpc_service"), Some(proto))?;
    Ok(AuthorizationService::Grpc(target))
}

fn http(at: &FieldPath<'_>, proto: pb::HttpService) -> Result<AuthorizationService, Rejection> {
    let at = at.field("http_service");
    verdicts!(at, proto => pb::HttpService {
        awaited "security" { server_uri, path_prefix, path_override, authorization_request, authorization_response }
        unsupported { retry_policy: "security" }
    });
    let headers_to_add = request(&at.field("authorization_request"), authorization_request)?;
    let answer = at.field("authorization_response");
    verdicts!(answer, authorization_response.unwrap_or_default() => pb::AuthorizationResponse {
        awaited "security" {
            allowed_upstream_headers, allowed_upstream_headers_to_append, allowed_client_headers,
            allowed_client_headers_on_success, dynamic_metadata_from_headers,
        }
    });
    let list = |field, proto| strings(&answer.field(field), proto);
    if !path_prefix.is_empty() && !path_override.is_empty() {
        return Err(at.field("path_override").reject("cannot be beside path_prefix"));
    }
    Ok(AuthorizationService::Http(Box::new(HttpAuthorization {
        uri: Uri::from_proto(&at.field("server_uri"), server_uri)?,
        path_prefix: path(&at.field("path_prefix"), path_prefix)?,
        path_override: path(&at.field("path_override"), path_override)?,
        headers_to_add,
        upstream_headers: list("allowed_upstream_headers", allowed_upstream_headers)?,
        upstream_headers_to_append: list(
            "allowed_upstream_headers_to_append",
            allowed_upstream_headers_to_append,
        )?,
        client_headers: list("allowed_client_headers", allowed_client_headers)?,
        client_headers_on_success: list(
            "allowed_client_headers_on_success",
            allowed_client_headers_on_success,
        )?,
        dynamic_metadata: list("dynamic_metadata_from_headers", dynamic_metadata_from_headers)?,
    })))
}

fn request(
    at: &FieldPath<'_>,
    proto: Option<pb::AuthorizationRequest>,
) -> Result<Vec<(String, String)>, Rejection> {
    verdicts!(at, proto.unwrap_or_default() => pb::AuthorizationRequest {
        awaited "security" { headers_to_add }
        refused { allowed_headers: "it gave way to the filter's own allowed_headers, which Envoy reads instead" }
    });
    header_values(at.field("headers_to_add"), headers_to_add)
}

/// Envoy: "path_prefix should start with "/"".
fn path(at: &FieldPath<'_>, path: String) -> Result<String, Rejection> {
    match path.is_empty() || path.starts_with('/') {
        true => Ok(path),
        false => Err(at.reject(format!("{path:?} does not begin with \"/\""))),
    }
}

fn buffer(
    at: &FieldPath<'_>,
    proto: Option<pb::BufferSettings>,
) -> Result<Option<BufferSettings>, Rejection> {
    let Some(proto) = proto else { return Ok(None) };
    verdicts!(at, proto => pb::BufferSettings {
        awaited "security" { max_request_bytes, allow_partial_message, pack_as_bytes }
    });
    Ok(Some(BufferSettings {
        max_bytes: at
            .field("max_request_bytes")
            .within(max_request_bytes, 1..=u32::MAX)?,
        allow_partial: allow_partial_message,
        as_bytes: pack_as_bytes,
    }))
}

fn status(at: &FieldPath<'_>, proto: Option<HttpStatus>) -> Result<Option<u16>, Rejection> {
    let Some(proto) = proto else { return Ok(None) };
    verdicts!(at, proto => HttpStatus { awaited "security" { code } });
    let at = at.field("code");
    // An enum whose numbers are the codes, but for 0.
    match at.enumeration::<StatusCode>(code)? {
        StatusCode::Empty => Err(at.reject("must not be 0")),
        code => Ok(u16::try_from(code as i32).ok()),
    }
}

fn flag(proto: Option<core::RuntimeFeatureFlag>) -> bool {
    verdicts!((), proto.unwrap_or_default() => core::RuntimeFeatureFlag {
        awaited "security" { default_value }
        inert { runtime_key: "names a runtime key, and there is no runtime: the default counts" }
    });
    default_value.value().unwrap_or(false)
}

fn metadata(
    at: &FieldPath<'_>,
    proto: Option<envoy_types::pb::envoy::r#type::matcher::v3::MetadataMatcher>,
) -> Result<Option<MetadataMatcher>, Rejection> {
    proto
        .map(|proto| MetadataMatcher::from_proto(at, proto))
        .transpose()
}

fn strings(at: &FieldPath<'_>, proto: Option<ListStringMatcher>) -> Result<Vec<StringMatcher>, Rejection> {
    let Some(proto) = proto else { return Ok(Vec::new()) };
    verdicts!(at, proto => ListStringMatcher { awaited "security" { patterns } });
    let at = at.field("patterns");
    if patterns.is_empty() {
        return Err(at.reject("needs at least one item"));
    }
    StringMatcher::list(at, patterns)
}
