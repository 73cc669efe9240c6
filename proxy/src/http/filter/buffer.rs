//! Requests go on when they are whole, and not at all when they are too large.
//! Source: envoy/extensions/filters/http/buffer/v3/buffer.proto; Envoy `BufferFilter`.
use std::rc::Rc;

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, StatusCode};
use outrigger_model::http_filter::buffer::RequestBuffer;

use super::settings::RouteConfig;
use super::{Decode, Decoding, Filter, Resume};
use crate::codec::Body;
use crate::codec::body::Gathered;
use crate::http::local_reply::LocalReply;
use crate::http::stream::Stream;

/// The filter at its place.
#[derive(Debug)]
pub(super) struct BufferFilter {
    max_bytes: u32,
}

impl BufferFilter {
    pub(super) fn new(config: &RequestBuffer) -> Self {
        Self {
            max_bytes: config.max_request_bytes,
        }
    }
}

impl Filter for BufferFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        let max_bytes = match request.config {
            Some(RouteConfig::Buffer(max_bytes)) => *max_bytes,
            _ => Some(self.max_bytes),
        };
        // What follows an upgrade has no end that could be waited for.
        let Some(max_bytes) = max_bytes.filter(|_| !request.head.is_upgrade) else {
            return Decode::Continue;
        };
        let stream = request.stream.clone();
        let Some(body) = stream.body.take() else {
            return Decode::Continue;
        };
        let has_length = request.head.headers.contains_key(CONTENT_LENGTH);
        Decode::Wait(Box::pin(gather(stream, *body, max_bytes, has_length)))
    }
}

async fn gather(stream: Rc<Stream>, body: Body, max_bytes: u32, has_length: bool) -> Resume {
    let limit = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let gathered = match &stream.feedback {
        Some(feedback) => tokio::select! {
            biased;
            refusal = feedback.refused() => return Resume::Reply(Box::new(LocalReply::refusal(&refusal))),
            gathered = body.gather(limit) => gathered,
        },
        None => body.gather(limit).await,
    };
    match gathered {
        Gathered::Whole { body, bytes } => {
            stream.body.replace(Some(Box::new(body)));
            match has_length {
                true => Resume::Continue,
                false => Resume::With(CONTENT_LENGTH, HeaderValue::from(bytes)),
            }
        }
        Gathered::TooLarge => {
            stream.manager.stats.downstream_rq_too_large.inc();
            let details = "request_payload_too_large";
            let reply = LocalReply::new(StatusCode::PAYLOAD_TOO_LARGE, None, details, "Payload Too Large");
            Resume::Reply(Box::new(reply.closing()))
        }
        // What the client sent is refused, or it left: then whoever runs the stream drops this.
        Gathered::Broken => match &stream.feedback {
            Some(feedback) => Resume::Reply(Box::new(LocalReply::refusal(&feedback.refused().await))),
            None => std::future::pending().await,
        },
    }
}
