//! Messages as text for the filter's own log. Source: Envoy docs, "Mongo proxy", "Access log format"; beside Envoy in tests/it/alone/mongo.rs.
use std::io::Write as _;

use super::bson::{Document, Documents, Value};
use super::message::{Body, Message, Query, Reply};

/// Appends a message as one JSON-like object. Writing into a `Vec` cannot fail, so results are dropped.
pub(super) fn write(message: &Message<'_>, out: &mut Vec<u8>) {
    let Message {
        id,
        response_to,
        body,
    } = message;
    match body {
        Body::Reply(reply) => write_reply(*id, *response_to, reply, out),
        Body::Query(query) => write_query(*id, *response_to, query, out),
        Body::GetMore {
            collection,
            limit,
            cursor,
        } => {
            head("OP_GET_MORE", *id, *response_to, out);
            name("collection", collection, out);
            let _ = write!(out, ", \"return\": {limit}, \"cursor\": {cursor}}}");
        }
        Body::Insert {
            flags,
            collection,
            documents,
        } => {
            head("OP_INSERT", *id, *response_to, out);
            let _ = write!(out, "\"flags\": \"{}\", ", hex(*flags));
            name("collection", collection, out);
            out.extend_from_slice(b", \"documents\": ");
            list(documents, out);
            out.push(b'}');
        }
        Body::KillCursors { count, cursors } => {
            let response_to = hex(*response_to);
            let _ = write!(
                out,
                "{{\"opcode\": \"KILL_CURSORS\", \"id\": {id}, \"response_to\": \"{response_to}\", \"num_cursors\": \"{count}\", \"cursors\": ["
            );
            let (chunks, _) = cursors.as_chunks();
            for (index, cursor) in chunks.iter().enumerate() {
                comma(index, out);
                let _ = write!(out, "{}", i64::from_le_bytes(*cursor));
            }
            out.extend_from_slice(b"]}");
        }
        Body::Command {
            database,
            name: command,
            metadata,
            arguments,
            input,
        } => {
            head("OP_COMMAND", *id, *response_to, out);
            name("database", database, out);
            out.extend_from_slice(b", ");
            name("commandName", command, out);
            out.extend_from_slice(b", \"metadata\": ");
            document(metadata, out);
            out.extend_from_slice(b", \"commandArgs\": ");
            document(arguments, out);
            out.extend_from_slice(b", \"inputDocs\": ");
            list(input, out);
            out.push(b'}');
        }
        Body::CommandReply {
            metadata,
            reply,
            output,
        } => {
            head("OP_COMMANDREPLY", *id, *response_to, out);
            out.extend_from_slice(b"\"metadata\": ");
            document(metadata, out);
            out.extend_from_slice(b", \"commandReply\": ");
            document(reply, out);
            out.extend_from_slice(b", \"outputDocs\":");
            list(output, out);
            // With a blank at its end, as Envoy.
            out.extend_from_slice(b"} ");
        }
    }
}

/// Replies are logged without their documents.
fn write_reply(id: i32, response_to: i32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let Reply {
        flags,
        cursor,
        from,
        returned,
        documents,
    } = reply;
    head("OP_REPLY", id, response_to, out);
    let (flags, count) = (hex(*flags), documents.count);
    let _ = write!(
        out,
        "\"flags\": \"{flags}\", \"cursor\": \"{cursor}\", \"from\": {from}, \"returned\": {returned}, \"documents\": {count}}}"
    );
}

fn write_query(id: i32, response_to: i32, query: &Query<'_>, out: &mut Vec<u8>) {
    head("OP_QUERY", id, response_to, out);
    let _ = write!(out, "\"flags\": \"{}\", ", hex(query.flags));
    name("collection", query.collection, out);
    let _ = write!(
        out,
        ", \"skip\": {}, \"return\": {}, \"query\": ",
        query.skip, query.limit
    );
    document(&query.query, out);
    out.extend_from_slice(b", \"fields\": ");
    match &query.fields {
        Some(fields) => document(fields, out),
        None => out.extend_from_slice(b"{}"),
    }
    out.push(b'}');
}

fn head(operation: &str, id: i32, response_to: i32, out: &mut Vec<u8>) {
    let _ = write!(
        out,
        "{{\"opcode\": \"{operation}\", \"id\": {id}, \"response_to\": {response_to}, "
    );
}

fn name(key: &str, value: &[u8], out: &mut Vec<u8>) {
    let _ = write!(out, "\"{key}\": \"");
    out.extend_from_slice(value);
    out.push(b'"');
}

/// With its sign in front of `0x`.
fn hex(number: i32) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{:#x}", number.unsigned_abs())
}

fn comma(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.extend_from_slice(b", ");
    }
}

fn list(documents: &Documents<'_>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, each) in documents.iter().enumerate() {
        comma(index, out);
        document(&each, out);
    }
    out.push(b']');
}

fn document(document: &Document<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (key, field)) in document.fields().enumerate() {
        comma(index, out);
        out.push(b'"');
        out.extend_from_slice(key);
        out.extend_from_slice(b"\": ");
        value(&field, out);
    }
    out.push(b'}');
}

fn value(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Double(number) => {
            let _ = write!(out, "{number:.6}");
        }
        Value::Text(text) | Value::Symbol(text) | Value::Binary(text) => escaped(text, out),
        Value::Document(inner) | Value::Array(inner) => document(inner, out),
        Value::ObjectId(bytes) => {
            out.push(b'"');
            for byte in *bytes {
                let _ = write!(out, "{byte:02x}");
            }
            out.push(b'"');
        }
        Value::Boolean(value) => {
            let _ = write!(out, "{value}");
        }
        Value::Null => out.extend_from_slice(b"null"),
        Value::Regex(pattern, options) => {
            out.extend_from_slice(b"[\"");
            out.extend_from_slice(pattern);
            out.extend_from_slice(b"\", \"");
            out.extend_from_slice(options);
            out.extend_from_slice(b"\"]");
        }
        Value::Int32(number) => {
            let _ = write!(out, "{number}");
        }
        Value::Int64(number) | Value::Time(number) => {
            let _ = write!(out, "{number}");
        }
    }
}

/// Between quotes, what would end a line or the text is escaped, and nothing else, as in Envoy.
fn escaped(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        let escape: &[u8] = match byte {
            b'\r' => b"\\r",
            b'\n' => b"\\n",
            b'\t' => b"\\t",
            b'"' => b"\\\"",
            other => std::slice::from_ref(other),
        };
        out.extend_from_slice(escape);
    }
    out.push(b'"');
}
