//! Medians, and how sure one can be of them.

/// The value in the middle; the mean of the two in the middle when there is an even number. NaN for none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that a share `q` (0 to 1) of all values lies below, between two values by straight line. NaN for none.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let share = place - place.floor();
    sorted[below] * (1.0 - share) + sorted[above] * share
}

/// A figure with the interval that holds it in 95 of 100 repetitions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

const RESAMPLES: usize = 4000;
/// Fixed: the same samples give the same report.
const SEED: u64 = 0x0b5e_55ed;

/// The median, with a bootstrap percentile interval: medians of samples drawn from the sample, with replacement.
pub fn estimate(values: &[f64]) -> Estimate {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut medians = Vec::with_capacity(RESAMPLES);
    let mut drawn = vec![0.0; values.len()];
    for _ in 0..RESAMPLES {
        drawn.fill_with(|| values[random.usize(..values.len())]);
        medians.push(median(&drawn));
    }
    Estimate {
        median: median(values),
        low: quantile(&medians, 0.025),
        high: quantile(&medians, 0.975),
    }
}

/// Ratio of each value to the one at the same place of `base`.
pub fn ratios(values: &[f64], base: &[f64]) -> Vec<f64> {
    values
        .iter()
        .zip(base)
        .map(|(value, base)| value / base)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        let check =
            |values: &[f64], expected: f64| assert!((median(values) - expected).abs() < 1e-12, "{values:?}");
        check(&[7.0], 7.0);
        check(&[3.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 2.0, 3.0], 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_quantile_lies_on_the_line_between_two_values() {
        let values = [0.0, 10.0, 20.0, 30.0, 40.0];
        let check = |q: f64, expected: f64| assert!((quantile(&values, q) - expected).abs() < 1e-9, "{q}");
        check(0.0, 0.0);
        check(0.975, 39.0);
        check(1.0, 40.0);
    }

    #[test]
    fn equal_values_leave_no_doubt_and_scattered_ones_do() {
        let sure = estimate(&[0.4; 12]);
        assert!((sure.low - 0.4).abs() < 1e-12 && (sure.high - 0.4).abs() < 1e-12);
        let scattered: Vec<f64> = (0..12).map(|index| 1.0 + f64::from(index) * 0.1).collect();
        let unsure = estimate(&scattered);
        assert!(
            unsure.low < unsure.median && unsure.median < unsure.high,
            "{unsure:?}"
        );
        assert!(unsure.low >= 1.0 && unsure.high <= 2.1, "{unsure:?}");
        assert_eq!(
            unsure,
            estimate(&scattered),
            "the same samples give the same interval"
        );
    }

    #[test]
    fn one_outlier_moves_the_median_less_than_the_mean() {
        let mut values = vec![1.0; 11];
        values.push(100.0);
        assert!((estimate(&values).high - 1.0).abs() < 1e-9);
    }

    #[test]
    fn ratios_pair_what_was_measured_together() {
        assert_eq!(ratios(&[1.0, 3.0], &[2.0, 4.0]), [0.5, 0.75]);
    }
}
