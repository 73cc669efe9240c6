//! Renders one access-log line.
//!
//! [`LineFormat`] is made when configuration comes: header names are parsed, constant commands become text. Writing a line
//! appends to a buffer that the caller reuses; it allocates only when that buffer grows. About one header lookup a header
//! command, and two digits at a time for numbers; no `format!`.
//!
//! What Envoy does (checked against 1.40) and so do we: a value that is not there is `-` and is never shortened; a header
//! that is there but empty is empty, and hides its alternative; of several headers of one name the first is shown; `:N` cuts
//! bytes; *nothing in a header value or path is escaped*: quotes and bytes above 0x7f stand as they came. A line break cannot
//! come in: no header value, method or path may hold one. Blanks in details and reasons become `_`; SNI is made a host name.
pub(crate) mod json;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, Method, Version};
use outrigger_model::access_log::{Command, FormatPart};

use super::response_flag::ResponseFlags;
use super::stream_info::{StreamInfo, TlsInfo};

/// The request as a log sees it: after the route rewrote it, as Envoy's pseudo-headers are. Empty is missing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestView<'a> {
    /// `:method`.
    pub(crate) method: &'a Method,
    /// `:path` with query; empty for CONNECT.
    pub(crate) path: &'a str,
    /// `:authority` or `host`.
    pub(crate) authority: &'a [u8],
    /// `:scheme`.
    pub(crate) scheme: &'a str,
    /// Everything else.
    pub(crate) headers: &'a HeaderMap,
}

/// What one line is about. A request that was never understood, and TCP, have no `request`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// Finished. Its response code is `%RESP(:STATUS)%`.
    pub(crate) info: &'a StreamInfo,
    /// Request head.
    pub(crate) request: Option<RequestView<'a>>,
    /// Headers of the final response, if one was sent; at least those of [`LineFormat::response_headers`].
    pub(crate) response_headers: Option<&'a HeaderMap>,
    /// Response trailers.
    pub(crate) trailers: Option<&'a HeaderMap>,
    /// What this proxy answers, while that is being made.
    pub(crate) local_reply_body: Option<&'a [u8]>,
}

impl<'a> Entry<'a> {
    /// Of a stream or a connection of which nothing else is known.
    pub(crate) fn of(info: &'a StreamInfo) -> Self {
        Self {
            info,
            request: None,
            response_headers: None,
            trailers: None,
            local_reply_body: None,
        }
    }
}

/// A format, ready to write lines.
#[derive(Debug)]
pub(crate) struct LineFormat(Box<[Part]>);

#[derive(Debug)]
enum Part {
    Literal(Box<[u8]>),
    Request(HeaderRule),
    Response(HeaderRule),
    Trailer(HeaderRule),
    Command(Command),
}

/// `(X?Y):N`.
#[derive(Debug)]
struct HeaderRule {
    name: HeaderKey,
    alternative: Option<HeaderKey>,
    max_bytes: usize,
}

#[derive(Debug)]
enum HeaderKey {
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    Named(HeaderName),
    /// No message can have it.
    Never,
}

impl LineFormat {
    /// Prepares a format; reads the host name if the format asks for it.
    pub(crate) fn new(format: &[FormatPart]) -> LineFormat {
        LineFormat(format.iter().map(Part::new).collect())
    }

    /// The response headers that it shows.
    pub(super) fn response_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let rules = self.0.iter().filter_map(|part| match part {
            Part::Response(rule) => Some([Some(&rule.name), rule.alternative.as_ref()]),
            _ => None,
        });
        rules.flatten().flatten().filter_map(|key| match key {
            HeaderKey::Named(name) => Some(name),
            _ => None,
        })
    }

    /// Appends the line. The newline is part of the format.
    pub(crate) fn write(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        for part in &self.0 {
            part.write(entry, b"-", out);
        }
    }

    /// The one command that it is; `None`: it is more, or less.
    fn single(&self) -> Option<&Part> {
        match &*self.0 {
            [part @ (Part::Request(_) | Part::Response(_) | Part::Trailer(_) | Part::Command(_))] => {
                Some(part)
            }
            _ => None,
        }
    }

    /// Appends the value of a header: what is not there is nothing in it. Source: Envoy `HeaderParser`, whose formatters omit what
    /// is empty.
    pub(crate) fn write_value(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        self.0.iter().for_each(|part| part.write_or(entry, true, out));
    }
}

