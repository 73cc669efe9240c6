//! A mesh of a thousand services: what it costs to take it in, to hold it, to be told it again, and to follow one service
//! that changes all the time.
//!
//! The mesh is what a real istiod sent to one sidecar: 4,003 clusters, 1,003 listeners, one route table of 1,001 virtual
//! hosts, 4,000 load assignments with 30,000 endpoints. Both proxies have the same control plane, in turn, one worker, and
//! the core of the proxies. All of it is in a network namespace of its own, because the listeners bind the ports of a sidecar.

mod churn;
mod plane;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::netns::Namespace;
use outrigger_demo::control_plane::{CLUSTER, ENDPOINTS, LISTENER, Named, ROUTES};

use super::{CONNECTIONS, Setup, counters, memory};
use crate::backend::{Backend, Manner, body};
use crate::client::{Client, Speech, connect};
use crate::figures::quantile;
use crate::peer::Proxy;
use crate::process::{Invocation, Running, free_address};
use crate::samples::ScaleRow;
use crate::system;
use plane::Plane;

/// Longest wait until a proxy says that it is ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a push is answered, the work that it left behind counts as well.
const AFTERMATH: Duration = Duration::from_millis(700);
/// Between two changes of the service.
const CHANGE_EVERY: Duration = Duration::from_millis(100);
/// Of the load while it changes.
const REQUEST_EVERY: Duration = Duration::from_millis(1);

/// How often, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Starts, each of a new process.
    pub starts: u32,
    /// Identical pushes of each kind.
    pub pushes: u32,
    /// Turns of a quiet and a changing time.
    pub turns: u32,
    /// Length of a changing time, and of a quiet one.
    pub changing: Duration,
}

impl Extent {
    /// As the report has it: a minute of changes.
    pub const FULL: Self = Self {
        starts: 5,
        pushes: 5,
        turns: 60,
        changing: Duration::from_secs(1),
    };
    /// For a look.
    pub const QUICK: Self = Self {
        starts: 2,
        pushes: 3,
        turns: 3,
        changing: Duration::from_secs(1),
    };
}

/// outrigger and Envoy, one after the other.
///
/// # Errors
/// When one does not become ready, refuses what it should take, or answers a request with anything but what the backend sends.
pub fn run(setup: &Setup, extent: Extent) -> anyhow::Result<Vec<ScaleRow>> {
    Namespace::alone().run(|| run_inside(setup, extent))
}

fn run_inside(setup: &Setup, extent: Extent) -> anyhow::Result<Vec<ScaleRow>> {
    let plane = Plane::start(&setup.place.folder)?;
    let comparable = setup.place.programs.all();
    let comparable = comparable.filter(|proxy| matches!(proxy, Proxy::Outrigger | Proxy::Envoy));
    let rows = comparable.map(|proxy| one(setup, &plane, proxy, extent).with_context(|| proxy.name()));
    rows.collect()
}

fn one(setup: &Setup, plane: &Plane, proxy: Proxy, extent: Extent) -> anyhow::Result<ScaleRow> {
    let mut row = ScaleRow {
        proxy: proxy.name().to_owned(),
        ..ScaleRow::default()
    };
    row.names_the_broken = names_the_broken(setup, plane, proxy)?;
    plane.serve(proxy, false)?;
    let mut running = None;
    for _ in 0..extent.starts.max(1) {
        drop(running.take());
        let started = Subject::start(setup, plane, proxy)?;
        row.ready_cpu_s.push(started.ready_cpu_s);
        row.ready_s.push(started.ready_s);
        running = Some(started);
    }
    let subject = running.context("no start was asked for")?;
    std::thread::sleep(Duration::from_secs(2));
    let held = system::memory(subject.running.id())?;
    row.resident_mb = memory::megabytes(held.resident);
    row.peak_mb = memory::megabytes(held.peak);
    for _ in 0..extent.pushes {
        let cost = subject.cost(|| plane.push_again(proxy, ENDPOINTS))?;
        row.same_endpoints_cpu_s.push(cost);
        let everything = || {
            [CLUSTER, ENDPOINTS, LISTENER, ROUTES]
                .into_iter()
                .try_for_each(|type_url| plane.push_again(proxy, type_url))
        };
        row.same_everything_cpu_s.push(subject.cost(everything)?);
    }
    row.pushed_mb = memory::megabytes(system::memory(subject.running.id())?.resident);
    changes(setup, plane, &subject, extent, &mut row)?;
    row.faults = counters::faults(proxy.name(), subject.admin);
    let refused = plane
        .refusals(proxy)
        .into_iter()
        .skip(usize::from(row.names_the_broken));
    row.faults.extend(refused);
    Ok(row)
}

/// Starts on a mesh with one broken cluster among four thousand: is that one named, and the rest in use?
fn names_the_broken(setup: &Setup, plane: &Plane, proxy: Proxy) -> anyhow::Result<bool> {
    let name = plane.serve(proxy, true)?.context("no cluster was broken")?;
    let subject = Subject::start(setup, plane, proxy)?;
    plane.settled(proxy)?;
    let refused = plane.refusals(proxy);
    let clusters = counters::get(subject.admin, "/stats?filter=cluster_manager.active_clusters")?;
    let active = clusters
        .trim()
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse::<usize>().ok());
    Ok(refused.len() == 1
        && refused.iter().all(|reason| reason.contains(&name))
        && active > Some(plane::BROKEN))
}

