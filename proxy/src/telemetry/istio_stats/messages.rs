//! gRPC messages: counted as they pass, told now and then and at the end.
use std::cell::RefCell;
use std::rc::Rc;

use ::http::HeaderValue;

use super::super::recent::Recent;
use super::super::stream_info::StreamInfo;
use super::labels;
use super::series::{Metric, Registrar};
use super::{IstioStats, Key};
use crate::stats::Counter;

#[derive(Debug)]
struct MessageSeries {
    requests: Counter,
    responses: Counter,
}

/// What of one stream's messages was told. Its labels are those of the first report, as Envoy's; they say nothing of how it ended.
#[derive(Debug, Default)]
pub(crate) struct MessageReport {
    series: Option<Rc<MessageSeries>>,
    requests: u64,
    responses: u64,
}

/// Keys that a worker remembers.
const KEYS: usize = 512;

thread_local! {
    static SERIES: RefCell<Recent<Key, Rc<MessageSeries>>> = RefCell::new(Recent::new(KEYS));
}

impl MessageReport {
    /// Tells what came since the last time. Call it when the peer is known, or at the end. Counts are since the stream began.
    pub(crate) fn report(
        &mut self,
        stats: &IstioStats,
        info: &StreamInfo,
        host: Option<&HeaderValue>,
        (requests, responses): (u64, u64),
    ) {
        let series = self.series.get_or_insert_with(|| stats.messages(info, host));
        let new = |now: u64, before: &mut u64| now.saturating_sub(std::mem::replace(before, now));
        series.requests.add(new(requests, &mut self.requests));
        series.responses.add(new(responses, &mut self.responses));
    }
}

impl IstioStats {
    fn messages(&self, info: &StreamInfo, host: Option<&HeaderValue>) -> Rc<MessageSeries> {
        let parties = self.parties(info, host);
        let key = self.key(&parties);
        SERIES.with_borrow_mut(|known| {
            if let Some(series) = known.get(&key, || key.owned()) {
                return series;
            }
            let labels = labels::common(self.reporter, &self.metrics.local, &parties);
            let mut registrar = Registrar::new(self, labels, Metric::RequestMessages);
            let series = Rc::new(MessageSeries {
                requests: registrar.counter(Metric::RequestMessages),
                responses: registrar.counter(Metric::ResponseMessages),
            });
            known.insert(key.owned(), series.clone());
            series
        })
    }
}
