//! JSON with places (RFC 8259). serde_json knows the place of an error only, not of a value.
use std::collections::HashSet;
use std::iter::Peekable;
use std::str::CharIndices;

use super::tree::{MAX_DEPTH, Member, Node, Position, SyntaxError, Tree};

/// # Errors
/// For anything but one JSON value.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut parser = Parser {
        text,
        rest: text.char_indices().peekable(),
        at: Position::START,
    };
    let node = parser.value(0)?;
    parser.space();
    match parser.rest.peek() {
        None => Ok(node),
        Some(_) => Err(parser.error("text after the end of the document")),
    }
}

struct Parser<'t> {
    text: &'t str,
    rest: Peekable<CharIndices<'t>>,
    at: Position,
}

impl<'t> Parser<'t> {
    fn value(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        self.space();
        let at = self.at;
        if depth > MAX_DEPTH {
            return Err(SyntaxError::too_deep(at));
        }
        let value = match self.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Tree::String(self.string()?),
            Some('-' | '0'..='9') => self.number()?,
            Some('a'..='z') => self.word()?,
            Some(other) => return Err(self.error(format!("expected a value, found `{other}`"))),
            None => return Err(self.error("the text ends where a value should be")),
        };
        Ok(Node { at, value })
    }

    fn object(&mut self, depth: usize) -> Result<Tree, SyntaxError> {
        let mut members = Vec::new();
        let mut names = HashSet::new();
        self.bump();
        if self.closes('}') {
            return Ok(Tree::Object(members));
        }
        loop {
            self.space();
            let at = self.at;
            if self.peek() != Some('"') {
                return Err(self.error("expected a name in double quotes"));
            }
            let name = self.string()?;
            if !names.insert(name.clone()) {
                return Err(SyntaxError::duplicate(at, &name));
            }
            self.space();
            self.expect(':')?;
            let value = self.value(depth + 1)?;
            members.push(Member { name, at, value });
            if self.closes('}') {
                return Ok(Tree::Object(members));
            }
            self.expect(',')?;
        }
    }

    fn list(&mut self, depth: usize) -> Result<Tree, SyntaxError> {
        let mut values = Vec::new();
        self.bump();
        if self.closes(']') {
            return Ok(Tree::List(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            if self.closes(']') {
                return Ok(Tree::List(values));
            }
            self.expect(',')?;
        }
    }

    /// Finds the end; serde_json decodes the escapes.
    fn string(&mut self) -> Result<String, SyntaxError> {
        let at = self.at;
        let start = self.offset();
        self.bump();
        loop {
            match self.bump() {
                Some('"') => break,
                Some('\\') => {
                    self.bump();
                }
                Some('\n') | None => return Err(SyntaxError::new(at, "this string has no end")),
                Some(_) => {}
            }
        }
        let token = self.text.get(start..self.offset()).unwrap_or_default();
        serde_json::from_str(token)
            .map_err(|_| SyntaxError::new(at, "this string has an invalid escape or character"))
    }

    fn number(&mut self) -> Result<Tree, SyntaxError> {
        let at = self.at;
        let token =
            self.token(|character| character.is_ascii_alphanumeric() || matches!(character, '+' | '-' | '.'));
        // The range is judged when the field's type is known.
        match serde_json::from_str::<f64>(token) {
            Ok(_) => Ok(Tree::Number(token.to_owned())),
            Err(_) => Err(SyntaxError::new(at, format!("`{token}` is not a number"))),
        }
    }

    fn word(&mut self) -> Result<Tree, SyntaxError> {
        let at = self.at;
        match self.token(|character| character.is_ascii_alphanumeric()) {
            "null" => Ok(Tree::Null),
            "true" => Ok(Tree::Bool(true)),
            "false" => Ok(Tree::Bool(false)),
            other => Err(SyntaxError::new(
                at,
                format!("`{other}` is not a JSON value; text stands in double quotes"),
            )),
        }
    }

    fn token(&mut self, belongs: impl Fn(char) -> bool) -> &'t str {
        let start = self.offset();
        while self.peek().is_some_and(&belongs) {
            self.bump();
        }
        self.text.get(start..self.offset()).unwrap_or_default()
    }

    fn closes(&mut self, bracket: char) -> bool {
        self.space();
        let closes = self.peek() == Some(bracket);
        if closes {
            self.bump();
        }
        closes
    }

    fn expect(&mut self, wanted: char) -> Result<(), SyntaxError> {
        match self.peek() {
            Some(found) if found == wanted => {
                self.bump();
                Ok(())
            }
            Some(found) => Err(self.error(format!("expected `{wanted}`, found `{found}`"))),
            None => Err(self.error(format!("the text ends where `{wanted}` should be"))),
        }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\r' | '\n')) {
            self.bump();
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, character)| *character)
    }

    fn offset(&mut self) -> usize {
        self.rest.peek().map_or(self.text.len(), |(offset, _)| *offset)
    }

    fn bump(&mut self) -> Option<char> {
        let (_, character) = self.rest.next()?;
        self.at = match character {
            '\n' => Position {
                line: self.at.line + 1,
                column: 1,
            },
            _ => Position {
                column: self.at.column + 1,
                ..self.at
            },
        };
        Some(character)
    }

    fn error(&self, reason: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.at, reason)
    }
}
