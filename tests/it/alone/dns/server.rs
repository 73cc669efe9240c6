//! A name server that answers each question as a script says, and tells what hosts the proxy had when it was asked.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::netns::Namespace;
use e2e::proxy::ADMIN;

/// Where it listens, over UDP and TCP.
pub(super) const PORT: u16 = 5353;

/// Words for A and AAAA questions for a name.
pub(super) type Scripts = HashMap<(String, u16), Vec<&'static str>>;

/// What was asked for a name: a line each.
pub(super) type Told = Arc<Mutex<HashMap<String, Vec<String>>>>;

struct Server {
    scripts: Scripts,
    /// Words that are used up.
    used: Mutex<HashMap<(String, u16), usize>>,
    told: Told,
}

/// Starts it.
pub(super) fn start(namespace: &Namespace, scripts: Scripts, told: Told) {
    let server = Arc::new(Server {
        scripts,
        used: Mutex::default(),
        told,
    });
    let udp = namespace.run(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, PORT)).expect("a free port"));
    let tcp = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).expect("a free port"));
    let udp = Arc::new(udp);
    let over_udp = server.clone();
    // Each question has a thread: the proxy is asked meanwhile.
    let _ends_with_the_test = namespace.spawn(move || {
        let mut buffer = [0; 1500];
        std::thread::scope(|scope| {
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let question = buffer[..length].to_vec();
                let (server, udp) = (over_udp.clone(), udp.clone());
                scope.spawn(move || {
                    if let Some(answer) = server.answer(&question, "udp") {
                        let _ = udp.send_to(&answer, from);
                    }
                });
            }
        });
    });
    let _ends_with_the_test = namespace.spawn(move || {
        std::thread::scope(|scope| {
            for stream in tcp.incoming() {
                let Ok(stream) = stream else { return };
                let server = server.clone();
                scope.spawn(move || while server.over_tcp(&stream).is_some() {});
            }
        });
    });
}

impl Server {
    fn over_tcp(&self, mut stream: &TcpStream) -> Option<()> {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question).ok()?;
        let answer = self.answer(&question, "tcp")?;
        let length = u16::try_from(answer.len()).expect("a short answer");
        stream.write_all(&length.to_be_bytes()).ok()?;
        stream.write_all(&answer).ok()
    }

    /// `None`: silence.
    fn answer(&self, question: &[u8], over: &str) -> Option<Vec<u8>> {
        let (name, end) = name_of(question)?;
        let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
        let text = match kind {
            1 => "A",
            28 => "AAAA",
            _ => "other",
        };
        let key = (name.clone(), kind);
        let number = {
            let mut used = self.used.lock().expect("no panic holds it");
            let number = used.entry(key.clone()).or_default();
            *number += 1;
            *number - 1
        };
        let hosts = match number {
            0 => "-".to_owned(),
            _ => hosts_of(name.trim_end_matches('.')),
        };
        let line = format!("{text} over {over}, hosts {hosts}");
        self.told
            .lock()
            .expect("no panic holds it")
            .entry(name)
            .or_default()
            .push(line);
        let words = self.scripts.get(&key).map_or(&[][..], Vec::as_slice);
        // Names that nobody knows do not exist; the last word stays.
        let word = words.get(number).or(words.last()).copied().unwrap_or("nx");
        reply(question.get(..end + 4)?, kind, word)
    }
}

/// The name, and where it ends.
fn name_of(question: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), 12);
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name.to_ascii_lowercase(), at));
        }
        name += std::str::from_utf8(question.get(at..at + length)?).ok()?;
        name.push('.');
        at += length;
    }
}

/// The answer to header and question.
fn reply(asked: &[u8], kind: u16, word: &str) -> Option<Vec<u8>> {
    let (word, ttl) = word.split_once('/').unwrap_or((word, "0"));
    let ttl: u32 = ttl.parse().expect("seconds");
    let mut records = Vec::new();
    let code = match word {
        "silent" => return None,
        "cut" => 0x8380_u16,
        "nx" => 0x8183,
        "servfail" => 0x8182,
        "refused" => 0x8185,
        "none" => 0x8180,
        addresses => {
            let (alias, addresses) = match addresses.strip_prefix("alias:") {
                Some(addresses) => (true, addresses),
                None => (false, addresses),
            };
            if alias {
                // real.<name>, which the records below have.
                records.push(record(5, ttl, &[4, b'r', b'e', b'a', b'l', 0xc0, 12]));
            }
            for address in addresses.split(',') {
                let data = match address.parse().expect("an address") {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                records.push(record(kind, ttl, &data));
            }
            if alias {
                let owner = u16::try_from(asked.len() + 12).expect("short");
                for record in records.iter_mut().skip(1) {
                    record[..2].copy_from_slice(&(0xc000 | owner).to_be_bytes());
                }
            }
            0x8180
        }
    };
    let mut answer = asked.to_vec();
    answer[2..4].copy_from_slice(&code.to_be_bytes());
    answer[4..6].copy_from_slice(&1_u16.to_be_bytes());
    let count = u16::try_from(records.len()).expect("few");
    answer[6..8].copy_from_slice(&count.to_be_bytes());
    answer[8..12].fill(0);
    answer.extend(records.concat());
    Some(answer)
}

/// A record of the name that was asked for.
fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0, 12];
    bytes.extend(kind.to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    bytes.extend(ttl.to_be_bytes());
    bytes.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
    bytes.extend(data);
    bytes
}

/// The hosts of the cluster that the first label of a name stands for.
fn hosts_of(name: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(ADMIN)?;
        stream.write_all(b"GET /clusters HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let began = Instant::now();
    // Questions begin before the proxy can be asked.
    while began.elapsed() < Duration::from_secs(5) {
        if let Ok(text) = ask() {
            return hosts(&text, name.split(['.', '-']).next().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    "unknown".to_owned()
}

/// Addresses, priorities and names of a cluster's hosts in the text of `/clusters`, sorted.
pub(super) fn hosts(clusters: &str, cluster: &str) -> String {
    let start = format!("{cluster}::");
    let mut hosts: Vec<String> = Vec::new();
    let mut address = "";
    for line in clusters.lines().filter_map(|line| line.strip_prefix(&start)) {
        if let Some((host, _)) = line.split_once("::cx_active::") {
            address = host;
        } else if let Some(name) = line.strip_prefix(&format!("{address}::hostname::")) {
            hosts.push(format!("{} {name}", normal(address)));
        } else if let Some(priority) = line.strip_prefix(&format!("{address}::priority::"))
            && let Some(host) = hosts.last_mut()
        {
            host.push_str(&format!(" {priority}"));
        }
    }
    hosts.sort();
    format!("{hosts:?}")
}

/// One way to write an address.
fn normal(address: &str) -> String {
    let Some((ip, port)) = address.rsplit_once(':') else {
        return address.to_owned();
    };
    match ip.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]:{port}"),
        Err(_) => address.to_owned(),
    }
}
