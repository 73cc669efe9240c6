//! What passed between pods: captures with tcpdump, reads the file, and judges the streams in it.
//!
//! Formats: pcap savefile (tcpdump.org, `pcap-savefile(5)`), Ethernet, IPv4, TCP; TLS records as RFC 8446 §5 and §4.1.3.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::netns::{GATEWAY, Network};
use crate::process::{Process, until};

const PATIENCE: Duration = Duration::from_secs(10);
const ETHERNET: u32 = 1;

/// A running capture of everything on the bridge except the control plane's traffic.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Capture {
    /// Starts it, and waits until it sees packets.
    pub fn start(network: &Network, folder: &Path) -> Self {
        let file = folder.join("bridge.pcap");
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            network.bridge().name(),
            "tcpdump",
            "-Z",
            "root",
            "-n",
            "-U",
            "-s",
            "0",
        ]);
        command.args(["-B", "65536", "-i", "br0", "-w"]).arg(&file);
        command.arg(format!("tcp and not host {GATEWAY}"));
        let tcpdump = Process::start(command, "tcpdump", folder);
        until("tcpdump listens", PATIENCE, || {
            tcpdump.stderr().contains("listening on").then_some(())
        });
        Self { tcpdump, file }
    }

    /// Ends it and reads what it saw.
    pub fn stop(mut self) -> Vec<Conversation> {
        self.tcpdump.signal(Signal::SIGINT);
        self.tcpdump.wait(PATIENCE);
        conversations(&fs::read(&self.file).expect("tcpdump wrote a file"))
    }
}

/// One TCP connection: who opened it, and the bytes each side sent, as far as they were captured without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Who sent SYN, or the first captured segment.
    pub client: SocketAddrV4,
    /// The other.
    pub server: SocketAddrV4,
    /// From the client.
    pub sent: Vec<u8>,
    /// From the server.
    pub received: Vec<u8>,
}

impl Conversation {
    /// Whether every byte of it, both ways, is TLS 1.3. A connection that was given up before the server spoke, or that
    /// the capture saw the beginning of only, is as long as what there is of it fits.
    ///
    /// # Errors
    /// What is not, in words.
    pub fn is_tls13(&self) -> Result<(), String> {
        let sent = records(&self.sent)?;
        let received = records(&self.received)?;
        if sent
            .first()
            .is_some_and(|hello| hello.kind != 22 || hello.body.first() != Some(&1))
        {
            return Err("the client does not begin with a ClientHello".to_owned());
        }
        if let Some(hello) = received.first() {
            if hello.kind != 22 || hello.body.first() != Some(&2) {
                return Err("the server does not begin with a ServerHello".to_owned());
            }
            if selected_version(hello.body) != Some(0x0304) {
                return Err(format!(
                    "the server chose version {:04x?}",
                    selected_version(hello.body)
                ));
            }
        }
        // After the hellos only change_cipher_spec, for old middle boxes, and encrypted records.
        let plain = sent
            .iter()
            .skip(1)
            .chain(received.iter().skip(1))
            .find(|record| !matches!(record.kind, 20 | 23));
        plain.map_or(Ok(()), |record| {
            Err(format!("a record of type {} after the hello", record.kind))
        })
    }

    /// Whether data went both ways.
    pub fn is_complete(&self) -> bool {
        let has_data =
            |bytes: &[u8]| records(bytes).is_ok_and(|records| records.iter().any(|record| record.kind == 23));
        has_data(&self.sent) && has_data(&self.received)
    }
}

#[derive(Clone, Copy, Debug)]
struct Record<'a> {
    kind: u8,
    body: &'a [u8],
}

