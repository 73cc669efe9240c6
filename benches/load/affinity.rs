//! Which core runs what. Threads and processes inherit the core of the thread that starts them, so pinning is done by
//! moving the calling thread for a moment.

use anyhow::{Context as _, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The core of the proxies, and the core of load and backends.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// Of the proxy under test.
    pub proxy: usize,
    /// Of everything else.
    pub load: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    ///
    /// # Errors
    /// When there are fewer than two: then proxy and load would take time from each other.
    pub fn choose() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(this_thread()).context("ask for the cores of this process")?;
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
        match (cores.next(), cores.next()) {
            (Some(proxy), Some(load)) => Ok(Self { proxy, load }),
            _ => bail!(
                "this process may use one core only; the bench needs one for the proxy and one for the load"
            ),
        }
    }

    /// Runs `work` on the core of the proxies, and moves the thread to the core of the load afterwards.
    ///
    /// # Errors
    /// As `work`, or when the system refuses to move the thread.
    pub fn on_proxy_core<T>(self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        pin(self.proxy)?;
        let done = work();
        pin(self.load)?;
        done
    }
}

/// Moves the calling thread, and all that it starts from now on, to one core.
///
/// # Errors
/// When the system refuses.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core).with_context(|| format!("core {core}"))?;
    sched_setaffinity(this_thread(), &set).with_context(|| format!("move to core {core}"))
}

fn this_thread() -> Pid {
    Pid::from_raw(0)
}
