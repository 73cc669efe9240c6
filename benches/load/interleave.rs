//! Slices in turn: A B C D D C B A …, so that whatever the machine does meanwhile happens to all of them.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::affinity::Cores;
use crate::samples::Sample;
use crate::system::{self, TICK_MS};

/// Load on one proxy.
pub trait Load {
    /// Goes on for so long; returns the number of requests that were answered, all of them rightly.
    ///
    /// # Errors
    /// When one was not: then the slice is void.
    fn run(&mut self, duration: Duration) -> anyhow::Result<u64>;
}

/// A proxy, or a chain of them, under measurement.
pub trait Subject {
    /// Its name.
    fn name(&self) -> &str;
    /// Its parts with their CPU time so far, ns.
    ///
    /// # Errors
    /// When one is gone.
    fn cpu_ns(&self) -> anyhow::Result<Vec<(&'static str, u64)>>;
    /// Fresh connections to it.
    ///
    /// # Errors
    /// When it refuses them.
    fn load(&self) -> anyhow::Result<Box<dyn Load>>;
    /// After each slice: access logs are emptied here.
    ///
    /// # Errors
    /// When something that should have been done was not, such as a log without lines.
    fn after_slice(&mut self, requests: u64) -> anyhow::Result<()>;
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Slices of each proxy.
    pub passes: u32,
    /// Length of a slice.
    pub slice: Duration,
    /// Before a slice, with its connections, not counted.
    pub lead: Duration,
    /// Once for each proxy, before all slices.
    pub warm_up: Duration,
}

/// Measures all subjects in turn.
///
/// # Errors
/// With the name of the subject that failed.
pub fn measure(
    subjects: &mut [Box<dyn Subject + '_>],
    timing: Timing,
    cores: Cores,
) -> anyhow::Result<Vec<Sample>> {
    for subject in subjects.iter_mut() {
        let name = subject.name().to_owned();
        let warmed = subject.load().and_then(|mut load| load.run(timing.warm_up));
        let requests = warmed.with_context(|| format!("{name}, warming up"))?;
        subject.after_slice(requests).with_context(|| name.clone())?;
    }
    let mut samples = Vec::new();
    for pass in 0..timing.passes {
        for place in order(subjects.len(), pass) {
            let subject = &mut subjects[place];
            let name = subject.name().to_owned();
            let slice = slice(subject.as_mut(), pass, timing, cores);
            samples.extend(slice.with_context(|| format!("{name}, pass {pass}"))?);
        }
    }
    Ok(samples)
}

/// Every second pass goes backwards.
fn order(subjects: usize, pass: u32) -> Vec<usize> {
    let forward = 0..subjects;
    if pass.is_multiple_of(2) {
        forward.collect()
    } else {
        forward.rev().collect()
    }
}

fn slice(subject: &mut dyn Subject, pass: u32, timing: Timing, cores: Cores) -> anyhow::Result<Vec<Sample>> {
    let mut load = subject.load()?;
    let lead = load.run(timing.lead)?;
    let (core_before, before, start) = (system::core_time(cores.proxy)?, subject.cpu_ns()?, Instant::now());
    let requests = load.run(timing.slice)?;
    let (after, seconds) = (subject.cpu_ns()?, start.elapsed().as_secs_f64());
    let core_after = system::core_time(cores.proxy)?;
    drop(load);
    subject.after_slice(lead + requests)?;
    let core_ms = (core_after.busy + core_after.stolen - core_before.busy - core_before.stolen) * TICK_MS;
    let used: Vec<_> = before
        .iter()
        .zip(&after)
        .map(|((side, before), (_, after))| (*side, after - before))
        .collect();
    let own_ms = used.iter().map(|(_, ns)| *ns as f64 / 1e6).sum::<f64>();
    let strangers_percent = ((core_ms as f64 - own_ms) / (seconds * 10.0)).max(0.0);
    Ok(used
        .into_iter()
        .map(|(side, cpu_ns)| Sample {
            pass,
            proxy: subject.name().to_owned(),
            side: side.to_owned(),
            requests,
            seconds,
            cpu_ns,
            strangers_percent,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_pass_goes_backwards() {
        assert_eq!(order(3, 0), [0, 1, 2]);
        assert_eq!(order(3, 1), [2, 1, 0]);
        assert_eq!(order(3, 2), [0, 1, 2]);
    }
}
