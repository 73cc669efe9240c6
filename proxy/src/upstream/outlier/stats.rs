//! `cluster.<name>.outlier_detection.*`. Source: Envoy docs, outlier detection statistics.
use super::Reason;
use crate::stats::{Counter, Gauge};

/// Counts of one cluster.
#[derive(Debug)]
pub(crate) struct OutlierStats {
    pub(super) ejections_active: Gauge,
    pub(super) ejections_overflow: Counter,
    /// Deprecated in Envoy, and still there.
    pub(super) ejections_total: Counter,
    pub(super) ejections_consecutive_5xx: Counter,
    pub(super) ejections_success_rate: Counter,
    /// By a word of the host.
    pub(super) detected_degradation: Counter,
    enforced_total: Counter,
    /// By reason: detected, enforced.
    by_reason: [(Counter, Counter); 7],
}

/// In the order of [`Reason`].
const NAMES: [&str; 7] = [
    "consecutive_5xx",
    "consecutive_gateway_failure",
    "consecutive_local_origin_failure",
    "success_rate",
    "local_origin_success_rate",
    "failure_percentage",
    "local_origin_failure_percentage",
];

impl OutlierStats {
    /// `counter` and `gauge` make stats by the last part of their names.
    pub(crate) fn new(counter: impl Fn(&str) -> Counter, gauge: impl Fn(&str) -> Gauge) -> Self {
        let counter = |name: &str| counter(&format!("outlier_detection.ejections_{name}"));
        Self {
            ejections_active: gauge("outlier_detection.ejections_active"),
            ejections_overflow: counter("overflow"),
            ejections_total: counter("total"),
            ejections_consecutive_5xx: counter("consecutive_5xx"),
            ejections_success_rate: counter("success_rate"),
            detected_degradation: counter("detected_degradation"),
            enforced_total: counter("enforced_total"),
            by_reason: NAMES.map(|name| {
                (
                    counter(&format!("detected_{name}")),
                    counter(&format!("enforced_{name}")),
                )
            }),
        }
    }

    pub(super) fn detected(&self, reason: Reason) {
        self.by_reason[reason as usize].0.inc();
    }

    pub(super) fn enforced(&self, reason: Reason) {
        self.enforced_total.inc();
        self.by_reason[reason as usize].1.inc();
    }
}
