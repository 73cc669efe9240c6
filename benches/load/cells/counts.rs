//! Counted instead of timed: instructions by callgrind and system calls by strace, of the HTTP/1.1 hop.
//!
//! Each program runs twice under the tool, for N requests and for 2N; what both runs do alike, such as starting, is
//! gone from the difference.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::Setup;
use crate::backend::{Backend, Manner, body};
use crate::client::{Client, Speech, connect};
use crate::peer::{self, Job, Kind, Proxy};
use crate::process::Invocation;
use crate::samples::CountRow;

/// A start under valgrind takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
enum Tool {
    Callgrind,
    Strace,
}

/// Counts outrigger and Envoy, `requests` and twice as many.
///
/// # Errors
/// When a tool is missing, or a program does not run under it.
pub fn run(setup: &Setup, requests: u64) -> anyhow::Result<Vec<CountRow>> {
    let backend = Backend::local(Manner::Http1, setup.place.cores.load)?;
    let job = Job::plain(Kind::Http1, backend.address);
    let comparable = setup
        .place
        .programs
        .all()
        .filter(|proxy| matches!(proxy, Proxy::Outrigger | Proxy::Envoy));
    let mut rows = Vec::new();
    for proxy in comparable {
        let difference = |tool: Tool| -> anyhow::Result<f64> {
            let once = count(setup, proxy, &job, tool, requests)?;
            let twice = count(setup, proxy, &job, tool, requests * 2)?;
            Ok((twice as f64 - once as f64) / requests as f64)
        };
        rows.push(CountRow {
            proxy: proxy.name().to_owned(),
            requests,
            instructions: difference(Tool::Callgrind).with_context(|| proxy.name())?,
            syscalls: difference(Tool::Strace).with_context(|| proxy.name())?,
        });
    }
    Ok(rows)
}

fn count(setup: &Setup, proxy: Proxy, job: &Job, tool: Tool, requests: u64) -> anyhow::Result<u64> {
    let invocation = peer::prepare(&setup.place, proxy, proxy.name(), job)?;
    let out = setup.place.folder.join("counted");
    let _ = std::fs::remove_file(&out);
    let mut command = tool.command(&out);
    let log = std::fs::File::create(&invocation.log)?;
    command.arg(&invocation.program).args(&invocation.arguments);
    command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    let child = command
        .spawn()
        .with_context(|| format!("start {}", tool.name()))?;
    let mut child = Guard(child);
    drive(&invocation, &mut child, requests)?;
    // The tool writes its sum when the program has ended; the program ends in order at SIGTERM.
    let target = tool.program_of(child.0.id())?;
    let status = Command::new("kill")
        .args(["-TERM", &target.to_string()])
        .status()?;
    ensure!(status.success(), "kill -TERM {target}");
    let start = Instant::now();
    while child.0.try_wait()?.is_none() {
        ensure!(start.elapsed() < PATIENCE, "{} does not end", tool.name());
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = std::fs::read_to_string(&out).with_context(|| tool.name())?;
    tool.total(&text)
        .with_context(|| format!("no sum in what {} wrote", tool.name()))
}

fn drive(invocation: &Invocation, child: &mut Guard, requests: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    let streams = loop {
        match connect(invocation.listens, 1) {
            Ok(streams) => break streams,
            Err(error) => {
                if let Some(status) = child.0.try_wait()? {
                    bail!("it ended: {status}");
                }
                ensure!(start.elapsed() < PATIENCE, "it does not listen: {error}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    };
    let mut client = Client::new(
        streams,
        Speech::get("backend.default.svc.cluster.local", "/", body()),
    )?;
    client.run_count(requests)
}

struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It has ended, unless something went wrong.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Callgrind => "valgrind (Debian package valgrind)",
            Self::Strace => "strace (Debian package strace)",
        }
    }

    fn command(self, out: &Path) -> Command {
        match self {
            Self::Callgrind => {
                let mut command = Command::new("valgrind");
                command
                    .args(["--tool=callgrind", "-q"])
                    .arg(format!("--callgrind-out-file={}", out.display()));
                command
            }
            Self::Strace => {
                let mut command = Command::new("strace");
                command.args(["-f", "-c", "-U", "calls,name", "-o"]).arg(out);
                command
            }
        }
    }

    /// The process to end: valgrind is the program, strace has it as its child.
    fn program_of(self, tool: u32) -> anyhow::Result<u32> {
        match self {
            Self::Callgrind => Ok(tool),
            Self::Strace => {
                let path = format!("/proc/{tool}/task/{tool}/children");
                let children = std::fs::read_to_string(&path).context(path)?;
                let first = children
                    .split_ascii_whitespace()
                    .next()
                    .context("strace has no child")?;
                Ok(first.parse()?)
            }
        }
    }

    fn total(self, text: &str) -> Option<u64> {
        match self {
            Self::Callgrind => {
                let line = text
                    .lines()
                    .find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")))?;
                line.trim().parse().ok()
            }
            Self::Strace => {
                let line = text.lines().find(|line| line.trim_end().ends_with(" total"))?;
                line.split_ascii_whitespace().next()?.parse().ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_found_in_what_the_tools_write() {
        let callgrind = "version: 1\nevents: Ir\nfn=(1) x\n1 5\ntotals: 123456\n";
        assert_eq!(Tool::Callgrind.total(callgrind), Some(123_456));
        let strace = "    calls syscall\n--------- ----------------\n      120 read\n        7 write\n--------- ----------------\n      127 total\n";
        assert_eq!(Tool::Strace.total(strace), Some(127));
        assert_eq!(Tool::Strace.total(""), None);
    }
}
