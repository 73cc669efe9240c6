//! Somebody elsewhere: a child in a namespace of its own, joined to this one by a pair of interfaces.
//!
//! The two talk in lines. When this program dies, the child reads the end of its input and goes too, and with its
//! namespace the pair: nothing stays behind.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::poll::{PollTimeout, poll};

use super::candidates::Ends;
use crate::netlink::link;
use crate::throwaway;

/// The word that makes this program the child.
pub const CHILD_WORD: &str = "selftest-peer";
/// Both ends have this name, each in its namespace.
const INTERFACE: &str = "istio-selftest";
/// TEST-NET-3 (RFC 5737) and the documentation prefix (RFC 3849): in use nowhere.
const HERE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const THERE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const HERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1);
const THERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 2);
/// Patience of one connection of the child.
const CONNECT: Duration = Duration::from_millis(1500);
/// What a connection sends: its number, in eight digits.
pub(super) const TOKEN_BYTES: usize = 8;

/// The number that a connection sends about itself.
pub(super) fn token(number: usize) -> [u8; TOKEN_BYTES] {
    let mut token = [b'0'; TOKEN_BYTES];
    let digits = format!("{number:08}");
    for (to, from) in token.iter_mut().zip(digits.bytes()) {
        *to = from;
    }
    token
}

pub(super) fn number(token: &[u8]) -> Option<usize> {
    std::str::from_utf8(token).ok()?.parse().ok()
}

/// What the child tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Connection `number` came to this port of the child.
    Arrived { number: usize, port: u16 },
    /// Connection `number` of the child comes from this address.
    From { number: usize, address: SocketAddr },
}

/// The addresses of both ends.
pub(super) fn addresses(v6: bool) -> Ends {
    let mut pairs: Vec<(IpAddr, IpAddr)> = vec![(HERE_V4.into(), THERE_V4.into())];
    if v6 {
        pairs.push((HERE_V6.into(), THERE_V6.into()));
    }
    Ends {
        interface: INTERFACE,
        pairs,
    }
}

/// The child, joined; gone, with the pair, when dropped.
pub(super) struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(super) addresses: Vec<IpAddr>,
}

impl Peer {
    /// Starts the child and joins it to this thread's namespace.
    ///
    /// # Errors
    /// Why there is nobody, for people.
    pub(super) fn join(v6: bool) -> Result<Self, String> {
        let words = [CHILD_WORD, if v6 { "v6" } else { "v4" }];
        let mut child = throwaway::child(&words).map_err(|error| error.to_string())?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or("the child has no pipes")?;
        let mut peer = Peer {
            child,
            input: Some(input),
            output: BufReader::new(output),
            addresses: addresses(v6).pairs.into_iter().map(|(_, there)| there).collect(),
        };
        peer.expect("ready")?;
        peer.make_pair().map_err(|errno| {
            let why = match errno {
                Errno::EPERM => " (it takes NET_ADMIN)",
                Errno::EOPNOTSUPP => " (the kernel lacks the module veth)",
                _ => "",
            };
            format!("make a pair of interfaces: {errno}{why}")
        })?;
        link::up(INTERFACE).map_err(|errno| format!("set {INTERFACE} up: {errno}"))?;
        for (here, _) in addresses(v6).pairs {
            let bits = prefix_bits(here);
            link::add_address(INTERFACE, here, bits)
                .map_err(|errno| format!("add {here} to {INTERFACE}: {errno}"))?;
        }
        peer.say("joined")?;
        peer.expect("up")?;
        wait_for_link();
        Ok(peer)
    }

    /// Tests take turns, so a pair that is there is of one that was killed just now, whose namespace is still going.
    fn make_pair(&self) -> Result<(), Errno> {
        match link::new_pair(INTERFACE, self.child.id()) {
            Err(Errno::EEXIST) => {
                // It may be gone by itself now.
                let _ = link::delete(INTERFACE);
                link::new_pair(INTERFACE, self.child.id())
            }
            made => made,
        }
    }

    /// Has the child listen on these ports, TCP and UDP.
    pub(super) fn listen(&mut self, tcp: &[u16], udp: &[u16]) -> Result<(), String> {
        let list = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        self.say(&format!("listen\t{}\t{}", list(tcp), list(udp)))?;
        self.expect("listening")
    }

    /// Has the child connect.
    pub(super) fn connect(&mut self, number: usize, to: SocketAddr) -> Result<(), String> {
        self.say(&format!("connect\t{number}\t{to}"))
    }

