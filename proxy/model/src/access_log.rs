//! Access logs. Source: envoy/config/accesslog/v3/accesslog.proto, envoy/extensions/access_loggers/file/v3/file.proto.
mod format;
mod from_proto;

use std::path::PathBuf;

/// One logger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Which entries are written; `None`: all.
    pub filter: Option<AccessLogFilter>,
    /// Where to; `/dev/stdout` means file descriptor 1.
    pub path: PathBuf,
    /// How.
    pub format: LogFormat,
}

/// Filters of this slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogFilter {
    /// One of these short response flags (`NR`, `UF`, …) is set; empty: any flag.
    ResponseFlag(Vec<String>),
}

/// The format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    /// Text with `%…%` commands, parsed; newline included as configured.
    Text(Vec<FormatPart>),
}

/// One piece of a format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatPart {
    /// Copied.
    Literal(String),
    /// A command.
    Command(Command),
}

/// Commands of this slice. `max_bytes` is the `:N` suffix. Source: Envoy docs, access logging, command operators.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    StartTime,
    /// `%REQ(X?Y):Z%`; lower-case names.
    RequestHeader {
        name: String,
        alternative: Option<String>,
        max_bytes: Option<usize>,
    },
    /// `%RESP(X?Y):Z%`.
    ResponseHeader {
        name: String,
        alternative: Option<String>,
        max_bytes: Option<usize>,
    },
    /// `%TRAILER(X?Y):Z%`.
    ResponseTrailer {
        name: String,
        alternative: Option<String>,
        max_bytes: Option<usize>,
    },
    Protocol,
    ResponseCode,
    ResponseFlags,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    DownstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamClusterRaw,
    UpstreamLocalAddress,
    DownstreamLocalAddress,
    DownstreamRemoteAddress,
    DownstreamDirectRemoteAddress,
    RequestedServerName,
    RouteName,
    FilterChainName,
    DownstreamPeerUriSan,
    DownstreamLocalUriSan,
    DownstreamPeerSubject,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    ConnectionId,
    UpstreamRequestAttemptCount,
    Hostname,
}
