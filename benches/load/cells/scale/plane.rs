//! The control plane of the cell: the captured mesh for each proxy, and one service of ten thousand endpoints beside it.
//!
//! Serves outrigger what istiod sent, and Envoy the same without the filters that only Istio's build has.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::tools;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::google::protobuf::Duration as PbDuration;
use outrigger_demo::bootstrap::Bootstrap;
use outrigger_demo::ca::{Authority, Identity};
use outrigger_demo::control_plane::{
    CLUSTER, ControlPlane, ENDPOINTS, LISTENER, Named, ROUTES, Snapshot, Verdict,
};
use outrigger_demo::sds::{SecretServer, Secrets};
use outrigger_demo::strip::without_istio_filters;
use prost::Message as _;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::peer::Proxy;

/// Longest wait for the answer to a push.
const PATIENCE: Duration = Duration::from_secs(20);
/// The files of the capture, compressed, and their types.
const FILES: [(&str, &str); 4] = [
    ("cds", CLUSTER),
    ("eds", ENDPOINTS),
    ("lds", LISTENER),
    ("rds", ROUTES),
];
/// The cluster that is broken, counted from 1.
pub(super) const BROKEN: usize = 3999;

/// Whoever else wakes up takes the core from the calling thread at once. A system that forbids it shows in the figures only.
fn give_way() {
    let parameters = uapi::c::sched_param { sched_priority: 0 };
    let _ = uapi::sched_setscheduler(0, uapi::c::SCHED_IDLE, &parameters);
}

/// One control plane and one server of secrets for every proxy of the cell.
pub(super) struct Plane {
    runtime: Runtime,
    control: ControlPlane,
    address: SocketAddr,
    secrets: PathBuf,
    capture: Snapshot,
    node: Value,
}

impl Plane {
    /// Reads the capture and listens.
    ///
    /// # Errors
    /// When the capture is damaged, or the system refuses a socket.
    pub(super) fn start(folder: &Path) -> anyhow::Result<Self> {
        // It shares the core of the load, which must not wait while 600 KB of endpoints are sent: a real one is elsewhere.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(give_way)
            .enable_all()
            .build()?;
        let _inside = runtime.enter();
        let control = ControlPlane::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a port for the control plane")?;
        let address = listener.local_addr()?;
        control.listen(listener)?;
        let secrets = folder.join("scale.sds");
        serve_secrets(&secrets)?;
        drop(_inside);
        let node: Value = serde_json::from_slice(&std::fs::read(tools::data("scale/node.json"))?)?;
        Ok(Self {
            runtime,
            control,
            address,
            secrets,
            capture: capture()?,
            node: node.get("node").context("scale/node.json has no node")?.clone(),
        })
    }

    /// Serves `proxy` the mesh, or the mesh with one broken cluster; returns that cluster's name.
    pub(super) fn serve(&self, proxy: Proxy, is_broken: bool) -> anyhow::Result<Option<String>> {
        let mut snapshot = self.capture_of(proxy);
        let mut name = None;
        if is_broken {
            let broken = broken(&snapshot)?;
            name = Some(broken.name.clone());
            snapshot.put(CLUSTER, broken);
        }
        self.control.serve(proxy.name(), snapshot);
        Ok(name)
    }

    fn capture_of(&self, proxy: Proxy) -> Snapshot {
        match proxy {
            Proxy::Envoy => self.capture.clone().map(without_istio_filters),
            _ => self.capture.clone(),
        }
    }

    /// The bootstrap of `proxy`.
    pub(super) fn bootstrap(&self, proxy: Proxy, admin: SocketAddr) -> String {
        let mut node = self.node.clone();
        node["id"] = Value::from(format!(
            "sidecar~10.20.250.250~{}.ns0~ns0.svc.cluster.local",
            proxy.name()
        ));
        let bootstrap = Bootstrap {
            node,
            xds: self.address,
            sds: self.secrets.clone(),
            admin,
        };
        bootstrap.yaml()
    }

    /// Sends `proxy` every resource of a type as it has them, and waits for the answer.
    ///
    /// # Errors
    /// When it is refused, or not answered in time.
    pub(super) fn push_again(&self, proxy: Proxy, type_url: &str) -> anyhow::Result<()> {
        self.push(proxy, type_url, self.capture_of(proxy).all(type_url).to_vec())
    }

    /// Sends resources, and waits for the answer.
    ///
    /// # Errors
    /// As [`Self::push_again`].
    pub(super) fn push(&self, proxy: Proxy, type_url: &str, resources: Vec<Named>) -> anyhow::Result<()> {
        let nonce = self.control.push(proxy.name(), type_url, resources, Vec::new());
        let nonce = nonce.with_context(|| format!("{} has no stream", proxy.name()))?;
        let verdict = self.runtime.block_on(self.control.verdict(&nonce, PATIENCE))?;
        ensure!(verdict == Verdict::Ack, "{}: {verdict:?}", proxy.name());
        Ok(())
    }

    /// Sends one resource and does not wait.
    pub(super) fn send(&self, proxy: Proxy, type_url: &str, resource: Named) -> bool {
        let sent = self
            .control
            .push(proxy.name(), type_url, vec![resource], Vec::new());
        sent.is_some()
    }

    /// What `proxy` refused so far: the reasons.
    pub(super) fn refusals(&self, proxy: Proxy) -> Vec<String> {
        let refused = self.control.journal().refusals(proxy.name());
        refused.into_iter().map(|(_, reason)| reason).collect()
    }

    /// Waits until `proxy` has answered everything it was sent.
    ///
    /// # Errors
    /// When it does not within some seconds.
    pub(super) fn settled(&self, proxy: Proxy) -> anyhow::Result<()> {
        let what = format!("answers of {}", proxy.name());
        let settled = self.control.wait(&what, PATIENCE, |journal| {
            journal.is_settled(proxy.name()).then_some(())
        });
        Ok(self.runtime.block_on(settled)?)
    }
}

fn serve_secrets(path: &Path) -> anyhow::Result<()> {
    let authority = Authority::new("outrigger bench").context("a root certificate")?;
    let secrets = Secrets {
        workload: Some(authority.issue(&Identity::new("ns0", "client"))?),
        roots: authority.root(),
    };
    SecretServer::new(secrets)
        .listen(path)
        .context("a socket for secrets")?;
    Ok(())
}

fn capture() -> anyhow::Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    for (file, type_url) in FILES {
        let path = tools::data(&format!("scale/{file}.pb.zst"));
        let compressed = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
        let bytes = zstd::decode_all(compressed).with_context(|| path.display().to_string())?;
        snapshot
            .set(type_url, &bytes)
            .with_context(|| path.display().to_string())?;
    }
    Ok(snapshot)
}

/// A cluster that no proxy can take: its time limit for a connection is none.
fn broken(snapshot: &Snapshot) -> anyhow::Result<Named> {
    let cluster = snapshot
        .all(CLUSTER)
        .get(BROKEN - 1)
        .context("too few clusters")?;
    let mut cluster = Cluster::decode(cluster.any.value.as_slice())?;
    cluster.connect_timeout = Some(PbDuration {
        seconds: -1,
        nanos: 0,
    });
    Ok(Named::from_message(CLUSTER, &cluster))
}
