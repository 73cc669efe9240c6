//! Header and trailer lines, by httparse, which refuses control characters, white space in and after names, and lines without a colon.
//!
//! Folded lines and stray carriage returns, which httparse does not take, are put right in a second look, as Envoy does: a fold becomes the
//! white space that it begins with, a CR inside of a value vanishes. In a framing field a stray CR is refused: Envoy frames by the value
//! with it and forwards the one without.
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::request::Reason;
use crate::codec::Underscores;

/// Few requests have more lines.
const USUAL_LINES: usize = 32;
/// A request gets some headers more on its way: room for them saves moving it all.
const ROOM: usize = 12;

/// Reads the lines after the first of a head, its empty line included. More than `max`, beside those that `underscores` leaves out, are
/// refused, once each of them is known to be good.
///
/// # Errors
/// [`Reason::InvalidCharacters`], [`Reason::TooManyHeaders`], [`Reason::Underscore`], else [`Reason::Codec`].
pub(super) fn parse(block: &Bytes, max: usize, underscores: &Underscores) -> Result<HeaderMap, Reason> {
    match parse_strictly(block, max, underscores) {
        Err(Reason::Codec) if block.iter().copied().any(is_invalid) => Err(Reason::InvalidCharacters),
        Err(Reason::Codec) => match straighten(block)? {
            Some(straight) => parse_strictly(&straight, max, underscores),
            None => Err(Reason::Codec),
        },
        parsed => parsed,
    }
}

/// Control characters have their own refusal.
pub(super) fn is_invalid(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n')
}

fn parse_strictly(block: &Bytes, max: usize, underscores: &Underscores) -> Result<HeaderMap, Reason> {
    let mut lines = [httparse::EMPTY_HEADER; USUAL_LINES];
    match httparse::parse_headers(block, &mut lines) {
        Err(httparse::Error::TooManyHeaders) => {
            // No more than there are line ends, which a limit on the bytes bounds.
            let count = memchr::memchr_iter(b'\n', block).count();
            let mut lines = vec![httparse::EMPTY_HEADER; count];
            collect(
                block,
                httparse::parse_headers(block, &mut lines),
                max,
                underscores,
            )
        }
        parsed => collect(block, parsed, max, underscores),
    }
}

/// Values share the bytes of the block.
fn collect(
    block: &Bytes,
    parsed: httparse::Result<(usize, &[httparse::Header<'_>])>,
    max: usize,
    underscores: &Underscores,
) -> Result<HeaderMap, Reason> {
    let Ok(httparse::Status::Complete((_, lines))) = parsed else {
        return Err(Reason::Codec);
    };
    let usual = lines.len().min(max);
    let mut headers =
        HeaderMap::try_with_capacity(usual.saturating_add(ROOM)).map_err(|_| Reason::TooManyHeaders)?;
    for line in lines {
        if !underscores.keeps(line.name).map_err(|_| Reason::Underscore)? {
            continue;
        }
        if headers.len() >= max {
            return Err(Reason::TooManyHeaders);
        }
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Reason::Codec)?;
        let value = if line.value.is_empty() {
            HeaderValue::from_static("")
        } else {
            HeaderValue::from_maybe_shared(block.slice_ref(line.value)).map_err(|_| Reason::Codec)?
        };
        headers
            .try_append(name, value)
            .map_err(|_| Reason::TooManyHeaders)?;
    }
    Ok(headers)
}

/// The block without folds and stray CRs; `None`: it has none.
fn straighten(block: &[u8]) -> Result<Option<Bytes>, Reason> {
    let mut straight = BytesMut::with_capacity(block.len());
    let mut rest = block;
    let mut line_begin = 0;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, after) = (
            rest.get(..end).unwrap_or_default(),
            rest.get(end + 1..).unwrap_or_default(),
        );
        put_line(
            &mut straight,
            line_begin,
            line.strip_suffix(b"\r").unwrap_or(line),
        )?;
        // A line that begins with white space goes on with the one before; the first has none before it.
        let folded = matches!(after.first(), Some(b' ' | b'\t')) && straight.len() > line_begin;
        if !folded {
            straight.put_slice(b"\r\n");
            line_begin = straight.len();
        }
        rest = after;
    }
    Ok((straight != block).then(|| straight.freeze()))
}

