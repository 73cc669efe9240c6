//! Whether a host may have traffic: what the control plane says of it, and what this proxy found out.
//!
//! Source: Envoy `Host::HealthFlag`, `Host::coarseHealth`; health_check.proto `HealthStatus`.
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use outrigger_model::endpoint::Health;

use super::Host;
use super::latency::Latency;
use crate::time::Instant;
use crate::upstream::outlier::Monitor;

/// How much traffic a host may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    /// All.
    Healthy,
    /// What healthy hosts cannot take.
    Degraded,
    /// None, but in panic.
    Unhealthy,
}

impl Availability {
    /// What the control plane's word alone makes of an endpoint. UNKNOWN counts as healthy, TIMEOUT and DRAINING as unhealthy.
    pub(crate) fn of(health: Health) -> Self {
        match health {
            Health::Unknown | Health::Healthy => Self::Healthy,
            Health::Degraded => Self::Degraded,
            Health::Unhealthy | Health::Draining | Health::Timeout => Self::Unhealthy,
        }
    }
}

/// What this proxy found out. Source: Envoy `HEALTH_FLAG_ENUM_VALUES`; those of EDS are in [`Host::health`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthFlag {
    /// Active health checks fail.
    FailedActiveCheck = 1,
    /// Ejected by outlier detection.
    FailedOutlierCheck = 2,
    /// An active health check said so.
    DegradedActiveCheck = 4,
    /// Waits for its first active health check.
    PendingActiveCheck = 8,
    /// Gone from the assignment, and kept because it is healthy.
    PendingRemoval = 16,
    /// It asked in a response not to be counted.
    ExcludedByImmediateFailure = 32,
    /// The active health check failed for lack of an answer.
    ActiveCheckTimeout = 64,
    /// It said in a response that it is degraded.
    DegradedOutlierCheck = 128,
}

/// Beside the flags: a host that has not been checked yet.
const UNCHECKED: u32 = 1 << 31;
/// Beside the flags: it failed by its own word since the last check.
const FAILED_AT_ONCE: u32 = 1 << 30;

/// What is known of a host, shared by all workers; changed by few, read when hosts are grouped.
#[derive(Debug)]
pub(crate) struct HostState {
    flags: AtomicU32,
    since: Instant,
    /// Microseconds from `since` to when it last became healthy.
    healthy_after: AtomicU64,
    /// For clusters with outlier detection.
    monitor: Option<Box<Monitor>>,
    latency: Latency,
}

impl HostState {
    /// Of a host that is new at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            flags: AtomicU32::new(0),
            since: now,
            healthy_after: AtomicU64::new(0),
            monitor: None,
            latency: Latency::default(),
        }
    }

    /// With outlier detection.
    pub(crate) fn watched(self) -> Self {
        Self {
            monitor: Some(Box::default()),
            ..self
        }
    }

    /// It answered, or failed, after this time.
    pub(crate) fn note_latency(&self, sample: Duration, decay: Duration) {
        let age = Instant::now().saturating_duration_since(self.since);
        self.latency.note(sample, age, decay);
    }

    /// Nanoseconds that an answer takes at `now`; `None`: not known.
    pub(crate) fn latency(&self, now: Instant, decay: Duration) -> Option<f64> {
        self.latency.now(now.saturating_duration_since(self.since), decay)
    }

    /// What outlier detection knows.
    pub(crate) fn monitor(&self) -> Option<&Monitor> {
        self.monitor.as_deref()
    }

    /// A flag is set.
    pub(crate) fn has(&self, flag: HealthFlag) -> bool {
        self.flags.load(Ordering::Relaxed) & flag as u32 != 0
    }

    /// Sets or clears a flag; true: that changed it.
    pub(crate) fn set(&self, flag: HealthFlag, value: bool) -> bool {
        let before = match value {
            true => self.flags.fetch_or(flag as u32, Ordering::Relaxed),
            false => self.flags.fetch_and(!(flag as u32), Ordering::Relaxed),
        };
        (before & flag as u32 != 0) != value
    }

    /// By its own word it fails its active checks and is not counted; true: that changed something.
    pub(crate) fn fail_at_once(&self) -> bool {
        let flags = HealthFlag::FailedActiveCheck as u32 | HealthFlag::ExcludedByImmediateFailure as u32;
        let before = self.flags.fetch_or(flags | FAILED_AT_ONCE, Ordering::Relaxed);
        before & flags != flags
    }

    /// [`Self::fail_at_once`] was called since this was asked last.
    pub(crate) fn take_failed_at_once(&self) -> bool {
        self.flags.fetch_and(!FAILED_AT_ONCE, Ordering::Relaxed) & FAILED_AT_ONCE != 0
    }

    /// It waits for its first active check.
    pub(crate) fn set_unchecked(&self) {
        self.flags.fetch_or(UNCHECKED, Ordering::Relaxed);
    }

    /// An active check has come to an end.
    pub(crate) fn set_checked(&self) {
        self.flags.fetch_and(!UNCHECKED, Ordering::Relaxed);
    }

    /// No active check has come to an end.
    pub(crate) fn is_unchecked(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & UNCHECKED != 0
    }

    /// It became healthy by an active check: slow start begins again.
    pub(crate) fn became_healthy(&self, now: Instant) {
        let after = now.saturating_duration_since(self.since).as_micros();
        self.healthy_after
            .store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long it has been there, or healthy.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        let after = Duration::from_micros(self.healthy_after.load(Ordering::Relaxed));
        now.saturating_duration_since(self.since).saturating_sub(after)
    }
}

