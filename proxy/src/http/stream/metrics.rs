//! What `istio.stats` and `grpc_stats` count of one stream: bytes as they are on the wire, gRPC messages, the end.
//! Source: Envoy `Http::BytesMeter`, `GrpcStatsFilter`; contrib istio_stats.
mod ticker;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use outrigger_model::http_filter::grpc_stats::{self as model, CountedMethods};

use super::super::manager::ConnectionManager;
use super::Stream;
use crate::codec::head::is_grpc;
use crate::codec::{RequestHead, ResponseHead};
use crate::telemetry::grpc::GRPC_STATUS;
use crate::telemetry::istio_stats::{HttpEnd, MessageReport};
use crate::telemetry::stream_info::StreamInfo;
use crate::upstream::cluster::Cluster;
use crate::upstream::stats::GrpcStats;

/// Of one stream. Nothing is counted when nobody asks.
#[derive(Debug, Default)]
pub(in crate::http) struct StreamMetrics {
    request_head_bytes: Cell<u64>,
    response_head_bytes: Cell<u64>,
    is_grpc: Cell<bool>,
    grpc: OnceCell<Grpc>,
}

/// Of a gRPC stream, if there is a `grpc_stats` filter.
#[derive(Debug)]
struct Grpc {
    /// Of its cluster, or of its method there; `None`: nothing is counted.
    counters: Option<Arc<GrpcStats>>,
    /// The response is gRPC's, too.
    is_answered: Cell<bool>,
    /// The response has neither body nor trailers.
    is_head_alone: Cell<bool>,
    requests: Messages,
    responses: Messages,
    /// For each `istio.stats` filter.
    reports: RefCell<Vec<MessageReport>>,
    ticket: RefCell<Option<ticker::Ticket>>,
}

impl StreamMetrics {
    /// The request as it came, before filters change it.
    pub(super) fn received(&self, manager: &ConnectionManager, head: &RequestHead) {
        if !manager.istio_stats.is_empty() {
            self.request_head_bytes.set(request_head_bytes(head));
            self.is_grpc.set(head.is_grpc());
        }
    }

    /// The response as it goes.
    pub(super) fn sent(&self, manager: &ConnectionManager, head: &ResponseHead) {
        if !manager.istio_stats.is_empty() {
            self.response_head_bytes.set(response_head_bytes(head));
        }
        if let Some(grpc) = self.grpc.get() {
            let is_grpc = head.status == StatusCode::OK && is_grpc(&head.headers);
            grpc.is_answered.set(is_grpc);
        }
    }

    /// Nothing follows the response's head.
    pub(super) fn sent_all(&self) {
        if let Some(grpc) = self.grpc.get() {
            grpc.is_head_alone.set(true);
        }
    }

    /// Body of the request.
    pub(super) fn request_data(&self, data: &Bytes) {
        if let Some(grpc) = self.grpc.get() {
            let messages = grpc.requests.data(data);
            if let Some(counters) = grpc.counters.as_ref().filter(|_| messages > 0) {
                counters.asked(messages);
            }
        }
    }

    /// Body of the response.
    pub(super) fn response_data(&self, data: &Bytes) {
        if let Some(grpc) = self.grpc.get().filter(|grpc| grpc.is_answered.get()) {
            let messages = grpc.responses.data(data);
            if let Some(counters) = grpc.counters.as_ref().filter(|_| messages > 0) {
                counters.answered(messages);
            }
        }
    }
}

impl Stream {
    /// The request is known to be for this cluster: from here on its messages are counted.
    pub(super) fn watch_messages(self: &Rc<Self>, head: &RequestHead, cluster: Option<&Arc<Cluster>>) {
        let Some(config) = self.manager.grpc_stats.as_ref().filter(|_| head.is_grpc()) else {
            return;
        };
        let filters = &self.manager.istio_stats;
        let told = if config.emit_filter_state {
            filters.len()
        } else {
            0
        };
        let interval = filters.iter().find_map(|filter| filter.reporting_interval);
        let ticket = interval
            .filter(|_| told > 0)
            .map(|interval| ticker::watch(self, interval));
        // Called once a stream.
        let _ = self.metrics.grpc.set(Grpc {
            counters: cluster.and_then(|cluster| counters(config, cluster, head)),
            is_answered: Cell::new(false),
            is_head_alone: Cell::new(false),
            requests: Messages::default(),
            responses: Messages::default(),
            reports: RefCell::new((0..told).map(|_| MessageReport::default()).collect()),
            ticket: RefCell::new(ticket),
        });
    }