/// Appends a line, or what goes on one, without the CRs of its value.
fn put_line(straight: &mut BytesMut, line_begin: usize, line: &[u8]) -> Result<(), Reason> {
    if memchr::memchr(b'\r', line).is_none() {
        straight.put_slice(line);
        return Ok(());
    }
    for byte in line {
        if *byte != b'\r' {
            straight.put_u8(*byte);
            continue;
        }
        let so_far = straight.get(line_begin..).unwrap_or_default();
        let name = memchr::memchr(b':', so_far).and_then(|colon| so_far.get(..colon));
        let framing = name.is_none_or(|name| {
            name.eq_ignore_ascii_case(CONTENT_LENGTH.as_str().as_bytes())
                || name.eq_ignore_ascii_case(TRANSFER_ENCODING.as_str().as_bytes())
        });
        if framing {
            return Err(Reason::Codec);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Counter;

    fn check(block: &str, expected: Result<&[(&str, &str)], Reason>) {
        let found = parse(
            &Bytes::copy_from_slice(format!("{block}\r\n").as_bytes()),
            3,
            &Underscores::Allow,
        );
        let found = found.map(|headers| {
            let pairs = headers.iter();
            let pairs = pairs.map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            });
            pairs.collect::<Vec<_>>()
        });
        let expected = expected.map(|pairs| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            pairs.collect::<Vec<_>>()
        });
        assert_eq!(found, expected, "{block:?}");
    }

    #[test]
    fn lines_are_read() {
        check("", Ok(&[]));
        check(
            "Host: a\r\nX:\r\ny: \t b c \r\n",
            Ok(&[("host", "a"), ("x", ""), ("y", "b c")]),
        );
        check("a: 1\nb: 2\n", Ok(&[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn folds_and_stray_carriage_returns_are_put_right() {
        check("x: a\r\n b\r\n", Ok(&[("x", "a b")]));
        check(
            "x: 1  \r\n   2\n\t3\r\ny: 4\r\n",
            Ok(&[("x", "1     2\t3"), ("y", "4")]),
        );
        check("x: a\rb\r\r\n", Ok(&[("x", "ab")]));
        check(
            "transfer-encoding:\r\n chunked\r\n",
            Ok(&[("transfer-encoding", "chunked")]),
        );
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for block in [
            " x: a\r\n",
            "x : a\r\n",
            "x y: a\r\n",
            "x\r\n",
            ": a\r\n",
            "x@: a\r\n",
            "\rx: a\r\n",
            "x\ry: a\r\n",
            "x\r\n : a\r\n",
            "content-length: 1\r0\r\n",
            "Transfer-Encoding: chun\rked\r\n",
        ] {
            check(block, Err(Reason::Codec));
        }
        for block in ["x: a\0b\r\n", "x\0: a\r\n", "x: \x0b\r\n", "x: \x7f\r\n"] {
            check(block, Err(Reason::InvalidCharacters));
        }
    }

    #[test]
    fn there_is_a_largest_number_of_lines() {
        check("a: 1\r\na: 2\r\na: 3\r\na: 4\r\n", Err(Reason::TooManyHeaders));
        check("a: 1\r\na: 2\r\na: 3\r\na b: 4\r\n", Err(Reason::Codec));
        let many = "a: 1\r\n".repeat(100_000) + "\r\n";
        assert_eq!(
            parse(&Bytes::from(many), 3, &Underscores::Allow),
            Err(Reason::TooManyHeaders)
        );
    }

    #[test]
    fn lines_that_are_left_out_do_not_count() {
        let block = Bytes::from("x_a: 1\r\nb: 2\r\nc_: 3\r\nd: 4\r\n\r\n");
        let check = |action: fn(Counter) -> Underscores, max, expected: Result<usize, Reason>| {
            let parsed = parse(&block, max, &action(Counter::none()));
            assert_eq!(parsed.map(|headers| headers.len()), expected);
        };
        check(|_| Underscores::Allow, 4, Ok(4));
        check(|_| Underscores::Allow, 3, Err(Reason::TooManyHeaders));
        check(Underscores::Drop, 2, Ok(2));
        check(Underscores::Drop, 1, Err(Reason::TooManyHeaders));
        check(Underscores::Reject, 4, Err(Reason::Underscore));
    }
}
