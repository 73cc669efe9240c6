//! What the kernel counts: CPU time of a process, memory of a process, time of a core.
//!
//! CPU time comes from `schedstat`, which the scheduler keeps to the nanosecond; the split into user and system time of
//! `/proc/PID/stat` is sampled at the tick and is not used.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// Nanoseconds a process has been on a core, all living threads together.
///
/// # Errors
/// When there is no such process.
pub fn cpu_ns(process: u32) -> anyhow::Result<u64> {
    let folder = format!("/proc/{process}/task");
    let mut total = 0;
    for task in fs::read_dir(&folder).with_context(|| folder.clone())? {
        // A thread may end between the listing and the reading; its time is gone then, for every proxy alike.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        total += parse_schedstat(&text).with_context(|| format!("{folder}: schedstat is {text:?}"))?;
    }
    Ok(total)
}

/// First field: nanoseconds on a core. The second would be the time spent waiting for one.
pub fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Memory of a process, kB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// Of that, not backed by a file.
    pub anonymous: u64,
    /// Most that was ever resident.
    pub peak: u64,
}

/// Memory of a process now.
///
/// # Errors
/// When there is no such process.
pub fn memory(process: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    parse_status(&text).with_context(|| format!("{path} has no memory figures"))
}

/// From the text of `/proc/PID/status`.
pub fn parse_status(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    };
    Some(Memory {
        resident: field("VmRSS")?,
        anonymous: field("RssAnon")?,
        peak: field("VmHWM")?,
    })
}

/// What a core did since boot, in ticks of 10 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreTime {
    /// Neither idle, nor waiting for a disk, nor stolen.
    pub busy: u64,
    /// Taken by the hypervisor.
    pub stolen: u64,
}

/// Milliseconds of one tick of [`CoreTime`] (`USER_HZ` is 100 on every Linux that this runs on).
pub const TICK_MS: u64 = 10;

/// What one core did so far.
///
/// # Errors
/// When the kernel does not say.
pub fn core_time(core: usize) -> anyhow::Result<CoreTime> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    parse_stat(&text, core).with_context(|| format!("/proc/stat has no line for core {core}"))
}

/// From the text of `/proc/stat`.
pub fn parse_stat(text: &str, core: usize) -> Option<CoreTime> {
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(name.as_str()))?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal
    let [user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = ticks.as_slice() else {
        return None;
    };
    Some(CoreTime {
        busy: user + nice + system + irq + softirq,
        stolen: *stolen,
    })
}

/// Lines in a file. Zero when there is none.
pub fn lines(path: &Path) -> u64 {
    let text = fs::read(path).unwrap_or_default();
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_core_time_is_the_first_field_of_schedstat() {
        assert_eq!(parse_schedstat("59371834 4511 127\n"), Some(59_371_834));
        assert_eq!(parse_schedstat(""), None);
        assert_eq!(parse_schedstat("- 1 2"), None);
    }

    #[test]
    fn memory_is_read_by_name_and_not_by_place() {
        let text = "Name:\tx\nVmHWM:\t   300 kB\nVmRSS:\t   200 kB\nRssAnon:\t   100 kB\nRssFile:\t 100 kB\n";
        let memory = Memory {
            resident: 200,
            anonymous: 100,
            peak: 300,
        };
        assert_eq!(parse_status(text), Some(memory));
        assert_eq!(parse_status("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn a_core_is_busy_when_it_is_neither_idle_nor_waiting_nor_stolen() {
        let text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 100 50 4 5 6 0 0\ncpu10 7 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(parse_stat(text, 0), Some(CoreTime { busy: 15, stolen: 6 }));
        assert_eq!(parse_stat(text, 10), Some(CoreTime { busy: 7, stolen: 0 }));
        assert_eq!(parse_stat(text, 1), None);
    }

    #[test]
    fn this_process_has_used_a_core() {
        let id = std::process::id();
        assert!(cpu_ns(id).is_ok_and(|time| time > 0));
        assert!(memory(id).is_ok_and(|memory| memory.resident >= memory.anonymous));
        assert!(cpu_ns(u32::MAX).is_err());
    }
}
