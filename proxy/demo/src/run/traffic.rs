//! front's application: asks bill-service a hundred times a second, whether or not the last answer is there.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use super::evidence::{Evidence, NUMBER};
use super::state::Shared;
use super::tally::{Identities, Outcome};
use crate::http1::{Head, Kind, Reader};

/// One request this often.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);
/// Longest wait of a user.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a longer pause of the whole program (Ctrl-Z) nobody wants what was missed.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// Requests that wait at once.
const MAX_WAITING: usize = 250;
/// Idle connections that are kept.
const MAX_IDLE: usize = 16;
/// Until a sidecar has written the log line of a request; they write every [`super::sidecar::LOG_INTERVAL`].
const LOG_PATIENCE: Duration = Duration::from_millis(300);

/// What the requests share.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) entry: SocketAddr,
    pub(super) evidence: Evidence,
    pub(super) shared: Shared,
    idle: Arc<Mutex<Vec<Connection>>>,
}

struct Connection {
    reader: Reader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Front {
    pub(super) fn new(entry: SocketAddr, evidence: Evidence, shared: Shared) -> Self {
        Self {
            entry,
            evidence,
            shared,
            idle: Arc::default(),
        }
    }

    /// Sends until the task is dropped.
    pub(super) async fn run(self) {
        let mut clock = tokio::time::interval(INTERVAL);
        // A busy machine delays the clock; the requests that are due are sent all the same.
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let waiting = Arc::new(Semaphore::new(MAX_WAITING));
        for number in 1_u64.. {
            if clock.tick().await.elapsed() > MAX_DELAY {
                clock.reset();
            }
            let Ok(permit) = Arc::clone(&waiting).try_acquire_owned() else {
                let reason = format!("not sent: {MAX_WAITING} requests are waiting");
                self.shared.lock().tally.note(&Outcome::Failed(reason));
                continue;
            };
            let front = self.clone();
            tokio::spawn(async move {
                let outcome = front.ask(number).await;
                front.shared.lock().tally.note(&outcome);
                drop(permit);
            });
        }
    }

    async fn ask(&self, number: u64) -> Outcome {
        let start = Instant::now();
        let exchanged = tokio::time::timeout(PATIENCE, self.exchange(number)).await;
        let latency = start.elapsed();
        let seen = match exchanged {
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
            Ok(Err(error)) => format!("no answer: {error}"),
            Ok(Ok((head, body))) => match understood(&head, &body) {
                Some((version, identities)) => {
                    return Outcome::Answered {
                        version,
                        latency,
                        identities,
                    };
                }
                None => head.status().to_string(),
            },
        };
        tokio::time::sleep(LOG_PATIENCE).await;
        let said = self.evidence.take(number).join(", ");
        Outcome::Failed(if said.is_empty() {
            seen
        } else {
            format!("{seen} ({said})")
        })
    }

    /// One exchange. When an idle connection turns out to be closed, once more on a new one, as HTTP clients do for
    /// methods without effects (RFC 9110 section 9.2.2).
    async fn exchange(&self, number: u64) -> io::Result<(Head, Vec<u8>)> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(connection) = idle {
            match self.exchange_on(connection, number).await {
                Err(error) if is_closed(&error) => self.shared.lock().tally.resent += 1,
                result => return result,
            }
        }
        let stream = TcpStream::connect(self.entry).await?;
        stream.set_nodelay(true)?;
        let (read, writer) = stream.into_split();
        let reader = Reader::new(read, Kind::Response);
        self.exchange_on(Connection { reader, writer }, number).await
    }

    async fn exchange_on(&self, mut connection: Connection, number: u64) -> io::Result<(Head, Vec<u8>)> {
        let request = format!(
            "GET {NUMBER}{number} HTTP/1.1\r\nHost: bill-service:9999\r\nUser-Agent: outrigger-demo\r\n\r\n"
        );
        connection.writer.write_all(request.as_bytes()).await?;
        let head = connection
            .reader
            .head()
            .await?
            .ok_or(io::ErrorKind::ConnectionAborted)?;
        let body = connection.reader.body().await?;
        if !connection.reader.is_last() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < MAX_IDLE {
                idle.push(connection);
            }
        }
        Ok((head, body))
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

/// Version and identities of an answer of [`crate::app`]; nothing for any other answer.
fn understood(head: &Head, body: &[u8]) -> Option<(String, Option<Identities>)> {
    if head.status() != 200 {
        return None;
    }
    let seen: Value = serde_json::from_slice(body).ok()?;
    let version = seen["version"].as_str()?.to_owned();
    let headers = seen["headers"].as_array().into_iter().flatten();
    let certificates = headers
        .filter(|header| {
            header[0]
                .as_str()
                .is_some_and(|name| name.eq_ignore_ascii_case("x-forwarded-client-cert"))
        })
        .find_map(|header| header[1].as_str());
    Some((version, certificates.and_then(identities)))
}

/// Both ends of the last hop: `By=spiffe://…;Hash=…;Subject="";URI=spiffe://…`.
fn identities(certificates: &str) -> Option<Identities> {
    let last = certificates.rsplit(',').next()?;
    let value = |name: &str| {
        last.split(';')
            .find_map(|pair| pair.strip_prefix(name))
            .map(str::to_owned)
    };
    Some(Identities {
        client: value("URI=")?,
        server: value("By=")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_those_of_the_last_hop() {
        let check = |certificates: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(client, server)| Identities {
                client: client.to_owned(),
                server: server.to_owned(),
            });
            assert_eq!(identities(certificates), expected, "{certificates}");
        };
        check(
            "By=spiffe://b;Hash=1;Subject=\"\";URI=spiffe://a",
            Some(("spiffe://a", "spiffe://b")),
        );
        check(
            "By=x;URI=y,By=spiffe://b;URI=spiffe://a",
            Some(("spiffe://a", "spiffe://b")),
        );
        check("Hash=1", None);
        check("", None);
    }

    #[test]
    fn only_the_application_is_understood() {
        let head = |status: &str| Head {
            line: ["HTTP/1.1".to_owned(), status.to_owned(), String::new()],
            headers: Vec::new(),
        };
        let body = br#"{"version": "v1", "headers": [["X-Forwarded-Client-Cert", "By=b;URI=a"]]}"#;
        assert!(
            understood(&head("200"), body)
                .is_some_and(|(version, identities)| version == "v1" && identities.is_some())
        );
        assert_eq!(understood(&head("503"), body), None);
        assert_eq!(understood(&head("200"), b"no healthy upstream"), None);
    }
}
