//! Network namespaces: a bridge in one, a pod in each of the others.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

/// First part of every name, then the process id of the test: whoever finds one knows whose it is.
const PREFIX: &str = "outrigger-e2e";
/// Where the control plane listens, and the pods' default gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);

/// A network namespace with a name. Dropping it removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    keeps_net_admin: AtomicBool,
}

impl Namespace {
    fn new(name: String) -> Self {
        ip(&["netns", "add", &name]);
        let namespace = Self {
            name,
            keeps_net_admin: AtomicBool::new(false),
        };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"]);
        namespace
    }

    /// A namespace with nothing but a loopback device.
    pub fn alone() -> Self {
        Self::new(format!("{PREFIX}-{}-{}-alone", std::process::id(), number()))
    }

    /// As `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Programs that start from now on keep CAP_NET_ADMIN, as a sidecar in TPROXY mode does.
    pub fn keep_net_admin(&self) {
        self.keeps_net_admin.store(true, Ordering::Relaxed);
    }

    /// Runs `work` on a thread inside the namespace. Sockets that it makes stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.name);
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread inside the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let name = self.name.clone();
        std::thread::spawn(move || {
            enter(&name);
            work()
        })
    }

    /// A command that runs `program` inside the namespace as `uid`, and is killed when the calling thread ends.
    pub fn command(&self, uid: u32, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        let id = uid.to_string();
        command.args([
            "netns",
            "exec",
            &self.name,
            "setpriv",
            "--reuid",
            &id,
            "--regid",
            &id,
            "--clear-groups",
        ]);
        if self.keeps_net_admin.load(Ordering::Relaxed) {
            command.args(["--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"]);
        }
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .stdin(Stdio::null());
        command
    }
}

/// Moves the calling thread.
fn enter(name: &str) {
    let path = PathBuf::from("/run/netns").join(name);
    let file = fs::File::open(&path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    setns(file, CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| panic!("enter {name}: {error}"));
}

/// A number for each namespace, or group of them, of this process; the first call removes what killed runs left.
fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static SWEPT: Once = Once::new();
    SWEPT.call_once(sweep);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// A bridge with pods on it, 10.20.0.0/16.
#[derive(Debug)]
pub struct Network {
    bridge: Namespace,
    prefix: String,
}

impl Network {
    /// A new bridge, alone in its namespace, with [`GATEWAY`] as its address.
    pub fn new() -> Self {
        let prefix = format!("{PREFIX}-{}-{}", std::process::id(), number());
        let bridge = Namespace::new(format!("{prefix}-bridge"));
        let link = format!("link add br0 type bridge\naddr add {GATEWAY}/16 dev br0\nlink set br0 up\n");
        // Nobody owns a cluster IP: who asks for one past its proxy is told so at once.
        batch(
            bridge.name(),
            &format!("{link}route add unreachable 10.96.0.0/16\n"),
        );
        bridge.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("the namespace is ours"));
        Self { bridge, prefix }
    }

    /// The namespace of the bridge: what passes between pods passes `br0` there.
    pub fn bridge(&self) -> &Namespace {
        &self.bridge
    }

    /// A pod's namespace, with `address` on eth0, a default route, and a resolver that refuses at once.
    pub fn pod(&self, name: &str, address: Ipv4Addr) -> Namespace {
        let pod = Namespace::new(format!("{}-{name}", self.prefix));
        let resolver = PathBuf::from("/etc/netns").join(pod.name());
        fs::create_dir_all(&resolver).expect("root may write /etc/netns");
        // Nobody listens there: an answer, not a time-out.
        fs::write(resolver.join("resolv.conf"), "nameserver 127.0.0.1\n").expect("root may write /etc/netns");
        let port = format!("p{}", address.octets()[3]);
        let bridge = self.bridge.name();
        let pair = format!("link add {port} type veth peer name eth0 netns {}\n", pod.name());
        batch(
            bridge,
            &format!("{pair}link set {port} master br0\nlink set {port} up\n"),
        );
        let addresses = format!("addr add {address}/16 dev eth0\nlink set eth0 up\n");
        batch(
            pod.name(),
            &format!("{addresses}route add default via {GATEWAY}\n"),
        );
        pod
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// Removes what test runs left behind that were killed.
fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1)) else {
            continue;
        };
        if !PathBuf::from("/proc").join(owner).exists() {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    let output = Command::new("ip").args(["netns", "delete", name]).output();
    if !output.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("namespace {name} stays: {output:?}");
    }
    // A pod has one, the bridge has none.
    let _ = fs::remove_dir_all(PathBuf::from("/etc/netns").join(name));
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("run ip: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {error}", arguments.join(" "));
}

fn batch(namespace: &str, commands: &str) {
    let mut command = Command::new("ip");
    command
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("run ip: {error}"));
    child
        .stdin
        .take()
        .expect("piped above")
        .write_all(commands.as_bytes())
        .expect("ip reads its commands");
    let output = child.wait_with_output().expect("ip ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip -n {namespace}: {commands}: {error}");
}
