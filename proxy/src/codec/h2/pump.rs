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
    /// The peer reset the stream or the connection is gone.
    Peer,
}

/// Sends data and trailers, then the end. A failing body resets the stream with INTERNAL_ERROR, as Envoy; with
/// `broken` when the connection failed that it comes from.
pub(super) async fn pump(
    mut stream: SendStream<Bytes>,
    mut body: Body,
    broken: Reason,
) -> Result<(), PumpError> {
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
                    sent = send(&mut stream, data, last) => { sent?; false }
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
