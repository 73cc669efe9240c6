//! Request heads on their way in and response heads on their way out.
//! Source: Envoy `ConnectionManagerUtility::mutateRequestHeaders` and `mutateResponseHeaders`; docs, HTTP header sanitizing.
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{DATE, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use outrigger_model::hcm::{EscapedSlashes, HttpConnectionManager, ServerHeader};
use outrigger_model::listener::TrafficDirection;

use super::downstream::Downstream;
use super::extras::{Extras, FOR_THE_ROUTER};
use super::local_reply::LocalReply;
use super::manager::ConnectionManager;
use super::route_table::Route;
use super::{client, edge, path, request_id, xfcc};
use crate::codec::{Feedback, RequestHead, ResponseHead};
use crate::telemetry::stream_info::StreamInfo;

pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const DECORATOR_OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// Refuses what may not go on; nothing has been changed yet but the host of who is too old to name one.
pub(super) fn check(config: &HttpConnectionManager, head: &mut RequestHead) -> Result<(), LocalReply> {
    let missing = head.authority.is_empty() && !head.headers.contains_key(http::header::HOST);
    let default = config.default_host_for_http_10.as_deref();
    let default = default.filter(|_| missing && head.version == Version::HTTP_10);
    if let Some(host) = default.and_then(|host| HeaderValue::from_str(host).ok()) {
        head.authority = host;
    } else if missing && head.method != Method::CONNECT {
        return Err(LocalReply::new(StatusCode::BAD_REQUEST, None, "missing_host_header", "").closing());
    }
    // Source: Envoy 1.40, for the target `*` and for an absolute one without a path.
    if head.method != Method::CONNECT && !head.path.as_str().starts_with('/') {
        let details = "absolute_path_rejected";
        return Err(LocalReply::new(StatusCode::NOT_FOUND, None, details, ""));
    }
    if head.method.as_str() == "QUERY" && !head.headers.contains_key(http::header::CONTENT_TYPE) {
        let details = "query_missing_content_type";
        return Err(LocalReply::new(StatusCode::BAD_REQUEST, None, details, "").closing());
    }
    Ok(())
}

/// Who asks whether to send the body is told yes; nobody behind this proxy hears of the question. Source: Envoy
/// `ConnectionManagerImpl::ActiveStream::decodeHeaders`, without `proxy_100_continue`.
pub(super) fn continue_at_once(head: &mut RequestHead, feedback: &Feedback) {
    let expected = head.headers.get(http::header::EXPECT);
    if expected.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        head.headers.remove(http::header::EXPECT);
        feedback.inform(ResponseHead {
            status: StatusCode::CONTINUE,
            headers: HeaderMap::new(),
        });
    }
}

/// Headers that only a trusted hop may send, beside [`FOR_THE_ROUTER`]. As Envoy 1.40, nobody is trusted unless `internal_address_config` says so
/// (`ConnectionManagerUtility::cleanInternalHeaders`).
const INTERNAL_ONLY: [&str; 5] = [
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-original-url",
];

/// Takes out what only a trusted hop may say. Most requests have none of it: one look at each header name.
fn remove_internal_headers(headers: &mut HeaderMap) {
    if headers.keys().any(|name| name.as_str().starts_with("x-envoy-")) {
        for name in INTERNAL_ONLY.into_iter().chain(FOR_THE_ROUTER) {
            headers.remove(name);
        }
    }
}

/// Everything that happens to a request head before its route is sought.
pub(super) fn inbound(
    manager: &ConnectionManager,
    downstream: &Downstream,
    head: &mut RequestHead,
    info: &mut StreamInfo,
    random: &mut fastrand::Rng,
) -> Result<(), LocalReply> {
    let config = &manager.config;
    let extras = manager.extras.as_deref();
    if let Some(extras) = extras {
        extras.change_early(head, info);
    }
    let connected = downstream.info.remote_address.ip();
    client::join_forwarded_for(&mut head.headers);
    let finders = extras.map_or((&[][..], 0), Extras::finders);
    let client = client::find(finders, config.use_remote_address, connected, &mut head.headers)
        .inspect_err(|_| manager.stats.downstream_rq_rejected_via_ip_detection.inc())?;
    if let Some(address) = client.address {
        info.remote_address = Some(address);
    }
    let address = client.address.map_or(connected, |address| address.ip());
    let is_internal = client.may_be_internal && extras.is_some_and(|extras| extras.is_internal(address));
    if config.use_remote_address && !extras.is_some_and(Extras::keeps_forwarded_for) {
        edge::append_forwarded_for(&mut head.headers, connected);
    }
    let by_port = extras.and_then(|extras| extras.scheme_by_port(&downstream.info));
    let by_tls = if downstream.tls.is_some() { "https" } else { "http" };
    let scheme = by_port.unwrap_or(by_tls);
    let replaces = config.use_remote_address && !extras.is_some_and(Extras::trusts_hops);
    if replaces || !head.headers.contains_key(X_FORWARDED_PROTO) {
        head.headers
            .insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    // Envoy: the scheme upstream follows x-forwarded-proto when that names one.
    head.scheme = match head.headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        Some(b"https") => "https",
        Some(b"http") => "http",
        _ => head.scheme,
    };
    if let Some(extras) = extras {
        extras.tell_port(&downstream.info, replaces, &mut head.headers);
    }
    if is_internal {
        Extras::mark_internal(&mut head.headers);
    } else {
        remove_internal_headers(&mut head.headers);
        if config.use_remote_address {
            edge::arrive(config, address, &mut head.headers);
        }
    }
    if let Some(extras) = extras {
        extras.request(head);
    }
    request_id::set(
        &mut head.headers,
        config.generate_request_id,
        config.tracing.as_ref(),
        random,
    );
    xfcc::mutate(
        &mut head.headers,
        config.forward_client_cert,
        config.client_cert_details,
        downstream.tls.as_deref(),
    );
    Ok(())
}

