//! Writes JSON text with one space of indentation a level, as Envoy's admin does. Knows nothing of protobuf.
use std::fmt::Write as _;

/// Text under construction. The caller pairs `begin_*` with `end_*`, and writes one value after each
/// [`Self::key`] or [`Self::element`].
#[derive(Debug)]
pub(super) struct JsonWriter {
    text: String,
    depth: usize,
    /// Nothing has been written into the innermost object or array.
    empty: bool,
}

impl JsonWriter {
    pub(super) fn new() -> Self {
        Self {
            text: String::new(),
            depth: 0,
            empty: true,
        }
    }

    /// What was written since the last time, if it is so much.
    pub(super) fn take(&mut self, at_least: usize) -> Option<String> {
        (self.text.len() >= at_least).then(|| std::mem::take(&mut self.text))
    }

    /// The text, with a line end.
    pub(super) fn finish(mut self) -> String {
        self.text.push('\n');
        self.text
    }

    pub(super) fn begin_object(&mut self) {
        self.open('{');
    }

    pub(super) fn end_object(&mut self) {
        self.close('}');
    }

    pub(super) fn begin_array(&mut self) {
        self.open('[');
    }

    pub(super) fn end_array(&mut self) {
        self.close(']');
    }

    pub(super) fn key(&mut self, name: &str) {
        self.element();
        self.string(name);
        self.text.push_str(": ");
    }

    pub(super) fn element(&mut self) {
        if !self.empty {
            self.text.push(',');
        }
        self.empty = false;
        self.line();
    }

    pub(super) fn string(&mut self, value: &str) {
        self.text.push('"');
        for character in value.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                // `<` and `>` too: the answer may be shown by a browser that guesses types. C++ protobuf does
                // the same.
                '\0'..='\x1f' | '\x7f' | '<' | '>' => {
                    // Writing into a String cannot fail.
                    let _ = write!(self.text, "\\u{:04x}", u32::from(character));
                }
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    pub(super) fn null(&mut self) {
        self.raw("null");
    }

    /// A number, or other text that is JSON already.
    pub(super) fn raw(&mut self, json: &str) {
        self.text.push_str(json);
    }

    /// A member whose value is a string.
    pub(super) fn member(&mut self, name: &str, value: &str) {
        self.key(name);
        self.string(value);
    }

    fn open(&mut self, bracket: char) {
        self.text.push(bracket);
        self.depth += 1;
        self.empty = true;
    }

    fn close(&mut self, bracket: char) {
        self.depth = self.depth.saturating_sub(1);
        if !self.empty {
            self.line();
        }
        self.empty = false;
        self.text.push(bracket);
    }

    fn line(&mut self) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', self.depth));
    }
}
