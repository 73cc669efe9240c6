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

fn place(root: &Node, path: &str) -> Position {
    let mut node = root;
    let mut at = node.at;
    for segment in segments(path) {
        let found = match (&node.value, segment) {
            (Tree::List(items), Segment::Index(index)) => items.get(index).map(|item| (item, item.at)),
            // A list of one may be written without its brackets.
            (_, Segment::Index(0)) => Some((node, at)),
            (Tree::Object(members), Segment::Name(name)) => members
                .iter()
                .find(|member| snake_case(&member.name) == name || member.name == name)
                .map(|member| (&member.value, member.at)),
            _ => None,
        };
        let Some((next, place)) = found else { break };
        (node, at) = (next, place);
    }
    at
}

enum Segment<'p> {
    Name(&'p str),
    Index(usize),
}

/// `a[0]["k"].b` in its parts. What is no path gives parts that nothing has.
fn segments(path: &str) -> impl Iterator<Item = Segment<'_>> {
    path.split(['.', '[', ']'])
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse()
                .map_or_else(|_| Segment::Name(part.trim_matches('"')), Segment::Index)
        })
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
        check(text, "name", (1, 1));
        check(text, "virtual_hosts[1].domains[0]", (7, 5));
        check(text, "virtual_hosts[1].routes[3].match", (5, 3));
        check("virtualHosts:\n  - {name: b}", "virtual_hosts[0].name", (2, 6));
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
