//! Protobuf to [`HttpProtocol`] and [`Http2Options`].
use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{self as core, http1_protocol_options as http1};
use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::{
    PreserveCaseFormatterConfig, preserve_case_formatter_config,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::{self as pb, http_protocol_options as options};
use envoy_types::pb::envoy::r#type::v3 as percent;
use envoy_types::pb::google::protobuf;

pub(super) use super::HttpProtocol;
use super::{
    Http1Options, Http2Options, Jittered, Keepalive, NameCase, Percent, RequestPolicies, ResponseHeadLimits,
    TlsNames, UpstreamHttpVersion,
};
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::matcher::ResponsePredicate;
use crate::route::{HashPolicy, MirrorPolicy, RetryPolicy};
use crate::scalar::Wrapped;

const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const MAX_RESPONSE_HEADERS: u32 = 100;
/// `KeepaliveSettings.interval_jitter` when unset: 15 %.
const KEEPALIVE_JITTER: Percent = Percent(1500);

/// The fields of `Cluster` that `HttpProtocolOptions` replaces; EnvoyFilters still set them.
pub(super) struct DeprecatedProtos {
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) common: Option<core::HttpProtocolOptions>,
    pub(super) http2: Option<core::Http2ProtocolOptions>,
    pub(super) names: Option<core::UpstreamHttpProtocolOptions>,
    pub(super) use_downstream_protocol: bool,
}

