//! Rules in the real kernel: what connects where, and that a second run changes nothing.
//!
//! Each test makes two network namespaces joined by a veth pair, a *pod* and a *peer*, and removes them.
//! Needs root, `ip` (iproute2), iptables and `setpriv` (util-linux); without them the tests fail and say so.
// This test has no worker whose connections a pause could stop.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

const INJECTED: &[&str] = &[
    "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d",
    "15090",
];
const PATIENCE: Duration = Duration::from_secs(5);

/// Two namespaces; gone when dropped.
struct Pods {
    pod: String,
    peer: String,
}

impl Pods {
    /// Pod 10.20.0.11 (and `v6`, if any) with everything else reached through peer 10.20.0.1.
    fn new(v6: Option<&str>) -> Self {
        need_root_and_tools();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let pods = Pods {
            pod: format!("ipt-pod-{id}"),
            peer: format!("ipt-peer-{id}"),
        };
        let (pod, peer) = (&pods.pod, &pods.peer);
        ip(&["netns", "add", pod]);
        ip(&["netns", "add", peer]);
        ip(&[
            "-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", peer,
        ]);
        for name in [pod, peer] {
            ip(&["-n", name, "link", "set", "lo", "up"]);
            ip(&["-n", name, "link", "set", "eth0", "up"]);
        }
        ip(&["-n", peer, "addr", "add", "10.20.0.1/24", "dev", "eth0"]);
        match v6 {
            Some(address) => {
                ip(&[
                    "-n",
                    pod,
                    "addr",
                    "add",
                    &format!("{address}/64"),
                    "dev",
                    "eth0",
                    "nodad",
                ]);
            }
            None => {
                ip(&["-n", pod, "addr", "add", "10.20.0.11/24", "dev", "eth0"]);
                ip(&["-n", pod, "route", "add", "default", "via", "10.20.0.1"]);
            }
        }
        pods
    }

    /// Runs the program under test in the pod.
    fn init(&self, line: &[&str]) -> Output {
        let program = env!("CARGO_BIN_EXE_iptables-init");
        command("ip")
            .args(["netns", "exec", &self.pod, program])
            .args(line)
            .output()
            .unwrap()
    }

    fn init_well(&self, line: &[&str]) -> String {
        let output = self.init(line);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{log}");
        log
    }

    /// What the kernel holds, by both kinds of program, without counters and dates.
    fn saved(&self) -> String {
        let programs = [
            "iptables-nft-save",
            "ip6tables-nft-save",
            "iptables-legacy-save",
            "ip6tables-legacy-save",
        ];
        programs.map(|program| self.listed(program)).concat()
    }

    fn listed(&self, program: &str) -> String {
        let output = command("ip")
            .args(["netns", "exec", &self.pod, program])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let rules = text
            .lines()
            .filter(|line| line.starts_with(['*', '-']) || line.starts_with(":ISTIO"));
        rules.map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for name in [&self.pod, &self.peer] {
            let _ = command("ip").args(["netns", "del", name]).status();
        }
    }
}

fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command
}

