//! Access logs. Source: envoy/config/accesslog/v3/accesslog.proto, envoy/extensions/access_loggers/{file,grpc,open_telemetry}/v3.
pub(crate) mod body;
mod export;
mod filter;
pub(crate) mod format;
mod from_proto;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::fraction::{Decimal, Fraction};
use crate::matcher::HeaderMatcher;
use crate::metadata::{Struct, Value};
use crate::service::{GrpcTarget, HttpTarget};

/// One logger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Which entries are written; `None`: all.
    pub filter: Option<AccessLogFilter>,
    /// Where to and how.
    pub logger: Logger,
}

/// The kinds of logger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logger {
    /// Lines in a file.
    File(FileLog),
    /// OpenTelemetry's log service. Writes nothing before the telemetry issue.
    OpenTelemetry(Box<OpenTelemetryLog>),
    /// Envoy's access log service. Writes nothing before the telemetry issue.
    Grpc(Box<GrpcLog>),
}

/// Lines in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLog {
    /// Where to; `/dev/stdout` means file descriptor 1.
    pub path: PathBuf,
    /// How; the loggers of a mesh have one format, and share it.
    pub format: Arc<LogFormat>,
}

/// Records for OpenTelemetry's log service. Awaits the telemetry issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTelemetryLog {
    /// Where to.
    pub service: LogService,
    /// Its name among logs.
    pub log_name: String,
    /// The record's body; strings are format strings.
    pub body: Option<Value>,
    /// The record's attributes; strings are format strings.
    pub attributes: Struct,
    /// Attributes of this proxy.
    pub resource_attributes: Struct,
    /// The attributes that Envoy adds by itself are left out.
    pub disable_builtin_labels: bool,
    /// When a record leaves at the latest, and how many bytes leave together.
    pub batch: LogBatch,
    /// Objects of filter state that go along.
    pub filter_state: Vec<String>,
}

/// Entries for Envoy's access log service. Awaits the telemetry issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcLog {
    /// TCP entries; HTTP entries if false.
    pub is_tcp: bool,
    /// Where to.
    pub service: GrpcTarget,
    /// Its name among logs.
    pub log_name: String,
    /// When an entry leaves at the latest, and how many bytes leave together.
    pub batch: LogBatch,
    /// Objects of filter state that go along.
    pub filter_state: Vec<String>,
    /// Lower-case names of headers that go along.
    pub request_headers: Vec<String>,
    /// Lower-case names of headers that go along.
    pub response_headers: Vec<String>,
    /// Lower-case names of trailers that go along.
    pub response_trailers: Vec<String>,
}

/// Where logs go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogService {
    /// Over gRPC.
    Grpc(GrpcTarget),
    /// Over HTTP.
    Http(HttpTarget),
}

/// What leaves together. Awaits the telemetry issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBatch {
    /// Envoy's default 1 s.
    pub interval: Duration,
    /// Envoy's default 16 KiB; 0: each entry by itself.
    pub bytes: u32,
}

/// Which entries are written. A log whose filter nothing judges yet writes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogFilter {
    /// One of these short response flags (`NR`, `UF`, …) is set; empty: any flag.
    ResponseFlag(Vec<String>),
    /// The status, 0 when there is none.
    StatusCode(Comparison),
    /// Milliseconds from start to end.
    Duration(Comparison),
    /// All hold; at least two.
    And(Vec<AccessLogFilter>),
    /// One holds; at least two.
    Or(Vec<AccessLogFilter>),
    /// Judged by nothing before the telemetry issue.
    Awaited(AwaitedFilter),
}

/// Filters that the telemetry issue builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwaitedFilter {
    /// Not the request of a health check.
    NotHealthCheck,
    /// A request that is traced.
    Traceable,
    /// Some.
    Share {
        /// Of entries.
        share: Fraction,
        /// Not by the request id.
        independent: bool,
    },
    /// A request header matches.
    Header(HeaderMatcher),
    /// The gRPC status is one of these.
    GrpcStatus {
        /// Codes.
        statuses: Vec<i32>,
        /// It is none of them.
        exclude: bool,
    },
    /// The expression is true.
    Cel(String),
    /// Dynamic metadata matches.
    Metadata,
    /// The moment of the entry is one of these.
    LogType {
        /// Numbers of `AccessLogType`.
        types: Vec<i32>,
        /// It is none of them.
        exclude: bool,
    },
}

/// A number to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// How.
    pub operator: Operator,
    /// With what.
    pub value: u32,
}

/// Source: accesslog.proto `ComparisonFilter.Op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    Equal,
    AtLeast,
    AtMost,
    NotEqual,
}

/// The format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    /// Text with `%…%` commands, parsed; newline included as configured.
    Text(Vec<FormatPart>),
    /// A JSON object whose strings are format strings. Writes nothing before the telemetry issue.
    Json(Struct),
}

/// JSON whose strings are format strings; the keys of an object are in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum JsonTemplate {
    Null,
    Bool(bool),
    Number(Decimal),
    String(Vec<FormatPart>),
    List(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
}

/// What a body is made by. Source: substitution_format_string.proto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyFormat {
    /// Of the body.
    pub media_type: String,
    /// The body.
    pub template: BodyTemplate,
    /// What is not there is left out; else it is `-` in text, `null` in JSON.
    pub omits_missing: bool,
}

/// Text or JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyTemplate {
    /// As it is.
    Text(Vec<FormatPart>),
    /// With a line end behind it.
    Json(JsonTemplate),
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
    /// Of the answer that is being made here, its text.
    LocalReplyBody,
    /// `%DYNAMIC_METADATA(NAMESPACE:KEY):Z%`.
    DynamicMetadata {
        namespace: String,
        key: String,
        max_bytes: Option<usize>,
    },
    /// A command of Envoy that the telemetry issue builds; `-` until then.
    Awaited(String),
}