impl Part {
    fn new(part: &FormatPart) -> Part {
        let command = match part {
            FormatPart::Literal(text) => return Part::Literal(text.as_bytes().into()),
            FormatPart::Command(command) => command,
        };
        match command {
            Command::RequestHeader {
                name,
                alternative,
                max_bytes,
            } => Part::Request(HeaderRule::new(name, alternative.as_deref(), *max_bytes)),
            Command::ResponseHeader {
                name,
                alternative,
                max_bytes,
            } => Part::Response(HeaderRule::new(name, alternative.as_deref(), *max_bytes)),
            Command::ResponseTrailer {
                name,
                alternative,
                max_bytes,
            } => Part::Trailer(HeaderRule::new(name, alternative.as_deref(), *max_bytes)),
            Command::Hostname => Part::Literal(hostname().into_bytes().into()),
            other => Part::Command(other.clone()),
        }
    }

    /// What is not there is nothing, or `-`.
    fn write_or(&self, entry: &Entry<'_>, omits_empty: bool, out: &mut Vec<u8>) {
        if !omits_empty {
            return self.write(entry, b"-", out);
        }
        let start = out.len();
        self.write(entry, b"", out);
        // No command but that of the flags has this for a value.
        let is_missing = matches!(self, Part::Command(command) if *command != Command::ResponseFlags)
            && out.get(start..) == Some(b"-");
        if is_missing {
            out.truncate(start);
        }
    }

    /// `missing` stands for a header that is not there.
    fn write(&self, entry: &Entry<'_>, missing: &[u8], out: &mut Vec<u8>) {
        match self {
            Part::Literal(text) => out.extend_from_slice(text),
            Part::Request(rule) => {
                rule.write(|key| request_value(entry.request.as_ref()?, key), missing, out)
            }
            Part::Response(rule) => rule.write(|key| response_value(entry, key), missing, out),
            Part::Trailer(rule) => rule.write(|key| named(entry.trailers?, key), missing, out),
            Part::Command(Command::LocalReplyBody) => {
                out.extend_from_slice(entry.local_reply_body.unwrap_or_default());
            }
            Part::Command(command) => write_command(command, entry.info, out),
        }
    }
}

impl HeaderRule {
    fn new(name: &str, alternative: Option<&str>, max_bytes: Option<usize>) -> HeaderRule {
        let alternative = alternative.map(HeaderKey::new);
        HeaderRule {
            name: HeaderKey::new(name),
            alternative,
            max_bytes: max_bytes.unwrap_or(usize::MAX),
        }
    }

    fn write<'a>(
        &'a self,
        value: impl Fn(&'a HeaderKey) -> Option<&'a [u8]>,
        missing: &[u8],
        out: &mut Vec<u8>,
    ) {
        match value(&self.name).or_else(|| value(self.alternative.as_ref()?)) {
            Some(value) => out.extend_from_slice(value.get(..self.max_bytes).unwrap_or(value)),
            None => out.extend_from_slice(missing),
        }
    }
}

impl HeaderKey {
    fn new(name: &str) -> HeaderKey {
        match name.to_ascii_lowercase().as_str() {
            ":method" => HeaderKey::Method,
            ":path" => HeaderKey::Path,
            // Envoy keeps Host in :authority, so both names find it.
            ":authority" | "host" => HeaderKey::Authority,
            ":scheme" => HeaderKey::Scheme,
            ":status" => HeaderKey::Status,
            name => HeaderName::from_bytes(name.as_bytes()).map_or(HeaderKey::Never, HeaderKey::Named),
        }
    }
}

fn request_value<'a>(request: &RequestView<'a>, key: &HeaderKey) -> Option<&'a [u8]> {
    let pseudo = match key {
        HeaderKey::Method => request.method.as_str().as_bytes(),
        HeaderKey::Path => request.path.as_bytes(),
        HeaderKey::Authority => request.authority,
        HeaderKey::Scheme => request.scheme.as_bytes(),
        other => return named(request.headers, other),
    };
    Some(pseudo).filter(|value| !value.is_empty())
}