impl HttpProtocol {
    /// Converts the extension if it is there, else the fields that it replaces. What the extension says of requests comes beside it.
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        extensions: HashMap<String, protobuf::Any>,
        deprecated: DeprecatedProtos,
    ) -> Result<(Self, RequestPolicies), Rejection> {
        let field = at.field("typed_extension_protocol_options");
        let mut options = None;
        for (name, any) in extensions {
            let field = field.key(&name);
            let config = TypedConfig::open(&field, Some(any))?;
            if name != types::HTTP_PROTOCOL_OPTIONS || config.type_name != types::HTTP_PROTOCOL_OPTIONS {
                return Err(config.reject(
                    &field,
                    "protocol options",
                    &name,
                    &[types::HTTP_PROTOCOL_OPTIONS],
                ));
            }
            options = Some(config.message(&field)?);
        }
        match options {
            Some(options) => Self::from_extension(&field.key(types::HTTP_PROTOCOL_OPTIONS), options),
            None => Ok((Self::from_deprecated(at, deprecated)?, RequestPolicies::default())),
        }
    }

    fn from_extension(
        at: &FieldPath<'_>,
        proto: pb::HttpProtocolOptions,
    ) -> Result<(Self, RequestPolicies), Rejection> {
        verdicts!(at, proto => pb::HttpProtocolOptions {
            supported {
                common_http_protocol_options, upstream_protocol_options, upstream_http_protocol_options,
                request_mirror_policies, hash_policy, retry_policy, outlier_detection,
            }
            refused {
                http_filters: "ignoring it would send requests past those filters",
                header_validation_config: "ignoring it would let through responses that should be refused",
            }
        });
        let names = TlsNames::of_protocol(at, upstream_http_protocol_options)?;
        let policies = RequestPolicies {
            mirrors: MirrorPolicy::list(at.field("request_mirror_policies"), request_mirror_policies)?,
            hash_policies: HashPolicy::list(at.field("hash_policy"), hash_policy)?,
            retry_policy: retry_policy
                .map(|proto| RetryPolicy::from_proto(&at.field("retry_policy"), proto))
                .transpose()?,
            errors: outlier_detection
                .map(|proto| error_matcher(&at.field("outlier_detection"), proto))
                .transpose()?,
        };
        let (version, http1, http2) = protocol(at, upstream_protocol_options)?;
        let at = at.field("common_http_protocol_options");
        let protocol = Self {
            tls_names: names,
            http1,
            ..Self::with_common(&at, common_http_protocol_options, version, http2)?
        };
        Ok((protocol, policies))
    }

    fn from_deprecated(at: &FieldPath<'_>, protos: DeprecatedProtos) -> Result<Self, Rejection> {
        let DeprecatedProtos {
            max_requests_per_connection,
            common,
            http2,
            names,
            use_downstream_protocol,
        } = protos;
        let names = TlsNames::of_protocol(at, names)?;
        let version = match (use_downstream_protocol, &http2) {
            (true, _) => UpstreamHttpVersion::Downstream,
            (false, Some(_)) => UpstreamHttpVersion::Http2,
            (false, None) => UpstreamHttpVersion::Http1,
        };
        let http2 = Http2Options::from_proto(&at.field("http2_protocol_options"), http2)?;
        let protocol = Self::with_common(&at.field("common_http_protocol_options"), common, version, http2)?;
        let max_requests = max_requests_per_connection.unwrap_or(protocol.max_requests_per_connection);
        Ok(Self {
            max_requests_per_connection: max_requests,
            tls_names: names,
            ..protocol
        })
    }

    fn with_common(
        at: &FieldPath<'_>,
        proto: Option<core::HttpProtocolOptions>,
        version: UpstreamHttpVersion,
        http2: Http2Options,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto.unwrap_or_default() => core::HttpProtocolOptions {
            supported {
                idle_timeout, max_connection_duration, max_requests_per_connection, max_connection_duration_jitter,
                max_headers_count, max_response_headers_kb, max_stream_duration,
            }
            inert { headers_with_underscores_action: "is of requests; what an upstream answers is not affected by it" }
        });
        let kb = max_response_headers_kb.value();
        let kb = kb.map(|kb| at.field("max_response_headers_kb").within(kb, 1..=8192));
        let count = max_headers_count.value().unwrap_or(MAX_RESPONSE_HEADERS);
        Ok(Self {
            version,
            idle_timeout: at.field("idle_timeout").limit(idle_timeout, IDLE_TIMEOUT)?,
            max_connection_duration: Jittered::limit(
                at,
                max_connection_duration,
                max_connection_duration_jitter,
            )?,
            exchange_duration: at
                .field("max_stream_duration")
                .limit(max_stream_duration, Duration::ZERO)?,
            response_head: ResponseHeadLimits {
                most_bytes: kb.transpose()?.map(|kb| kb * 1024),
                most_headers: at.field("max_headers_count").within(count, 1..=u32::MAX)?,
            },
            max_requests_per_connection: max_requests_per_connection.value().unwrap_or(0),
            http1: Http1Options::default(),
            http2,
            tls_names: None,
        })
    }
}

impl Jittered {
    /// Converts `max_connection_duration` and its jitter; unset and zero: none.
    pub(crate) fn limit(
        at: &FieldPath<'_>,
        duration: Option<protobuf::Duration>,
        jitter: Option<percent::Percent>,
    ) -> Result<Option<Self>, Rejection> {
        let duration = at
            .field("max_connection_duration")
            .limit(duration, Duration::ZERO)?;
        let jitter = at.field("max_connection_duration_jitter").percent(jitter)?;
        Ok(duration.map(|shortest| Self {
            shortest,
            added_at_most: jitter.unwrap_or(Percent(0)),
        }))
    }
}

impl TlsNames {
    /// Of the message at `at`, if they are there.
    fn of_protocol(
        at: &FieldPath<'_>,
        proto: Option<core::UpstreamHttpProtocolOptions>,
    ) -> Result<Option<Box<Self>>, Rejection> {
        let at = at.field("upstream_http_protocol_options");
        let names = proto.map(|proto| Self::from_proto(&at, proto)).transpose()?;
        Ok(names.flatten().map(Box::new))
    }

