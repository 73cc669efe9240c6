//! Types that proto JSON writes in a form of their own. Source: protobuf.dev "ProtoJSON Format".
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use prost_types::value::Kind as JsonKind;

use super::decode::{Decoder, Fault};
use super::nearest::nearest;
use super::scalar;
use super::tree::{Member, Node, Tree};
use crate::dump::has_own_form;

impl Decoder<'_> {
    /// `None`: an ordinary message.
    pub(super) fn well_known(
        &mut self,
        node: &Node,
        descriptor: &MessageDescriptor,
    ) -> Option<Result<DynamicMessage, Fault>> {
        let kind = descriptor.full_name().strip_prefix("google.protobuf.")?;
        let plain = match kind {
            "Any" => return Some(self.any(node, descriptor)),
            // Envoy reads both; go-control-plane's samples have `{ nanos: 500000000 }`.
            "Duration" if matches!(node.value, Tree::Object(_)) => return None,
            "Duration" => self
                .text(node, "a duration as \"1.5s\"", duration)
                .map(|value| value.encode_to_vec()),
            "Timestamp" => self
                .text(node, "a time as \"2026-01-31T12:00:00Z\"", |text| {
                    text.parse::<prost_types::Timestamp>().ok()
                })
                .map(|value| value.encode_to_vec()),
            "FieldMask" => self
                .text(node, "field paths", |text| Some(field_mask(text)))
                .map(|value| value.encode_to_vec()),
            "Value" => self.json(node).map(|value| value.encode_to_vec()),
            "Struct" => match self.json(node) {
                Ok(prost_types::Value {
                    kind: Some(JsonKind::StructValue(value)),
                }) => Ok(value.encode_to_vec()),
                Ok(_) => Err(self.unexpected(node, "an object")),
                Err(fault) => Err(fault),
            },
            "ListValue" => match self.json(node) {
                Ok(prost_types::Value {
                    kind: Some(JsonKind::ListValue(value)),
                }) => Ok(value.encode_to_vec()),
                Ok(_) => Err(self.unexpected(node, "a list")),
                Err(fault) => Err(fault),
            },
            kind if kind.ends_with("Value") => return Some(self.wrapper(node, descriptor)),
            _ => return None,
        };
        let decoded = plain.and_then(|bytes| {
            DynamicMessage::decode(descriptor.clone(), bytes.as_slice())
                .map_err(|_| self.fault(node.at, "nested too deeply for protobuf (100 levels)"))
        });
        Some(decoded)
    }

    /// `BoolValue` and the like: the value itself.
    fn wrapper(&mut self, node: &Node, descriptor: &MessageDescriptor) -> Result<DynamicMessage, Fault> {
        let mut message = DynamicMessage::new(descriptor.clone());
        if let Some(field) = descriptor.get_field(1) {
            let value =
                scalar::scalar(&node.value, &field.kind()).map_err(|reason| self.fault(node.at, reason))?;
            message.set_field(&field, value);
        }
        Ok(message)
    }

    fn text<T>(&self, node: &Node, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, Fault> {
        match &node.value {
            Tree::String(text) => read(text)
                .ok_or_else(|| self.fault(node.at, format!("`{}` is not {wanted}", scalar::excerpt(text)))),
            _ => Err(self.unexpected(node, wanted)),
        }
    }

    fn any(&mut self, node: &Node, descriptor: &MessageDescriptor) -> Result<DynamicMessage, Fault> {
        let Tree::Object(members) = &node.value else {
            return Err(self.unexpected(node, "an object with `@type`"));
        };
        let mut any = DynamicMessage::new(descriptor.clone());
        if members.is_empty() {
            return Ok(any);
        }
        let Some(named) = members.iter().find(|member| member.name == "@type") else {
            return Err(self.fault(
                node.at,
                "`@type` is missing; it names the message, as \"type.googleapis.com/package.Name\"",
            ));
        };
        let url = self.within("@type", |decoder| decoder.type_url(&named.value))?;
        let (url, inner) = url;
        let rest = || members.iter().filter(|member| member.name != "@type");
        let message = if has_own_form(inner.full_name()) {
            self.value_member(node, rest(), &inner)?
        } else {
            self.fields(rest(), &inner)?
        };
        any.set_field_by_number(1, Value::String(url));
        any.set_field_by_number(2, Value::Bytes(message.encode_to_vec().into()));
        Ok(any)
    }

    fn type_url(&mut self, node: &Node) -> Result<(String, MessageDescriptor), Fault> {
        let url = scalar::string(&node.value).map_err(|reason| self.fault(node.at, reason))?;
        let Some(descriptor) = self.descriptors.by_url(url).filter(|_| url.contains('/')) else {
            let name = url.rsplit('/').next().unwrap_or_default();
            let nearest = nearest(name, self.descriptors.message_names());
            let nearest = nearest.map(|name| format!("type.googleapis.com/{name}"));
            let reason = format!(
                "`{}` is not a type URL that this program knows",
                scalar::excerpt(url)
            );
            return Err(Fault {
                nearest,
                unknown_type: true,
                ..self.fault(node.at, reason)
            });
        };
        Ok((url.to_owned(), descriptor))
    }

    /// `{"@type": …Duration, "value": "1s"}`.
    fn value_member<'n>(
        &mut self,
        node: &Node,
        mut members: impl Iterator<Item = &'n Member>,
        descriptor: &MessageDescriptor,
    ) -> Result<DynamicMessage, Fault> {
        match (members.next(), members.next()) {
            (Some(member), None) if member.name == "value" => {
                self.within("value", |decoder| decoder.message(&member.value, descriptor))
            }
            (None, None) => Ok(DynamicMessage::new(descriptor.clone())),
            _ => Err(self.fault(
                node.at,
                format!("{} stands under `value`, alone", descriptor.full_name()),
            )),
        }
    }

    fn json(&self, node: &Node) -> Result<prost_types::Value, Fault> {
        let kind = match &node.value {
            Tree::Null => JsonKind::NullValue(0),
            Tree::Bool(value) => JsonKind::BoolValue(*value),
            Tree::Number(_) => JsonKind::NumberValue(
                scalar::double(&node.value).map_err(|reason| self.fault(node.at, reason))?,
            ),
            Tree::String(text) => JsonKind::StringValue(text.clone()),
            Tree::List(nodes) => {
                let values = nodes
                    .iter()
                    .map(|node| self.json(node))
                    .collect::<Result<_, _>>()?;
                JsonKind::ListValue(prost_types::ListValue { values })
            }
            Tree::Object(members) => {
                let member = |member: &Member| Ok((member.name.clone(), self.json(&member.value)?));
                let fields = members.iter().map(member).collect::<Result<_, Fault>>()?;
                JsonKind::StructValue(prost_types::Struct { fields })
            }
        };
        Ok(prost_types::Value { kind: Some(kind) })
    }
}

/// `-1.5s`, at most nine digits after the point, within ±10,000 years.
fn duration(text: &str) -> Option<prost_types::Duration> {
    const MAX_SECONDS: i64 = 315_576_000_000;
    let number = text.strip_suffix('s')?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds = whole
        .parse::<i64>()
        .ok()
        .filter(|seconds| *seconds <= MAX_SECONDS)?;
    let nanos = format!("{fraction:0<9}").parse::<i32>().ok()?;
    Some(match negative {
        true => prost_types::Duration {
            seconds: -seconds,
            nanos: -nanos,
        },
        false => prost_types::Duration { seconds, nanos },
    })
}

/// `aB,c` to `a_b`, `c`.
fn field_mask(text: &str) -> prost_types::FieldMask {
    let snake = |path: &str| {
        path.chars().fold(String::new(), |mut snake, character| {
            if character.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(character.to_ascii_lowercase());
            snake
        })
    };
    prost_types::FieldMask {
        paths: text
            .split(',')
            .filter(|path| !path.is_empty())
            .map(snake)
            .collect(),
    }
}
