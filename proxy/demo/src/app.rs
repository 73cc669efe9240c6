//! A plain HTTP/1.1 service that answers with what reached it, and misbehaves on request.
//!
//! `GET /` and any other path: 200 and JSON `{version, method, path, headers: [[name, value], …], peer, connection, body}`.
//! `/status/NNN` answers with that status, `/slow?ms=N` late, `/big?bytes=N` with that many bytes. `/reset` resets the
//! connection before an answer, `/close` closes it, `/half` closes it inside the body. `/flaky?fails=N&key=K&ms=N` answers 503,
//! and late, to the first N requests with that key.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::http1::{Head, Kind, Reader};

/// Bytes of a request body that are echoed.
const MAX_ECHO_BYTES: usize = 64 * 1024;
/// Bytes that `/big` answers with at most.
const MAX_BIG_BYTES: usize = 64 * 1024 * 1024;
/// Time that `/slow` waits at most.
const MAX_SLOW: Duration = Duration::from_secs(60);
/// Keys of `/flaky` that are remembered; with one more, all are forgotten.
const MAX_KEYS: usize = 10_000;

/// Serves connections of `listener` as `version`, until the task is dropped.
///
/// # Errors
/// When the listener fails; a connection's error ends that connection only.
pub async fn serve(listener: TcpListener, version: &str) -> io::Result<()> {
    let version: Arc<str> = version.into();
    let connections = AtomicU64::new(0);
    let asked = Asked::default();
    loop {
        let (stream, peer) = listener.accept().await?;
        let connection = connections.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::spawn(converse(
            stream,
            Place {
                version: Arc::clone(&version),
                peer,
                connection,
                asked: asked.clone(),
            },
        ));
    }
}

/// How often `/flaky` was asked, by key.
type Asked = Arc<Mutex<BTreeMap<String, u64>>>;

/// Where a request arrived.
struct Place {
    version: Arc<str>,
    peer: SocketAddr,
    connection: u64,
    asked: Asked,
}

/// How a request is answered.
enum Answer {
    Respond {
        status: u16,
        content_type: &'static str,
        body: Vec<u8>,
    },
    Reset,
    Close,
    Half,
}

async fn converse(mut stream: TcpStream, place: Place) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.split();
    let mut reader = Reader::new(read, Kind::Request);
    while let Some(head) = reader.head().await? {
        if head
            .value("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
        {
            write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let body = reader.body().await?;
        match answer(&place, &head, &body).await {
            Answer::Respond {
                status,
                content_type,
                body,
            } => {
                let is_head = head.line[0] == "HEAD";
                write
                    .write_all(&response(status, content_type, &body, is_head))
                    .await?;
            }
            Answer::Reset => {
                drop(reader);
                // Linger zero: the kernel sends RST instead of FIN.
                return stream.set_zero_linger();
            }
            Answer::Close => return Ok(()),
            Answer::Half => {
                return write
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                    .await;
            }
        }
        if reader.is_last() {
            return Ok(());
        }
    }
    Ok(())
}

async fn answer(place: &Place, head: &Head, body: &[u8]) -> Answer {
    let target = head.line[1].as_str();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "/reset" => return Answer::Reset,
        "/close" => return Answer::Close,
        "/half" => return Answer::Half,
        "/slow" => tokio::time::sleep(Duration::from_millis(number(query, "ms")).min(MAX_SLOW)).await,
        "/big" => {
            let length = usize::try_from(number(query, "bytes"))
                .unwrap_or(MAX_BIG_BYTES)
                .min(MAX_BIG_BYTES);
            return Answer::Respond {
                status: 200,
                content_type: "application/octet-stream",
                body: vec![b'x'; length],
            };
        }
        _ => {}
    }
    let status = match path {
        "/flaky" if ask_again(place, query) <= number(query, "fails") => {
            tokio::time::sleep(Duration::from_millis(number(query, "ms")).min(MAX_SLOW)).await;
            Some(503)
        }
        _ => path
            .strip_prefix("/status/")
            .and_then(|status| status.parse().ok()),
    };
    let status = status
        .filter(|status| (200..=599).contains(status))
        .unwrap_or(200);
    Answer::Respond {
        status,
        content_type: "application/json",
        body: echo(place, head, body),
    }
}

