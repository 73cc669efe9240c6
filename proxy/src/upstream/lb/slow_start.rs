//! Weights of hosts that are new: `weight × max(min_weight, (age / window) ^ (1 / aggression))`.
//!
//! Pure. Source: Envoy docs, slow start mode; round robin and least request only. There are no timers here: whoever owns the hosts
//! shares them out anew from time to time while [`ends_in`] says so.
use std::sync::Arc;
use std::time::Duration;

use outrigger_model::cluster::SlowStart;

use crate::pace::paced;
use crate::time::Instant;
use crate::upstream::endpoint::{Availability, Host};

/// Steps of a weight of 1, so that a tenth of it is a whole number.
const UNIT: f64 = 1000.0;
/// An age below counts as this. Source: Envoy docs, slow start mode.
const YOUNGEST: Duration = Duration::from_secs(1);

/// Weights of `hosts` at `now`; scaled alike if one of them is new.
pub(super) fn weights(hosts: &[Arc<Host>], slow_start: Option<SlowStart>, now: Instant) -> Vec<u32> {
    let Some(slow_start) = slow_start.filter(|slow_start| ends_in(hosts, *slow_start, now).is_some()) else {
        return paced(hosts).map(|host| host.weight).collect();
    };
    let weight = |host: &Arc<Host>| {
        let factor = left(host, slow_start, now).map_or(1.0, |_| factor(host.state.age(now), slow_start));
        // Saturates for weights above four million.
        (f64::from(host.weight) * factor * UNIT).round().max(1.0) as u32
    };
    paced(hosts).map(weight).collect()
}

/// How long until the last of `hosts` has its whole weight; `None`: all have.
pub(super) fn ends_in(hosts: &[Arc<Host>], slow_start: SlowStart, now: Instant) -> Option<Duration> {
    hosts.iter().filter_map(|host| left(host, slow_start, now)).max()
}

fn left(host: &Host, slow_start: SlowStart, now: Instant) -> Option<Duration> {
    let age = host.state.age(now);
    (host.availability() == Availability::Healthy && age < slow_start.window).then(|| slow_start.window - age)
}

fn factor(age: Duration, slow_start: SlowStart) -> f64 {
    let part = (age.max(YOUNGEST).as_secs_f64() / slow_start.window.as_secs_f64()).min(1.0);
    let least = f64::from(slow_start.min_weight.0) / 10_000.0;
    part.powf(1.0 / slow_start.aggression.0).max(least)
}

#[cfg(test)]
mod tests {
    use outrigger_model::cluster::Percent;
    use outrigger_model::fraction::Decimal;

    use super::*;

    /// A window of 60 s; source of the formula: Envoy docs, slow start mode.
    #[test]
    fn the_factor_follows_envoys_formula() {
        let check = |aggression: f64, age: f64, expected: f64| {
            let slow_start = SlowStart {
                window: Duration::from_secs(60),
                aggression: Decimal(aggression),
                min_weight: Percent(1_000),
            };
            let factor = factor(Duration::from_secs_f64(age), slow_start);
            assert!((factor - expected).abs() < 1e-9, "{aggression} {age}: {factor}");
        };
        check(1.0, 0.0, 0.1);
        check(1.0, 5.9, 0.1);
        check(1.0, 30.0, 0.5);
        check(1.0, 60.0, 1.0);
        check(2.0, 15.0, 0.5);
        check(2.0, 0.6, 0.129_099_444_873_580_57);
        check(0.5, 30.0, 0.25);
        check(0.5, 3.0, 0.1);
    }
}
