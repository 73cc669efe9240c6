//! YAML with places. Scalars are resolved as Envoy's YAML reader does (yaml-cpp, then
//! `source/common/protobuf/yaml_utility.cc`): `yes` and `on` are booleans, integers may be hexadecimal or
//! octal, and what does not fit 32 bits or has a fraction stays a string.
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use super::tree::{MAX_DEPTH, Member, Node, Position, SyntaxError, Tree};

/// Values and bytes that aliases may add to a document. A few lines of YAML can name more than a machine can
/// hold.
const MAX_ALIASED: usize = 4 << 20;

/// # Errors
/// For anything but one document.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut parser = Parser::<StrInput<'_>>::new_from_str(text);
    let mut loader = Loader::default();
    while let Some(event) = parser.next_event() {
        let (event, span) =
            event.map_err(|error| SyntaxError::new(position(error.marker()), error.info()))?;
        loader.event(event, &span)?;
    }
    loader
        .root
        .ok_or_else(|| SyntaxError::new(Position::START, "the document is empty"))
}

/// Puts events together.
#[derive(Default)]
struct Loader {
    open: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
}

/// A collection whose end has not been seen.
struct Frame {
    at: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Object {
        members: Vec<Member>,
        names: HashSet<String>,
        name: Option<(String, Position)>,
    },
}

impl Loader {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), SyntaxError> {
        let at = position(&span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if self.expects_name() {
                    return self.name(&text, at);
                }
                let value = scalar(&text, style, tag.as_deref(), at)?;
                self.add(Node { at, value }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(at, anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                let content = Content::Object {
                    members: Vec::new(),
                    names: HashSet::new(),
                    name: None,
                };
                self.begin(at, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(SyntaxError::new(at, "a second document begins here; one is read"))
            }
            Event::DocumentStart(_) | Event::DocumentEnd => Ok(()),
            Event::StreamStart | Event::StreamEnd | Event::Nothing => Ok(()),
        }
    }

    fn expects_name(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Frame {
                content: Content::Object { name: None, .. },
                ..
            })
        )
    }

    fn name(&mut self, text: &str, at: Position) -> Result<(), SyntaxError> {
        if let Some(Frame {
            content: Content::Object { names, name, .. },
            ..
        }) = self.open.last_mut()
        {
            if !names.insert(text.to_owned()) {
                return Err(SyntaxError::duplicate(at, text));
            }
            *name = Some((text.to_owned(), at));
        }
        Ok(())
    }

    fn begin(&mut self, at: Position, anchor: usize, content: Content) -> Result<(), SyntaxError> {
        if self.expects_name() {
            return Err(SyntaxError::new(at, "a list or mapping cannot be a key"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(SyntaxError::too_deep(at));
        }
        self.open.push(Frame { at, anchor, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        let Some(Frame { at, anchor, content }) = self.open.pop() else {
            return Ok(());
        };
        let value = match content {
            Content::List(values) => Tree::List(values),
            Content::Object { members, .. } => Tree::Object(members),
        };
        self.add(Node { at, value }, anchor)
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), SyntaxError> {
        if self.expects_name() {
            return Err(SyntaxError::new(at, "an alias cannot be a key"));
        }
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(SyntaxError::new(at, "this alias stands inside its own anchor"));
        };
        let (cost, levels) = size(node);
        if self.open.len() + levels > MAX_DEPTH {
            return Err(SyntaxError::too_deep(at));
        }
        let value = node.value.clone();
        self.pay(cost, at)?;
        self.add(Node { at, value }, 0)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor > 0 {
            self.pay(size(&node).0, node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|frame| &mut frame.content) {
            None => self.root = Some(node),
            Some(Content::List(values)) => values.push(node),
            Some(Content::Object { members, name, .. }) => {
                if let Some((name, at)) = name.take() {
                    members.push(Member {
                        name,
                        at,
                        value: node,
                    });
                }
            }
        }
        Ok(())
    }

    fn pay(&mut self, cost: usize, at: Position) -> Result<(), SyntaxError> {
        self.aliased += cost;
        if self.aliased > MAX_ALIASED {
            return Err(SyntaxError::new(
                at,
                "aliases make the document too large; write the values out",
            ));
        }
        Ok(())
    }
}

/// Values and bytes of a tree, and its levels. Recursion is bounded: trees are no deeper than [`MAX_DEPTH`].
fn size(node: &Node) -> (usize, usize) {
    let both =
        |(cost, levels): (usize, usize), (more, deeper): (usize, usize)| (cost + more, levels.max(deeper));
    match &node.value {
        Tree::Null | Tree::Bool(_) => (1, 0),
        Tree::Number(text) | Tree::String(text) => (1 + text.len(), 0),
        Tree::List(values) => {
            let (cost, levels) = values.iter().map(size).fold((1, 0), both);
            (cost, levels + 1)
        }
        Tree::Object(members) => {
            let member = |member: &Member| {
                let (cost, levels) = size(&member.value);
                (cost + 1 + member.name.len(), levels)
            };
            let (cost, levels) = members.iter().map(member).fold((1, 0), both);
            (cost, levels + 1)
        }
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Tree, SyntaxError> {
    let string = || Tree::String(text.to_owned());
    match tag {
        // A lone `!` says "not plain".
        Some(tag) if tag.suffix.is_empty() || (tag.is_yaml_core_schema() && tag.suffix == "str") => {
            Ok(string())
        }
        Some(tag) if !tag.is_yaml_core_schema() => {
            Err(SyntaxError::new(at, "YAML tags have no meaning here"))
        }
        _ if style != ScalarStyle::Plain => Ok(string()),
        _ => Ok(plain(text).unwrap_or_else(string)),
    }
}

/// A plain scalar that is not a string.
fn plain(text: &str) -> Option<Tree> {
    if matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Some(Tree::Null);
    }
    if let Some(value) = boolean(text) {
        return Some(Tree::Bool(value));
    }
    let value = integer(text)?;
    Some(match i32::try_from(value) {
        Ok(value) => Tree::Number(value.to_string()),
        Err(_) => Tree::String(value.to_string()),
    })
}

/// yaml-cpp `convert<bool>`: lower, upper or capitalised.
fn boolean(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let mut capital = lower.clone();
    if let Some(first) = capital.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if text != lower && text != capital && text != lower.to_ascii_uppercase() {
        return None;
    }
    match lower.as_str() {
        "y" | "yes" | "true" | "on" => Some(true),
        "n" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// As a C++ stream reads an integer without a fixed base.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", text.get(1..)?),
        b'+' => ("", text.get(1..)?),
        _ => ("", text),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (digits.get(2..)?, 16),
        [b'0', _, ..] => (digits.get(1..)?, 8),
        _ => (digits, 10),
    };
    // `from_str_radix` would take a second sign.
    if !digits.starts_with(|character: char| character.is_ascii_hexdigit()) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

fn position(marker: &Marker) -> Position {
    Position {
        line: marker.line(),
        column: marker.col() + 1,
    }
}
