//! What attempts learn of hosts, and who is told: outlier detection, active checks, the policy that looks at latency.
use std::time::Duration;

use http::HeaderMap;

use super::Cluster;
use crate::time::Instant;
use crate::upstream::endpoint::Host;
use crate::upstream::health_check::DEGRADED;
use crate::upstream::outlier::{Detector, Outcome, Reason};

/// A failed request counts as one of this latency. Source: linkerd `PenaltyPeakEwma`.
const FAILURE_LATENCY: Duration = Duration::from_secs(5);

impl Cluster {
    /// Outlier detection, if it is configured.
    pub(crate) fn outlier(&self) -> Option<&Detector> {
        self.outlier.as_ref()
    }

    /// How attempts go has an effect later: outlier detection, active checks, or a policy that looks at latency.
    #[inline]
    pub(crate) fn learns(&self) -> bool {
        self.outlier.is_some() || self.health_stats.is_some() || self.balancing.latency_decay().is_some()
    }

    /// A host asked in a response to have no more traffic until it passes its active checks; without any it counts for nothing.
    /// Source: Envoy `HealthCheckHostMonitorImpl::setUnhealthy`.
    pub(crate) fn asked_to_be_left_out(&self, host: &Host) {
        // Of one that is not checked no check would take it back.
        let Some(stats) = self.health_stats.as_ref().filter(|_| !host.is_excused()) else {
            return;
        };
        stats.passive_failure();
        if host.state.fail_at_once() {
            self.rebalance_soon();
        }
    }

    /// What a host said of itself in `response`: outlier detection may take it for degraded. A branch if that counts for nothing.
    #[inline]
    pub(crate) fn said(&self, host: &Host, response: &HeaderMap) {
        if let Some(detector) = &self.outlier
            && detector.detects_degraded_hosts()
            && response.contains_key(DEGRADED)
            && detector.degrade(host, Instant::now())
        {
            self.rebalance_soon();
        }
    }

    /// Tells outlier detection how an attempt to use `host` went. A branch if there is none.
    #[inline]
    pub(crate) fn outcome(&self, host: &Host, outcome: Outcome) {
        if let (Some(detector), Some(monitor)) = (&self.outlier, host.state.monitor()) {
            for reason in detector.note(monitor, outcome).into_iter().flatten() {
                self.trip(detector, host, reason);
            }
        }
    }

    /// A host answered, or failed, after `time`; for the policy that looks at that. A branch for others.
    #[inline]
    pub(crate) fn answered(&self, host: &Host, time: Duration, is_failure: bool) {
        if let Some(decay) = self.balancing.latency_decay() {
            // A failure is quick, and must not attract requests.
            let sample = if is_failure {
                time.max(FAILURE_LATENCY)
            } else {
                time
            };
            host.state.note_latency(sample, decay);
        }
    }

    #[cold]
    fn trip(&self, detector: &Detector, host: &Host, reason: Reason) {
        if detector.trip(&self.hosts.load(), host, reason, Instant::now()) {
            self.rebalance_soon();
        }
    }
}
