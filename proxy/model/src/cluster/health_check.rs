//! Active health checks. Source and defaults: envoy/config/core/v3/health_check.proto.
use std::ops::Range;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{self as core, health_check as pb};
use envoy_types::pb::envoy::r#type::v3::{CodecClientType, Int64Range};

use crate::access_log::FormatPart;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::route::{HeaderAddition, header_additions, header_removals};
use crate::scalar::Wrapped;

/// How the hosts of a cluster are asked whether they are well, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HealthCheck {
    /// For an answer.
    pub timeout: Duration,
    /// Between checks of a healthy host.
    pub interval: Duration,
    /// At most so long before the first.
    pub initial_jitter: Duration,
    /// At most so much is added to each interval,
    pub interval_jitter: Duration,
    /// and this much of itself.
    pub interval_jitter_percent: u32,
    /// Failures until a healthy host is unhealthy.
    pub unhealthy_threshold: u32,
    /// Successes until an unhealthy host is healthy.
    pub healthy_threshold: u32,
    /// One connection for many checks.
    pub reuses_connection: bool,
    /// While the cluster has had no connection.
    pub no_traffic_interval: Duration,
    /// The same, for healthy hosts.
    pub no_traffic_healthy_interval: Duration,
    /// Between checks of an unhealthy host.
    pub unhealthy_interval: Duration,
    /// While a host is becoming unhealthy.
    pub unhealthy_edge_interval: Duration,
    /// While a host is becoming healthy.
    pub healthy_edge_interval: Duration,
    /// What is asked.
    pub checker: HealthChecker,
}

/// What is asked, and what is a good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthChecker {
    /// A request.
    Http {
        /// Empty: the cluster's name.
        host: String,
        /// Path and query.
        path: String,
        /// Such as `GET`.
        method: &'static str,
        /// Good ones.
        expected_statuses: Vec<Range<u16>>,
        /// Bad ones that count like a lost connection: not at once.
        retriable_statuses: Vec<Range<u16>>,
        /// HTTP/2 instead of HTTP/1.1.
        is_http2: bool,
        /// The body of a question.
        send: Vec<u8>,
        /// Added to its headers, without commands in their values.
        added_headers: Vec<HeaderAddition>,
        /// Left out then, lower case.
        removed_headers: Vec<String>,
    },
    /// A connection, and bytes on it.
    Tcp {
        /// Sent first.
        send: Vec<u8>,
        /// Must come, in this order.
        receive: Vec<Vec<u8>>,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// Which service; empty: the server.
        service: String,
        /// Empty: the cluster's name.
        authority: String,
        /// Added to the headers, without commands in their values.
        metadata: Vec<HeaderAddition>,
    },
}

const NO_TRAFFIC_INTERVAL: Duration = Duration::from_secs(60);
const GOOD: Range<u16> = 200..201;

impl HealthCheck {
    pub(super) fn from_proto(at: &FieldPath<'_>, proto: core::HealthCheck) -> Result<Self, Rejection> {
        verdicts!(at, proto => core::HealthCheck {
            supported {
                timeout, interval, initial_jitter, interval_jitter, interval_jitter_percent, unhealthy_threshold,
                healthy_threshold, reuse_connection, no_traffic_interval, no_traffic_healthy_interval,
                unhealthy_interval, unhealthy_edge_interval, healthy_edge_interval, health_checker,
            }
            inert { alt_port: "no code of Envoy reads it: health_check_config of an endpoint has the port" }
            unsupported {
                event_log_path: "traffic", event_logger: "traffic", event_service: "traffic",
                always_log_health_check_failures: "traffic", always_log_health_check_success: "traffic",
            }
            refused {
                tls_options: "ignoring it would offer other protocols",
                transport_socket_match_criteria: "ignoring it could send plaintext where TLS is asked for",
            }
        });
        let duration = |field, proto| at.field(field).duration(proto);
        let positive = |field, proto| at.field(field).positive(proto);
        let required = |field, proto: Option<Duration>| at.field(field).required(proto);
        let threshold = |field, proto| at.field(field).required(proto);
        let interval = required("interval", positive("interval", interval)?)?;
        let unhealthy_interval = positive("unhealthy_interval", unhealthy_interval)?.unwrap_or(interval);
        let no_traffic = positive("no_traffic_interval", no_traffic_interval)?.unwrap_or(NO_TRAFFIC_INTERVAL);
        Ok(Self {
            timeout: required("timeout", positive("timeout", timeout)?)?,
            interval,
            initial_jitter: duration("initial_jitter", initial_jitter)?.unwrap_or_default(),
            interval_jitter: duration("interval_jitter", interval_jitter)?.unwrap_or_default(),
            interval_jitter_percent,
            unhealthy_threshold: threshold("unhealthy_threshold", unhealthy_threshold.value())?,
            healthy_threshold: threshold("healthy_threshold", healthy_threshold.value())?,
            reuses_connection: reuse_connection.value().unwrap_or(true),
            no_traffic_interval: no_traffic,
            no_traffic_healthy_interval: positive(
                "no_traffic_healthy_interval",
                no_traffic_healthy_interval,
            )?
            .unwrap_or(no_traffic),
            unhealthy_interval,
            unhealthy_edge_interval: positive("unhealthy_edge_interval", unhealthy_edge_interval)?
                .unwrap_or(unhealthy_interval),
            healthy_edge_interval: positive("healthy_edge_interval", healthy_edge_interval)?
                .unwrap_or(interval),
            checker: HealthChecker::from_proto(at, health_checker)?,
        })
    }
}

