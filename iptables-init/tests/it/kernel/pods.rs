//! A pod and its peer: two network namespaces, and the program in one of them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::Uid;

/// Two namespaces; gone when dropped.
pub(super) struct Pods {
    pub(super) pod: String,
    pub(super) peer: String,
}

/// Interface, and what tells its addresses from those of others.
const LINKS: [(&str, u8); 3] = [("eth0", 20), ("eth1", 21), ("eth9", 29)];

impl Pods {
    /// The pod has address 11 of 10.20.0.0/24, 10.21.0.0/24 and 10.29.0.0/24 (`v4`), of fd00:20::/64 and so on (`v6`)
    /// or of both (`dual`). The peer has address 1 of each, and takes every other address for its own.
    pub(super) fn new(host: &str) -> Self {
        need_root_and_tools();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let pods = Pods {
            pod: format!("ipt-pod-{id}"),
            peer: format!("ipt-peer-{id}"),
        };
        let (pod, peer) = (&pods.pod, &pods.peer);
        batch("", &format!("netns add {pod}\nnetns add {peer}\n"));
        let (mut in_pod, mut in_peer) = ("link set lo up\n".to_owned(), "link set lo up\n".to_owned());
        for (name, _) in LINKS {
            in_pod +=
                &format!("link add {name} type veth peer name {name} netns {peer}\nlink set {name} up\n");
            in_peer += &format!("link set {name} up\n");
        }
        for (name, net) in LINKS {
            if host != "v6" {
                in_pod += &format!("addr add 10.{net}.0.11/24 dev {name}\n");
                in_peer += &format!("addr add 10.{net}.0.1/24 dev {name}\n");
            }
            if host != "v4" {
                in_pod += &format!("addr add fd00:{net}::11/64 dev {name} nodad\n");
                in_peer += &format!("addr add fd00:{net}::1/64 dev {name} nodad\n");
            }
        }
        if host != "v6" {
            in_pod += "route add default via 10.20.0.1\n";
            in_peer += "route add local default dev lo table main\n";
        }
        if host != "v4" {
            in_pod += "route add default via fd00:20::1\n";
            in_peer += "route add local ::/0 dev lo table main\n";
            // UDP sockets cannot be bound to an address that is local by its route alone, as with IPv4.
            in_peer += "addr add fd00:96::10/128 dev lo nodad\naddr add fd00:96::53/128 dev lo nodad\n";
        }
        batch(pod, &in_pod);
        batch(peer, &in_peer);
        fs::create_dir_all(pods.etc()).unwrap();
        pods.name_servers(&[]);
        pods
    }

    /// What `ip netns exec` puts in place of /etc/resolv.conf.
    pub(super) fn name_servers(&self, servers: &[std::net::IpAddr]) {
        let lines: String = servers
            .iter()
            .map(|server| format!("nameserver {server}\n"))
            .collect();
        fs::write(self.etc().join("resolv.conf"), lines).unwrap();
    }

    /// The program under test in the pod, without any variable of this process.
    pub(super) fn program(&self, line: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_iptables-init"));
        command.args(line);
        command
    }

    /// Any program in the pod.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = command("ip");
        command.args(["netns", "exec", &self.pod, name]);
        command
    }

    pub(super) fn init(&self, line: &[&str]) -> Output {
        self.program(line).output().unwrap()
    }

    /// Its log.
    pub(super) fn init_well(&self, line: &[&str]) -> String {
        let output = self.init(line);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{}: {log}", line.join(" "));
        log
    }

    /// What the kernel holds, by all kinds of program, without counters and dates.
    pub(super) fn saved(&self) -> String {
        let programs = [
            "iptables-nft-save",
            "ip6tables-nft-save",
            "iptables-legacy-save",
            "ip6tables-legacy-save",
        ];
        programs.map(|program| self.listed(program)).concat() + &self.native()
    }

    /// Rules and chains of ours, of one `iptables-save`.
    pub(super) fn listed(&self, program: &str) -> String {
        let text = self.output(program, &[]);
        let rules = text
            .lines()
            .filter(|line| line.starts_with('-') || line.starts_with(":ISTIO"));
        rules.map(|line| format!("{line}\n")).collect()
    }

    /// Native tables.
    pub(super) fn native(&self) -> String {
        self.output("nft", &["--stateless", "list", "ruleset", "inet"])
    }

    /// Everything else that rules may need.
    pub(super) fn routing(&self) -> String {
        let lines = [
            self.output("ip", &["-4", "rule"]),
            self.output("ip", &["-6", "rule"]),
            self.output("ip", &["addr", "show", "dev", "lo"]),
        ];
        let ours = |line: &&str| line.contains("fwmark") || line.contains("::6/128");
        lines
            .concat()
            .lines()
            .filter(ours)
            .map(|line| format!("{line}\n"))
            .collect()
    }

    pub(super) fn output(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {}: {error}", args.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    fn etc(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.pod)
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for name in [&self.pod, &self.peer] {
            let _ = command("ip").args(["netns", "del", name]).status();
        }
        let _ = fs::remove_dir_all(self.etc());
    }
}

/// Without this process's variables, some of which would be flags.
pub(super) fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command
}

/// Lines of ip(8), in `namespace` if it has a name.
fn batch(namespace: &str, lines: &str) {
    let mut ip = command("ip");
    if !namespace.is_empty() {
        ip.args(["-n", namespace]);
    }
    let mut child = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{lines}: {}",
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
        "nft",
        "setpriv",
    ] {
        let there = command(tool).arg("-V").output().is_ok();
        assert!(
            there,
            "this test needs {tool}: install iproute2, iptables, nftables and util-linux"
        );
    }
}