    fn from_proto(
        at: &FieldPath<'_>,
        proto: core::UpstreamHttpProtocolOptions,
    ) -> Result<Option<Self>, Rejection> {
        verdicts!(at, proto => core::UpstreamHttpProtocolOptions {
            supported { auto_sni, auto_san_validation, override_auto_sni_header }
        });
        if override_auto_sni_header.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(at
                .field("override_auto_sni_header")
                .reject(format!("{override_auto_sni_header:?} is no header name")));
        }
        Ok((auto_sni || auto_san_validation).then(|| Self {
            sni: auto_sni,
            san: auto_san_validation,
            header: Some(override_auto_sni_header.to_ascii_lowercase()).filter(|name| !name.is_empty()),
        }))
    }
}

fn error_matcher(
    at: &FieldPath<'_>,
    proto: pb::http_protocol_options::OutlierDetection,
) -> Result<ResponsePredicate, Rejection> {
    verdicts!(at, proto => pb::http_protocol_options::OutlierDetection { supported { error_matcher } });
    let at = at.field("error_matcher");
    ResponsePredicate::from_proto(&at, at.required(error_matcher)?)
}

fn protocol(
    at: &FieldPath<'_>,
    proto: Option<options::UpstreamProtocolOptions>,
) -> Result<(UpstreamHttpVersion, Http1Options, Http2Options), Rejection> {
    choices!(options::UpstreamProtocolOptions {
        supported { ExplicitHttpConfig, UseDownstreamProtocolConfig }
        refused { AutoConfig: "choosing the version by ALPN has no behaviour here" }
    });
    match proto {
        Some(options::UpstreamProtocolOptions::ExplicitHttpConfig(proto)) => {
            explicit(&at.field("explicit_http_config"), proto)
        }
        Some(options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(proto)) => {
            let at = at.field("use_downstream_protocol_config");
            verdicts!(at, proto => options::UseDownstreamHttpConfig {
                supported { http_protocol_options, http2_protocol_options }
                never { http3_protocol_options: "HTTP/3, which Istio does not configure" }
            });
            let options1 =
                Http1Options::from_proto(&at.field("http_protocol_options"), http_protocol_options)?;
            let http2 =
                Http2Options::from_proto(&at.field("http2_protocol_options"), http2_protocol_options)?;
            Ok((UpstreamHttpVersion::Downstream, options1, http2))
        }
        Some(options::UpstreamProtocolOptions::AutoConfig(_)) => Err(at
            .field("auto_config")
            .reject("is not supported; write explicit_http_config")),
        None => Err(at.reject("has no upstream_protocol_options: write explicit_http_config")),
    }
}

fn explicit(
    at: &FieldPath<'_>,
    proto: options::ExplicitHttpConfig,
) -> Result<(UpstreamHttpVersion, Http1Options, Http2Options), Rejection> {
    use options::explicit_http_config::ProtocolConfig;
    verdicts!(at, proto => options::ExplicitHttpConfig { supported { protocol_config } });
    choices!(options::explicit_http_config::ProtocolConfig {
        supported { HttpProtocolOptions, Http2ProtocolOptions }
        refused { Http3ProtocolOptions: "HTTP/3 has no behaviour here" }
    });
    match protocol_config {
        Some(ProtocolConfig::HttpProtocolOptions(proto)) => {
            let options1 = Http1Options::from_proto(&at.field("http_protocol_options"), Some(proto))?;
            Ok((UpstreamHttpVersion::Http1, options1, Http2Options::default()))
        }
        Some(ProtocolConfig::Http2ProtocolOptions(proto)) => {
            let http2 = Http2Options::from_proto(&at.field("http2_protocol_options"), Some(proto))?;
            Ok((UpstreamHttpVersion::Http2, Http1Options::default(), http2))
        }
        Some(ProtocolConfig::Http3ProtocolOptions(_)) => Err(at
            .field("http3_protocol_options")
            .reject("HTTP/3 is not supported")),
        None => {
            Err(at.reject("has no protocol_config: write http_protocol_options or http2_protocol_options"))
        }
    }
}

