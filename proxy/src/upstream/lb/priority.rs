//! How much of the load each priority gets, and which priorities are in panic.
//!
//! Pure. Source: Envoy docs, priority levels, degraded endpoints, panic threshold; integer arithmetic and the place of remainders as
//! Envoy's `LoadBalancerBase`.

/// Hosts of one priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) healthy: usize,
    pub(super) degraded: usize,
    /// All, without those that are not counted (`Host::is_excluded`).
    pub(super) counted: usize,
    /// All.
    pub(super) hosts: usize,
    /// What they count where health is asked for.
    pub(super) weight: Weights,
}

/// The same sums, of 1 a host or of its weight (`weighted_priority_health`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weights {
    pub(super) healthy: u64,
    pub(super) degraded: u64,
    pub(super) counted: u64,
}

/// Load by priority. Invariant: both shares together sum to 100 if there is a priority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Percent that goes to healthy hosts (in panic: to any).
    pub(crate) healthy: Vec<u32>,
    /// Percent that goes to degraded hosts.
    pub(crate) degraded: Vec<u32>,
    /// Health is ignored.
    pub(crate) panic: Vec<bool>,
    /// Percent of what each priority could take: its healthy hosts, and its degraded ones.
    available: Vec<[u32; 2]>,
}

impl Plan {
    /// `overprovisioning` and `panic_threshold` are percentages; a threshold of 0 never panics.
    pub(super) fn new(counts: &[Counts], overprovisioning: u32, panic_threshold: u32) -> Self {
        let availability = |part: fn(&Weights) -> u64| -> Vec<u32> {
            let percent =
                |counts: &Counts| percent_of(part(&counts.weight), counts.weight.counted, overprovisioning);
            counts.iter().map(percent).collect()
        };
        let healthy = availability(|weight| weight.healthy);
        let degraded = availability(|weight| weight.degraded);
        let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
        let mut plan = Self {
            healthy: vec![0; counts.len()],
            degraded: vec![0; counts.len()],
            panic: vec![false; counts.len()],
            available: healthy
                .iter()
                .zip(&degraded)
                .map(|(healthy, degraded)| [*healthy, *degraded])
                .collect(),
        };
        plan.distribute(&healthy, &degraded, total);
        if (panic_threshold == 0 && total == 0) || total == 100 {
            return plan;
        }
        for (panic, counts) in plan.panic.iter_mut().zip(counts) {
            *panic = is_below(counts, panic_threshold);
        }
        if plan.panic.iter().all(|panic| *panic) {
            plan.distribute_by_hosts(counts);
        }
        plan
    }

    /// By availability, healthy hosts of all priorities first.
    fn distribute(&mut self, healthy: &[u32], degraded: &[u32], total: u32) {
        if total == 0 {
            if let Some(first) = self.healthy.first_mut() {
                *first = 100;
            }
            return;
        }
        let left = spread(&mut self.healthy, healthy, 100, total);
        let left = spread(&mut self.degraded, degraded, left, total);
        // Divisions leave a remainder: the first priority with healthy hosts takes it, else the first with degraded ones.
        let first = |available: &[u32]| available.iter().position(|percent| *percent > 0);
        let taker = match (first(healthy), first(degraded)) {
            (Some(index), _) => self.healthy.get_mut(index),
            (None, Some(index)) => self.degraded.get_mut(index),
            (None, None) => None,
        };
        if let Some(taker) = taker {
            *taker += left;
        }
    }

    /// All priorities are in panic: by the number of their hosts.
    fn distribute_by_hosts(&mut self, counts: &[Counts]) {
        self.degraded.fill(0);
        let total: usize = counts.iter().map(|counts| counts.hosts).sum();
        let mut left = 100;
        for (load, counts) in self.healthy.iter_mut().zip(counts) {
            *load = u32::try_from(100 * counts.hosts / total.max(1)).unwrap_or(100);
            left -= *load;
        }
        let first = counts.iter().position(|counts| counts.hosts > 0).unwrap_or(0);
        if let Some(first) = self.healthy.get_mut(first) {
            *first += left;
        }
    }

