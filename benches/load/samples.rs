//! What was measured, as it is written to disk: one line a slice and side, and what belongs to the run.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// One side of one proxy in one slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Slices of the same pass lie beside each other in time, and are compared with each other.
    pub pass: u32,
    /// Name of the proxy.
    pub proxy: String,
    /// Part that it played.
    pub side: String,
    /// Requests that it carried.
    pub requests: u64,
    /// Length of the slice.
    pub seconds: f64,
    /// CPU time of its process.
    pub cpu_ns: u64,
    /// Share of the proxies' core that others than the cell's own processes took, or that was stolen.
    pub strangers_percent: f64,
}

impl Sample {
    /// CPU time a request, µs.
    pub fn micros(&self) -> f64 {
        self.cpu_ns as f64 / 1000.0 / self.requests as f64
    }

    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

const HEAD: &str = "pass,proxy,side,requests,seconds,cpu_ns,strangers_percent";

/// As comma-separated values.
pub fn to_csv(samples: &[Sample]) -> String {
    let mut text = format!("{HEAD}\n");
    for sample in samples {
        let Sample {
            pass,
            proxy,
            side,
            requests,
            seconds,
            cpu_ns,
            strangers_percent,
        } = sample;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{pass},{proxy},{side},{requests},{seconds:.6},{cpu_ns},{strangers_percent:.2}"
        );
    }
    text
}

/// From comma-separated values.
///
/// # Errors
/// With the line that is not as [`to_csv`] writes it.
pub fn from_csv(text: &str) -> anyhow::Result<Vec<Sample>> {
    let mut lines = text.lines();
    ensure!(lines.next() == Some(HEAD), "the first line is not {HEAD}");
    lines
        .map(|line| from_line(line).with_context(|| format!("line {line:?}")))
        .collect()
}

fn from_line(line: &str) -> anyhow::Result<Sample> {
    let fields: Vec<_> = line.split(',').collect();
    let [pass, proxy, side, requests, seconds, cpu_ns, strangers_percent] = fields.as_slice() else {
        anyhow::bail!("{} fields", fields.len());
    };
    Ok(Sample {
        pass: pass.parse()?,
        proxy: (*proxy).to_owned(),
        side: (*side).to_owned(),
        requests: requests.parse()?,
        seconds: seconds.parse()?,
        cpu_ns: cpu_ns.parse()?,
        strangers_percent: strangers_percent.parse()?,
    })
}

/// Everything but the samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What ran where: name and value.
    pub machine: Vec<(String, String)>,
    /// The command line.
    pub command: String,
    /// The workloads, in order.
    pub cells: Vec<Cell>,
    /// Memory, if it was measured.
    pub memory: Vec<MemoryRow>,
    /// Starts, if they were measured.
    pub startup: Vec<StartRow>,
    /// Instructions and system calls a request, if they were counted.
    pub counts: Vec<CountRow>,
    /// The mesh of a thousand services, if it was measured.
    #[serde(default)]
    pub scale: Vec<ScaleRow>,
    /// Why it was not, if it should have been.
    #[serde(default)]
    pub scale_fault: Option<String>,
    /// What was measured again after the rest: the command line, commit and load of the machine.
    #[serde(default)]
    pub again: Vec<String>,
}

impl Run {
    /// Takes what `later` measured in the place of what was measured before.
    pub fn replace(&mut self, later: Self) {
        let of = |name: &str| {
            let row = later.machine.iter().find(|(known, _)| known == name);
            row.map_or("unknown", |(_, value)| value)
        };
        let command = format!("`{}`", later.command);
        self.again.retain(|line| !line.starts_with(&command));
        self.again.push(format!(
            "{command} at {}, load average before {}",
            of("commit"),
            of("load average before")
        ));
        for cell in later.cells {
            match self.cells.iter_mut().find(|known| known.name == cell.name) {
                Some(known) => *known = cell,
                None => self.cells.push(cell),
            }
        }
        if !later.memory.is_empty() {
            self.memory = later.memory;
        }
        if !later.startup.is_empty() {
            self.startup = later.startup;
        }
        if !later.counts.is_empty() {
            self.counts = later.counts;
        }
        if !later.scale.is_empty() || later.scale_fault.is_some() {
            self.scale = later.scale;
            self.scale_fault = later.scale_fault;
        }
    }
}

/// A workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// As the command line knows it, and the name of its file of samples.
    pub name: String,
    /// For people.
    pub title: String,
    /// What ran: connections, bodies, filters.
    pub setting: Vec<String>,
    /// What voids it, or must be known to read it.
    pub faults: Vec<String>,
    /// How each proxy was started.
    pub commands: Vec<String>,
    /// Response times at a fixed rate.
    pub latency: Vec<Latency>,
}

