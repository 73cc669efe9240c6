//! A request head: what its bytes mean, and why they may mean nothing.
//! Source: RFC 9112 §§3, 6; Envoy `codec_impl.cc` `onHeadersCompleteImpl`, whose order of checks this is.
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use super::request_line::{self, Protocol};
use super::{fields, target};
use crate::codec::head::{RequestHead, is_upgrade, remove_connection_headers};
use crate::codec::{NameCase, Refusal, Underscores};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What heads are held against.
#[derive(Debug, Clone)]
pub(in crate::codec::h1) struct HeadLimits {
    /// Bytes of a head, and of trailers.
    pub(in crate::codec::h1) max_bytes: usize,
    /// Lines of a head, and of trailers.
    pub(in crate::codec::h1) max_headers: usize,
    /// HTTP/1.0 is answered.
    pub(in crate::codec::h1) accept_http_10: bool,
    /// Chunks beside a length are no fault; the length is forgotten.
    pub(in crate::codec::h1) takes_chunked_length: bool,
    /// Whether names of headers are kept as they are written.
    pub(in crate::codec::h1) name_case: NameCase,
    /// Trailers are of use.
    pub(in crate::codec::h1) passes_trailers: bool,
    /// What becomes of `_` in names of headers.
    pub(in crate::codec::h1) underscores: Underscores,
}

/// A head that was understood.
#[derive(Debug)]
pub(in crate::codec::h1) struct ReceivedHead {
    /// For the stream. The scheme is the connection's to know; it is `http` here.
    pub(in crate::codec::h1) head: RequestHead,
    /// How its body is told from the next head.
    pub(in crate::codec::h1) framing: Framing,
    /// The client wants another request on this connection.
    pub(in crate::codec::h1) keep_alive: bool,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::codec::h1) enum Framing {
    /// So many bytes; mostly none.
    Length(u64),
    /// Until its last chunk.
    Chunked,
    /// All that comes after a CONNECT or a request to change the protocol: it is for the other end of the tunnel, and no request.
    Tunnel,
}

/// Why a head, or a chunked body, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::codec::h1) enum Reason {
    /// Not HTTP.
    Codec,
    /// Control characters.
    InvalidCharacters,
    /// More bytes than allowed.
    HeadersTooLarge,
    /// More lines than allowed.
    TooManyHeaders,
    /// A name with `_`, where that is not wanted.
    Underscore,
    /// A CONNECT with a body.
    BodyDisallowed,
    /// Two ways of framing: how requests are smuggled.
    LengthAndChunked,
    /// Something else than `chunked`.
    TransferEncoding,
    /// A target that leads nowhere.
    InvalidUrl,
    /// Neither http nor https.
    InvalidScheme,
    /// Not HTTP/1.1.
    LowVersion,
    /// A Host that is none.
    InvalidAuthority,
}

impl Reason {
    /// What the client is told, and what is logged. Source: Envoy 1.40 itself, see tests/it/alone/http1.rs.
    pub(in crate::codec::h1) fn refusal(self) -> Refusal {
        let (status, details) = match self {
            Self::Codec => (StatusCode::BAD_REQUEST, "http1.codec_error"),
            Self::InvalidCharacters => (StatusCode::BAD_REQUEST, "http1.invalid_characters"),
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "http1.headers_too_large",
            ),
            Self::TooManyHeaders => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "http1.too_many_headers",
            ),
            Self::Underscore => (StatusCode::BAD_REQUEST, "http1.unexpected_underscore"),
            Self::BodyDisallowed => (StatusCode::BAD_REQUEST, "http1.body_disallowed"),
            Self::LengthAndChunked => (
                StatusCode::BAD_REQUEST,
                "http1.content_length_and_chunked_not_allowed",
            ),
            Self::TransferEncoding => (StatusCode::NOT_IMPLEMENTED, "http1.invalid_transfer_encoding"),
            Self::InvalidUrl => (StatusCode::BAD_REQUEST, "http1.invalid_url"),
            Self::InvalidScheme => (StatusCode::BAD_REQUEST, "http1.invalid_scheme"),
            Self::LowVersion => (StatusCode::UPGRADE_REQUIRED, "low_version"),
            Self::InvalidAuthority => (StatusCode::BAD_REQUEST, "http.invalid_authority"),
        };
        Refusal::protocol_error(status, details)
    }
}

/// The first line of a head that is not here yet as a whole cannot be that of a request.
pub(super) fn begins_badly(line: &[u8]) -> Result<(), Reason> {
    first_line(line).map(drop)
}

