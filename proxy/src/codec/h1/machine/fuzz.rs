//! What must hold for any bytes that a client sends, as one function: for the fuzz target `http1_request`, and for a quick test here.
use bytes::BytesMut;

use super::request::HeadLimits;
use super::{Piece, Receiver};
use crate::codec::{NameCase, Underscores};

const LIMITS: HeadLimits = HeadLimits {
    max_bytes: 1024,
    max_headers: 20,
    accept_http_10: true,
    name_case: NameCase::Preserve { others_proper: false },
    takes_chunked_length: false,
    passes_trailers: true,
    underscores: Underscores::Allow,
};

/// Checks that `data` means the same however it is split, that nothing panics, and that no more is kept than the limits allow. The first
/// bytes say where to split.
///
/// # Panics
/// When it does not hold.
pub fn http1_request(data: &[u8]) {
    let (splits, data) = data.split_at(data.len().min(4));
    let whole = run(data, std::iter::once(data.len()));
    let pieces = run(data, splits.iter().map(|length| usize::from(*length)).cycle());
    assert_eq!(
        whole,
        pieces,
        "in pieces of {splits:?}: {:?}",
        String::from_utf8_lossy(data)
    );
    let bytes = run(data, std::iter::repeat(1));
    assert_eq!(whole, bytes, "byte by byte: {:?}", String::from_utf8_lossy(data));
}

/// What came of some bytes.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Head(String),
    Data(Vec<u8>),
    Trailers(String),
    End,
    Refused(&'static str),
}

/// Feeds `data` in pieces of these lengths.
fn run(mut data: &[u8], mut lengths: impl Iterator<Item = usize>) -> Vec<Event> {
    let mut receiver = Receiver::new(LIMITS);
    let mut buffer = BytesMut::new();
    let mut events = Vec::new();
    while !data.is_empty() {
        let length = lengths.next().unwrap_or(1).clamp(1, data.len());
        let (piece, rest) = data.split_at(length);
        buffer.extend_from_slice(piece);
        data = rest;
        while let Some(event) = step(&mut receiver, &mut buffer) {
            let refused = matches!(event, Event::Refused(_));
            match (events.last_mut(), event) {
                (Some(Event::Data(data)), Event::Data(more)) => data.extend_from_slice(&more),
                (_, event) => events.push(event),
            }
            if refused {
                return events;
            }
        }
        assert!(
            buffer.len() <= LIMITS.max_bytes,
            "{} bytes are kept",
            buffer.len()
        );
    }
    events
}

fn step(receiver: &mut Receiver, buffer: &mut BytesMut) -> Option<Event> {
    let before = buffer.len();
    let event = if receiver.is_whole() {
        receiver
            .head(buffer)
            .map(|head| head.map(|head| Event::Head(format!("{head:?}"))))
    } else {
        receiver.body(buffer).map(|piece| {
            piece.map(|piece| match piece {
                Piece::Data(data) => Event::Data(data.to_vec()),
                Piece::Trailers(trailers) => Event::Trailers(format!("{trailers:?}")),
                Piece::End => Event::End,
            })
        })
    };
    assert!(buffer.len() <= before, "bytes came from nowhere");
    match event {
        Ok(None) => None,
        Ok(Some(event)) => {
            assert!(buffer.len() < before, "{event:?} took no byte");
            Some(event)
        }
        Err(refusal) => Some(Event::Refused(refusal.details)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Good and bad requests, from which mutants are made.
    const SEEDS: &[&str] = &[
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n\r\nGET /2 HTTP/1.0\n\n",
        "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA \r\n0123456789\r\n0\r\nt: 1\r\n\r\nPUT * HTTP/1.1\r\n\r\n",
        "\r\n\nOPTIONS * HTTP/1.1\nhost: a\nx: 1\n 2\nconnection: close, x\n\n",
        "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n",
        "GET http://u@b:80/x#y HTTP/1.1\r\nhost: a\r\nhost: b\r\nexpect: 100-continue\r\nte: trailers\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    ];

    /// Bytes that mean something somewhere.
    const TELLING: &[u8] = b"\r\n\t :;,/*0aAF\0\x7f\xff";

    #[test]
    fn trailers_lose_what_is_of_the_connection() {
        let check = |trailers: &str, expected: Event| {
            let request = format!(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{trailers}\r\n"
            );
            let last = run(request.as_bytes(), std::iter::repeat(1)).pop();
            assert_eq!(last, Some(expected), "{trailers:?}");
        };
        let left = Event::Trailers(r#"{"x-t": "1"}"#.into());
        check("Keep-Alive: 5\r\nx-t: 1\r\nConnection: a\r\nhost: b\r\n", left);
        check("keep-alive: 5\r\n", Event::End);
    }

    #[test]
    fn mutants_of_requests_mean_the_same_however_they_come() {
        let mut random = fastrand::Rng::with_seed(0x0511_7216);
        for _ in 0..20_000 {
            let mut data: Vec<u8> = (0..4).map(|_| random.u8(..)).collect();
            let begin = data.len();
            for _ in 0..random.usize(1..4) {
                data.extend_from_slice(SEEDS[random.usize(..SEEDS.len())].as_bytes());
            }
            for _ in 0..random.usize(..4) {
                let at = random.usize(begin..data.len());
                let byte = TELLING[random.usize(..TELLING.len())];
                match random.u8(..4) {
                    0 => data[at] = byte,
                    1 => data.insert(at, byte),
                    2 => drop(data.remove(at)),
                    _ => data.truncate(at),
                }
                if data.len() <= begin {
                    break;
                }
            }
            http1_request(&data);
        }
    }

    #[test]
    fn noise_is_refused_or_waited_on() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let length = random.usize(..3000);
            let data: Vec<u8> = (0..length)
                .map(|_| TELLING[random.usize(..TELLING.len())])
                .collect();
            http1_request(&data);
            let mut data: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            data.splice(
                ..0,
                *b"\x03\x07\x01\x05POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\n",
            );
            http1_request(&data);
        }
    }
}
