//! The part of the descriptor set that some content needs: a pool of everything is 10 MB for an answer of a few kilobytes.
//!
//! Which types an `Any` may hold is only known by reading; so every word after a slash that is the name of a message counts.
//! One too many costs memory for a moment, so nothing is parsed more exactly.
use std::collections::{BTreeSet, HashMap};

use prost::Message as _;
use prost::bytes::Buf as _;
use prost_types::{DescriptorProto, FileDescriptorProto};

/// A file of the set.
struct File<'s> {
    /// As it stands in the set.
    encoded: &'s [u8],
    imports: Vec<String>,
}

/// A descriptor set, taken apart.
pub(super) struct Index<'s> {
    files: Vec<File<'s>>,
    by_path: HashMap<String, usize>,
    by_message: HashMap<String, usize>,
}

impl<'s> Index<'s> {
    /// From an encoded `FileDescriptorSet`; what does not decode is left out.
    pub(super) fn new(set: &'s [u8]) -> Self {
        let mut index = Self {
            files: Vec::new(),
            by_path: HashMap::new(),
            by_message: HashMap::new(),
        };
        let mut rest = set;
        while let Some(file) = next(&mut rest) {
            index.add(file);
        }
        index
    }

    fn add(&mut self, encoded: &'s [u8]) {
        let Ok(file) = FileDescriptorProto::decode(encoded) else {
            return;
        };
        let number = self.files.len();
        for message in &file.message_type {
            self.add_message(file.package(), message, number);
        }
        self.by_path.insert(file.name().to_owned(), number);
        self.files.push(File {
            encoded,
            imports: file.dependency,
        });
    }

    fn add_message(&mut self, within: &str, message: &DescriptorProto, file: usize) {
        let dot = if within.is_empty() { "" } else { "." };
        let name = format!("{within}{dot}{}", message.name());
        for nested in &message.nested_type {
            self.add_message(&name, nested, file);
        }
        self.by_message.insert(name, file);
    }

    /// Adds the files of the messages that `content` names after a slash.
    pub(super) fn named_in(&self, content: &[u8], found: &mut BTreeSet<usize>) {
        for (at, byte) in content.iter().enumerate() {
            if *byte == b'/' {
                let word = content.get(at + 1..).map(word).unwrap_or_default();
                // The byte after a name may be the tag of the next field, and look like a letter.
                let candidates = (0..=2).filter_map(|cut| word.get(..word.len().checked_sub(cut)?));
                found.extend(candidates.filter_map(|name| self.by_message.get(name)));
            }
        }
    }

    /// Adds the file of a message.
    pub(super) fn named(&self, message: &str, found: &mut BTreeSet<usize>) {
        found.extend(self.by_message.get(message));
    }

    /// The set of these files and of everything they import, in the order of the whole set, which is that of imports.
    pub(super) fn closure(&self, files: BTreeSet<usize>) -> Vec<u8> {
        let mut needed = BTreeSet::new();
        let mut open = Vec::from_iter(files);
        while let Some(number) = open.pop() {
            if needed.insert(number) {
                let imports = self.files.get(number).map(|file| file.imports.as_slice());
                open.extend(
                    imports
                        .unwrap_or_default()
                        .iter()
                        .filter_map(|path| self.by_path.get(path)),
                );
            }
        }
        let mut set = Vec::new();
        for file in needed.into_iter().filter_map(|number| self.files.get(number)) {
            prost::encoding::encode_key(FILE, prost::encoding::WireType::LengthDelimited, &mut set);
            prost::encoding::encode_varint(file.encoded.len() as u64, &mut set);
            set.extend_from_slice(file.encoded);
        }
        set
    }
}

/// `FileDescriptorSet.file`.
const FILE: u32 = 1;

/// The next file of a set; the only field that it has.
fn next<'s>(rest: &mut &'s [u8]) -> Option<&'s [u8]> {
    if !rest.has_remaining() {
        return None;
    }
    prost::encoding::decode_key(rest).ok()?;
    let length = usize::try_from(prost::encoding::decode_varint(rest).ok()?).ok()?;
    let (file, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(file)
}

/// The letters of a full name at the beginning; empty if there are none.
fn word(content: &[u8]) -> &str {
    /// Full names are shorter.
    const LONGEST: usize = 200;
    let belongs = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
    let end = content
        .iter()
        .take(LONGEST)
        .take_while(|byte| belongs(byte))
        .count();
    content
        .get(..end)
        .and_then(|word| std::str::from_utf8(word).ok())
        .unwrap_or_default()
}
