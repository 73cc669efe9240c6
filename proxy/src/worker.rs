//! A worker: one OS thread with its own current-thread runtime and `!Send` state.
//!
//! Everything that serves traffic runs on a worker and stays there. The control thread talks to workers through [`WorkerHandle`]:
//! commands that run on the worker's thread. Tasks are spawned with [`spawn`]; a panic in one loses that task, not the worker.
use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

enum Command {
    Run(Box<dyn FnOnce() + Send>),
    Stop,
}

/// The control thread's end of one worker.
#[derive(Debug, Clone)]
pub(crate) struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl WorkerHandle {
    /// Runs `command` on the worker's thread, inside its runtime. Commands come only from the control thread, one per configuration
    /// change, so the queue needs no bound. False: the worker is gone.
    pub(crate) fn run(&self, command: impl FnOnce() + Send + 'static) -> bool {
        self.commands.send(Command::Run(Box::new(command))).is_ok()
    }

    /// Ends the worker: its tasks are dropped.
    pub(crate) fn stop(&self) {
        // An error means that it has ended already.
        let _ = self.commands.send(Command::Stop);
    }
}

/// Starts worker `index`; `enter` runs first on its thread (stat slots, thread-local state), what it returns is dropped last.
/// The thread ends at [`WorkerHandle::stop`], or when every handle is dropped.
///
/// # Errors
/// The thread or its runtime could not be made.
pub(crate) fn start<G>(
    index: usize,
    enter: impl FnOnce() -> G + Send + 'static,
) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "one command per configuration change, from the control thread only"
    )]
    let (commands, mut receiver) = mpsc::unbounded_channel::<Command>();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let _entered = enter();
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime, async move {
                while let Some(Command::Run(command)) = receiver.recv().await {
                    command();
                }
            });
            drop(tasks);
        })?;
    Ok((WorkerHandle { commands }, thread))
}

/// Spawns a task on the current worker.
pub(crate) fn spawn<F: Future<Output = ()> + 'static>(task: F) {
    tokio::task::spawn_local(task);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_task_does_not_end_the_worker() {
        let (worker, thread) = start(0, || {}).expect("a thread");
        worker.run(|| spawn(async { panic!("only this task") }));
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        worker.run(move || spawn(async move { tell.send(7).expect("the test listens") }));
        assert_eq!(told.recv_timeout(std::time::Duration::from_secs(5)), Ok(7));
        drop(worker);
        thread.join().expect("the worker ends quietly");
    }
}
