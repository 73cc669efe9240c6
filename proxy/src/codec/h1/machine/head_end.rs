//! Where a head ends. Remembers how far it has looked: a head that comes byte by byte is looked at once, not once a byte.

/// Looks for the empty line after a head.
#[derive(Debug, Default)]
pub(in crate::codec::h1) struct HeadEnd {
    /// No line end before this needs to be looked at again.
    looked: usize,
    first_line: Option<usize>,
}

impl HeadEnd {
    /// Length of the head at the front of `bytes`, its empty line included. Lines end with CRLF or LF (RFC 9112 §2.2). To be asked with the
    /// same bytes, or more of them, until there is an answer.
    pub(in crate::codec::h1) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(offset) = memchr::memchr(b'\n', bytes.get(self.looked..)?) {
            let line_end = self.looked + offset;
            self.first_line.get_or_insert(line_end);
            match bytes.get(line_end + 1..)? {
                [b'\n', ..] => return Some(line_end + 2),
                [b'\r', b'\n', ..] => return Some(line_end + 3),
                [] | [b'\r'] => {
                    self.looked = line_end;
                    return None;
                }
                _ => self.looked = line_end + 1,
            }
        }
        self.looked = bytes.len();
        None
    }

    /// Where the first line's LF is, once it was seen.
    pub(in crate::codec::h1) fn first_line_end(&self) -> Option<usize> {
        self.first_line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_empty_line_however_the_bytes_come() {
        let check = |text: &str, expected: Option<usize>| {
            let bytes = text.as_bytes();
            assert_eq!(HeadEnd::default().find(bytes), expected, "{text:?}");
            let mut end = HeadEnd::default();
            let by_bytes = (1..=bytes.len()).find_map(|length| end.find(&bytes[..length]));
            assert_eq!(by_bytes, expected, "{text:?}, byte by byte");
        };
        check("a\r\n\r\nrest", Some(5));
        check("a\n\nrest", Some(3));
        check("a\r\nb\n\r\n", Some(7));
        check("a\r\n b\r\n\r\n", Some(9));
        check("a\r\r\r", None);
        check("", None);
    }
}
