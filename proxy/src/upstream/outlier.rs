//! Hosts that answer badly are left out for a while.
//!
//! What a request costs: a branch without outlier detection, else a few relaxed atomic writes on the host. Counters are of the host, over
//! all workers, so a threshold is reached exactly once. Whoever reaches it ejects the host at once; Envoy posts that to its main thread.
//! Source: Envoy docs, outlier detection; order of checks and counters as Envoy's `DetectorImpl`.
mod monitor;
mod stats;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrigger_model::cluster::OutlierDetection as Config;

pub(crate) use self::monitor::Monitor;
pub(crate) use self::stats::OutlierStats;
use super::endpoint::{HealthFlag, Host, HostSet};
use crate::time::Instant;

/// How an attempt to use a host went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered: a status, or what a gRPC status means as one.
    Status(u16),
    /// There was a connection; HTTP on it is still to come.
    Connected,
    /// There was a connection, and that is all that was wanted.
    Served,
    /// No connection, or it ended before an answer.
    ConnectFailed,
    /// No answer in time.
    TimedOut,
}

/// Why a host is ejected. Source: outlier_detection_event.proto `OutlierEjectionType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    SuccessRate,
    LocalOriginSuccessRate,
    FailurePercentage,
    LocalOriginFailurePercentage,
}

/// Mean success rate and the rate below which hosts are ejected, percent; -1: too few hosts had enough requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Threshold {
    pub(crate) mean: f64,
    pub(crate) ejection: f64,
}

const UNKNOWN: Threshold = Threshold {
    mean: -1.0,
    ejection: -1.0,
};

/// Outlier detection of one cluster.
#[derive(Debug)]
pub(crate) struct Detector {
    config: Box<Config>,
    stats: OutlierStats,
    /// Held by whoever ejects or brings back.
    judging: Mutex<Thresholds>,
}

/// Of the last interval: errors of servers, errors of this side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thresholds {
    pub(crate) external: Threshold,
    pub(crate) local: Threshold,
}

impl Detector {
    pub(crate) fn new(config: &Config, stats: OutlierStats) -> Self {
        Self {
            config: Box::new(config.clone()),
            stats,
            judging: Mutex::new(Thresholds {
                external: UNKNOWN,
                local: UNKNOWN,
            }),
        }
    }

    /// Time between two looks at all hosts.
    pub(crate) fn interval(&self) -> Duration {
        self.config.interval
    }

    /// A passed active health check ends an ejection.
    pub(crate) fn ends_with_health_check(&self) -> bool {
        self.config.successful_health_check_unejects
    }

    /// Figures for `/clusters`.
    pub(crate) fn thresholds(&self) -> Thresholds {
        *self.judge()
    }

    /// Shows how many hosts are ejected.
    pub(crate) fn show_ejected(&self, count: u64) {
        self.stats.ejections_active.set(count);
    }

    /// Takes note of an outcome; the thresholds that it reaches.
    pub(crate) fn note(&self, monitor: &Monitor, outcome: Outcome) -> [Option<Reason>; 2] {
        if self.config.splits_local_origin_errors {
            return match outcome {
                Outcome::Status(status) => self.note_status(monitor, status),
                Outcome::Connected | Outcome::Served => {
                    monitor.local.note(true);
                    monitor.consecutive_local.reset();
                    [None; 2]
                }
                Outcome::ConnectFailed | Outcome::TimedOut => {
                    monitor.local.note(false);
                    let reached = monitor
                        .consecutive_local
                        .reaches(self.config.consecutive_local_origin_failure);
                    [reached.then_some(Reason::ConsecutiveLocalOriginFailure), None]
                }
            };
        }
        match outcome {
            Outcome::Status(status) => self.note_status(monitor, status),
            // The layer above tells how it went.
            Outcome::Connected => [None; 2],
            Outcome::Served => self.note_status(monitor, 200),
            Outcome::ConnectFailed => self.note_status(monitor, 503),
            Outcome::TimedOut => self.note_status(monitor, 504),
        }
    }

    fn note_status(&self, monitor: &Monitor, status: u16) -> [Option<Reason>; 2] {
        let is_error = (500..600).contains(&status);
        monitor.external.note(!is_error);
        if !is_error {
            monitor.consecutive_5xx.reset();
            monitor.consecutive_gateway.reset();
            return [None; 2];
        }
        let gateway = if (502..=504).contains(&status) {
            monitor
                .consecutive_gateway
                .reaches(self.config.consecutive_gateway_failure)
        } else {
            monitor.consecutive_gateway.reset();
            false
        };
        let any = monitor.consecutive_5xx.reaches(self.config.consecutive_5xx);
        [
            gateway.then_some(Reason::ConsecutiveGatewayFailure),
            any.then_some(Reason::Consecutive5xx),
        ]
    }

