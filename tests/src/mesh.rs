//! A whole mesh: pods with proxies and applications, a control plane, a certificate authority.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use outrigger_demo::ca::{Authority, Identity};
use outrigger_demo::control_plane::{ControlPlane, Recording, Sent, Snapshot};
use outrigger_demo::sds::{SecretServer, Secrets};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::http::{self, Request, Response};
use crate::load::{self, Load, Report};
use crate::netns::{GATEWAY, Namespace, Network};
use crate::plan::Workload;
pub use crate::plan::{Plan, Scenario, node};
use crate::process::{Process, until};
use crate::proxy::{ADMIN, Bootstrap, Kind};
use crate::tools::{self, APP_UID};

/// Where front's users find bill-service: its cluster IP and port.
pub const BILL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), 9999);
/// The name they ask for.
pub const BILL_HOST: &str = "bill-service:9999";
/// Longest wait for anything that takes a moment.
pub const PATIENCE: Duration = Duration::from_secs(20);

const XDS_PORT: u16 = 15010;
/// Of each log, when a test fails.
const LINES_SHOWN: usize = 8;
const COLUMNS_SHOWN: usize = 300;
/// What the injected `istio-init` container passes.
const INIT_FLAGS: [&str; 16] = [
    "-p",
    "15001",
    "-z",
    "15006",
    "-u",
    "1337",
    "-m",
    "REDIRECT",
    "-i",
    "*",
    "-x",
    "",
    "-b",
    "*",
    "-d",
    "15090,15021,15020",
];

/// A pod: a namespace with a proxy and, if it serves, an application.
#[derive(Debug)]
pub struct Pod {
    /// Its name in the captures.
    pub name: &'static str,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its secrets; `set` rotates them.
    pub secrets: SecretServer,
    /// Whom its certificate speaks for.
    pub identity: Identity,
    /// Which proxy runs in it.
    pub kind: Kind,
    /// The proxy, unless killed.
    pub proxy: Option<Process>,
    /// The application, if it has one.
    pub app: Option<Process>,
    version: &'static str,
    ports: &'static [u16],
    workers: u32,
    folder: PathBuf,
}

/// A mesh. Dropping it ends and removes everything.
#[derive(Debug)]
pub struct Mesh {
    // Dropped in this order: processes and namespaces, then what serves them, then the files.
    pods: BTreeMap<&'static str, Pod>,
    network: Network,
    /// The control plane of every pod.
    pub control: ControlPlane,
    /// The root that every pod trusts.
    pub authority: Authority,
    runtime: Runtime,
    folder: TempDir,
}

impl Mesh {
    /// Builds everything, starts it, and waits until every proxy is ready.
    ///
    /// # Panics
    /// When something cannot run here, or is not ready in time.
    pub fn start(plan: &Plan) -> Self {
        let mut mesh = Self::build(plan);
        mesh.start_all();
        mesh
    }

    /// Starts what [`Self::build`] did not, and waits until every proxy is ready.
    ///
    /// # Panics
    /// When a proxy is not ready in time.
    pub fn start_all(&mut self) {
        let names: Vec<_> = self.pods.keys().copied().collect();
        for name in &names {
            self.start_app(name);
            self.start_proxy(name);
        }
        for name in &names {
            self.wait_ready(name);
        }
    }

    /// Builds everything, and starts no process yet.
    ///
    /// # Panics
    /// When something cannot run here.
    pub fn build(plan: &Plan) -> Self {
        tools::require();
        let network = Network::new();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let mut mesh = Self {
            pods: BTreeMap::new(),
            network,
            control: ControlPlane::new(),
            authority: Authority::new("outrigger tests").expect("a root"),
            runtime: runtime.expect("a runtime"),
            folder: tools::open_folder("outrigger-e2e-"),
        };
        let captures = plan.scenario.folder();
        for (workload, kind) in plan.workloads() {
            let pod = mesh.build_pod(workload, workload.node(&captures), kind, plan.workers);
            mesh.pods.insert(workload.name, pod);
            let captured = Snapshot::read(&captures.join(workload.capture)).expect("a capture");
            mesh.control
                .serve(workload.name, captured.map(|any| plan.load(any)));
        }
        if let Some(file) = plan.recording {
            let recording = Recording::read(&plan.scenario.folder().join(file)).expect("a recording");
            mesh.control.replay("front", recording.map(|any| plan.load(any)));
        }
        mesh.listen();
        mesh
    }

