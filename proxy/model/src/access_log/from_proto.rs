//! Protobuf to [`AccessLog`].
use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use envoy_types::pb::envoy::config::accesslog::v3 as pb;
use envoy_types::pb::envoy::config::core::v3::{self as core, substitution_format_string};
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{self as file, file_access_log};
use envoy_types::pb::google::protobuf;

use super::{AccessLog, AccessLogFilter, FileLog, GrpcLog, LogFormat, Logger, OpenTelemetryLog, format};
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::metadata::{Struct, Value, struct_from_proto};
use crate::secret::DataSource;

/// What Envoy writes when no format is set. Source: Envoy docs, access logging, "Default format string".
const DEFAULT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ",
    "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" ",
    "\"%UPSTREAM_HOST%\"\n"
);

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
        Ok(Self {
            filter,
            logger: Logger::from_config(&at, config, &name)?,
        })
    }
}

const LOGGERS: [&str; 4] = [
    types::FILE_ACCESS_LOG,
    types::OPEN_TELEMETRY_ACCESS_LOG,
    types::HTTP_GRPC_ACCESS_LOG,
    types::TCP_GRPC_ACCESS_LOG,
];

impl Logger {
    fn from_config(at: &FieldPath<'_>, config: TypedConfig, name: &str) -> Result<Self, Rejection> {
        let logger = match config.type_name.as_str() {
            types::FILE_ACCESS_LOG => return Ok(Self::File(FileLog::from_proto(at, config.message(at)?)?)),
            types::OPEN_TELEMETRY_ACCESS_LOG => {
                Self::OpenTelemetry(Box::new(OpenTelemetryLog::from_proto(at, config.message(at)?)?))
            }
            types::HTTP_GRPC_ACCESS_LOG => Self::Grpc(Box::new(GrpcLog::http(at, config.message(at)?)?)),
            types::TCP_GRPC_ACCESS_LOG => Self::Grpc(Box::new(GrpcLog::tcp(at, config.message(at)?)?)),
            _ => return Err(config.reject(at, "access logger", name, &LOGGERS)),
        };
        at.problem("writes nothing here: the telemetry issue builds it");
        Ok(logger)
    }
}

impl FileLog {
    fn from_proto(at: &FieldPath<'_>, proto: file::FileAccessLog) -> Result<Self, Rejection> {
        verdicts!(at, proto => file::FileAccessLog { supported { path, access_log_format } });
        Ok(Self {
            path: PathBuf::from(at.field("path").not_empty(path)?),
            format: shared(LogFormat::from_proto(at, access_log_format)?),
        })
    }
}

/// Formats that are compared with a new one.
const RECENT: usize = 8;

/// The format itself, or one like it that was converted lately. A parsed format takes kilobytes, and istiod writes the same one into
/// each of a thousand listeners.
fn shared(format: LogFormat) -> Arc<LogFormat> {
    thread_local! {
        static KNOWN: RefCell<VecDeque<Weak<LogFormat>>> = const { RefCell::new(VecDeque::new()) };
    }
    KNOWN.with_borrow_mut(|known| {
        known.retain(|format| format.strong_count() > 0);
        let mut alive = known.iter().filter_map(Weak::upgrade);
        if let Some(same) = alive.find(|other| **other == format) {
            return same;
        }
        let format = Arc::new(format);
        known.truncate(RECENT - 1);
        known.push_front(Arc::downgrade(&format));
        format
    })
}

impl LogFormat {
    fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<file_access_log::AccessLogFormat>,
    ) -> Result<Self, Rejection> {
        use file_access_log::AccessLogFormat;
        choices!(file_access_log::AccessLogFormat {
            supported { Format, LogFormat }
            awaited "telemetry" { JsonFormat, TypedJsonFormat }
        });
        match proto {
            None => Self::text(at, DEFAULT_FORMAT),
            Some(AccessLogFormat::Format(text)) if text.is_empty() => Self::text(at, DEFAULT_FORMAT),
            Some(AccessLogFormat::Format(text)) => Self::text(&at.field("format"), &text),
            Some(AccessLogFormat::LogFormat(proto)) => Self::substitution(&at.field("log_format"), proto),
            Some(AccessLogFormat::JsonFormat(proto)) => Self::json(&at.field("json_format"), proto),
            Some(AccessLogFormat::TypedJsonFormat(proto)) => {
                Self::json(&at.field("typed_json_format"), proto)
            }
        }
    }

    /// Every string in it is a format string.
    fn json(at: &FieldPath<'_>, proto: protobuf::Struct) -> Result<Self, Rejection> {
        let object = struct_from_proto(at, proto)?;
        check_formats(at, &object)?;
        at.problem("its log writes nothing here: the telemetry issue builds JSON");
        Ok(Self::Json(object))
    }

    fn substitution(at: &FieldPath<'_>, proto: core::SubstitutionFormatString) -> Result<Self, Rejection> {
        use substitution_format_string::Format;
        verdicts!(at, proto => core::SubstitutionFormatString {
            supported { format }
            inert {
                content_type: "a log line has no content type",
                formatters: "bring commands, and those of Envoy's formatters are known without being brought",
            }
            unsupported { omit_empty_values: "telemetry", json_format_options: "telemetry" }
        });
        choices!(Format {
            supported { TextFormat, TextFormatSource }
            awaited "telemetry" { JsonFormat }
        });
        match format {
            Some(Format::TextFormat(text)) => Self::text(&at.field("text_format"), &text),
            Some(Format::TextFormatSource(source)) => Self::source(&at.field("text_format_source"), source),
            Some(Format::JsonFormat(proto)) => Self::json(&at.field("json_format"), proto),
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

/// Refuses a string that is no format string.
pub(super) fn check_formats(at: &FieldPath<'_>, object: &Struct) -> Result<(), Rejection> {
    object
        .iter()
        .try_for_each(|(key, value)| check_format(&at.field(key), value))
}

/// As [`check_formats`], for one value.
pub(super) fn check_format(at: &FieldPath<'_>, value: &Value) -> Result<(), Rejection> {
    match value {
        Value::String(text) => format::parse(at, text).map(drop),
        Value::Struct(object) => check_formats(at, object),
        Value::List(items) => items.iter().try_for_each(|item| check_format(at, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
