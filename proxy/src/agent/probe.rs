//! Asking an application whether it is ready. Connections come from 127.0.0.6, as those of inbound listeners, so that no rule of iptables
//! brings them back to the proxy. Source: istio pkg/istio-agent/health/probers.go; contract §2.5.
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use outrigger_model::readiness::{ProbeMethod, ProbeTarget};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::net::connect::{self, SocketOptions};

const SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// No status line is longer.
const MAX_LINE: usize = 1024;

/// Why the application counts as not ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unready {
    #[error("the proxy is not ready yet")]
    Proxy,
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("{host}:{port} cannot be reached: {source}")]
    Connect {
        host: String,
        port: u16,
        source: io::Error,
    },
    #[error("the connection failed: {0}")]
    Broken(#[from] io::Error),
    #[error("the answer is not http")]
    NotHttp,
    #[error("answered {0}, and 200 to 399 is ready")]
    Status(u16),
    #[error("{program:?} cannot be run: {source}")]
    Run { program: String, source: io::Error },
    #[error("{program:?} ended with {status}")]
    Ended { program: String, status: ExitStatus },
}

/// Asks once; the caller has the time limit.
///
/// # Errors
/// Why it is not ready.
pub(super) async fn ask(method: &ProbeMethod) -> Result<(), Unready> {
    match method {
        ProbeMethod::HttpGet {
            target,
            path,
            headers,
        } => get(target, path, headers).await,
        ProbeMethod::TcpSocket(target) => dial(target).await.map(drop),
        ProbeMethod::Exec(command) => run(command).await,
    }
}

/// The first address of the host that can be connected to.
async fn dial(target: &ProbeTarget) -> Result<TcpStream, Unready> {
    let failed = |source| Unready::Connect {
        host: target.target_host.clone(),
        port: target.target_port,
        source,
    };
    let host = target.target_host.trim_start_matches('[').trim_end_matches(']');
    let addresses = tokio::net::lookup_host((host, target.target_port))
        .await
        .map_err(failed)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match dial_address(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

async fn dial_address(address: SocketAddr) -> io::Result<TcpStream> {
    let source = if address.is_ipv4() { SOURCE_V4 } else { SOURCE_V6 };
    let options = SocketOptions {
        source: Some(SocketAddr::new(source, 0)),
        ..SocketOptions::default()
    };
    connect::connect(address, options).await
}

/// Only the status counts, so nothing after its line is read.
async fn get(target: &ProbeTarget, path: &str, headers: &[(String, String)]) -> Result<(), Unready> {
    let mut stream = dial(target).await?;
    stream
        .write_all(request(target, path, headers).as_bytes())
        .await?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < MAX_LINE {
        if stream.read_buf(&mut line).await? == 0 {
            return Err(Unready::NotHttp);
        }
    }
    match status(&line).ok_or(Unready::NotHttp)? {
        200..400 => Ok(()),
        status => Err(Unready::Status(status)),
    }
}

fn request(target: &ProbeTarget, path: &str, headers: &[(String, String)]) -> String {
    let has = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let mut request = format!("GET {path} HTTP/1.1\r\n");
    if !has("host") {
        let is_v6 = target.target_host.contains(':') && !target.target_host.starts_with('[');
        let host = if is_v6 {
            format!("[{}]", target.target_host)
        } else {
            target.target_host.clone()
        };
        request.push_str(&format!("host: {host}:{}\r\n", target.target_port));
    }
    if !has("user-agent") {
        request.push_str("user-agent: istio-probe/1.0\r\n");
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("connection: close\r\n\r\n");
    request
}

/// Of `HTTP/1.1 200 OK`.
fn status(line: &[u8]) -> Option<u16> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let code = line.split([' ', '\r']).nth(1)?;
    code.parse().ok().filter(|code| (100..1000).contains(code))
}

/// It is killed if nobody waits any more.
async fn run(command: &[String]) -> Result<(), Unready> {
    let (program, arguments) = command.split_first().unwrap_or((const { &String::new() }, &[]));
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await;
    let status = status.map_err(|source| Unready::Run {
        program: program.clone(),
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    Err(Unready::Ended {
        program: program.clone(),
        status,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one connection so; its port.
    async fn server(answer: &'static str) -> (u16, tokio::task::JoinHandle<(SocketAddr, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (mut stream, peer) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !answer.is_empty() && !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            (peer, String::from_utf8(request).unwrap())
        });
        (port, served)
    }

    fn at(port: u16) -> ProbeTarget {
        ProbeTarget {
            target_host: "127.0.0.1".to_owned(),
            target_port: port,
        }
    }

    fn text(answer: Result<(), Unready>) -> String {
        answer.map_or_else(|error| error.to_string(), |()| "ready".to_owned())
    }

    #[tokio::test]
    async fn a_status_of_200_to_399_is_ready() {
        let cases = [
            ("HTTP/1.1 200 OK\r\n\r\n", "ready"),
            ("HTTP/1.0 399 x\r\n\r\n", "ready"),
            ("HTTP/1.1 400 x\r\n\r\n", "answered 400, and 200 to 399 is ready"),
            ("HTTP/1.1 199\r\n\r\n", "answered 199, and 200 to 399 is ready"),
            ("HTTP/2 200\r\n\r\n", "the answer is not http"),
            ("HTTP/1.1 OK\r\n\r\n", "the answer is not http"),
            ("HTTP/1.1 200", "the answer is not http"),
        ];
        for (answer, expected) in cases {
            let (port, served) = server(answer).await;
            let headers = [("X-A".to_owned(), "b c".to_owned())];
            assert_eq!(
                text(get(&at(port), "/ready?x=1", &headers).await),
                expected,
                "{answer:?}"
            );
            let (peer, request) = served.await.unwrap();
            assert_eq!(peer.ip(), SOURCE_V4, "iptables leaves it alone");
            let expected = format!(
                "GET /ready?x=1 HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: istio-probe/1.0\r\nX-A: b c\r\nconnection: close\r\n\r\n"
            );
            assert_eq!(request, expected);
        }
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_waited_for() {
        let long = format!("HTTP/1.1 {}", "2".repeat(2 * MAX_LINE)).leak();
        let (port, _served) = server(long).await;
        assert_eq!(text(get(&at(port), "/", &[]).await), "the answer is not http");
    }

    #[tokio::test]
    async fn a_port_is_ready_when_it_can_be_connected_to() {
        let (port, _served) = server("").await;
        assert_eq!(text(ask(&ProbeMethod::TcpSocket(at(port))).await), "ready");
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let refused = text(ask(&ProbeMethod::TcpSocket(at(free))).await);
        assert!(
            refused.starts_with(&format!("127.0.0.1:{free} cannot be reached: ")),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_command_is_ready_when_it_ends_with_0() {
        let check = async |command: &[&str], expected: &str| {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            let answer = text(ask(&ProbeMethod::Exec(command)).await);
            assert!(answer.starts_with(expected), "{answer}");
        };
        check(&["true"], "ready").await;
        check(&["sh", "-c", "exit 3"], "\"sh\" ended with exit status: 3").await;
        check(&["/no/such/program"], "\"/no/such/program\" cannot be run: ").await;
    }
}
