//! Reads a ClientHello from the first bytes of a connection, for the TLS inspector.
//!
//! Pure and without memory: the caller asks again with more bytes. Knows nothing of sockets and does not consume: the
//! handshake reads the same bytes later. Sources: RFC 8446 §4.1.2, §5.1; RFC 6066 §3 (server name); RFC 7301 §3.1 (ALPN);
//! which malformed messages still count as TLS follows Envoy's tls_inspector.

use std::borrow::Cow;

/// Longest ClientHello that is looked at, in bytes of the handshake message. Envoy: `TLS_MAX_CLIENT_HELLO`.
pub(crate) const MAX_CLIENT_HELLO_BYTES: usize = 16 * 1024;
/// Bytes that the inspector ever needs to see: the message and the headers of the records it is cut into.
pub(crate) const MAX_INSPECTED_BYTES: usize = MAX_CLIENT_HELLO_BYTES + 1024;

const RECORD_HEADER_BYTES: usize = 5;
const MESSAGE_HEADER_BYTES: usize = 4;
const MAX_RECORD_BYTES: usize = 1 << 14;
const CONTENT_TYPE_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HelloVerdict {
    /// Could still become a ClientHello.
    NeedMore,
    /// Some other protocol, or TLS that cannot be read.
    NotTls,
    /// TLS, but the ClientHello is longer than [`MAX_CLIENT_HELLO_BYTES`]; Envoy closes the connection.
    TooLarge,
    /// A whole ClientHello.
    Hello(ClientHello),
}

/// What the filter-chain sieve wants to know of a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClientHello {
    /// SNI in lower case, otherwise as sent (`_` and `._.` occur under Istio).
    pub(crate) server_name: Option<String>,
    /// Protocols in the client's order; empty when none, or when the list is malformed.
    pub(crate) alpn: Vec<Vec<u8>>,
}

/// Judges the first bytes of a connection. Answers [`HelloVerdict::NotTls`] as soon as it is certain.
pub(crate) fn inspect(bytes: &[u8]) -> HelloVerdict {
    match message(bytes) {
        Ok(message) => match parse_hello(&message) {
            Some(hello) => HelloVerdict::Hello(hello),
            None => HelloVerdict::NotTls,
        },
        Err(verdict) => verdict,
    }
}

/// The body of the handshake message, joined from its records; borrowed when it lies in one.
fn message(bytes: &[u8]) -> Result<Cow<'_, [u8]>, HelloVerdict> {
    let mut rest = bytes;
    let mut joined: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        let (payload, whole) = record(rest)?;
        if joined.is_empty() {
            joined = Cow::Borrowed(payload);
        } else {
            joined.to_mut().extend_from_slice(payload);
        }
        if let Some(end) = message_end(&joined)?
            && joined.len() >= end
        {
            return Ok(match joined {
                Cow::Borrowed(all) => Cow::Borrowed(all.get(MESSAGE_HEADER_BYTES..end).unwrap_or_default()),
                Cow::Owned(all) => {
                    Cow::Owned(all.get(MESSAGE_HEADER_BYTES..end).unwrap_or_default().to_vec())
                }
            });
        }
        if !whole {
            return Err(HelloVerdict::NeedMore);
        }
        rest = rest
            .get(RECORD_HEADER_BYTES + payload.len()..)
            .unwrap_or_default();
    }
}

