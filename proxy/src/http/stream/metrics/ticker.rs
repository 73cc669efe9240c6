//! Reports of gRPC streams that last: one task a worker looks through all of them, so that a short call costs no timer of its own.
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::super::Stream;
use crate::time::Instant;
use crate::worker;

/// How often streams are looked through: a report is this much late at most.
const LOOK: Duration = Duration::from_millis(500);

thread_local! {
    static WATCHED: RefCell<Watched> = RefCell::default();
}

#[derive(Debug, Default)]
struct Watched {
    streams: HashMap<u64, Entry>,
    next: u64,
    looking: bool,
}

#[derive(Debug)]
struct Entry {
    stream: Weak<Stream>,
    interval: Duration,
    due: Instant,
}

/// A stream is looked at until this is dropped.
#[derive(Debug)]
pub(super) struct Ticket(u64);

impl Drop for Ticket {
    fn drop(&mut self) {
        // The worker's thread may be ending.
        let _ended = WATCHED.try_with(|watched| watched.borrow_mut().streams.remove(&self.0));
    }
}

/// Reports the stream's messages every `interval`.
pub(super) fn watch(stream: &Rc<Stream>, interval: Duration) -> Ticket {
    let (ticket, start) = WATCHED.with_borrow_mut(|watched| {
        let number = watched.next;
        watched.next += 1;
        let entry = Entry {
            stream: Rc::downgrade(stream),
            interval,
            due: Instant::now() + interval,
        };
        watched.streams.insert(number, entry);
        (Ticket(number), !std::mem::replace(&mut watched.looking, true))
    });
    if start {
        worker::spawn(look());
    }
    ticket
}

/// Ends when no stream is left.
async fn look() {
    loop {
        tokio::time::sleep(LOOK).await;
        let due = WATCHED.with_borrow_mut(|watched| {
            watched.looking = !watched.streams.is_empty();
            watched.looking.then(|| watched.due(Instant::now()))
        });
        let Some(due) = due else { return };
        for stream in due {
            stream.report_messages();
        }
    }
}

impl Watched {
    fn due(&mut self, now: Instant) -> Vec<Rc<Stream>> {
        let late = self.streams.values_mut().filter(|entry| entry.due <= now);
        late.filter_map(|entry| {
            entry.due = now + entry.interval;
            entry.stream.upgrade()
        })
        .collect()
    }
}
