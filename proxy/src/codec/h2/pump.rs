//! Moves a [`Body`] into an HTTP/2 stream under its flow control.
use std::future::poll_fn;

use bytes::Bytes;
use h2::{Reason, SendStream};

use crate::codec::Body;
use crate::codec::body::{self, BodyError};

/// Why a body did not arrive whole.
#[derive(Debug)]
pub(super) enum PumpError {
    /// The body failed; the stream was reset.
    Body,
    /// The peer reset the stream, the connection is gone, or it cannot be said in HTTP/2; the stream was reset.
    Peer,
}

/// Sends data and trailers, then the end. A failing body resets the stream with INTERNAL_ERROR, as Envoy; with
/// `broken` when the connection failed that it comes from.
pub(super) async fn pump(mut stream: SendStream<Bytes>, body: Body, broken: Reason) -> Result<(), PumpError> {
    let sent = send_all(&mut stream, body, broken).await;
    if let Err(PumpError::Peer) = sent {
        // A peer that waits would do so for ever; one that reset the stream hears nothing.
        stream.send_reset(Reason::INTERNAL_ERROR);
    }
    sent
}

async fn send_all(stream: &mut SendStream<Bytes>, mut body: Body, broken: Reason) -> Result<(), PumpError> {
    let watchdogs = body.watchdogs();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return Err(PumpError::Peer),
        };
        let Some(frame) = frame else {
            return stream.send_data(Bytes::new(), true).map_err(|_| PumpError::Peer);
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                stream.send_reset(match error {
                    BodyError::Connection(_) => broken,
                    _ => Reason::INTERNAL_ERROR,
                });
                return Err(PumpError::Body);
            }
        };
        match frame.into_data() {
            Ok(data) => {
                let last = http_body::Body::is_end_stream(&body);
                let interrupted = tokio::select! {
                    sent = send(stream, data, last) => { sent?; false }
                    // Limits hold while the peer takes nothing, too.
                    _ = poll_fn(|cx| body::poll_interruption(&watchdogs, cx)) => true,
                };
                if interrupted {
                    stream.send_reset(Reason::INTERNAL_ERROR);
                    return Err(PumpError::Body);
                }
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    // The end of the body is heard of by polling once more.
                    let _ = body.frame().await;
                    return stream.send_trailers(trailers).map_err(|_| PumpError::Peer);
                }
            }
        }
    }
}

async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, last: bool) -> Result<(), PumpError> {
    if data.is_empty() {
        return if last {
            stream.send_data(data, true).map_err(|_| PumpError::Peer)
        } else {
            Ok(())
        };
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = loop {
            if stream.capacity() > 0 {
                break stream.capacity();
            }
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(PumpError::Peer),
            }
        };
        let piece = data.split_to(capacity.min(data.len()));
        let end = last && data.is_empty();
        stream.send_data(piece, end).map_err(|_| PumpError::Peer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::codec::body::ReplaySource;

    #[tokio::test]
    async fn trailers_that_cannot_be_sent_reset_the_stream() {
        let (near, far) = tokio::io::duplex(10_000);
        let (client, server) = tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
        let ((mut sender, connection), mut server) = (client.expect("a client"), server.expect("a server"));
        let mut trailers = HeaderMap::new();
        trailers.insert("keep-alive", HeaderValue::from_static("5"));
        let body = ReplaySource::whole([Bytes::from_static(b"abc")].into(), Some(trailers)).attempt();
        let exchange = async {
            let request = http::Request::post("http://a/").body(()).expect("a request");
            let (_response, stream) = sender.send_request(request, false).expect("it goes");
            let pumped = pump(stream, body.expect("whole"), Reason::CANCEL).await;
            assert!(matches!(pumped, Err(PumpError::Peer)), "{pumped:?}");
            std::future::pending::<()>().await;
        };
        let upstream = async {
            let (mut request, _respond) = server.accept().await.expect("a request").expect("no error");
            let body = request.body_mut();
            while let Some(data) = tokio::select! { data = body.data() => data, _ = server.accept() => None }
            {
                if let Err(error) = data {
                    return error.reason();
                }
            }
            None
        };
        let reason = tokio::select! {
            reason = upstream => reason,
            () = exchange => None,
            _ = connection => None,
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => None,
        };
        assert_eq!(reason, Some(Reason::INTERNAL_ERROR));
    }
}
