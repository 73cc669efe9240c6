//! Open files, and the one thread that writes to them.
use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use outrigger_model::access_log::{FormatPart, LogFormat};

use super::super::format::LineFormat;
use super::{AccessLogError, local};
use crate::stats::{Counter, Gauge, Registry};

/// A worker hands its buffer over at this size. Envoy's `--file-flush-min-size-kb`, 64 KiB.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that wait for the writer: about 16 MiB at most, then buffers are dropped.
const QUEUE: usize = 256;
/// How long a sink that says "not now" (a non-blocking pipe) is asked again: this many times, [`RETRY_PAUSE`] apart.
const RETRIES: u32 = 200;
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// All open access logs of the process.
///
/// Every path is opened once, for appending; `/dev/stdout` and `/dev/stderr` are this process's descriptors 1 and 2 and never
/// opened, so they work whoever owns them.
pub(crate) struct LogSinks {
    queue: SyncSender<Message>,
    open: Mutex<HashMap<PathBuf, Weak<Sink>>>,
    /// Formats in use, with what they are made of.
    formats: Mutex<Vec<(Arc<LogFormat>, Weak<LineFormat>)>>,
    stats: Arc<SinkStats>,
}

/// Names as Envoy's `filesystem.*`, but for `lines_dropped`.
struct SinkStats {
    write_buffered: Counter,
    write_completed: Counter,
    write_failed: Counter,
    flushed_by_timer: Counter,
    reopen_failed: Counter,
    total_buffered: Gauge,
    lines_dropped: Counter,
}

/// One destination. The file is closed when the last logger and the last buffer are gone.
pub(super) struct Sink {
    path: PathBuf,
    target: Arc<Target>,
    queue: SyncSender<Message>,
    stats: Arc<SinkStats>,
}

enum Target {
    Stdout,
    Stderr,
    /// The lock is for [`LogSinks::reopen`]; only the writer takes it otherwise.
    File(Mutex<File>),
}

enum Message {
    Write {
        path: PathBuf,
        target: Arc<Target>,
        bytes: Vec<u8>,
    },
    /// Answered when everything before it is written.
    Barrier(SyncSender<()>),
}

impl LogSinks {
    /// Starts the writer thread, which ends with the last sink.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn new(registry: &Registry) -> io::Result<LogSinks> {
        let (queue, messages) = sync_channel(QUEUE);
        let stats = Arc::new(SinkStats::new(registry));
        let writer = Writer {
            stats: Arc::clone(&stats),
            warned: None,
        };
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&messages))?;
        Ok(LogSinks {
            queue,
            open: Mutex::default(),
            formats: Mutex::default(),
            stats,
        })
    }

    /// The format, prepared; loggers with the same one share it.
    pub(super) fn format(&self, config: &Arc<LogFormat>, parts: &[FormatPart]) -> Arc<LineFormat> {
        let mut formats = self.formats.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |known: &Arc<LogFormat>| Arc::ptr_eq(known, config) || known == config;
        let known = formats.iter().find(|(known, _)| is_same(known));
        if let Some(format) = known.and_then(|(_, format)| format.upgrade()) {
            return format;
        }
        formats.retain(|(_, format)| format.strong_count() > 0);
        let format = Arc::new(LineFormat::new(parts));
        formats.push((config.clone(), Arc::downgrade(&format)));
        format
    }

    /// The sink of `path`, opened if it is not yet.
    pub(super) fn open(&self, path: &Path) -> Result<Arc<Sink>, AccessLogError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, sink| sink.strong_count() > 0);
        if let Some(sink) = open.get(path).and_then(Weak::upgrade) {
            return Ok(sink);
        }
        let target = Target::open(path).map_err(|source| AccessLogError::Open {
            path: path.to_owned(),
            source,
        })?;
        let (queue, stats) = (self.queue.clone(), Arc::clone(&self.stats));
        let sink = Arc::new(Sink {
            path: path.to_owned(),
            target: Arc::new(target),
            queue,
            stats,
        });
        open.insert(path.to_owned(), Arc::downgrade(&sink));
        Ok(sink)
    }

    /// Hands the calling thread's buffers to the writer, without waiting.
    ///
    /// Each worker calls it every `--file-flush-interval-msec` (Envoy's default 10 s; Istio passes 1000 ms).
    pub(crate) fn flush_local(&self) {
        self.stats.flushed_by_timer.add(local::flush());
    }

    /// Opens all files anew, for log rotation. A file that cannot be opened stays as it was and is counted.
    pub(crate) fn reopen(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, sink) in open
            .iter()
            .filter_map(|(path, sink)| Some((path, sink.upgrade()?)))
        {
            let Target::File(file) = &*sink.target else {
                continue;
            };
            match append_to(path) {
                Ok(new) => *file.lock().unwrap_or_else(PoisonError::into_inner) = new,
                Err(error) => {
                    self.stats.reopen_failed.inc();
                    tracing::warn!(path = %path.display(), %error, "access log could not be reopened; the old file stays in use");
                }
            }
        }
    }

    /// Hands over this thread's buffers and waits until all handed-over lines are written; false when `timeout` passes first.
    ///
    /// For the end of the process, after the workers ended: a thread's buffers are handed over when it ends.
    pub(crate) fn shutdown(&self, timeout: Duration) -> bool {
        local::flush();
        let (done, finished) = sync_channel(1);
        let deadline = std::time::Instant::now() + timeout;
        let mut barrier = Message::Barrier(done);
        // The queue may be full; `send` would wait without end for a writer stuck on a dead pipe.
        while let Err(error) = self.queue.try_send(barrier) {
            barrier = match error {
                TrySendError::Full(barrier) if std::time::Instant::now() < deadline => barrier,
                _ => return false,
            };
            thread::park_timeout(RETRY_PAUSE);
        }
        finished
            .recv_timeout(deadline.saturating_duration_since(std::time::Instant::now()))
            .is_ok()
    }
}

