//! The words of CEL. Source: cel-spec, "Lexis".
use std::fmt;

use super::SyntaxError;

/// One word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name or a word such as `in`.
    Name(&'a str),
    /// A number, string, truth or null.
    Literal,
    /// An operator or a bracket.
    Symbol(&'a str),
    /// Nothing is left.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Symbol(text) => write!(f, "{text:?}"),
            Self::Literal => f.write_str("a literal"),
            Self::End => f.write_str("the end"),
        }
    }
}

/// Longer ones first.
const SYMBOLS: [&str; 24] = [
    "||", "&&", "<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")",
    "[", "]", "{", "}",
];

/// Takes a text apart.
pub(super) struct Lexer<'a> {
    text: &'a str,
    place: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, place: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.place..).unwrap_or_default()
    }

    fn error(&self, at: usize, reason: impl Into<String>) -> SyntaxError {
        SyntaxError {
            column: at + 1,
            reason: reason.into(),
        }
    }

    /// The next word and where it begins.
    pub(super) fn next(&mut self) -> Result<(usize, Token<'a>), SyntaxError> {
        self.skip();
        let (start, rest) = (self.place, self.rest());
        let Some(first) = rest.bytes().next() else {
            return Ok((start, Token::End));
        };
        if let Some(length) = string(rest).map_err(|(at, reason)| self.error(start + at, reason))? {
            self.place += length;
            return Ok((start, Token::Literal));
        }
        if first.is_ascii_alphabetic() || first == b'_' {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let name = prefix(rest, is_part);
            self.place += name.len();
            let is_literal = ["true", "false", "null"].contains(&name);
            return Ok((
                start,
                if is_literal {
                    Token::Literal
                } else {
                    Token::Name(name)
                },
            ));
        }
        if let Some(length) = number(rest) {
            self.place += length;
            let continues = self
                .rest()
                .bytes()
                .next()
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            return match continues {
                true => Err(self.error(start, "is no number")),
                false => Ok((start, Token::Literal)),
            };
        }
        match SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            Some(symbol) => {
                self.place += symbol.len();
                Ok((start, Token::Symbol(symbol)))
            }
            None => {
                let sign = rest.chars().next().unwrap_or_default();
                Err(self.error(start, format!("{sign:?} has no meaning")))
            }
        }
    }

    /// Goes past blanks and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let blank = prefix(rest, |byte| b" \t\n\r\x0c".contains(&byte)).len();
            let comment = match rest.get(blank..).unwrap_or_default() {
                after if after.starts_with("//") => prefix(after, |byte| byte != b'\n').len(),
                _ => 0,
            };
            if blank + comment == 0 {
                return;
            }
            self.place += blank + comment;
        }
    }
}

/// The first bytes that are such.
fn prefix(text: &str, is_part: impl Fn(u8) -> bool) -> &str {
    let end = text.bytes().position(|byte| !is_part(byte)).unwrap_or(text.len());
    text.get(..end).unwrap_or(text)
}

/// Length of the number that `text` begins with.
fn number(text: &str) -> Option<usize> {
    let digits = |text: &str| prefix(text, |byte| byte.is_ascii_digit()).len();
    let suffixed = |text: &str, length: usize| {
        length
            + usize::from(
                text.get(length..)
                    .is_some_and(|rest| rest.starts_with(['u', 'U'])),
            )
    };
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let length = prefix(hex, |byte| byte.is_ascii_hexdigit()).len();
        // Without digits it is `0` and a name, which is no number.
        return Some(if length == 0 {
            1
        } else {
            suffixed(text, 2 + length)
        });
    }
    let whole = digits(text);
    let after = text.get(whole..)?;
    let fraction = after.strip_prefix('.').map_or(0, digits);
    if whole == 0 && fraction == 0 {
        return None;
    }
    let mut length = whole + if fraction > 0 { fraction + 1 } else { 0 };
    let rest = text.get(length..)?;
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        let power = digits(exponent.get(sign..)?);
        if power > 0 {
            return Some(length + 1 + sign + power);
        }
    }
    if fraction == 0 {
        length = suffixed(text, length);
    }
    Some(length)
}

/// Length of the string that `text` begins with; where and why it is none, if it begins like one.
fn string(text: &str) -> Result<Option<usize>, (usize, String)> {
    let marks = prefix(text, |byte| b"rRbB".contains(&byte));
    let is_raw = marks.contains(['r', 'R']);
    let body = text.get(marks.len()..).unwrap_or_default();
    let quotes = ["\"\"\"", "'''", "\"", "'"];
    let quote = quotes.into_iter().find(|quote| body.starts_with(quote));
    let Some(quote) = quote.filter(|_| marks.len() <= 2) else {
        return Ok(None);
    };
    let mut place = quote.len();
    loop {
        let rest = body.get(place..).unwrap_or_default();
        if rest.starts_with(quote) {
            return Ok(Some(marks.len() + place + quote.len()));
        }
        let open = || (0, "a string that does not end".to_owned());
        let sign = rest.chars().next().ok_or_else(open)?;
        match sign {
            '\n' | '\r' if quote.len() == 1 => return Err(open()),
            '\\' if !is_raw => {
                let length =
                    escape(rest).ok_or_else(|| (marks.len() + place, "an escape that is none".to_owned()))?;
                place += length;
            }
            _ => place += sign.len_utf8(),
        }
    }
}

/// Length of an escape, backslash included.
fn escape(text: &str) -> Option<usize> {
    let kind = text.as_bytes().get(1).copied()?;
    let hex = |count: usize| {
        let digits = text.get(2..2 + count)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then_some(2 + count)
    };
    match kind {
        b'\\' | b'?' | b'"' | b'\'' | b'`' | b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' => Some(2),
        b'x' | b'X' => hex(2),
        b'u' => hex(4),
        b'U' => hex(8),
        b'0'..=b'3' => {
            let octal = text.get(2..4)?;
            octal
                .bytes()
                .all(|byte| (b'0'..=b'7').contains(&byte))
                .then_some(4)
        }
        _ => None,
    }
}