    /// While the stream lasts: messages so far, once it is known who the peer is.
    fn report_messages(&self) {
        let info = self.info.borrow();
        if let Some(grpc) = self.metrics.grpc.get()
            && (info.response_code.is_some() || self.is_inbound())
        {
            grpc.report(&self.manager, &info, self.host());
        }
    }

    /// Inbound, the request says who the peer is; outbound, the response.
    fn is_inbound(&self) -> bool {
        self.manager.direction == outrigger_model::listener::TrafficDirection::Inbound
    }

    fn host(&self) -> Option<&HeaderValue> {
        let authority = self.request.get().map(|head| &head.authority);
        authority.filter(|host| !host.is_empty())
    }

    /// The stream is over.
    pub(super) fn record_end(&self, info: &StreamInfo, headers: &HeaderMap, trailers: Option<&HeaderMap>) {
        let metrics = &self.metrics;
        if let Some(grpc) = metrics.grpc.get() {
            grpc.ticket.borrow_mut().take();
            grpc.report(&self.manager, info, self.host());
            grpc.end(&self.manager, info, headers, trailers);
        }
        for filter in &self.manager.istio_stats {
            filter.record_http(&HttpEnd {
                info,
                host: self.host(),
                is_grpc: metrics.is_grpc.get(),
                headers,
                trailers,
                request_bytes: metrics.request_head_bytes.get() + info.bytes_received,
                response_bytes: metrics.response_head_bytes.get() + info.bytes_sent,
            });
        }
    }
}

impl Grpc {
    fn report(&self, manager: &ConnectionManager, info: &StreamInfo, host: Option<&HeaderValue>) {
        let counts = (self.requests.count.get(), self.responses.count.get());
        for (report, filter) in self.reports.borrow_mut().iter_mut().zip(&manager.istio_stats) {
            report.report(filter, info, host, counts);
        }
    }

    /// As Envoy: a status in the head counts, and one in trailers; a stream without either counts its messages only.
    fn end(
        &self,
        manager: &ConnectionManager,
        info: &StreamInfo,
        headers: &HeaderMap,
        trailers: Option<&HeaderMap>,
    ) {
        let Some(counters) = &self.counters else { return };
        let status = |headers: &HeaderMap| {
            if let Some(status) = headers.get(GRPC_STATUS) {
                counters.ended(&String::from_utf8_lossy(status.as_bytes()));
            }
        };
        status(headers);
        trailers.into_iter().for_each(status);
        let times = manager
            .grpc_stats
            .as_ref()
            .is_some_and(|config| config.times_upstream);
        let upstream = &info.upstream;
        if let (true, Some(sent), Some(answered)) = (times, upstream.first_tx, upstream.first_rx) {
            let sent = sent.max(info.last_downstream_rx.unwrap_or(sent));
            if self.is_head_alone.get() {
                counters.took(answered.saturating_duration_since(sent));
            } else if let (Some(_), Some(end)) = (trailers, info.end) {
                counters.took(end.saturating_duration_since(sent));
            }
        }
    }
}