    /// A host has reached a threshold of consecutive errors. True: it is ejected, and the load has to be shared anew.
    pub(crate) fn trip(&self, hosts: &HostSet, host: &Host, reason: Reason, now: Instant) -> bool {
        let _alone = self.judge();
        let Some(monitor) = host.state.monitor() else {
            return false;
        };
        // A worker may still hold a host that is gone.
        let is_there = hosts
            .find(host.address)
            .is_some_and(|known| Arc::ptr_eq(&known.state, &host.state));
        if !is_there || host.state.has(HealthFlag::FailedOutlierCheck) {
            return false;
        }
        self.stats.detected(reason);
        let ejected = self.eject(hosts, host, monitor, reason, now);
        // Another bout of errors can then be seen, although no success came between.
        match reason {
            Reason::Consecutive5xx => {
                self.stats.ejections_consecutive_5xx.inc();
                monitor.consecutive_5xx.reset();
            }
            Reason::ConsecutiveGatewayFailure => monitor.consecutive_gateway.reset(),
            _ => monitor.consecutive_local.reset(),
        }
        ejected
    }

    /// It counts what hosts say of themselves.
    pub(crate) fn detects_degraded_hosts(&self) -> bool {
        self.config.detects_degraded_hosts
    }

    /// A host said that it is degraded. True: it counts as that from now on, and the load has to be shared anew.
    pub(crate) fn degrade(&self, host: &Host, now: Instant) -> bool {
        if host.state.has(HealthFlag::DegradedOutlierCheck) {
            return false;
        }
        let _alone = self.judge();
        let Some(monitor) = host.state.monitor() else {
            return false;
        };
        if !host.state.set(HealthFlag::DegradedOutlierCheck, true) {
            return false;
        }
        self.stats.detected_degradation.inc();
        let config = &self.config;
        monitor.degraded(
            now,
            self.jitter(),
            config.base_ejection_time,
            config.max_ejection_time,
        );
        tracing::info!(host = %host.address, "degraded by its own word");
        true
    }

    fn jitter(&self) -> Duration {
        self.config.max_ejection_time_jitter.mul_f64(fastrand::f64())
    }

    fn eject(&self, hosts: &HostSet, host: &Host, monitor: &Monitor, reason: Reason, now: Instant) -> bool {
        let ejected = hosts.ejected();
        // Over all priorities, as in Envoy: one may lose all its hosts.
        let percent = 100.0 * (ejected + 1) as f64 / hosts.all.len() as f64;
        let is_allowed = percent <= f64::from(self.config.max_ejection_percent)
            || (self.config.always_ejects_one_host && ejected == 0);
        if !is_allowed {
            self.stats.ejections_overflow.inc();
            return false;
        }
        if matches!(reason, Reason::Consecutive5xx | Reason::SuccessRate) {
            self.stats.ejections_total.inc();
        }
        if fastrand::u32(0..100) >= self.enforcing(reason) {
            return false;
        }
        self.stats.enforced(reason);
        host.state.set(HealthFlag::FailedOutlierCheck, true);
        monitor.ejected(
            now,
            self.jitter(),
            self.config.base_ejection_time,
            self.config.max_ejection_time,
        );
        tracing::info!(host = %host.address, ?reason, "ejected by outlier detection");
        true
    }

    fn enforcing(&self, reason: Reason) -> u32 {
        let config = &self.config;
        match reason {
            Reason::Consecutive5xx => config.enforcing_consecutive_5xx,
            Reason::ConsecutiveGatewayFailure => config.enforcing_consecutive_gateway_failure,
            Reason::ConsecutiveLocalOriginFailure => config.enforcing_consecutive_local_origin_failure,
            Reason::SuccessRate => config.enforcing_success_rate,
            Reason::LocalOriginSuccessRate => config.enforcing_local_origin_success_rate,
            Reason::FailurePercentage => config.enforcing_failure_percentage,
            Reason::LocalOriginFailurePercentage => config.enforcing_failure_percentage_local_origin,
        }
    }

    /// A host comes back before its time. True: it was ejected.
    pub(crate) fn uneject(&self, host: &Host, now: Instant) -> bool {
        let _alone = self.judge();
        bring_back(host, now)
    }