fn echo(place: &Place, head: &Head, body: &[u8]) -> Vec<u8> {
    let echoed = String::from_utf8_lossy(body.get(..MAX_ECHO_BYTES).unwrap_or(body)).into_owned();
    let mut json = serde_json::json!({
        "version": &*place.version,
        "method": head.line[0],
        "path": head.line[1],
        "headers": head.headers,
        "peer": place.peer.to_string(),
        "connection": place.connection,
        "body": echoed,
    })
    .to_string();
    json.push('\n');
    json.into_bytes()
}

fn response(status: u16, content_type: &str, body: &[u8], is_head: bool) -> Vec<u8> {
    let reason = if status == 200 { "OK" } else { "Other" };
    if matches!(status, 204 | 304) {
        return format!("HTTP/1.1 {status} {reason}\r\n\r\n").into_bytes();
    }
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut wire = head.into_bytes();
    if !is_head {
        wire.extend(body);
    }
    wire
}

/// The how-manieth time it is that this key is asked for, from 1.
fn ask_again(place: &Place, query: &str) -> u64 {
    let mut asked = place.asked.lock().unwrap_or_else(PoisonError::into_inner);
    if asked.len() >= MAX_KEYS {
        asked.clear();
    }
    let times = asked.entry(value(query, "key").to_owned()).or_default();
    *times += 1;
    *times
}

fn number(query: &str, name: &str) -> u64 {
    value(query, name).parse().unwrap_or(0)
}

fn value<'a>(query: &'a str, name: &str) -> &'a str {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find_map(|(key, value)| (key == name).then_some(value))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::AsyncReadExt;

    use super::*;

    async fn check(request: &str, expected: &[&str]) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { serve(listener, "v1").await });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        let read = client.read_to_string(&mut response).await;
        response.push_str(
            &read
                .err()
                .map(|error| error.kind().to_string())
                .unwrap_or_default(),
        );
        for part in expected {
            assert!(
                response.contains(part),
                "{request:?}: {response:?} lacks {part:?}"
            );
        }
        server.abort();
    }

    #[tokio::test]
    async fn the_answer_tells_what_reached_the_application() {
        let request = "GET /x HTTP/1.1\r\nB: 2\r\na: 1\r\nConnection: close\r\n\r\n";
        let headers = r#""headers":[["B","2"],["a","1"],["Connection","close"]]"#;
        check(
            request,
            &["200 OK", r#""version":"v1""#, r#""path":"/x""#, headers],
        )
        .await;
    }

    #[tokio::test]
    async fn paths_ask_for_other_behaviour() {
        check(
            "GET /status/503 HTTP/1.1\r\nConnection: close\r\n\r\n",
            &["HTTP/1.1 503"],
        )
        .await;
        check(
            "GET /big?bytes=7 HTTP/1.1\r\nConnection: close\r\n\r\n",
            &["\r\n\r\nxxxxxxx"],
        )
        .await;
        for (fails, status) in [(0, "HTTP/1.1 200"), (1, "HTTP/1.1 503")] {
            let request = format!("GET /flaky?key=a&fails={fails} HTTP/1.1\r\nConnection: close\r\n\r\n");
            check(&request, &[status]).await;
        }
        check("GET /close HTTP/1.1\r\n\r\n", &[]).await;
        check("GET /reset HTTP/1.1\r\n\r\n", &["connection reset"]).await;
        check("GET /half HTTP/1.1\r\n\r\n", &["content-length: 100", "half"]).await;
        let post = "POST / HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        check(post, &[r#""body":"abc""#]).await;
    }
}