    /// The load when nothing goes to these priorities; `None`: the others have nothing available.
    /// Source: Envoy `PreviousPrioritiesRetryPriority`.
    pub(super) fn without(&self, excluded: &[u32]) -> Option<Self> {
        let is_left = |index: &usize| !excluded.iter().any(|priority| *priority as usize == *index);
        let left_of = |kind: usize| {
            let available = self.available.iter().enumerate();
            available.map(move |(index, available)| match available.get(kind) {
                Some(percent) if is_left(&index) => *percent,
                _ => 0,
            })
        };
        let (healthy, degraded): (Vec<u32>, Vec<u32>) = (left_of(0).collect(), left_of(1).collect());
        let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
        if total == 0 {
            return None;
        }
        let mut plan = Self {
            healthy: vec![0; healthy.len()],
            degraded: vec![0; degraded.len()],
            panic: self.panic.clone(),
            available: Vec::new(),
        };
        let mut left = 100;
        // Divisions leave a remainder, which is given out the same way.
        while left > 0 {
            for (loads, available) in [(&mut plan.healthy, &healthy), (&mut plan.degraded, &degraded)] {
                for (load, available) in loads.iter_mut().zip(available) {
                    let more = (available * 100 / total).min(left);
                    *load += more;
                    left -= more;
                }
            }
        }
        Some(plan)
    }

    /// The priority for a number, and whether its degraded hosts are meant. `None`: there is no priority. Asks for the number only if
    /// there is a choice.
    #[inline]
    pub(super) fn of(&self, number: impl FnOnce() -> u64) -> Option<(usize, bool)> {
        if self.healthy.first() == Some(&100) {
            return Some((0, false));
        }
        let percent = u32::try_from(number() % 100).unwrap_or(0);
        let mut sum = 0;
        let mut upto = |load: &u32| {
            sum += *load;
            percent < sum
        };
        if let Some(priority) = self.healthy.iter().position(&mut upto) {
            return Some((priority, false));
        }
        let degraded = self.degraded.iter().position(&mut upto);
        degraded.map(|priority| (priority, true))
    }
}

/// `min(100, overprovisioning × part / whole)`.
fn percent_of(part: u64, whole: u64, overprovisioning: u32) -> u32 {
    if whole == 0 {
        return 0;
    }
    let percent = u64::from(overprovisioning).saturating_mul(part) / whole;
    u32::try_from(percent.min(100)).unwrap_or(100)
}

/// Gives each its part of at most `left`; returns what is left.
fn spread(load: &mut [u32], available: &[u32], mut left: u32, total: u32) -> u32 {
    for (load, available) in load.iter_mut().zip(available) {
        *load = (available * 100 / total).min(left);
        left -= *load;
    }
    left
}