fn ip(args: &[&str]) {
    let output = command("ip").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn need_root_and_tools() {
    assert!(
        Uid::effective().is_root(),
        "this test makes network namespaces: run it as root"
    );
    for tool in [
        "ip",
        "iptables-nft-save",
        "iptables-legacy-save",
        "ip6tables-nft-save",
    ] {
        let there = command(tool).arg("-V").output().is_ok();
        assert!(
            there,
            "this test needs {tool}: install iproute2, iptables and util-linux"
        );
    }
}

/// Runs `work` on a thread of its own inside `namespace`, with file-system ids `id`: the owner match of the
/// kernel looks at those of the thread that made the socket.
fn inside<T: Send>(namespace: &str, id: u32, work: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        setfsgid(Gid::from_raw(id));
        setfsuid(Uid::from_raw(id));
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

/// Listens in `namespace`.
fn listen(namespace: &str, address: &str) -> TcpListener {
    let listener = inside(namespace, 1337, || TcpListener::bind(address).unwrap());
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Connects from `namespace` as `id` to `to`; gives the side that one of `listeners` accepted, once a word has
/// come through, so that a connection that merely seems to be there does not count.
fn accepted(namespace: &str, id: u32, to: &str, listeners: &[&TcpListener]) -> TcpStream {
    let address: SocketAddr = to.parse().unwrap();
    let mut client = inside(namespace, id, || TcpStream::connect_timeout(&address, PATIENCE))
        .unwrap_or_else(|error| panic!("uid {id} to {to}: {error}"));
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match listeners.iter().find_map(|listener| listener.accept().ok()) {
            Some((mut server, _)) => {
                server.set_nonblocking(false).unwrap();
                client.write_all(b"word").unwrap();
                let mut word = [0; 4];
                server.read_exact(&mut word).unwrap();
                return server;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    panic!("uid {id} to {to}: connected, but to none of the listeners");
}

/// Where the client of a redirected connection wanted to go.
fn original_destination(server: &TcpStream) -> SocketAddr {
    if server.local_addr().unwrap().ip().to_canonical().is_ipv6() {
        let raw = getsockopt(server, sockopt::Ip6tOriginalDst).unwrap();
        return SocketAddr::from((raw.sin6_addr.s6_addr, u16::from_be(raw.sin6_port)));
    }
    let raw = getsockopt(server, sockopt::OriginalDst).unwrap();
    SocketAddr::from((
        Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr)),
        u16::from_be(raw.sin_port),
    ))
}

/// A connection to `to` arrives at `port` instead, and still tells where it was meant to go.
fn redirected(namespace: &str, id: u32, to: &str, listeners: &[&TcpListener], port: u16) {
    let server = accepted(namespace, id, to, listeners);
    assert_eq!(server.local_addr().unwrap().port(), port, "uid {id} to {to}");
    assert_eq!(original_destination(&server).to_string(), to, "uid {id} to {to}");
}

/// A connection to `to` arrives there.
fn untouched(namespace: &str, id: u32, to: &str, listeners: &[&TcpListener]) {
    let server = accepted(namespace, id, to, listeners);
    assert_eq!(server.local_addr().unwrap().to_string(), to, "uid {id} to {to}");
}

/// The same for every kind of program; `backend` is the flag that forces one.
fn check_traffic(backend: &[&str]) {
    let pods = Pods::new(None);
    let (pod, peer) = (&pods.pod, &pods.peer);
    pods.init_well(&[INJECTED, backend].concat());
    let in_pod = ["15001", "15006", "8080", "15090"].map(|port| listen(pod, &format!("0.0.0.0:{port}")));
    let server = listen(peer, "0.0.0.0:9999");
    let all: Vec<&TcpListener> = in_pod.iter().chain([&server]).collect();
    // The app's outbound connections go to the proxy; the address need not exist.
    redirected(pod, 1000, "10.96.0.10:9999", &all, 15001);
    redirected(pod, 0, "10.20.0.1:9999", &all, 15001);
    // The proxy's own go out.
    untouched(pod, 1337, "10.20.0.1:9999", &all);
    // What comes in goes to the proxy, but for excluded ports.
    redirected(peer, 0, "10.20.0.11:8080", &all, 15006);
    untouched(peer, 0, "10.20.0.11:15090", &all);
    // The app to itself is left alone; the proxy to the app's own address comes back in as inbound.
    untouched(pod, 1000, "127.0.0.1:8080", &all);
    untouched(pod, 1000, "10.20.0.11:8080", &all);
    redirected(pod, 1337, "10.20.0.11:8080", &all, 15006);
}

#[test]
fn redirects_traffic_with_the_chosen_programs() {
    check_traffic(&[]);
}

#[test]
fn redirects_traffic_with_legacy_programs() {
    check_traffic(&["--force-iptables-binary", "legacy"]);
}

#[test]
fn a_second_run_succeeds_and_changes_nothing() {
    for backend in [[].as_slice(), &["--force-iptables-binary", "legacy"]] {
        let pods = Pods::new(None);
        let line = [
            INJECTED,
            backend,
            &["-o", "53", "-q", "5000", "-k", "eth1,eth2", "-c", "eth9"],
        ]
        .concat();
        pods.init_well(&line);
        let first = pods.saved();
        assert!(
            first.contains("-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n"),
            "{first}"
        );
        // The second run finds the programs of the first without being told.
        let second = [
            INJECTED,
            &["-o", "53", "-q", "5000", "-k", "eth1,eth2", "-c", "eth9"],
        ]
        .concat();
        let log = pods.init_well(&second);
        assert!(
            log.contains("IPv4: all rules are in place, nothing to do"),
            "{log}"
        );
        assert_eq!(pods.saved(), first);
    }
}

#[test]
fn other_flags_replace_the_rules_unless_that_is_forbidden() {
    let pods = Pods::new(None);
    pods.init_well(INJECTED);
    let first = pods.saved();
    let other = ["-p", "15001", "-u", "1337", "-b", "80", "-i", "*"];
    let output = pods.init(&[&other[..], &["--reconcile=false"]].concat());
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("nat") && log.contains("--reconcile=false"), "{log}");
    assert_eq!(pods.saved(), first);
    pods.init_well(&other);
    let second = pods.saved();
    assert!(second.contains("--dport 80 -j ISTIO_IN_REDIRECT"), "{second}");
    assert!(!second.contains("--dport 15090"), "{second}");
    assert!(pods.init_well(&other).contains("nothing to do"));
}

#[test]
fn rules_of_others_do_not_stop_a_first_run() {
    let pods = Pods::new(None);
    let add = [
        "netns",
        "exec",
        &pods.pod,
        "iptables-nft",
        "-t",
        "nat",
        "-A",
        "OUTPUT",
        "-p",
        "udp",
        "-j",
        "RETURN",
    ];
    ip(&add);
    pods.init_well(INJECTED);
    assert!(pods.init_well(INJECTED).contains("nothing to do"));
}

#[test]
fn a_namespace_without_addresses_gets_ipv4_rules() {
    let pods = Pods::new(None);
    ip(&["-n", &pods.pod, "link", "del", "eth0"]);
    pods.init_well(INJECTED);
    assert!(pods.listed("iptables-nft-save").contains("ISTIO_OUTPUT"));
    assert_eq!(pods.listed("ip6tables-nft-save"), "");
}

#[test]
fn ipv6_traffic_is_redirected_and_lo_gets_the_inbound_source() {
    let pods = Pods::new(Some("fd00:20::11"));
    ip(&[
        "-n",
        &pods.peer,
        "addr",
        "add",
        "fd00:20::1/64",
        "dev",
        "eth0",
        "nodad",
    ]);
    ip(&[
        "-n",
        &pods.pod,
        "-6",
        "route",
        "add",
        "default",
        "via",
        "fd00:20::1",
    ]);
    pods.init_well(INJECTED);
    let outbound = listen(&pods.pod, "[::]:15001");
    let inbound = listen(&pods.pod, "[::]:15006");
    let all = [&outbound, &inbound];
    redirected(&pods.pod, 1000, "[fd00:96::10]:9999", &all, 15001);
    redirected(&pods.peer, 0, "[fd00:20::11]:8080", &all, 15006);
    inside(&pods.pod, 1337, || TcpListener::bind("[::6]:0").map(drop)).unwrap();

    let first = pods.saved();
    let log = pods.init_well(INJECTED);
    assert!(
        log.contains("IPv6: all rules are in place, nothing to do"),
        "{log}"
    );
    assert_eq!(pods.saved(), first);
}

#[test]
fn without_the_right_to_change_tables_the_capability_is_named() {
    let pods = Pods::new(None);
    let program = env!("CARGO_BIN_EXE_iptables-init");
    let output = command("ip")
        .args([
            "netns",
            "exec",
            &pods.pod,
            "setpriv",
            "--reuid=65534",
            "--clear-groups",
            program,
        ])
        .args(INJECTED)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("NET_ADMIN"), "{log}");
}
