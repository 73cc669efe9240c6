//! Protobuf to [`HttpConnectionManager`].
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    self as pb,
    http_connection_manager::{self as hcm, RouteSpecifier},
};
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use envoy_types::pb::google::protobuf;

use super::client::ClientFinder;
use super::extras::{self, HeadExtras, HostPort, NewScheme, ProxyStatus};
use super::local_reply::LocalReplies;
use super::{
    ClientCertDetails, CodecType, EscapedSlashes, ForwardClientCert, HeadersWithUnderscores,
    HttpConnectionManager, RouteSource, ServerHeader, Upgrade,
};
use crate::access_log::AccessLog;
use crate::any::{TypedConfig, types};
use crate::bootstrap::ConfigSource;
use crate::cluster::{Http1Options, Http2Options, Jittered, NameCase, Percent};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::http_filter;
use crate::route::RouteTableConfig;
use crate::scalar::Wrapped;
use crate::scoped_routes::ScopedRoutes;
use crate::tracing::Tracing;

const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_DELAY: Duration = Duration::from_secs(1);
const MAX_REQUEST_HEADERS_KB: u32 = 60;
const MAX_REQUEST_HEADERS_COUNT: u32 = 100;

impl HttpConnectionManager {
    /// Converts the filter.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        proto: pb::HttpConnectionManager,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::HttpConnectionManager {
            supported {
                codec_type, stat_prefix, http_filters, tracing, upgrade_configs, common_http_protocol_options, http_protocol_options,
                http2_protocol_options, server_name, server_header_transformation, max_request_headers_kb,
                request_headers_timeout, stream_idle_timeout, drain_timeout, access_log,
                generate_request_id, forward_client_cert_details, set_current_client_cert_details, normalize_path,
                merge_slashes, path_with_escaped_slashes_action, route_specifier, use_remote_address, add_proxy_protocol_connection_state,
                preserve_external_request_id, proxy_100_continue, http1_safe_max_connection_duration, drain_timeout_jitter,
                delayed_close_timeout, local_reply_config, add_user_agent, scheme_header_transformation,
                skip_xff_append, via, always_set_request_id_in_response, proxy_status_config,
                append_x_forwarded_port, forward_proto_config, stream_error_on_invalid_http_message,
                strip_matching_host_port, strip_port_mode, strip_trailing_host_dot, xff_num_trusted_hops, original_ip_detection_extensions,
                early_header_mutation_extensions,
                request_timeout,
            }
            partly {
                internal_address_config: "all of it; a client that is internal steers retries, timeouts and hedging, but x-envoy-upstream-alt-stat-name adds no counters",
                request_id_extension: "UuidRequestIdConfig, which is also the default; others are refused",
            }
            inert {
                represent_ipv4_remote_address_as_ipv4_mapped_ipv6: "Envoy does not read it either",
                path_normalization_options: "Envoy does not read it either",
                append_local_overload: "nothing is refused here for overload, so that nothing has to be said of it",
            }
            unsupported {
                access_log_flush_interval: "telemetry", flush_access_log_on_new_request: "telemetry",
                access_log_options: "telemetry",
            }
            never {
                http3_protocol_options: "HTTP/3, which Istio does not configure",
                stream_flush_timeout: "what waits for a client that takes nothing is not held apart here: stream_idle_timeout ends it",
            }
            refused {
                forward_client_cert_matcher: "ignoring it would forward another client identity",
                typed_header_validation_config: "ignoring it would let through requests that should be answered 400",
            }
        });
        let escaped_slashes = EscapedSlashes::from_proto(
            &at.field("path_with_escaped_slashes_action"),
            path_with_escaped_slashes_action,
        )?;
        request_id(&at.field("request_id_extension"), request_id_extension)?;
        let (filters, router) = http_filter::list(at.field("http_filters"), http_filters)?;
        let common = Common::from_proto(
            &at.field("common_http_protocol_options"),
            common_http_protocol_options,
        )?;
        let kb = max_request_headers_kb.value().unwrap_or(MAX_REQUEST_HEADERS_KB);
        let stream_idle = at
            .field("stream_idle_timeout")
            .limit(stream_idle_timeout, STREAM_IDLE_TIMEOUT)?;
        let details = set_current_client_cert_details;
        let http1 = Http1::from_proto(&at.field("http_protocol_options"), http_protocol_options)?;
        let finders_at = at.field("original_ip_detection_extensions");
        if !original_ip_detection_extensions.is_empty() {
            if use_remote_address.value() == Some(true) {
                return Err(finders_at.reject("only one of it and use_remote_address can be set"));
            }
            if xff_num_trusted_hops > 0 {
                return Err(finders_at.reject("only one of it and xff_num_trusted_hops can be set"));
            }
        }
        let via_at = at.field("via");
        if via.contains(|letter: char| letter.is_control()) {
            return Err(via_at.reject(format!("{via:?} is no value of a header")));
        }
        let [https_ports, http_ports] =
            extras::ports(&at.field("forward_proto_config"), forward_proto_config)?;
        let client_finders = ClientFinder::list(finders_at, original_ip_detection_extensions)?;
        let extras = HeadExtras {
            via_name: via,
            keeps_forwarded_for: skip_xff_append,
            tells_port: append_x_forwarded_port,
            answers_request_id: always_set_request_id_in_response,
            names_itself: add_user_agent.value().unwrap_or(false),
            new_scheme: NewScheme::from_proto(
                &at.field("scheme_header_transformation"),
                scheme_header_transformation,
            )?,
            internal_ranges: extras::internal_ranges(
                &at.field("internal_address_config"),
                internal_address_config,
            )?,
            proxy_status: ProxyStatus::from_proto(proxy_status_config),
            https_ports,
            http_ports,
            keeps_connections: http1
                .keeps_connections
                .unwrap_or(stream_error_on_invalid_http_message.value().unwrap_or(false)),
            host_port: HostPort::from_proto(at, strip_matching_host_port, strip_port_mode)?,
            strips_host_dot: strip_trailing_host_dot,
            trusted_hops: xff_num_trusted_hops,
            client_finders,
            early_steps: extras::early_steps(
                at.field("early_header_mutation_extensions"),
                early_header_mutation_extensions,
            )?,
        };
        let tracing = tracing
            .map(|proto| Tracing::from_proto(&at.field("tracing"), proto))
            .transpose()?;
        Ok(Self {
            stat_prefix: at.field("stat_prefix").not_empty(stat_prefix)?,
            codec: CodecType::from_proto(&at.field("codec_type"), codec_type)?,
            routes: RouteSource::from_proto(at, route_specifier)?,
            filters,
            router,
            local_replies: LocalReplies::from_proto(&at.field("local_reply_config"), local_reply_config)?,
            access_log: AccessLog::list(at.field("access_log"), access_log)?,
            tracing,
            upgrades: Upgrade::list(at.field("upgrade_configs"), upgrade_configs)?,
            passes_100_continue: proxy_100_continue,
            head_extras: (extras != HeadExtras::default()).then(|| Box::new(extras)),
            server_name: if server_name.is_empty() {
                "envoy".to_owned()
            } else {
                server_name
            },
            server_header: ServerHeader::from_proto(
                &at.field("server_header_transformation"),
                server_header_transformation,
            )?,
            forward_client_cert: ForwardClientCert::from_proto(
                &at.field("forward_client_cert_details"),
                forward_client_cert_details,
            )?,
            client_cert_details: ClientCertDetails::from_proto(
                &at.field("set_current_client_cert_details"),
                details,
            ),
            normalize_path: normalize_path.value().unwrap_or(false),
            merge_slashes,
            escaped_slashes,
            use_remote_address: use_remote_address.value().unwrap_or(false),
            adds_proxy_state: add_proxy_protocol_connection_state.value().unwrap_or(true),
            preserve_external_request_id,
            generate_request_id: generate_request_id.value().unwrap_or(true),
            stream_idle_timeout: stream_idle,
            idle_timeout: common.idle_timeout,
            request_headers_timeout: at
                .field("request_headers_timeout")
                .limit(request_headers_timeout, Duration::ZERO)?,
            drain_timeout: Jittered {
                shortest: at
                    .field("drain_timeout")
                    .duration(drain_timeout)?
                    .unwrap_or(DRAIN_TIMEOUT),
                added_at_most: at
                    .field("drain_timeout_jitter")
                    .percent(drain_timeout_jitter)?
                    .unwrap_or(Percent(0)),
            },
            connection_age: common.age,
            http1_waits_for_response: http1_safe_max_connection_duration,
            requests_per_connection: common.requests,
            request_timeout: at
                .field("request_timeout")
                .limit(request_timeout, Duration::ZERO)?,
            stream_duration: common.stream_duration,
            close_delay: at
                .field("delayed_close_timeout")
                .limit(delayed_close_timeout, CLOSE_DELAY)?,
            max_request_headers_kb: at.field("max_request_headers_kb").within(kb, 1..=8192)?,
            max_request_headers_count: common.max_request_headers_count,
            underscores: common.underscores,
            accept_http_10: http1.accepts_10,
            default_host_for_http_10: http1.default_host,
            takes_chunked_length: http1.takes_chunked_length,
            http1: http1.options,
            http2: Http2Options::from_proto(&at.field("http2_protocol_options"), http2_protocol_options)?,
        })
    }
}

