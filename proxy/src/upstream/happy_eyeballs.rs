//! Hosts with several addresses: which is tried first, and when the next.
//!
//! Another attempt begins when the one before has failed, or has taken 300 ms; the first that succeeds wins. Source: Envoy docs, happy
//! eyeballs support; Envoy `HappyEyeballsConnectionProvider`, `MultiConnectionBaseImpl`; RFC 8305.
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use outrigger_model::cluster::HappyEyeballs;
use smallvec::SmallVec;

use crate::time;

/// From one attempt to the next. Source: Envoy `MultiConnectionBaseImpl::tryAnotherConnection`.
const DELAY: Duration = Duration::from_millis(300);

/// All addresses in the order in which they are tried.
pub(super) fn order(
    first: SocketAddr,
    others: &[SocketAddr],
    config: HappyEyeballs,
) -> SmallVec<[SocketAddr; 4]> {
    let first_is_v6 = config.first_is_v6.unwrap_or(first.is_ipv6());
    let of = |is_v6: bool| {
        let all = std::iter::once(&first).chain(others);
        all.copied().filter(move |address| address.is_ipv6() == is_v6)
    };
    let (mut wanted, mut other) = (of(first_is_v6), of(!first_is_v6));
    let mut ordered = SmallVec::new();
    loop {
        let before = ordered.len();
        ordered.extend(wanted.by_ref().take(config.first_count as usize));
        ordered.extend(other.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

/// The first success of these attempts, else the last failure; `None`: there are none.
pub(super) async fn race<T, E, F>(attempts: impl IntoIterator<Item = F>) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut attempts = attempts.into_iter().peekable();
    let mut running = FuturesUnordered::new();
    let mut failure = None;
    loop {
        running.extend(attempts.next());
        let has_more = attempts.peek().is_some();
        tokio::select! {
            biased;
            done = running.next() => match done {
                Some(Ok(success)) => return Some(Ok(success)),
                Some(Err(error)) => failure = Some(Err(error)),
                None => return failure,
            },
            () = time::sleep(DELAY), if has_more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn address(name: &str) -> SocketAddr {
        let (family, port) = name.split_at(1);
        let host = if family == "6" { "[::1]" } else { "127.0.0.1" };
        format!("{host}:{port}").parse().expect("an address")
    }

    #[test]
    fn families_take_turns() {
        let check = |given: &str, first_is_v6, first_count, expected: &str| {
            let all: Vec<_> = given.split(' ').map(address).collect();
            let config = HappyEyeballs {
                first_is_v6,
                first_count,
            };
            let expected: Vec<_> = expected.split(' ').map(address).collect();
            assert_eq!(order(all[0], &all[1..], config).as_slice(), expected, "{given}");
        };
        check("41 42 63 64", None, 1, "41 63 42 64");
        check("61 42 63 64", None, 1, "61 42 63 64");
        check("41 42 63 64", Some(true), 1, "63 41 64 42");
        check("41 42 63 64", None, 2, "41 42 63 64");
        check("41 42 43 64 65", None, 2, "41 42 64 43 65");
        check("41 42", Some(true), 1, "41 42");
        check("41", None, 1, "41");
    }

    /// Attempts take so many milliseconds, and fail if that is negative.
    async fn run(attempts: &[i64]) -> (Option<Result<i64, i64>>, u128) {
        let begun = Instant::now();
        let attempts = attempts.iter().map(|millis| async move {
            time::sleep(Duration::from_millis(millis.unsigned_abs())).await;
            if *millis < 0 { Err(*millis) } else { Ok(*millis) }
        });
        (race(attempts).await, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_attempt_begins_after_a_failure_or_300_ms() {
        assert_eq!(run(&[20, 10]).await, (Some(Ok(20)), 20));
        assert_eq!(run(&[-20, 10]).await, (Some(Ok(10)), 30));
        assert_eq!(run(&[1000, 10]).await, (Some(Ok(10)), 310));
        assert_eq!(run(&[1000, 900, 800]).await, (Some(Ok(1000)), 1000));
        assert_eq!(run(&[-1000, 5000, 10]).await, (Some(Ok(10)), 610));
        assert_eq!(run(&[-10, -20]).await, (Some(Err(-20)), 30));
        assert_eq!(run(&[-1000, -10]).await, (Some(Err(-1000)), 1000));
        assert_eq!(run(&[]).await, (None, 0));
    }
}
