//! The workloads.

pub mod counters;
pub mod counts;
pub mod memory;
pub mod mesh;
pub mod scale;
pub mod startup;
mod static_chain;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::affinity::Cores;
use crate::interleave::{Subject, Timing, measure};
use crate::peer::{Credentials, Kind, Place, Programs, Proxy, Table, Tls};
use crate::samples::{Cell, Sample};
use static_chain::{Chain, Speaks};

/// Connections of the HTTP/1.1 and TCP load.
pub const CONNECTIONS: usize = 16;
/// Connections of the HTTP/2 load, and streams on each.
pub const H2_SHAPE: (usize, usize) = (4, 25);
/// Name of the second instance of a program, which must cost what the first one does.
pub const AGAIN: &str = "envoy-again";

/// What all cells share.
#[derive(Debug)]
pub struct Setup {
    /// Where and with what.
    pub place: Place,
    /// How long.
    pub timing: Timing,
    /// Removed at the end.
    _folder: TempDir,
}

impl Setup {
    /// Looks for what is needed, and makes certificates.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn new(wanted: &[Proxy], timing: Timing) -> anyhow::Result<Self> {
        let programs = Programs::find(wanted)?;
        let cores = Cores::choose()?;
        crate::affinity::pin(cores.load)?;
        let logs = log_folder();
        sweep(&logs);
        let prefix = format!("{FOLDER}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(logs);
        let folder = folder.context("a folder for configurations and logs")?;
        let credentials = Credentials::new(folder.path())?;
        let place = Place {
            programs,
            cores,
            folder: folder.path().to_owned(),
            credentials,
        };
        Ok(Self {
            place,
            timing,
            _folder: folder,
        })
    }
}

/// First part of the name of a run's folder; its process id follows.
const FOLDER: &str = "outrigger-bench-";

/// Removes what runs left behind that were killed: their logs take memory.
fn sweep(logs: &Path) {
    let entries = std::fs::read_dir(logs).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(FOLDER)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let is_left = owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists());
        if is_left && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            eprintln!("{} stays: {error}", entry.path().display());
        }
    }
}

/// In memory where the machine has that: hundreds of megabytes of access log are written, and what the disk does with
/// them later would disturb whoever is measured then.
fn log_folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// One workload, by the name that the command line knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// HTTP/1.1 in the clear.
    Hop,
    /// Client sidecar and server sidecar, mutual TLS between them.
    Pair,
    /// TCP round trips.
    Tcp,
    /// HTTP/2 in the clear.
    H2,
    /// istiod's configuration of the bill mesh.
    Mesh,
    /// HTTP/1.1 past ten thousand virtual hosts.
    Hosts,
    /// HTTP/1.1 past ten thousand prefixes.
    Prefixes,
}

impl Workload {
    /// All, in the order of the report.
    pub const ALL: [Self; 7] = [
        Self::Hop,
        Self::Pair,
        Self::Tcp,
        Self::H2,
        Self::Mesh,
        Self::Hosts,
        Self::Prefixes,
    ];

    /// Of the command line and the file of samples.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hop => "hop",
            Self::Pair => "pair",
            Self::Tcp => "tcp",
            Self::H2 => "h2",
            Self::Mesh => "mesh",
            Self::Hosts => "hosts",
            Self::Prefixes => "prefixes",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Hop => "HTTP/1.1 hop",
            Self::Pair => "mTLS pair",
            Self::Tcp => "TCP round trip",
            Self::H2 => "HTTP/2 hop",
            Self::Mesh => "bill mesh",
            Self::Hosts => "10,000 virtual hosts",
            Self::Prefixes => "10,000 prefixes",
        }
    }

    fn setting(self) -> Vec<String> {
        let log = "access log on for all, written to a file in memory: Istio's default format (outrigger, Envoy), the like of it \
                   (nginx), its own (HAProxy, which cannot buffer it)";
        let filters = "outrigger with Istio's filters (peer metadata, ALPN, istio.stats), Envoy without, because stock Envoy \
                       does not have them; both with grpc_stats, fault and cors";
        let http = format!(
            "{CONNECTIONS} kept connections, closed loop, GET answered with 1 KB; every body compared"
        );
        let (connections, streams) = H2_SHAPE;
        let lines: Vec<String> = match self {
            Self::Hop => vec![http, filters.into(), log.into()],
            Self::Pair => vec![
                http,
                "both sides on the one core; CPU counted a side; TLS 1.3, P-256 certificates, resumption as each program has it".into(),
                "each program chooses its cipher: outrigger AES-256-GCM, Envoy AES-128-GCM by default; nginx does not verify the \
                 server's SPIFFE name, it cannot"
                    .into(),
                filters.into(),
                log.into(),
            ],
            Self::Tcp => vec![format!("{CONNECTIONS} connections, 1 KB there and back, one at a time on each"), log.into()],
            Self::H2 => vec![
                format!("{connections} connections with {streams} streams each, closed loop, GET answered with 1 KB; h2c in and out"),
                "nginx left out: it speaks HTTP/2 to its clients only".into(),
                filters.into(),
                log.into(),
            ],
            Self::Hosts => vec![
                http,
                "10,000 virtual hosts with one route each; requests are for the last one. Compare with the HTTP/1.1 hop, which has one".into(),
                filters.into(),
                log.into(),
            ],
            Self::Prefixes => vec![
                http,
                "one virtual host with 10,000 prefixes; requests are for the last one. Compare with the HTTP/1.1 hop, which has one".into(),
                filters.into(),
                log.into(),
            ],
            Self::Mesh => vec![
                format!("{CONNECTIONS} kept connections from front to bill-service, GET answered with 1 KB; every body compared"),
                "istiod's resources over ADS, network namespaces, traffic redirected by iptables-init, mTLS with SDS certificates; \
                 `bill` is v1 and v2 together"
                    .into(),
                "outrigger on the resources as istiod wrote them, Envoy on the same without Istio's own filters; Istio's access \
                 log on for both"
                    .into(),
            ],
        };
        lines
    }
}

