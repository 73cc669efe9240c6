//! A document that stays at hand after it was understood, so that a later complaint can name a line as well.

use super::tree::{Node, Position, Tree};
use super::{DocumentError, Format, Refusal, Source, UnknownFields, merged};
use crate::dump::Descriptors;

/// A text, understood as one message.
pub struct Document {
    source: Source,
    bytes: Vec<u8>,
}

impl Document {
    /// Understands `text` as the message `full_name`; a field that the message does not have is refused. `file` is for
    /// the format (as for a bootstrap) and the complaints.
    ///
    /// # Errors
    /// [`DocumentError`], with line and column.
    pub fn parse(
        descriptors: &Descriptors,
        file: &str,
        text: &[u8],
        full_name: &str,
    ) -> Result<Self, DocumentError> {
        let source = Source::new(file, text, Format::of(file, text))?;
        let sources = std::slice::from_ref(&source);
        let bytes =
            merged(descriptors, full_name, sources, UnknownFields::Refuse).map_err(Refusal::into_error)?;
        Ok(Self { source, bytes })
    }

    /// The message, encoded.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A complaint about what `path` names (as `resources[0].name`), placed there; where the text does not have it, at
    /// the innermost part of the path that it has.
    pub fn complaint(&self, path: &str, reason: String, nearest: Option<String>) -> DocumentError {
        let at = place(&self.source.tree, path);
        DocumentError::Field {
            file: self.source.name.clone(),
            line: at.line,
            column: at.column,
            path: path.to_owned(),
            reason,
            nearest,
        }
    }
}

/// Of a value that is one word, of the name of one that is more; where the text does not have it, of the innermost part that it has.
pub(super) fn place(root: &Node, path: &str) -> Position {
    let mut node = root;
    let mut at = node.at;
    for segment in segments(path) {
        let found = match (&node.value, segment) {
            (Tree::List(items), Segment::Index(index)) => items.get(index).map(|item| (item, item.at)),
            // A list of one may be written without its brackets.
            (_, Segment::Index(0)) => Some((node, at)),
            (Tree::Object(members), Segment::Name(name) | Segment::Key(name)) => members
                .iter()
                .find(|member| member.name == name || snake_case(&member.name) == name)
                .map(|member| (&member.value, member.at)),
            _ => None,
        };
        let Some((next, place)) = found else { return at };
        (node, at) = (next, place);
    }
    match node.value {
        Tree::Object(_) | Tree::List(_) | Tree::Null => at,
        _ => node.at,
    }
}

/// A part of a field path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// A field.
    Name(String),
    /// A key of a map.
    Key(String),
    /// An item of a list.
    Index(usize),
}

/// `a[0]["k"].b` in its parts. What is no path gives parts that nothing has.
pub(crate) fn segments(path: &str) -> Vec<Segment> {
    let mut parts = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(key) = rest.strip_prefix("[\"") {
            let (key, after) = quoted(key);
            parts.push(Segment::Key(key));
            rest = after;
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']').unwrap_or((index, ""));
            parts.push(
                index
                    .parse()
                    .map_or_else(|_| Segment::Name(index.to_owned()), Segment::Index),
            );
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = after;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            parts.push(Segment::Name(name.to_owned()));
            rest = after;
        }
    }
    parts
}

/// The key of a map up to its quote, and what follows its bracket.
fn quoted(text: &str) -> (String, &str) {
    let mut key = String::new();
    let mut letters = text.char_indices();
    while let Some((offset, letter)) = letters.next() {
        match letter {
            '\\' => key.extend(letters.next().map(|(_, letter)| letter)),
            '"' => {
                let after = text.get(offset + 1..).unwrap_or_default();
                return (key, after.strip_prefix(']').unwrap_or(after));
            }
            letter => key.push(letter),
        }
    }
    (key, "")
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";

    fn check(text: &str, path: &str, expected: (usize, usize)) {
        let descriptors = Descriptors::full().expect("a whole build");
        let document = Document::parse(&descriptors, "r.yaml", text.as_bytes(), ROUTES).expect("a document");
        let complaint = document.complaint(path, "wrong".to_owned(), None).to_string();
        assert_eq!(
            complaint,
            format!("r.yaml:{}:{}: {path}: wrong", expected.0, expected.1)
        );
    }

    #[test]
    fn a_complaint_about_a_path_names_the_line_that_it_stands_in() {
        let text = "name: a\nvirtual_hosts:\n- name: b\n  domains: [c]\n- name: d\n  domains:\n  - e\n";
        check(text, "name", (1, 7));
        check(text, "virtual_hosts[1].domains[0]", (7, 5));
        check(text, "virtual_hosts[1].routes[3].match", (5, 3));
        check("virtualHosts:\n  - {name: b}", "virtual_hosts[0].name", (2, 12));
    }

    #[test]
    fn a_text_that_is_not_the_message_is_refused_with_its_place() {
        let descriptors = Descriptors::full().expect("a whole build");
        let check = |text: &str, begins: &str| {
            let error = Document::parse(&descriptors, "r.yaml", text.as_bytes(), ROUTES)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(error.starts_with(begins), "{text:?}: {error}");
        };
        check("nmae: a", "r.yaml:1:1: nmae: ");
        check("name: a\nvirtual_hosts: [", "r.yaml:3:1: ");
    }
}
