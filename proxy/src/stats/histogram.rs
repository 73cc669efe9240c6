//! Log-linear histograms: ninety bins a power of ten, so a value keeps two significant digits.
//!
//! The bins, quantiles and sums are those of the histogram that Envoy uses (OpenHistogram, <https://openhistogram.io>), so that
//! `/stats` and Prometheus show the same numbers for the same values. Checked against Envoy 1.40's output.
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Powers of ten of a `u64`: 10^0..=10^19.
const DECADES: usize = 20;
/// First digits 10..=99.
const BINS: usize = 90;

/// Upper bounds of the Prometheus buckets. Source: Envoy, `HistogramBucketSettings`, "default buckets".
pub(super) const PROMETHEUS_BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The quantiles of Envoy's admin output, in percent.
pub(super) const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// Counts of one thread (or the shared ones). 336 bytes when empty; 720 more for each power of ten seen.
#[derive(Default)]
pub(super) struct Bins {
    zero: AtomicU64,
    decades: [OnceLock<Box<[AtomicU64]>>; DECADES],
}

impl Bins {
    /// Records in bins that only this thread writes.
    #[inline]
    pub(super) fn record_local(&self, value: u64) {
        if let Some(bin) = self.bin(value) {
            bin.store(bin.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Records in bins that any thread writes.
    pub(super) fn record_shared(&self, value: u64) {
        if let Some(bin) = self.bin(value) {
            bin.fetch_add(1, Relaxed);
        }
    }

    fn bin(&self, value: u64) -> Option<&AtomicU64> {
        let Some(decade) = value.checked_ilog10() else {
            return Some(&self.zero);
        };
        let digits = if decade == 0 {
            value * 10
        } else {
            value / 10_u64.pow(decade - 1)
        };
        let bins = self
            .decades
            .get(decade as usize)?
            .get_or_init(|| (0..BINS).map(|_| AtomicU64::new(0)).collect());
        bins.get(digits as usize - 10)
    }

    pub(super) fn clear(&self) {
        self.zero.store(0, Relaxed);
        for bin in self.decades.iter().filter_map(OnceLock::get).flatten() {
            bin.store(0, Relaxed);
        }
    }

    pub(super) fn add_to(&self, sum: &mut Snapshot) {
        sum.add(Bin::ZERO, self.zero.load(Relaxed));
        for (decade, bins) in self.decades.iter().enumerate() {
            for (index, bin) in bins.get().into_iter().flatten().enumerate() {
                sum.add(
                    Bin {
                        decade: decade as u8,
                        digits: index as u8 + 10,
                    },
                    bin.load(Relaxed),
                );
            }
        }
    }
}

/// One bin: `digits`/10 · 10^`decade` ≤ value < (`digits`+1)/10 · 10^`decade`; digits 0 is the value 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Bin {
    decade: u8,
    digits: u8,
}

impl Bin {
    const ZERO: Bin = Bin { decade: 0, digits: 0 };

    fn lower(self) -> f64 {
        f64::from(self.digits) * 10_f64.powi(i32::from(self.decade)) / 10.0
    }

    fn width(self) -> f64 {
        if self.digits == 0 {
            0.0
        } else {
            10_f64.powi(i32::from(self.decade)) / 10.0
        }
    }

    /// The harmonic mean of both ends: no sample is far from it, in proportion.
    fn midpoint(self) -> f64 {
        let (low, high) = (self.lower(), self.lower() + self.width());
        if self.digits == 0 {
            0.0
        } else {
            2.0 * low * high / (low + high)
        }
    }
}

/// The bins that hold anything, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot(Vec<(Bin, u64)>);

impl Snapshot {
    fn add(&mut self, bin: Bin, count: u64) {
        if count == 0 {
            return;
        }
        match self.0.binary_search_by_key(&bin, |(bin, _)| *bin) {
            Ok(at) => self.0[at].1 += count,
            Err(at) => self.0.insert(at, (bin, count)),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Approximate, as Envoy's: each sample counts as its bin's midpoint.
    pub(super) fn sum(&self) -> f64 {
        self.0
            .iter()
            .map(|(bin, count)| bin.midpoint() * *count as f64)
            .sum()
    }

    /// Samples whose bin begins at or below `bound`.
    pub(super) fn count_up_to(&self, bound: f64) -> u64 {
        self.0
            .iter()
            .take_while(|(bin, _)| bin.lower() <= bound)
            .map(|(_, count)| count)
            .sum()
    }

    /// The value at `percent` (0..=100); `None` without samples. Samples of a bin are thought of as evenly spread.
    pub(super) fn quantile(&self, percent: f64) -> Option<f64> {
        let rank = ((percent / 100.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut before = 0;
        for (bin, count) in &self.0 {
            if before + count >= rank {
                let place = (rank - before) as f64 / (count + 1) as f64;
                return Some(bin.lower() + bin.width() * place);
            }
            before += count;
        }
        self.0.last().map(|(bin, _)| bin.lower() + bin.width())
    }

    /// What came after `earlier`.
    pub(super) fn since(&self, earlier: &Snapshot) -> Snapshot {
        let before = |bin| {
            earlier
                .0
                .binary_search_by_key(&bin, |(b, _)| *b)
                .map_or(0, |at| earlier.0[at].1)
        };
        let left = self
            .0
            .iter()
            .map(|(bin, count)| (*bin, count.saturating_sub(before(*bin))));
        Snapshot(left.filter(|(_, count)| *count > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Snapshot {
        let bins = Bins::default();
        values.iter().for_each(|value| bins.record_local(*value));
        let mut snapshot = Snapshot::default();
        bins.add_to(&mut snapshot);
        snapshot
    }

    #[track_caller]
    fn check_quantiles(values: &[u64], expected: [f64; 5]) {
        let snapshot = of(values);
        let found = [0.0, 50.0, 75.0, 90.0, 100.0].map(|percent| snapshot.quantile(percent).unwrap());
        assert_eq!(found, expected);
    }

    /// The expected numbers are what Envoy 1.40 printed for these values.
    #[test]
    fn quantiles_are_those_of_envoy() {
        check_quantiles(&[1], [1.05; 5]);
        check_quantiles(&[0; 3], [0.0; 5]);
        check_quantiles(
            &[1; 17],
            [
                1.0055555555555555,
                1.05,
                1.0722222222222222,
                1.0888888888888888,
                1.0944444444444446,
            ],
        );
        let per_connection = [1, 1, 2, 2];
        check_quantiles(
            &per_connection,
            [
                1.0333333333333334,
                1.0666666666666667,
                2.033333333333333,
                2.066666666666667,
                2.066666666666667,
            ],
        );
        check_quantiles(
            &[1000, 999, 999, 1, 0],
            [0.0, 993.3333333333334, 996.6666666666666, 1050.0, 1050.0],
        );
        check_quantiles(&[7803], [7850.0; 5]);
    }

    #[test]
    fn sums_are_those_of_envoy() {
        assert_eq!(of(&[1]).sum(), 1.0476190476190477);
        assert_eq!(of(&[1510]).sum(), 1548.3870967741937);
    }

    #[test]
    fn the_largest_value_has_a_bin() {
        assert_eq!(of(&[u64::MAX, 0, 9, 10, 99, 100]).count(), 6);
    }

    #[test]
    fn a_bound_counts_the_values_up_to_it() {
        let snapshot = of(&[0, 1, 5, 6, 25, 26, 250, 3_600_000]);
        assert_eq!(
            PROMETHEUS_BOUNDS.map(|bound| snapshot.count_up_to(bound)),
            [1, 2, 3, 4, 5, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8]
        );
    }

    #[test]
    fn an_interval_is_the_difference() {
        assert_eq!(of(&[1, 1, 7]).since(&of(&[1])), of(&[1, 7]));
        assert!(of(&[3]).since(&of(&[3])).is_empty());
    }
}
