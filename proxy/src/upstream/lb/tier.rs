//! Hosts of one priority (and locality) that may be picked, prepared for the cluster's policy.
use std::sync::Arc;

use outrigger_model::cluster::LbPolicy;

use super::Settings;
use super::least_request::Measure;
use super::schedule::Schedule;
use super::slow_start;
use crate::time::Instant;
use crate::upstream::endpoint::Host;

/// Pickable hosts; never empty.
#[derive(Debug)]
pub(super) struct Tier {
    hosts: Vec<Arc<Host>>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// RANDOM; weights have no effect, as in Envoy.
    Random,
    /// ROUND_ROBIN.
    Turns(Schedule),
    /// LEAST_REQUEST: the least busy of a few.
    LeastBusy {
        draws: u32,
        measure: Measure,
        /// Running sums of weights; empty when all are equal.
        upto: Vec<u64>,
    },
}

impl Tier {
    /// `None` without hosts.
    pub(super) fn new(
        hosts: Vec<Arc<Host>>,
        settings: &Settings,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Option<Self> {
        if hosts.is_empty() {
            return None;
        }
        let way = match &settings.policy {
            LbPolicy::Random | LbPolicy::ClusterProvided => Way::Random,
            LbPolicy::LeastRequest { choice_count } => {
                least_busy(&weights(&hosts, settings, now), *choice_count, settings)
            }
            // Those that hash have tables of their own.
            LbPolicy::RoundRobin | LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => {
                Way::Turns(Schedule::new(&weights(&hosts, settings, now), random))
            }
        };
        Some(Self { hosts, way })
    }

    #[inline]
    pub(super) fn pick(&self, random: &mut fastrand::Rng) -> Option<&Arc<Host>> {
        let index = match &self.way {
            _ if self.hosts.len() == 1 => 0,
            Way::Random => random.usize(0..self.hosts.len()),
            Way::Turns(schedule) => schedule.next()?,
            Way::LeastBusy { draws, measure, upto } => {
                return self.least_busy(*draws, *measure, upto, random);
            }
        };
        self.hosts.get(index)
    }

    fn least_busy(
        &self,
        draws: u32,
        measure: Measure,
        upto: &[u64],
        random: &mut fastrand::Rng,
    ) -> Option<&Arc<Host>> {
        let mut best = self.draw(upto, random)?;
        for _ in 1..draws {
            let other = self.draw(upto, random)?;
            if measure.is_less(other, best) {
                best = other;
            }
        }
        Some(best)
    }

    fn draw(&self, upto: &[u64], random: &mut fastrand::Rng) -> Option<&Arc<Host>> {
        let index = match upto.last() {
            None => random.usize(0..self.hosts.len()),
            Some(sum) => {
                let ticket = random.u64(0..*sum);
                upto.partition_point(|upto| *upto <= ticket)
            }
        };
        self.hosts.get(index)
    }
}

fn weights(hosts: &[Arc<Host>], settings: &Settings, now: Instant) -> Vec<u32> {
    slow_start::weights(hosts, settings.slow_start, now)
}

fn least_busy(weights: &[u32], draws: u32, settings: &Settings) -> Way {
    let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
    let running = weights.iter().scan(0, |sum, weight| {
        *sum += u64::from(*weight);
        Some(*sum)
    });
    let bias = settings.active_request_bias;
    Way::LeastBusy {
        draws: draws.max(2),
        measure: if equal {
            Measure::Plain
        } else {
            Measure::ByWeight { bias }
        },
        upto: if equal { Vec::new() } else { running.collect() },
    }
}
