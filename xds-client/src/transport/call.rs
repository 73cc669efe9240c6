//! One call with a stream of requests and a stream of responses. Source: the gRPC over HTTP/2 protocol, "PROTOCOL-HTTP2".
//!
//! tonic encodes what is sent; what comes is read by [`Messages`], which copies nothing.

use std::pin::Pin;

use futures_util::{Stream, TryStreamExt, stream};
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codec::{BufferSettings, EncodeBody};
use tonic::codegen::http::header::{CONTENT_TYPE, TE};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{HeaderValue, Request, Uri};
use tonic::codegen::{Service, http};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_prost::ProstEncoder;

use super::messages::Messages;
use super::{Transport, causes};
use crate::Method;

/// Messages of a stream; the first poll starts the call.
pub(crate) type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Transport {
    /// Begins a call; `requests` are what it sends.
    pub(crate) fn call<Q, R>(
        &self,
        method: &Method,
        channel: Channel,
        requests: mpsc::Receiver<Q>,
    ) -> Responses<R>
    where
        Q: prost::Message + Send + 'static,
        R: prost::Message + Default + Send + 'static,
    {
        let request = self.request(&method.0, requests);
        let limit = self.max_message_bytes;
        // A control plane may send response headers with its first message only, so waiting for them before sending
        // requests would wait for ever: the call is a stream from its very start.
        Box::pin(stream::once(async move { begin(channel, request, limit).await }).try_flatten())
    }

    fn request<Q>(&self, path: &PathAndQuery, mut messages: mpsc::Receiver<Q>) -> Request<Body>
    where
        Q: prost::Message + Send + 'static,
    {
        let messages = stream::poll_fn(move |context| messages.poll_recv(context).map(|next| next.map(Ok)));
        let encoder = ProstEncoder::<Q>::new(BufferSettings::default());
        let body = Body::new(EncodeBody::new_client(encoder, messages, None, None));
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        // The channel adds whom it speaks with.
        *request.uri_mut() = Uri::from(path.clone());
        *request.headers_mut() = self.metadata().into_headers();
        let headers = request.headers_mut();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request
    }
}

async fn begin<R>(
    mut channel: Channel,
    request: Request<Body>,
    max_message_bytes: usize,
) -> Result<Messages<Body, R>, Status>
where
    R: prost::Message + Default,
{
    let ready = std::future::poll_fn(|context| Service::poll_ready(&mut channel, context)).await;
    ready.map_err(|error| Status::unavailable(causes(&error)))?;
    let response = Service::call(&mut channel, request).await;
    let response = response.map_err(|error| Status::from_error(Box::new(error)))?;
    let (head, body) = response.into_parts();
    // Headers that are trailers too: the call is over before it began.
    let status = Status::from_header_map(&head.headers);
    match status {
        Some(status) if status.code() != Code::Ok => Err(status),
        status => Ok(Messages::new(
            body,
            head.status,
            status.is_some(),
            max_message_bytes,
        )),
    }
}