fn response_value<'a>(entry: &Entry<'a>, key: &HeaderKey) -> Option<&'a [u8]> {
    match key {
        HeaderKey::Status => entry
            .info
            .response_code
            .as_ref()
            .map(|code| code.as_str().as_bytes()),
        other => named(entry.response_headers?, other),
    }
}

fn named<'a>(headers: &'a HeaderMap, key: &HeaderKey) -> Option<&'a [u8]> {
    match key {
        HeaderKey::Named(name) => headers.get(name).map(|value| value.as_bytes()),
        _ => None,
    }
}

fn write_command(command: &Command, info: &StreamInfo, out: &mut Vec<u8>) {
    let (connection, upstream) = (&info.connection, &info.upstream);
    match command {
        Command::Awaited(_) | Command::LocalReplyBody => text(None, out),
        Command::StartTime => write_time(info.start_time, out),
        Command::Protocol => text(info.protocol.and_then(protocol), out),
        Command::ResponseCode => number(info.response_code.map_or(0, |code| u64::from(code.as_u16())), out),
        Command::ResponseFlags => flags(&info.flags, out),
        Command::ResponseCodeDetails => reason(info.response_code_details.as_deref(), out),
        Command::ConnectionTerminationDetails => reason(info.connection_termination_details.as_deref(), out),
        Command::UpstreamTransportFailureReason => reason(upstream.transport_failure_reason.as_deref(), out),
        Command::DownstreamTransportFailureReason => {
            reason(connection.transport_failure_reason.as_deref(), out)
        }
        Command::BytesReceived => number(info.bytes_received, out),
        Command::BytesSent => number(info.bytes_sent, out),
        Command::Duration => millis(info.duration(), out),
        Command::RequestDuration => millis(info.request_duration(), out),
        Command::ResponseDuration => millis(info.response_duration(), out),
        Command::UpstreamHost => address(upstream.host, out),
        Command::UpstreamCluster => text(info.upstream_cluster.as_deref(), out),
        Command::UpstreamClusterRaw => text(info.upstream_cluster_raw.as_deref(), out),
        Command::UpstreamLocalAddress => address(upstream.local_address, out),
        Command::DownstreamLocalAddress => address(Some(connection.local_address), out),
        Command::DownstreamRemoteAddress => address(Some(info.downstream_remote_address()), out),
        Command::DownstreamDirectRemoteAddress => address(Some(connection.direct_remote_address), out),
        Command::RequestedServerName => server_name(connection.requested_server_name.as_deref(), out),
        Command::RouteName => text(info.route_name.as_deref(), out),
        Command::FilterChainName => text(connection.filter_chain_name.as_deref(), out),
        Command::ConnectionId => number(connection.id, out),
        Command::UpstreamRequestAttemptCount => number(u64::from(info.attempt_count), out),
        Command::DownstreamPeerUriSan => sans(connection.tls.as_ref().map(|tls| &tls.peer_uri_sans), out),
        Command::DownstreamLocalUriSan => sans(connection.tls.as_ref().map(|tls| &tls.local_uri_sans), out),
        Command::DownstreamPeerSubject => {
            tls_text(connection.tls.as_ref(), |tls| tls.peer_subject.as_deref(), out)
        }
        Command::DownstreamTlsVersion => tls_text(connection.tls.as_ref(), |tls| Some(tls.version), out),
        Command::DownstreamTlsCipher => tls_text(connection.tls.as_ref(), |tls| Some(tls.cipher), out),
        Command::DynamicMetadata {
            namespace,
            key,
            max_bytes,
        } => metadata(info, namespace, key, max_bytes.unwrap_or(usize::MAX), out),
        // `Part::new` turned these into parts of their own.
        Command::RequestHeader { .. }
        | Command::ResponseHeader { .. }
        | Command::ResponseTrailer { .. }
        | Command::Hostname => out.push(b'-'),
    }
}