impl Http1Options {
    /// Converts the settings of an upstream.
    fn from_proto(at: &FieldPath<'_>, proto: Option<core::Http1ProtocolOptions>) -> Result<Self, Rejection> {
        let Some(proto) = proto else {
            return Ok(Self::default());
        };
        verdicts!(at, proto => core::Http1ProtocolOptions {
            supported { enable_trailers, header_key_format, send_fully_qualified_url }
            inert {
                use_balsa_parser: "chooses between two of Envoy's parsers, and neither is here",
                accept_http_10: "is for servers",
                default_host_for_http_10: "is for servers",
                allow_absolute_url: "is for servers",
                ignore_http_11_upgrade: "is for servers",
                allow_custom_methods: "is for servers",
                override_stream_error_on_invalid_http_message: "is for servers",
            }
            unsupported {
                allow_chunked_length: "traffic",
            }
        });
        Ok(Self {
            passes_trailers: enable_trailers,
            name_case: NameCase::from_proto(&at.field("header_key_format"), header_key_format)?,
            writes_whole_url: send_fully_qualified_url,
        })
    }
}

impl NameCase {
    /// Converts the format of either side.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<http1::HeaderKeyFormat>,
    ) -> Result<Self, Rejection> {
        use http1::header_key_format::{HeaderFormat, ProperCaseWords};
        let Some(proto) = proto else {
            return Ok(Self::Lower);
        };
        verdicts!(at, proto => http1::HeaderKeyFormat { supported { header_format } });
        choices!(http1::header_key_format::HeaderFormat {
            supported { ProperCaseWords, StatefulFormatter }
        });
        match header_format {
            Some(HeaderFormat::ProperCaseWords(proto)) => {
                verdicts!((), proto => ProperCaseWords {});
                Ok(Self::Proper)
            }
            Some(HeaderFormat::StatefulFormatter(proto)) => {
                Self::stateful(&at.field("stateful_formatter"), proto)
            }
            None => Err(at.reject("has neither proper_case_words nor stateful_formatter")),
        }
    }

    fn stateful(at: &FieldPath<'_>, proto: core::TypedExtensionConfig) -> Result<Self, Rejection> {
        use preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders;
        verdicts!(at, proto => core::TypedExtensionConfig {
            partly { typed_config: "PreserveCaseFormatterConfig; others are refused" }
            inert { name: "the type of typed_config says which it is" }
        });
        let at = at.field("typed_config");
        let config = TypedConfig::open(&at, typed_config)?;
        if config.type_name != types::PRESERVE_CASE {
            return Err(config.reject(&at, "header formatter", "", &[types::PRESERVE_CASE]));
        }
        verdicts!(at, config.message(&at)? => PreserveCaseFormatterConfig {
            supported { formatter_type_on_envoy_headers }
            unsupported { forward_reason_phrase: "traffic" }
        });
        let others: FormatterTypeOnEnvoyHeaders = at
            .field("formatter_type_on_envoy_headers")
            .enumeration(formatter_type_on_envoy_headers)?;
        Ok(Self::Preserve {
            others_proper: others == FormatterTypeOnEnvoyHeaders::ProperCase,
        })
    }
}

impl Default for Http2Options {
    /// Envoy 1.40's defaults.
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            initial_stream_window_bytes: 16 * 1024 * 1024,
            initial_connection_window_bytes: 24 * 1024 * 1024,
            allows_connect: false,
            header_table_bytes: None,
            keepalive: None,
        }
    }
}

