//! What `--explain` asks about: `10.0.0.5:3306`, `udp://[fd00::a]:53`, `inbound:8080`.

use std::net::SocketAddr;

use crate::rule::Protocol;

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub protocol: Protocol,
    pub way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Out(SocketAddr),
    /// To this port of the pod.
    In(u16),
}

/// Reads a question.
///
/// # Errors
/// Why it is none.
pub fn parse(text: &str) -> Result<Question, String> {
    let (protocol, rest) = match text.split_once("://") {
        None => (Protocol::Tcp, text),
        Some(("tcp", rest)) => (Protocol::Tcp, rest),
        Some(("udp", rest)) => (Protocol::Udp, rest),
        Some((other, _)) => return Err(format!("{other}:// is neither tcp:// nor udp://")),
    };
    let way = match rest.strip_prefix("inbound:") {
        Some(port) => Way::In(port.parse().map_err(|_| "not a port after inbound:".to_owned())?),
        None => Way::Out(rest.parse().map_err(|_| {
            "not an address and port such as 10.0.0.5:3306, udp://[fd00::a]:53 or inbound:8080".to_owned()
        })?),
    };
    Ok(Question { protocol, way })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read() {
        let out = |protocol, to: &str| Ok((protocol, to.parse().ok()));
        let check = |text: &str, expected: Result<(Protocol, Option<SocketAddr>), &str>| {
            let found = parse(text).map(|question| match question.way {
                Way::Out(to) => (question.protocol, Some(to)),
                Way::In(_) => (question.protocol, None),
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(part)) => assert!(found.contains(part), "{text}: {found}"),
                (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
            }
        };
        check("10.0.0.5:3306", out(Protocol::Tcp, "10.0.0.5:3306"));
        check("udp://[fd00::a]:53", out(Protocol::Udp, "[fd00::a]:53"));
        check("tcp://inbound:8080", Ok((Protocol::Tcp, None)));
        check("inbound:x", Err("not a port"));
        check("db:3306", Err("10.0.0.5:3306"));
        check("sctp://10.0.0.5:3306", Err("neither tcp:// nor udp://"));
    }
}
