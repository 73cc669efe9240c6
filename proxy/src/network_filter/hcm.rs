//! The terminal filter that speaks HTTP: chooses the codec, then serves streams until the connection ends.
//! Source: Envoy `HttpConnectionManagerConfig::createCodec`, `AUTO`: ALPN if there is one, else the HTTP/2 preface.
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use outrigger_model::hcm::CodecType;
use tokio::io::AsyncReadExt;

use crate::codec::{self, ServeEnd, h2};
use crate::drain::DrainWatch;
use crate::http::downstream::Downstream;
use crate::http::manager::{ConnectionHandler, ConnectionManager};
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
    let http2 = match (
        manager.config.codec,
        downstream.tls.as_ref().and_then(|tls| tls.alpn.as_deref()),
    ) {
        (CodecType::Http1, _) => false,
        (CodecType::Http2, _) => true,
        (CodecType::Auto, Some(b"h2")) => true,
        (CodecType::Auto, Some(b"http/1.1" | b"http/1.0")) => false,
        (CodecType::Auto, _) => match begins_with_preface(&mut transport).await {
            Some(preface) => preface,
            None => return,
        },
    };
    let options = manager.options.clone();
    let handler = Rc::new(ConnectionHandler { manager, downstream });
    let end = if http2 {
        stats.downstream_cx_http2_total.inc();
        codec::h2::server::serve(transport, tls, &options, handler, drain).await
    } else {
        stats.downstream_cx_http1_total.inc();
        codec::h1::server::serve(transport, tls, &options, handler, drain).await
    };
    if let ServeEnd::Failed(reason) = end {
        stats.downstream_cx_protocol_error.inc();
        tracing::debug!(reason, "downstream HTTP connection ended");
    }
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
