//! Connections, and where they end.
//!
//! A probe is `WHO[@SOURCE] tcp|udp ADDRESS:PORT END`. `app` is uid and gid 1000, `proxy` 1337, `1:2` any others, all
//! in the pod; `peer` is outside. Ends: `outbound` and `inbound` are the proxy's ports and must still know where
//! the connection was meant to go, `dns` is its resolver, `direct` the address itself, in the pod or at the peer.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::pods::Pods;

const PATIENCE: Duration = Duration::from_secs(5);
/// Ports of the proxy in the cases, each with the end that it is.
const OUTBOUND: [u16; 2] = [15001, 25001];
const INBOUND: [u16; 2] = [15006, 25006];
const RESOLVER: u16 = 15053;
const IN_POD: [u16; 8] = [22, 53, 80, 8080, 9000, 15008, 15090, 25008];
const AT_PEER: [u16; 7] = [53, 80, 443, 3306, 5000, 8080, 9042];
const PROXY: (u32, u32) = (1337, 1337);

/// Listens everywhere, in both namespaces.
pub(super) struct Listeners {
    pod: String,
    peer: String,
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Listeners {
    pub(super) fn new(pods: &Pods) -> Self {
        let (pod, peer) = (pods.pod.clone(), pods.peer.clone());
        let ports = [OUTBOUND.as_slice(), &INBOUND, &IN_POD].concat();
        let mut tcp = inside(&pod, PROXY, || {
            let mut tcp: Vec<TcpListener> = ports.iter().map(|port| everywhere(*port)).collect();
            let resolver =
                ["127.0.0.1", "[::1]"].map(|ip| TcpListener::bind(format!("{ip}:{RESOLVER}")).unwrap());
            tcp.extend(resolver);
            tcp
        });
        tcp.extend(inside(&peer, PROXY, || AT_PEER.map(everywhere)));
        // Each address by itself, so that answers come from it.
        let mut udp = inside(&pod, PROXY, || {
            let resolver = ["127.0.0.1:15053", "[::1]:15053", "127.0.0.53:53"];
            resolver
                .map(|address| UdpSocket::bind(address).unwrap())
                .to_vec_of()
        });
        udp.extend(inside(&peer, PROXY, || {
            let servers = ["10.96.0.10", "10.96.0.53", "[fd00:96::10]", "[fd00:96::53]"];
            let sockets = servers
                .iter()
                .filter_map(|server| UdpSocket::bind(format!("{server}:53")).ok());
            sockets.collect::<Vec<_>>()
        }));
        for listener in &tcp {
            listener.set_nonblocking(true).unwrap();
        }
        for socket in &udp {
            socket.set_nonblocking(true).unwrap();
        }
        Listeners { pod, peer, tcp, udp }
    }

    /// Makes the connection of `probe` and says what is wrong with where it ended.
    pub(super) fn check(&self, probe: &str) -> Result<(), String> {
        let words: Vec<&str> = probe.split(' ').collect();
        let [who, protocol, to, expected] = words.as_slice() else {
            panic!("{probe}: not a probe");
        };
        let (who, source) = who
            .split_once('@')
            .map_or((*who, None), |(who, source)| (who, Some(source)));
        let source: Option<IpAddr> = source.map(|source| source.parse().unwrap());
        let namespace = if who == "peer" { &self.peer } else { &self.pod };
        let owner = owner(who);
        let to: SocketAddr = to.parse().unwrap();
        let found = match *protocol {
            "tcp" => self.tcp(namespace, owner, source, to),
            "udp" => self.udp(namespace, owner, to),
            other => panic!("{probe}: {other}"),
        };
        match found {
            Ok(found) if found == *expected => Ok(()),
            Ok(found) => Err(format!("{probe}: it was {found}")),
            Err(error) => Err(format!("{probe}: {error}")),
        }
    }

    /// Once a word has come through, so that a connection that merely seems to be there does not count.
    fn tcp(
        &self,
        namespace: &str,
        owner: (u32, u32),
        source: Option<IpAddr>,
        to: SocketAddr,
    ) -> Result<String, String> {
        let client = inside(namespace, owner, || connected(source, to));
        let mut client = client.map_err(|errno| errno.to_string())?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mut accepted = self.tcp.iter().filter_map(|listener| listener.accept().ok());
            let Some((mut server, _)) = accepted.next() else {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            };
            server.set_nonblocking(false).unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(b"word").map_err(|error| error.to_string())?;
            let mut word = [0; 4];
            server.read_exact(&mut word).map_err(|error| error.to_string())?;
            return end(&server, to);
        }
        Err("connected, but to none of the listeners".to_owned())
    }

