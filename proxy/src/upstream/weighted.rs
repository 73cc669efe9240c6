//! A choice by weight.

/// Things with weights; their sum fits into `u64`.
#[derive(Debug)]
pub(crate) struct Weighted<T> {
    /// Each with the sum of the weights up to it.
    entries: Vec<(u64, T)>,
}

impl<T> Weighted<T> {
    /// Index of one of them, each as often as its weight says; `None`: there is none with a weight.
    pub(crate) fn draw(&self, random: &mut fastrand::Rng) -> Option<usize> {
        let total = self.entries.last()?.0;
        let ticket = if total > 1 { random.u64(0..total) } else { 0 };
        Some(self.entries.partition_point(|(upto, _)| *upto <= ticket)).filter(|_| total > 0)
    }

    /// Index of the one that this number falls on; `None`: there is none with a weight.
    pub(crate) fn at(&self, number: u64) -> Option<usize> {
        let total = self.entries.last()?.0;
        let ticket = number.checked_rem(total)?;
        Some(self.entries.partition_point(|(upto, _)| *upto <= ticket))
    }

    /// By its index.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.entries.get(index).map(|(_, entry)| entry)
    }
}

impl<T> FromIterator<(u32, T)> for Weighted<T> {
    fn from_iter<I: IntoIterator<Item = (u32, T)>>(entries: I) -> Self {
        let mut sum = 0;
        let running = entries.into_iter().map(|(weight, entry)| {
            sum += u64::from(weight);
            (sum, entry)
        });
        Self {
            entries: running.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(weights: &[u32], expected_shares: &[f64]) {
        let weighted: Weighted<usize> = weights.iter().copied().zip(0..).collect();
        let mut random = fastrand::Rng::with_seed(1);
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..10_000 {
            let drawn = weighted.draw(&mut random).and_then(|index| weighted.get(index));
            counts[*drawn.expect("one has a weight")] += 1;
        }
        for (count, share) in counts.iter().zip(expected_shares) {
            assert!((f64::from(*count) / 10_000.0 - share).abs() < 0.02, "{counts:?}");
        }
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        check(&[1], &[1.0]);
        check(&[90, 10], &[0.9, 0.1]);
        check(&[0, 1, 0, 3], &[0.0, 0.25, 0.0, 0.75]);
    }

    #[test]
    fn without_weight_nothing_is_drawn() {
        let mut random = fastrand::Rng::with_seed(1);
        assert_eq!(Weighted::<()>::from_iter([]).draw(&mut random), None);
        assert_eq!(Weighted::from_iter([(0, ())]).draw(&mut random), None);
    }
}
