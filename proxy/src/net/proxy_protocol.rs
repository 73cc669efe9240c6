//! The PROXY protocol: its header read and written. Pure; knows no socket.
//!
//! Source: HAProxy's proxy-protocol.txt, and where that leaves a choice Envoy: what counts as a header, its limits, what is refused.
//! Checked beside Envoy in tests/it/alone/proxy_protocol.rs.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

/// What a header of version 2 begins with.
pub(crate) const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a header of version 1 begins with.
pub(crate) const V1_SIGNATURE: &[u8] = b"PROXY ";

/// Up to the addresses of version 2.
const V2_FIXED_BYTES: usize = 16;
/// Envoy's limit for the line of version 1, its end included.
const V1_MAX_BYTES: usize = 108;

const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const INET: u8 = 1;
const INET6: u8 = 2;
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;
const INET_BYTES: usize = 12;
const INET6_BYTES: usize = 36;

/// Of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Something that a header of version 2 says besides addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tlv {
    /// Its type.
    pub(crate) kind: u8,
    /// Its value.
    pub(crate) value: Bytes,
}

/// A whole header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// How many bytes it has.
    pub(crate) length: usize,
    /// Source and destination; `None`: those of the connection itself.
    pub(crate) ends: Option<(SocketAddr, SocketAddr)>,
    /// In order.
    pub(crate) tlvs: Vec<Tlv>,
}

/// What first bytes may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Too few to say.
    Unclear,
    /// No header.
    Neither,
    /// A header, which may be wrong or not whole.
    Header(Version),
}

/// What becomes of bytes that are a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    /// More of it has to come.
    NeedMore,
    /// It breaks the rules.
    Wrong,
    /// Whole.
    Whole(Header),
}

/// Which version these bytes begin with. A version is named when it is sure: for version 1 its line is whole then.
pub(crate) fn recognise(bytes: &[u8]) -> Kind {
    if bytes.len() >= V2_FIXED_BYTES {
        if bytes.starts_with(V2_SIGNATURE) {
            return Kind::Header(Version::V2);
        }
        if !bytes.starts_with(V1_SIGNATURE) {
            return Kind::Neither;
        }
    }
    // The signature of version 2 begins so.
    if bytes.starts_with(b"\r\n") {
        return Kind::Unclear;
    }
    match line_bytes(bytes) {
        Some(_) => Kind::Header(Version::V1),
        None if bytes.len() > V1_MAX_BYTES => Kind::Neither,
        None => Kind::Unclear,
    }
}

/// Whether these bytes may become a header of `version`.
pub(crate) fn may_become(version: Version, bytes: &[u8]) -> bool {
    let signature = match version {
        Version::V1 => V1_SIGNATURE,
        Version::V2 => V2_SIGNATURE,
    };
    bytes
        .iter()
        .zip(signature)
        .all(|(byte, expected)| byte == expected)
}

/// Reads what [`recognise`] called a header of `version`.
pub(crate) fn read(version: Version, bytes: &[u8]) -> Reading {
    let header = match version {
        Version::V1 => line_bytes(bytes).and_then(|length| read_v1(bytes.get(..length)?)),
        Version::V2 => match read_v2(bytes) {
            Ok(None) => return Reading::NeedMore,
            Ok(header) => header,
            Err(Invalid) => None,
        },
    };
    let is_unicast = |header: &Header| {
        let mut ends = header
            .ends
            .iter()
            .flat_map(|(source, destination)| [source, destination]);
        ends.all(|end| is_unicast(end.ip()))
    };
    header.filter(is_unicast).map_or(Reading::Wrong, Reading::Whole)
}

/// Bytes of the first line, its end included.
fn line_bytes(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some(end + 2)
}

fn read_v1(line: &[u8]) -> Option<Header> {
    if line.len() > V1_MAX_BYTES {
        return None;
    }
    let text = std::str::from_utf8(line.trim_ascii_end()).ok()?;
    let mut words = text.split(' ');
    let header = |ends| Header {
        length: line.len(),
        ends,
        tlvs: Vec::new(),
    };
    if words.next()? != "PROXY" {
        return None;
    }
    let ip: fn(&str) -> Option<IpAddr> = match words.next()? {
        "UNKNOWN" => return Some(header(None)),
        "TCP4" => |word| Some(IpAddr::V4(word.parse().ok()?)),
        "TCP6" => |word| Some(IpAddr::V6(word.parse().ok()?)),
        _ => return None,
    };
    let (source, destination) = (ip(words.next()?)?, ip(words.next()?)?);
    let (source_port, destination_port) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let ends = (
        SocketAddr::new(source, source_port),
        SocketAddr::new(destination, destination_port),
    );
    words.next().is_none().then(|| header(Some(ends)))
}