/// Quiet and changing times in turn, under a load of constant rate.
fn changes(
    setup: &Setup,
    plane: &Plane,
    subject: &Subject,
    extent: Extent,
    row: &mut ScaleRow,
) -> anyhow::Result<()> {
    let everywhere = std::net::TcpListener::bind("0.0.0.0:0").context("a port for the backend")?;
    let backend = Backend::start(everywhere, Manner::Http1, setup.place.cores.load)?;
    let mut service = churn::Service::new(backend.address);
    let listens = free_address()?;
    plane.push(subject.proxy, CLUSTER, vec![churn::cluster()])?;
    plane.push(subject.proxy, ENDPOINTS, vec![service.endpoints()])?;
    plane.push(subject.proxy, LISTENER, vec![churn::listener(listens)])?;
    let streams = subject.connect(listens)?;
    let mut client = Client::new(streams, Speech::get("churn", "/", body()))?;
    client.run_calmly(REQUEST_EVERY, Duration::from_secs(1))?;
    // Short turns: what the machine does meanwhile disturbs both kinds alike. A hundredth of the requests of one turn is eight,
    // so the quantile is that of all turns.
    let (mut quiet, mut changing) = (Vec::new(), Vec::new());
    for _ in 0..extent.turns {
        let (quiet_cpu, latencies) = subject.cpu_of(|| client.run_calmly(REQUEST_EVERY, extent.changing))?;
        quiet.extend(latencies);
        let prepared = prepare(&mut service, extent.changing);
        let mut pushes = 0;
        let (cpu, latencies) = subject.cpu_of(|| {
            std::thread::scope(|scope| {
                let pushing = scope.spawn(move || push_each(prepared, plane, subject.proxy));
                let latencies = client.run_calmly(REQUEST_EVERY, extent.changing);
                pushes = pushing.join().unwrap_or_default();
                latencies
            })
        })?;
        ensure!(pushes > 0, "no change was pushed");
        changing.extend(latencies);
        row.change_cpu_ms
            .push((cpu - quiet_cpu) * 1e3 / f64::from(pushes));
        row.changes += pushes;
        plane.settled(subject.proxy)?;
    }
    row.quiet_p99_us = p99(&quiet);
    row.changing_p99_us = p99(&changing);
    row.changing_requests = changing.len();
    Ok(())
}

/// What a changing time sends. Made before it: encoding ten thousand endpoints takes milliseconds of the core that the load is on.
fn prepare(service: &mut churn::Service, changing: Duration) -> Vec<Named> {
    let count = changing.as_millis() / CHANGE_EVERY.as_millis();
    let one = |_| {
        service.change();
        service.endpoints()
    };
    (0..count).map(one).collect()
}

fn push_each(prepared: Vec<Named>, plane: &Plane, proxy: Proxy) -> u32 {
    let mut pushes = 0;
    let mut next = Instant::now();
    for endpoints in prepared {
        pushes += u32::from(plane.send(proxy, ENDPOINTS, endpoints));
        next += CHANGE_EVERY;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    pushes
}

fn p99(latencies: &[Duration]) -> f64 {
    let micros: Vec<_> = latencies
        .iter()
        .map(|latency| latency.as_secs_f64() * 1e6)
        .collect();
    quantile(&micros, 0.99)
}

/// One started proxy.
struct Subject {
    proxy: Proxy,
    running: Running,
    admin: SocketAddr,
    ready_cpu_s: f64,
    ready_s: f64,
}

impl Subject {
    fn start(setup: &Setup, plane: &Plane, proxy: Proxy) -> anyhow::Result<Self> {
        let admin = free_address()?;
        let file = setup.place.folder.join(format!("scale-{}.yaml", proxy.name()));
        std::fs::write(&file, plane.bootstrap(proxy, admin))?;
        let mut arguments: Vec<String> = [
            "-c",
            &file.display().to_string(),
            "--concurrency",
            "1",
            "-l",
            "warning",
        ]
        .map(str::to_owned)
        .to_vec();
        if proxy == Proxy::Envoy {
            arguments.push("--disable-hot-restart".to_owned());
        }
        let invocation = Invocation {
            side: "scale",
            program: setup.place.programs.path(proxy)?.to_owned(),
            arguments,
            listens: admin,
            admin: Some(admin),
            log: file.with_extension("log"),
        };
        let start = Instant::now();
        let running = Running::start(invocation, setup.place.cores)?;
        loop {
            let answer = counters::get(admin, "/ready").unwrap_or_default();
            if answer.contains("LIVE") {
                break;
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "not ready: {answer:?}; refused: {:?}",
                plane.refusals(proxy)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self {
            proxy,
            admin,
            ready_s: start.elapsed().as_secs_f64(),
            ready_cpu_s: running.cpu_ns()? as f64 / 1e9,
            running,
        })
    }

    /// CPU seconds of `work` and its aftermath.
    fn cost(&self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let (cpu, ()) = self.cpu_of(|| {
            work()?;
            std::thread::sleep(AFTERMATH);
            Ok(())
        })?;
        Ok(cpu)
    }

    fn cpu_of<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
        let before = self.running.cpu_ns()?;
        let done = work()?;
        Ok(((self.running.cpu_ns()? - before) as f64 / 1e9, done))
    }

    /// Connections to a listener that is about to be there.
    fn connect(&self, listens: SocketAddr) -> anyhow::Result<Vec<std::net::TcpStream>> {
        let start = Instant::now();
        loop {
            match connect(listens, CONNECTIONS) {
                Ok(streams) => return Ok(streams),
                Err(error) => ensure!(
                    start.elapsed() < PATIENCE,
                    "{} does not listen: {error}",
                    self.proxy.name()
                ),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
