//! Protocol changes are spoken of in HTTP/1's words inside of the proxy; HTTP/2 has its own (RFC 8441, extended CONNECT).
//! Source: Envoy `Http::Utility::transformUpgradeRequestFromH2toH1` and its three relatives.
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::{RequestHead, ResponseHead};

/// A CONNECT with `:protocol` came.
pub(super) fn request_from_h2(head: &mut RequestHead, protocol: &str) {
    let Ok(protocol) = HeaderValue::from_str(protocol) else {
        return;
    };
    head.method = Method::GET;
    head.is_upgrade = true;
    name(&mut head.headers, protocol);
}

/// Turns a request into a CONNECT; what is returned goes into `:protocol`.
pub(super) fn request_to_h2(head: &mut RequestHead) -> Option<HeaderValue> {
    head.method = Method::CONNECT;
    forget(&mut head.headers)
}

/// The answer to [`request_from_h2`].
pub(super) fn response_to_h2(head: &mut ResponseHead) {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        head.status = StatusCode::OK;
    }
    forget(&mut head.headers);
}

/// The answer to a [`request_to_h2`] that asked for `protocol`.
pub(super) fn response_from_h2(head: &mut ResponseHead, protocol: HeaderValue) {
    if head.status == StatusCode::OK {
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        name(&mut head.headers, protocol);
    }
}

fn name(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

fn forget(headers: &mut HeaderMap) -> Option<HeaderValue> {
    headers.remove(CONNECTION);
    if headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0") {
        headers.remove(CONTENT_LENGTH);
    }
    headers.remove(UPGRADE)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http::Version;

    use super::*;
    use crate::codec::{
        Body, Http2Settings, Refusal, Request, Response, ServerOptions, StreamHandler, Underscores, h2,
    };

    /// Says yes and gives the body back, or no.
    struct Echo;

    impl StreamHandler for Echo {
        async fn handle(&self, request: Request) -> Response {
            assert!(request.head.is_upgrade && request.head.method == Method::GET);
            let yes = request.head.headers[UPGRADE] == "websocket";
            let mut head = ResponseHead {
                status: if yes {
                    StatusCode::SWITCHING_PROTOCOLS
                } else {
                    StatusCode::FORBIDDEN
                },
                headers: HeaderMap::new(),
            };
            name(&mut head.headers, HeaderValue::from_static("websocket"));
            let body = if yes { request.body } else { Body::empty() };
            Response { head, body }
        }

        fn refuse(&self, _refusal: &Refusal) -> Response {
            unreachable!("nothing else is sent")
        }
    }

    const HTTP2: Http2Settings = Http2Settings {
        max_concurrent_streams: 10,
        stream_window: 65_535,
        connection_window: 65_535,
        max_header_list_bytes: 65_536,
        allows_connect: true,
        header_table_bytes: None,
        keepalive: None,
    };

    async fn ask(protocol: &'static str) -> (StatusCode, Option<HeaderValue>, String) {
        let (near, far) = tokio::io::duplex(1000);
        let options = ServerOptions {
            max_head_bytes: 1000,
            max_headers: 10,
            accept_http_10: false,
            takes_chunked_length: false,
            passes_trailers: false,
            name_case: crate::codec::NameCase::Lower,
            informs: false,
            head_timeout: None,
            idle_timeout: None,
            drain_timeout: std::time::Duration::ZERO,
            drain_closes_idle: false,
            life: crate::codec::Life::ENDLESS,
            http1_underscores: Underscores::Allow,
            http2_underscores: Underscores::Allow,
            http2: HTTP2,
        };
        let drain = crate::drain::Drain::default();
        let watch = drain.watch();
        crate::worker::spawn(async move {
            h2::server::serve(far, false, &options, Rc::new(Echo), watch).await;
        });
        let client = h2::client::handshake(near, HTTP2, None, |_| ())
            .await
            .expect("a connection");
        let mut headers = HeaderMap::new();
        name(&mut headers, HeaderValue::from_static(protocol));
        let head = RequestHead {
            method: Method::GET,
            path: "/".parse().expect("a path"),
            authority: HeaderValue::from_static("a"),
            scheme: "http",
            version: Version::HTTP_11,
            headers,
            is_upgrade: true,
        };
        let response = client
            .send(head, Body::full("hello"), None)
            .await
            .expect("an answer");
        let (mut body, mut text) = (response.body, String::new());
        while let Some(Ok(frame)) = body.frame().await {
            text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
        }
        let told = response.head.headers.get(UPGRADE).cloned();
        (response.head.status, told, text)
    }

    #[tokio::test]
    async fn http2_asks_by_extended_connect() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let yes = Some(HeaderValue::from_static("websocket"));
                assert_eq!(
                    ask("websocket").await,
                    (StatusCode::SWITCHING_PROTOCOLS, yes, "hello".into())
                );
                assert_eq!(ask("other").await, (StatusCode::FORBIDDEN, None, String::new()));
            })
            .await;
    }
}
