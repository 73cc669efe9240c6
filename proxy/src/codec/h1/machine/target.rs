//! The request target: origin form, absolute form, authority form of CONNECT, `*` of OPTIONS.
//! Source: RFC 9112 §3.2; Envoy `balsa_parser.cc` `isUrlValid`, `codec_impl.cc` `handlePath`, `header_utility.cc` `authorityIsValid`.
use std::fmt::Write as _;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use super::request::Reason;

/// Where a request wants to go.
#[derive(Debug)]
pub(super) struct Target {
    /// Of an absolute or authority form: it counts, not the Host header.
    pub(super) authority: Option<HeaderValue>,
    /// Path and query.
    pub(super) path: PathAndQuery,
}

/// Reads the target of a request with `method`.
///
/// # Errors
/// [`Reason::Codec`] for what is no target at all, [`Reason::InvalidUrl`] and [`Reason::InvalidScheme`] for one that leads nowhere.
pub(super) fn parse(target: Bytes, method: &Method) -> Result<Target, Reason> {
    let connect = *method == Method::CONNECT;
    if matches!(target.first(), Some(b'/' | b'*')) {
        let star = target.first() == Some(&b'*');
        if !is_path(&target) {
            return Err(Reason::Codec);
        }
        if connect || (star && *method != Method::OPTIONS) {
            return Err(Reason::InvalidUrl);
        }
        let path = if star {
            PathAndQuery::from_static("*")
        } else {
            path(target)?
        };
        return Ok(Target {
            authority: None,
            path,
        });
    }
    if connect {
        return authority_form(&target);
    }
    absolute_form(&target)
}

/// `host:port`.
fn authority_form(target: &[u8]) -> Result<Target, Reason> {
    if !target.iter().copied().all(is_host) || contains_twice_at(target) {
        return Err(Reason::Codec);
    }
    let has_port = target
        .iter()
        .rposition(|byte| *byte == b':')
        .is_some_and(|colon| colon > 0);
    if !has_port || !is_authority(target) {
        return Err(Reason::InvalidUrl);
    }
    Ok(Target {
        authority: Some(HeaderValue::from_bytes(target).map_err(|_| Reason::InvalidUrl)?),
        path: PathAndQuery::from_static("/"),
    })
}

/// `scheme://host/path`.
fn absolute_form(target: &Bytes) -> Result<Target, Reason> {
    let begin = memchr::memmem::find(target, b"://").ok_or(Reason::Codec)?;
    let (scheme, rest) = (target.slice(..begin), target.slice(begin + 3..));
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let host_end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (host, rest) = (rest.slice(..host_end), rest.slice(host_end..));
    if !is_scheme || !host.iter().copied().all(is_host) || contains_twice_at(&host) || !is_path(&rest) {
        return Err(Reason::Codec);
    }
    // RFC 9110 §4.2.4: who one claims to be is no part of where one goes.
    let host_begin = host.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    let host = host.slice(host_begin..);
    if host.is_empty() || !is_authority(&host) {
        return Err(Reason::InvalidUrl);
    }
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(Reason::InvalidScheme);
    }
    let path = if rest.is_empty() {
        PathAndQuery::from_static("/")
    } else {
        path(rest)?
    };
    Ok(Target {
        authority: Some(HeaderValue::from_bytes(&host).map_err(|_| Reason::InvalidUrl)?),
        path,
    })
}

/// The characters that an authority may hold. Empty is fine.
pub(super) fn is_authority_text(authority: &[u8]) -> bool {
    authority.iter().all(|byte| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'@'
                    | b'['
                    | b']'
            )
    })
}

/// Host, and a port that is a number if there is one.
fn is_authority(host: &[u8]) -> bool {
    let port = match host.iter().rposition(|byte| *byte == b':') {
        // A colon inside of an address's brackets.
        Some(colon) if host.get(colon..).is_some_and(|rest| rest.contains(&b']')) => return true,
        Some(colon) => host.get(colon + 1..).unwrap_or_default(),
        None => return true,
    };
    std::str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok())
}

fn contains_twice_at(host: &[u8]) -> bool {
    host.windows(2).any(|pair| pair == b"@@")
}

fn is_host(byte: u8) -> bool {
    is_authority_text(&[byte])
}

/// Printable ASCII; control characters have their own refusal.
fn is_path(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// Envoy passes on any printable character. The type of the crate `http` does not hold all of them; those go on escaped, which is the same
/// path (RFC 3986 §6.2.2.2) and what the client had to write. The fragment is cut off, as under Istio
/// (`http_reject_path_with_fragment: false` in every bootstrap that it makes).
fn path(bytes: Bytes) -> Result<PathAndQuery, Reason> {
    PathAndQuery::from_maybe_shared(bytes.clone()).or_else(|_| {
        let mut escaped = String::with_capacity(bytes.len() + 16);
        for byte in bytes {
            if PathAndQuery::try_from(&[b'/', byte, b'?', byte][..]).is_err() {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "%{byte:02X}");
            } else {
                escaped.push(char::from(byte));
            }
        }
        PathAndQuery::from_maybe_shared(Bytes::from(escaped)).map_err(|_| Reason::Codec)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_a_target() {
        let check = |method: &str, target: &str, expected: Result<(&str, &str), Reason>| {
            let method = method.parse().expect("a method");
            let found = parse(Bytes::copy_from_slice(target.as_bytes()), &method).map(|target| {
                let authority = target.authority.unwrap_or(HeaderValue::from_static("-"));
                let authority = authority.to_str().expect("ASCII").to_owned();
                (authority, target.path.as_str().to_owned())
            });
            let expected = expected.map(|(authority, path)| (authority.to_owned(), path.to_owned()));
            assert_eq!(found, expected, "{method} {target}");
        };
        check("GET", "/a?b", Ok(("-", "/a?b")));
        check("GET", "/a#b", Ok(("-", "/a")));
        check("GET", "/<`>?<", Ok(("-", "/%3C%60%3E?%3C")));
        check("GET", "http://b:80/x", Ok(("b:80", "/x")));
        check("GET", "HTTPS://B", Ok(("B", "/")));
        check("GET", "http://u:p@b/x", Ok(("b", "/x")));
        check("GET", "http://b?x", Ok(("b", "?x")));
        check("GET", "http://[::1]:80/x", Ok(("[::1]:80", "/x")));
        check("OPTIONS", "*", Ok(("-", "*")));
        check("CONNECT", "a:1", Ok(("a:1", "/")));
        for target in [
            "a:80",
            "x",
            "?x",
            "http//a",
            "1http://a/",
            "http://a@@b/",
            "/\u{e9}",
            "http://a/\u{e9}",
        ] {
            check("GET", target, Err(Reason::Codec));
        }
        for target in ["*", "http:///x", "http://b:x/", "http://b:70000/"] {
            check("GET", target, Err(Reason::InvalidUrl));
        }
        for target in ["a", "/", "*"] {
            check("CONNECT", target, Err(Reason::InvalidUrl));
        }
        check("GET", "ftp://a/", Err(Reason::InvalidScheme));
    }
}
