//! TCP connections: opened, bytes as they move, closed.
use std::cell::RefCell;
use std::rc::Rc;

use super::super::recent::Recent;
use super::super::response_flag::ResponseFlags;
use super::super::stream_info::StreamInfo;
use super::labels::{self, CONNECTION_SECURITY_POLICY, Parties, REQUEST_PROTOCOL, RESPONSE_FLAGS};
use super::series::{Metric, Registrar};
use super::{IstioStats, Key};
use crate::stats::Counter;

#[derive(Debug)]
struct TcpSeries {
    opened: Counter,
    closed: Counter,
    sent: Counter,
    received: Counter,
}

/// What of one connection was told. Its labels are those of the first report, as Envoy's.
#[derive(Debug, Default)]
pub(crate) struct TcpReport {
    series: Option<Rc<TcpSeries>>,
    received_bytes: u64,
    sent_bytes: u64,
}

type TcpKey = (Key, ResponseFlags);

/// Keys that a worker remembers.
const KEYS: usize = 512;

thread_local! {
    static SERIES: RefCell<Recent<TcpKey, Rc<TcpSeries>>> = RefCell::new(Recent::new(KEYS));
}

impl TcpReport {
    /// Tells what moved since the last time. Call it when the peer is known, or at the end. Bytes are those from and to the client
    /// since the connection began: `info.bytes_received` and `info.bytes_sent`.
    pub(crate) fn report(&mut self, stats: &IstioStats, info: &StreamInfo) {
        let series = self.series.get_or_insert_with(|| {
            let series = stats.tcp(info);
            series.opened.inc();
            series
        });
        let moved = |now: u64, before: &mut u64| now.saturating_sub(std::mem::replace(before, now));
        series.sent.add(moved(info.bytes_sent, &mut self.sent_bytes));
        series
            .received
            .add(moved(info.bytes_received, &mut self.received_bytes));
    }

    /// The connection is over: tells the rest.
    pub(crate) fn end(&mut self, stats: &IstioStats, info: &StreamInfo) {
        self.report(stats, info);
        if let Some(series) = &self.series {
            series.closed.inc();
        }
    }
}

impl IstioStats {
    fn tcp(&self, info: &StreamInfo) -> Rc<TcpSeries> {
        let parties = self.parties(info, None);
        let key = (self.key(&parties), info.flags);
        SERIES.with_borrow_mut(|known| {
            if let Some(series) = known.get(&key, || key.clone()) {
                return series;
            }
            let series = Rc::new(self.tcp_series(&parties, &info.flags));
            known.insert(key, series.clone());
            series
        })
    }

    fn tcp_series(&self, parties: &Parties<'_>, flags: &ResponseFlags) -> TcpSeries {
        let mut labels = labels::common(self.reporter, &self.metrics.local, parties);
        let policy = labels::security_policy(self.reporter, parties.principals);
        labels.extend([
            (REQUEST_PROTOCOL, "tcp".into()),
            (RESPONSE_FLAGS, flags.to_string().into()),
            (CONNECTION_SECURITY_POLICY, policy.into()),
        ]);
        let mut registrar = Registrar::new(self, labels, Metric::TcpOpened);
        TcpSeries {
            opened: registrar.counter(Metric::TcpOpened),
            closed: registrar.counter(Metric::TcpClosed),
            sent: registrar.counter(Metric::TcpSent),
            received: registrar.counter(Metric::TcpReceived),
        }
    }
}
