//! A document whose message is to be found out, read to its end: every fault in it, not only the first.

use prost_reflect::DynamicMessage;

use super::decode::{Decoder, Fault};
use super::placed::place;
use super::shape::message_of;
use super::tree::{Node, Position, Tree};
use super::{DocumentError, Format, Source};
use crate::dump::Descriptors;

/// A text, parsed.
pub(crate) struct Untyped {
    source: Source,
}

/// What is wrong at a place of a text.
#[derive(Debug)]
pub(crate) struct Complaint {
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// As written, from the top of the document.
    pub(crate) path: String,
    pub(crate) reason: String,
    pub(crate) nearest: Option<String>,
}

/// What a text was read as.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// With the path at which each stands in the document; empty for the document itself.
    pub(crate) messages: Vec<(String, DynamicMessage)>,
    pub(crate) complaints: Vec<Complaint>,
}

impl Untyped {
    /// Parses JSON or YAML; `file` is for the format, as for a bootstrap, and the complaint.
    ///
    /// # Errors
    /// [`DocumentError::Syntax`].
    pub(crate) fn parse(file: &str, text: &[u8]) -> Result<Self, DocumentError> {
        let source = Source::new(file, text, Format::of(file, text))?;
        Ok(Self { source })
    }

    /// The messages in it: one, or a list of them. What has a fault is left out of them.
    pub(crate) fn read(&self, descriptors: &Descriptors) -> Messages {
        let mut read = Messages::default();
        match &self.source.tree.value {
            Tree::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    read.add(descriptors, item, format!("[{index}]"));
                }
            }
            _ => read.add(descriptors, &self.source.tree, String::new()),
        }
        read
    }

    /// Line and column of what `path` names, from 1; where the text does not have it, of the innermost part that it has.
    pub(crate) fn place(&self, path: &str) -> (usize, usize) {
        let Position { line, column } = place(&self.source.tree, path);
        (line, column)
    }
}

impl Messages {
    fn add(&mut self, descriptors: &Descriptors, node: &Node, path: String) {
        let full_name = match message_of(descriptors, node) {
            Ok(full_name) => full_name,
            Err(reason) => {
                let Position { line, column } = node.at;
                self.complaints.push(Complaint {
                    line,
                    column,
                    path,
                    reason,
                    nearest: None,
                });
                return;
            }
        };
        let (message, faults) = Decoder::all_faults(descriptors, node, full_name, &path);
        self.complaints.extend(faults.into_iter().map(Complaint::from));
        self.messages.extend(message.map(|message| (path, message)));
    }
}

impl From<Fault> for Complaint {
    fn from(fault: Fault) -> Self {
        let Fault {
            at: Position { line, column },
            path,
            reason,
            nearest,
            unknown_type: _,
        } = fault;
        Self {
            line,
            column,
            path,
            reason,
            nearest,
        }
    }
}

/// A message that is written as a JSON object inside another; `None` where it is none.
pub(crate) fn message_of_struct(
    descriptors: &Descriptors,
    object: prost_types::Struct,
    full_name: &str,
) -> Option<DynamicMessage> {
    let node = super::tree::of_struct(object);
    Decoder::all_faults(descriptors, &node, full_name, "").0
}
