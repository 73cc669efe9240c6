//! Deadlines. The data path takes its clock from here, so that tests can pause it (tokio's test clock).
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use outrigger_model::cluster::Jittered;
use pin_project_lite::pin_project;
use tokio::time::Timeout;

pub(crate) use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Time on the clock that Envoy takes for the expiry of sessions: since the machine began. Zero where the system does not say.
pub(crate) fn since_boot() -> Duration {
    static START: OnceLock<(Instant, Duration)> = OnceLock::new();
    let (at, uptime) = START.get_or_init(|| (Instant::now(), uptime().unwrap_or_default()));
    *uptime + at.elapsed()
}

fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split(' ').next()?.parse().ok()?).ok()
}

/// A duration of its range.
pub(crate) fn drawn(range: Jittered) -> Duration {
    let share = f64::from(range.added_at_most.0) / 10_000.0;
    match share > 0.0 {
        true => range.shortest.mul_f64(1.0 + share * fastrand::f64()),
        false => range.shortest,
    }
}

/// A limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("time limit reached")]
pub(crate) struct Elapsed;

pin_project! {
    /// A future with a limit, or none. Not an `async fn`: that would have room for the future twice, as its argument and in its state.
    #[project = LimitedProjection]
    pub(crate) enum Limited<F> {
        /// Arms no timer.
        Unlimited { #[pin] future: F },
        /// Ends at its limit.
        Timed { #[pin] future: Timeout<F> },
    }
}

impl<F: Future> Future for Limited<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            LimitedProjection::Unlimited { future } => future.poll(cx).map(Ok),
            LimitedProjection::Timed { future } => future.poll(cx).map_err(|_| Elapsed),
        }
    }
}

/// Runs `future`, for at most `limit` from now on if there is one.
pub(crate) fn within<F: Future>(limit: Option<Duration>, future: F) -> Limited<F> {
    match limit {
        None => Limited::Unlimited { future },
        Some(limit) => Limited::Timed {
            future: tokio::time::timeout(limit, future),
        },
    }
}

/// Runs `future` until `deadline` if there is one.
pub(crate) fn until<F: Future>(deadline: Option<Instant>, future: F) -> Limited<F> {
    match deadline {
        None => Limited::Unlimited { future },
        Some(deadline) => Limited::Timed {
            future: tokio::time::timeout_at(deadline, future),
        },
    }
}

/// Returns at `deadline`; never without one.
pub(crate) async fn reach(deadline: Option<Instant>) {
    // Nothing can come before the deadline, so the only end is its passing.
    let _ = until(deadline, std::future::pending::<()>()).await;
}
