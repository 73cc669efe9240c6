//! Resident memory: after the start, under load, and 10 s after a `/config_dump`.

use std::net::SocketAddr;
use std::time::Duration;

use super::{CONNECTIONS, Setup, counters};
use crate::backend::{Backend, Manner, body};
use crate::client::{Client, Speech, connect};
use crate::peer::{self, Job, Kind, Proxy};
use crate::samples::MemoryRow;
use crate::system;

const AFTER_START: Duration = Duration::from_secs(1);
const LOAD: Duration = Duration::from_secs(3);
/// The words: "again 10 s after a `/config_dump`".
pub(super) const AFTER_DUMP: Duration = Duration::from_secs(10);
/// Megabytes are 10^6 bytes.
const KB_PER_MB: f64 = 1e6 / 1024.0;

/// Every program with one worker on the configuration of the hop, without Istio's filters, which no bootstrap has.
///
/// # Errors
/// When one does not start, or fails under load.
pub fn run(setup: &Setup) -> anyhow::Result<Vec<MemoryRow>> {
    let backend = Backend::local(Manner::Http1, setup.place.cores.load)?;
    let job = Job {
        with_istio_filters: false,
        ..Job::plain(Kind::Http1, backend.address)
    };
    let mut watched = Vec::new();
    for proxy in setup.place.programs.all() {
        let running = peer::start(&setup.place, proxy, proxy.name(), &job)?;
        std::thread::sleep(AFTER_START);
        let mut watch = Watch::begin(proxy.name(), running.id(), "static HTTP/1.1 hop")?;
        load(running.invocation.listens)?;
        watch.loaded()?;
        watched.push((running, watch));
    }
    for (running, _) in &watched {
        if let Some(admin) = running.invocation.admin {
            counters::get(admin, "/config_dump")?;
        }
    }
    std::thread::sleep(AFTER_DUMP);
    let ended = watched
        .into_iter()
        .map(|(running, watch)| watch.end(running.invocation.admin.is_some()));
    ended.collect()
}

fn load(address: SocketAddr) -> anyhow::Result<()> {
    let speech = Speech::get("backend.default.svc.cluster.local", "/", body());
    Client::new(connect(address, CONNECTIONS)?, speech)?
        .run(LOAD)
        .map(drop)
}

/// The memory of one process over time.
pub(super) struct Watch {
    process: u32,
    row: MemoryRow,
}

impl Watch {
    /// Takes the first figure.
    pub(super) fn begin(proxy: &str, process: u32, setting: &str) -> anyhow::Result<Self> {
        let start = megabytes(system::memory(process)?.resident);
        let row = MemoryRow {
            proxy: proxy.to_owned(),
            setting: setting.to_owned(),
            start,
            load: f64::NAN,
            after_dump: None,
            peak: f64::NAN,
        };
        Ok(Self { process, row })
    }

    /// Takes the figure after load.
    pub(super) fn loaded(&mut self) -> anyhow::Result<()> {
        self.row.load = megabytes(system::memory(self.process)?.resident);
        Ok(())
    }

    /// Takes the last figures; `dumped`: it was asked for a dump a while ago.
    pub(super) fn end(mut self, dumped: bool) -> anyhow::Result<MemoryRow> {
        let memory = system::memory(self.process)?;
        self.row.after_dump = dumped.then(|| megabytes(memory.resident));
        self.row.peak = megabytes(memory.peak);
        Ok(self.row)
    }
}

pub(super) fn megabytes(kilobytes: u64) -> f64 {
    kilobytes as f64 / KB_PER_MB
}

/// Whether a program has a target here.
pub fn is_ours(name: &str) -> bool {
    name == Proxy::Outrigger.name()
}
