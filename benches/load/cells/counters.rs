//! The counters of outrigger and Envoy that must be zero after a run.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Last parts of their names.
const MUST_BE_ZERO: [&str; 9] = [
    "downstream_rq_5xx",
    "downstream_cx_overflow",
    "upstream_rq_5xx",
    "upstream_rq_retry",
    "upstream_rq_pending_overflow",
    "upstream_rq_timeout",
    "upstream_cx_overflow",
    "upstream_cx_connect_fail",
    "fail_verify_san",
];

/// What the counters at `admin` say that voids a figure of `name`.
pub(super) fn faults(name: &str, admin: SocketAddr) -> Vec<String> {
    match get(admin, "/stats") {
        Ok(stats) => nonzero(&stats)
            .into_iter()
            .map(|line| format!("{name}: {line}"))
            .collect(),
        Err(error) => vec![format!("{name}: its counters cannot be read: {error}")],
    }
}

/// Lines of the plain text of `/stats`, without those about the admin interface itself.
pub(super) fn nonzero(stats: &str) -> Vec<String> {
    let counted = |line: &&str| {
        let Some((name, value)) = line.split_once(": ") else {
            return false;
        };
        !name.contains(".admin.") && value != "0" && MUST_BE_ZERO.iter().any(|ending| name.ends_with(ending))
    };
    stats.lines().filter(counted).map(str::to_owned).collect()
}

/// Body of the answer to `GET target`.
pub(super) fn get(address: SocketAddr, target: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(
        format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!(
            "{target}: {}",
            head.lines().next().unwrap_or_default()
        )));
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counters_of_failures_are_faults_and_only_when_they_counted() {
        let stats = "cluster.a.upstream_rq_5xx: 3\ncluster.a.upstream_rq_2xx: 7\ncluster.b.upstream_rq_5xx: 0\n\
                     http.admin.downstream_rq_5xx: 1\ncluster.a.upstream_cx_overflow: 1\n";
        assert_eq!(
            nonzero(stats),
            [
                "cluster.a.upstream_rq_5xx: 3",
                "cluster.a.upstream_cx_overflow: 1"
            ]
        );
    }
}
