//! A document as values with places, whatever it was written in.

/// Deepest nesting of a document. Decoding recurses.
pub(super) const MAX_DEPTH: usize = 100;

/// Where something stands, from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Tree,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    /// As written in JSON syntax.
    Number(String),
    String(String),
    List(Vec<Node>),
    /// No name twice.
    Object(Vec<Member>),
}

/// A named value of an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Of the name.
    pub(super) at: Position,
    pub(super) value: Node,
}

impl Tree {
    /// For messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// A JSON object that has no places.
pub(super) fn of_struct(object: prost_types::Struct) -> Node {
    let members = object.fields.into_iter().map(|(name, value)| Member {
        name,
        at: Position::START,
        value: of_value(value),
    });
    node(Tree::Object(members.collect()))
}

/// Recursion is bounded: prost decodes no more than 100 levels.
fn of_value(value: prost_types::Value) -> Node {
    use prost_types::value::Kind;
    node(match value.kind {
        None | Some(Kind::NullValue(_)) => Tree::Null,
        Some(Kind::BoolValue(value)) => Tree::Bool(value),
        Some(Kind::NumberValue(value)) => Tree::Number(value.to_string()),
        Some(Kind::StringValue(text)) => Tree::String(text),
        Some(Kind::ListValue(list)) => Tree::List(list.values.into_iter().map(of_value).collect()),
        Some(Kind::StructValue(object)) => return of_struct(object),
    })
}

fn node(value: Tree) -> Node {
    Node {
        at: Position::START,
        value,
    }
}

/// The text is not of its format.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) at: Position,
    pub(super) reason: String,
}

impl SyntaxError {
    pub(super) fn new(at: Position, reason: impl Into<String>) -> Self {
        Self {
            at,
            reason: reason.into(),
        }
    }

    pub(super) fn too_deep(at: Position) -> Self {
        Self::new(at, format!("nested more than {MAX_DEPTH} levels deep"))
    }

    pub(super) fn duplicate(at: Position, name: &str) -> Self {
        Self::new(
            at,
            format!("key `{name}` stands here a second time; remove one of them"),
        )
    }
}

/// The text, without a byte order mark.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, SyntaxError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let good = std::str::from_utf8(good).unwrap_or_default();
            let last = good.rsplit('\n').next().unwrap_or_default();
            let at = Position {
                line: good.matches('\n').count() + 1,
                column: last.chars().count() + 1,
            };
            Err(SyntaxError::new(at, "not UTF-8"))
        }
    }
}
