//! The terminal filter that speaks HTTP: chooses the codec, then serves streams until the connection ends.
//! Source: Envoy `HttpConnectionManagerConfig::createCodec`, `AUTO`: ALPN if there is one, else the HTTP/2 preface.
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use outrigger_model::hcm::CodecType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::codec::{self, ServeEnd, ServerOptions, h2};
use crate::drain::DrainWatch;
use crate::http::downstream::Downstream;
use crate::http::manager::{ConnectionHandler, ConnectionManager};
use crate::time::{self, Elapsed};
use crate::tls::transport::Transport;

/// Serves HTTP on a connection.
pub(crate) async fn serve(
    manager: Arc<ConnectionManager>,
    downstream: Rc<Downstream>,
    mut transport: Transport,
    drain: DrainWatch,
) {
    let stats = manager.stats.clone();
    stats.downstream_cx_total.inc();
    stats.downstream_cx_active.inc();
    let _active = Active(stats.clone());
    let tls = downstream.tls.is_some();
    let options = manager.connection_options();
    let alpn = downstream.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    let chosen = match (manager.config.codec, alpn) {
        (CodecType::Http1, _) | (CodecType::Auto, Some(b"http/1.1" | b"http/1.0")) => Some(Codec::Http1),
        (CodecType::Http2, _) | (CodecType::Auto, Some(b"h2")) => Some(Codec::Http2),
        (CodecType::Auto, _) => None,
    };
    let codec = match chosen {
        Some(Codec::Http1) => Codec::Http1,
        _ => match in_time(&options, begins_with_preface(&mut transport)).await {
            Ok(Some(true)) => Codec::Http2,
            Ok(Some(false)) if chosen.is_none() => Codec::Http1,
            Ok(Some(false)) => {
                stats.downstream_cx_protocol_error.inc();
                downstream.is_broken.set(true);
                return turn_away(transport, options.life.linger).await;
            }
            Ok(None) => return,
            Err(_) => {
                if options.life.is_old() {
                    stats.downstream_cx_max_duration_reached.inc();
                }
                return;
            }
        },
    };
    let handler = Rc::new(ConnectionHandler {
        manager,
        downstream: downstream.clone(),
    });
    let end = match codec {
        Codec::Http2 => {
            stats.downstream_cx_http2_total.inc();
            codec::h2::server::serve(transport, tls, &options, handler, drain).await
        }
        Codec::Http1 => {
            stats.downstream_cx_http1_total.inc();
            codec::h1::server::serve(transport, tls, &options, handler, drain).await
        }
    };
    if let ServeEnd::Failed(reason) = end {
        stats.downstream_cx_protocol_error.inc();
        downstream.is_broken.set(true);
        tracing::debug!(reason, "downstream HTTP connection ended");
    }
}

/// As long as a connection may be silent, and as old as it may be.
async fn in_time<F: Future>(options: &ServerOptions, first: F) -> Result<F::Output, Elapsed> {
    time::until(options.life.old_at, time::within(options.idle_timeout, first))
        .await
        .flatten()
}

#[derive(Clone, Copy)]
enum Codec {
    Http1,
    Http2,
}

/// Who had to speak HTTP/2 and does not: the connection closes in order, so that what it is told is not lost in a reset.
async fn turn_away(mut transport: Transport, linger: Option<Duration>) {
    let _ = time::within(Some(linger.unwrap_or_default()), async {
        transport.shutdown().await?;
        let mut forgotten = [0; 1024];
        while transport.read(&mut forgotten).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}

struct Active(crate::http::manager::ManagerStats);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.downstream_cx_active.dec();
    }
}

/// Reads until it is clear whether the client speaks HTTP/2; the bytes stay to be read. `None`: it left.
async fn begins_with_preface(transport: &mut Transport) -> Option<bool> {
    let mut seen = BytesMut::with_capacity(h2::PREFACE.len());
    let verdict = loop {
        if transport.read_buf(&mut seen).await.ok()? == 0 {
            break None;
        }
        let verdict = h2::begins_with_preface(&seen);
        if verdict.is_some() {
            break verdict;
        }
    };
    transport.unread(seen.freeze());
    verdict
}
