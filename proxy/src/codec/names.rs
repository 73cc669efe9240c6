//! How names of HTTP/1 headers are written: in lower case unless something else is wanted. Names keep their length, so a head is changed
//! where it stands. Source: Envoy `ProperCaseHeaderKeyFormatter`, `PreserveCaseHeaderFormatter`.
use std::sync::Arc;

use bytes::Bytes;
use outrigger_model::cluster::NameCase;

/// What names become.
#[derive(Debug, Clone)]
pub(crate) enum Naming {
    /// Each word begins with a capital.
    Proper,
    /// As they were written.
    Original(Arc<Names>),
}

/// Names as the peer wrote them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    written: Vec<Bytes>,
    others_proper: bool,
}

impl Names {
    /// Those in a head, if they are to be kept.
    pub(super) fn read(case: NameCase, head: &Bytes) -> Option<Self> {
        let NameCase::Preserve { others_proper } = case else {
            return None;
        };
        let lines = head.split(|byte| *byte == b'\n').skip(1);
        let names = lines.filter_map(|line| line.get(..memchr::memchr(b':', line)?));
        Some(Self {
            written: names.map(|name| head.slice_ref(name)).collect(),
            others_proper,
        })
    }

    /// The first one that is the same counts.
    fn apply(&self, name: &mut [u8]) {
        let written = self
            .written
            .iter()
            .find(|written| written.eq_ignore_ascii_case(name));
        match written {
            Some(written) => name.copy_from_slice(written),
            None if self.others_proper => proper(name),
            None => {}
        }
    }
}

impl Naming {
    /// Of a side that keeps no names.
    pub(crate) fn of(case: NameCase) -> Option<Self> {
        (case == NameCase::Proper).then_some(Self::Proper)
    }

    fn apply(&self, name: &mut [u8]) {
        match self {
            Self::Proper => proper(name),
            Self::Original(names) => names.apply(name),
        }
    }

    /// Rewrites the names of a head, in which they are in lower case.
    pub(super) fn head(&self, head: &mut [u8]) {
        for line in head.split_mut(|byte| *byte == b'\n').skip(1) {
            if let Some(colon) = memchr::memchr(b':', line)
                && let Some(name) = line.get_mut(..colon)
            {
                self.apply(name);
            }
        }
    }
}

/// A letter is a capital at the begin, and behind what is neither letter nor digit.
fn proper(name: &mut [u8]) {
    let mut begins = true;
    for byte in name {
        if begins {
            byte.make_ascii_uppercase();
        }
        begins = matches!(*byte, b'!'..=b'&' | b'*'..=b'+' | b'-'..=b'.' | b'^'..=b'`' | b'|' | b'~');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(naming: &Naming, expected: &str) {
        let mut head =
            b"HTTP/1.1 200 ok: x\r\nhost: a:b\r\nx-mixed-name: x-y: z\r\nx_a.b: 1\r\nx-1a: \r\n\r\n".to_vec();
        naming.head(&mut head);
        assert_eq!(String::from_utf8_lossy(&head).replace("\r\n", "|"), expected);
    }

    #[test]
    fn names_are_written_as_is_wanted() {
        check(
            &Naming::Proper,
            "HTTP/1.1 200 ok: x|Host: a:b|X-Mixed-Name: x-y: z|X_A.B: 1|X-1a: ||",
        );
        let original = |others_proper| {
            let head =
                Bytes::from_static(b"GET a:b HTTP/1.1\r\nX-mIXed-nAME: x:y\r\nHOST: a\r\nHost: b\r\n\r\n");
            let names = Names::read(NameCase::Preserve { others_proper }, &head);
            Naming::Original(Arc::new(names.expect("they are kept")))
        };
        check(
            &original(false),
            "HTTP/1.1 200 ok: x|HOST: a:b|X-mIXed-nAME: x-y: z|x_a.b: 1|x-1a: ||",
        );
        check(
            &original(true),
            "HTTP/1.1 200 ok: x|HOST: a:b|X-mIXed-nAME: x-y: z|X_A.B: 1|X-1a: ||",
        );
        let none = Names::read(NameCase::Proper, &Bytes::new());
        assert!(none.is_none() && Naming::of(NameCase::Lower).is_none());
    }
}