/// It breaks the rules.
struct Invalid;

fn read_v2(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    let Some(([.., version_command, family_transport, high, low], rest)) =
        bytes.split_first_chunk::<V2_FIXED_BYTES>()
    else {
        return Ok(None);
    };
    if version_command >> 4 != 2 {
        return Err(Invalid);
    }
    let announced = usize::from(u16::from_be_bytes([*high, *low]));
    let (command, family, transport) = (
        version_command & 0xf,
        family_transport >> 4,
        family_transport & 0xf,
    );
    let length = V2_FIXED_BYTES + announced;
    if command == LOCAL {
        let header = Header {
            length,
            ends: None,
            tlvs: Vec::new(),
        };
        return Ok((rest.len() >= announced).then_some(header));
    }
    let address_bytes = match family {
        INET => INET_BYTES,
        INET6 => INET6_BYTES,
        _ => return Err(Invalid),
    };
    if announced < address_bytes || command != PROXY || ![STREAM, DATAGRAM].contains(&transport) {
        return Err(Invalid);
    }
    let Some(whole) = rest.get(..announced) else {
        return Ok(None);
    };
    let (addresses, tlvs) = whole.split_at(address_bytes);
    let ends = match family {
        INET => ends::<4>(addresses, |octets| Ipv4Addr::from(octets).into()),
        _ => ends::<16>(addresses, |octets| Ipv6Addr::from(octets).into()),
    };
    Ok(Some(Header {
        length,
        ends: Some(ends.ok_or(Invalid)?),
        tlvs: read_tlvs(tlvs).ok_or(Invalid)?,
    }))
}

/// Both addresses, then both ports.
fn ends<const N: usize>(bytes: &[u8], ip: fn([u8; N]) -> IpAddr) -> Option<(SocketAddr, SocketAddr)> {
    let (source, bytes) = bytes.split_first_chunk::<N>()?;
    let (destination, bytes) = bytes.split_first_chunk::<N>()?;
    let (source_port, bytes) = bytes.split_first_chunk::<2>()?;
    let (destination_port, _) = bytes.split_first_chunk::<2>()?;
    Some((
        SocketAddr::new(ip(*source), u16::from_be_bytes(*source_port)),
        SocketAddr::new(ip(*destination), u16::from_be_bytes(*destination_port)),
    ))
}

fn read_tlvs(mut bytes: &[u8]) -> Option<Vec<Tlv>> {
    let mut tlvs = Vec::new();
    while !bytes.is_empty() {
        let ([kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        tlvs.push(Tlv {
            kind: *kind,
            value: Bytes::copy_from_slice(value),
        });
        bytes = rest;
    }
    Some(tlvs)
}

/// A header of version 1. Of two families that of the source is named, as Envoy does.
pub(crate) fn v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let ports = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
}

/// A header of version 2. TLVs that together do not fit are left out, as in Envoy.
pub(crate) fn v2<'a>(
    source: SocketAddr,
    destination: SocketAddr,
    tlvs: impl Iterator<Item = (u8, &'a [u8])>,
) -> Vec<u8> {
    let (family, mut addresses) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (INET, [from.octets(), to.octets()].concat()),
        (from, to) => (INET6, [ipv6(from).octets(), ipv6(to).octets()].concat()),
    };
    addresses.extend(source.port().to_be_bytes());
    addresses.extend(destination.port().to_be_bytes());
    let mut extension = Vec::new();
    for (kind, value) in tlvs {
        // A value that is too long makes the whole too long, whatever its length says.
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        extension.push(kind);
        extension.extend(length.to_be_bytes());
        extension.extend(value);
    }
    let length = u16::try_from(addresses.len() + extension.len()).unwrap_or_else(|_| {
        tracing::warn!(
            bytes = extension.len(),
            "PROXY header to a server goes without TLVs: they are too long"
        );
        extension.clear();
        u16::try_from(addresses.len()).unwrap_or_default()
    });
    let mut header = V2_SIGNATURE.to_vec();
    header.extend([0x20 | PROXY, family << 4 | STREAM]);
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header.extend(extension);
    header
}

/// A header of version 2 that speaks for nobody.
pub(crate) fn v2_local() -> Vec<u8> {
    [V2_SIGNATURE, &[0x20 | LOCAL, 0, 0, 0]].concat()
}

fn ipv6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    }
}

#[cfg(test)]
mod tests;
