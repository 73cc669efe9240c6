//! Listener filters: what a connection is, told from its first bytes, which stay in a buffer for the next layer.
//! Source: Envoy docs, listener filters; contract §1.3 (predicates, no timeout by default).
pub(crate) mod proxy_protocol;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use outrigger_model::listener::{ListenerFilter, ListenerFilterKind, ListenerPredicate, TlsInspector};
use outrigger_model::metadata::Metadata;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use self::proxy_protocol::ProxyProtocol;
use crate::codec::h2;
use crate::net::connect::OriginalSource;
use crate::net::original_dst::original_dst;
use crate::net::proxy_protocol::Tlv;
use crate::network_filter::limits::Rate;
use crate::stats::Registry;
use crate::tls::client_hello::{self, HelloVerdict, MAX_INSPECTED_BYTES};

/// First bytes read at once; a ClientHello usually fits.
const FIRST_READ_BYTES: usize = 2048;
const LONG_HELLO: &str = "the client's ClientHello is too long";
/// As Envoy's http_inspector: a request line that long is none.
const MAX_REQUEST_LINE_BYTES: usize = 8192;

/// A listener filter at run time.
#[derive(Debug)]
pub(crate) struct Inspector {
    kind: InspectorKind,
    disabled: Option<ListenerPredicate>,
}

#[derive(Debug)]
enum InspectorKind {
    OriginalDst,
    Tls(TlsInspector),
    Http,
    ProxyProtocol(ProxyProtocol),
    OriginalSrc { mark: Option<u32> },
    Rate(Rate),
}

impl Inspector {
    /// Builds it, with its counters.
    pub(crate) fn new(config: &ListenerFilter, registry: &Registry) -> Self {
        let kind = match &config.kind {
            ListenerFilterKind::OriginalDst => InspectorKind::OriginalDst,
            ListenerFilterKind::TlsInspector(config) => InspectorKind::Tls(*config),
            ListenerFilterKind::HttpInspector => InspectorKind::Http,
            ListenerFilterKind::OriginalSrc { mark } => InspectorKind::OriginalSrc { mark: *mark },
            ListenerFilterKind::LocalRateLimit(config) => {
                InspectorKind::Rate(Rate::of_listener(config, registry))
            }
            ListenerFilterKind::ProxyProtocol(config) => {
                InspectorKind::ProxyProtocol(ProxyProtocol::new(config, registry))
            }
        };
        Self {
            kind,
            disabled: config.disabled.clone(),
        }
    }
}

/// What the inspectors found.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    /// Destination before REDIRECT, or as a PROXY header says, when it differs from the socket's.
    pub(crate) original_dst: Option<SocketAddr>,
    /// The client, as a PROXY header says.
    pub(crate) source: Option<SocketAddr>,
    /// There was a PROXY header, with these TLVs to pass on.
    pub(crate) proxy_tlvs: Option<Arc<[Tlv]>>,
    /// Connections to servers come from there.
    pub(crate) original_source: Option<OriginalSource>,
    /// What is known of the connection besides.
    pub(crate) metadata: Option<Box<Metadata>>,
    /// The first bytes are a ClientHello.
    pub(crate) tls: bool,
    /// SNI.
    pub(crate) server_name: Option<String>,
    /// ALPN of the ClientHello, or the HTTP inspector's `http/1.0`, `http/1.1`, `h2c`.
    pub(crate) application_protocols: Vec<Vec<u8>>,
    /// What was read.
    pub(crate) buffer: BytesMut,
}

