//! The chunked coding, from its bytes to a body. Keeps no bytes: extensions are passed over as they come.
//! Source: RFC 9112 §7.1; what is tolerated as quiche `BalsaFrame`: white space after a size, and anything up to the LF behind a chunk.
use super::request::Reason;

/// Where in a chunked body we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::codec::h1) enum ChunkedDecoder {
    /// In a chunk's size; so far this much. Without a digit there is no size.
    Size { so_far: u64, digits: bool },
    /// White space behind a size.
    Space { size: u64 },
    /// In an extension.
    Extension { size: u64 },
    /// After the CR behind a size.
    SizeEnd { size: u64 },
    /// In data, of which this much is to come.
    Data { left: u64 },
    /// Behind data, before the LF.
    DataEnd,
    /// Behind the last chunk: trailers, or an empty line.
    Trailers,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::codec::h1) enum Step {
    /// All bytes were framing; more must come.
    More,
    /// The bytes at the front are data; so many of them at most.
    Data(u64),
    /// Trailers begin here.
    Trailers,
}

impl ChunkedDecoder {
    /// At the begin of a body.
    pub(in crate::codec::h1) fn new() -> Self {
        Self::Size {
            so_far: 0,
            digits: false,
        }
    }

    /// Passes over framing. Returns how many bytes that took, and what follows them.
    ///
    /// # Errors
    /// [`Reason::Codec`].
    pub(in crate::codec::h1) fn step(&mut self, bytes: &[u8]) -> Result<(usize, Step), Reason> {
        for (index, byte) in bytes.iter().enumerate() {
            match *self {
                Self::Data { left } => return Ok((index, Step::Data(left))),
                Self::Trailers => return Ok((index, Step::Trailers)),
                _ => *self = self.after(*byte)?,
            }
        }
        Ok((
            bytes.len(),
            match self {
                Self::Trailers => Step::Trailers,
                _ => Step::More,
            },
        ))
    }

    /// So many bytes of data were taken.
    pub(in crate::codec::h1) fn taken(&mut self, count: u64) {
        if let Self::Data { left } = *self {
            *self = match left.saturating_sub(count) {
                0 => Self::DataEnd,
                left => Self::Data { left },
            };
        }
    }

    /// The state behind one byte of framing.
    fn after(self, byte: u8) -> Result<Self, Reason> {
        Ok(match (self, byte) {
            (Self::Size { so_far, .. }, _) if byte.is_ascii_hexdigit() => Self::Size {
                so_far: more(so_far, byte).ok_or(Reason::Codec)?,
                digits: true,
            },
            (
                Self::Size {
                    so_far: size,
                    digits: true,
                }
                | Self::Space { size },
                b' ' | b'\t',
            ) => Self::Space { size },
            (
                Self::Size {
                    so_far: size,
                    digits: true,
                }
                | Self::Space { size },
                b';',
            ) => Self::Extension { size },
            (
                Self::Size {
                    so_far: size,
                    digits: true,
                }
                | Self::Space { size }
                | Self::Extension { size },
                b'\r',
            ) => Self::SizeEnd { size },
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailers,
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            // A line end that only one of two parsers sees is how chunks are smuggled.
            (Self::Extension { .. }, b'\n') => return Err(Reason::Codec),
            (Self::Extension { size }, _) => Self::Extension { size },
            (Self::DataEnd, b'\n') => Self::new(),
            (Self::DataEnd, _) => Self::DataEnd,
            (Self::Data { .. } | Self::Trailers, _) => self,
            (Self::Size { .. } | Self::Space { .. } | Self::SizeEnd { .. }, _) => return Err(Reason::Codec),
        })
    }
}

/// One hexadecimal digit more; `None`: too large.
fn more(size: u64, digit: u8) -> Option<u64> {
    let digit = char::from(digit).to_digit(16)?;
    size.checked_mul(16)?.checked_add(u64::from(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data, and what is left behind the last chunk's line.
    fn decode(text: &str, pieces: usize) -> Result<(String, String), Reason> {
        let mut decoder = ChunkedDecoder::new();
        let (mut data, mut rest) = (Vec::new(), Vec::new());
        for piece in text.as_bytes().chunks(pieces) {
            let mut piece = piece;
            while !piece.is_empty() {
                let (used, step) = decoder.step(piece)?;
                piece = &piece[used..];
                match step {
                    Step::More => assert!(piece.is_empty()),
                    Step::Data(left) => {
                        let count = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                        data.extend_from_slice(&piece[..count]);
                        decoder.taken(count as u64);
                        piece = &piece[count..];
                    }
                    Step::Trailers => {
                        rest.extend_from_slice(piece);
                        break;
                    }
                }
            }
        }
        let text = |bytes| String::from_utf8(bytes).expect("ASCII");
        Ok((text(data), text(rest)))
    }

    fn check(text: &str, expected: Result<(&str, &str), Reason>) {
        for pieces in [1, 2, 3, 1000] {
            let expected = expected.map(|(data, rest)| (data.to_owned(), rest.to_owned()));
            assert_eq!(decode(text, pieces), expected, "{text:?} by {pieces}");
        }
    }

    #[test]
    fn chunks_become_data() {
        check("5\r\nhello\r\n0\r\n\r\n", Ok(("hello", "\r\n")));
        check(
            "0005;a=\"b\"\r\nhello\r\nA \t\r\n0123456789\r\n000\r\nx: 1\r\n\r\n",
            Ok(("hello0123456789", "x: 1\r\n\r\n")),
        );
        check("3\r\nhello\n0\r\n\r\n", Ok(("hel", "\r\n")));
        check("FFFFFFFFFFFFFFFF\r\nhel", Ok(("hel", "")));
    }

    #[test]
    fn bad_sizes_and_line_ends_are_refused() {
        for text in [
            "\r\nhello",
            "xyz\r\n",
            "0x5\r\n",
            "-5\r\n",
            "+5\r\n",
            " 5\r\n",
            "5\nhello",
            "5\rhello",
            "5 5\r\n",
            "5;a\nb\r\n",
            "5;a\rb\r\n",
            "10000000000000000\r\n",
            "FFFFFFFFFFFFFFFFF\r\n",
        ] {
            check(text, Err(Reason::Codec));
        }
    }
}
