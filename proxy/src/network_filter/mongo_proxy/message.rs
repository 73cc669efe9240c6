//! MongoDB's wire protocol before OP_MSG, which Envoy does not know: bytes of one direction to messages. No I/O.
//! Source: MongoDB manual, "MongoDB Wire Protocol" and "Legacy Opcodes"; behaviour beside Envoy 1.40 in tests/it/alone/mongo.rs.
use super::bson::{DecodeError, Document, Documents, Reader};

/// What a server says of itself as `maxMessageSizeBytes`. Envoy has no limit and would keep 4 GB.
const MAX_MESSAGE_BYTES: u32 = 48_000_000;
/// Documents are read by recursion. MongoDB nests them 100 deep at most.
const DEEPEST: u32 = 1000;
/// Length, id, id of the request, operation.
const HEADER_BYTES: u32 = 16;

/// Those that are decoded.
const OPERATIONS: [i32; 7] = [1, 2002, 2004, 2005, 2007, 2010, 2011];

/// One message.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) id: i32,
    pub(super) response_to: i32,
    pub(super) body: Body<'a>,
}

/// What it says, by its operation.
#[derive(Debug)]
pub(super) enum Body<'a> {
    Reply(Reply<'a>),
    Query(Query<'a>),
    GetMore {
        collection: &'a [u8],
        limit: i32,
        cursor: i64,
    },
    Insert {
        flags: i32,
        collection: &'a [u8],
        documents: Documents<'a>,
    },
    KillCursors {
        count: i32,
        /// Eight bytes each.
        cursors: &'a [u8],
    },
    Command {
        database: &'a [u8],
        name: &'a [u8],
        metadata: Document<'a>,
        arguments: Document<'a>,
        /// At most one, as in Envoy.
        input: Documents<'a>,
    },
    CommandReply {
        metadata: Document<'a>,
        reply: Document<'a>,
        /// At most one, as in Envoy.
        output: Documents<'a>,
    },
}

/// OP_QUERY.
#[derive(Debug)]
pub(super) struct Query<'a> {
    pub(super) flags: i32,
    /// With its database.
    pub(super) collection: &'a [u8],
    pub(super) skip: i32,
    pub(super) limit: i32,
    pub(super) query: Document<'a>,
    pub(super) fields: Option<Document<'a>>,
}

/// OP_REPLY.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    pub(super) flags: i32,
    pub(super) cursor: i64,
    pub(super) from: i32,
    pub(super) returned: i32,
    pub(super) documents: Documents<'a>,
}

/// The bytes of one direction.
#[derive(Debug)]
pub(super) struct Decoder {
    max_depth: u32,
    /// The beginning of a message.
    kept: Vec<u8>,
    /// A message has a length that none can have, and nobody waits for its end.
    is_stuck: bool,
}

impl Decoder {
    /// `max_depth`: how deep documents may be nested. The outermost does not count, as in Envoy.
    pub(super) fn new(max_depth: u32) -> Self {
        Self {
            max_depth: max_depth.min(DEEPEST).saturating_add(1),
            kept: Vec::new(),
            is_stuck: false,
        }
    }

    /// What was kept is of no use any more.
    pub(super) fn forget(&mut self) {
        self.kept = Vec::new();
    }

    /// Tells `each` the messages that are whole now.
    ///
    /// # Errors
    /// The bytes are none that Envoy would decode, or `each` says so. Nothing can be decoded afterwards.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&Message<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if self.is_stuck {
            return Ok(());
        }
        let mut kept = std::mem::take(&mut self.kept);
        let all = match kept.as_slice() {
            [] => bytes,
            _ => {
                kept.extend_from_slice(bytes);
                &kept
            }
        };
        let mut reader = Reader::new(all, self.max_depth);
        loop {
            match Message::take(&mut reader)? {
                Taken::Message(message) => each(&message)?,
                Taken::Beginning => break,
                Taken::Endless => {
                    self.is_stuck = true;
                    return Ok(());
                }
            }
        }
        let left = reader.left().len();
        self.kept = match (left, kept.is_empty()) {
            (0, _) => Vec::new(),
            (_, true) => reader.left().to_vec(),
            (_, false) => {
                kept.drain(..kept.len() - left);
                kept
            }
        };
        Ok(())
    }
}

