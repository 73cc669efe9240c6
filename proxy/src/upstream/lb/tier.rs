//! Hosts of one priority (and locality) that may be picked, prepared for the cluster's policy.
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outrigger_model::cluster::LbPolicy;

use super::Settings;
use super::least_request::Measure;
use super::schedule::Schedule;
use super::slow_start;
use crate::pace::release;
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
    /// LEAST_REQUEST: the least busy of all.
    LeastBusyOfAll,
    /// Peak EWMA: the quicker of two.
    Quickest {
        decay: Duration,
        default_rtt: Duration,
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
            LbPolicy::LeastRequest {
                choice_count,
                scans_all,
            } => match least_busy(&weights(&hosts, settings, now), *choice_count, settings) {
                // As Envoy, which looks at weights otherwise.
                Way::LeastBusy {
                    measure: Measure::Plain,
                    ..
                } if *scans_all => Way::LeastBusyOfAll,
                way => way,
            },
            LbPolicy::PeakEwma { decay, default_rtt } => Way::Quickest {
                decay: *decay,
                default_rtt: *default_rtt,
                upto: running_sums(&weights(&hosts, settings, now)),
            },
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
            Way::LeastBusyOfAll => return self.least_busy_of_all(random),
            Way::Quickest {
                decay,
                default_rtt,
                upto,
            } => return self.quickest(*decay, *default_rtt, upto, random),
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

    /// Of those that are equally busy any. O(n). Source: Envoy `LeastRequestLoadBalancer::unweightedHostPickFullScan`.
    fn least_busy_of_all(&self, random: &mut fastrand::Rng) -> Option<&Arc<Host>> {
        let mut hosts = self.hosts.iter();
        let mut best = hosts.next()?;
        let mut tied: u64 = 1;
        for host in hosts {
            if Measure::Plain.is_less(host, best) {
                (best, tied) = (host, 1);
            } else if !Measure::Plain.is_less(best, host) {
                tied += 1;
                if random.u64(0..tied) == 0 {
                    best = host;
                }
            }
        }
        Some(best)
    }

    /// Of two different hosts that with the least `latency × (active requests + 1)`; the first drawn on ties.
    fn quickest(
        &self,
        decay: Duration,
        default_rtt: Duration,
        upto: &[u64],
        random: &mut fastrand::Rng,
    ) -> Option<&Arc<Host>> {
        let first = self.draw_index(upto, random);
        let mut second = self.draw_index(upto, random);
        if second == first {
            second = (first + 1) % self.hosts.len();
        }
        let (first, second) = (self.hosts.get(first)?, self.hosts.get(second)?);
        let now = Instant::now();
        let cost = |host: &Host| {
            let latency = host.state.latency(now, decay);
            let active = host.counters.rq_active.load(Ordering::Relaxed);
            latency.unwrap_or(default_rtt.as_nanos() as f64) * (f64::from(active) + 1.0)
        };
        Some(if cost(second) < cost(first) { second } else { first })
    }

    fn draw(&self, upto: &[u64], random: &mut fastrand::Rng) -> Option<&Arc<Host>> {
        self.hosts.get(self.draw_index(upto, random))
    }

    fn draw_index(&self, upto: &[u64], random: &mut fastrand::Rng) -> usize {
        match upto.last() {
            None => random.usize(0..self.hosts.len()),
            Some(sum) => {
                let ticket = random.u64(0..*sum);
                upto.partition_point(|upto| *upto <= ticket)
            }
        }
    }
}

impl Drop for Tier {
    fn drop(&mut self) {
        release(std::mem::take(&mut self.hosts));
    }
}

fn weights(hosts: &[Arc<Host>], settings: &Settings, now: Instant) -> Vec<u32> {
    slow_start::weights(hosts, settings.slow_start, now)
}

fn least_busy(weights: &[u32], draws: u32, settings: &Settings) -> Way {
    let upto = running_sums(weights);
    let bias = settings.active_request_bias;
    Way::LeastBusy {
        draws: draws.max(2),
        measure: if upto.is_empty() {
            Measure::Plain
        } else {
            Measure::ByWeight { bias }
        },
        upto,
    }
}

/// Empty when all are equal.
fn running_sums(weights: &[u32]) -> Vec<u64> {
    if weights.windows(2).all(|pair| pair[0] == pair[1]) {
        return Vec::new();
    }
    let running = weights.iter().scan(0, |sum, weight| {
        *sum += u64::from(*weight);
        Some(*sum)
    });
    running.collect()
}