/// Some kinds of health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Healths(u8);

impl Healths {
    /// Those of hosts that sessions keep to. Source: cluster.proto `override_host_status`; Envoy `createOverrideHostStatus`.
    pub(crate) fn of_sessions(configured: &[Health]) -> Self {
        let healths = match configured {
            [] => &[Health::Unknown, Health::Healthy, Health::Degraded],
            configured => configured,
        };
        Self(healths.iter().fold(0, |set, health| set | bit(*health)))
    }

    /// This one is among them.
    pub(crate) fn contains(self, health: Health) -> bool {
        self.0 & bit(health) != 0
    }
}

fn bit(health: Health) -> u8 {
    1 << match health {
        Health::Unknown => 0,
        Health::Healthy => 1,
        Health::Unhealthy => 2,
        Health::Draining => 3,
        Health::Timeout => 4,
        Health::Degraded => 5,
    }
}

impl Host {
    /// What the control plane said, unless checks of this proxy found worse. Source: Envoy `HostImplBase::healthStatus`.
    pub(crate) fn health_status(&self) -> Health {
        use HealthFlag::{FailedActiveCheck, FailedOutlierCheck};
        if self.state.has(FailedActiveCheck) || self.state.has(FailedOutlierCheck) {
            return Health::Unhealthy;
        }
        match self.health {
            Health::Unknown | Health::Healthy if self.is_degraded() => Health::Degraded,
            health => health,
        }
    }

    /// All that is known together; the worst counts.
    pub(crate) fn availability(&self) -> Availability {
        use HealthFlag::{FailedActiveCheck, FailedOutlierCheck};
        if self.state.has(FailedActiveCheck) || self.state.has(FailedOutlierCheck) {
            return Availability::Unhealthy;
        }
        match Availability::of(self.health) {
            Availability::Healthy if self.is_degraded() => Availability::Degraded,
            availability => availability,
        }
    }

    /// This proxy found it so.
    fn is_degraded(&self) -> bool {
        self.state.has(HealthFlag::DegradedActiveCheck) || self.state.has(HealthFlag::DegradedOutlierCheck)
    }

    /// It is not to be checked, and counts as healthy. Source: endpoint_components.proto `disable_active_health_check`.
    pub(crate) fn is_excused(&self) -> bool {
        self.config.is_excused()
    }

    /// Not counted where shares of healthy hosts are. Source: Envoy docs, excluded endpoints.
    pub(crate) fn is_excluded(&self) -> bool {
        self.health == Health::Draining
            || self.state.has(HealthFlag::PendingActiveCheck)
            || self.state.has(HealthFlag::ExcludedByImmediateFailure)
    }

    /// As `/clusters` of Envoy: every flag in the order of `HEALTH_FLAG_ENUM_VALUES`, or `healthy`.
    pub(crate) fn health_flags(&self) -> String {
        use HealthFlag as Flag;
        let eds = |healths: &[Health]| healths.contains(&self.health);
        let flags = [
            (self.state.has(Flag::FailedActiveCheck), "/failed_active_hc"),
            (self.state.has(Flag::FailedOutlierCheck), "/failed_outlier_check"),
            (eds(&[Health::Unhealthy, Health::Timeout]), "/failed_eds_health"),
            (self.state.has(Flag::DegradedActiveCheck), "/degraded_active_hc"),
            (eds(&[Health::Degraded]), "/degraded_eds_health"),
            (self.state.has(Flag::PendingRemoval), "/pending_dynamic_removal"),
            (self.state.has(Flag::PendingActiveCheck), "/pending_active_hc"),
            (
                self.state.has(Flag::ExcludedByImmediateFailure),
                "/excluded_via_immediate_hc_fail",
            ),
            (self.state.has(Flag::ActiveCheckTimeout), "/active_hc_timeout"),
            (eds(&[Health::Draining]), "/eds_status_draining"),
            (
                self.state.has(Flag::DegradedOutlierCheck),
                "/degraded_outlier_detection",
            ),
        ];
        let text: String = flags
            .iter()
            .filter(|(is_set, _)| *is_set)
            .map(|(_, name)| *name)
            .collect();
        if text.is_empty() {
            "healthy".to_owned()
        } else {
            text
        }
    }
}
