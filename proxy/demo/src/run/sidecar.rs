//! The processes of the demo: sidecars and applications, started again after a pause when somebody kills one.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;

use super::evidence::Evidence;
use super::state::{Event, PartState, Shared};

/// How long something that ended stays away, so that there is time to see what its users see.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// How often a sidecar writes its access log.
pub(super) const LOG_INTERVAL: Duration = Duration::from_millis(100);
/// Size at which a log begins anew.
const MAX_LOG_BYTES: u64 = 4 << 20;
/// Longest line of an access log that is read.
const MAX_LINE_BYTES: usize = 64 << 10;

/// What is needed to start one process, again and again.
#[derive(Clone)]
pub(super) struct Part {
    /// Place in the table.
    pub(super) row: usize,
    /// `bill-v1 sidecar`.
    pub(super) name: String,
    /// The workload.
    pub(super) pod: &'static str,
    /// This program.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
    /// For its logs.
    pub(super) folder: PathBuf,
    pub(super) evidence: Evidence,
    pub(super) shared: Shared,
}

impl Part {
    /// Starts it, and again a [`PAUSE`] after each end, until `stop` changes; then it is gone when this returns.
    pub(super) async fn keep(self, mut stop: watch::Receiver<bool>) {
        let mut is_first = true;
        loop {
            let why = match self.start() {
                Ok(mut child) => {
                    self.note_start(&child, is_first);
                    let logs = child
                        .stdout
                        .take()
                        .map(|stdout| tokio::spawn(self.clone().read_log(stdout)));
                    let ended = tokio::select! {
                        ended = child.wait() => ended,
                        _ = stop.changed() => {
                            // It may have ended by itself.
                            let _ = child.kill().await;
                            return;
                        }
                    };
                    drop(logs);
                    self.describe(ended)
                }
                Err(error) => format!("does not start: {error}"),
            };
            is_first = false;
            let again = Instant::now() + PAUSE;
            self.shared.say(
                Event::Ended,
                format!("{} {why}; it starts again in {} s", self.name, PAUSE.as_secs()),
            );
            self.set(PartState::Ended { why, again });
            tokio::select! {
                () = tokio::time::sleep_until(again.into()) => {}
                _ = stop.changed() => return,
            }
        }
    }

    fn start(&self) -> io::Result<Child> {
        let stderr = OpenOptions::new().create(true).append(true).open(self.stderr())?;
        Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // Else Ctrl-C reaches it before the demo can end it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    fn note_start(&self, child: &Child, is_first: bool) {
        let pid = child.id().unwrap_or(0);
        if !is_first {
            self.shared.say(
                Event::Restarted,
                format!("{} runs again, process {pid}", self.name),
            );
        }
        self.set(PartState::Running { pid });
    }

    fn set(&self, state: PartState) {
        self.shared
            .lock()
            .parts
            .insert(self.row, (self.name.clone(), state));
    }

    fn describe(&self, ended: io::Result<ExitStatus>) -> String {
        match ended {
            Ok(status) => {
                let how = how(status);
                match last_line(&self.stderr()).filter(|_| status.signal().is_none()) {
                    Some(line) => format!("{how}: {line}"),
                    None => how,
                }
            }
            Err(error) => format!("is lost: {error}"),
        }
    }

    fn stderr(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name.replace(' ', "-")))
    }

    /// Keeps the access log, and looks for failures in it. Ends with the process.
    async fn read_log(self, mut stdout: ChildStdout) {
        let path = self.folder.join(format!("{}-access.log", self.pod));
        let mut file = None;
        let mut chunk = vec![0; 16 << 10];
        let mut line = Vec::new();
        while let Ok(length @ 1..) = stdout.read(&mut chunk).await {
            let bytes = chunk.get(..length).unwrap_or_default();
            append(&mut file, &path, bytes);
            for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                if line.len() <= MAX_LINE_BYTES {
                    line.extend_from_slice(part);
                }
                if part.ends_with(b"\n") {
                    self.evidence.read(self.pod, &String::from_utf8_lossy(&line));
                    line.clear();
                }
            }
        }
    }
}

/// A log that cannot be written (the disk is full) is no reason to stop the demo: what matters is read from the pipe.
fn append(file: &mut Option<(File, u64)>, path: &Path, bytes: &[u8]) {
    if file.as_ref().is_none_or(|(_, written)| *written > MAX_LOG_BYTES) {
        *file = File::create(path).ok().map(|file| (file, 0));
    }
    if let Some((file, written)) = file {
        let _ = file.write_all(bytes);
        *written += bytes.len() as u64;
    }
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "was killed (SIGKILL)".to_owned(),
        (Some(15), _) => "was ended (SIGTERM)".to_owned(),
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, code) => format!("ended with status {}", code.unwrap_or_default()),
    }
}

/// The last line of a log, if there is one.
fn last_line(path: &Path) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines()
        .rfind(|line| !line.trim().is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_end_is_described_by_signal_or_status() {
        let check = |raw: i32, expected: &str| assert_eq!(how(ExitStatus::from_raw(raw)), expected);
        check(9, "was killed (SIGKILL)");
        check(15, "was ended (SIGTERM)");
        check(11, "was ended by signal 11");
        check(0, "ended with status 0");
        check(1 << 8, "ended with status 1");
    }

    #[test]
    fn a_log_begins_anew_when_it_is_large() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l");
        let mut file = None;
        append(&mut file, &path, b"a");
        append(&mut file, &path, b"b");
        assert_eq!(std::fs::read(&path).unwrap(), b"ab");
        file.as_mut().unwrap().1 = MAX_LOG_BYTES + 1;
        append(&mut file, &path, b"c");
        assert_eq!(std::fs::read(&path).unwrap(), b"c");
    }
}
