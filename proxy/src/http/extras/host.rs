//! The authority without what does not count: a dot at the end of its name, and its port.
//! Source: Envoy `ConnectionManagerUtility::maybeNormalizeHost`, `HeaderUtility::stripTrailingHostDot` and `stripPortFromHost`.
use http::{HeaderValue, Method};
use outrigger_model::hcm::extras::HostPort;

use crate::codec::RequestHead;

/// Puts the port back that a CONNECT has lost, unless it has got another one.
pub(super) fn restore(port: u32, head: &mut RequestHead) {
    if split_port(head.authority.as_bytes()).is_none() {
        let host = [head.authority.as_bytes(), b":", port.to_string().as_bytes()].concat();
        set(head, &host);
    }
}

/// Takes out the dot first, then the port; `own_port`: that on which the client was taken. `Some`: the port that a CONNECT has lost.
pub(super) fn clean(ports: HostPort, dots: bool, own_port: u16, head: &mut RequestHead) -> Option<u32> {
    if dots && let Some(host) = without_dot(head.authority.as_bytes()) {
        set(head, &host);
    }
    if ports == HostPort::Stays {
        return None;
    }
    let host = head.authority.clone();
    let (name, port) = split_port(host.as_bytes())?;
    if ports == HostPort::GoesIfOwn && port != u32::from(own_port) {
        return None;
    }
    set(head, name);
    (head.method == Method::CONNECT).then_some(port)
}

fn set(head: &mut RequestHead, host: &[u8]) {
    if let Ok(host) = HeaderValue::from_bytes(host) {
        head.authority = host;
    }
}

/// The last dot goes when nothing or a colon follows it. `None`: there is none such.
fn without_dot(host: &[u8]) -> Option<Vec<u8>> {
    let dot = host.iter().rposition(|byte| *byte == b'.')?;
    let (name, after) = host.split_at_checked(dot)?;
    let after = after.get(1..)?;
    (after.is_empty() || after.starts_with(b":")).then(|| [name, after].concat())
}

/// What stands before the last colon that is not inside of brackets, and the number after it.
fn split_port(host: &[u8]) -> Option<(&[u8], u32)> {
    let colon = host.iter().rposition(|byte| *byte == b':')?;
    let (name, port) = host.split_at_checked(colon)?;
    let port = std::str::from_utf8(port.get(1..)?).ok()?;
    Some((name, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_after_the_brackets_is_a_port() {
        let check = |host: &str, expected: Option<(&str, u32)>| {
            let expected = expected.map(|(name, port)| (name.as_bytes(), port));
            assert_eq!(split_port(host.as_bytes()), expected, "{host}");
        };
        check("a:80", Some(("a", 80)));
        check("[::1]:80", Some(("[::1]", 80)));
        check("[::1]", None);
        check("a", None);
        check("a:", None);
        check("a:http", None);
        check("a:-1", None);
        check("a:+80", Some(("a", 80)));
        check("a:4294967296", None);
        check("a:b:1", Some(("a:b", 1)));
    }

    #[test]
    fn only_a_dot_at_the_end_of_the_name_goes() {
        let check = |host: &str, expected: Option<&str>| {
            let expected = expected.map(|host| host.as_bytes().to_vec());
            assert_eq!(without_dot(host.as_bytes()), expected, "{host}");
        };
        check("a.b.", Some("a.b"));
        check("a.b.:80", Some("a.b:80"));
        check("a.b:80", None);
        check("a..", Some("a."));
        check(".", Some(""));
        check("a", None);
        check("", None);
    }
}
