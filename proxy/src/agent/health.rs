//! Whether the application is ready, for the control plane (`istio.v1.HealthInformation`): istiod leaves out a workload that is not.
//!
//! Told when it changes; the stream says it again when it begins anew ([`xds_client::Report`]). How the application is asked is
//! [`super::probe`]. Source: istio pkg/istio-agent/health `PerformApplicationHealthCheck`; contract §2.5.
use outrigger_model::decode::LISTENER_TYPE;
use outrigger_model::readiness::ReadinessProbe;
use xds_client::{Report, ReportedError};

use super::probe::{self, Unready};
use crate::time::{self, within};

/// What the control plane is told with.
const HEALTH_TYPE: &str = "type.googleapis.com/istio.v1.HealthInformation";
/// The agent's code of everything that is not ready.
const NOT_READY: i32 = 500;

/// Asks for ever. `is_proxy_ready`: without the proxy the application cannot be reached, and is not asked. `tell` gets each change.
pub(crate) async fn watch(
    probe: ReadinessProbe,
    is_proxy_ready: impl Fn() -> bool,
    mut tell: impl FnMut(Report),
) {
    let mut state = State::new(&probe);
    time::sleep(probe.initial_delay).await;
    loop {
        let next = time::Instant::now() + probe.period;
        let answer = if is_proxy_ready() {
            let asked = within(Some(probe.answer_timeout), probe::ask(&probe.method)).await;
            asked.unwrap_or(Err(Unready::Late(probe.answer_timeout)))
        } else {
            Err(Unready::Proxy)
        };
        if let Some(health) = state.take(answer) {
            match &health {
                Ok(()) => tracing::info!("the application is ready"),
                Err(error) => tracing::warn!(%error, "the application is not ready"),
            }
            tell(report(health));
        }
        time::sleep_until(next).await;
    }
}

fn report(health: Result<(), Unready>) -> Report {
    Report {
        type_url: HEALTH_TYPE.to_owned(),
        after: LISTENER_TYPE.to_owned(),
        error: health.err().map(|error| ReportedError {
            code: NOT_READY,
            message: error.to_string(),
        }),
    }
}

/// What was told last, and how many answers in a row say otherwise.
struct State {
    success_threshold: u32,
    failure_threshold: u32,
    told: Option<bool>,
    good: u32,
    bad: u32,
}

impl State {
    fn new(probe: &ReadinessProbe) -> Self {
        Self {
            success_threshold: probe.success_threshold,
            failure_threshold: probe.failure_threshold,
            told: None,
            good: 0,
            bad: 0,
        }
    }

    /// What is to be told now.
    fn take(&mut self, answer: Result<(), Unready>) -> Option<Result<(), Unready>> {
        let is_good = answer.is_ok();
        let (row, other, threshold) = if is_good {
            (&mut self.good, &mut self.bad, self.success_threshold)
        } else {
            (&mut self.bad, &mut self.good, self.failure_threshold)
        };
        *other = 0;
        *row = row.saturating_add(1);
        if *row < threshold || self.told == Some(is_good) {
            return None;
        }
        self.told = Some(is_good);
        Some(answer)
    }
}

#[cfg(test)]
mod tests;