    /// Ready to read when [`Peer::events`] has something.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.output.get_ref().as_fd()
    }

    /// Reads at least one line, which must be there.
    pub(super) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let mut line = String::new();
            match self.output.read_line(&mut line) {
                Ok(1..) => events.extend(event(line.trim_end())),
                _ => return events,
            }
            if self.output.buffer().is_empty() {
                return events;
            }
        }
    }

    fn say(&mut self, line: &str) -> Result<(), String> {
        let input = self.input.as_mut().ok_or("the child has gone")?;
        writeln!(input, "{line}").map_err(|error| format!("speak to the child: {error}"))
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(_) if line.trim_end() == word => Ok(()),
            Ok(_) => Err(format!("the child says {:?}, not {word}", line.trim_end())),
            Err(error) => Err(format!("listen to the child: {error}")),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The kernel takes the pair away some time after the child; nobody should see it that long.
        let _ = link::delete(INTERFACE);
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

fn prefix_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 30 } else { 126 }
}

/// Waits until packets pass this end. The kernel notices the other end some time after it is up, and drops what is
/// sent before; past half a second, connections find out.
fn wait_for_link() {
    const LONGEST: Duration = Duration::from_millis(500);
    let start = Instant::now();
    let passes = |interface: InterfaceAddress| {
        interface.interface_name == INTERFACE && interface.flags.contains(InterfaceFlags::IFF_RUNNING)
    };
    while start.elapsed() < LONGEST {
        if getifaddrs().is_ok_and(|mut interfaces| interfaces.any(passes)) {
            // The kernel says so a little before it is so, but under a lock that this asks for too.
            let _ = link::up(INTERFACE);
            return;
        }
        let _ = poll(&mut [], PollTimeout::from(2u8));
    }
}

fn event(line: &str) -> Option<Event> {
    let mut words = line.split('\t');
    let kind = words.next()?;
    let number = words.next()?.parse().ok()?;
    let last = words.next()?;
    match kind {
        "arrived" => Some(Event::Arrived {
            number,
            port: last.parse().ok()?,
        }),
        "from" => Some(Event::From {
            number,
            address: last.parse().ok()?,
        }),
        _ => None,
    }
}

/// What the child does, until its input ends.
///
/// # Errors
/// For people: what the parent reads in place of the word it expects.
pub fn child(v6: bool) -> Result<(), String> {
    throwaway::enter().map_err(|error| error.to_string())?;
    say("ready");
    let mut lines = io::stdin().lock().lines().map_while(Result::ok);
    if lines.next().as_deref() != Some("joined") {
        return Ok(());
    }
    for (_, there) in addresses(v6).pairs {
        link::add_address(INTERFACE, there, prefix_bits(there))
            .map_err(|errno| format!("add {there}: {errno}"))?;
    }
    link::up(INTERFACE).map_err(|errno| format!("set {INTERFACE} up: {errno}"))?;
    wait_for_link();
    say("up");
    // Connections stay open until the end: the other side may still have to ask where they come from.
    let open = Arc::new(Mutex::new(BTreeMap::new()));
    for line in lines {
        let words: Vec<&str> = line.split('\t').collect();
        match words.as_slice() {
            ["listen", tcp, udp] => listen(tcp, udp, v6),
            ["connect", number, to] => {
                if let (Ok(number), Ok(to)) = (number.parse(), to.parse()) {
                    let open = Arc::clone(&open);
                    std::thread::spawn(move || {
                        if let Some(stream) = connect(number, to) {
                            open.lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .insert(number, stream);
                        }
                    });
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn connect(number: usize, to: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT).ok()?;
    say(&format!("from\t{number}\t{}", stream.local_addr().ok()?));
    stream.write_all(&token(number)).ok()?;
    Some(stream)
}

/// Ports that cannot be listened on are quiet: connections to them will not arrive.
fn listen(tcp: &str, udp: &str, v6: bool) {
    let any: IpAddr = if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    for port in tcp.split(',').filter_map(|port| port.parse().ok()) {
        if let Ok(listener) = TcpListener::bind((any, port)) {
            std::thread::spawn(move || accept(&listener, port));
        }
    }
    for port in udp.split(',').filter_map(|port| port.parse().ok()) {
        if let Ok(socket) = UdpSocket::bind((any, port)) {
            std::thread::spawn(move || receive(&socket, port));
        }
    }
    say("listening");
}

fn accept(listener: &TcpListener, port: u16) {
    while let Ok((mut stream, _)) = listener.accept() {
        let mut token = [0; TOKEN_BYTES];
        let _ = stream.set_read_timeout(Some(CONNECT));
        if stream.read_exact(&mut token).is_ok() {
            arrived(&token, port);
        }
    }
}

fn receive(socket: &UdpSocket, port: u16) {
    let mut token = [0; TOKEN_BYTES];
    while socket.recv(&mut token).is_ok() {
        arrived(&token, port);
    }
}

fn arrived(token: &[u8], port: u16) {
    if let Some(number) = number(token) {
        say(&format!("arrived\t{number}\t{port}"));
    }
}

/// One whole line; a parent that has gone does not mind.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}
