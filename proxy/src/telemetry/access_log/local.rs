//! The buffers of one thread: at most one per sink, so a thread's lines stay in order.
use std::cell::RefCell;
use std::sync::Arc;

use super::sink::{BUFFER_BYTES, Sink};

thread_local! {
    static BUFFERS: RefCell<Buffers> = const { RefCell::new(Buffers(Vec::new())) };
}

/// Few, so they are searched in turn.
struct Buffers(Vec<Buffer>);

struct Buffer {
    sink: Arc<Sink>,
    bytes: Vec<u8>,
    lines: u64,
}

/// Lets `write` append one line to this thread's buffer of `sink`; hands the buffer over when it is full.
///
/// `write` must not log. On a thread that is ending, the line is dropped and counted.
pub(super) fn append(sink: &Arc<Sink>, write: impl FnOnce(&mut Vec<u8>)) {
    let appended = BUFFERS.try_with(|buffers| {
        let mut buffers = buffers.borrow_mut();
        let buffer = buffers.of(sink);
        let before = buffer.bytes.len();
        write(&mut buffer.bytes);
        buffer.lines += 1;
        sink.count_buffered((buffer.bytes.len() - before) as u64);
        if buffer.bytes.len() >= BUFFER_BYTES {
            buffer.hand_over();
        }
    });
    if appended.is_err() {
        sink.count_dropped(1, 0);
    }
}

/// Hands over everything of this thread and forgets sinks that no configuration uses any more. Returns the buffers handed over.
pub(super) fn flush() -> u64 {
    let flush = |buffers: &RefCell<Buffers>| {
        let buffers = &mut buffers.borrow_mut().0;
        let handed = buffers
            .iter_mut()
            .map(|buffer| u64::from(buffer.hand_over()))
            .sum();
        buffers.retain(|buffer| Arc::strong_count(&buffer.sink) > 1);
        handed
    };
    BUFFERS.try_with(flush).unwrap_or(0)
}

impl Buffers {
    fn of(&mut self, sink: &Arc<Sink>) -> &mut Buffer {
        let index = self
            .0
            .iter()
            .position(|buffer| Arc::ptr_eq(&buffer.sink, sink))
            .unwrap_or_else(|| {
                self.0.push(Buffer {
                    sink: Arc::clone(sink),
                    bytes: Vec::new(),
                    lines: 0,
                });
                self.0.len() - 1
            });
        &mut self.0[index]
    }
}

impl Buffer {
    /// False when there was nothing.
    fn hand_over(&mut self) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        self.sink
            .send(std::mem::take(&mut self.bytes), std::mem::take(&mut self.lines));
        true
    }
}

/// A thread that ends (a worker at exit) hands over what it has.
impl Drop for Buffer {
    fn drop(&mut self) {
        self.hand_over();
    }
}