/// The counters that a call counts in. As Envoy, none when its path is not of a service and a method.
fn counters(config: &model::GrpcStats, cluster: &Cluster, head: &RequestHead) -> Option<Arc<GrpcStats>> {
    let mut parts = head.path.path().split('/').filter(|part| !part.is_empty());
    let (Some(service), Some(method), None) = (parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let name = match &config.counted_methods {
        CountedMethods::None => None,
        CountedMethods::All if config.joins_service_names => {
            Some(format!("{}.{method}", service.replace('.', "_")))
        }
        CountedMethods::All => Some(format!("{service}.{method}")),
        CountedMethods::Listed(methods) => methods
            .contains(&(service.to_owned(), method.to_owned()))
            .then(|| format!("{service}.{method}")),
    };
    Some(cluster.stats.grpc(name.as_deref()))
}

/// Finds where messages begin: a flag, four bytes of length, the message. Source: gRPC over HTTP/2, `Length-Prefixed-Message`.
#[derive(Debug, Default)]
struct Messages {
    count: Cell<u64>,
    /// Bytes seen of the current message's prefix.
    prefix: Cell<u8>,
    /// Its length as far as it was read; then what is to come.
    length: Cell<u32>,
}

const PREFIX_BYTES: u8 = 5;

impl Messages {
    /// Returns how many began.
    fn data(&self, mut data: &[u8]) -> u64 {
        let before = self.count.get();
        while let Some((first, rest)) = data.split_first() {
            let seen = self.prefix.get();
            if seen < PREFIX_BYTES {
                if seen == 0 {
                    self.count.set(self.count.get() + 1);
                    self.length.set(0);
                } else {
                    self.length.set(self.length.get() << 8 | u32::from(*first));
                }
                self.prefix.set(seen + 1);
                data = rest;
            }
            if self.prefix.get() == PREFIX_BYTES {
                let take = data
                    .len()
                    .min(usize::try_from(self.length.get()).unwrap_or(usize::MAX));
                data = data.get(take..).unwrap_or_default();
                self.length
                    .set(self.length.get() - u32::try_from(take).unwrap_or(u32::MAX));
                if self.length.get() == 0 {
                    self.prefix.set(0);
                }
            }
        }
        self.count.get() - before
    }
}

/// Each field is `name: value\r\n`.
const FIELD_EXTRA_BYTES: usize = 4;

/// As HTTP/1.1 writes it. What HTTP/2 writes depends on what was written before on its connection: this is an upper bound.
fn request_head_bytes(head: &RequestHead) -> u64 {
    let line = head.method.as_str().len() + head.path.as_str().len() + "  HTTP/1.1\r\n\r\n".len();
    let host = if head.headers.contains_key(http::header::HOST) {
        0
    } else {
        "host".len() + head.authority.len() + FIELD_EXTRA_BYTES
    };
    (line + host) as u64 + field_bytes(&head.headers)
}

fn response_head_bytes(head: &ResponseHead) -> u64 {
    let reason = head.status.canonical_reason().unwrap_or_default();
    ("HTTP/1.1 200 \r\n\r\n".len() + reason.len()) as u64 + field_bytes(&head.headers)
}

fn field_bytes(headers: &HeaderMap) -> u64 {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD_EXTRA_BYTES);
    bytes.sum::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: u64) {
        for size in 1..=bytes.len() {
            let messages = Messages::default();
            let begun: u64 = bytes.chunks(size).map(|chunk| messages.data(chunk)).sum();
            assert_eq!(
                (begun, messages.count.get()),
                (expected, expected),
                "in chunks of {size}"
            );
        }
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        check(b"\0\0\0\0\0", 1);
        check(b"\0\0\0\0\x03abc\x01\0\0\0\x01x\0\0\0\0\0", 3);
        check(b"\0\0\0\x01\0", 1);
        check(b"\0\xff\xff\xff\xffabc", 1);
    }

    #[test]
    fn a_head_has_the_bytes_that_http_1_writes() {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("bill:9999"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let mut head = RequestHead {
            method: http::Method::GET,
            path: http::uri::PathAndQuery::from_static("/a?b"),
            authority: HeaderValue::from_static("bill:9999"),
            scheme: "http",
            version: http::Version::HTTP_11,
            headers,
            is_upgrade: false,
        };
        let wire = "GET /a?b HTTP/1.1\r\nhost: bill:9999\r\naccept: */*\r\n\r\n".len() as u64;
        assert_eq!(request_head_bytes(&head), wire);
        head.headers.remove("host");
        assert_eq!(request_head_bytes(&head), wire);
        let mut response = ResponseHead {
            status: http::StatusCode::NOT_FOUND,
            headers: HeaderMap::new(),
        };
        response.headers.insert("a", HeaderValue::from_static("b"));
        let wire = "HTTP/1.1 404 Not Found\r\na: b\r\n\r\n".len() as u64;
        assert_eq!(response_head_bytes(&response), wire);
    }
}