/// What has arrived of the record that `bytes` begins with, and whether that is all of it.
fn record(bytes: &[u8]) -> Result<(&[u8], bool), HelloVerdict> {
    // Decided byte by byte, so that a short message of another protocol does not wait for five bytes.
    match bytes {
        [] => return Err(HelloVerdict::NeedMore),
        [kind, ..] if *kind != CONTENT_TYPE_HANDSHAKE => return Err(HelloVerdict::NotTls),
        [_, major, ..] if *major != 3 => return Err(HelloVerdict::NotTls),
        _ => {}
    }
    let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else {
        return Err(HelloVerdict::NeedMore);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length == 0 || length > MAX_RECORD_BYTES {
        return Err(HelloVerdict::NotTls);
    }
    Ok(match rest.get(..length) {
        Some(payload) => (payload, true),
        None => (rest, false),
    })
}

/// Where the message ends, once its header is there.
fn message_end(joined: &[u8]) -> Result<Option<usize>, HelloVerdict> {
    if joined.first().is_some_and(|kind| *kind != MESSAGE_CLIENT_HELLO) {
        return Err(HelloVerdict::NotTls);
    }
    let Some(&[_, high, middle, low]) = joined.first_chunk::<MESSAGE_HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if length > MAX_CLIENT_HELLO_BYTES {
        return Err(HelloVerdict::TooLarge);
    }
    Ok(Some(MESSAGE_HEADER_BYTES + length))
}

/// `None`: not a well-formed ClientHello.
fn parse_hello(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    reader.take(2)?; // legacy_version
    reader.take(32)?; // random
    reader.vector8()?; // legacy_session_id
    reader.vector16()?; // cipher_suites
    reader.vector8()?; // legacy_compression_methods
    let mut hello = ClientHello::default();
    if reader.is_empty() {
        return Some(hello); // TLS 1.2 allows a ClientHello without extensions
    }
    let mut extensions = Reader(reader.vector16()?);
    if !reader.is_empty() {
        return None;
    }
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector16()?;
        match kind {
            EXTENSION_SERVER_NAME => hello.server_name = Some(server_name(data)?),
            EXTENSION_ALPN => hello.alpn = protocols(data).unwrap_or_default(),
            _ => {}
        }
    }
    Some(hello)
}

/// One host name; BoringSSL refuses every other shape of the extension, and so the connection counts as not TLS in Envoy.
fn server_name(data: &[u8]) -> Option<String> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.vector16()?);
    let kind = list.u8()?;
    let name = list.vector16()?;
    let well_formed = reader.is_empty() && list.is_empty() && kind == 0;
    if !well_formed || name.is_empty() || name.len() > 255 || name.contains(&0) {
        return None;
    }
    Some(String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// The protocol list; `None` when malformed, which Envoy's inspector passes over (the handshake itself will refuse it).
fn protocols(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.vector16()?);
    let mut found = Vec::new();
    while !list.is_empty() {
        let name = list.vector8()?;
        if name.is_empty() {
            return None;
        }
        found.push(name.to_vec());
    }
    reader.is_empty().then_some(found)
}

