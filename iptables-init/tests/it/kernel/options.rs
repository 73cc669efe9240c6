//! Flags that change how the program works, not which rules it writes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Output;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::pods::{Pods, command};
use super::probe::{Listeners, inside};

const ALL: &[&str] = &["-u", "1337", "-i", "*", "-b", "*"];

fn log(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// As Istio's container `istio-validation`: the proxy's user, no capabilities, nothing written.
fn validation(pods: &Pods, uid: &str, more: &[&str]) -> Output {
    let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
    let mut command = pods.command("setpriv");
    command
        .args(ids)
        .args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    command.arg(env!("CARGO_BIN_EXE_iptables-init")).args(ALL);
    command
        .args(["--run-validation", "--skip-rule-apply", "--probe-timeout=300ms"])
        .args(more);
    command.output().unwrap()
}

#[test]
fn validation_tells_a_captured_pod_from_one_that_is_not() {
    for host in ["v4", "v6", "dual"] {
        let pods = Pods::new(host);
        let before = validation(&pods, "1337", &["--dual-stack"]);
        assert_eq!(before.status.code(), Some(126), "{host}: {}", log(&before));
        assert_eq!(pods.saved(), "", "{host}: --skip-rule-apply");
        // Root is not captured, so the program takes the proxy's place for the one connection.
        pods.init_well(&[ALL, &["--dual-stack", "--run-validation"]].concat());
        let after = validation(&pods, "1337", &["--dual-stack"]);
        assert_eq!(after.status.code(), Some(0), "{host}: {}", log(&after));
        let stranger = validation(&pods, "1000", &["--dual-stack"]);
        assert_eq!(stranger.status.code(), Some(126), "{host}: {}", log(&stranger));
    }
}

#[test]
fn validation_needs_its_ports_and_the_right_rule() {
    let pods = Pods::new("v4");
    pods.init_well(ALL);
    pods.output("iptables-nft", &["-t", "nat", "-F", "ISTIO_IN_REDIRECT"]);
    let broken = validation(&pods, "1337", &[]);
    assert_eq!(broken.status.code(), Some(126), "{}", log(&broken));
    assert!(log(&broken).contains("127.0.0.6:15002"), "{}", log(&broken));
    let _taken = inside(&pods.pod, (0, 0), || {
        TcpListener::bind("127.0.0.1:15006").unwrap()
    });
    let taken = validation(&pods, "1337", &[]);
    assert_eq!(taken.status.code(), Some(126), "{}", log(&taken));
    assert!(log(&taken).contains("127.0.0.1:15006"), "{}", log(&taken));
}

#[test]
fn another_namespace_gets_the_rules_and_ours_none() {
    let (pods, elsewhere) = (Pods::new("dual"), Pods::new("v4"));
    let path = format!("/run/netns/{}", pods.pod);
    let line = [ALL, &["--dual-stack", "--cni-mode", "--network-namespace", &path]].concat();
    // The lock of legacy tables is the namespace's own, so one that is held outside does not matter.
    for backend in ["nft", "legacy"] {
        let line = [&line[..], &["--force-iptables-binary", backend]].concat();
        let hold = "exec 9>>/run/xtables.lock; flock 9; exec \"$@\"";
        let output = elsewhere
            .command("sh")
            .args(["-c", hold, "sh"])
            .arg(env!("CARGO_BIN_EXE_iptables-init"))
            .args(&line)
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", log(&output));
        assert_eq!(elsewhere.saved(), "");
        assert!(pods.saved().contains("ISTIO_OUTPUT"));
        let listeners = Listeners::new(&pods);
        listeners.check("app tcp 10.96.0.10:80 outbound").unwrap();
        listeners.check("app tcp [fd00:96::10]:80 outbound").unwrap();
    }
    let output = elsewhere.init(&[&line[..], &["--cleanup-only"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", log(&output));
    assert_eq!(pods.saved() + &pods.routing(), "");
}

#[test]
fn a_file_that_is_no_network_namespace_is_a_bad_flag() {
    let pods = Pods::new("v4");
    for path in ["/proc/self/ns/mnt", "/etc/passwd", "/no/such/file"] {
        let output = pods.init(&["--network-namespace", path]);
        assert_eq!(output.status.code(), Some(2), "{}", log(&output));
        assert!(log(&output).contains(path), "{}", log(&output));
    }
}

/// `hostUsers: false`: the namespace belongs to a user namespace, and only that one may write owner rules.
#[test]
fn a_namespace_of_other_users_is_entered_as_one_of_them() {
    let elsewhere = Pods::new("v4");
    let mut holder = command("unshare")
        .args(["--user", "--net", "sleep", "60"])
        .spawn()
        .unwrap();
    let process = PathBuf::from(format!("/proc/{}", holder.id()));
    let path = process.join("ns/net").display().to_string();
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    while fs::read_link(&path).unwrap() == own {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(process.join(map), "0 100000 65536\n").unwrap();
    }
    // Not legacy: of a namespace that is older than its users' numbers, nobody may read /proc/net/ip_tables_names.
    let more = ["--network-namespace", &path, "--force-iptables-binary", "nft"];
    let output = elsewhere.init(&[ALL, &more].concat());
    let saved = command("nsenter")
        .args([&format!("--net={path}"), "iptables-nft-save"])
        .output()
        .unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", log(&output));
    assert!(String::from_utf8_lossy(&saved.stdout).contains("-A OUTPUT -j ISTIO_OUTPUT"));
}

#[test]
fn an_image_without_the_programs_is_told_so() {
    let pods = Pods::new("v4");
    let iptables = &["--force-iptables-binary=nft"][..];
    for (more, program) in [(iptables, "iptables-nft-save"), (&["--native-nftables"], "nft")] {
        let hide = "mount -t tmpfs none /usr/sbin && mount -t tmpfs none /sbin && exec \"$@\"";
        let mut without = pods.command("unshare");
        without.args([
            "--mount",
            "sh",
            "-c",
            hide,
            "sh",
            env!("CARGO_BIN_EXE_iptables-init"),
        ]);
        let output = without.args(ALL).args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", log(&output));
        let complaint = format!("{program}: no such program");
        assert!(log(&output).contains(&complaint), "{}", log(&output));
    }
}

/// A TCP header with SYN and FIN, which begins and ends no connection; to a port where nobody listens.
fn nonsense(from: Ipv4Addr, to: Ipv4Addr) -> [u8; 20] {
    let mut header = [0; 20];
    header[..4].copy_from_slice(&[0x9c, 0x40, 0x1e, 0x61]); // ports 40000 and 7777
    header[12..14].copy_from_slice(&[0x50, 0x03]); // five words; SYN, FIN
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 6, 0, 20], &header].concat();
    let mut sum: u32 = pseudo
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    header
}

/// Whether the pod answers such a packet of its peer.
fn answers_nonsense(pods: &Pods) -> bool {
    let (peer, pod) = (Ipv4Addr::new(10, 20, 0, 1), Ipv4Addr::new(10, 20, 0, 11));
    inside(&pods.peer, (0, 0), || {
        let raw = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::empty(),
            SockProtocol::Tcp,
        )
        .unwrap();
        setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::new(0, 300_000)).unwrap();
        let to = SockaddrStorage::from(SocketAddr::from((pod, 0)));
        sendto(raw.as_raw_fd(), &nonsense(peer, pod), &to, MsgFlags::empty()).unwrap();
        let mut packet = [0; 128];
        recv(raw.as_raw_fd(), &mut packet, MsgFlags::empty()).is_ok()
    })
}

