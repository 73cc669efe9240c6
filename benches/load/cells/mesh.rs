//! front and bill on what istiod wrote, in network namespaces.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::mesh::{BILL, BILL_HOST, Mesh};
use e2e::plan::{Plan, Scenario};
use e2e::proxy::Kind;

use super::memory::{AFTER_DUMP, Watch};
use super::{CONNECTIONS, Setup, counters};
use crate::backend::{Backend, Manner, body};
use crate::client::{Client, Speech, connect};
use crate::interleave::{Load, Subject, measure};
use crate::peer::Proxy;
use crate::samples::{Cell, MemoryRow, Sample};
use crate::system;

/// Where an application of a bill pod listens.
const APP_PORT: u16 = 9999;

/// Measures outrigger's mesh beside Envoy's.
pub(super) fn run(setup: &Setup, cell: &mut Cell) -> anyhow::Result<Vec<Sample>> {
    let mut meshes = start_all(setup)?;
    cell.commands.push(
        "each proxy: -c bootstrap.yaml --concurrency 1 -l info --file-flush-interval-msec 50".to_owned(),
    );
    let mut subjects: Vec<Box<dyn Subject + '_>> = meshes
        .iter_mut()
        .map(|mesh| Box::new(mesh) as Box<dyn Subject + '_>)
        .collect();
    let samples = measure(&mut subjects, setup.timing, setup.place.cores)?;
    drop(subjects);
    for mesh in &meshes {
        cell.faults.extend(mesh.faults());
    }
    Ok(samples)
}

/// Memory of front's and one bill proxy, outrigger's and Envoy's.
///
/// # Errors
/// When a mesh does not start, or fails under load.
pub fn memory(setup: &Setup) -> anyhow::Result<Vec<MemoryRow>> {
    let meshes = start_all(setup)?;
    std::thread::sleep(Duration::from_secs(1));
    let mut watches = Vec::new();
    for mesh in &meshes {
        for pod in ["front", "bill-v1"] {
            watches.push(Watch::begin(
                mesh.name,
                mesh.process(pod)?,
                &format!("bill mesh, {pod}"),
            )?);
        }
    }
    for mesh in &meshes {
        mesh.client()?.run(Duration::from_secs(3))?;
    }
    for watch in &mut watches {
        watch.loaded()?;
    }
    for mesh in &meshes {
        for pod in ["front", "bill-v1"] {
            mesh.mesh.admin(pod, "/config_dump");
        }
    }
    std::thread::sleep(AFTER_DUMP);
    watches.into_iter().map(|watch| watch.end(true)).collect()
}

fn start_all(setup: &Setup) -> anyhow::Result<Vec<Running>> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
    let both = setup.place.programs.all().filter_map(|proxy| match proxy {
        Proxy::Outrigger => Some((proxy.name(), Kind::Outrigger)),
        Proxy::Envoy => Some((proxy.name(), Kind::Envoy)),
        _ => None,
    });
    both.map(|(name, kind)| Running::start(setup, name, kind).with_context(|| name.to_owned()))
        .collect()
}

/// A mesh of one kind of proxy.
struct Running {
    name: &'static str,
    mesh: Mesh,
    _apps: Vec<Backend>,
}

const PODS: [(&str, &str); 3] = [("front", "front"), ("bill-v1", "bill"), ("bill-v2", "bill")];

impl Running {
    fn start(setup: &Setup, name: &'static str, kind: Kind) -> anyhow::Result<Self> {
        let cores = setup.place.cores;
        let plan = Plan {
            workers: 1,
            ..Plan::new(Scenario::Bill, kind, kind)
        };
        let mut mesh = Mesh::build(&plan);
        let mut apps = Vec::new();
        for (pod, side) in PODS {
            if side == "bill" {
                let everywhere = SocketAddr::from(([0, 0, 0, 0], APP_PORT));
                let listener = mesh
                    .pod(pod)
                    .namespace
                    .run(|| std::net::TcpListener::bind(everywhere))?;
                apps.push(Backend::start(listener, Manner::Http1, cores.load)?);
            }
            cores.on_proxy_core(|| {
                mesh.start_proxy(pod);
                Ok(())
            })?;
        }
        for (pod, _) in PODS {
            mesh.wait_ready(pod);
        }
        Ok(Self {
            name,
            mesh,
            _apps: apps,
        })
    }

    fn client(&self) -> anyhow::Result<Client> {
        let streams = self
            .mesh
            .pod("front")
            .namespace
            .run(|| connect(BILL, CONNECTIONS))?;
        Client::new(streams, Speech::get(BILL_HOST, "/", body()))
    }

    fn process(&self, pod: &str) -> anyhow::Result<u32> {
        let proxy = self.mesh.pod(pod).proxy.as_ref();
        Ok(proxy.with_context(|| format!("{pod} has no proxy"))?.id())
    }

    fn log(&self, pod: &str) -> PathBuf {
        self.mesh.folder().join(pod).join("proxy.out")
    }

    fn faults(&self) -> Vec<String> {
        let of = |pod: &str| {
            let stats = self.mesh.admin(pod, "/stats").body;
            counters::nonzero(&stats)
                .into_iter()
                .map(|line| format!("{}, {pod}: {line}", self.name))
                .collect::<Vec<_>>()
        };
        PODS.iter().flat_map(|(pod, _)| of(pod)).collect()
    }
}

impl Subject for &mut Running {
    fn name(&self) -> &str {
        self.name
    }

    fn cpu_ns(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let (mut front, mut bill) = (0, 0);
        for (pod, side) in PODS {
            let used = system::cpu_ns(self.process(pod)?)?;
            *(if side == "front" { &mut front } else { &mut bill }) += used;
        }
        Ok(vec![("front", front), ("bill", bill)])
    }

    fn load(&self) -> anyhow::Result<Box<dyn Load>> {
        Ok(Box::new(self.client()?))
    }

    fn after_slice(&mut self, requests: u64) -> anyhow::Result<()> {
        let lines = system::lines(&self.log("front"));
        ensure!(
            lines >= requests / 4,
            "{requests} requests, but {lines} lines in front's access log"
        );
        for (pod, _) in PODS {
            File::options().write(true).open(self.log(pod))?.set_len(0)?;
        }
        Ok(())
    }
}