    /// An interval has passed. True: the load has to be shared anew.
    pub(crate) fn tick(&self, hosts: &HostSet, now: Instant) -> bool {
        let mut thresholds = self.judge();
        let mut changed = false;
        let watched = || {
            hosts
                .all
                .iter()
                .filter_map(|host| Some((&**host, host.state.monitor()?)))
        };
        for (host, monitor) in watched() {
            let is_over = monitor.is_over(now, self.config.base_ejection_time, self.config.max_ejection_time);
            if host.state.has(HealthFlag::FailedOutlierCheck) && is_over {
                changed |= bring_back(host, now);
            }
            let config = &self.config;
            if host.state.has(HealthFlag::DegradedOutlierCheck)
                && monitor.is_degradation_over(now, config.base_ejection_time, config.max_ejection_time)
            {
                changed |= host.state.set(HealthFlag::DegradedOutlierCheck, false);
                monitor.recovered(now);
            }
            monitor.end_interval();
        }
        for is_local in [false, true] {
            let (threshold, ejected) = self.judge_rates(hosts, is_local, now);
            match is_local {
                true => thresholds.local = threshold,
                false => thresholds.external = threshold,
            }
            changed |= ejected;
        }
        for (host, monitor) in watched() {
            if !host.state.has(HealthFlag::FailedOutlierCheck) {
                monitor.calm_down(now, self.config.interval);
            }
            if !host.state.has(HealthFlag::DegradedOutlierCheck) {
                monitor.calm_degradation(now, self.config.interval);
            }
        }
        changed
    }

    /// Compares the rates of the interval that ended.
    fn judge_rates(&self, hosts: &HostSet, is_local: bool, now: Instant) -> (Threshold, bool) {
        let config = &self.config;
        let few = |minimum: u32| hosts.all.len() < minimum as usize;
        if few(config.success_rate_minimum_hosts) && few(config.failure_percentage_minimum_hosts) {
            return (UNKNOWN, false);
        }
        let (for_rate, for_percentage) = (
            u64::from(config.success_rate_request_volume),
            u64::from(config.failure_percentage_request_volume),
        );
        let (mut rated, mut counted) = (Vec::new(), Vec::new());
        for host in hosts.all.iter() {
            let Some(monitor) = host.state.monitor() else {
                continue;
            };
            let rate = monitor.rate(is_local);
            let Some((percent, volume)) = rate.last() else {
                continue;
            };
            if host.state.has(HealthFlag::FailedOutlierCheck) {
                continue;
            }
            if volume >= for_rate.min(for_percentage) {
                rate.show(percent);
            }
            if volume >= for_rate {
                rated.push((host, monitor, percent));
            }
            if volume >= for_percentage {
                counted.push((host, monitor, percent));
            }
        }
        let mut ejected = false;
        let mut threshold = UNKNOWN;
        let reasons = match is_local {
            false => (Reason::SuccessRate, Reason::FailurePercentage),
            true => (
                Reason::LocalOriginSuccessRate,
                Reason::LocalOriginFailurePercentage,
            ),
        };
        let mut eject = |host: &Host, monitor, reason| {
            self.stats.detected(reason);
            ejected |= self.eject(hosts, host, monitor, reason, now);
        };
        if !rated.is_empty() && rated.len() >= config.success_rate_minimum_hosts as usize {
            let rates: Vec<f64> = rated.iter().map(|(_, _, percent)| *percent).collect();
            threshold = ejection_threshold(&rates, f64::from(config.success_rate_stdev_factor) / 1000.0);
            for (host, monitor, percent) in &rated {
                if *percent < threshold.ejection {
                    self.stats.ejections_success_rate.inc();
                    eject(host, monitor, reasons.0);
                }
            }
        }
        if !counted.is_empty() && counted.len() >= config.failure_percentage_minimum_hosts as usize {
            for (host, monitor, percent) in &counted {
                if 100.0 - percent >= f64::from(config.failure_percentage_threshold)
                    && !host.state.has(HealthFlag::FailedOutlierCheck)
                {
                    eject(host, monitor, reasons.1);
                }
            }
        }
        (threshold, ejected)
    }

    fn judge(&self) -> MutexGuard<'_, Thresholds> {
        self.judging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Consecutive counters begin anew, so that few errors do not eject it again.
fn bring_back(host: &Host, now: Instant) -> bool {
    let was_ejected = host.state.set(HealthFlag::FailedOutlierCheck, false);
    if was_ejected && let Some(monitor) = host.state.monitor() {
        monitor.brought_back(now);
        tracing::info!(host = %host.address, "no longer ejected by outlier detection");
    }
    was_ejected
}

/// The HTTP status that a gRPC status means. Source: Envoy `Grpc::Utility::grpcToHttpStatus`; google/rpc/code.proto.
pub(crate) fn status_of_grpc(code: u32) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// `mean - factor × standard deviation`, of the whole population.
fn ejection_threshold(rates: &[f64], factor: f64) -> Threshold {
    let count = rates.len().max(1) as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    Threshold {
        mean,
        ejection: mean - factor * variance.sqrt(),
    }
}

#[cfg(test)]
mod tests;