#[test]
fn packets_of_no_connection_are_dropped_when_asked() {
    let pods = Pods::new("v4");
    for backend in [
        "--force-iptables-binary=nft",
        "--force-iptables-binary=legacy",
        "--native-nftables",
    ] {
        pods.init_well(&[ALL, &[backend]].concat());
        assert!(answers_nonsense(&pods), "{backend}");
        pods.init_well(&[ALL, &[backend, "--drop-invalid"]].concat());
        assert!(!answers_nonsense(&pods), "{backend} --drop-invalid");
    }
}

#[test]
fn force_apply_writes_rules_that_are_there() {
    let pods = Pods::new("v4");
    for backend in [&["--force-iptables-binary=nft"][..], &["--native-nftables"]] {
        let line = [ALL, backend].concat();
        pods.init_well(&line);
        let before = pods.saved();
        let log = pods.init_well(&[&line[..], &["--force-apply"]].concat());
        assert!(
            log.contains("--force-apply") && !log.contains("nothing to do"),
            "{log}"
        );
        assert_eq!(pods.saved(), before);
    }
}

#[test]
fn rules_move_with_the_backend_and_never_stay_in_two() {
    let pods = Pods::new("dual");
    let backends = [
        "--force-iptables-binary=nft",
        "--force-iptables-binary=legacy",
        "--native-nftables",
        "--force-iptables-binary=legacy",
        "--native-nftables",
        "--force-iptables-binary=nft",
    ];
    for backend in backends {
        pods.init_well(&[ALL, &["--dual-stack", backend]].concat());
        let places = [
            pods.listed("iptables-nft-save"),
            pods.listed("iptables-legacy-save"),
            pods.native(),
        ];
        let full = places.iter().filter(|place| !place.is_empty()).count();
        assert_eq!(full, 1, "{backend}: {places:?}");
    }
}

#[test]
fn ipv6_rules_go_when_they_are_no_longer_wanted() {
    let pods = Pods::new("dual");
    pods.init_well(&[ALL, &["--dual-stack", "-m", "TPROXY"]].concat());
    assert!(pods.routing().contains("::6/128"));
    pods.init_well(ALL);
    assert_eq!(pods.listed("ip6tables-nft-save"), "");
    assert_eq!(pods.routing(), "");
}

#[test]
fn the_log_is_text_or_json_and_as_loud_as_asked() {
    let pods = Pods::new("v4");
    let quiet = pods.init_well(&[ALL, &["--log_output_level=default:warn"]].concat());
    assert_eq!(quiet, "");
    let json = pods.init_well(&[ALL, &["--log_as_json"]].concat());
    for line in json.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["level"], "info", "{line}");
        assert!(value["time"].is_string() && value["msg"].is_string(), "{line}");
    }
    assert!(json.contains("nothing to do"), "{json}");
    let text = pods.init_well(&[ALL, &["--log_output_level=default:debug"]].concat());
    assert!(text.contains("\tinfo\t"), "{text}");
}
