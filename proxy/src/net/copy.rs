//! Bytes both ways between two streams, with half-close.
use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::time::{self, Instant};

/// Read buffer a direction; bytes.
const BUFFER_BYTES: usize = 16 * 1024;

/// How a two-way copy ended.
#[derive(Debug)]
pub(crate) enum CopyEnd {
    /// Both sides closed in order, the first stream's side first.
    Closed,
    /// Both sides closed in order, the second stream's side first.
    SecondClosed,
    /// Who watches wants it to end.
    Watched,
    /// Nothing moved for the idle limit.
    Idle,
    /// The first stream failed.
    First(io::Error),
    /// The second stream failed.
    Second(io::Error),
}

/// Sees bytes before they go on. Not to be called when there are none.
pub(crate) trait Watch {
    /// From the first stream to the second; they wait until then, if it says so.
    fn forward(&self, bytes: &[u8]) -> Option<Instant>;
    /// What comes after those that went forward.
    fn after_forward(&self) -> After {
        After::GoOn
    }
    /// From the second to the first.
    fn backward(&self, bytes: &[u8]) -> After;
}

/// What comes after bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The next ones.
    GoOn,
    /// The end.
    Close,
}

/// Copies until both directions are closed, one fails, or nothing moves for `idle`. A side that closes its half is passed on as
/// a half-close, so that request/response protocols over shutdown(2) work; unless `one_end_is_both`: then what the second stream may
/// still say after the first one's end is not waited for. `meter` tells how far it is.
pub(crate) async fn both_ways<A, B>(
    first: A,
    second: B,
    idle: Option<Duration>,
    meter: &Meter,
    watches: &[&dyn Watch],
    one_end_is_both: bool,
) -> CopyEnd
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (first_read, first_write) = tokio::io::split(first);
    let (second_read, second_write) = tokio::io::split(second);
    meter.last.set(Instant::now());
    let moving = async {
        let delay = async |bytes: &[u8]| {
            for watch in watches {
                if let Some(moment) = watch.forward(bytes) {
                    time::reach(Some(moment)).await;
                }
            }
            match watches.iter().any(|watch| watch.after_forward() == After::Close) {
                true => After::Close,
                false => After::GoOn,
            }
        };
        let look = async |bytes: &[u8]| {
            // Each sees them, also when one has had enough.
            let ends = watches
                .iter()
                .filter(|watch| watch.backward(bytes) == After::Close);
            if ends.count() > 0 {
                After::Close
            } else {
                After::GoOn
            }
        };
        let forward = one_way(first_read, second_write, &meter.forward, &meter.last, delay);
        let backward = one_way(second_read, first_write, &meter.backward, &meter.last, look);
        tokio::pin!(forward, backward);
        let mut in_order = CopyEnd::Closed;
        let (mut forward_done, mut backward_done) = (false, false);
        while !(forward_done && backward_done) {
            tokio::select! {
                end = &mut forward, if !forward_done => match end {
                    Ok(()) if one_end_is_both => return CopyEnd::Closed,
                    Ok(()) => forward_done = true,
                    Err(OneWayError::Read(error)) => return CopyEnd::First(error),
                    Err(OneWayError::Write(error)) => return CopyEnd::Second(error),
                    Err(OneWayError::Watched) => return CopyEnd::Watched,
                },
                end = &mut backward, if !backward_done => match end {
                    Ok(()) => {
                        backward_done = true;
                        if !forward_done {
                            in_order = CopyEnd::SecondClosed;
                        }
                    }
                    Err(OneWayError::Read(error)) => return CopyEnd::Second(error),
                    Err(OneWayError::Write(error)) => return CopyEnd::First(error),
                    Err(OneWayError::Watched) => return CopyEnd::Watched,
                },
            }
        }
        in_order
    };
    match idle {
        None => moving.await,
        Some(idle) => tokio::select! {
            end = moving => end,
            () = wait_idle(&meter.last, idle) => CopyEnd::Idle,
        },
    }
}

/// What moved so far.
#[derive(Debug)]
pub(crate) struct Meter {
    forward: Cell<u64>,
    backward: Cell<u64>,
    last: Cell<Instant>,
}

impl Meter {
    /// Nothing moved yet.
    pub(crate) fn new() -> Meter {
        Meter {
            forward: Cell::new(0),
            backward: Cell::new(0),
            last: Cell::new(Instant::now()),
        }
    }

    /// From the first stream to the second.
    pub(crate) fn forward_bytes(&self) -> u64 {
        self.forward.get()
    }

    /// From the second to the first.
    pub(crate) fn backward_bytes(&self) -> u64 {
        self.backward.get()
    }
}

enum OneWayError {
    Read(io::Error),
    Write(io::Error),
    Watched,
}

async fn one_way<R, W>(
    mut from: R,
    mut to: W,
    moved: &Cell<u64>,
    last: &Cell<Instant>,
    watch: impl AsyncFn(&[u8]) -> After,
) -> Result<(), OneWayError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await.map_err(OneWayError::Read)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return to.shutdown().await.map_err(OneWayError::Write);
        };
        let after = watch(bytes).await;
        to.write_all(bytes).await.map_err(OneWayError::Write)?;
        to.flush().await.map_err(OneWayError::Write)?;
        moved.set(moved.get() + count as u64);
        last.set(Instant::now());
        if after == After::Close {
            return Err(OneWayError::Watched);
        }
    }
}

async fn wait_idle(last: &Cell<Instant>, idle: Duration) {
    loop {
        let deadline = last.get() + idle;
        if time::until(Some(deadline), std::future::pending::<()>())
            .await
            .is_err()
            && last.get() + idle <= Instant::now()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passes_a_half_close_on_and_still_brings_the_answer() {
        let (mut client, downstream) = tokio::io::duplex(64);
        let (upstream, mut server) = tokio::io::duplex(64);
        let meter = Meter::new();
        let copy = both_ways(downstream, upstream, None, &meter, &[], false);
        let talk = async {
            client.write_all(b"question").await.expect("open");
            client.shutdown().await.expect("half-close");
            let mut got = String::new();
            server
                .read_to_string(&mut got)
                .await
                .expect("until the half-close");
            assert_eq!(got, "question");
            server.write_all(b"answer").await.expect("still open");
            server.shutdown().await.expect("close");
            let mut back = String::new();
            client.read_to_string(&mut back).await.expect("the answer");
            assert_eq!(back, "answer");
        };
        let (end, ()) = tokio::join!(copy, talk);
        assert!(matches!(end, CopyEnd::Closed));
        assert_eq!((meter.forward_bytes(), meter.backward_bytes()), (8, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn ends_when_nothing_moves() {
        let (_client, downstream) = tokio::io::duplex(64);
        let (upstream, _server) = tokio::io::duplex(64);
        let (idle, meter) = (Some(Duration::from_secs(1)), Meter::new());
        let end = both_ways(downstream, upstream, idle, &meter, &[], false).await;
        assert!(matches!(end, CopyEnd::Idle));
    }
}
