//! Least request: of a few random hosts the one with the fewest active requests.
//!
//! As Envoy with equal weights: draws with replacement, strictly fewer wins, the first drawn on ties. With unequal weights Envoy
//! switches to an EDF schedule over `weight / (active + 1) ^ bias`; here hosts are drawn by weight and compared by `active ^ bias / weight`:
//! idle hosts share by weight, busy ones come to the same load for their weight, and nothing is rebuilt or locked.
//! Source: Envoy docs, weighted least request.
use std::sync::atomic::Ordering;

use crate::upstream::endpoint::Host;

/// How busy a host is, for comparison with others.
#[derive(Debug, Clone, Copy)]
pub(super) enum Measure {
    /// Weights are equal.
    Plain,
    /// They are not.
    ByWeight {
        /// Envoy's `active_request_bias`.
        bias: f64,
    },
}

impl Measure {
    /// `a` is less busy than `b`.
    pub(super) fn is_less(self, a: &Host, b: &Host) -> bool {
        let active = |host: &Host| host.counters.rq_active.load(Ordering::Relaxed);
        match self {
            Self::Plain => active(a) < active(b),
            Self::ByWeight { bias: 1.0 } => {
                u64::from(active(a)) * u64::from(b.weight) < u64::from(active(b)) * u64::from(a.weight)
            }
            Self::ByWeight { bias: 0.0 } => false,
            Self::ByWeight { bias } => {
                let load = |host: &Host| f64::from(active(host)).powf(bias) / f64::from(host.weight);
                load(a) < load(b)
            }
        }
    }
}