    fn build_pod(&self, workload: Workload, node: Value, kind: Kind, workers: u32) -> Pod {
        let Workload {
            name, version, ports, ..
        } = workload;
        let address = workload.address();
        let namespace = self.network.pod(name, address);
        program_nat(&namespace);
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        let metadata = |key: &str| {
            node["metadata"][key]
                .as_str()
                .expect("a capture names its workload")
                .to_owned()
        };
        let identity = Identity::new(&metadata("NAMESPACE"), &metadata("SERVICE_ACCOUNT"));
        let workload = Some(self.authority.issue(&identity).expect("a certificate"));
        let secrets = SecretServer::new(Secrets {
            workload,
            roots: self.authority.root(),
        });
        let socket = folder.join("sds.sock");
        let inside = self.runtime.enter();
        secrets.listen(&socket).expect("a socket for secrets");
        drop(inside);
        let xds = SocketAddr::new(GATEWAY.into(), XDS_PORT);
        let bootstrap = Bootstrap {
            node,
            xds,
            sds: socket,
            admin: ADMIN,
        };
        fs::write(folder.join("bootstrap.yaml"), bootstrap.yaml()).expect("a bootstrap");
        Pod {
            name,
            address,
            namespace,
            secrets,
            identity,
            kind,
            proxy: None,
            app: None,
            version,
            ports,
            workers,
            folder,
        }
    }

    /// A pod.
    pub fn pod(&self, name: &str) -> &Pod {
        &self.pods[name]
    }

    /// A pod, to stop what runs in it.
    pub fn pod_mut(&mut self, name: &str) -> &mut Pod {
        self.pods.get_mut(name).unwrap_or_else(|| panic!("no pod {name}"))
    }

    /// Where pods' traffic passes.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Where the processes' files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the application of a pod that has one.
    pub fn start_app(&mut self, name: &str) {
        let pod = self.pod_mut(name);
        if !pod.ports.is_empty() {
            let mut command = pod.namespace.command(APP_UID, &tools::own("e2e-app"));
            command.arg(pod.version);
            command.args(pod.ports.iter().map(|port| format!("0.0.0.0:{port}")));
            pod.app = Some(Process::start(command, "app", &pod.folder));
        }
    }

    /// Starts the proxy of a pod.
    pub fn start_proxy(&mut self, name: &str) {
        self.start_proxy_with(name, &[]);
    }

    /// As [`Self::start_proxy`], with more arguments.
    pub fn start_proxy_with(&mut self, name: &str, arguments: &[&str]) {
        let pod = self.pod_mut(name);
        let mut command = pod
            .kind
            .command(&pod.namespace, &pod.folder.join("bootstrap.yaml"), pod.workers);
        command.args(arguments);
        pod.proxy = Some(Process::start(command, "proxy", &pod.folder));
    }

    /// Waits until the proxy of a pod says that it is ready.
    ///
    /// # Panics
    /// When it ends, or is not ready in time.
    pub fn wait_ready(&mut self, name: &str) {
        let pod = self.pod_mut(name);
        let request = Request::get("localhost", "/ready");
        until(&format!("{name} ({:?}) ready", pod.kind), PATIENCE, || {
            let ended = pod.proxy.as_mut().and_then(Process::ended);
            assert!(ended.is_none(), "{name} ({:?}) ended: {ended:?}", pod.kind);
            let response = http::send(&pod.namespace, ADMIN, &request).ok()?;
            (response.status() == 200).then_some(())
        });
    }

    /// Serves the control plane, again if it was stopped.
    pub fn listen(&self) {
        let address = SocketAddr::new(GATEWAY.into(), XDS_PORT);
        let listener = until("the control plane's port", PATIENCE, || {
            self.network.bridge().run(|| TcpListener::bind(address)).ok()
        });
        let _inside = self.runtime.enter();
        self.control.listen(listener).expect("a listening control plane");
    }