/// Splits a stream into TLS records; the last may be cut off by the end of the capture.
fn records(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, String> {
    let mut records = Vec::new();
    while let [kind, 3, minor, high, low, rest @ ..] = bytes {
        if !(20..=23).contains(kind) || *minor > 4 {
            return Err(format!("not a TLS record: {:02x?}", &bytes[..5]));
        }
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (body, next) = rest.split_at(length);
        records.push(Record { kind: *kind, body });
        bytes = next;
    }
    match bytes {
        [] => Ok(records),
        [20..=23, ..] if bytes.len() < 5 => Ok(records),
        _ => Err(format!(
            "not TLS: {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(40)])
        )),
    }
}

/// `selected_version` of the extension supported_versions (43) in a ServerHello.
fn selected_version(hello: &[u8]) -> Option<u16> {
    // Type, length (3), legacy version, random (32); then session id, cipher suite, compression, extensions.
    let session = usize::from(*hello.get(38)?);
    let mut extensions = hello.get(39 + session + 5..)?;
    while let [k0, k1, l0, l1, rest @ ..] = extensions {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let body = rest.get(..length)?;
        if u16::from_be_bytes([*k0, *k1]) == 43 {
            return Some(u16::from_be_bytes(body.try_into().ok()?));
        }
        extensions = rest.get(length..)?;
    }
    None
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Flow {
    first: Option<u32>,
    segments: BTreeMap<u32, Vec<u8>>,
}

impl Flow {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (offset, segment) in &self.segments {
            let Some(known) = bytes.len().checked_sub(*offset as usize) else {
                break;
            };
            bytes.extend(segment.get(known..).unwrap_or_default());
        }
        bytes
    }
}

fn conversations(file: &[u8]) -> Vec<Conversation> {
    let mut flows: BTreeMap<(SocketAddrV4, SocketAddrV4), Flow> = BTreeMap::new();
    let mut opened = Vec::new();
    for packet in packets(file) {
        let Some(segment) = segment(packet) else { continue };
        let flow = flows.entry((segment.from, segment.to)).or_default();
        if segment.is_syn {
            flow.first = Some(segment.sequence.wrapping_add(1));
        }
        let first = *flow.first.get_or_insert(segment.sequence);
        if !segment.payload.is_empty() {
            flow.segments
                .insert(segment.sequence.wrapping_sub(first), segment.payload.to_vec());
        }
        if !opened.contains(&(segment.from, segment.to)) && !opened.contains(&(segment.to, segment.from)) {
            opened.push((segment.from, segment.to));
        }
    }
    let bytes = |key| flows.get(&key).map(Flow::bytes).unwrap_or_default();
    opened
        .iter()
        .map(|&(client, server)| Conversation {
            client,
            server,
            sent: bytes((client, server)),
            received: bytes((server, client)),
        })
        .collect()
}

/// Frames of a savefile written by this machine.
fn packets(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let number = |bytes: &[u8]| bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
    let (header, mut rest) = file.split_at_checked(24).expect("a pcap file has a header");
    assert_eq!(number(&header[20..24]), ETHERNET, "link type of the capture");
    std::iter::from_fn(move || {
        let (header, body) = rest.split_at_checked(16)?;
        let (packet, next) = body.split_at_checked(number(&header[8..12]) as usize)?;
        rest = next;
        Some(packet)
    })
}

#[derive(Debug)]
struct Segment<'a> {
    from: SocketAddrV4,
    to: SocketAddrV4,
    sequence: u32,
    is_syn: bool,
    payload: &'a [u8],
}

fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let ip = frame.get(14..).filter(|_| frame.get(12..14) == Some(&[8, 0]))?;
    let header = usize::from(ip.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    // Zero for a segment that the card was to split.
    let tcp = if total == 0 {
        ip.get(header..)?
    } else {
        ip.get(header..total)?
    };
    let address = |at: usize| {
        ip.get(at..at + 4)?
            .first_chunk::<4>()
            .map(|octets| Ipv4Addr::from(*octets))
    };
    let port = |at: usize| {
        tcp.get(at..at + 2)?
            .first_chunk::<2>()
            .map(|bytes| u16::from_be_bytes(*bytes))
    };
    Some(Segment {
        from: SocketAddrV4::new(address(12)?, port(0)?),
        to: SocketAddrV4::new(address(16)?, port(2)?),
        sequence: u32::from_be_bytes(*tcp.get(4..8)?.first_chunk()?),
        is_syn: tcp.get(13)? & 2 != 0,
        payload: tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_hello(version: Option<u16>) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0, 3, 3];
        body.extend([0; 32]);
        body.extend([0, 0x13, 0x01, 0]);
        match version {
            Some(version) => body.extend([0, 6, 0, 43, 0, 2, (version >> 8) as u8, version as u8]),
            None => body.extend([0, 0]),
        }
        record(22, &body)
    }

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 3, 3, 0, body.len() as u8], body].concat()
    }

    fn check(sent: &[&[u8]], received: &[&[u8]], expected: Result<(), &str>) {
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        let conversation = Conversation {
            client: any,
            server: any,
            sent: sent.concat(),
            received: received.concat(),
        };
        let found = conversation.is_tls13();
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(expected)) if found.contains(expected) => {}
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn only_tls_13_passes() {
        let client = record(22, &[1, 0, 0, 0]);
        let data = record(23, b"secret");
        check(
            &[&client, &data],
            &[&server_hello(Some(0x0304)), &record(20, &[1]), &data],
            Ok(()),
        );
        check(&[&client, &data[..7]], &[&server_hello(Some(0x0304))], Ok(()));
        check(
            &[&client],
            &[&server_hello(None)],
            Err("the server chose version"),
        );
        check(
            &[&client, &record(22, &[16])],
            &[&server_hello(Some(0x0304))],
            Err("a record of type 22"),
        );
        check(&[b"GET / HTTP/1.1\r\n\r\n"], &[], Err("not TLS"));
        check(
            &[&client, b"GET / HTTP/1.1\r\n\r\n"],
            &[&server_hello(Some(0x0304))],
            Err("not TLS"),
        );
        check(&[&client], &[], Ok(()));
        check(&[], &[b"SSH-2.0-x\r\n"], Err("not TLS"));
    }
}