/// Empty is as good as missing, as in Envoy.
fn text(value: Option<&str>, out: &mut Vec<u8>) {
    let value = value.filter(|value| !value.is_empty()).unwrap_or("-");
    out.extend_from_slice(value.as_bytes());
}

/// Of the connection: nothing sets metadata of a stream. As in Envoy a stream does not have that of its connection.
fn metadata(info: &StreamInfo, namespace: &str, key: &str, max_bytes: usize, out: &mut Vec<u8>) {
    let metadata = info
        .connection
        .metadata
        .as_ref()
        .filter(|_| info.protocol.is_none());
    let value = metadata.and_then(|metadata| metadata.get(namespace, key)?.as_str());
    text(value.map(|value| value.get(..max_bytes).unwrap_or(value)), out);
}

fn tls_text(tls: Option<&TlsInfo>, value: impl Fn(&TlsInfo) -> Option<&str>, out: &mut Vec<u8>) {
    text(tls.and_then(value), out);
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn millis(duration: Option<Duration>, out: &mut Vec<u8>) {
    match duration {
        Some(duration) => number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), out),
        None => out.push(b'-'),
    }
}

fn address(address: Option<SocketAddr>, out: &mut Vec<u8>) {
    match address {
        // Four of them stand in each line: the formatting machinery would be a twelfth of what a request costs.
        Some(SocketAddr::V4(address)) => {
            for (index, octet) in address.ip().octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                number(u64::from(octet), out);
            }
            out.push(b':');
            number(u64::from(address.port()), out);
        }
        // Writing to a Vec has no error.
        Some(address) => drop(write!(out, "{address}")),
        None => out.push(b'-'),
    }
}

fn flags(flags: &ResponseFlags, out: &mut Vec<u8>) {
    if flags.is_empty() {
        return out.push(b'-');
    }
    for (index, flag) in flags.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(flag.short().as_bytes());
    }
}

/// Details and reasons hold system and TLS error texts: each blank or line break becomes `_`.
fn reason(value: Option<&str>, out: &mut Vec<u8>) {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return out.push(b'-');
    };
    out.extend(value.bytes().map(|byte| {
        if byte.is_ascii_whitespace() || byte == 0x0b {
            b'_'
        } else {
            byte
        }
    }));
}

/// SNI is any bytes a client sends. As Envoy: what no host name has becomes `_`, and `invalid:` stands before it.
fn server_name(name: Option<&str>, out: &mut Vec<u8>) {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return out.push(b'-');
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !name.bytes().all(fits) {
        out.extend_from_slice(b"invalid:");
    }
    out.extend(name.bytes().map(|byte| if fits(byte) { byte } else { b'_' }));
}

fn sans(sans: Option<&Vec<Arc<str>>>, out: &mut Vec<u8>) {
    let Some(sans) = sans.filter(|sans| !sans.is_empty()) else {
        return out.push(b'-');
    };
    for (index, san) in sans.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(san.as_bytes());
    }
}

fn protocol(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("HTTP/1.0"),
        Version::HTTP_11 => Some("HTTP/1.1"),
        Version::HTTP_2 => Some("HTTP/2"),
        Version::HTTP_3 => Some("HTTP/3"),
        _ => None,
    }
}

/// `2026-11-21T03:57:27.841Z`, Envoy's default. Times before 1970 show as 1970.
pub(crate) fn write_time(time: SystemTime, out: &mut Vec<u8>) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let fields = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3600, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b'.'),
        (u64::from(since.subsec_millis()), 3, b'Z'),
    ];
    for (value, digits, end) in fields {
        for place in (0..digits).rev() {
            out.push(b'0' + (value / 10_u64.pow(place) % 10) as u8);
        }
        out.push(end);
    }
}

/// Year, month and day of a day count since 1970-01-01, Gregorian calendar.
///
/// Counts from 0000-03-01, so that the leap day ends a year: 146,097 days are 400 years. Twenty lines, so no crate.
fn civil(days: u64) -> (u64, u64, u64) {
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Name of this machine or pod; `-` where the kernel does not tell.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "-".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests;
