//! Who is asked. It echoes; some words it obeys: `bye` ends the connection, `reset` breaks it, `end` ends this side of it, `silence` makes
//! it say nothing, and after `last` it says a word when the other side has ended.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use e2e::netns::Namespace;
use http::{Response, StatusCode};

use super::{Arc, HTTP2, RAW};

/// What came on each connection or stream, and how it ended.
#[derive(Debug, Default)]
pub(in crate::alone) struct Got(Mutex<Vec<String>>);

impl Got {
    pub(in crate::alone) fn clear(&self) {
        self.0.lock().expect("no panic holds it").clear();
    }

    fn push(&self, what: String) {
        self.0.lock().expect("no panic holds it").push(what);
    }

    /// All that names a case. Names of others may begin with it.
    pub(in crate::alone) fn of(&self, case: &str) -> String {
        let of_case = |what: &&String| {
            what.contains(&format!("x-case: case-{case}|")) || what.contains(&format!("\"{case} "))
        };
        let all = self.0.lock().expect("no panic holds it");
        let mut all: Vec<&str> = all.iter().filter(of_case).map(String::as_str).collect();
        all.sort_unstable();
        all.join(" and ")
    }
}

/// What a word makes of the connection.
enum Turn {
    Echo,
    Silence,
    End,
    Last,
    Bye,
    Reset,
}

fn turn(said: &[u8]) -> Turn {
    let ends = |word: &str| said.ends_with(word.as_bytes());
    match said {
        _ if ends("bye") => Turn::Bye,
        _ if ends("reset") => Turn::Reset,
        _ if ends(" end") => Turn::End,
        _ if ends(" last") => Turn::Last,
        _ if ends(" silence") => Turn::Silence,
        _ => Turn::Echo,
    }
}

/// Starts both.
pub(in crate::alone) fn start(namespace: &Namespace, got: &Arc<Got>) {
    let listen =
        |port| namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
    let (listener, kept) = (listen(RAW), got.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), got) = (stream, kept.clone()) else {
                return;
            };
            std::thread::spawn(move || raw(stream, &got));
        }
    });
    let (listener, got) = (listen(HTTP2), got.clone());
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(http2(stream, got.clone()));
            }
        });
    });
}

fn raw(mut stream: TcpStream, got: &Got) {
    stream
        .set_read_timeout(Some(Duration::from_secs(6)))
        .expect("a socket");
    let mut came = Vec::new();
    let mut head = String::new();
    let mut piece = [0; 65_536];
    let mut last = false;
    let end = loop {
        let count = match stream.read(&mut piece) {
            Ok(0) => {
                if last {
                    let _ = stream.write_all(b"word");
                }
                if came.ends_with(b" silence") {
                    // What comes now is that somebody loses patience.
                    std::thread::sleep(Duration::from_secs(2));
                }
                break "ended";
            }
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break "open",
            Err(_) => break "reset",
        };
        came.extend_from_slice(&piece[..count]);
        let begins = [&b"CONNECT "[..], b"POST ", b"GET "]
            .iter()
            .any(|method| came.starts_with(method));
        let mut echo = piece[..count].to_vec();
        if head.is_empty() && begins {
            let Some(end) = came.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            head = told(&came[..end]);
            came.drain(..end + 4);
            echo.clone_from(&came);
            let say = head
                .split('|')
                .find_map(|line| line.strip_prefix("x-say: "))
                .unwrap_or("200 OK^^");
            match say {
                "nothing" => continue,
                "close" => break "closed",
                say => drop(stream.write_all(format!("HTTP/1.1 {}", say.replace('^', "\r\n")).as_bytes())),
            }
            if !say.starts_with('2') {
                break "refused";
            }
        }
        match turn(&came) {
            Turn::Bye => break "bye",
            Turn::Silence => continue,
            Turn::End => drop(stream.shutdown(Shutdown::Write)),
            Turn::Last => last = true,
            Turn::Reset => {
                // Closing with unread bytes is a reset; without, an option makes it one.
                let linger = nix::libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                let _ = nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger);
                break "broken";
            }
            Turn::Echo => {}
        }
        let _ = stream.write_all(&echo);
    };
    got.push(format!("{head} {} {end}", shown(&came)));
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.split_once("xxx") {
        Some((begin, _)) => format!("{begin:?} of {} bytes", bytes.len()),
        None => format!("{text:?}"),
    }
}

/// A head in one line: the first line, then headers in alphabetical order.
fn told(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head).into_owned();
    let mut lines = head.lines().map(|line| match line.split_once(": ") {
        Some((name @ ("x-request-id" | "x-tunnel" | "x-envoy-expected-rq-timeout-ms"), _)) => name.to_owned(),
        _ => line.to_owned(),
    });
    let first = lines.next().unwrap_or_default();
    let mut headers: Vec<_> = lines.collect();
    headers.sort_unstable();
    format!("{first}|{}|", headers.join("|"))
}

async fn http2(stream: tokio::net::TcpStream, got: Arc<Got>) {
    let Ok(mut connection) = h2::server::Builder::new()
        .enable_connect_protocol()
        .handshake(stream)
        .await
    else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(serve(request, respond, got.clone()));
    }
}

async fn serve(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    got: Arc<Got>,
) {
    let (head, mut body) = request.into_parts();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    let protocol = head.extensions.get::<h2::ext::Protocol>();
    let text = format!(
        "{} {} {protocol:?}\r\n{}",
        head.method,
        head.uri,
        headers.collect::<String>()
    );
    let line = told(text.as_bytes());
    let status = line
        .split('|')
        .find_map(|line| line.strip_prefix("x-say: "))
        .unwrap_or("200");
    let mut response = Response::new(());
    *response.status_mut() = status.parse().unwrap_or(StatusCode::OK);
    let Ok(mut out) = respond.send_response(response, false) else {
        return;
    };
    let mut came = Vec::new();
    let mut last = false;
    let end = loop {
        let data = match body.data().await {
            None => {
                let word = if last { "word" } else { "" };
                let _ = out.send_data(Bytes::from(word), true);
                break "ended".to_owned();
            }
            // Which reason is given is nobody's business.
            Some(Err(_)) => break "reset".to_owned(),
            Some(Ok(data)) => data,
        };
        let _ = body.flow_control().release_capacity(data.len());
        came.extend_from_slice(&data);
        match turn(&came) {
            Turn::Bye => {
                let _ = out.send_data(Bytes::new(), true);
                break "bye".to_owned();
            }
            Turn::Silence => continue,
            Turn::End => {
                let _ = out.send_data(data, true);
                continue;
            }
            Turn::Last => last = true,
            Turn::Reset => {
                out.send_reset(h2::Reason::CANCEL);
                break "broken".to_owned();
            }
            Turn::Echo => {}
        }
        let _ = out.send_data(data, false);
    };
    got.push(format!("{line} {} {end}", shown(&came)));
}