/// The share of usable hosts is below the threshold. A priority without hosts is.
fn is_below(counts: &Counts, threshold: u32) -> bool {
    let usable = counts.healthy + counts.degraded;
    let percent = if counts.counted == 0 {
        0.0
    } else {
        100.0 * usable as f64 / counts.counted as f64
    };
    percent < f64::from(threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Priorities as percentages of healthy, and of degraded hosts of 100.
    fn plan(priorities: &[(usize, usize)], panic_threshold: u32) -> Plan {
        let counts: Vec<_> = priorities
            .iter()
            .map(|(healthy, degraded)| Counts {
                healthy: *healthy,
                degraded: *degraded,
                counted: 100,
                hosts: 100,
                weight: Weights {
                    healthy: *healthy as u64,
                    degraded: *degraded as u64,
                    counted: 100,
                },
            })
            .collect();
        Plan::new(&counts, 140, panic_threshold)
    }

    /// Source: the tables of Envoy's page on priority levels.
    #[test]
    fn load_spills_as_envoys_tables_say() {
        let table: [(&[usize], &[u32]); 19] = [
            (&[100, 100], &[100, 0]),
            (&[72, 100], &[100, 0]),
            (&[71, 100], &[99, 1]),
            (&[50, 100], &[70, 30]),
            (&[25, 100], &[35, 65]),
            (&[0, 100], &[0, 100]),
            (&[72, 72], &[100, 0]),
            (&[71, 71], &[99, 1]),
            (&[50, 50], &[70, 30]),
            (&[25, 25], &[50, 50]),
            (&[100, 100, 100], &[100, 0, 0]),
            (&[72, 72, 100], &[100, 0, 0]),
            (&[71, 71, 100], &[99, 1, 0]),
            (&[50, 50, 100], &[70, 30, 0]),
            (&[25, 100, 100], &[35, 65, 0]),
            (&[25, 25, 100], &[35, 35, 30]),
            // The page says 36, 36 and 28; Envoy's divisions leave 2, and those go to the first.
            (&[25, 25, 20], &[37, 35, 28]),
            (&[5, 65], &[8, 92]),
            (&[100], &[100]),
        ];
        for (healthy, expected) in table {
            let priorities: Vec<_> = healthy.iter().map(|healthy| (*healthy, 0)).collect();
            assert_eq!(plan(&priorities, 0).healthy, expected, "{healthy:?}");
        }
    }

    /// Source: the table of Envoy's page on degraded endpoints.
    #[test]
    fn degraded_hosts_take_what_healthy_ones_cannot() {
        let table = [
            ((100, 0), (100, 0)),
            ((71, 0), (100, 0)),
            ((71, 29), (99, 1)),
            ((25, 65), (35, 65)),
            ((5, 0), (100, 0)),
            ((0, 10), (0, 100)),
        ];
        for (hosts, (healthy, degraded)) in table {
            let plan = plan(&[hosts], 0);
            assert_eq!(
                (plan.healthy, plan.degraded),
                (vec![healthy], vec![degraded]),
                "{hosts:?}"
            );
        }
        // Healthy hosts of a lower priority come before degraded ones of a higher.
        let plan = plan(&[(25, 75), (50, 0)], 0);
        assert_eq!((plan.healthy, plan.degraded), (vec![35, 65], vec![0, 0]));
    }

    /// Source: the tables of Envoy's page on the panic threshold, at 50 %.
    #[test]
    fn panic_begins_as_envoys_tables_say() {
        let table: [(&[usize], &[bool]); 10] = [
            (&[72, 100], &[false, false]),
            (&[0, 100], &[false, false]),
            (&[72, 72], &[false, false]),
            (&[71, 71], &[false, false]),
            (&[50, 60], &[false, false]),
            (&[25, 100], &[false, false]),
            (&[25, 25], &[true, true]),
            (&[5, 65], &[true, false]),
            (&[49], &[true]),
            (&[50], &[false]),
        ];
        for (healthy, expected) in table {
            let priorities: Vec<_> = healthy.iter().map(|healthy| (*healthy, 0)).collect();
            assert_eq!(plan(&priorities, 50).panic, expected, "{healthy:?}");
        }
    }

    #[test]
    fn in_total_panic_load_follows_the_number_of_hosts() {
        let counts = [(0, 30), (0, 60), (0, 10)].map(|(healthy, hosts)| Counts {
            healthy,
            degraded: 0,
            counted: hosts,
            hosts,
            weight: Weights {
                counted: hosts as u64,
                ..Weights::default()
            },
        });
        assert_eq!(Plan::new(&counts, 140, 50).healthy, [30, 60, 10]);
        let nothing = Plan::new(&[Counts::default()], 140, 50);
        assert_eq!((nothing.healthy, nothing.panic), (vec![100], vec![true]));
    }

    #[test]
    fn a_threshold_of_zero_never_panics() {
        let plan = plan(&[(0, 0), (0, 0)], 0);
        assert_eq!((plan.healthy, plan.panic), (vec![100, 0], vec![false, false]));
    }

    #[test]
    fn numbers_fall_into_priorities_by_their_load() {
        let plan = plan(&[(25, 10), (25, 0)], 0);
        assert_eq!(
            (&*plan.healthy, &*plan.degraded),
            ([43, 41].as_slice(), [16, 0].as_slice())
        );
        let mut hits = [0_u32; 3];
        for number in 0..100 {
            match plan.of(|| number) {
                Some((priority, false)) => hits[priority] += 1,
                Some((0, true)) => hits[2] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(hits, [43, 41, 16]);
    }
}
