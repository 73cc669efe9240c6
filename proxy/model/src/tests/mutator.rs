//! Changes a protobuf message as a broken or hostile control plane would: fields dropped, doubled, swapped, oversized, of another wire
//! type or number, nested too deep, cut off. Works on the wire format, so it needs no schema; the same seed gives the same change.
//!
//! Shared with the fuzz target `fuzz/fuzz_targets/resource.rs`, which is why it knows nothing of this crate.

/// Longest message that comes out.
const MAX_BYTES: usize = 1 << 20;

/// xorshift64: the same numbers for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `limit`, which is at least 1.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let limit = u64::try_from(limit.max(1)).unwrap_or(u64::MAX);
        usize::try_from((self.0 >> 11) % limit).unwrap_or_default()
    }
}

/// One field on the wire.
#[derive(Clone)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(Vec<u8>),
    Fixed32([u8; 4]),
}

/// The message with one change somewhere in it.
pub(crate) fn mutate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut changed = match parse(bytes) {
        // One in eight is changed where it stands; of the others a field deeper in.
        Some(fields) if !fields.is_empty() => change_message(fields, random),
        _ => change_bytes(bytes, random),
    };
    if random.below(16) == 0 {
        changed.truncate(random.below(changed.len()));
    }
    changed.truncate(MAX_BYTES);
    changed
}

fn change_message(mut fields: Vec<Field>, random: &mut Random) -> Vec<u8> {
    let index = random.below(fields.len());
    if random.below(8) != 0
        && let Some(Field {
            value: Value::Bytes(inner),
            ..
        }) = fields.get_mut(index)
        && !inner.is_empty()
    {
        *inner = mutate(inner, random);
        return encode(&fields);
    }
    change_here(&mut fields, index, random);
    encode(&fields)
}

fn change_here(fields: &mut Vec<Field>, index: usize, random: &mut Random) {
    let Some(field) = fields.get(index).cloned() else {
        return;
    };
    match random.below(9) {
        0 => drop(fields.remove(index)),
        1 => {
            let other = random.below(fields.len());
            fields.swap(index, other);
        }
        2 => swap_values(fields, index, random),
        3 => fields.extend(std::iter::repeat_n(field, 1 << random.below(10))),
        4 => replace(fields, index, other_wire_type(random)),
        5 => replace_number(fields, index, random),
        6 => replace(fields, index, oversized(random)),
        7 => replace(fields, index, nested(&field, random)),
        _ => replace(fields, index, extreme(&field.value, random)),
    }
}

fn replace(fields: &mut [Field], index: usize, value: Value) {
    if let Some(field) = fields.get_mut(index) {
        field.value = value;
    }
}

fn replace_number(fields: &mut [Field], index: usize, random: &mut Random) {
    const NUMBERS: [u64; 6] = [1, 2, 3, 19_000, 536_870_911, 0];
    let number = match random.below(3) {
        0 => NUMBERS.get(random.below(NUMBERS.len())).copied().unwrap_or(1),
        _ => random.below(60) as u64,
    };
    if let Some(field) = fields.get_mut(index) {
        field.number = number;
    }
}

fn swap_values(fields: &mut [Field], index: usize, random: &mut Random) {
    let other = random.below(fields.len());
    if let (Some(left), Some(right)) = (fields.get(index).cloned(), fields.get(other).cloned()) {
        replace(fields, index, right.value);
        replace(fields, other, left.value);
    }
}

fn other_wire_type(random: &mut Random) -> Value {
    match random.below(4) {
        0 => Value::Varint(random.below(1 << 30) as u64),
        1 => Value::Fixed64([0xff; 8]),
        2 => Value::Fixed32([0x7f; 4]),
        _ => Value::Bytes(vec![0xff; random.below(20)]),
    }
}

fn oversized(random: &mut Random) -> Value {
    let byte = [b'a', b'/', 0, 0xff, b'%', b'*']
        .get(random.below(6))
        .copied()
        .unwrap_or(0);
    Value::Bytes(vec![byte; 1 << random.below(18)])
}

/// The field inside itself, more often than any message may be nested.
fn nested(field: &Field, random: &mut Random) -> Value {
    let mut inner = match &field.value {
        Value::Bytes(bytes) => bytes.clone(),
        _ => Vec::new(),
    };
    for _ in 0..1 << random.below(10) {
        if inner.len() > MAX_BYTES / 2 {
            break;
        }
        inner = encode(&[Field {
            number: field.number,
            value: Value::Bytes(inner),
        }]);
    }
    Value::Bytes(inner)
}

fn extreme(value: &Value, random: &mut Random) -> Value {
    const NUMBERS: [u64; 8] = [0, 1, 2, 255, 65_536, u32::MAX as u64, i64::MAX as u64, u64::MAX];
    match value {
        Value::Varint(_) => Value::Varint(NUMBERS.get(random.below(NUMBERS.len())).copied().unwrap_or(0)),
        Value::Fixed64(_) => Value::Fixed64(f64::NAN.to_le_bytes()),
        Value::Fixed32(_) => Value::Fixed32([0xff; 4]),
        Value::Bytes(bytes) => Value::Bytes(change_bytes(bytes, random)),
    }
}

fn change_bytes(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let index = random.below(changed.len());
        match changed.get_mut(index) {
            Some(byte) => *byte = u8::try_from(random.below(256)).unwrap_or(0),
            None => changed.push(b'x'),
        }
    }
    changed
}

/// `None`: no message, or one with groups, which nobody writes.
fn parse(mut rest: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut rest)?),
            1 => Value::Fixed64(take(&mut rest, 8)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Value::Bytes(take(&mut rest, length)?.to_vec())
            }
            5 => Value::Fixed32(take(&mut rest, 4)?.try_into().ok()?),
            _ => return None,
        };
        let number = key >> 3;
        if number == 0 {
            return None;
        }
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn encode(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for Field { number, value } in fields {
        let kind = match value {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32(_) => 5,
        };
        push_varint(number << 3 | kind, &mut out);
        match value {
            Value::Varint(number) => push_varint(*number, &mut out),
            Value::Fixed64(bytes) => out.extend_from_slice(bytes),
            Value::Fixed32(bytes) => out.extend_from_slice(bytes),
            Value::Bytes(bytes) => {
                push_varint(bytes.len() as u64, &mut out);
                out.extend_from_slice(bytes);
            }
        }
    }
    out
}

fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
