//! Scalars and enums of proto JSON. Pure; the reasons are completed with place and path by the decoder.
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{EnumDescriptor, Kind, MapKey, Value};

use super::nearest::nearest;
use super::tree::Tree;

/// Padding may be left out.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A value of any kind but message and enum.
pub(super) fn scalar(tree: &Tree, kind: &Kind) -> Result<Value, String> {
    let value = match kind {
        Kind::Bool => Value::Bool(boolean(tree)?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(integer(tree, "a 32-bit integer")?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(integer(tree, "a 64-bit integer")?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(integer(tree, "an unsigned 32-bit integer")?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(integer(tree, "an unsigned 64-bit integer")?),
        Kind::Float => Value::F32(float(tree)?),
        Kind::Double => Value::F64(double(tree)?),
        Kind::String => Value::String(string(tree)?.to_owned()),
        Kind::Bytes => Value::Bytes(bytes(tree)?.into()),
        Kind::Message(_) | Kind::Enum(_) => return Err("not a scalar field".to_owned()),
    };
    Ok(value)
}

/// A value of the enum, by name or number; or why not, and the name that was probably meant.
pub(super) fn enumeration(
    tree: &Tree,
    descriptor: &EnumDescriptor,
) -> Result<Value, (String, Option<String>)> {
    let wanted = || format!("a name of {}", descriptor.full_name());
    if descriptor.full_name() == "google.protobuf.NullValue" && *tree == Tree::Null {
        return Ok(Value::EnumNumber(0));
    }
    if let Tree::String(name) = tree {
        let any_case = || {
            descriptor
                .values()
                .find(|value| value.name().eq_ignore_ascii_case(name))
        };
        if let Some(value) = descriptor.get_value_by_name(name).or_else(any_case) {
            return Ok(Value::EnumNumber(value.number()));
        }
        if name.parse::<f64>().is_err() {
            let nearest = nearest(name, descriptor.values().map(|value| value.name().to_owned()));
            return Err((format!("`{}` is not {}", excerpt(name), wanted()), nearest));
        }
    }
    integer(tree, &wanted())
        .map(Value::EnumNumber)
        .map_err(|reason| (reason, None))
}

/// The key of a map entry, from the name of a member.
pub(super) fn map_key(name: &str, kind: &Kind) -> Option<MapKey> {
    match kind {
        Kind::String => Some(MapKey::String(name.to_owned())),
        Kind::Bool => name.parse().ok().map(MapKey::Bool),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => name.parse().ok().map(MapKey::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => name.parse().ok().map(MapKey::I64),
        Kind::Uint32 | Kind::Fixed32 => name.parse().ok().map(MapKey::U32),
        Kind::Uint64 | Kind::Fixed64 => name.parse().ok().map(MapKey::U64),
        _ => None,
    }
}

pub(super) fn string(tree: &Tree) -> Result<&str, String> {
    match tree {
        Tree::String(text) => Ok(text),
        Tree::Number(_) | Tree::Bool(_) => Err(format!(
            "expected a string, found {}; put it in quotes",
            tree.kind()
        )),
        _ => Err(format!("expected a string, found {}", tree.kind())),
    }
}

/// Any JSON number, as text or not, and what JSON has no number for.
pub(super) fn double(tree: &Tree) -> Result<f64, String> {
    let text = number_text(tree, "a number")?;
    match text {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        text => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            Ok(_) if text.ends_with(|last: char| last.is_ascii_digit() || last == '.') => {
                Err(format!("{} is out of range", excerpt(text)))
            }
            _ => Err(format!("`{}` is not a number", excerpt(text))),
        },
    }
}

fn float(tree: &Tree) -> Result<f32, String> {
    let wide = double(tree)?;
    // The conversion saturates to infinity, which is checked.
    #[allow(clippy::cast_possible_truncation)]
    let narrow = wide as f32;
    if narrow.is_infinite() && wide.is_finite() {
        return Err(format!("{wide} is out of range of a 32-bit float"));
    }
    Ok(narrow)
}

fn boolean(tree: &Tree) -> Result<bool, String> {
    match tree {
        Tree::Bool(value) => Ok(*value),
        Tree::String(text) if text == "true" => Ok(true),
        Tree::String(text) if text == "false" => Ok(false),
        _ => Err(format!("expected true or false, found {}", tree.kind())),
    }
}

/// Whole numbers, also as `8e1` or `80.0`, also in quotes.
fn integer<T: TryFrom<i128>>(tree: &Tree, wanted: &str) -> Result<T, String> {
    let text = number_text(tree, wanted)?;
    let refuse = || format!("`{}` is not {wanted}", excerpt(text));
    let value = match text.parse::<i128>() {
        Ok(value) => value,
        Err(_) => whole(text.parse::<f64>().map_err(|_| refuse())?).ok_or_else(refuse)?,
    };
    T::try_from(value).map_err(|_| refuse())
}

fn whole(value: f64) -> Option<i128> {
    // Within 2^64 the conversion is exact for a whole number.
    #[allow(clippy::cast_possible_truncation)]
    let whole =
        (value.fract() == 0.0 && value.abs() <= 18_446_744_073_709_551_616.0).then_some(value as i128);
    whole
}

fn number_text<'t>(tree: &'t Tree, wanted: &str) -> Result<&'t str, String> {
    match tree {
        Tree::Number(text) | Tree::String(text) => Ok(text),
        _ => Err(format!("expected {wanted}, found {}", tree.kind())),
    }
}

fn bytes(tree: &Tree) -> Result<Vec<u8>, String> {
    let text = string(tree)?;
    let url_safe = text.contains(['-', '_']);
    let engine = if url_safe { &URL_SAFE } else { &STANDARD };
    engine
        .decode(text)
        .map_err(|error| format!("not base64: {error}"))
}

/// Enough to recognise it.
pub(super) fn excerpt(text: &str) -> String {
    if text.chars().count() <= 40 {
        return text.to_owned();
    }
    text.chars().take(37).chain("...".chars()).collect()
}
