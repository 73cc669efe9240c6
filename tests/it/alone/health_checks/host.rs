//! Hosts that answer each health check as a script says, and tell what they were asked.
//!
//! After its last word a script is silent: the check stays open, and nothing changes any more.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use e2e::netns::Namespace;
use e2e::proxy::ADMIN;

/// A pause this long was meant to be one.
const LONG: Duration = Duration::from_millis(1500);
/// What a word of a script means that is not to come in time.
const NEVER: Duration = Duration::from_secs(60);

/// What all hosts saw, by port.
pub(super) type Told = Arc<Shared>;

/// As [`Told`].
#[derive(Default)]
pub(super) struct Shared {
    ports: Mutex<HashMap<u16, Port>>,
    traffic: Condvar,
    is_ready: Mutex<bool>,
    readiness: Condvar,
}

#[derive(Default)]
struct Port {
    /// A line for each health check.
    checks: Vec<String>,
    answered: Option<Instant>,
    /// Other requests.
    requests: usize,
}

impl Shared {
    /// Of one port: a line for each check.
    pub(super) fn checks(&self, port: u16) -> Vec<String> {
        let ports = self.ports.lock().expect("no panic holds it");
        ports.get(&port).map_or_else(Vec::new, |port| port.checks.clone())
    }

    /// Nothing was told, and a proxy starts.
    pub(super) fn clear(&self) {
        self.ports.lock().expect("no panic holds it").clear();
        *self.is_ready.lock().expect("no panic holds it") = false;
    }

    /// The proxy has started: second checks are answered.
    pub(super) fn go(&self) {
        *self.is_ready.lock().expect("no panic holds it") = true;
        self.readiness.notify_all();
    }

    fn wait_until_ready(&self) {
        let is_ready = self.is_ready.lock().expect("no panic holds it");
        drop(
            self.readiness
                .wait_timeout_while(is_ready, NEVER, |is_ready| !*is_ready),
        );
    }

    /// The number of this check, from 0. `came`: when.
    fn check(&self, host: &Host, came: Instant, line: &str) -> usize {
        let mut ports = self.ports.lock().expect("no panic holds it");
        let port = ports.entry(host.port).or_default();
        let waited = port.answered.is_some_and(|answered| came - answered >= LONG);
        // Other pauses are the machine's, which starts a proxy before the second check.
        let says_pauses = host.script.contains("+wait") && port.checks.len() > 1;
        port.checks.push(match says_pauses && waited {
            true => format!("{line}, after long"),
            false => line.to_owned(),
        });
        port.checks.len() - 1
    }

    /// An answer goes out now.
    fn answers(&self, port: u16) {
        let mut ports = self.ports.lock().expect("no panic holds it");
        ports.entry(port).or_default().answered = Some(Instant::now());
    }

    fn request(&self, port: u16) {
        let mut ports = self.ports.lock().expect("no panic holds it");
        ports.entry(port).or_default().requests += 1;
        self.traffic.notify_all();
    }

    fn wait_for_request(&self, port: u16) {
        let ports = self.ports.lock().expect("no panic holds it");
        let is_idle = |ports: &mut HashMap<u16, Port>| ports.get(&port).is_none_or(|port| port.requests == 0);
        drop(self.traffic.wait_timeout_while(ports, NEVER, is_idle));
    }
}

/// A host of a cluster.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) port: u16,
    /// Words with spaces between them, one for each check.
    pub(super) script: &'static str,
    /// Answers are not waited for long: nothing is asked of the proxy meanwhile.
    pub(super) is_hasty: bool,
    pub(super) told: Told,
}

impl Host {
    fn word(&self, number: usize) -> Option<&'static str> {
        self.script.split(' ').nth(number).filter(|word| !word.is_empty())
    }

    /// What the proxy takes the host for at this moment.
    fn flags(&self) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(ADMIN)?;
            stream.write_all(b"GET /clusters HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = ask().unwrap_or_default();
        flags(&text, self.port)
    }

    /// Tells of a check, and says what to do. The first one comes before the proxy can be asked how the host is.
    pub(super) fn asked(&self, question: &str, is_new: bool) -> Option<&'static str> {
        let came = Instant::now();
        let flags = if self.is_hasty || self.told.checks(self.port).is_empty() {
            "-".to_owned()
        } else {
            self.told.wait_until_ready();
            self.flags()
        };
        let connection = if is_new { "new" } else { "kept" };
        let number = self
            .told
            .check(self, came, &format!("{flags} {connection}: {question}"));
        let word = self.word(number);
        if word.is_some_and(|word| word.ends_with("+wait")) {
            self.told.wait_for_request(self.port);
        }
        self.told.answers(self.port);
        word
    }
}

