//! Parses format strings: literal text and `%COMMAND(parameters):length%`.
//!
//! Source: Envoy docs, access logging, "Command operators"; `%%` is a percent sign.
use super::{Command, FormatPart};
use crate::field::{FieldPath, Rejection};

/// Commands without parameters.
const PLAIN: [(&str, Command); 32] = [
    ("START_TIME", Command::StartTime),
    ("PROTOCOL", Command::Protocol),
    ("RESPONSE_CODE", Command::ResponseCode),
    ("RESPONSE_FLAGS", Command::ResponseFlags),
    ("RESPONSE_CODE_DETAILS", Command::ResponseCodeDetails),
    (
        "CONNECTION_TERMINATION_DETAILS",
        Command::ConnectionTerminationDetails,
    ),
    (
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
        Command::UpstreamTransportFailureReason,
    ),
    (
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
        Command::DownstreamTransportFailureReason,
    ),
    ("BYTES_RECEIVED", Command::BytesReceived),
    ("BYTES_SENT", Command::BytesSent),
    ("DURATION", Command::Duration),
    ("REQUEST_DURATION", Command::RequestDuration),
    ("RESPONSE_DURATION", Command::ResponseDuration),
    ("UPSTREAM_HOST", Command::UpstreamHost),
    ("UPSTREAM_CLUSTER", Command::UpstreamCluster),
    ("UPSTREAM_CLUSTER_RAW", Command::UpstreamClusterRaw),
    ("UPSTREAM_LOCAL_ADDRESS", Command::UpstreamLocalAddress),
    ("DOWNSTREAM_LOCAL_ADDRESS", Command::DownstreamLocalAddress),
    ("DOWNSTREAM_REMOTE_ADDRESS", Command::DownstreamRemoteAddress),
    (
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
        Command::DownstreamDirectRemoteAddress,
    ),
    ("REQUESTED_SERVER_NAME", Command::RequestedServerName),
    ("ROUTE_NAME", Command::RouteName),
    ("FILTER_CHAIN_NAME", Command::FilterChainName),
    ("DOWNSTREAM_PEER_URI_SAN", Command::DownstreamPeerUriSan),
    ("DOWNSTREAM_LOCAL_URI_SAN", Command::DownstreamLocalUriSan),
    ("DOWNSTREAM_PEER_SUBJECT", Command::DownstreamPeerSubject),
    ("DOWNSTREAM_TLS_VERSION", Command::DownstreamTlsVersion),
    ("DOWNSTREAM_TLS_CIPHER", Command::DownstreamTlsCipher),
    ("CONNECTION_ID", Command::ConnectionId),
    (
        "UPSTREAM_REQUEST_ATTEMPT_COUNT",
        Command::UpstreamRequestAttemptCount,
    ),
    ("HOSTNAME", Command::Hostname),
    ("LOCAL_REPLY_BODY", Command::LocalReplyBody),
];

/// Commands with a header name.
const HEADERS: [&str; 3] = ["REQ", "RESP", "TRAILER"];

/// Commands of Envoy that the telemetry issue builds. Source: Envoy docs, "Command operators" and the formatter extensions.
const AWAITED: [&str; 77] = [
    "ACCESS_LOG_TYPE",
    "BYTES_RETRANSMITTED",
    "CEL",
    "CLUSTER_METADATA",
    "COMMON_DURATION",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_LOCAL_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DYNAMIC_METADATA",
    "EMIT_TIME",
    "ENVIRONMENT",
    "FILTER_STATE",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "LISTENER_METADATA",
    "METADATA",
    "PATH",
    "QUERY_PARAM",
    "QUERY_PARAMS",
    "REQUEST_HEADERS_BYTES",
    "REQUEST_TX_DURATION",
    "REQ_WITHOUT_QUERY",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "RESPONSE_TX_DURATION",
    "ROUNDTRIP_DURATION",
    "STREAM_ID",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "TRACE_ID",
    "UNIQUE_ID",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    "UPSTREAM_HOSTS_ATTEMPTED",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_METADATA",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
];

