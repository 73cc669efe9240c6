//! Protobuf to [`AccessLog`].
use std::path::PathBuf;

use envoy_types::pb::envoy::config::accesslog::v3::{self as pb, access_log_filter::FilterSpecifier};
use envoy_types::pb::envoy::config::core::v3::{self as core, substitution_format_string};
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{self as file, file_access_log};

use super::{AccessLog, AccessLogFilter, LogFormat, format};
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::secret::DataSource;

/// What Envoy writes when no format is set. Source: Envoy docs, access logging, "Default format string".
const DEFAULT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ",
    "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" ",
    "\"%UPSTREAM_HOST%\"\n"
);

/// The short names a response flag filter may list. Source: accesslog.proto, `ResponseFlagFilter`.
const RESPONSE_FLAGS: [&str; 30] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX",
    "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
];

impl AccessLog {
    /// Converts the loggers of a listener, TCP proxy or connection manager.
    pub(crate) fn list(at: FieldPath<'_>, protos: Vec<pb::AccessLog>) -> Result<Vec<Self>, Rejection> {
        protos
            .into_iter()
            .enumerate()
            .map(|(index, proto)| Self::from_proto(&at.index(index), proto))
            .collect()
    }

    fn from_proto(at: &FieldPath<'_>, proto: pb::AccessLog) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::AccessLog {
            supported { filter, config_type }
            partly { name: "in rejections; what a logger does is in the type of its config" }
        });
        choices!(pb::access_log::ConfigType { supported { TypedConfig } });
        let filter = filter
            .map(|proto| AccessLogFilter::from_proto(&at.field("filter"), proto))
            .transpose()?;
        let any = config_type.map(|pb::access_log::ConfigType::TypedConfig(any)| any);
        let at = at.field("typed_config");
        let config = TypedConfig::open(&at, any)?;
        if config.type_name != types::FILE_ACCESS_LOG {
            return Err(config.reject(&at, "access logger", &name, &[types::FILE_ACCESS_LOG]));
        }
        verdicts!(at, config.message(&at)? => file::FileAccessLog { supported { path, access_log_format } });
        let path = PathBuf::from(at.field("path").not_empty(path)?);
        Ok(Self {
            filter,
            path,
            format: LogFormat::from_proto(&at, access_log_format)?,
        })
    }
}

impl AccessLogFilter {
    fn from_proto(at: &FieldPath<'_>, proto: pb::AccessLogFilter) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::AccessLogFilter { supported { filter_specifier } });
        choices!(FilterSpecifier {
            supported { ResponseFlagFilter }
            refused {
                StatusCodeFilter: "ignoring it would log what should not be logged",
                DurationFilter: "ignoring it would log what should not be logged",
                NotHealthCheckFilter: "ignoring it would log what should not be logged",
                TraceableFilter: "ignoring it would log what should not be logged",
                RuntimeFilter: "ignoring it would log what should not be logged",
                AndFilter: "ignoring it would log what should not be logged",
                OrFilter: "ignoring it would log what should not be logged",
                HeaderFilter: "ignoring it would log what should not be logged",
                GrpcStatusFilter: "ignoring it would log what should not be logged",
                ExtensionFilter: "ignoring it would log what should not be logged",
                MetadataFilter: "ignoring it would log what should not be logged",
                LogTypeFilter: "ignoring it would log what should not be logged",
            }
        });
        let Some(FilterSpecifier::ResponseFlagFilter(proto)) = filter_specifier else {
            return Err(
                at.reject("only response_flag_filter is supported, and ignoring another would log too much")
            );
        };
        let at = at.field("response_flag_filter");
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
        Ok(Self::ResponseFlag(flags))
    }
}

impl LogFormat {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<file_access_log::AccessLogFormat>,
    ) -> Result<Self, Rejection> {
        use file_access_log::AccessLogFormat;
        choices!(file_access_log::AccessLogFormat {
            supported { Format, LogFormat }
            refused {
                JsonFormat: "text in its place would not be read by whoever reads JSON",
                TypedJsonFormat: "text in its place would not be read by whoever reads JSON",
            }
        });
        match proto {
            None => Self::text(at, DEFAULT_FORMAT),
            Some(AccessLogFormat::Format(text)) if text.is_empty() => Self::text(at, DEFAULT_FORMAT),
            Some(AccessLogFormat::Format(text)) => Self::text(&at.field("format"), &text),
            Some(AccessLogFormat::LogFormat(proto)) => Self::substitution(&at.field("log_format"), proto),
            Some(AccessLogFormat::JsonFormat(_)) => {
                Err(at.field("json_format").reject("JSON is not supported"))
            }
            Some(AccessLogFormat::TypedJsonFormat(_)) => {
                Err(at.field("typed_json_format").reject("JSON is not supported"))
            }
        }
    }

    fn substitution(at: &FieldPath<'_>, proto: core::SubstitutionFormatString) -> Result<Self, Rejection> {
        use substitution_format_string::Format;
        verdicts!(at, proto => core::SubstitutionFormatString {
            supported { format }
            inert {
                content_type: "a log line has no content type",
                json_format_options: "says how JSON is written, and JSON is refused",
            }
            unsupported { omit_empty_values }
            refused { formatters: "the commands that they bring would be unknown" }
        });
        choices!(Format {
            supported { TextFormat, TextFormatSource }
            refused { JsonFormat: "text in its place would not be read by whoever reads JSON" }
        });
        match format {
            Some(Format::TextFormat(text)) => Self::text(&at.field("text_format"), &text),
            Some(Format::TextFormatSource(source)) => Self::source(&at.field("text_format_source"), source),
            Some(Format::JsonFormat(_)) => Err(at.field("json_format").reject("JSON is not supported")),
            None => Err(at.reject("has no format")),
        }
    }

    fn source(at: &FieldPath<'_>, proto: core::DataSource) -> Result<Self, Rejection> {
        match DataSource::from_proto(at, Some(proto))? {
            Some(DataSource::Inline(bytes)) => {
                let text = String::from_utf8(bytes).map_err(|_| at.reject("is not UTF-8"))?;
                Self::text(at, &text)
            }
            _ => Err(at.reject("only inline_string and inline_bytes are supported")),
        }
    }

    fn text(at: &FieldPath<'_>, text: &str) -> Result<Self, Rejection> {
        Ok(Self::Text(format::parse(at, text)?))
    }
}