impl HealthChecker {
    fn from_proto(at: &FieldPath<'_>, proto: Option<pb::HealthChecker>) -> Result<Self, Rejection> {
        choices!(pb::HealthChecker {
            supported { HttpHealthCheck, TcpHealthCheck, GrpcHealthCheck }
            refused { CustomHealthCheck: "ignoring it would take every host for healthy" }
        });
        match proto {
            Some(pb::HealthChecker::HttpHealthCheck(proto)) => {
                Self::http(&at.field("http_health_check"), proto)
            }
            Some(pb::HealthChecker::TcpHealthCheck(proto)) => Self::tcp(&at.field("tcp_health_check"), proto),
            Some(pb::HealthChecker::GrpcHealthCheck(proto)) => {
                let at = at.field("grpc_health_check");
                verdicts!(at, proto => pb::GrpcHealthCheck {
                    supported { service_name, authority }
                    partly { initial_metadata: "values without commands; others are left out" }
                });
                Ok(Self::Grpc {
                    service: service_name,
                    authority,
                    metadata: literals(at.field("initial_metadata"), initial_metadata)?,
                })
            }
            Some(pb::HealthChecker::CustomHealthCheck(_)) => {
                let reason =
                    "is not supported; write http_health_check, tcp_health_check or grpc_health_check";
                Err(at.field("custom_health_check").reject(reason))
            }
            None => Err(at.reject(
                "has no health_checker: write http_health_check, tcp_health_check or grpc_health_check",
            )),
        }
    }