/// Puts the path in order as the connection manager says. Source: Envoy `ConnectionManagerUtility::maybeNormalizePath`.
pub(super) fn clean_path(config: &HttpConnectionManager, head: &mut RequestHead) -> Result<(), LocalReply> {
    // As Envoy, a bad request is the last of its connection.
    let refusal =
        || LocalReply::new(StatusCode::BAD_REQUEST, None, "path_normalization_failed", "").closing();
    let unescaped = match config.escaped_slashes {
        EscapedSlashes::Keep => None,
        _ => path::unescape_slashes(&head.path),
    };
    let was_escaped = unescaped.is_some();
    if let Some(unescaped) = unescaped {
        // The log shows what it would have been, as Envoy's.
        head.path = unescaped.parse().map_err(|_| refusal())?;
        if config.escaped_slashes == EscapedSlashes::Reject {
            return Err(refusal());
        }
    }
    let normal = path::normalize(&head.path, config.normalize_path, config.merge_slashes);
    if let Some(normal) = normal.map_err(|path::InvalidPath| refusal())? {
        head.path = normal;
    }
    if !was_escaped || config.escaped_slashes != EscapedSlashes::Redirect {
        return Ok(());
    }
    if head.is_grpc() {
        return Err(refusal());
    }
    let location = HeaderValue::from_str(head.path.as_str()).map_err(|_| refusal())?;
    let mut reply = LocalReply::new(
        StatusCode::TEMPORARY_REDIRECT,
        None,
        "path_normalization_failed",
        "",
    );
    reply.headers.push((http::header::LOCATION, location));
    Err(reply)
}

/// The decorator's operation travels from the client's sidecar to the server's, for its span. Only with tracing configured.
/// Returns what the response of an inbound stream has to carry.
pub(super) fn decorate_request(
    manager: &ConnectionManager,
    route: &Route,
    head: &mut RequestHead,
) -> Option<HeaderValue> {
    manager.config.tracing.as_ref()?;
    if manager.direction == TrafficDirection::Outbound {
        if let Some(operation) = &route.decorator {
            head.headers.insert(DECORATOR_OPERATION, operation.clone());
        }
        return None;
    }
    match head.headers.remove(DECORATOR_OPERATION) {
        Some(_) => None,
        None => route.decorator.clone(),
    }
}

/// Everything that happens to a response head after the filters.
pub(super) fn outbound(
    manager: &ConnectionManager,
    head: &mut ResponseHead,
    decorator: Option<&HeaderValue>,
    (request, info): (Option<&RequestHead>, &StreamInfo),
) {
    if let Some(extras) = &manager.extras {
        extras.response(head, request, info);
    }
    let headers = &mut head.headers;
    match manager.config.server_header {
        ServerHeader::Overwrite => {
            headers.insert(SERVER, manager.server_name.clone());
        }
        ServerHeader::AppendIfAbsent => {
            headers
                .entry(SERVER)
                .or_insert_with(|| manager.server_name.clone());
        }
        ServerHeader::PassThrough => {}
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, date_now());
    }
    if manager.config.tracing.is_some() {
        if manager.direction == TrafficDirection::Outbound {
            headers.remove(DECORATOR_OPERATION);
        } else if let Some(operation) = decorator {
            headers.insert(DECORATOR_OPERATION, operation.clone());
        }
    }
}

/// The `date` value, made once a second and worker.
fn date_now() -> HeaderValue {
    thread_local! {
        static LAST: std::cell::RefCell<(u64, Option<HeaderValue>)> = const { std::cell::RefCell::new((0, None)) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(at, value)| match value {
        Some(value) if *at == second => value.clone(),
        _ => {
            let text = httpdate::fmt_http_date(now);
            let fresh = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
            (*at, *value) = (second, Some(fresh.clone()));
            fresh
        }
    })
}