    /// A question and its answer, which must come from where the question was sent.
    fn udp(&self, namespace: &str, owner: (u32, u32), to: SocketAddr) -> Result<String, String> {
        let client = inside(namespace, owner, || {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let client = UdpSocket::bind(any)?;
            client.connect(to)?;
            client.send(b"question")?;
            client.set_read_timeout(Some(PATIENCE))?;
            Ok(client)
        });
        let client = client.map_err(|error: std::io::Error| error.to_string())?;
        let deadline = Instant::now() + PATIENCE;
        let mut question = [0; 16];
        while Instant::now() < deadline {
            let asked = self
                .udp
                .iter()
                .find_map(|server| Some((server, server.recv_from(&mut question).ok()?.1)));
            let Some((server, from)) = asked else {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            };
            let local = server.local_addr().unwrap();
            let name = match local.port() {
                RESOLVER => "dns",
                _ if local == to => "direct",
                _ => "elsewhere",
            };
            server
                .send_to(name.as_bytes(), from)
                .map_err(|error| error.to_string())?;
            let mut answer = [0; 16];
            let length = client
                .recv(&mut answer)
                .map_err(|error| format!("asked {name}, no answer: {error}"))?;
            return Ok(String::from_utf8_lossy(&answer[..length]).into_owned());
        }
        Err("the question arrived nowhere".to_owned())
    }
}

trait ToVec<T> {
    fn to_vec_of(self) -> Vec<T>;
}

impl<T, const N: usize> ToVec<T> for [T; N] {
    fn to_vec_of(self) -> Vec<T> {
        self.into()
    }
}

fn owner(who: &str) -> (u32, u32) {
    match who {
        "app" => (1000, 1000),
        "proxy" => PROXY,
        "peer" => (0, 0),
        ids => {
            let (uid, gid) = ids.split_once(':').unwrap();
            (uid.parse().unwrap(), gid.parse().unwrap())
        }
    }
}

/// The name of the listener that accepted `server`.
fn end(server: &TcpStream, to: SocketAddr) -> Result<String, String> {
    let local = canonical(server.local_addr().unwrap());
    // A transparent socket has the address that the client wanted; its port need not be its listener's.
    if local == to && !OUTBOUND.contains(&to.port()) && !INBOUND.contains(&to.port()) {
        let transparent = getsockopt(server, sockopt::IpTransparent).unwrap();
        return Ok(if transparent { "inbound" } else { "direct" }.to_owned());
    }
    let name = match local.port() {
        port if OUTBOUND.contains(&port) => "outbound",
        port if INBOUND.contains(&port) => "inbound",
        RESOLVER => "dns",
        _ => return Err(format!("arrived at {local}")),
    };
    let meant = original_destination(server, local);
    if meant != to {
        return Err(format!("{name}, but it was meant for {meant}"));
    }
    Ok(name.to_owned())
}

/// Where the client of a redirected connection wanted to go.
pub(super) fn original_destination(server: &TcpStream, local: SocketAddr) -> SocketAddr {
    if local.is_ipv6() {
        let raw = getsockopt(server, sockopt::Ip6tOriginalDst).unwrap();
        return SocketAddr::from((raw.sin6_addr.s6_addr, u16::from_be(raw.sin6_port)));
    }
    let raw = getsockopt(server, sockopt::OriginalDst).unwrap();
    SocketAddr::from((
        Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr)),
        u16::from_be(raw.sin_port),
    ))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Both families. The proxy's inbound ports take connections to any address, as TPROXY hands them over.
fn everywhere(port: u16) -> TcpListener {
    let listener = TcpListener::bind(format!("[::]:{port}")).unwrap();
    if INBOUND.contains(&port) {
        setsockopt(&listener, sockopt::IpTransparent, &true).unwrap();
    }
    listener
}

fn connected(source: Option<IpAddr>, to: SocketAddr) -> nix::Result<TcpStream> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let client = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&client, sockopt::SendTimeout, &TimeVal::new(2, 0))?;
    if let Some(source) = source {
        bind(
            client.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(source, 0)),
        )?;
    }
    connect(client.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(client))
}

/// Runs `work` on a thread of its own inside `namespace`, with file-system ids `owner`: the owner match of the
/// kernel looks at those of the thread that made the socket.
pub(super) fn inside<T: Send>(namespace: &str, owner: (u32, u32), work: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        setfsgid(Gid::from_raw(owner.1));
        setfsuid(Uid::from_raw(owner.0));
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
}