/// Response times of one proxy at a fixed rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Name of the proxy.
    pub proxy: String,
    /// Requests a second that were offered.
    pub rate: f64,
    /// From the intended moment, µs.
    pub p50_us: f64,
    /// The same.
    pub p99_us: f64,
}

/// Memory of one proxy, MB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryRow {
    /// Name of the proxy.
    pub proxy: String,
    /// What it had loaded.
    pub setting: String,
    /// Resident a second after it was ready.
    pub start: f64,
    /// Resident at the end of the load.
    pub load: f64,
    /// Resident 10 s after a `/config_dump`, if it has that.
    pub after_dump: Option<f64>,
    /// The most that was ever resident.
    pub peak: f64,
}

/// Starts of one proxy, ms from `exec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartRow {
    /// Name of the proxy.
    pub proxy: String,
    /// Until a connection is accepted, each start.
    pub accept_ms: Vec<f64>,
    /// Until a request was answered, each start.
    pub answer_ms: Vec<f64>,
}

/// Counted, not timed: the difference between a run of `2 * requests` and one of `requests`, divided by `requests`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountRow {
    /// Name of the proxy.
    pub proxy: String,
    /// Requests of the shorter run.
    pub requests: u64,
    /// Instructions in user space a request, by callgrind.
    pub instructions: f64,
    /// System calls a request, by strace.
    pub syscalls: f64,
}

/// The mesh of a thousand services in one proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScaleRow {
    /// Name of the proxy.
    pub proxy: String,
    /// CPU seconds from `exec` until `/ready` says so, each start.
    pub ready_cpu_s: Vec<f64>,
    /// The same by the clock.
    pub ready_s: Vec<f64>,
    /// Resident 2 s later, MB.
    pub resident_mb: f64,
    /// The most that was resident until then.
    pub peak_mb: f64,
    /// Resident after the pushes below.
    pub pushed_mb: f64,
    /// CPU seconds of a push of all load assignments as they were.
    pub same_endpoints_cpu_s: Vec<f64>,
    /// CPU seconds of a push of everything as it was.
    pub same_everything_cpu_s: Vec<f64>,
    /// With one broken cluster among four thousand, that one is refused by name and the others are in use.
    pub names_the_broken: bool,
    /// CPU time of one change of one endpoint of ten thousand, ms, each turn.
    pub change_cpu_ms: Vec<f64>,
    /// Of the response times of all turns without changes.
    pub quiet_p99_us: f64,
    /// Of the response times of all turns in which an endpoint changed every 100 ms.
    pub changing_p99_us: f64,
    /// How many changes there were, and requests beside them. One that failed would have ended the measurement.
    #[serde(default)]
    pub changes: u32,
    /// See there.
    #[serde(default)]
    pub changing_requests: usize,
    /// Failed requests and refused configuration.
    pub faults: Vec<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn samples_survive_the_disk() {
        let sample = Sample {
            pass: 3,
            proxy: "nginx".to_owned(),
            side: "proxy".to_owned(),
            requests: 1000,
            seconds: 2.5,
            cpu_ns: 9_500_000,
            strangers_percent: 0.25,
        };
        assert_eq!(
            from_csv(&to_csv(std::slice::from_ref(&sample))).unwrap(),
            *std::slice::from_ref(&sample)
        );
        assert!((sample.micros() - 9.5).abs() < 1e-9);
        assert!((sample.rate() - 400.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_measured_again_takes_the_place_of_what_was() {
        let cell = |name: &str, title: &str| Cell {
            name: name.to_owned(),
            title: title.to_owned(),
            ..Cell::default()
        };
        let mut run = Run {
            cells: vec![cell("hop", "old"), cell("tcp", "old")],
            ..Run::default()
        };
        let later = Run {
            machine: vec![("commit".to_owned(), "abc".to_owned())],
            command: "make bench ARGS='--again tcp'".to_owned(),
            cells: vec![cell("tcp", "new")],
            ..Run::default()
        };
        run.replace(later.clone());
        run.replace(later);
        let titles: Vec<_> = run.cells.iter().map(|cell| cell.title.as_str()).collect();
        assert_eq!(titles, ["old", "new"]);
        assert_eq!(
            run.again,
            ["`make bench ARGS='--again tcp'` at abc, load average before unknown"]
        );
    }

    #[test]
    fn a_damaged_line_is_named() {
        let check = |text: &str, expected: &str| {
            let error = format!("{:#}", from_csv(text).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check("", "first line");
        check(&format!("{HEAD}\n1,a,b,2\n"), "4 fields");
        check(&format!("{HEAD}\n1,a,b,x,1,2,3\n"), "1,a,b,x,1,2,3");
    }
}
