//! BSON, as far as counters and a log need it: a document is checked once, to a limited depth, and then looked at in place.
//!
//! Copies nothing and allocates nothing; the crates that read BSON build trees of values, of which three keys are wanted here. Accepts and
//! refuses what Envoy does, so it knows only the types that Envoy knows: bsonspec.org has more (undefined, code, decimal128, min and max
//! key), and a message with one of those ends the counting there as well. Source: bsonspec.org; Envoy docs, "Mongo proxy".

/// Why bytes are no message that Envoy would count. The sender is at fault, or newer than this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    /// A value goes on behind the bytes that are there.
    #[error("a value is longer than what was received")]
    Short,
    /// A name without an end.
    #[error("a name has no end")]
    Unterminated,
    /// A document's own length cannot be.
    #[error("a document's length is not that of its fields")]
    Length,
    /// Deeper than `max_bson_depth`.
    #[error("documents are nested too deeply")]
    Depth,
    /// An element type that Envoy does not know.
    #[error("unknown type {0:#x} of a field")]
    Type(u8),
    /// An operation that Envoy does not know, such as OP_MSG.
    #[error("unknown operation {0}")]
    Operation(i32),
    /// A query without what a query of its kind has.
    #[error("{0}")]
    Query(&'static str),
}

/// Takes values from the front of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
    depth: u32,
}

/// A document that was checked, without its length and its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'a> {
    fields: &'a [u8],
    /// Bytes it has when it is written anew, which is what Envoy counts.
    pub(super) size: u64,
}

/// Documents one behind the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Documents<'a> {
    bytes: &'a [u8],
    pub(super) count: u64,
    /// As [`Document::size`], of all.
    pub(super) size: u64,
}

/// A field's value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Double(f64),
    Text(&'a [u8]),
    Symbol(&'a [u8]),
    Document(Document<'a>),
    Array(Document<'a>),
    Binary(&'a [u8]),
    ObjectId(&'a [u8]),
    Boolean(bool),
    Null,
    Regex(&'a [u8], &'a [u8]),
    Int32(i32),
    /// Times too.
    Int64(i64),
    /// A time, which is a number only in the log.
    Time(i64),
}

impl<'a> Reader<'a> {
    /// `depth`: how deep documents may be nested in one that may.
    pub(super) fn new(left: &'a [u8], depth: u32) -> Self {
        Self { left, depth }
    }

    /// Bytes that are not taken yet.
    pub(super) fn left(&self) -> &'a [u8] {
        self.left
    }

    /// Takes this many bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, left) = self.left.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, left) = self.left.split_first_chunk().ok_or(DecodeError::Short)?;
        self.left = left;
        Ok(*taken)
    }

    pub(super) fn int32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn int64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    /// Up to the next NUL, which is taken too.
    pub(super) fn name(&mut self) -> Result<&'a [u8], DecodeError> {
        let end = memchr::memchr(0, self.left).ok_or(DecodeError::Unterminated)?;
        let name = self.take(end)?;
        self.take(1)?;
        Ok(name)
    }

    fn counted(&mut self, length: i32) -> Result<&'a [u8], DecodeError> {
        self.take(usize::try_from(length).map_err(|_| DecodeError::Short)?)
    }

    /// Without the NUL at its end, which is not looked at.
    fn text(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.int32()?;
        let text = self.counted(length)?;
        Ok(text.split_last().map_or(text, |(_, text)| text))
    }

    /// Takes a document and checks all of it.
    pub(super) fn document(&mut self) -> Result<Document<'a>, DecodeError> {
        let depth = self.depth.checked_sub(1).ok_or(DecodeError::Depth)?;
        let whole = self.left;
        let mut inside = Self { left: whole, depth };
        let length = usize::try_from(inside.int32()?).map_err(|_| DecodeError::Length)?;
        if length > whole.len() {
            return Err(DecodeError::Length);
        }
        let start = inside.left;
        // Its length and its end.
        let mut size = 5;
        while whole.len() - inside.left.len() + 1 != length {
            let (name, value) = inside.field()?;
            size += 2 + name.len() as u64 + value.size();
        }
        let fields = start
            .get(..start.len() - inside.left.len())
            .ok_or(DecodeError::Length)?;
        if inside.array()? != [0] {
            return Err(DecodeError::Length);
        }
        self.left = inside.left;
        Ok(Document { fields, size })
    }

    /// Takes documents as long as `more` says.
    pub(super) fn documents(
        &mut self,
        mut more: impl FnMut(u64, &Self) -> bool,
    ) -> Result<Documents<'a>, DecodeError> {
        let whole = self.left;
        let (mut count, mut size) = (0, 0);
        while more(count, self) {
            size += self.document()?.size;
            count += 1;
        }
        let bytes = whole.get(..whole.len() - self.left.len()).unwrap_or_default();
        Ok(Documents { bytes, count, size })
    }

    fn field(&mut self) -> Result<(&'a [u8], Value<'a>), DecodeError> {
        let [kind] = self.array()?;
        let name = self.name()?;
        let value = match kind {
            0x01 => Value::Double(self.array().map(f64::from_le_bytes)?),
            0x02 => Value::Text(self.text()?),
            0x03 => Value::Document(self.document()?),
            0x04 => Value::Array(self.document()?),
            0x05 => {
                let length = self.int32()?;
                self.take(1)?;
                Value::Binary(self.counted(length)?)
            }
            0x07 => Value::ObjectId(self.take(12)?),
            0x08 => Value::Boolean(self.array()? != [0]),
            0x09 | 0x11 => Value::Time(self.int64()?),
            0x0a => Value::Null,
            0x0b => Value::Regex(self.name()?, self.name()?),
            0x0e => Value::Symbol(self.text()?),
            0x10 => Value::Int32(self.int32()?),
            0x12 => Value::Int64(self.int64()?),
            other => return Err(DecodeError::Type(other)),
        };
        Ok((name, value))
    }
}

