//! `google.protobuf.Struct` values and `core.v3.Metadata`.
use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3 as pb;
use envoy_types::pb::google::protobuf::{self, value::Kind};

use crate::field::{FieldPath, Rejection, verdicts};

/// One JSON-like value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// JSON `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number; protobuf knows only doubles. Conversion refuses NaN, so equality is total.
    Number(f64),
    /// A string.
    String(String),
    /// A list.
    List(Vec<Value>),
    /// An object.
    Struct(Struct),
}
impl Eq for Value {}

/// A JSON object with sorted keys.
pub type Struct = BTreeMap<String, Value>;

impl Value {
    /// The string inside, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
    /// The object inside, if it is one.
    pub fn as_struct(&self) -> Option<&Struct> {
        match self {
            Value::Struct(fields) => Some(fields),
            _ => None,
        }
    }
    /// The list inside, if it is one.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }
}

/// Filter metadata by namespace (`istio`, `envoy.transport_socket_match`, …). Source: envoy/config/core/v3/base.proto `Metadata`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata(pub BTreeMap<String, Struct>);

/// Where labels for subsets are.
pub const SUBSET_NAMESPACE: &str = "envoy.lb";

impl Metadata {
    /// The value of `key` in `namespace`.
    pub fn get(&self, namespace: &str, key: &str) -> Option<&Value> {
        self.0.get(namespace)?.get(key)
    }
}

impl Metadata {
    /// Converts what filters, logs and balancers read by namespace.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: Option<pb::Metadata>) -> Result<Self, Rejection> {
        let Some(proto) = proto else {
            return Ok(Self::default());
        };
        verdicts!(at, proto => pb::Metadata {
            supported { filter_metadata }
            never { typed_filter_metadata: "only extensions of Envoy read it; /config_dump shows it" }
        });
        let namespaces = filter_metadata.into_iter().map(|(namespace, fields)| {
            let fields = struct_from_proto(&at.field("filter_metadata").key(&namespace), fields)?;
            Ok((namespace, fields))
        });
        Ok(Self(namespaces.collect::<Result<_, Rejection>>()?))
    }
}

/// The labels that a `metadata_match` asks for: those of `envoy.lb`. Source: route.proto `RouteAction.metadata_match`.
pub(crate) fn subset_labels(at: &FieldPath<'_>, proto: Option<pb::Metadata>) -> Result<Struct, Rejection> {
    let Metadata(mut namespaces) = Metadata::from_proto(&at.field("metadata_match"), proto)?;
    Ok(namespaces.remove(SUBSET_NAMESPACE).unwrap_or_default())
}

/// Converts a JSON object.
///
/// # Errors
/// A number in it is not one.
pub(crate) fn struct_from_proto(at: &FieldPath<'_>, proto: protobuf::Struct) -> Result<Struct, Rejection> {
    let protobuf::Struct { fields } = proto;
    let fields = fields.into_iter().map(|(key, value)| {
        let value = value_from_proto(&at.field(&key), value)?;
        Ok((key, value))
    });
    fields.collect()
}

fn value_from_proto(at: &FieldPath<'_>, proto: protobuf::Value) -> Result<Value, Rejection> {
    let protobuf::Value { kind } = proto;
    Ok(match kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) if value.is_nan() => return Err(at.reject("is not a number")),
        Some(Kind::NumberValue(value)) => Value::Number(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::StructValue(value)) => Value::Struct(struct_from_proto(at, value)?),
        Some(Kind::ListValue(protobuf::ListValue { values })) => {
            let values = values.into_iter().map(|value| value_from_proto(at, value));
            Value::List(values.collect::<Result<_, _>>()?)
        }
    })
}
