//! Answers made by the proxy itself: status, body, flag and details as Envoy's. Source: Envoy docs, response code details; local replies
//! to gRPC requests become trailers-only responses with a gRPC status (`Utility::sendLocalReply`).
pub(super) mod body_format;
pub(super) mod mapping;

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode, Version};

use crate::codec::{Body, Refusal, RequestHead, Response, ResponseHead};
use crate::telemetry::grpc::{GRPC_STATUS, status_of_http};
use crate::telemetry::response_flag::ResponseFlag;

const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What to answer and what to log.
#[derive(Debug, Clone)]
pub(super) struct LocalReply {
    pub(super) status: StatusCode,
    pub(super) body: Cow<'static, str>,
    pub(super) details: Cow<'static, str>,
    pub(super) flag: Option<ResponseFlag>,
    /// For gRPC clients; `None`: what the status means.
    pub(super) grpc_status: Option<u32>,
    /// It stays as it is for gRPC clients.
    pub(super) is_plain: bool,
    /// Extra headers, e.g. `x-envoy-overloaded`.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl LocalReply {
    /// No extra header.
    pub(super) fn new(
        status: StatusCode,
        flag: Option<ResponseFlag>,
        details: impl Into<Cow<'static, str>>,
        body: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            body: body.into(),
            details: details.into(),
            flag,
            grpc_status: None,
            is_plain: false,
            headers: Vec::new(),
        }
    }

    /// Ends its connection.
    pub(super) fn closing(mut self) -> Self {
        self.headers.push((CONNECTION, HeaderValue::from_static("close")));
        self
    }

    /// Of the codec. It ends its connection.
    pub(super) fn refusal(refusal: &Refusal) -> Self {
        let flag = refusal
            .is_protocol_error
            .then_some(ResponseFlag::DownstreamProtocolError);
        Self::new(refusal.status, flag, refusal.details, refusal.body)
    }

    /// The response for this request; without one, for what was none.
    pub(super) fn response(&self, request: Option<&RequestHead>) -> Response {
        let made = Made {
            head: ResponseHead {
                status: self.status,
                headers: self.headers.iter().cloned().collect(),
            },
            body: match &self.body {
                Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
                Cow::Owned(text) => Bytes::copy_from_slice(text.as_bytes()),
            },
            media_type: Some(PLAIN_TEXT),
        };
        made.response(self, request)
    }
}

/// An answer before it is made fit for its request.
struct Made {
    head: ResponseHead,
    body: Bytes,
    /// `None`: it has its own.
    media_type: Option<HeaderValue>,
}

impl Made {
    fn response(self, reply: &LocalReply, request: Option<&RequestHead>) -> Response {
        let Self {
            head: ResponseHead {
                mut status,
                mut headers,
            },
            mut body,
            media_type,
        } = self;
        if request.is_some_and(|request| request.version == Version::HTTP_2) {
            // RFC 9113 §8.2.2: it has none, and would not take one.
            headers.remove(CONNECTION);
        }
        if !reply.is_plain && request.is_some_and(RequestHead::is_grpc) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            let code = reply.grpc_status.unwrap_or_else(|| status_of_http(status).into());
            headers.entry(GRPC_STATUS).or_insert(HeaderValue::from(code));
            if !body.is_empty() && !headers.contains_key(GRPC_MESSAGE) {
                let message = percent_encoding::percent_encode(&body, GRPC_MESSAGE_ESCAPED).to_string();
                if let Ok(value) = HeaderValue::from_str(&message) {
                    headers.insert(GRPC_MESSAGE, value);
                }
            }
            headers.remove(CONTENT_LENGTH);
            status = StatusCode::OK;
            body = Bytes::new();
        } else if body.is_empty() {
            headers.remove(CONTENT_LENGTH);
            headers.remove(CONTENT_TYPE);
        } else {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            if let Some(media_type) = media_type {
                headers.insert(CONTENT_TYPE, media_type);
            }
        }
        Response {
            head: ResponseHead { status, headers },
            body: Body::full(body),
        }
    }
}

const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain");

/// gRPC's message escape: everything but printable ASCII without `%`. Source: gRPC over HTTP/2, `Percent-Encoded`.
const GRPC_MESSAGE_ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};

    fn request(content_type: Option<&'static str>) -> RequestHead {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
        }
        RequestHead {
            method: Method::POST,
            path: "/".parse().expect("a path"),
            authority: HeaderValue::from_static("a"),
            scheme: "http",
            version: Version::HTTP_2,
            headers,
            is_upgrade: false,
        }
    }

    #[test]
    fn grpc_clients_get_a_grpc_status() {
        let reply = LocalReply::new(
            StatusCode::SERVICE_UNAVAILABLE,
            None,
            "no_healthy_upstream",
            "no healthy upstream",
        );
        let response = reply.response(Some(&request(Some("application/grpc"))));
        assert_eq!(response.head.status, 200);
        assert_eq!(response.head.headers["grpc-status"], "14");
        assert_eq!(response.head.headers["grpc-message"], "no healthy upstream");
    }

    #[test]
    fn an_empty_body_has_no_content_type() {
        let reply = LocalReply::new(StatusCode::NOT_FOUND, None, "route_not_found", "");
        let response = reply.response(Some(&request(None)));
        assert!(response.head.headers.is_empty());
        assert!(response.body.is_empty());
    }
}