/// The flags of a host in the text of `/clusters`.
pub(super) fn flags(clusters: &str, port: u16) -> String {
    let start = format!("::127.0.0.1:{port}::health_flags::");
    let flags = clusters.lines().find_map(|line| line.split_once(&start));
    flags.map_or_else(|| "none".to_owned(), |(_, flags)| flags.to_owned())
}

fn listen(namespace: &Namespace, port: u16) -> TcpListener {
    namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"))
}

/// Speaks HTTP/1.1, to checks and to others.
pub(super) fn http1(namespace: &Namespace, host: Host) {
    serve(namespace, host, |host, stream, is_new| {
        http1_once(host, stream, is_new)
    });
}

/// Answers bytes with bytes.
pub(super) fn tcp(namespace: &Namespace, host: Host) {
    serve(namespace, host, |host, stream, is_new| {
        tcp_once(host, stream, is_new)
    });
}

fn serve(namespace: &Namespace, host: Host, once: fn(&Host, &mut TcpStream, bool) -> Option<()>) {
    let listener = listen(namespace, host.port);
    let _ends_with_the_test = namespace.spawn(move || {
        std::thread::scope(|scope| {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let host = &host;
                scope.spawn(move || {
                    let mut is_new = true;
                    while once(host, &mut stream, is_new).is_some() {
                        is_new = false;
                    }
                });
            }
        });
    });
}

/// One request; `None`: the connection is over.
fn http1_once(host: &Host, stream: &mut TcpStream, is_new: bool) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines().filter(|line| !line.is_empty());
    let first = lines.next()?;
    let mut headers: Vec<_> = lines.map(str::to_ascii_lowercase).collect();
    headers.sort();
    let length = headers
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    if !headers.iter().any(|line| line == "user-agent: envoy/hc") && !first.contains("/check") {
        let said = headers.iter().find_map(|line| line.strip_prefix("x-say: "));
        let said = said.map_or_else(String::new, |said| format!("{}\r\n", said.replacen('=', ": ", 1)));
        let text = host.port.to_string();
        let length = text.len();
        let answer = format!("HTTP/1.1 200 OK\r\n{said}content-length: {length}\r\n\r\n{text}");
        stream.write_all(answer.as_bytes()).ok()?;
        host.told.request(host.port);
        return Some(());
    }
    let body = String::from_utf8_lossy(&body);
    let word = host.asked(&format!("{first} {headers:?} {body:?}"), is_new);
    answer(stream, word, first.starts_with("HEAD "))
}

fn answer(stream: &mut TcpStream, word: Option<&str>, is_head: bool) -> Option<()> {
    let Some(word) = word else {
        std::thread::sleep(NEVER);
        return None;
    };
    let mut parts = word.split('+');
    let status = parts.next().unwrap_or_default();
    let (mut headers, mut closes) = (String::new(), false);
    for part in parts {
        match part.split_once('=') {
            Some((name, value)) => headers += &format!("{name}: {value}\r\n"),
            None => closes |= part == "closes",
        }
    }
    match status {
        "close" => return None,
        "slow" => {
            std::thread::sleep(NEVER);
            return None;
        }
        "garbage" => {
            stream.write_all(b"what is this\r\n\r\n").ok()?;
            return Some(());
        }
        "cut" => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
                .ok()?;
            return None;
        }
        _ => {}
    }
    let body = if is_head { "" } else { "here" };
    stream
        .write_all(format!("HTTP/1.1 {status} Status\r\n{headers}content-length: 4\r\n\r\n{body}").as_bytes())
        .ok()?;
    (!closes).then_some(())
}

/// One exchange of bytes. `|` in a word: a pause in the answer; `!` at its end: then it closes.
fn tcp_once(host: &Host, stream: &mut TcpStream, is_new: bool) -> Option<()> {
    let mut buffer = [0; 64];
    let count = stream.read(&mut buffer).ok()?;
    if count == 0 {
        return None;
    }
    let question = String::from_utf8_lossy(buffer.get(..count)?).into_owned();
    let Some(word) = host.asked(&format!("{question:?}"), is_new) else {
        std::thread::sleep(NEVER);
        return None;
    };
    for part in word.trim_end_matches('!').split('|') {
        stream.write_all(part.as_bytes()).ok()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    (!word.ends_with('!')).then_some(())
}