/// Takes from the front; every method answers `None` when too little is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        let (head, tail) = self.0.split_first()?;
        self.0 = tail;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        let (head, tail) = self.0.split_first_chunk::<2>()?;
        self.0 = tail;
        Some(u16::from_be_bytes(*head))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector16(data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).expect("test input is short");
        [&length.to_be_bytes(), data].concat()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes(), vector16(data).as_slice()].concat()
    }

    fn sni(name: &str) -> Vec<u8> {
        extension(0, &vector16(&[&[0][..], &vector16(name.as_bytes())].concat()))
    }

    fn alpn(names: &[&str]) -> Vec<u8> {
        let list: Vec<u8> = names
            .iter()
            .flat_map(|name| [&[u8::try_from(name.len()).expect("short")], name.as_bytes()].concat())
            .collect();
        extension(16, &vector16(&list))
    }

    /// A ClientHello cut into records of at most `record_bytes`.
    fn hello(extensions: &[Vec<u8>], record_bytes: usize) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0]); // session id
        body.extend([0, 2, 0x13, 1]); // suites
        body.extend([1, 0]); // compression
        if !extensions.is_empty() {
            body.extend(vector16(&extensions.concat()));
        }
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        let message = [&[1, length[1], length[2], length[3]], body.as_slice()].concat();
        message
            .chunks(record_bytes)
            .flat_map(|part| [&[22, 3, 1], vector16(part).as_slice()].concat())
            .collect()
    }

    #[track_caller]
    fn check(bytes: &[u8], server_name: Option<&str>, alpn: &[&str]) {
        let expected = ClientHello {
            server_name: server_name.map(str::to_owned),
            alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
        };
        assert_eq!(inspect(bytes), HelloVerdict::Hello(expected));
    }

    const ISTIO_SNI: &str = "outbound_.9999_._.bill-service.default.svc.cluster.local";

    #[test]
    fn reads_server_name_and_protocols_however_records_are_cut() {
        for record_bytes in [1, 3, 4, 5, 40, 16_384] {
            let bytes = hello(
                &[sni(ISTIO_SNI), alpn(&["istio-http/1.1", "istio", "h2"])],
                record_bytes,
            );
            check(&bytes, Some(ISTIO_SNI), &["istio-http/1.1", "istio", "h2"]);
        }
    }

    #[test]
    fn every_prefix_needs_more() {
        for record_bytes in [7, 16_384] {
            let bytes = hello(&[sni(ISTIO_SNI), alpn(&["h2"])], record_bytes);
            for end in 0..bytes.len() {
                assert_eq!(inspect(&bytes[..end]), HelloVerdict::NeedMore, "prefix of {end}");
            }
            check(
                &[bytes.as_slice(), b"what follows"].concat(),
                Some(ISTIO_SNI),
                &["h2"],
            );
        }
    }

    #[test]
    fn server_name_is_lower_cased_and_extensions_are_optional() {
        check(&hello(&[sni("A_b.Example")], 16_384), Some("a_b.example"), &[]);
        check(&hello(&[], 16_384), None, &[]);
        check(&hello(&[extension(10, b"xx")], 16_384), None, &[]);
    }

    #[test]
    fn other_protocols_are_known_from_their_first_bytes() {
        for bytes in [
            &b"G"[..],
            b"GET / HTTP/1.1\r\n",
            b"\x16\x02",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\xff\xff",
        ] {
            assert_eq!(inspect(bytes), HelloVerdict::NotTls, "{bytes:?}");
        }
        // A server hello is not what a client begins with.
        assert_eq!(inspect(b"\x16\x03\x03\x00\x04\x02"), HelloVerdict::NotTls);
    }

    #[test]
    fn malformed_server_name_is_not_tls_and_malformed_alpn_is_no_alpn() {
        for data in [
            &b""[..],
            b"\0\0",
            b"\0\x04\x01\0\x01a",
            b"\0\x03\0\0\0",
            b"\0\x04\0\0\x01\0",
            b"\0\x04\0\0\x01axx",
        ] {
            assert_eq!(
                inspect(&hello(&[extension(0, data)], 16_384)),
                HelloVerdict::NotTls,
                "{data:?}"
            );
        }
        check(
            &hello(&[extension(16, b"\0\x03\x02h2\0"), sni("a")], 16_384),
            Some("a"),
            &[],
        );
        check(&hello(&[extension(16, b"\0\x01\0")], 16_384), None, &[]);
    }

    #[test]
    fn refuses_more_than_16_kib() {
        assert_eq!(
            inspect(&[22, 3, 1, 0x40, 0, 1, 0, 0x40, 1]),
            HelloVerdict::TooLarge
        );
        let long = hello(&[extension(21, &vec![0; 16_200])], 16_000);
        check(&long, None, &[]);
        assert!(long.len() <= MAX_INSPECTED_BYTES);
    }

    #[test]
    fn mutated_input_never_panics() {
        let mut random = fastrand::Rng::with_seed(7);
        for record_bytes in [9, 16_384] {
            let good = hello(&[sni(ISTIO_SNI), alpn(&["istio", "h2"])], record_bytes);
            for _ in 0..20_000 {
                let mut bytes = good.clone();
                for _ in 0..random.usize(1..6) {
                    let at = random.usize(..bytes.len());
                    bytes[at] = random.u8(..);
                }
                bytes.truncate(random.usize(..=bytes.len()));
                inspect(&bytes);
            }
        }
    }
}
