//! Netlink attributes: length, kind, value, padded to four bytes; values may be attributes again.
//!
//! Source: netlink(7), linux/netlink.h `struct nlattr`.

/// Kind bits that say how a value is coded, not what it is: NLA_F_NESTED, NLA_F_NET_BYTEORDER.
const KIND: u16 = 0x3fff;
pub(crate) const NESTED: u16 = 0x8000;

/// Attributes being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// `value` as it is. Values are of this program's making and far below the 64 KiB that a length can say;
    /// a longer one would be cut, and the kernel refuse it.
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let value = value.get(..usize::from(u16::MAX) - 4).unwrap_or(value);
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Network byte order, as all of netfilter has it.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// With the zero that the kernel's strings end in.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn nested(self, kind: u16, inner: &Attributes) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Kinds and values of `bytes`; a length that does not fit ends it.
pub(crate) fn each(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & KIND;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Whether `found` has every attribute of `wanted` with its value, and perhaps more. `wanted` is of this program's
/// making: there each kind stands once, and nested ones say that they are.
pub(crate) fn holds(found: &[u8], wanted: &[u8]) -> bool {
    let mut rest = wanted;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let Some(value) = rest.get(4..length) else {
            return false;
        };
        let same = find(found, kind & KIND).is_some_and(|found| match kind & NESTED {
            0 => found == value,
            _ => holds(found, value),
        });
        if !same {
            return false;
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

/// The value of the first attribute of `kind`.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    each(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// A string attribute, its zero cut off.
pub(crate) fn find_text(bytes: &[u8], kind: u16) -> Option<String> {
    let value = find(bytes, kind)?;
    let text = value.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// A number in network byte order.
pub(crate) fn find_u32(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(bytes, kind)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let inner = Attributes::new().u32(3, 0x0102_0304);
        let all = Attributes::new().text(1, "lo").nested(2, &inner).into_bytes();
        assert_eq!(all.len(), 8 + 12);
        assert_eq!(find_text(&all, 1).as_deref(), Some("lo"));
        assert_eq!(
            find(&all, 2).and_then(|inner| find_u32(inner, 3)),
            Some(0x0102_0304)
        );
        assert_eq!(find(&all, 9), None);
    }

    #[test]
    fn what_is_wanted_may_stand_among_more() {
        let nested = |inner: Attributes| Attributes::new().nested(2, &inner);
        let found = nested(Attributes::new().u32(1, 7).u32(9, 9)).u32(5, 5);
        let check = |wanted: Attributes, expected| {
            assert_eq!(holds(found.as_bytes(), wanted.as_bytes()), expected, "{wanted:?}");
        };
        check(Attributes::new(), true);
        check(nested(Attributes::new().u32(1, 7)), true);
        check(nested(Attributes::new().u32(1, 8)), false);
        check(nested(Attributes::new().u32(3, 7)), false);
        check(Attributes::new().u32(5, 5), true);
        check(Attributes::new().u32(6, 5), false);
    }

    #[test]
    fn attributes_that_do_not_fit_end_the_reading() {
        let check = |bytes: &[u8], expected: usize| assert_eq!(each(bytes).count(), expected, "{bytes:?}");
        check(&[], 0);
        check(&[3, 0, 1, 0], 0); // shorter than its own header
        check(&[9, 0, 1, 0, 5], 0); // longer than the rest
        check(&[5, 0, 1, 0, 5], 1); // the padding of the last one may be missing
    }
}
