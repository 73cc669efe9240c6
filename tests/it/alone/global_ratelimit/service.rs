//! A rate limit service whose answers the questions themselves ask for: the value of their entry `say`, words with `,` between.
//!
//! `over`, `status-N`, `http-N`, `reset`, `garbage`, `silence`; `limits`: the state of two limits; `body`, `type`, `headers`.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use e2e::netns::Namespace;
use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::Duration;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use prost::Message as _;

/// Questions that came, as text.
pub(super) type Asked = Arc<Mutex<Vec<String>>>;

/// Answers until the test ends.
pub(super) fn serve(namespace: &Namespace, port: u16, asked: &Asked) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    listener.set_nonblocking(true).expect("a socket");
    let asked = asked.clone();
    let _ends_with_the_test = namespace.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                let asked = asked.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else {
                        return;
                    };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(answer(request, respond, asked.clone()));
                    }
                });
            }
        });
    });
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    asked: Asked,
) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let mut data = Vec::new();
    while let Some(Ok(bytes)) = body.data().await {
        data.extend_from_slice(&bytes);
    }
    let question = RateLimitRequest::decode(data.get(5..).unwrap_or_default()).expect("a question");
    let mut headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    headers.sort();
    let mut entries = question
        .descriptors
        .iter()
        .flat_map(|descriptor| &descriptor.entries);
    let say = entries
        .find(|entry| entry.key == "say")
        .map_or("", |entry| entry.value.as_str())
        .to_owned();
    let told = question.descriptors.iter().map(|descriptor| {
        let entries = descriptor
            .entries
            .iter()
            .map(|entry| format!("{}={}", entry.key, entry.value));
        let hits = descriptor.hits_addend.as_ref().map(|hits| hits.value);
        let limit = descriptor
            .limit
            .as_ref()
            .map(|limit| (limit.requests_per_unit, limit.unit));
        format!(
            "{:?} limit {limit:?} hits {hits:?} {}",
            entries.collect::<Vec<_>>(),
            descriptor.is_negative_hits
        )
    });
    let line = format!(
        "{} {} {headers:?} {} {} {:?}",
        head.method,
        head.uri,
        question.domain,
        question.hits_addend,
        told.collect::<Vec<_>>()
    );
    asked.lock().expect("no panic holds it").push(line);
    let word = |word: &str| say.split(',').any(|said| said == word);
    let number = |name: &str| {
        let said = say.split(',').find_map(|said| said.strip_prefix(name));
        said.and_then(|number| number.parse::<u16>().ok())
    };
    if word("silence") {
        std::future::pending::<()>().await;
    }
    if word("reset") {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        return None;
    }
    let response = Response::builder()
        .status(number("http-").unwrap_or(200))
        .header("content-type", "application/grpc");
    let mut body = respond.send_response(response.body(()).ok()?, false).ok()?;
    let message = match word("garbage") {
        true => vec![0xff; 3],
        false => response_of(&word).encode_to_vec(),
    };
    let length = u32::try_from(message.len()).expect("a short one").to_be_bytes();
    let status = number("status-").unwrap_or(0);
    if status == 0 {
        let framed = [&[0][..], &length, &message].concat();
        body.send_data(framed.into(), false).ok()?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.into());
    body.send_trailers(trailers).ok()
}

fn response_of(word: &dyn Fn(&str) -> bool) -> RateLimitResponse {
    let header = |key: &str, value: &str| HeaderValue {
        key: key.to_owned(),
        value: value.to_owned(),
        ..HeaderValue::default()
    };
    let mut response = RateLimitResponse {
        overall_code: match word("over") {
            true => Code::OverLimit,
            false => Code::Ok,
        } as i32,
        ..RateLimitResponse::default()
    };
    if word("limits") {
        let status =
            |code: Code, name: &str, (unit, number): (Unit, u32), remaining, seconds| DescriptorStatus {
                code: code as i32,
                current_limit: Some(RateLimit {
                    name: name.to_owned(),
                    requests_per_unit: number,
                    unit: unit as i32,
                }),
                limit_remaining: remaining,
                duration_until_reset: Some(Duration { seconds, nanos: 7 }),
                ..DescriptorStatus::default()
            };
        response.statuses = vec![
            status(Code::Ok, "a day", (Unit::Day, 100), 50, 3600),
            status(Code::OverLimit, "", (Unit::Minute, 7), 0, 42),
            status(Code::OverLimit, "w", (Unit::Week, 9), 0, 43),
            DescriptorStatus::default(),
        ];
    }
    if word("body") {
        response.raw_body = b"not so fast".to_vec();
    }
    if word("type") {
        response
            .response_headers_to_add
            .push(header("content-type", "text/slow"));
    }
    if word("headers") {
        response
            .response_headers_to_add
            .extend([header("x-told", "down"), header("X-Told", "twice")]);
        response
            .request_headers_to_add
            .extend([header("x-asked", "up"), header("x-who", "service")]);
    }
    response
}