    fn http(at: &FieldPath<'_>, proto: pb::HttpHealthCheck) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::HttpHealthCheck {
            supported {
                host, path, expected_statuses, retriable_statuses, codec_client_type, method, send, request_headers_to_remove,
            }
            partly { request_headers_to_add: "values without commands; others are left out" }
            inert { response_buffer_size: "bounds what receive compares, and receive is refused" }
            refused {
                receive: "ignoring it would take hosts for healthy",
                service_name_matcher: "ignoring it would take other services for this one",
            }
        });
        let ranges = |field, protos: Vec<Int64Range>| {
            let at = at.field(field);
            let ranges = protos
                .into_iter()
                .enumerate()
                .map(|(index, proto)| range(&at.index(index), proto));
            ranges.collect::<Result<Vec<_>, _>>()
        };
        let mut expected = ranges("expected_statuses", expected_statuses)?;
        if expected.is_empty() {
            expected.push(GOOD);
        }
        let path = at.field("path").not_empty(path)?;
        let method = method_of(&at.field("method"), method)?;
        let send = send.map_or(Ok(Vec::new()), |proto| payload(&at.field("send"), proto))?;
        if !send.is_empty() && !["POST", "PUT", "PATCH", "OPTIONS"].contains(&method) {
            let reason =
                format!("is a body, which {method} has not; write POST, PUT, PATCH or OPTIONS as method");
            return Err(at.field("send").reject(reason));
        }
        Ok(Self::Http {
            host,
            path,
            method,
            send,
            added_headers: literals(at.field("request_headers_to_add"), request_headers_to_add)?,
            removed_headers: header_removals(
                at.field("request_headers_to_remove"),
                request_headers_to_remove,
            )?,
            expected_statuses: expected,
            retriable_statuses: ranges("retriable_statuses", retriable_statuses)?,
            is_http2: match at.field("codec_client_type").enumeration(codec_client_type)? {
                CodecClientType::Http1 => false,
                CodecClientType::Http2 => true,
                CodecClientType::Http3 => {
                    return Err(at.field("codec_client_type").reject("HTTP/3 is not supported"));
                }
            },
        })
    }

    fn tcp(at: &FieldPath<'_>, proto: pb::TcpHealthCheck) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::TcpHealthCheck {
            supported { send, receive }
            refused { proxy_protocol_config: "ignoring it would send what servers behind a proxy do not read" }
        });
        let receive_at = at.field("receive");
        let receive = receive.into_iter().enumerate();
        Ok(Self::Tcp {
            send: send.map_or(Ok(Vec::new()), |proto| payload(&at.field("send"), proto))?,
            receive: receive
                .map(|(index, proto)| payload(&receive_at.index(index), proto))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Headers whose values are known now: there is no request that commands could speak of.
fn literals(
    at: FieldPath<'_>,
    protos: Vec<core::HeaderValueOption>,
) -> Result<Vec<HeaderAddition>, Rejection> {
    let (literals, others): (Vec<_>, Vec<_>) =
        header_additions(at, protos)?.into_iter().partition(|addition| {
            let mut parts = addition.value.iter();
            parts.all(|part| matches!(part, FormatPart::Literal(_)))
        });
    for addition in others {
        at.problem(format!(
            "{:?} is left out: its value has a command",
            addition.name
        ));
    }
    Ok(literals)
}

/// Bytes as hexadecimal text or as they are.
fn payload(at: &FieldPath<'_>, proto: pb::Payload) -> Result<Vec<u8>, Rejection> {
    verdicts!(at, proto => pb::Payload { supported { payload } });
    choices!(pb::payload::Payload {
        supported { Binary }
        partly { Text: "hexadecimal; other text is refused" }
    });
    match at.required(payload)? {
        pb::payload::Payload::Binary(bytes) => Ok(bytes),
        pb::payload::Payload::Text(text) => hex(&text).ok_or_else(|| {
            at.field("text")
                .reject(format!("{text:?} is no sequence of bytes in hexadecimal"))
        }),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    let byte = |pair: &[u8; 2]| {
        let digits = std::str::from_utf8(pair).ok()?;
        let is_hex = pair.iter().all(u8::is_ascii_hexdigit);
        u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)
    };
    pairs.iter().map(byte).collect()
}

/// Statuses from `start` to before `end`. Source: Envoy `HttpStatusChecker`.
fn range(at: &FieldPath<'_>, proto: Int64Range) -> Result<Range<u16>, Rejection> {
    verdicts!(at, proto => Int64Range { supported { start, end } });
    match (u16::try_from(start), u16::try_from(end)) {
        (Ok(start), Ok(end)) if start < end && start >= 100 && end <= 600 => Ok(start..end),
        _ => Err(at.reject(format!(
            "{start} to {end} is no range of statuses from 100 to 600"
        ))),
    }
}

fn method_of(at: &FieldPath<'_>, number: i32) -> Result<&'static str, Rejection> {
    Ok(match at.enumeration(number)? {
        core::RequestMethod::MethodUnspecified | core::RequestMethod::Get => "GET",
        core::RequestMethod::Head => "HEAD",
        core::RequestMethod::Post => "POST",
        core::RequestMethod::Put => "PUT",
        core::RequestMethod::Delete => "DELETE",
        core::RequestMethod::Options => "OPTIONS",
        core::RequestMethod::Trace => "TRACE",
        core::RequestMethod::Patch => "PATCH",
        core::RequestMethod::Connect => return Err(at.reject("CONNECT asks for no answer")),
    })
}
