//! Protobuf encoding of `google.protobuf.Struct` with map entries in the order of their keys, as C++'s deterministic serialisation
//! writes them: peers and caches compare such bytes. Source: google/protobuf/struct.proto.
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::metadata::{Struct, Value};

/// Appends a length-delimited field.
pub(crate) fn message(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// `google.protobuf.Struct`.
pub(crate) fn encode_struct(fields: &Struct) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in fields {
        let mut entry = Vec::new();
        message(1, key.as_bytes(), &mut entry);
        message(2, &encode_value(value), &mut entry);
        message(1, &entry, &mut out);
    }
    out
}

fn encode_value(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Null => varint(1, 0, &mut out),
        Value::Number(number) => {
            encode_key(2, WireType::SixtyFourBit, &mut out);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Value::String(text) => message(3, text.as_bytes(), &mut out),
        Value::Bool(value) => varint(4, u64::from(*value), &mut out),
        Value::Struct(fields) => message(5, &encode_struct(fields), &mut out),
        Value::List(items) => {
            let mut list = Vec::new();
            for item in items {
                message(1, &encode_value(item), &mut list);
            }
            message(6, &list, &mut out);
        }
    }
    out
}

fn varint(field: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(field, WireType::Varint, out);
    encode_varint(value, out);
}