impl Upgrade {
    fn list(at: FieldPath<'_>, protos: Vec<hcm::UpgradeConfig>) -> Result<Vec<Self>, Rejection> {
        let upgrades = protos.into_iter().enumerate().map(|(index, proto)| {
            let at = at.index(index);
            verdicts!(at, proto => hcm::UpgradeConfig {
                supported { upgrade_type, enabled }
                refused { filters: "ignoring it would send upgrades past those filters" }
            });
            Ok(Self {
                protocol: at
                    .field("upgrade_type")
                    .not_empty(upgrade_type)?
                    .to_ascii_lowercase(),
                is_enabled: enabled.value().unwrap_or(true),
            })
        });
        upgrades.collect()
    }
}

impl EscapedSlashes {
    fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        use hcm::PathWithEscapedSlashesAction as Action;
        Ok(match at.enumeration(number)? {
            Action::ImplementationSpecificDefault | Action::KeepUnchanged => Self::Keep,
            Action::RejectRequest => Self::Reject,
            Action::UnescapeAndRedirect => Self::Redirect,
            Action::UnescapeAndForward => Self::Forward,
        })
    }
}

/// Checks an extension that makes request ids.
pub(crate) fn request_id(at: &FieldPath<'_>, proto: Option<pb::RequestIdExtension>) -> Result<(), Rejection> {
    let Some(proto) = proto else { return Ok(()) };
    verdicts!(at, proto => pb::RequestIdExtension {
        partly { typed_config: "UuidRequestIdConfig only; others are refused" }
    });
    let at = at.field("typed_config");
    let config = TypedConfig::open(&at, typed_config)?;
    if config.type_name != types::UUID_REQUEST_ID {
        return Err(config.reject(&at, "request id extension", "", &[types::UUID_REQUEST_ID]));
    }
    verdicts!(at, config.message(&at)? => UuidRequestIdConfig {
        partly {
            pack_trace_reason: "true, which is also the default; false is listed as without effect",
            use_request_id_for_trace_sampling: "true, which is also the default; false is listed as without effect",
        }
    });
    only_true(&at.field("pack_trace_reason"), pack_trace_reason);
    only_true(
        &at.field("use_request_id_for_trace_sampling"),
        use_request_id_for_trace_sampling,
    );
    Ok(())
}