    /// Runs `work`, such as a wait of the control plane.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Replays the next recorded step to front.
    ///
    /// # Panics
    /// When front does not answer every response in time.
    pub fn step(&self) -> Vec<Sent> {
        self.block_on(self.control.step("front", PATIENCE))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sends one request from front to bill-service.
    ///
    /// # Errors
    /// As [`http::send`].
    pub fn request(&self, request: &Request) -> io::Result<Response> {
        http::send(&self.pod("front").namespace, BILL, request)
    }

    /// Sends one request from a pod to `address`.
    ///
    /// # Panics
    /// When there is no response.
    pub fn send(&self, pod: &str, address: SocketAddr, request: &Request) -> Response {
        http::send(&self.pod(pod).namespace, address, request)
            .unwrap_or_else(|error| panic!("{} {}: {error}", request.method, request.target))
    }

    /// `GET target` from front to bill-service.
    ///
    /// # Panics
    /// When there is no response.
    pub fn get(&self, target: &str) -> Response {
        self.request(&Request::get(BILL_HOST, target))
            .unwrap_or_else(|error| panic!("GET {target}: {error}"))
    }

    /// `GET target` from the admin interface of a pod's proxy, which may not run yet.
    ///
    /// # Errors
    /// As [`http::send`].
    pub fn try_admin(&self, pod: &str, target: &str) -> io::Result<Response> {
        http::send(
            &self.pod(pod).namespace,
            ADMIN,
            &Request::get("localhost", target),
        )
    }

    /// As [`Self::try_admin`].
    ///
    /// # Panics
    /// When there is no response.
    pub fn admin(&self, pod: &str, target: &str) -> Response {
        let response = self.try_admin(pod, target);
        response.unwrap_or_else(|error| panic!("admin of {pod}: GET {target}: {error}"))
    }

    /// The sum of the counters of a pod's proxy whose name ends so.
    pub fn counter(&self, pod: &str, suffix: &str) -> u64 {
        let stats = self.admin(pod, "/stats").body;
        let pairs = stats.lines().filter_map(|line| line.rsplit_once(": "));
        pairs
            .filter(|(name, _)| name.ends_with(suffix))
            .filter_map(|(_, value)| value.parse::<u64>().ok())
            .sum()
    }

    /// `GET /` from front to bill-service, one `every` so often, or as fast as eight at once go.
    pub fn load_plan(every: Duration, keeps_alive: bool) -> load::Plan {
        let request = Request::get(BILL_HOST, "/");
        let parallel = if every.is_zero() { 8 } else { 1000 };
        load::Plan {
            address: BILL,
            request,
            parallel,
            keeps_alive,
            every,
        }
    }

    /// Starts load on bill-service: a request every 2 ms, whether or not there is a response yet, for as long as it lives.
    pub fn load(&self) -> Load {
        Load::start(
            &self.pod("front").namespace,
            Self::load_plan(Duration::from_millis(2), true),
        )
    }

    /// Sends so many requests from front to bill-service.
    pub fn requests(&self, requests: u64, keeps_alive: bool) -> Report {
        load::send(
            &self.pod("front").namespace,
            Self::load_plan(Duration::ZERO, keeps_alive),
            requests,
        )
    }

    /// The access log of a pod's proxy.
    pub fn access_log(&self, pod: &str) -> String {
        self.pod(pod)
            .proxy
            .as_ref()
            .map(Process::stdout)
            .unwrap_or_default()
    }

    /// What a pod's proxy logged about itself.
    pub fn log(&self, pod: &str) -> String {
        self.pod(pod)
            .proxy
            .as_ref()
            .map(Process::stderr)
            .unwrap_or_default()
    }

    /// Waits until the access log of a pod has a line with `text`, and returns that line.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn logged(&self, pod: &str, text: &str) -> String {
        until(&format!("{text:?} in the access log of {pod}"), PATIENCE, || {
            self.access_log(pod)
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
        })
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for pod in self.pods.values() {
                describe(pod);
            }
            self.folder.disable_cleanup(true);
            eprintln!("logs and bootstraps stay in {}", self.folder.path().display());
        }
        for pod in self.pods.values_mut() {
            pod.proxy = None;
            pod.app = None;
        }
        self.control.stop();
    }
}

fn program_nat(namespace: &Namespace) {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", namespace.name()])
        .arg(tools::iptables_init())
        .args(INIT_FLAGS);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("run iptables-init: {error}"));
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "iptables-init in {}: {out}{error}",
        namespace.name()
    );
}

fn describe(pod: &Pod) {
    for (what, process) in [("proxy", &pod.proxy), ("app", &pod.app)] {
        let Some(process) = process else { continue };
        for (stream, text) in [("stdout", process.stdout()), ("stderr", process.stderr())] {
            let lines: Vec<_> = text.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)) {
                let start: String = line.chars().take(COLUMNS_SHOWN).collect();
                eprintln!("{} {what} {stream}: {start}", pod.name);
            }
        }
    }
}