fn first_line(line: &[u8]) -> Result<request_line::RequestLine<'_>, Reason> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.iter().copied().any(fields::is_invalid) {
        return Err(Reason::InvalidCharacters);
    }
    request_line::parse(line)
}

/// Reads a whole head, its empty line included.
///
/// # Errors
/// Any [`Reason`] but [`Reason::HeadersTooLarge`].
pub(super) fn parse(bytes: &Bytes, limits: &HeadLimits) -> Result<ReceivedHead, Reason> {
    let line_end = memchr::memchr(b'\n', bytes).ok_or(Reason::Codec)?;
    let line = first_line(bytes.get(..line_end).unwrap_or_default())?;
    let mut headers = fields::parse(
        &bytes.slice(line_end + 1..),
        limits.max_headers,
        &limits.underscores,
    )?;
    let method = Method::from_bytes(line.method).map_err(|_| Reason::Codec)?;
    let is_upgrade = method != Method::CONNECT && is_upgrade(&headers);
    let framing = match framing(&mut headers, &method, limits.takes_chunked_length)? {
        _ if is_upgrade => Framing::Tunnel,
        framing => framing,
    };
    let target = target::parse(bytes.slice_ref(line.target), &method)?;
    let version = match line.version {
        Protocol::Http11 => Version::HTTP_11,
        Protocol::Http10 if limits.accept_http_10 => Version::HTTP_10,
        Protocol::Http10 => return Err(Reason::LowVersion),
    };
    let keep_alive = keep_alive(&headers, version);
    if is_upgrade {
        // The rest of them is for whoever speaks the other protocol, too.
        headers.remove(KEEP_ALIVE);
        headers.remove(PROXY_CONNECTION);
    } else {
        remove_connection_headers(&mut headers);
    }
    let authority = match target.authority {
        Some(authority) => authority,
        None => host(&mut headers)?,
    };
    Ok(ReceivedHead {
        head: RequestHead {
            method,
            path: target.path,
            authority,
            scheme: "http",
            version,
            headers,
            is_upgrade: framing == Framing::Tunnel,
        },
        framing,
        keep_alive,
    })
}

fn framing(headers: &mut HeaderMap, method: &Method, takes_both: bool) -> Result<Framing, Reason> {
    let length = content_length(headers)?;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next();
    let connect = *method == Method::CONNECT;
    if connect && length.is_some_and(|length| length > 0) {
        return Err(Reason::BodyDisallowed);
    }
    let Some(coding) = coding else {
        return Ok(if connect {
            Framing::Tunnel
        } else {
            Framing::Length(length.unwrap_or(0))
        });
    };
    let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if length.is_some() && !(takes_both && is_chunked) {
        return Err(Reason::LengthAndChunked);
    }
    if connect || codings.next().is_some() || !is_chunked {
        return Err(Reason::TransferEncoding);
    }
    if length.is_some() {
        headers.remove(CONTENT_LENGTH);
    }
    Ok(Framing::Chunked)
}

/// RFC 9110 §8.6 allows equal lengths, Envoy does not.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Reason> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    let digits = length.as_bytes();
    // `u64::from_str` takes a sign.
    if lengths.next().is_some() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Reason::Codec);
    }
    let length = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok());
    length.map(Some).ok_or(Reason::Codec)
}

/// RFC 9112 §9.3. As Envoy, `proxy-connection` counts too.
fn keep_alive(headers: &HeaderMap, version: Version) -> bool {
    let said = |token: &[u8]| {
        [CONNECTION, PROXY_CONNECTION].iter().any(|name| {
            let mut values = headers.get_all(name).iter();
            values.any(|value| {
                let mut tokens = value.as_bytes().split(|byte| *byte == b',');
                tokens.any(|said| said.trim_ascii().eq_ignore_ascii_case(token))
            })
        })
    };
    match version {
        Version::HTTP_11 => !said(b"close"),
        _ => said(b"keep-alive") && !said(b"close"),
    }
}

