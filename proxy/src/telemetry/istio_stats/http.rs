//! The end of an HTTP request.
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue};

use super::super::grpc::{GRPC_STATUS, status_of_http};
use super::super::recent::Recent;
use super::super::response_flag::ResponseFlags;
use super::super::stream_info::StreamInfo;
use super::labels::{
    self, CONNECTION_SECURITY_POLICY, GRPC_RESPONSE_STATUS, Parties, REQUEST_PROTOCOL, RESPONSE_CODE,
    RESPONSE_FLAGS,
};
use super::series::{Metric, Registrar};
use super::{IstioStats, Key};
use crate::stats::{Counter, Histogram};

/// One request when it is over.
pub(crate) struct HttpEnd<'a> {
    /// All about it.
    pub(crate) info: &'a StreamInfo,
    /// The Host header, or `:authority`.
    pub(crate) host: Option<&'a HeaderValue>,
    /// The request said that it is gRPC.
    pub(crate) is_grpc: bool,
    /// Of the response.
    pub(crate) headers: &'a HeaderMap,
    /// Of the response.
    pub(crate) trailers: Option<&'a HeaderMap>,
    /// Head and body as received.
    pub(crate) request_bytes: u64,
    /// Head and body as sent.
    pub(crate) response_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct HttpKey {
    key: Key,
    /// 0: no response.
    code: u16,
    protocol: Protocol,
    flags: ResponseFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Protocol {
    Http,
    /// With the status, if there is one.
    Grpc(Option<i8>),
}

#[derive(Debug)]
struct HttpSeries {
    requests: Counter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

/// Keys that a worker remembers.
const KEYS: usize = 1024;

thread_local! {
    static SERIES: RefCell<Recent<HttpKey, Rc<HttpSeries>>> = RefCell::new(Recent::new(KEYS));
}

impl IstioStats {
    /// Counts one request.
    pub(crate) fn record_http(&self, end: &HttpEnd<'_>) {
        let info = end.info;
        let parties = self.parties(info, end.host);
        let key = HttpKey {
            key: self.key(&parties),
            code: info.response_code.map_or(0, |code| code.as_u16()),
            protocol: end.protocol(),
            flags: info.flags,
        };
        let series = SERIES.with_borrow_mut(|known| {
            let keep = || HttpKey {
                key: key.key.owned(),
                ..key
            };
            if let Some(series) = known.get(&key, keep) {
                return series;
            }
            let series = Rc::new(self.http_series(&parties, &key));
            known.insert(keep(), series.clone());
            series
        });
        series.requests.inc();
        let millis = info.duration().unwrap_or(Duration::ZERO).as_millis();
        series.duration.record(u64::try_from(millis).unwrap_or(u64::MAX));
        series.request_bytes.record(end.request_bytes);
        series.response_bytes.record(end.response_bytes);
    }

    fn http_series(&self, parties: &Parties<'_>, key: &HttpKey) -> HttpSeries {
        let mut labels = labels::common(self.reporter, &self.metrics.local, parties);
        let (protocol, status) = match key.protocol {
            Protocol::Http => ("http", None),
            Protocol::Grpc(status) => ("grpc", status),
        };
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        let policy = labels::security_policy(self.reporter, parties.principals);
        labels.extend([
            (REQUEST_PROTOCOL, protocol.into()),
            (RESPONSE_CODE, key.code.to_string().into()),
            (GRPC_RESPONSE_STATUS, status.into()),
            (RESPONSE_FLAGS, key.flags.to_string().into()),
            (CONNECTION_SECURITY_POLICY, policy.into()),
        ]);
        let mut registrar = Registrar::new(self, labels, Metric::Requests);
        HttpSeries {
            requests: registrar.counter(Metric::Requests),
            duration: registrar.histogram(Metric::RequestDuration),
            request_bytes: registrar.histogram(Metric::RequestBytes),
            response_bytes: registrar.histogram(Metric::ResponseBytes),
        }
    }
}

impl HttpEnd<'_> {
    fn protocol(&self) -> Protocol {
        if !self.is_grpc {
            return Protocol::Http;
        }
        let said = self
            .trailers
            .and_then(grpc_status)
            .or_else(|| grpc_status(self.headers));
        Protocol::Grpc(said.or_else(|| {
            self.info
                .response_code
                .map(|code| status_of_http(code).cast_signed())
        }))
    }
}

/// Neither a number nor one of gRPC's. Source: Envoy `Status::WellKnownGrpcStatus::InvalidCode`.
const INVALID: i8 = -1;
/// The last of gRPC's status codes, `UNAUTHENTICATED`.
const LAST: i8 = 16;

/// `grpc-status`, if it is there. Source: Envoy `Grpc::Common::getGrpcStatus`.
fn grpc_status(headers: &HeaderMap) -> Option<i8> {
    let text = headers
        .get(GRPC_STATUS)?
        .to_str()
        .unwrap_or("invalid")
        .trim_ascii();
    if text.is_empty() {
        return None;
    }
    let status = text.parse().ok().filter(|status| (0..=LAST).contains(status));
    Some(status.unwrap_or(INVALID))
}