impl Value<'_> {
    fn size(&self) -> u64 {
        match self {
            Value::Double(_) | Value::Int64(_) | Value::Time(_) => 8,
            Value::Text(text) | Value::Symbol(text) | Value::Binary(text) => 5 + text.len() as u64,
            Value::Document(document) | Value::Array(document) => document.size,
            Value::ObjectId(_) => 12,
            Value::Boolean(_) => 1,
            Value::Null => 0,
            Value::Regex(pattern, options) => 2 + (pattern.len() + options.len()) as u64,
            Value::Int32(_) => 4,
        }
    }
}

impl<'a> Document<'a> {
    /// Its fields in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> + use<'a> {
        // Checked already, the depth too.
        let mut reader = Reader::new(self.fields, u32::MAX);
        std::iter::from_fn(move || match reader.left.is_empty() {
            true => None,
            false => reader.field().ok(),
        })
    }

    /// The first field of this name.
    pub(super) fn find(&self, name: &[u8]) -> Option<Value<'a>> {
        let found = self.fields().find(|(key, _)| *key == name);
        found.map(|(_, value)| value)
    }

    /// The first field of this name that is a document.
    pub(super) fn find_document(&self, name: &[u8]) -> Option<Document<'a>> {
        self.fields().find_map(|(key, value)| match value {
            Value::Document(document) if key == name => Some(document),
            _ => None,
        })
    }

    /// The first field of this name that is text.
    pub(super) fn find_text(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.fields().find_map(|(key, value)| match value {
            Value::Text(text) if key == name => Some(text),
            _ => None,
        })
    }
}

impl<'a> Documents<'a> {
    /// Each.
    pub(super) fn iter(&self) -> impl Iterator<Item = Document<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes, u32::MAX);
        std::iter::from_fn(move || match reader.left.is_empty() {
            true => None,
            false => reader.document().ok(),
        })
    }
}
