//! What an OP_QUERY asks for: a command, or documents of a collection. Pure.
//! Source: Envoy docs, "Mongo proxy", "Collection and query statistics", "Callsite", "Command statistics".
use super::bson::{DecodeError, Document, Value};
use super::message::Query;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question<'a> {
    /// A command of this name.
    Command(&'a [u8]),
    /// Documents.
    Find(Find<'a>),
}

/// A question for documents.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Find<'a> {
    /// Without its database.
    pub(super) collection: &'a [u8],
    /// The function that asks, as the client says.
    pub(super) callsite: Option<String>,
    /// Milliseconds that the server may take; 0: not said.
    pub(super) max_millis: i32,
    pub(super) breadth: Breadth,
}

/// How many shards are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breadth {
    /// By `_id`.
    One,
    /// By several `_id`.
    Multi,
    /// Without `_id`.
    Scatter,
}

impl<'a> Question<'a> {
    /// # Errors
    /// As Envoy: a command without a name, a collection without a database, `find` of what is no name.
    pub(super) fn of(query: &Query<'a>) -> Result<Self, DecodeError> {
        let inner = query.query.find_document(b"$query");
        if contains(query.collection, b"$cmd") {
            let command = inner.unwrap_or(query.query);
            let first = command.fields().next();
            let (name, value) = first.ok_or(DecodeError::Query("a command has no name"))?;
            return Ok(match name {
                b"find" => Self::Find(Find::of_command(&command, value)?),
                b"collstats" => Self::Command(b"collStats"),
                b"dbstats" => Self::Command(b"dbStats"),
                b"findandmodify" => Self::Command(b"findAndModify"),
                b"getlasterror" => Self::Command(b"getLastError"),
                b"ismaster" => Self::Command(b"isMaster"),
                name => Self::Command(name),
            });
        }
        let dot = memchr::memchr(b'.', query.collection);
        let collection = dot.and_then(|dot| query.collection.get(dot + 1..));
        let outer = Breadth::of(&query.query);
        Ok(Self::Find(Find {
            collection: collection.ok_or(DecodeError::Query("a collection has no database"))?,
            callsite: callsite(query.query.find_text(b"$comment")),
            max_millis: max_millis(&query.query),
            breadth: match (outer, inner) {
                (Breadth::Scatter, Some(inner)) => Breadth::of(&inner),
                _ => outer,
            },
        }))
    }
}

impl<'a> Find<'a> {
    fn of_command(command: &Document<'a>, collection: Value<'a>) -> Result<Self, DecodeError> {
        let Value::Text(collection) = collection else {
            return Err(DecodeError::Query("find does not say of which collection"));
        };
        let filter = command.find_document(b"filter");
        Ok(Self {
            collection,
            callsite: callsite(command.find_text(b"comment")),
            // Envoy does not look for it here.
            max_millis: 0,
            breadth: filter.map_or(Breadth::Scatter, |filter| Breadth::of(&filter)),
        })
    }
}

impl Breadth {
    fn of(document: &Document<'_>) -> Self {
        match document.find(b"_id") {
            None => Self::Scatter,
            Some(Value::Document(_) | Value::Array(_)) => Self::Multi,
            Some(_) => Self::One,
        }
    }
}

fn max_millis(query: &Document<'_>) -> i32 {
    let value = query.find(b"$maxTimeMS").or_else(|| query.find(b"maxTimeMS"));
    match value {
        Some(Value::Int32(millis)) => millis,
        // As Envoy.
        #[allow(clippy::cast_possible_truncation)]
        Some(Value::Int64(millis)) => millis as i32,
        _ => 0,
    }
}

/// A comment may be JSON with the name of the function that asks.
fn callsite(comment: Option<&[u8]>) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(comment?).ok()?;
    let name = json.get("callingFunction")?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}