/// As Envoy, several become one that no virtual host has. An absent one is the connection manager's to answer.
fn host(headers: &mut HeaderMap) -> Result<HeaderValue, Reason> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(first) = hosts.next().cloned() else {
        return Ok(HeaderValue::from_static(""));
    };
    let mut host = first;
    if let Some(second) = hosts.next() {
        let mut joined = host.as_bytes().to_vec();
        for more in std::iter::once(second).chain(hosts) {
            joined.push(b',');
            joined.extend_from_slice(more.as_bytes());
        }
        host = HeaderValue::from_maybe_shared(Bytes::from(joined)).map_err(|_| Reason::Codec)?;
        headers.insert(HOST, host.clone());
    }
    if !target::is_authority_text(host.as_bytes()) {
        return Err(Reason::InvalidAuthority);
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        max_bytes: 1000,
        max_headers: 5,
        accept_http_10: false,
        takes_chunked_length: false,
        name_case: NameCase::Lower,
        passes_trailers: false,
        underscores: Underscores::Allow,
    };

    fn received(text: &str, limits: HeadLimits) -> Result<ReceivedHead, Reason> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), &limits)
    }

    fn check(line: &str, headers: &str, expected: Result<Framing, Reason>) {
        let text = format!("{line}\r\n{headers}\r\n");
        assert_eq!(
            received(&text, LIMITS).map(|head| head.framing),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn framing_is_told_by_length_or_chunks() {
        let post = |headers: &str, expected| check("POST / HTTP/1.1", headers, expected);
        post("", Ok(Framing::Length(0)));
        post("content-length: 0005\r\n", Ok(Framing::Length(5)));
        post("Transfer-Encoding: CHUNKED\t\r\n", Ok(Framing::Chunked));
        for length in ["", "-5", "+5", "0x5", "5, 5", "5 5", "18446744073709551616"] {
            post(&format!("content-length: {length}\r\n"), Err(Reason::Codec));
        }
        post("content-length: 5\r\ncontent-length: 5\r\n", Err(Reason::Codec));
        post(
            "content-length: 5\r\ntransfer-encoding: gzip\r\n",
            Err(Reason::LengthAndChunked),
        );
        for coding in [
            "gzip, chunked",
            "chunked, chunked",
            "identity",
            "",
            "\"chunked\"",
            "chunked;a",
        ] {
            post(
                &format!("transfer-encoding: {coding}\r\n"),
                Err(Reason::TransferEncoding),
            );
        }
        let both = "POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: CHUNKED\r\n\r\n";
        let limits = HeadLimits {
            takes_chunked_length: true,
            ..LIMITS
        };
        let head = received(both, limits).expect("a head");
        assert_eq!(head.framing, Framing::Chunked);
        assert!(!head.head.headers.contains_key(CONTENT_LENGTH));
        let twice = "transfer-encoding: chunked\r\n".repeat(2);
        post(&twice, Err(Reason::TransferEncoding));
    }

    #[test]
    fn a_connect_has_no_body() {
        let connect = |headers: &str, expected| check("CONNECT a:1 HTTP/1.1", headers, expected);
        connect("content-length: 0\r\n", Ok(Framing::Tunnel));
        connect("content-length: 1\r\n", Err(Reason::BodyDisallowed));
        connect("transfer-encoding: chunked\r\n", Err(Reason::TransferEncoding));
    }

    #[test]
    fn the_first_fault_in_envoys_order_is_named() {
        check(
            "GET * HTTP/1.0",
            "host: a b\r\ntransfer-encoding: x\r\n",
            Err(Reason::TransferEncoding),
        );
        check("GET * HTTP/1.0", "host: a b\r\n", Err(Reason::InvalidUrl));
        check("GET / HTTP/1.0", "host: a b\r\n", Err(Reason::LowVersion));
        check("GET / HTTP/1.1", "host: a b\r\n", Err(Reason::InvalidAuthority));
        check("GET http://b/ HTTP/1.1", "host: a b\r\n", Ok(Framing::Length(0)));
        check(
            "GET / HTTP/1.1",
            &"x: 1\r\n".repeat(6),
            Err(Reason::TooManyHeaders),
        );
    }

    #[test]
    fn hosts_are_joined() {
        let head = received("GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\nhost: b\r\n\r\n", LIMITS)
            .expect("a head")
            .head;
        assert_eq!((head.authority.as_bytes(), head.headers.len()), (&b"a,b"[..], 2));
        let named = received("GET / HTTP/1.1\r\nhost: a\r\nconnection: host\r\n\r\n", LIMITS)
            .expect("a head")
            .head;
        assert!(named.headers.is_empty() && named.authority.is_empty());
    }

    #[test]
    fn connections_are_kept_unless_somebody_says_close() {
        let check = |version: &str, headers: &str, expected| {
            let limits = HeadLimits {
                accept_http_10: true,
                ..LIMITS
            };
            let head = received(&format!("GET / {version}\r\n{headers}\r\n"), limits).expect("a head");
            assert_eq!(head.keep_alive, expected, "{version} {headers:?}");
        };
        check("HTTP/1.1", "", true);
        check("HTTP/1.1", "connection: x, Close\r\n", false);
        check("HTTP/1.1", "proxy-connection: close\r\n", false);
        check("HTTP/1.0", "", false);
        check("HTTP/1.0", "connection: Keep-Alive\r\n", true);
    }
}
