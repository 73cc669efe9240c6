//! Reads the JSON object of a `TypedStruct`, key by key. Both spellings of proto JSON are accepted: `snake_case` and `camelCase`.
use envoy_types::pb::google::protobuf::{self, value::Kind};

use crate::any::FromJson;
use crate::field::{FieldPath, Rejection};

/// A JSON object of which keys are taken.
pub(super) struct Object<'a> {
    at: &'a FieldPath<'a>,
    json: protobuf::Struct,
}

impl<'a> Object<'a> {
    pub(super) fn new(at: &'a FieldPath<'a>, json: protobuf::Struct) -> Self {
        Self { at, json }
    }

    /// Takes a key; `null` is the same as an absent one.
    fn take(&mut self, key: &str) -> Option<Kind> {
        let value = self
            .json
            .fields
            .remove(key)
            .or_else(|| self.json.fields.remove(&camel_case(key)))?;
        value.kind.filter(|kind| !matches!(kind, Kind::NullValue(_)))
    }

    pub(super) fn string(&mut self, key: &str) -> Result<String, Rejection> {
        match self.take(key) {
            None => Ok(String::new()),
            Some(Kind::StringValue(text)) => Ok(text),
            Some(_) => Err(self.at.field(key).reject("must be a string")),
        }
    }

    pub(super) fn boolean(&mut self, key: &str) -> Result<bool, Rejection> {
        match self.take(key) {
            None => Ok(false),
            Some(Kind::BoolValue(value)) => Ok(value),
            Some(_) => Err(self.at.field(key).reject("must be true or false")),
        }
    }

    fn list(&mut self, key: &str) -> Result<Vec<protobuf::Value>, Rejection> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Kind::ListValue(list)) => Ok(list.values),
            Some(_) => Err(self.at.field(key).reject("must be a list")),
        }
    }

    pub(super) fn strings(&mut self, key: &str) -> Result<Vec<String>, Rejection> {
        let items = self.list(key)?.into_iter().enumerate();
        let texts = items.map(|(index, item)| match item.kind {
            Some(Kind::StringValue(text)) => Ok(text),
            _ => Err(self.at.field(key).index(index).reject("must be a string")),
        });
        texts.collect()
    }

    pub(super) fn message<M: FromJson>(&mut self, key: &str) -> Result<Option<M>, Rejection> {
        match self.take(key) {
            None => Ok(None),
            Some(Kind::StructValue(json)) => M::from_json(&self.at.field(key), json).map(Some),
            Some(_) => Err(self.at.field(key).reject("must be an object")),
        }
    }

    pub(super) fn messages<M: FromJson>(&mut self, key: &str) -> Result<Vec<M>, Rejection> {
        let items = self.list(key)?.into_iter().enumerate();
        let messages = items.map(|(index, item)| match item.kind {
            Some(Kind::StructValue(json)) => M::from_json(&self.at.field(key).index(index), json),
            _ => Err(self.at.field(key).index(index).reject("must be an object")),
        });
        messages.collect()
    }

    /// Nothing may be left: what a typo named would be ignored.
    pub(super) fn end(self, valid: &[&'static str]) -> Result<(), Rejection> {
        let Some(key) = self.json.fields.keys().min() else {
            return Ok(());
        };
        Err(self
            .at
            .reject_name(format!("unknown field {key:?}"), key, valid.iter().copied()))
    }
}

fn camel_case(snake: &str) -> String {
    let mut words = snake.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut chars = word.chars();
        camel.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(chars.as_str());
    }
    camel
}