/// Measures one workload. What went wrong stands in the cell; the run goes on with the next.
pub fn run(setup: &Setup, workload: Workload) -> (Cell, Vec<Sample>) {
    let mut cell = Cell {
        name: workload.name().to_owned(),
        title: workload.title().to_owned(),
        setting: workload.setting(),
        ..Cell::default()
    };
    let measured = caught(|| match workload {
        Workload::Mesh => mesh::run(setup, &mut cell),
        _ => run_static(setup, workload, &mut cell),
    });
    let samples = measured.unwrap_or_else(|error| {
        cell.faults.push(format!("not measured: {error:#}"));
        Vec::new()
    });
    (cell, samples)
}

/// The harness of the end-to-end tests panics where a test would fail; here that is one workload's fault.
///
/// # Errors
/// As `work`, or with the message of its panic.
pub fn caught<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        bail!("{}", text.unwrap_or("a panic without words"))
    })
}

fn run_static(setup: &Setup, workload: Workload, cell: &mut Cell) -> anyhow::Result<Vec<Sample>> {
    let (kind, speaks) = match workload {
        Workload::Hop | Workload::Pair | Workload::Hosts | Workload::Prefixes => (Kind::Http1, Speaks::Http1),
        Workload::Tcp => (Kind::Tcp, Speaks::Echo),
        Workload::H2 => (Kind::Http2, Speaks::Http2),
        Workload::Mesh => bail!("the mesh is not static"),
    };
    let table = match workload {
        Workload::Hosts => Table::Hosts,
        Workload::Prefixes => Table::Prefixes,
        _ => Table::One,
    };
    let backend = speaks.backend(setup.place.cores.load)?;
    let sides: &[Tls] = if workload == Workload::Pair {
        &[Tls::Downstream, Tls::Upstream]
    } else {
        &[Tls::None]
    };
    let has_tables = |proxy: &Proxy| matches!(proxy, Proxy::Outrigger | Proxy::Envoy);
    let able = setup.place.programs.all().filter(|proxy| proxy.can(kind));
    let able = able.filter(|proxy| table == Table::One || has_tables(proxy));
    let mut named: Vec<(Proxy, &str)> = able.map(|proxy| (proxy, proxy.name())).collect();
    if workload == Workload::Hop && named.iter().any(|(proxy, _)| *proxy == Proxy::Envoy) {
        named.push((Proxy::Envoy, AGAIN));
    }
    let mut chains = Vec::new();
    for (proxy, name) in named {
        let speaks = (speaks, table);
        let chain = Chain::start(&setup.place, proxy, name, kind, sides, backend.address(), speaks);
        chains.push(chain.with_context(|| name.to_owned())?);
    }
    cell.commands = chains.iter().flat_map(Chain::commands).collect();
    let mut subjects: Vec<Box<dyn Subject + '_>> = chains
        .iter_mut()
        .map(|chain| Box::new(chain) as Box<dyn Subject + '_>)
        .collect();
    let samples = measure(&mut subjects, setup.timing, setup.place.cores)?;
    drop(subjects);
    for chain in &chains {
        cell.faults.extend(chain.faults());
    }
    if workload == Workload::Hop {
        latency(&chains, &samples, cell)?;
    }
    Ok(samples)
}

/// Share of the slowest proxy's rate that is offered to all when response times are taken.
const OFFERED: f64 = 0.5;

/// Response times, all proxies at the same rate, which the slowest of them carries easily.
fn latency(chains: &[Chain], samples: &[Sample], cell: &mut Cell) -> anyhow::Result<()> {
    let slowest = samples.iter().map(Sample::rate).fold(f64::INFINITY, f64::min);
    let rate = (slowest * OFFERED / 100.0).floor() * 100.0;
    if rate <= 0.0 {
        return Ok(());
    }
    for chain in chains {
        cell.latency.push(chain.latency(rate, Duration::from_secs(3))?);
    }
    Ok(())
}