fn only_true(at: &FieldPath<'_>, proto: Option<protobuf::BoolValue>) {
    if proto.value() == Some(false) {
        at.problem("false has no effect here");
    }
}

impl CodecType {
    fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        match at.enumeration(number)? {
            hcm::CodecType::Auto => Ok(Self::Auto),
            hcm::CodecType::Http1 => Ok(Self::Http1),
            hcm::CodecType::Http2 => Ok(Self::Http2),
            hcm::CodecType::Http3 => Err(at.reject("HTTP3 is not supported")),
        }
    }
}

impl RouteSource {
    fn from_proto(at: &FieldPath<'_>, proto: Option<RouteSpecifier>) -> Result<Self, Rejection> {
        choices!(RouteSpecifier {
            supported { Rds, RouteConfig, ScopedRoutes }
        });
        match proto {
            Some(RouteSpecifier::RouteConfig(proto)) => {
                let table = RouteTableConfig::from_proto(&at.field("route_config"), proto)?;
                Ok(Self::Inline(Box::new(table)))
            }
            Some(RouteSpecifier::Rds(proto)) => {
                let at = at.field("rds");
                verdicts!(at, proto => pb::Rds { supported { config_source, route_config_name } });
                let name = at.field("route_config_name").not_empty(route_config_name)?;
                Ok(Self::Rds {
                    name,
                    source: ConfigSource::from_proto(&at.field("config_source"), config_source)?,
                })
            }
            Some(RouteSpecifier::ScopedRoutes(proto)) => {
                let routes = ScopedRoutes::from_proto(&at.field("scoped_routes"), proto)?;
                Ok(Self::Scoped(Box::new(routes)))
            }
            None => Err(at.reject("has none of rds, route_config and scoped_routes")),
        }
    }
}

impl HeadersWithUnderscores {
    fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        use core::http_protocol_options::HeadersWithUnderscoresAction as Action;
        Ok(match at.enumeration(number)? {
            Action::Allow => Self::Allow,
            Action::RejectRequest => Self::Reject,
            Action::DropHeader => Self::Drop,
        })
    }
}

impl ServerHeader {
    fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        Ok(match at.enumeration(number)? {
            hcm::ServerHeaderTransformation::Overwrite => Self::Overwrite,
            hcm::ServerHeaderTransformation::AppendIfAbsent => Self::AppendIfAbsent,
            hcm::ServerHeaderTransformation::PassThrough => Self::PassThrough,
        })
    }
}