/// Why a connection ends before it is known what it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    /// The peer left.
    #[error("the client closed its side before it was known what it wants")]
    Closed,
    /// The connection failed.
    #[error("reading its first bytes: {0}")]
    Io(#[from] io::Error),
    /// An inspector does not want it, and has counted that.
    #[error("{0}")]
    Refused(&'static str),
}

/// Runs the filters in order.
///
/// # Errors
/// See [`InspectError`].
pub(crate) async fn run(
    filters: &[Inspector],
    stream: &mut TcpStream,
    local: SocketAddr,
    found: &mut Inspection,
) -> Result<(), InspectError> {
    for filter in filters {
        let destination = found.original_dst.unwrap_or(local);
        if filter
            .disabled
            .as_ref()
            .is_some_and(|disabled| holds(disabled, destination.port()))
        {
            continue;
        }
        match &filter.kind {
            InspectorKind::OriginalDst => {
                // Where the kernel knows none, what a PROXY header said stays.
                if let Some(address) = original_dst(stream) {
                    found.original_dst = (address != local).then_some(address);
                }
            }
            InspectorKind::Tls(config) => inspect_tls(config, stream, found).await?,
            // As in Envoy, TLS is not looked into for HTTP.
            InspectorKind::Http if !found.tls => inspect_http(stream, found).await?,
            InspectorKind::Http => {}
            InspectorKind::OriginalSrc { mark } => {
                let source = found.source.map_or_else(|| stream.peer_addr(), Ok)?;
                found.original_source = Some(OriginalSource {
                    address: source.ip(),
                    mark: *mark,
                });
            }
            InspectorKind::Rate(rate) => {
                if !rate.admits() {
                    return Err(InspectError::Refused("connections come too fast"));
                }
            }
            InspectorKind::ProxyProtocol(filter) => filter.run(stream, local, found).await?,
        }
    }
    Ok(())
}

fn holds(predicate: &ListenerPredicate, port: u16) -> bool {
    match predicate {
        ListenerPredicate::Any => true,
        ListenerPredicate::DestinationPort { start, end } => (*start..*end).contains(&u32::from(port)),
        ListenerPredicate::Or(parts) => parts.iter().any(|part| holds(part, port)),
        ListenerPredicate::And(parts) => parts.iter().all(|part| holds(part, port)),
        ListenerPredicate::Not(part) => !holds(part, port),
    }
}

async fn read_more(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<(), InspectError> {
    buffer.reserve(FIRST_READ_BYTES);
    match stream.read_buf(buffer).await? {
        0 => Err(InspectError::Closed),
        _ => Ok(()),
    }
}

async fn inspect_tls(
    config: &TlsInspector,
    stream: &mut TcpStream,
    found: &mut Inspection,
) -> Result<(), InspectError> {
    let most = config
        .most_hello_bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(MAX_INSPECTED_BYTES);
    loop {
        if !found.buffer.is_empty() {
            // As Envoy, which peeks at no more.
            let seen = found.buffer.get(..most).unwrap_or(&found.buffer);
            match client_hello::inspect(seen) {
                HelloVerdict::Hello(hello) => {
                    found.tls = true;
                    found.server_name = hello.server_name;
                    found.application_protocols = hello.alpn;
                    return Ok(());
                }
                HelloVerdict::NotTls if config.closes_others => {
                    return Err(InspectError::Refused("the client does not speak TLS"));
                }
                HelloVerdict::NotTls => return Ok(()),
                HelloVerdict::TooLarge => return Err(InspectError::Refused(LONG_HELLO)),
                HelloVerdict::NeedMore if found.buffer.len() >= most => {
                    return Err(InspectError::Refused(LONG_HELLO));
                }
                HelloVerdict::NeedMore => {}
            }
        }
        read_more(stream, &mut found.buffer).await?;
    }
}

async fn inspect_http(stream: &mut TcpStream, found: &mut Inspection) -> Result<(), InspectError> {
    loop {
        if !found.buffer.is_empty() {
            match http_verdict(&found.buffer) {
                HttpVerdict::NeedMore if found.buffer.len() < MAX_REQUEST_LINE_BYTES => {}
                HttpVerdict::Is(protocol) => {
                    found.application_protocols = vec![protocol.to_vec()];
                    return Ok(());
                }
                HttpVerdict::NeedMore | HttpVerdict::IsNot => return Ok(()),
            }
        }
        read_more(stream, &mut found.buffer).await?;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum HttpVerdict {
    NeedMore,
    IsNot,
    Is(&'static [u8]),
}

/// Whether bytes begin an HTTP request: the HTTP/2 preface, or a method and, once its line is whole, a version.
fn http_verdict(bytes: &[u8]) -> HttpVerdict {
    match h2::begins_with_preface(bytes) {
        Some(true) => return HttpVerdict::Is(b"h2c"),
        None => return HttpVerdict::NeedMore,
        Some(false) => {}
    }
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let whole = line.len() < bytes.len();
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    if !method
        .iter()
        .all(|byte| byte.is_ascii_alphabetic() || b"!#$%&'*+-.^_`|~".contains(byte))
        || method.len() > 32
    {
        return HttpVerdict::IsNot;
    }
    if !whole {
        return HttpVerdict::NeedMore;
    }
    match words.next_back() {
        Some(b"HTTP/1.1") => HttpVerdict::Is(b"http/1.1"),
        Some(b"HTTP/1.0") => HttpVerdict::Is(b"http/1.0"),
        _ => HttpVerdict::IsNot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: HttpVerdict) {
        assert_eq!(http_verdict(bytes), expected, "{}", bytes.escape_ascii());
    }

    #[test]
    fn recognises_requests_by_their_first_line() {
        check(b"GET / HTTP/1.1\r\nHost", HttpVerdict::Is(b"http/1.1"));
        check(b"GET / HTTP/1.0\r\n", HttpVerdict::Is(b"http/1.0"));
        check(b"GET / HTT", HttpVerdict::NeedMore);
        check(b"PRI * HT", HttpVerdict::NeedMore);
        check(h2::PREFACE, HttpVerdict::Is(b"h2c"));
        check(b"\x16\x03\x01", HttpVerdict::IsNot);
        check(b"hello world\n", HttpVerdict::IsNot);
        check(b"*1\r\n$4\r\nPING\r\n", HttpVerdict::IsNot);
    }

    #[test]
    fn predicates_combine() {
        let port = |start, end| ListenerPredicate::DestinationPort { start, end };
        let either = ListenerPredicate::Or(vec![port(9999, 10_000), port(15_006, 15_007)]);
        assert!(holds(&either, 9999));
        assert!(!holds(&either, 10_000));
        assert!(holds(&ListenerPredicate::Not(Box::new(either)), 80));
    }
}