impl Http2Options {
    /// Converts the settings of either side.
    pub(crate) fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<core::Http2ProtocolOptions>,
    ) -> Result<Self, Rejection> {
        const WINDOW: std::ops::RangeInclusive<u32> = 65_535..=i32::MAX as u32;
        verdicts!(at, proto.unwrap_or_default() => core::Http2ProtocolOptions {
            supported {
                max_concurrent_streams, initial_stream_window_size, initial_connection_window_size, allow_connect,
                hpack_table_size, connection_keepalive,
            }
            partly {
                override_stream_error_on_invalid_http_message: "true; a message that is wrong ends its stream alone, whatever this says",
            }
            inert {
                use_oghttp2_codec: "chooses between two of Envoy's codecs, and neither is here",
                stream_error_on_invalid_http_messaging: "a message that is wrong ends its stream alone, whatever this says",
                allow_metadata: "METADATA is a frame of Envoy's own; an unknown frame is passed over (RFC 9113 §5.5)",
                max_metadata_size: "METADATA is a frame of Envoy's own; an unknown frame is passed over (RFC 9113 §5.5)",
            }
            never {
                custom_settings_parameters: "the h2 library sends no setting that it does not know",
                max_outbound_frames: "the h2 library bounds what it has ready for a stream by bytes, and not by frames",
                max_outbound_control_frames: "the h2 library reads no further while its answers are not taken",
                max_consecutive_inbound_frames_with_empty_payload: "the h2 library has a budget for small DATA frames of its own",
                max_inbound_priority_frames_per_stream: "PRIORITY frames are passed over and keep no memory",
                max_inbound_window_update_frames_per_data_frame_sent: "WINDOW_UPDATE frames change a number and keep no memory",
                enable_huffman_encoding: "the h2 library always writes values in Huffman's code",
                max_header_field_size_kb: "one field may be as long as the whole head may be",
                disallow_obs_text: "bytes above 0x7f are taken, as without it",
                stream_reset_burst: "the h2 library has a limit of its own for streams that are reset before they are served",
                stream_reset_rate: "the h2 library has a limit of its own for streams that are reset before they are served",
            }
        });
        if override_stream_error_on_invalid_http_message.value() == Some(false) {
            at.field("override_stream_error_on_invalid_http_message")
                .problem("false has no effect here: the stream ends alone");
        }
        let default = Self::default();
        let streams = max_concurrent_streams
            .value()
            .unwrap_or(default.max_concurrent_streams);
        let stream = initial_stream_window_size
            .value()
            .unwrap_or(default.initial_stream_window_bytes);
        let connection = initial_connection_window_size
            .value()
            .unwrap_or(default.initial_connection_window_bytes);
        Ok(Self {
            max_concurrent_streams: at
                .field("max_concurrent_streams")
                .within(streams, 1..=i32::MAX as u32)?,
            initial_stream_window_bytes: at.field("initial_stream_window_size").within(stream, WINDOW)?,
            initial_connection_window_bytes: at
                .field("initial_connection_window_size")
                .within(connection, WINDOW)?,
            allows_connect: allow_connect,
            header_table_bytes: hpack_table_size.value(),
            keepalive: connection_keepalive
                .map(|proto| Keepalive::from_proto(&at.field("connection_keepalive"), proto))
                .transpose()?,
        })
    }
}

impl Keepalive {
    fn from_proto(at: &FieldPath<'_>, proto: core::KeepaliveSettings) -> Result<Self, Rejection> {
        verdicts!(at, proto => core::KeepaliveSettings {
            supported { interval, timeout, interval_jitter, connection_idle_interval }
        });
        let long_enough = |name: &str, proto| match at.field(name).duration(proto)? {
            Some(time) if time < Duration::from_millis(1) => {
                Err(at.field(name).reject("must be 1ms or longer"))
            }
            other => Ok(other),
        };
        let jitter = at.field("interval_jitter").percent(interval_jitter)?;
        Ok(Self {
            interval: long_enough("interval", interval)?.map(|shortest| Jittered {
                shortest,
                added_at_most: jitter.unwrap_or(KEEPALIVE_JITTER),
            }),
            timeout: at.field("timeout").required(long_enough("timeout", timeout)?)?,
            idle_interval: long_enough("connection_idle_interval", connection_idle_interval)?,
        })
    }
}