/// Splits a format string. A command of Envoy, or a way to use one, that does not exist here yet is listed.
///
/// # Errors
/// A `%` without its partner, a command that Envoy does not have, or parameters that it does not take.
pub(crate) fn parse(at: &FieldPath<'_>, text: &str) -> Result<Vec<FormatPart>, Rejection> {
    parse_with(at, text, |_| None)
}

fn parse_with(
    at: &FieldPath<'_>,
    text: &str,
    more: impl Fn(&str) -> Option<Command>,
) -> Result<Vec<FormatPart>, Rejection> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let Some((command, after)) = split_command(after) else {
            return Err(at.reject(format!("the `%` before {:?} has no partner", head(after))));
        };
        if !literal.is_empty() {
            parts.push(FormatPart::Literal(std::mem::take(&mut literal)));
        }
        parts.push(FormatPart::Command(match more(command) {
            Some(command) => command,
            None => parse_command(at, command)?,
        }));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(FormatPart::Literal(literal));
    }
    Ok(parts)
}

/// The command up to its closing `%`; parameters may hold a `%`.
fn split_command(text: &str) -> Option<(&str, &str)> {
    let end = match (text.find('('), text.find('%')) {
        (Some(open), Some(percent)) if open < percent => {
            let close = text.get(open..)?.find(')')? + open;
            text.get(close..)?.find('%')? + close
        }
        (_, percent) => percent?,
    };
    Some((text.get(..end)?, text.get(end + 1..)?))
}

/// The beginning of a text, for messages.
fn head(text: &str) -> String {
    text.chars().take(20).collect()
}

fn parse_command(at: &FieldPath<'_>, command: &str) -> Result<Command, Rejection> {
    let (command, max_bytes) = split_length(at, command)?;
    let (name, parameter) = match command.split_once('(') {
        None => (command, None),
        Some((name, parameter)) => match parameter.strip_suffix(')') {
            Some(parameter) => (name, Some(parameter)),
            None => return Err(at.reject(format!("`%{command}%` does not close its parenthesis"))),
        },
    };
    if HEADERS.contains(&name) {
        return header_command(at, name, parameter, max_bytes);
    }
    if let ("DYNAMIC_METADATA", Some((namespace, key))) = (name, one_key(parameter)) {
        return Ok(Command::DynamicMetadata {
            namespace: namespace.to_owned(),
            key: key.to_owned(),
            max_bytes,
        });
    }
    match PLAIN.iter().find(|(known, _)| *known == name) {
        Some((_, plain)) if parameter.is_none() && max_bytes.is_none() => Ok(plain.clone()),
        Some((_, Command::StartTime)) => Ok(awaited(at, command)),
        None if AWAITED.contains(&name) => Ok(awaited(at, command)),
        Some(_) => Err(at.reject(format!("`%{name}%` takes neither parameters nor a length here"))),
        None => {
            let valid = PLAIN.iter().map(|(known, _)| *known).chain(HEADERS);
            Err(at.reject_name(format!("unknown command `%{}%`", head(name)), name, valid))
        }
    }
}

/// `NAMESPACE:KEY`; whole namespaces and longer paths, which print JSON, are not for here yet.
fn one_key(parameter: Option<&str>) -> Option<(&str, &str)> {
    let (namespace, key) = parameter?.split_once(':')?;
    (!namespace.is_empty() && !key.is_empty() && !key.contains(':')).then_some((namespace, key))
}

fn awaited(at: &FieldPath<'_>, command: &str) -> Command {
    at.problem(format!(
        "`%{command}%` is `-` here: the telemetry issue builds it"
    ));
    Command::Awaited(command.to_owned())
}

/// Takes `:N` off the end.
fn split_length<'a>(at: &FieldPath<'_>, command: &'a str) -> Result<(&'a str, Option<usize>), Rejection> {
    // A colon inside the parentheses belongs to a pseudo-header.
    let after = command.rfind(')').map_or(0, |close| close + 1);
    let Some(colon) = command
        .get(after..)
        .and_then(|tail| tail.find(':'))
        .map(|colon| colon + after)
    else {
        return Ok((command, None));
    };
    let (command, length) = command.split_at(colon);
    match length.trim_start_matches(':').parse() {
        Ok(length) => Ok((command, Some(length))),
        Err(_) => Err(at.reject(format!(
            "`%{}{}%` has a length that is no number",
            head(command),
            head(length)
        ))),
    }
}

