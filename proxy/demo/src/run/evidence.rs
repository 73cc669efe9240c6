//! Why a request failed, as the sidecars' access logs tell it.
//!
//! Each request of front has a number in its path; a failure is looked up by that number in the lines of all sidecars.
//! The lines are Istio's default format: `[time] "METHOD PATH PROTOCOL" CODE FLAGS DETAILS …`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What the number of a request is written after.
pub(super) const NUMBER: &str = "/?n=";
/// Requests that are remembered; the oldest go first.
const MAX_REQUESTS: usize = 4096;

/// What the sidecars said about requests that did not go well. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    found: Arc<Mutex<BTreeMap<u64, Vec<String>>>>,
}

impl Evidence {
    /// Reads a line of the access log of `pod`.
    pub(super) fn read(&self, pod: &str, line: &str) {
        let Some((number, said)) = parse(line) else { return };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.entry(number).or_default().push(format!("{pod}: {said}"));
        if found.len() > MAX_REQUESTS {
            found.pop_first();
        }
    }

    /// What was said about a request, front first.
    pub(super) fn take(&self, number: u64) -> Vec<String> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut said = found.remove(&number).unwrap_or_default();
        said.sort_by_key(|text| !text.starts_with("front"));
        said
    }
}

/// Number, and flags with details, of a line about a request that failed.
fn parse(line: &str) -> Option<(u64, String)> {
    let mut parts = line.split('"');
    let path = parts.nth(1)?.split(' ').nth(1)?;
    let number = path.strip_prefix(NUMBER)?.parse().ok()?;
    let mut words = parts.next()?.split_whitespace();
    let (code, flags, details) = (words.next()?, words.next()?, words.next()?);
    let is_good = flags == "-" && code.parse().is_ok_and(|code: u16| (200..400).contains(&code));
    // What follows in braces tells the transport's error in full; the log has it.
    let details = details.split('{').next().unwrap_or(details);
    let flags = if flags == "-" {
        String::new()
    } else {
        format!("{flags} ")
    };
    (!is_good).then(|| (number, format!("{flags}{details}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(u64, &str)>) {
        assert_eq!(
            parse(line),
            expected.map(|(number, said)| (number, said.to_owned())),
            "{line}"
        );
    }

    #[test]
    fn only_failures_with_a_number_are_evidence() {
        let line = |path: &str, rest: &str| {
            format!("[2024-01-01T00:00:00.000Z] \"GET {path} HTTP/1.1\" {rest} - \"-\" 0 167")
        };
        check(&line("/?n=7", "200 - via_upstream"), None);
        check(&line("/other", "503 UF upstream_reset"), None);
        check(&line("/?n=7", "503 - via_upstream"), Some((7, "via_upstream")));
        check(
            &line(
                "/?n=8",
                "503 UF,URX upstream_reset_before_response_started{connection_failure|refused}",
            ),
            Some((8, "UF,URX upstream_reset_before_response_started")),
        );
        check(
            &line("/?n=9", "0 DC downstream_remote_disconnect"),
            Some((9, "DC downstream_remote_disconnect")),
        );
        check("", None);
        check("\"\"\"", None);
    }

    #[test]
    fn what_front_said_comes_first() {
        let evidence = Evidence::default();
        for pod in ["bill-v1", "front"] {
            evidence.read(pod, "[t] \"GET /?n=1 HTTP/1.1\" 503 UF x -");
        }
        assert_eq!(evidence.take(1), ["front: UF x", "bill-v1: UF x"]);
        assert!(evidence.take(1).is_empty());
    }
}
