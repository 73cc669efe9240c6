//! What is behind the proxy.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use e2e::netns::Namespace;

use super::{UPSTREAM, message};

/// What the upstream got, in the order in which it came.
pub(super) type Got = Arc<Mutex<Vec<String>>>;

/// Answers on [`UPSTREAM`]; what it says is in the target that it is asked for.
pub(super) fn start(namespace: &Namespace, got: &Got) {
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, UPSTREAM)).expect("a free port"));
    let got = got.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A connection that is gone before it was taken ends nothing.
            let (Ok(stream), got) = (stream, got.clone()) else {
                continue;
            };
            std::thread::spawn(move || while serve(&stream, &got).is_some() {});
        }
    });
}

/// One request; `None`: the connection is over.
fn serve(mut stream: &TcpStream, got: &Got) -> Option<()> {
    let head = until(stream, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&head).trim_end().to_owned();
    let target = head.split(' ').nth(1)?.to_owned();
    if target.contains("u-hundred") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    if target.contains("u-switch") {
        return switch(stream, &head, &target, got);
    }
    let early = target.contains("u-early");
    let body = if early {
        String::new()
    } else {
        body(stream, &head)?
    };
    got.lock().ok()?.push(format!("{} {body:?}", message(&head)));
    if target.contains("u-silent") {
        stream.read_to_end(&mut Vec::new()).ok()?;
        return None;
    }
    let mut answer = answer(&target);
    if head.starts_with("HEAD") {
        answer = &answer[..answer.find("\r\n\r\n")? + 4];
    }
    stream.write_all(answer.as_bytes()).ok()?;
    if early {
        stream.read_to_end(&mut Vec::new()).ok()?;
    }
    // Who closes after a response that does not end so takes a request away that another case sends on the connection.
    let ends_so = ["u-connclose", "u-cut", "u-close"]
        .iter()
        .any(|name| target.contains(name));
    let closes = ends_so && !head.starts_with("HEAD");
    (!early && !closes).then_some(())
}

/// Another protocol: everything comes back in upper case, until the client is through or says `bye`.
fn switch(mut stream: &TcpStream, head: &str, target: &str, got: &Got) -> Option<()> {
    let extra = if target.contains("u-switch-early") {
        "HELLO"
    } else {
        ""
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nx-up: 1\r\n\r\n{extra}"
    );
    stream.write_all(answer.as_bytes()).ok()?;
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        all.extend_from_slice(&piece[..count]);
        stream.write_all(&piece[..count].to_ascii_uppercase()).ok()?;
        if all.ends_with(b"bye") {
            break;
        }
    }
    let text = String::from_utf8_lossy(&all);
    got.lock().ok()?.push(format!("{} then {text:?}", message(head)));
    None
}

fn answer(target: &str) -> &'static str {
    const ANSWERS: &[(&str, &str)] = &[
        (
            "u-chunked",
            "200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        ("u-hchunk", "200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        (
            "u-trailers",
            "200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
        ),
        ("u-close", "200 OK\r\n\r\nabc"),
        (
            "u-connclose",
            "200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        ),
        (
            "u-100",
            "100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ),
        (
            "u-102",
            "102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ),
        (
            "u-103",
            "103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ),
        ("u-204cl", "204 No Content\r\ncontent-length: 0\r\n\r\n"),
        ("u-204", "204 No Content\r\n\r\n"),
        ("u-304", "304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
        (
            "u-hop",
            "200 OK\r\ncontent-length: 2\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\nX-Case: A\r\nx-empty:\r\n\r\nok",
        ),
        (
            "u-302",
            "302 Found\r\nlocation: /x\r\ncontent-length: 2\r\n\r\nok",
        ),
        ("u-404", "404 Not Found\r\nx-up: 1\r\ncontent-length: 2\r\n\r\nno"),
        ("u-500", "500 No\r\nx-up: 1\r\ncontent-length: 2\r\n\r\nno"),
        ("u-reason", "299 My Own\r\ncontent-length: 2\r\n\r\nok"),
        ("u-599", "599 X\r\ncontent-length: 2\r\n\r\nok"),
        ("u-hnolen", "200 OK\r\n\r\n"),
        // Closed inside the head.
        ("u-cut-head", "200 OK\r\nconten"),
        ("u-cut-line", "20"),
        ("u-nocl", "200 OK\r\ncontent-length: 0\r\n\r\n"),
    ];
    let found = ANSWERS.iter().find(|(name, _)| target.contains(name));
    // Leaked once a request: a test has few.
    found.map_or("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", |(_, answer)| {
        format!("HTTP/1.1 {answer}").leak()
    })
}

/// The body of a request, without its chunks.
fn body(stream: &TcpStream, head: &str) -> Option<String> {
    let head = head.to_ascii_lowercase();
    let length = head
        .split("content-length: ")
        .nth(1)
        .map(|rest| rest.split('\r').next().unwrap_or_default().to_owned());
    let mut body = Vec::new();
    let mut take = |mut stream: &TcpStream, length: usize| {
        let mut piece = vec![0; length];
        let whole = stream.read_exact(&mut piece).is_ok();
        body.extend_from_slice(&piece);
        whole.then_some(())
    };
    if let Some(length) = length {
        let Some(length) = length.parse().ok().filter(|length| *length < 1_000_000) else {
            let _ = (&*stream).read_to_end(&mut Vec::new());
            return None;
        };
        take(stream, length)?;
    } else if head.contains("transfer-encoding: chunked") {
        loop {
            let line = until(stream, b"\r\n")?;
            let length = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
            if length == 0 {
                break;
            }
            take(stream, length)?;
            until(stream, b"\r\n")?;
        }
        until(stream, b"\r\n")?;
    }
    String::from_utf8(body).ok()
}

fn until(mut stream: &TcpStream, end: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end) {
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    Some(bytes)
}
