//! One line a connection in the access log of its listener, however it ends.
//!
//! As Envoy, also for connections whose filter chain has logs of its own. What TCP proxies know of a connection is in it; of an HTTP connection
//! its bytes, its protocol, and whether it kept to it: streams are not told of. Source: Envoy `ActiveTcpConnection`; beside Envoy 1.40 in
//! tests/it/alone/listener_logs.rs.
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::runtime::{Chain, Listener, Terminal};
use crate::http::downstream::Downstream;
use crate::http::manager::ConnectionManager;
use crate::telemetry::access_log::Entry;
use crate::telemetry::response_flag::ResponseFlag;
use crate::telemetry::stream_info::{ConnectionInfo, StreamInfo};
use crate::tls::transport::ByteCounts;

/// When a connection was accepted, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    wall: SystemTime,
    at: Instant,
}

impl Begun {
    /// This moment.
    pub(super) fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            at: Instant::now(),
        }
    }

    /// What is known of it.
    pub(super) fn info(self, connection: ConnectionInfo) -> StreamInfo {
        self.shared(Arc::new(connection))
    }

    /// As [`Self::info`].
    pub(super) fn shared(self, connection: Arc<ConnectionInfo>) -> StreamInfo {
        StreamInfo::started_at(connection, None, self.wall, self.at)
    }
}

/// A connection that no filter chain had.
pub(super) fn log(listener: &Listener, mut info: StreamInfo) {
    info.finish();
    listener.access_log.log(&Entry::of(&info));
}

/// A connection that a limit of its filter chain does not let in. As Envoy, whose filters are there before they are asked, the last of them
/// counts it.
pub(super) fn turned_away(listener: &Listener, chain: &Chain, info: StreamInfo) {
    match &chain.terminal {
        Terminal::Tcp(proxy) => proxy.turned_away(info, &listener.access_log),
        Terminal::Http(manager) => http(listener, manager, info),
    }
}

/// A connection that did not get through TLS. Counted, as Envoy makes filters before.
pub(super) fn unsecured(listener: &Listener, chain: &Chain, info: StreamInfo) {
    match &chain.terminal {
        Terminal::Tcp(proxy) => proxy.unsecured(info, &listener.access_log),
        Terminal::Http(manager) => http(listener, manager, info),
    }
}

fn http(listener: &Listener, manager: &ConnectionManager, info: StreamInfo) {
    manager.stats.downstream_cx_total.inc();
    log(listener, info);
}

/// Writes the line of an HTTP connection when it is dropped.
pub(super) struct HttpRecord<'a> {
    listener: &'a Listener,
    downstream: Rc<Downstream>,
    begun: Begun,
    counts: Rc<ByteCounts>,
}

impl<'a> HttpRecord<'a> {
    /// `None`: nobody would read it.
    pub(super) fn new(listener: &'a Listener, downstream: &Rc<Downstream>, begun: Begun) -> Option<Self> {
        (!listener.access_log.is_empty()).then(|| Self {
            listener,
            downstream: downstream.clone(),
            begun,
            counts: Rc::default(),
        })
    }

    /// Where its bytes are to be counted.
    pub(super) fn counts(&self) -> Rc<ByteCounts> {
        self.counts.clone()
    }
}

impl Drop for HttpRecord<'_> {
    fn drop(&mut self) {
        let mut info = self.begun.shared(self.downstream.info.clone());
        info.protocol = self.downstream.protocol.get();
        if self.downstream.is_broken.get() {
            info.set_flag(ResponseFlag::DownstreamProtocolError);
        }
        info.bytes_received = self.counts.received.get();
        info.bytes_sent = self.counts.sent.get();
        log(self.listener, info);
    }
}