impl ForwardClientCert {
    fn from_proto(at: &FieldPath<'_>, number: i32) -> Result<Self, Rejection> {
        Ok(match at.enumeration(number)? {
            hcm::ForwardClientCertDetails::Sanitize => Self::Sanitize,
            hcm::ForwardClientCertDetails::ForwardOnly => Self::ForwardOnly,
            hcm::ForwardClientCertDetails::AppendForward => Self::AppendForward,
            hcm::ForwardClientCertDetails::SanitizeSet => Self::SanitizeSet,
            hcm::ForwardClientCertDetails::AlwaysForwardOnly => Self::AlwaysForwardOnly,
        })
    }
}

impl ClientCertDetails {
    fn from_proto(at: &FieldPath<'_>, proto: Option<hcm::SetCurrentClientCertDetails>) -> Self {
        let Some(proto) = proto else {
            return Self::default();
        };
        verdicts!(at, proto => hcm::SetCurrentClientCertDetails {
            supported { subject, cert, dns, uri }
            unsupported { chain: "security", issuer: "security", format: "security" }
        });
        Self {
            subject: subject.value().unwrap_or(false),
            cert,
            dns,
            uri,
        }
    }
}

/// What `HttpProtocolOptions` says to a connection manager.
struct Common {
    idle_timeout: Option<Duration>,
    max_request_headers_count: u32,
    underscores: HeadersWithUnderscores,
    age: Option<Jittered>,
    requests: u32,
    stream_duration: Option<Duration>,
}

impl Common {
    fn from_proto(at: &FieldPath<'_>, proto: Option<core::HttpProtocolOptions>) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => core::HttpProtocolOptions {
            supported {
                idle_timeout, max_headers_count, headers_with_underscores_action, max_connection_duration,
                max_connection_duration_jitter, max_stream_duration, max_requests_per_connection,
            }
            inert { max_response_headers_kb: "responses come from clusters, and their limit is written there" }
        });
        let count = max_headers_count.value().unwrap_or(MAX_REQUEST_HEADERS_COUNT);
        Ok(Self {
            idle_timeout: at.field("idle_timeout").limit(idle_timeout, IDLE_TIMEOUT)?,
            max_request_headers_count: at.field("max_headers_count").within(count, 1..=u32::MAX)?,
            underscores: HeadersWithUnderscores::from_proto(
                &at.field("headers_with_underscores_action"),
                headers_with_underscores_action,
            )?,
            age: Jittered::limit(at, max_connection_duration, max_connection_duration_jitter)?,
            requests: max_requests_per_connection.value().unwrap_or(0),
            stream_duration: at
                .field("max_stream_duration")
                .limit(max_stream_duration, Duration::ZERO)?,
        })
    }
}

/// What `Http1ProtocolOptions` says to a connection manager.
#[derive(Default)]
struct Http1 {
    accepts_10: bool,
    default_host: Option<String>,
    takes_chunked_length: bool,
    keeps_connections: Option<bool>,
    options: Http1Options,
}

impl Http1 {
    fn from_proto(at: &FieldPath<'_>, proto: Option<core::Http1ProtocolOptions>) -> Result<Self, Rejection> {
        let Some(proto) = proto else {
            return Ok(Self::default());
        };
        verdicts!(at, proto => core::Http1ProtocolOptions {
            supported {
                accept_http_10, default_host_for_http_10, enable_trailers, header_key_format, allow_chunked_length,
                override_stream_error_on_invalid_http_message,
            }
            partly { allow_absolute_url: "true, which is also the default; false is listed as without effect" }
            inert {
                use_balsa_parser: "chooses between two of Envoy's parsers, and neither is here",
                send_fully_qualified_url: "is for clients",
            }
            unsupported {
                allow_custom_methods: "traffic", ignore_http_11_upgrade: "traffic",
            }
        });
        only_true(&at.field("allow_absolute_url"), allow_absolute_url);
        let host = &default_host_for_http_10;
        if host.contains(|letter: char| letter.is_control() || letter.is_whitespace()) {
            let field = at.field("default_host_for_http_10");
            return Err(field.reject(format!("{host:?} is no host")));
        }
        Ok(Self {
            accepts_10: accept_http_10,
            default_host: Some(default_host_for_http_10).filter(|host| !host.is_empty()),
            takes_chunked_length: allow_chunked_length,
            keeps_connections: override_stream_error_on_invalid_http_message.value(),
            options: Http1Options {
                passes_trailers: enable_trailers,
                name_case: NameCase::from_proto(&at.field("header_key_format"), header_key_format)?,
                writes_whole_url: false,
            },
        })
    }
}
