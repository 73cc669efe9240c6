//! Response heads and bodies as bytes.
//! Source: RFC 9112 §§4, 6; Envoy `codec_impl.cc` `encodeHeadersBase`, `code_utility` for reason phrases.
use std::io::Write as _;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};

use crate::codec::ResponseHead;

/// What of the request decides how its response is written.
#[derive(Debug, Clone, Copy)]
pub(in crate::codec::h1) struct Exchange {
    /// The answer to a HEAD has no body.
    pub(in crate::codec::h1) head_only: bool,
    /// The client does not know chunks.
    pub(in crate::codec::h1) http_10: bool,
    /// After the response the connection closes.
    pub(in crate::codec::h1) close: bool,
    /// The client asked for another protocol: with a 101 it is spoken from then on.
    pub(in crate::codec::h1) upgrade: bool,
    /// It asked for a tunnel: with a success it is one from then on.
    pub(in crate::codec::h1) connect: bool,
    /// The client gets trailers.
    pub(in crate::codec::h1) trailers: bool,
}

impl Exchange {
    /// Of a request.
    pub(in crate::codec::h1) fn new(method: &Method, version: Version) -> Self {
        Self {
            head_only: *method == Method::HEAD,
            http_10: version == Version::HTTP_10,
            close: false,
            upgrade: false,
            connect: *method == Method::CONNECT,
            trailers: false,
        }
    }

    /// The connection is no HTTP after this answer.
    fn is_left(&self, status: StatusCode) -> bool {
        match self.connect {
            true => status.is_success(),
            false => self.upgrade && status == StatusCode::SWITCHING_PROTOCOLS,
        }
    }
}

/// How a response body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::codec::h1) enum BodyCoding {
    /// Not at all.
    None,
    /// As it is; its length was told.
    Plain,
    /// In chunks.
    Chunked,
    /// As it is; the end of the connection is its end.
    UntilClose,
}

