//! Bytes that are no messages, pieces of messages, and the limits. What is counted is in tests/it/alone/mongo.rs, beside Envoy.
use super::bson::DecodeError;
use super::message::{Body, Decoder, Query};
use super::question::{Breadth, Question};

fn document(fields: &[u8]) -> Vec<u8> {
    let length = i32::try_from(fields.len() + 5).expect("short").to_le_bytes();
    [&length, fields, b"\0"].concat()
}

fn message(operation: i32, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 16).expect("short");
    let head = [length, 1, 0, operation].map(i32::to_le_bytes).concat();
    [&head, body].concat()
}

fn query(collection: &str, query: &[u8]) -> Vec<u8> {
    let head = [b"\0\0\0\0", collection.as_bytes(), b"\0", &[0; 8]].concat();
    message(2004, &[&head, query].concat())
}

/// What comes of bytes that arrive in pieces of this size.
fn decode(bytes: &[u8], piece: usize) -> (Vec<String>, Option<DecodeError>) {
    let mut decoder = Decoder::new(100);
    let mut told = Vec::new();
    for piece in bytes.chunks(piece) {
        let fed = decoder.feed(piece, |message| {
            let text = match &message.body {
                Body::Query(query) => asked(query)?,
                other => format!("{other:?}"),
            };
            told.push(text);
            Ok(())
        });
        if let Err(error) = fed {
            return (told, Some(error));
        }
    }
    (told, None)
}

fn asked(query: &Query<'_>) -> Result<String, DecodeError> {
    Question::of(query).map(|question| match question {
        Question::Command(name) => name.escape_ascii().to_string(),
        Question::Find(find) => format!("{} {:?}", find.collection.escape_ascii(), find.breadth),
    })
}

#[test]
fn messages_are_the_same_however_they_arrive() {
    let all = [
        query("db.$cmd", &document(b"\x10ismaster\0\x01\0\0\0")),
        query("db.things", &document(b"\x08_id\0\x01")),
        query("db.things", &document(b"\x04_id\0\x05\0\0\0\0")),
    ]
    .concat();
    let expected = vec![
        "isMaster".to_owned(),
        format!("things {:?}", Breadth::One),
        format!("things {:?}", Breadth::Multi),
    ];
    for piece in 1..=all.len() {
        assert_eq!(decode(&all, piece), (expected.clone(), None), "{piece}");
    }
}

#[test]
fn what_is_no_message_of_old_ends_it() {
    let check = |bytes: Vec<u8>, error| assert_eq!(decode(&bytes, 7).1, error, "{bytes:?}");
    check(message(2013, b"\0\0\0\0"), Some(DecodeError::Operation(2013)));
    check(query("db.c", &document(b"\x06a\0")), Some(DecodeError::Type(6)));
    check(query("db.c", b"\xff\0\0\0\0"), Some(DecodeError::Length));
    check(query("db.c", b"\xff\xff\xff\xff\0"), Some(DecodeError::Length));
    check(query("db.c", &document(b"\x10a")), Some(DecodeError::Short));
    check(message(2005, b"\0\0\0\0db.c"), Some(DecodeError::Unterminated));
    check(
        query("db.c", &document(b"\x02a\0\xff\xff\xff\x7f")),
        Some(DecodeError::Short),
    );
    // Nobody waits for the end of these.
    check(b"GET / HTTP/1.1\r\n\r\n".to_vec(), None);
    check(vec![15, 0, 0, 0, 1], None);
}

#[test]
fn nothing_that_a_client_sends_breaks_it() {
    let mut random = fastrand::Rng::with_seed(7);
    let whole = [
        query(
            "db.things",
            &document(b"\x03$query\0\x0d\0\0\0\x10_id\0\x01\0\0\0\0"),
        ),
        message(2007, &[0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        message(1, &[0; 20]),
        message(
            2002,
            &[b"\0\0\0\0db.c\0", &document(b"\x05b\0\x01\0\0\0\0x")[..]].concat(),
        ),
    ]
    .concat();
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..random.usize(1..5) {
            let place = random.usize(..bytes.len());
            bytes[place] = random.u8(..);
        }
        decode(&bytes, random.usize(1..64));
    }
}
