//! DNS messages as far as a stub needs them. Source: RFC 1035 §4, RFC 3596.
use std::net::IpAddr;
use std::time::Duration;

use super::{Kind, Resolved};

/// Why an answer cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MalformedAnswer {
    /// It ends too early, or its names point in circles.
    #[error("the answer is cut or damaged")]
    Cut,
    /// Another question's.
    #[error("the answer is to another question")]
    NotOurs,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Addresses, or that there are none.
    Whole(Resolved),
    /// Ask again over TCP.
    Truncated,
    /// A code other than "no error" and "no such name".
    Refused(u8),
}

/// A question for the addresses of one name.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) id: u16,
    pub(super) name: &'a str,
    pub(super) kind: Kind,
}

const RECURSION_DESIRED: u16 = 0x0100;
const RESPONSE: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;
const CODE: u16 = 0x000f;
const NO_SUCH_NAME: u16 = 3;
const INTERNET: u16 = 1;
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 28,
        }
    }
}

impl Question<'_> {
    /// `None`: the name cannot be asked for.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(64);
        for word in [self.id, RECURSION_DESIRED, 1, 0, 0, 0] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        let name = self.name.trim_end_matches('.');
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return None;
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > MAX_LABEL_BYTES {
                return None;
            }
            bytes.push(u8::try_from(label.len()).ok()?);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&self.kind.number().to_be_bytes());
        bytes.extend_from_slice(&INTERNET.to_be_bytes());
        Some(bytes)
    }

    /// Reads what a server sent. Records of the wanted kind count whatever their name is: a server follows aliases itself.
    pub(super) fn read(&self, bytes: &[u8]) -> Result<Answer, MalformedAnswer> {
        let mut reader = Reader { bytes, at: 0 };
        let [id, flags, questions, answers, _, _] = reader.words()?;
        if id != self.id || flags & RESPONSE == 0 || questions != 1 {
            return Err(MalformedAnswer::NotOurs);
        }
        let name = reader.name()?;
        let [kind, class] = reader.words()?;
        let is_ours = name.eq_ignore_ascii_case(self.name.trim_end_matches('.'));
        if !is_ours || kind != self.kind.number() || class != INTERNET {
            return Err(MalformedAnswer::NotOurs);
        }
        if flags & TRUNCATED != 0 {
            return Ok(Answer::Truncated);
        }
        match flags & CODE {
            0 => {}
            NO_SUCH_NAME => return Ok(Answer::Whole(Resolved::default())),
            code => return Ok(Answer::Refused(u8::try_from(code).unwrap_or(u8::MAX))),
        }
        let mut resolved = Resolved::default();
        let mut ttl = None;
        for _ in 0..answers {
            reader.name()?;
            let [kind, class, ttl_high, ttl_low, length] = reader.words()?;
            let data = reader.take(usize::from(length))?;
            if class != INTERNET {
                continue;
            }
            let seconds = (u32::from(ttl_high) << 16) | u32::from(ttl_low);
            // Aliases on the way count too: after them another name may be meant.
            ttl = Some(ttl.unwrap_or(u32::MAX).min(seconds));
            if kind == self.kind.number()
                && let Some(address) = address(self.kind, data)
            {
                resolved.addresses.push(address);
            }
        }
        resolved.ttl = Duration::from_secs(ttl.unwrap_or(0).into());
        Ok(Answer::Whole(resolved))
    }
}

fn address(kind: Kind, data: &[u8]) -> Option<IpAddr> {
    match kind {
        Kind::V4 => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        Kind::V6 => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], MalformedAnswer> {
        let end = self.at.checked_add(count).ok_or(MalformedAnswer::Cut)?;
        let taken = self.bytes.get(self.at..end).ok_or(MalformedAnswer::Cut)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, MalformedAnswer> {
        self.take(1)?.first().copied().ok_or(MalformedAnswer::Cut)
    }

    fn words<const COUNT: usize>(&mut self) -> Result<[u16; COUNT], MalformedAnswer> {
        let mut words = [0; COUNT];
        for word in &mut words {
            *word = u16::from_be_bytes([self.byte()?, self.byte()?]);
        }
        Ok(words)
    }

    /// A name; pointers only lead backwards, so it ends.
    fn name(&mut self) -> Result<String, MalformedAnswer> {
        let mut name = String::new();
        let mut after = None;
        let mut limit = self.at;
        loop {
            let length = self.byte()?;
            match length {
                0 => break,
                0xc0.. => {
                    let target = usize::from(length & 0x3f) << 8 | usize::from(self.byte()?);
                    if target >= limit {
                        return Err(MalformedAnswer::Cut);
                    }
                    after.get_or_insert(self.at);
                    (self.at, limit) = (target, target);
                }
                0x40.. => return Err(MalformedAnswer::Cut),
                _ => {
                    let label = self.take(usize::from(length))?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.extend(label.iter().map(|byte| char::from(*byte)));
                    if name.len() > 2 * MAX_NAME_BYTES {
                        return Err(MalformedAnswer::Cut);
                    }
                }
            }
        }
        if let Some(after) = after {
            self.at = after;
        }
        Ok(name)
    }
}
