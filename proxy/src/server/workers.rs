//! The worker threads of the process.
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::build::Shared;
use crate::stats;
use crate::worker::{self, WorkerHandle};

/// All workers. Dropping every handle ends them.
pub(super) struct Workers {
    handles: Vec<WorkerHandle>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` workers; each hands its log lines over every `flush_interval`.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start(count: usize, shared: &Arc<Shared>, flush_interval: Duration) -> io::Result<Self> {
        let (mut handles, mut threads) = (Vec::new(), Vec::new());
        for index in 0..count.max(1) {
            let entering = shared.clone();
            let (handle, thread) = worker::start(index, move || Entered::new(entering))?;
            let flusher = shared.clone();
            handle.run(move || worker::spawn(flush_logs(flusher, flush_interval)));
            handles.push(handle);
            threads.push(thread);
        }
        Ok(Self { handles, threads })
    }

    pub(super) fn handles(&self) -> Vec<WorkerHandle> {
        self.handles.clone()
    }

    pub(super) fn count(&self) -> usize {
        self.handles.len()
    }

    /// Ends the workers: connections close, log lines are handed over.
    pub(super) fn stop(self) {
        self.handles.iter().for_each(WorkerHandle::stop);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by panic");
            }
        }
    }
}

/// What a worker's thread holds from its first to its last moment.
struct Entered {
    shared: Arc<Shared>,
    _counting: stats::WorkerStats,
}

impl Entered {
    fn new(shared: Arc<Shared>) -> Self {
        let _counting = stats::enter_worker(&shared.registry);
        Self { shared, _counting }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // The lines of connections that ended with the worker.
        self.shared.sinks.flush_local();
    }
}

async fn flush_logs(shared: Arc<Shared>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        shared.sinks.flush_local();
    }
}
