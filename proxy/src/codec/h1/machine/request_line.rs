//! The first line of a request: three words. Envoy is generous about what stands between them, and strict about the words.
//! Source: Envoy `balsa_parser.cc`, `isMethodValid`, `isVersionValid`; quiche `BalsaFrame::ProcessFirstLine`.
use super::request::Reason;

/// The three words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    /// One of [`METHODS`].
    pub(super) method: &'a [u8],
    /// Not looked at yet; not empty.
    pub(super) target: &'a [u8],
    /// The version.
    pub(super) version: Protocol,
}

/// What a version is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http11,
    /// Any other: Envoy treats all as HTTP/1.0.
    Http10,
}

/// The methods that Envoy knows; it refuses any other.
const METHODS: [&[u8]; 35] = [
    b"GET",
    b"POST",
    b"PUT",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"TRACE",
    b"ACL",
    b"BIND",
    b"CHECKOUT",
    b"COPY",
    b"LINK",
    b"LOCK",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MOVE",
    b"MSEARCH",
    b"NOTIFY",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SOURCE",
    b"SUBSCRIBE",
    b"UNBIND",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
];

/// Nothing like a method begins with `byte`: what comes is no HTTP, whatever follows.
pub(super) fn cannot_begin(byte: u8) -> bool {
    !byte.is_ascii_alphabetic()
}

/// Reads the line; its end is cut off already.
///
/// # Errors
/// [`Reason::Codec`].
pub(super) fn parse(line: &[u8]) -> Result<RequestLine<'_>, Reason> {
    let (method, rest) = word(line);
    let (target, rest) = word(rest);
    let version = rest.trim_ascii_end();
    if target.is_empty() || !METHODS.contains(&method) {
        return Err(Reason::Codec);
    }
    let version = match version {
        b"HTTP/1.1" => Protocol::Http11,
        // HTTP/0.9 has no version in its line.
        b"" => Protocol::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Protocol::Http10
        }
        _ => return Err(Reason::Codec),
    };
    Ok(RequestLine {
        method,
        target,
        version,
    })
}

/// The bytes before white space, and what follows that.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| is_space(*byte)).unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    let next = rest
        .iter()
        .position(|byte| !is_space(*byte))
        .unwrap_or(rest.len());
    (word, rest.get(next..).unwrap_or_default())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_three_words() {
        let check = |line: &str, expected: Option<(&str, &str, Protocol)>| {
            let found = parse(line.as_bytes()).ok();
            let expected = expected.map(|(method, target, version)| RequestLine {
                method: method.as_bytes(),
                target: target.as_bytes(),
                version,
            });
            assert_eq!(found, expected, "{line:?}");
        };
        check("GET / HTTP/1.1", Some(("GET", "/", Protocol::Http11)));
        check("GET\t /  HTTP/1.1 \t", Some(("GET", "/", Protocol::Http11)));
        check("GET / HTTP/1.0", Some(("GET", "/", Protocol::Http10)));
        check("GET / HTTP/2.0", Some(("GET", "/", Protocol::Http10)));
        check("GET /", Some(("GET", "/", Protocol::Http10)));
        for line in [
            "GET",
            "",
            "get / HTTP/1.1",
            "FOO / HTTP/1.1",
            " GET / HTTP/1.1",
            "GET / b HTTP/1.1",
        ] {
            check(line, None);
        }
        for version in ["HTTP/1", "HTTP/1.11", "http/1.1", "HTTP/1.1x", "HTTP/x.1"] {
            check(&format!("GET / {version}"), None);
        }
    }

    #[test]
    fn the_first_byte_tells_what_is_no_http() {
        assert!(METHODS.iter().all(|method| !cannot_begin(method[0])));
        assert!([b'1', b' ', 0x16, 0].into_iter().all(cannot_begin));
    }
}