/// Writes a response head. `empty`: it is known to have no body.
pub(in crate::codec::h1) fn head(
    out: &mut Vec<u8>,
    response: &ResponseHead,
    exchange: &Exchange,
    empty: bool,
) -> BodyCoding {
    status_line(out, response.status, exchange.http_10);
    if exchange.is_left(response.status) {
        return switching(out, response, exchange.connect);
    }
    // RFC 9110 §8.6, RFC 9112 §6.1: neither framing header there.
    let unframed = response.status.is_informational() || response.status == StatusCode::NO_CONTENT;
    let mut has_length = false;
    for (name, value) in &response.headers {
        if *name == CONNECTION || *name == TRANSFER_ENCODING || (unframed && *name == CONTENT_LENGTH) {
            continue;
        }
        has_length |= *name == CONTENT_LENGTH;
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    if exchange.close {
        line(out, b"connection", b"close");
    } else if exchange.http_10 {
        line(out, b"connection", b"keep-alive");
    }
    let coding = if unframed || response.status == StatusCode::NOT_MODIFIED {
        BodyCoding::None
    } else if has_length {
        if exchange.head_only {
            BodyCoding::None
        } else {
            BodyCoding::Plain
        }
    } else if empty && !exchange.head_only {
        line(out, b"content-length", b"0");
        BodyCoding::None
    } else if exchange.http_10 {
        if exchange.head_only {
            BodyCoding::None
        } else {
            BodyCoding::UntilClose
        }
    } else {
        line(out, b"transfer-encoding", b"chunked");
        if exchange.head_only {
            BodyCoding::None
        } else {
            BodyCoding::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    coding
}

/// The last head of a connection; its `connection` and `upgrade` are the answer.
fn switching(out: &mut Vec<u8>, response: &ResponseHead, connect: bool) -> BodyCoding {
    for (name, value) in &response.headers {
        // RFC 9110 §9.3.6: a length means nothing there. Envoy leaves it.
        if *name != TRANSFER_ENCODING && (connect || *name != CONTENT_LENGTH) {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if connect && response.status != StatusCode::OK {
        line(out, b"connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    BodyCoding::UntilClose
}

/// Writes a 1xx response.
pub(in crate::codec::h1) fn informational(out: &mut Vec<u8>, response: &ResponseHead) {
    status_line(out, response.status, false);
    for (name, value) in &response.headers {
        if ![CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH].contains(name) {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the line before a chunk of `length` bytes, which must not be none.
pub(in crate::codec::h1) fn chunk_begin(out: &mut Vec<u8>, length: usize) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{length:x}\r\n");
}

/// What follows a chunk's data.
pub(in crate::codec::h1) const CHUNK_END: &[u8] = b"\r\n";

/// The end of a body without trailers.
pub(in crate::codec::h1) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The end of one with trailers. As Envoy, their names are in lower case whatever those of headers are.
pub(in crate::codec::h1) fn last_chunk(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    fields(out, trailers);
    out.extend_from_slice(b"\r\n");
}

/// Lines, without the empty one after them.
pub(in crate::codec::h1) fn fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
}

fn status_line(out: &mut Vec<u8>, status: StatusCode, http_10: bool) {
    let version: &[u8] = if http_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
    out.extend_from_slice(version);
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The phrase behind a status; where Envoy's table differs from IANA's, Envoy's.
fn reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        203 => "Non-Authoritative Information",
        102 | 103 | 418 | 451 => "Unknown",
        599 => "Last Unassigned Server Error Code",
        _ => status.canonical_reason().unwrap_or("Unknown"),
    }
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn check(
        status: u16,
        headers: &[(&'static str, &'static str)],
        exchange: &Exchange,
        empty: bool,
        expected: (&str, BodyCoding),
    ) {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let response = ResponseHead {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: pairs.collect::<HeaderMap>(),
        };
        let mut out = Vec::new();
        let coding = head(&mut out, &response, exchange, empty);
        let text = String::from_utf8(out).expect("ASCII").replace("\r\n", "|");
        assert_eq!((text.as_str(), coding), expected);
    }

    const GET: Exchange = Exchange {
        head_only: false,
        http_10: false,
        close: false,
        upgrade: false,
        connect: false,
        trailers: false,
    };
    const HEAD: Exchange = Exchange {
        head_only: true,
        ..GET
    };
    const OLD: Exchange = Exchange {
        http_10: true,
        close: true,
        ..GET
    };
    const LENGTH: &[(&str, &str)] = &[("content-length", "2")];

    #[test]
    fn bodies_are_framed_as_envoy_frames_them() {
        check(
            200,
            LENGTH,
            &GET,
            false,
            ("HTTP/1.1 200 OK|content-length: 2||", BodyCoding::Plain),
        );
        check(
            200,
            &[],
            &GET,
            true,
            ("HTTP/1.1 200 OK|content-length: 0||", BodyCoding::None),
        );
        check(
            200,
            &[],
            &GET,
            false,
            (
                "HTTP/1.1 200 OK|transfer-encoding: chunked||",
                BodyCoding::Chunked,
            ),
        );
        check(
            204,
            LENGTH,
            &GET,
            true,
            ("HTTP/1.1 204 No Content||", BodyCoding::None),
        );
        check(
            304,
            LENGTH,
            &GET,
            true,
            ("HTTP/1.1 304 Not Modified|content-length: 2||", BodyCoding::None),
        );
        check(
            304,
            &[],
            &GET,
            true,
            ("HTTP/1.1 304 Not Modified||", BodyCoding::None),
        );
    }

    #[test]
    fn an_answer_to_head_has_the_framing_and_not_the_body() {
        check(
            200,
            LENGTH,
            &HEAD,
            true,
            ("HTTP/1.1 200 OK|content-length: 2||", BodyCoding::None),
        );
        check(
            200,
            &[],
            &HEAD,
            true,
            ("HTTP/1.1 200 OK|transfer-encoding: chunked||", BodyCoding::None),
        );
    }

    #[test]
    fn the_answer_to_a_connect_is_framed_unless_it_is_yes() {
        let connect = Exchange { connect: true, ..GET };
        let yes = ("HTTP/1.1 200 OK||", BodyCoding::UntilClose);
        check(200, &[], &connect, false, yes);
        let no = ("HTTP/1.1 403 Forbidden|content-length: 2||", BodyCoding::Plain);
        check(403, LENGTH, &connect, false, no);
        let odd = "HTTP/1.1 201 Created|connection: close||";
        check(201, &[], &connect, false, (odd, BodyCoding::UntilClose));
    }

    #[test]
    fn an_old_client_gets_no_chunks() {
        check(
            200,
            &[],
            &OLD,
            false,
            ("HTTP/1.0 200 OK|connection: close||", BodyCoding::UntilClose),
        );
        let kept = Exchange { close: false, ..OLD };
        check(
            200,
            LENGTH,
            &kept,
            false,
            (
                "HTTP/1.0 200 OK|content-length: 2|connection: keep-alive||",
                BodyCoding::Plain,
            ),
        );
    }

    #[test]
    fn reason_phrases_are_envoys() {
        for (status, expected) in [
            (103, "Unknown"),
            (413, "Payload Too Large"),
            (418, "Unknown"),
            (599, "Last Unassigned Server Error Code"),
            (299, "Unknown"),
        ] {
            assert_eq!(reason(StatusCode::from_u16(status).expect("a status")), expected);
        }
    }
}