fn header_command(
    at: &FieldPath<'_>,
    command: &str,
    parameter: Option<&str>,
    max_bytes: Option<usize>,
) -> Result<Command, Rejection> {
    let (name, alternative) = match parameter.unwrap_or_default().split_once('?') {
        Some((name, alternative)) => (name, Some(alternative.to_ascii_lowercase())),
        None => (parameter.unwrap_or_default(), None),
    };
    if name.is_empty()
        || alternative
            .as_deref()
            .is_some_and(|name| name.is_empty() || name.contains('?'))
    {
        return Err(at.reject(format!(
            "`%{command}%` needs one or two header names: `%{command}(A?B)%`"
        )));
    }
    let name = name.to_ascii_lowercase();
    Ok(match command {
        "REQ" => Command::RequestHeader {
            name,
            alternative,
            max_bytes,
        },
        "RESP" => Command::ResponseHeader {
            name,
            alternative,
            max_bytes,
        },
        _ => Command::ResponseTrailer {
            name,
            alternative,
            max_bytes,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Context;

    fn check(text: &str, expected: &[FormatPart]) {
        assert_eq!(
            parse(&Context::new("test", "t").root(), text).unwrap(),
            expected,
            "{text}"
        );
    }

    fn refuse(text: &str, reason: &str, nearest: Option<&str>) {
        let rejection = parse(&Context::new("test", "t").root(), text).unwrap_err();
        assert!(rejection.reason.contains(reason), "{text}: {rejection}");
        assert_eq!(rejection.did_you_mean.as_deref(), nearest, "{text}");
    }

    fn literal(text: &str) -> FormatPart {
        FormatPart::Literal(text.to_owned())
    }

    fn request(name: &str, alternative: Option<&str>, max_bytes: Option<usize>) -> FormatPart {
        let (name, alternative) = (name.to_owned(), alternative.map(str::to_owned));
        FormatPart::Command(Command::RequestHeader {
            name,
            alternative,
            max_bytes,
        })
    }

    #[test]
    fn commands_stand_between_literals() {
        check(
            "[%START_TIME%]\n",
            &[
                literal("["),
                FormatPart::Command(Command::StartTime),
                literal("]\n"),
            ],
        );
        check(
            "100 %% %DURATION%",
            &[literal("100 % "), FormatPart::Command(Command::Duration)],
        );
        check("", &[]);
        check("plain", &[literal("plain")]);
    }

    #[test]
    fn header_commands_take_an_alternative_and_a_length() {
        check("%REQ(X-A?:PATH):12%", &[request("x-a", Some(":path"), Some(12))]);
        check("%REQ(:METHOD)%", &[request(":method", None, None)]);
    }

    #[test]
    fn a_command_that_an_issue_builds_is_listed() {
        let context = Context::new("test", "t");
        let text = "%START_TIME(%s)% %FILTER_STATE(x:TYPED):9%";
        let parts = parse(&context.root(), text).unwrap();
        assert_eq!(parts.len(), 3);
        assert!(
            matches!(&parts[2], FormatPart::Command(Command::Awaited(name)) if name == "FILTER_STATE(x:TYPED)")
        );
        assert_eq!(context.finish(()).problems.len(), 2);
    }

    #[test]
    fn what_is_not_a_command_is_refused_with_the_nearest_name() {
        refuse("%START_TIM%", "unknown command", Some("START_TIME"));
        refuse("%RESPP(X)%", "unknown command", Some("RESP"));
        refuse("%DURATION", "no partner", None);
        refuse("%DURATION(x)%", "takes neither", None);
        refuse("%REQ()%", "needs one or two", None);
        refuse("%REQ(a?b?c)%", "needs one or two", None);
        refuse("%REQ(a):x%", "no number", None);
        refuse("%REQ(a%", "no partner", None);
        refuse("%é%", "unknown command", Some("REQ"));
    }
}
