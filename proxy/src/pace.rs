//! Long work in short pieces, so that the threads that serve requests run in between.
//!
//! A sidecar often has one core, which the control thread shares with a worker. The scheduler lets a thread that computes go on for
//! milliseconds before another has its turn (EEVDF runs a thread to parity, whatever its niceness is), and every request that arrives
//! meanwhile waits. Giving the core up helps, and costs half a microsecond when nobody waits for it; a nicer thread that gives it
//! up also gets it back later. Workers that are busy all the time leave such a thread a quarter of the core. A policy for idle
//! threads (`SCHED_IDLE`) would leave it nothing: they would keep new configuration out.
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Nobody computes longer than this without giving others a chance.
const TURN: Duration = Duration::from_micros(20);

/// How much nicer than the workers the control thread is; the kernel gives it a third of their weight (`sched(7)`).
const NICER: i32 = 5;

/// The clock is read once in so many [`step`]s.
const STEPS_A_LOOK: u32 = 8;
/// As long as a step: so many items of [`paced`], of which each is a few loads from memory.
const ITEMS_A_STEP: u32 = 16;

thread_local! {
    /// Items since the clock was read; a step counts as many as it is long.
    static ITEMS: Cell<u32> = const { Cell::new(0) };
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    static GIVES_WAY: Cell<bool> = const { Cell::new(false) };
}

/// This thread does: the control thread, and no worker. Threads inherit how nice the one that starts them is, so the workers
/// are started before.
pub(crate) fn give_way() {
    GIVES_WAY.set(true);
    // Linux counts niceness by thread. A sandbox that forbids the call costs latency and nothing else.
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::debug!(%error, "the control thread is as urgent as the workers");
    }
}

/// After a piece of work of less than two microseconds.
#[inline]
pub(crate) fn step() {
    done(ITEMS_A_STEP);
}

#[inline]
fn done(items: u32) {
    if !GIVES_WAY.get() {
        return;
    }
    let items = ITEMS.get() + items;
    if items < STEPS_A_LOOK * ITEMS_A_STEP {
        ITEMS.set(items);
        return;
    }
    ITEMS.set(0);
    breathe();
}

/// After a longer one: lets other threads run if this one has gone on for 20 µs.
pub(crate) fn breathe() {
    if !GIVES_WAY.get() {
        return;
    }
    let now = Instant::now();
    if SINCE.get().is_none_or(|since| now.duration_since(since) >= TURN) {
        std::thread::yield_now();
        SINCE.set(Some(Instant::now()));
    }
}

/// The same items, with a sixteenth of a [`step`] for each.
pub(crate) fn paced<I: IntoIterator>(items: I) -> impl Iterator<Item = I::Item> {
    items.into_iter().inspect(|_| done(1))
}

/// Drops the items, [`paced`]: what others hold as well is far apart in memory.
pub(crate) fn release<T>(items: Vec<T>) {
    paced(items).for_each(drop);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: u32 = STEPS_A_LOOK * ITEMS_A_STEP;

    #[test]
    fn the_core_is_given_up_once_a_turn() {
        breathe();
        assert_eq!(SINCE.get(), None, "a worker goes on");
        give_way();
        breathe();
        let first = SINCE.get();
        assert!(first.is_some());
        SINCE.set(first.map(|since| since - TURN));
        assert!(paced(0..LOOK - 1).eq(0..LOOK - 1));
        assert!(SINCE.get() < first, "too few steps to look at the clock");
        assert_eq!(paced([7]).last(), Some(7));
        assert!(SINCE.get() >= first);
    }
}
