//! Writes a line per finished stream to the configured files.
//!
//! [`AccessLogger`] belongs to a configuration (filters, formats, where to) and is shared by all workers; [`LogSinks`]
//! belongs to the process: it opens each path once and owns the thread that writes. A worker appends to a buffer of its own and
//! hands it over when it is full (64 KiB) or [`LogSinks::flush_local`] says so.
//!
//! Cost of [`AccessLogger::log`] when an entry is written: one pass over the format into the worker's buffer, two counter
//! increments, no lock, no system call; it allocates only while a new buffer grows (once per hand-over, so once per some
//! 200 lines or per flush interval) and sends to a channel at hand-over. An entry that a filter drops costs a bit test.
//!
//! Nothing here can block a worker: a writer that cannot keep up (full pipe, slow disk) makes the queue fill up, and then
//! buffers are dropped and their lines counted (`access_log.lines_dropped`). Stats otherwise as Envoy's `filesystem.*`.
mod filter;
mod local;
mod sink;

pub(crate) use filter::Filter;
pub(crate) use sink::LogSinks;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderName;
use outrigger_model::access_log::{AccessLog, LogFormat, Logger};

pub(crate) use super::format::{Entry, RequestView};

use super::format::LineFormat;
use sink::Sink;

/// Why a logger cannot be made. The configuration is at fault, or the file system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessLogError {
    /// Try again after the path is writable.
    #[error("access log {}: {source}; make the path writable for this process or use /dev/stdout", path.display())]
    Open {
        /// As configured.
        path: PathBuf,
        /// From the system.
        source: io::Error,
    },
    /// Letters that no flag has.
    #[error(
        "access log filter: unknown response flag {0:?}; see Envoy's %RESPONSE_FLAGS% for the valid ones"
    )]
    UnknownFlag(String),
}

/// The access logs of one listener, connection manager or TCP proxy.
#[derive(Debug, Clone)]
pub(crate) struct AccessLogger {
    logs: Arc<[Log]>,
}

#[derive(Debug)]
struct Log {
    filter: Filter,
    format: Arc<LineFormat>,
    sink: Arc<Sink>,
}

impl AccessLogger {
    /// Opens what is not open yet. Control thread: it may wait for the file system.
    ///
    /// # Errors
    /// [`AccessLogError::Open`] when a file cannot be opened for appending, [`AccessLogError::UnknownFlag`].
    pub(crate) fn build(logs: &[AccessLog], sinks: &LogSinks) -> Result<AccessLogger, AccessLogError> {
        let logs = logs.iter().filter_map(|log| Log::new(log, sinks).transpose());
        Ok(AccessLogger {
            logs: logs.collect::<Result<_, _>>()?,
        })
    }

    /// The response headers that some line shows: what has to be kept until the end.
    pub(crate) fn response_headers(&self) -> Vec<HeaderName> {
        let names = self.logs.iter().flat_map(|log| log.format.response_headers());
        names.cloned().collect()
    }

    /// Nothing is ever written.
    pub(crate) fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// Writes the entry to every log whose filter lets it pass. Call it once per stream, after `finish`.
    pub(crate) fn log(&self, entry: &Entry<'_>) {
        for log in &*self.logs {
            if log.filter.passes(entry.info) {
                local::append(&log.sink, |buffer| log.format.write(entry, buffer));
            }
        }
    }
}

/// A file for lines that no format makes.
#[derive(Debug, Clone)]
pub(crate) struct LogFile(Arc<Sink>);

impl LogFile {
    /// Opens it unless it is open. Control thread: it may wait for the file system.
    ///
    /// # Errors
    /// [`AccessLogError::Open`].
    pub(crate) fn open(path: &Path, sinks: &LogSinks) -> Result<Self, AccessLogError> {
        sinks.open(path).map(Self)
    }

    /// Lets `write` append a line, with its end. `write` must not log.
    pub(crate) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        local::append(&self.0, write);
    }
}

impl Log {
    /// `None`: its kind, format or filter does not exist yet, so it writes nothing, as the configuration's problems say.
    fn new(log: &AccessLog, sinks: &LogSinks) -> Result<Option<Log>, AccessLogError> {
        let filter = log.filter.as_ref().map_or(Ok(Some(Filter::All)), Filter::new)?;
        let (Some(filter), Logger::File(file)) = (filter, &log.logger) else {
            return Ok(None);
        };
        let LogFormat::Text(parts) = file.format.as_ref() else {
            return Ok(None);
        };
        Ok(Some(Log {
            filter,
            format: sinks.format(&file.format, parts),
            sink: sinks.open(&file.path)?,
        }))
    }
}

#[cfg(test)]
mod tests;