impl fmt::Debug for LogSinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSinks").finish_non_exhaustive()
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sink").field(&self.path).finish()
    }
}

impl SinkStats {
    fn new(registry: &Registry) -> SinkStats {
        let total_buffered = registry.gauge("filesystem.write_total_buffered");
        // Shown from the start, as in Envoy.
        total_buffered.add(0);
        SinkStats {
            write_buffered: registry.counter("filesystem.write_buffered"),
            write_completed: registry.counter("filesystem.write_completed"),
            write_failed: registry.counter("filesystem.write_failed"),
            flushed_by_timer: registry.counter("filesystem.flushed_by_timer"),
            reopen_failed: registry.counter("filesystem.reopen_failed"),
            total_buffered,
            lines_dropped: registry.counter("access_log.lines_dropped"),
        }
    }
}

impl Sink {
    /// A line of this length was appended to a buffer.
    pub(super) fn count_buffered(&self, bytes: u64) {
        self.stats.write_buffered.inc();
        self.stats.total_buffered.add(bytes);
    }

    /// Lines that will not be written, and their bytes that `count_buffered` saw.
    pub(super) fn count_dropped(&self, lines: u64, bytes: u64) {
        self.stats.lines_dropped.add(lines);
        self.stats.total_buffered.sub(bytes);
    }

    /// Queues a buffer of whole lines; drops and counts it when the queue is full.
    pub(super) fn send(&self, bytes: Vec<u8>, lines: u64) {
        let length = bytes.len() as u64;
        let message = Message::Write {
            path: self.path.clone(),
            target: Arc::clone(&self.target),
            bytes,
        };
        if self.queue.try_send(message).is_err() {
            self.count_dropped(lines, length);
        }
    }
}

impl Target {
    fn open(path: &Path) -> io::Result<Target> {
        Ok(match path.to_str() {
            Some("/dev/stdout") => Target::Stdout,
            Some("/dev/stderr") => Target::Stderr,
            _ => Target::File(Mutex::new(append_to(path)?)),
        })
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Target::Stdout => write_all(&mut io::stdout().lock(), bytes),
            Target::Stderr => write_all(&mut io::stderr().lock(), bytes),
            Target::File(file) => write_all(&mut *file.lock().unwrap_or_else(PoisonError::into_inner), bytes),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// As `Write::write_all`, but a descriptor that somebody set to non-blocking gets a second to take the bytes.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    let mut pauses = 0;
    let mut step = |result: io::Result<usize>| match result {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && pauses < RETRIES => {
            pauses += 1;
            thread::park_timeout(RETRY_PAUSE);
            Ok(0)
        }
        other => other,
    };
    while !bytes.is_empty() {
        let result = match out.write(bytes) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            other => other,
        };
        let written = step(result)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    out.flush()
}

/// The thread.
struct Writer {
    stats: Arc<SinkStats>,
    /// The path that was last warned about; `None` after a write that worked.
    warned: Option<PathBuf>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        for message in messages {
            match message {
                Message::Write { path, target, bytes } => self.write(path, &target, &bytes),
                Message::Barrier(done) => {
                    // Whoever asked may have stopped waiting.
                    let _gone = done.send(());
                }
            }
        }
    }

    fn write(&mut self, path: PathBuf, target: &Target, bytes: &[u8]) {
        let result = target.write(bytes);
        self.stats.total_buffered.sub(bytes.len() as u64);
        match result {
            Ok(()) => {
                self.stats.write_completed.inc();
                if self.warned.as_ref() == Some(&path) {
                    self.warned = None;
                }
            }
            Err(error) => {
                self.stats.write_failed.inc();
                if self.warned.as_ref() != Some(&path) {
                    tracing::warn!(path = %path.display(), %error, "access log lines are lost; going on without them");
                    self.warned = Some(path);
                }
            }
        }
    }
}