/// What is at the front of the bytes.
enum Taken<'a> {
    Message(Message<'a>),
    /// The rest has not come.
    Beginning,
    /// Envoy would wait for as long as the connection lasts, or for gigabytes.
    Endless,
}

impl<'a> Message<'a> {
    /// As Envoy, takes what a body's own lengths say and not what the message's says.
    fn take(reader: &mut Reader<'a>) -> Result<Taken<'a>, DecodeError> {
        let Some(length) = reader.left().first_chunk() else {
            return Ok(Taken::Beginning);
        };
        let length = u32::from_le_bytes(*length);
        if !(HEADER_BYTES..=MAX_MESSAGE_BYTES).contains(&length) {
            return Ok(Taken::Endless);
        }
        let received = reader.left();
        if u32::try_from(received.len()).is_ok_and(|received| received < length) {
            // What is not decoded is not kept until it is whole either.
            return match received.get(12..16).and_then(|operation| operation.first_chunk()) {
                Some(operation) if !OPERATIONS.contains(&i32::from_le_bytes(*operation)) => {
                    Err(DecodeError::Operation(i32::from_le_bytes(*operation)))
                }
                _ => Ok(Taken::Beginning),
            };
        }
        reader.int32()?;
        let (id, response_to, operation) = (reader.int32()?, reader.int32()?, reader.int32()?);
        let body = Extent {
            start: reader.left().len() as u64,
            length: u64::from(length - HEADER_BYTES),
        };
        Ok(Taken::Message(Self {
            id,
            response_to,
            body: Body::take(reader, operation, body)?,
        }))
    }
}

/// Where a message's body should end.
#[derive(Clone, Copy)]
struct Extent {
    /// Bytes that were left at its start.
    start: u64,
    length: u64,
}

impl Extent {
    /// Envoy's sum, which goes round when a body took more than its message has: then it goes on until something is wrong.
    fn has_more(self, reader: &Reader<'_>) -> bool {
        let rest = self.start.wrapping_sub(self.length);
        (reader.left().len() as u64).wrapping_sub(rest) > 0
    }
}

impl<'a> Body<'a> {
    fn take(reader: &mut Reader<'a>, operation: i32, extent: Extent) -> Result<Self, DecodeError> {
        Ok(match operation {
            1 => {
                let (flags, cursor) = (reader.int32()?, reader.int64()?);
                let (from, returned) = (reader.int32()?, reader.int32()?);
                let wanted = u64::try_from(returned).unwrap_or(0);
                Self::Reply(Reply {
                    flags,
                    cursor,
                    from,
                    returned,
                    documents: reader.documents(|count, _| count < wanted)?,
                })
            }
            2002 => Self::Insert {
                flags: reader.int32()?,
                collection: reader.name()?,
                documents: reader.documents(|_, reader| extent.has_more(reader))?,
            },
            2004 => Self::Query(Query {
                flags: reader.int32()?,
                collection: reader.name()?,
                skip: reader.int32()?,
                limit: reader.int32()?,
                query: reader.document()?,
                fields: match extent.has_more(reader) {
                    true => Some(reader.document()?),
                    false => None,
                },
            }),
            2005 => {
                reader.int32()?;
                Self::GetMore {
                    collection: reader.name()?,
                    limit: reader.int32()?,
                    cursor: reader.int64()?,
                }
            }
            2007 => {
                reader.int32()?;
                let count = reader.int32()?;
                let bytes = usize::try_from(count).unwrap_or(0).saturating_mul(8);
                let cursors = reader.take(bytes)?;
                Self::KillCursors { count, cursors }
            }
            2010 => Self::Command {
                database: reader.name()?,
                name: reader.name()?,
                metadata: reader.document()?,
                arguments: reader.document()?,
                input: reader.documents(|count, reader| count == 0 && extent.has_more(reader))?,
            },
            2011 => Self::CommandReply {
                metadata: reader.document()?,
                reply: reader.document()?,
                output: reader.documents(|count, reader| count == 0 && extent.has_more(reader))?,
            },
            other => return Err(DecodeError::Operation(other)),
        })
    }
}
